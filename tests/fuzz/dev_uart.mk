FUZZ_dev_uart := hv/dev/uart.c
