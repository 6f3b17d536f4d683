UNIT_ept_gen := hv/ept/ept_gen.c
$(BUILD)/unit/ept_gen: HOST_CFLAGS += -include tests/unit/ept_gen_hook.h
$(BUILD)/unit/ept_gen: tests/unit/ept_gen_hook.h
