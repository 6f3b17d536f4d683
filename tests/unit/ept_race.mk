UNIT_ept_race := hv/ept/ept.c hv/ept/ept_table.c hv/ept/ept_gen.c hv/mem/frame.c tests/unit/ept_hw.c
$(BUILD)/unit/ept_race: HOST_CFLAGS += -include tests/unit/ept_race_hook.h
$(BUILD)/unit/ept_race: tests/unit/ept_race_hook.h
