UNIT_frame := hv/mem/frame.c
