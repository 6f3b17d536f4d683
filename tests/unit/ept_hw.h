/*
 * EPT as the processor reads it, written from SDM 3C 29.3 with literal bit numbers and sharing
 * nothing with hv/ept: the reference that the engine is compared with.
 */
#pragma once

#include "lib/types.h"

struct hw_page {
	bool present;	    /* bits 2:0 (or 10 with MBEC) of every entry on the way are not all 0 */
	unsigned int shift; /* of the leaf, or of the entry that is not present */
	u64 frame;
	u64 perms; /* bits 0-2 and 10, of all entries and-ed */
	unsigned int type;
	bool accessed, dirty;
	u64 *entry;
};

/* A walk of the hierarchy; ends the test where the processor would report a misconfiguration. */
struct hw_page hw_walk(u64 eptp, u64 at, bool mbec, bool xo);

/* A guest's write: walks, sets A and D where EPTP says so, as one locked operation each. */
bool hw_write(u64 eptp, u64 at);

/* Number of tables that can be reached from eptp. Checks every entry of every table. */
u64 hw_check(u64 eptp, bool mbec, bool xo);
