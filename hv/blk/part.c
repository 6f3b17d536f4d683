/* Access to a partition, and to nothing else: see disk.h. */
#include "blk/disk.h"

static bool within(const struct disk_part *p, u64 sector, u32 count)
{
	return sector < p->sectors && count <= p->sectors - sector;
}

int part_read(const struct disk_part *p, u64 sector, u32 count, void *to)
{
	return within(p, sector, count) ? disk_read(p->first + sector, count, to) : ERR_RANGE;
}

int part_write(const struct disk_part *p, u64 sector, u32 count, const void *from)
{
	return within(p, sector, count) ? disk_write(p->first + sector, count, from) : ERR_RANGE;
}
