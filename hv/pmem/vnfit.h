/*
 * A guest's NFIT (ACPI 6.5, 5.2.25): for each region a range, an NVDIMM of its own that is mapped
 * to it, that NVDIMM's control region and flush hints; then the platform's capabilities. One
 * virtual NVDIMM for each region, so that one store to a hint covers all physical controllers.
 * A volatile range has no NVDIMM: for such a mapping Linux (6.1) finds none, and then refuses the
 * whole table.
 */
#pragma once

#include "lib/types.h"
#include "pmem/pmem_layout.h"

struct vnfit_region {
	u64 base, bytes; /* guest-physical */
	bool persists;	 /* else the range says that it is volatile */
	u64 hints;	 /* guest-physical, of the first of PMEM_HINTS */
	u16 state;	 /* NFIT_STATE_* of the NVDIMM */
	u32 serial;	 /* of the NVDIMM, 24 bits: the same each time the VM starts */
};

/* The NVDIMM's handle, which is its _ADR. */
#define VNFIT_HANDLE(n) ((n) + 1)

#define VNFIT_MAX (PMEM_REGIONS * (56 + 48 + 32 + 16 + 8 * PMEM_HINTS) + 16)

/* All structures behind the table's header; caps: NFIT_CAP_*. Returns their bytes. */
u32 vnfit_build(const struct vnfit_region *region, u32 count, u32 caps, u8 out[VNFIT_MAX]);
