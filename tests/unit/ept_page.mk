UNIT_ept_page := hv/ept/ept_page.c hv/ept/ept.c hv/ept/ept_table.c hv/ept/ept_gen.c hv/mem/frame.c \
	tests/unit/ept_hw.c
$(BUILD)/unit/ept_page: HOST_CFLAGS += -include tests/unit/ept_race_hook.h
