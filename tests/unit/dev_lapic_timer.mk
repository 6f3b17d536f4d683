UNIT_dev_lapic_timer := hv/dev/lapic.c hv/dev/lapic_timer.c
