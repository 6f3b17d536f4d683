UNIT_pager := hv/remote/pager.c hv/remote/stride.c
