UNIT_e1000 := hv/net/e1000.c
