/*
 * Saves of persistent regions on a partition: the format is in save_layout.h.
 *
 * A save is a generation: all pages of a region and its labels as they were at one moment. Pages
 * are written one by one at any time (save_page()), to places that the newest complete generation
 * does not use; save_commit() makes them the next generation by writing the map and then, when all
 * of that is on the medium, one sector. What goes wrong before, by loss of power or by a bad disk,
 * leaves the generation before as it was. What goes wrong later is seen by checksums: of each page,
 * of the map, of header and directory.
 *
 * Portable C over part_read(), part_write() and disk_flush() (blk/disk.h). No locks: one caller at
 * a time for each region, and save_open() for one region at a time. The memory belongs to the
 * caller.
 */
#pragma once

#include "blk/disk.h"
#include "lib/types.h"
#include "pmem/save_layout.h"

struct save_region {
	/* the caller's, before save_open() */
	const char *vm;
	u32 number;
	u64 bytes;		/* of data; whole pages */
	u64 pages;		/* of data and labels */
	u8 *data, *labels;	/* labels: the pages behind the data's */
	struct save_entry *map; /* save_map_bytes(pages), zeroed */
	u8 *kept;		/* `pages` bytes, zeroed */
	u64 limit; /* writes fail once `written` sectors are that many: SAVE_NO_LIMIT */
	/* save.c's: */
	u64 first;	/* of the area */
	u64 generation; /* the newest complete one */
	u32 current;	/* index of its header and map */
	u64 written;	/* sectors: the caller may set it back to 0 */
};
#define SAVE_NO_LIMIT (~0ull)

enum save_outcome {
	SAVE_NEW,     /* there was no area yet: all zeroes */
	SAVE_GOOD,    /* what the VM had when it last ended */
	SAVE_UNSAVED, /* the VM has run since without being saved: what it had when it began */
	SAVE_OLDER,   /* the newest save is damaged, the one before is intact */
	SAVE_DAMAGED, /* no save is intact: all zeroes */
};

/* Sectors of the area for a region, so many pages with the labels. */
u64 save_area_sectors(u64 pages);
/* Bytes of save_region.map: whole sectors. */
u64 save_map_bytes(u64 pages);

/*
 * Reads the directory of the partition, or makes one if it is blank (its first 8 KiB are zero). 0;
 * ERR_INVAL: it holds something else; or the disk's error. With an error *why says in words.
 */
int save_store_open(const struct disk_part *part, const char **why);

/*
 * Finds the region's area, or makes one, and fills memory, map and the rest of *r with the newest
 * intact generation. Memory is all of one generation or all zeroes, never mixed; where bytes that
 * were read are wrong, *why says which, with SAVE_UNSAVED, OLDER and DAMAGED too.
 *
 * Errors: ERR_NOMEM the partition is full, ERR_EXIST there is a save of another size under this
 * name, or the disk's. Then nothing may be saved, and memory is all zeroes.
 */
int save_open(struct save_region *r, enum save_outcome *outcome, const char **why);

/* The VM is about to run. */
int save_begin(struct save_region *r);

/* The page as it is in memory now. It may be written to meanwhile if it is saved again before the
 * next commit. */
int save_page(struct save_region *r, u64 page);

/* All pages that have changed since the last commit have been saved: they are a generation now. */
int save_commit(struct save_region *r);

/* What save_commit() writes, in sectors. */
u64 save_commit_sectors(u64 pages);
