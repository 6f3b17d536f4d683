FUZZ_task_switch := hv/vm/walk.c hv/vmx/entry_check.c hv/vmx/entry_controls.c hv/vmx/entry_guest.c \
	hv/vmx/entry_host.c hv/vmx/entry_segments.c
