/*
 * The ACPI tables of a VM (ACPI specification 6.5, 5.2): RSDP, RSDT and XSDT, FADT, FACS, MADT, and
 * the DSDT that dsdt.asl was compiled to. They lie at ACPI_TABLES_BASE in guest memory.
 */
#pragma once

#include "dev/acpi_layout.h"
#include "lib/types.h"

struct vm;

/* What differs between VMs. */
struct acpi_config {
	u32 vcpus;	  /* local APIC IDs 0 to vcpus - 1 */
	u32 virtio_mmio;  /* bit n: device n is there */
	u32 nvdimms;	  /* likewise */
	const void *nfit; /* what comes after the NFIT's header; 0 bytes: no NFIT */
	u32 nfit_bytes;
};

/* At ACPI_INFO_BASE, for the AML: the rest of ACPI_INFO_BYTES reads 0. */
struct acpi_info {
	u32 magic; /* ACPI_INFO_MAGIC */
	u32 vcpus;
	u32 virtio_mmio;
	u32 nvdimms;
};

/* Room for what acpi_tables_build() makes. */
#define ACPI_TABLES_MAX 8192

/* Fills `image` with the tables as they are to lie from ACPI_TABLES_BASE on; returns their bytes.
 */
u32 acpi_tables_build(const struct acpi_config *config, u8 image[ACPI_TABLES_MAX]);

/* Writes tables and information block to guest memory. 0, or ERR_NOMEM, or guest_write()'s error.
 */
int acpi_tables_install(struct vm *vm, const struct acpi_config *config);
