/*
 * Saved persistent memory as it lies in its partition (docs/pmem.md, "Saving"). Little-endian;
 * sectors of 512 bytes, counted from the partition's start or, in an area, from the area's.
 *
 *   0, 8                two copies of the directory: which regions there are, and where
 *   16 ...              areas, one for each region, one behind the other:
 *     0                 session: what the VM has been running with since
 *     8, 16             the two headers, each the commit record of one generation
 *     24 ...            the two maps: an entry for each page
 *     behind the maps   pages, each with two places: a generation uses the one, and while it is the
 *                       newest complete one, what is written for the next goes to the other
 *
 * Whatever may be rewritten starts at a multiple of 8 sectors, so that a disk with physical sectors
 * of 4 KiB that loses power while it writes one damages nothing else.
 *
 * All checksums are CRC-32 (lib/crc32.h), with the field itself taken as 0.
 */
#pragma once

#include "lib/types.h"

/* Type of the partition: C4F19B0E-6D0B-4C43-9A5B-2E1C7F3AD652; the first three fields are
 * little-endian on the disk. */
#define SAVE_PARTITION_TYPE                                                                   \
	{                                                                                     \
		0x0e, 0x9b, 0xf1, 0xc4, 0x0b, 0x6d, 0x43, 0x4c, 0x9a, 0x5b, 0x2e, 0x1c, 0x7f, \
			0x3a, 0xd6, 0x52                                                      \
	}

#define SAVE_VERSION 1
#define SAVE_ALIGN   8 /* sectors */

#define SAVE_DIR_BYTES	 4096
#define SAVE_DIR_SECTORS 8
#define SAVE_DIR_COPIES	 2
#define SAVE_DIR_MAX	 63
#define SAVE_AREAS	 (SAVE_DIR_COPIES * SAVE_DIR_SECTORS) /* where the first one is */

struct save_dir_entry {
	char vm[32]; /* its name, NUL-terminated, rest 0 */
	u32 number;  /* of the VM's region, from 0 */
	u32 reserved;
	u64 bytes;	    /* of the region, without labels */
	u64 first, sectors; /* the area */
};

struct save_dir {
	u8 magic[8];
	u32 version, count;
	u64 generation; /* the higher one counts */
	u32 crc;	/* of all 4096 bytes */
	u8 reserved[36];
	struct save_dir_entry entry[SAVE_DIR_MAX];
};
#define SAVE_DIR_MAGIC "UMBRAPMD"

enum { /* sectors of an area */
	SAVE_SESSION_AT = 0,
	SAVE_HEADER_AT = 8, /* + 8 for the second */
	SAVE_MAPS_AT = 24,
};

/* Written before the VM starts: it runs with memory that was that of `generation`. While no later
 * generation is complete it has not been saved. All zeroes: it has never run. */
struct save_session {
	u8 magic[8];
	u64 generation;
	u32 crc; /* of these 24 bytes */
	u32 reserved;
};
#define SAVE_SESSION_MAGIC "UMBRAPMS"

struct save_header {
	u8 magic[8];
	u32 version;
	u32 number;
	char vm[32];
	u64 bytes;
	u64 pages; /* labels included */
	u64 generation;
	u32 map_crc; /* of the map with the same index as this header */
	u32 crc;     /* of these 80 bytes */
};
#define SAVE_HEADER_MAGIC "UMBRAPMH"

enum {		       /* where a page is */
	SAVE_ZERO = 0, /* nowhere: it is all zeroes, and the checksum is 0 */
	SAVE_FIRST = 1,
	SAVE_SECOND = 2
};

struct save_entry {
	u32 crc;   /* of the page, started with its number instead of 0 */
	u32 place; /* SAVE_ZERO, FIRST, SECOND */
};

_Static_assert(sizeof(struct save_dir_entry) == 64 && sizeof(struct save_dir) == SAVE_DIR_BYTES &&
		       offsetof(struct save_dir, entry) == 64,
	       "directory");
_Static_assert(sizeof(struct save_session) == 24 && sizeof(struct save_header) == 80 &&
		       offsetof(struct save_header, bytes) == 48,
	       "session and header");
_Static_assert(sizeof(struct save_entry) == 8, "map");
