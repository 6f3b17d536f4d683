UNIT_core_policy := hv/vm/run.c hv/vm/cr.c hv/vm/msr.c hv/vm/dr.c hv/vm/cpuid.c hv/vm/vmcs_setup.c \
	hv/vm/vcpu.c hv/lib/print.c
$(BUILD)/unit/core_policy: HOST_CFLAGS += -include tests/unit/core_hook.h
$(BUILD)/unit/core_policy: tests/unit/core_hook.h
