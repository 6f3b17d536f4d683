UNIT_dev_console := hv/vm/console.c
