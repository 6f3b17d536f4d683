FUZZ_dev_pit := hv/dev/pit.c
