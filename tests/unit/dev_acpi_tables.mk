UNIT_dev_acpi_tables := hv/dev/acpi_tables.c hv/pmem/vnfit.c hv/pmem/nfit.c
$(BUILD)/unit/dev_acpi_tables: $(BUILD)/gen/dsdt.h
