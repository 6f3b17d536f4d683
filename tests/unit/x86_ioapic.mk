UNIT_x86_ioapic := hv/x86/ioapic.c hv/x86/acpi.c
$(BUILD)/unit/x86_ioapic: HOST_CFLAGS += -include tests/unit/x86_ioapic_hook.h
$(BUILD)/unit/x86_ioapic: tests/unit/x86_ioapic_hook.h
