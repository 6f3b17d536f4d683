FUZZ_dev_i8042 := hv/dev/i8042.c hv/dev/pci.c
