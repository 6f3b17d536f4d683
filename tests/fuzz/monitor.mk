FUZZ_monitor := $(wildcard hv/mon/*.c) hv/vm/walk.c hv/vmx/exit_name.c hv/lib/print.c
