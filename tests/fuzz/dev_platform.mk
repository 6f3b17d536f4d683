FUZZ_dev_platform := $(filter-out hv/dev/wallclock.c,$(wildcard hv/dev/*.c))
