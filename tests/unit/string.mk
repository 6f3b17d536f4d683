UNIT_string := hv/lib/print.c
