FUZZ_dev_lapic := hv/dev/lapic.c hv/dev/lapic_timer.c
