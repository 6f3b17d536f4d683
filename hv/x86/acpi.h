/*
 * Firmware tables (ACPI 6.5, 5.2): only looking them up. Nothing in them is trusted beyond its
 * checksum, and its absence is no error.
 */
#pragma once

#include "lib/types.h"

struct acpi_header {
	char signature[4];
	u32 length;
	u8 revision, checksum;
	char oem_id[6], oem_table_id[8];
	u32 oem_revision, creator_id, creator_revision;
} __packed;
_Static_assert(sizeof(struct acpi_header) == 36, "ACPI table header layout");

/* The table with this signature, mapped, its checksum right; NULL if there is none. rsdp may be 0.
 */
const struct acpi_header *acpi_find(hpa_t rsdp, const char *signature);
