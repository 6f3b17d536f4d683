FUZZ_dev_ioapic := hv/dev/ioapic.c
