/*
 * The NFIT (ACPI 6.5, 5.2.25) as a kernel finds it, as far as test kernels ask: its first four
 * ranges with their flush hints, and how many structures of each type there are.
 */
#pragma once

#include "lib.h"

#define NFIT_HINTS   8
#define NFIT_REGIONS 4

struct nfit_region {
	u64 base, bytes, hint[NFIT_HINTS];
	u32 handle, hints;
	bool persistent;
};

struct nfit {
	u32 regions;	   /* of these ranges */
	u32 structures[8]; /* by type */
	u32 caps, highest; /* platform capabilities: bits, and the highest that means something */
	struct nfit_region region[NFIT_REGIONS];
};

/* False: there is none, or its checksum is wrong. */
bool nfit_read(struct nfit *out);
