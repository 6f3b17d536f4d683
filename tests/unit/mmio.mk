UNIT_mmio := hv/vm/walk.c
INCLUDED_mmio := hv/vm/linear.c hv/emu/mmio.c
