UNIT_acpi := boot/acpi.c
