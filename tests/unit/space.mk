UNIT_space := hv/vm/space.c hv/vm/memory.c hv/ept/ept.c hv/ept/ept_table.c hv/ept/ept_gen.c hv/mem/frame.c tests/unit/ept_hw.c
