FUZZ_dev_pic := hv/dev/pic.c
