/*
 * Where a guest finds what belongs to its persistent regions: for pmem.c and for the AML (dsdt.asl,
 * which goes through the C preprocessor): only #define here, and plain numbers.
 */
#pragma once

#define PMEM_REGIONS 4

/* Label storage area of region n (ACPI 6.5, 6.5.10): its bytes, and a page that belongs to nobody,
 * because the AML always moves PMEM_LABEL_TRANSFER bytes. */
#define PMEM_LABELS_BASE    0xd1000000
#define PMEM_LABELS_STRIDE  0x21000
#define PMEM_LABELS_BYTES   0x20000
#define PMEM_LABEL_TRANSFER 0x400

/* Page with the flush hints of region n. */
#define PMEM_HINTS_BASE	  0xd2000000
#define PMEM_HINTS_STRIDE 0x1000
#define PMEM_HINTS	  8
#define PMEM_HINT_STRIDE  64
