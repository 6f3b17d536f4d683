UNIT_dev_console := hv/vm/console.c hv/vm/console_keys.c hv/lib/print.c
