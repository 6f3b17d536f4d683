/*
 * Processors from the ACPI tables, where the firmware has no MP services. Portable C, unit-tested.
 * ACPI 6.x sections 5.2.5 (RSDP) to 5.2.12 (MADT).
 */
#pragma once

#include <umbra/boot_info.h>

#include "lib/types.h"

/* Gives a pointer to `bytes` of physical memory at `address`, or NULL. The loader's is identity. */
typedef const void *(*acpi_map_fn)(u64 address, size_t bytes);

/* The address of the table with this signature (4 bytes), or 0. `rsdp` is the RSDP's address. */
u64 acpi_find(u64 rsdp, const char *signature, acpi_map_fn map);

/*
 * Enabled processors of a MADT at `madt`, at most BOOT_MAX_CPUS, in its order; flags are 0. Returns
 * how many the table has (which may be more), 0 if it is damaged.
 */
u32 acpi_cpus(u64 madt, struct boot_cpu *cpus, acpi_map_fn map);
