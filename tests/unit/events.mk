UNIT_events := hv/vm/events.c
$(BUILD)/unit/events: HOST_CFLAGS += -include tests/unit/events_hook.h
$(BUILD)/unit/events: tests/unit/events_hook.h
