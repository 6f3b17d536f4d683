UNIT_watch := hv/vm/run.c hv/vm/trace.c hv/vm/profile.c hv/vm/stats.c hv/lib/print.c
$(BUILD)/unit/watch: HOST_CFLAGS += -include tests/unit/core_hook.h
$(BUILD)/unit/watch: tests/unit/core_hook.h
