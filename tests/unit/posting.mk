UNIT_posting := hv/vm/run.c hv/vm/events.c $(filter-out hv/dev/wallclock.c,$(wildcard hv/dev/*.c)) \
	hv/lib/print.c
$(BUILD)/unit/posting: HOST_CFLAGS += -include tests/unit/posting_hook.h
$(BUILD)/unit/posting: tests/unit/posting_hook.h
