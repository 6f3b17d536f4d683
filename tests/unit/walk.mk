UNIT_walk := hv/vm/walk.c
