UNIT_log := hv/lib/log.c hv/lib/print.c
