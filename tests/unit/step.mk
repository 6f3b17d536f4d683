INCLUDED_step := hv/vm/step.c
