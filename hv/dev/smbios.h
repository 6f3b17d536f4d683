/*
 * The SMBIOS tables of a VM (DMTF DSP0134, System Management BIOS Reference Specification 2.8): who
 * made the machine, and that it is a virtual one. Linux looks at the BIOS's date before it believes
 * in PCI configuration ports without a bus behind them. The entry point lies where kernels scan for
 * it, the structures behind the ACPI tables.
 */
#pragma once

#include "lib/types.h"

struct vm;

#define SMBIOS_ENTRY_BASE 0xf0000
#define SMBIOS_TABLE_BASE 0xe8000
#define SMBIOS_TABLE_MAX  512

struct smbios_entry { /* 5.2.1 */
	char anchor[4];
	u8 checksum, length, major, minor;
	u16 longest; /* structure, with its strings */
	u8 revision, formatted[5];
	char anchor2[5];
	u8 checksum2; /* from anchor2 on */
	u16 table_bytes;
	u32 table;
	u16 count;
	u8 bcd_revision;
} __packed;
_Static_assert(sizeof(struct smbios_entry) == 31, "5.2.1");

/* Builds the structures and the entry point to them. `name` is the VM's: the serial number. */
void smbios_build(const char *name, u8 table[SMBIOS_TABLE_MAX], struct smbios_entry *entry);

/* Writes them to guest memory. 0, or guest_write()'s error. */
int smbios_install(struct vm *vm);
