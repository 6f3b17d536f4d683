UNIT_sched := hv/vm/sched.c
$(BUILD)/unit/sched: HOST_CFLAGS += -include tests/unit/sched_hook.h
$(BUILD)/unit/sched: tests/unit/sched_hook.h
