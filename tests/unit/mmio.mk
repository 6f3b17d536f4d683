UNIT_mmio := hv/vm/walk.c
