UNIT_x86_acpi := hv/x86/acpi.c
