/*
 * The memory map: what the firmware tells, turned into the sorted, non-overlapping ranges of the
 * hand-over. Portable C, unit-tested on the host. UEFI 2.x section 7.2 (GetMemoryMap).
 */
#pragma once

#include <umbra/boot_info.h>

#include "lib/types.h"

/* EFI_MEMORY_DESCRIPTOR version 1. The firmware's stride between two may be larger. */
struct memmap_descriptor {
	u32 type; /* EFI_MEMORY_TYPE */
	u32 pad;
	u64 physical;
	u64 virtual;
	u64 pages; /* of 4 KiB */
	u64 attribute;
};

_Static_assert(sizeof(struct memmap_descriptor) == 40, "EFI_MEMORY_DESCRIPTOR");

struct memmap {
	struct boot_range *range; /* sorted by base, page-aligned, neighbours of a type merged */
	u32 count, max;
};

/*
 * Adds [base, base + bytes). Bounds that are not page-aligned shrink usable memory and grow all
 * else. Where ranges overlap, the type that forbids more wins, and BOOT_MEM_UMBRA wins over all.
 * Returns 0, ERR_NOMEM if the map is full (then it is unchanged), ERR_INVAL if the range wraps.
 */
int memmap_add(struct memmap *map, u64 base, u64 bytes, u32 type);

/* Adds the firmware's `bytes` of descriptors, `stride` apart. Errors as memmap_add(). */
int memmap_add_firmware(struct memmap *map, const void *descriptors, size_t bytes, size_t stride);

/* The total of a type, in bytes. */
u64 memmap_sum(const struct memmap *map, u32 type);

/* The largest range of a type, in bytes. */
u64 memmap_largest(const struct memmap *map, u32 type);

/* The end of the highest range of RAM (every type but MMIO and reserved); 0 if there is none. */
u64 memmap_top(const struct memmap *map);
