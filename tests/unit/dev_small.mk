UNIT_dev_small := hv/dev/i8042.c hv/dev/pci.c
