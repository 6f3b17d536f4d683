/*
 * The machine's disk: the first of the two on the primary IDE channel (ata.h) that answers, and the
 * partition on it that is ours. At most one disk; all sectors have 512 bytes.
 *
 * Every function that moves data takes the disk's lock and waits for the disk, busily: milliseconds
 * as a rule, DISK_TIMEOUT_US at worst. Errors: ERR_NODEV there is no disk, ERR_RANGE beyond its
 * end, ERR_TIMEOUT it does not answer, ERR_IO it reports a failure; the last two have been logged,
 * once for each kind.
 */
#pragma once

#include "lib/types.h"

#define DISK_SECTOR	512
#define DISK_TIMEOUT_US 10000000 /* a disk that has to spin up first takes seconds */

/* Looks for the disk; says what was found in the log. 0 or ERR_NODEV. BSP, once. */
int disk_init(void);
u64 disk_sectors(void); /* 0: no disk */

int disk_read(u64 lba, u32 count, void *to);
int disk_write(u64 lba, u32 count, const void *from);
/* What has been written is on the medium when this returns. */
int disk_flush(void);

/* A part of the disk; sectors are counted from its start, and none beyond its end is touched. */
struct disk_part {
	u64 first, sectors;
};

int part_read(const struct disk_part *p, u64 sector, u32 count, void *to);
int part_write(const struct disk_part *p, u64 sector, u32 count, const void *from);
