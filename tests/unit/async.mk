UNIT_async := hv/remote/async.c hv/remote/pager.c hv/remote/stride.c
$(BUILD)/unit/async: HOST_CFLAGS += -include tests/unit/async_hook.h
$(BUILD)/unit/async: tests/unit/async_hook.h
