FUZZ_dev_rtc := hv/dev/rtc.c
