/*
 * The host's NFIT (nfit_layout.h): which physical ranges persist, which NVDIMMs they lie on, and
 * where to write so that a memory controller's queue is emptied to an NVDIMM.
 *
 * Portable C without global state. The table is firmware's, that is untrusted: nfit_parse() takes
 * all of it or refuses it.
 */
#pragma once

#include "lib/types.h"

#define NFIT_MAX_RANGES	  32
#define NFIT_MAX_MAPPINGS 128
#define NFIT_MAX_CONTROLS 64
#define NFIT_MAX_DIMMS	  64  /* with flush hints */
#define NFIT_MAX_HINTS	  256 /* of all NVDIMMs together */
#define NFIT_ADDRESS_MAX  BIT64(52)

enum nfit_kind {
	NFIT_PERSISTENT,
	NFIT_VOLATILE,
	NFIT_OTHER /* control regions, block windows, virtual disks: not for us */
};

struct nfit_range {
	u16 index;
	enum nfit_kind kind;
	u64 base, bytes; /* host-physical, whole pages; no two ranges that are not OTHER overlap */
	u64 attributes;
};

struct nfit_mapping {
	u32 handle;  /* of the NVDIMM */
	u16 spa;     /* index of a range that is in the table, or 0 */
	u16 control; /* likewise of a control region */
	u16 ways;
	u64 bytes, offset;
};

struct nfit_control {
	u16 index, vendor, device, format;
	u32 serial;
};

struct nfit_dimm {
	u32 handle;
	u16 first, count; /* in nfit.hint[] */
};

struct nfit {
	u32 ranges, mappings, controls, dimms, hints;
	u32 caps; /* NFIT_CAP_*, only bits that the platform says it defines */
	bool has_caps;
	struct nfit_range range[NFIT_MAX_RANGES];
	struct nfit_mapping mapping[NFIT_MAX_MAPPINGS];
	struct nfit_control control[NFIT_MAX_CONTROLS];
	struct nfit_dimm dimm[NFIT_MAX_DIMMS];
	/* Host-physical, 8-byte aligned, in no range; those of one NVDIMM are all different, but
	 * several may have the same. */
	u64 hint[NFIT_MAX_HINTS];
};

/*
 * Parses `bytes` bytes at `table` into *out. 0, or ERR_INVAL (malformed: *why says what is wrong,
 * *where at which offset), or ERR_RANGE (more of something than we have room for). Structures of
 * unknown types are skipped, as 5.2.25.1 asks.
 */
int nfit_parse(const void *table, size_t bytes, struct nfit *out, const char **why, u32 *where);

/*
 * The NVDIMMs with flush hints that the range lies on: indices of nfit->dimm[] in dimm[], each
 * once; returns how many. *all: every NVDIMM of the range has some.
 */
u32 nfit_range_dimms(const struct nfit *nfit, const struct nfit_range *range,
		     u16 dimm[NFIT_MAX_DIMMS], bool *all);
