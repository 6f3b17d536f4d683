UNIT_entry_check := hv/vmx/entry_check.c hv/vmx/entry_controls.c hv/vmx/entry_host.c \
	hv/vmx/entry_guest.c hv/vmx/entry_segments.c hv/vmx/exit_name.c \
	tests/unit/entry_check_cases.h
