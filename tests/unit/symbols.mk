UNIT_symbols := hv/lib/symbols.c
