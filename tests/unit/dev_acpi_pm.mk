UNIT_dev_acpi_pm := hv/dev/acpi_pm.c
