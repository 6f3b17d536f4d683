UNIT_dev_ports := $(filter-out hv/dev/wallclock.c,$(wildcard hv/dev/*.c))
