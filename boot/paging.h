/*
 * The page tables of the hand-over (include/umbra/boot_info.h). Portable C, unit-tested on the
 * host. SDM volume 3A section 4.5.
 */
#pragma once

#include "lib/types.h"

struct paging_plan {
	u64 top; /* all below it is mapped identically and at DIRECT_MAP_BASE; at least 4 GiB */
	u64 image_virt, image_phys, image_bytes; /* the first two 2 MiB-aligned, in the top 2 GiB */
	bool pages_1g;				 /* CPUID.80000001H:EDX[26] */
};

#define PAGING_TOP_MAX (1ull << 46) /* half of what the direct map has room for */

/* How many pages of tables paging_build() fills. */
u64 paging_pages(const struct paging_plan *plan);

/*
 * Builds the tables in `pool`, paging_pages() long, which lies at physical address `pool_phys`; the
 * root is its first page. EFER.NXE must be set where they are used: the direct map is not
 * executable.
 */
void paging_build(const struct paging_plan *plan, void *pool, u64 pool_phys);
