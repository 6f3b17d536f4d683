UNIT_control := hv/vm/control.c hv/dev/skip_time.c
$(BUILD)/unit/control: HOST_CFLAGS += -include tests/unit/core_hook.h
$(BUILD)/unit/control: tests/unit/core_hook.h
