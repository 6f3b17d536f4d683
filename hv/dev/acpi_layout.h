/*
 * Numbers that the ACPI tables, their AML (dsdt.asl, which goes through the C preprocessor) and the
 * devices must agree on: only #define here, and plain numbers.
 */
#pragma once

/* Guest-physical, reserved in the memory map: the tables, RSDP first. */
#define ACPI_TABLES_BASE  0xe0000
#define ACPI_TABLES_BYTES 0x10000
/* struct acpi_info: the block that the AML looks at. */
#define ACPI_INFO_BASE	0xeff00
#define ACPI_INFO_BYTES 0x100
#define ACPI_INFO_MAGIC 0x52424d55 /* "UMBR" */

/* Fixed hardware: ports, and the interrupt. */
#define ACPI_PM_BASE  0x600
#define ACPI_PM_BYTES 12
#define ACPI_IRQ_SCI  9
/* SLP_TYP of S5, soft-off: as PIIX4 has it. */
#define ACPI_SLP_TYP_S5 0

/* virtio-mmio device n. */
#define VIRTIO_MMIO_BASE   0xd0000000
#define VIRTIO_MMIO_STRIDE 0x1000
#define VIRTIO_MMIO_GSI	   16
#define VIRTIO_MMIO_COUNT  8
