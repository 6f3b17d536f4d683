/* The machine's disk and its users: see disk.h. */
#include "blk/disk.h"

#include "blk/ata.h"
#include "lib/log.h"
#include "lib/spinlock.h"

static struct ata_disk disk; /* sectors = 0: none */
static struct spinlock lock;
static u32 told; /* kinds of failures that have been logged */

int disk_init(void)
{
	disk.sectors = 0;
	told = 0;
	for (u8 device = 0; device < 2; device++) {
		if (ata_identify(device, &disk)) {
			disk.sectors = 0;
			continue;
		}
		log_info("disk: %s, %llu MiB, %s of the primary IDE channel", disk.model,
			 (unsigned long long)(disk.sectors * DISK_SECTOR / MIB),
			 device ? "device 1" : "device 0");
		return 0;
	}
	return ERR_NODEV;
}

u64 disk_sectors(void)
{
	return disk.sectors;
}

static int complain(const char *what, u64 lba, int err)
{
	u32 kind = err == ERR_TIMEOUT ? BIT(0) : BIT(1);

	if (__atomic_fetch_or(&told, kind, __ATOMIC_RELAXED) & kind)
		return err;
	if (err == ERR_TIMEOUT)
		log_warn("disk: no answer to %s at sector %llu for %u s, status %#x", what,
			 (unsigned long long)lba, DISK_TIMEOUT_US / 1000000, disk.status);
	else
		log_warn("disk: %s failed at sector %llu: status %#x, error %#x", what,
			 (unsigned long long)lba, disk.status, disk.error);
	return err;
}

static int check(u64 lba, u32 count)
{
	if (!disk.sectors)
		return ERR_NODEV;
	return lba < disk.sectors && count <= disk.sectors - lba ? 0 : ERR_RANGE;
}

int disk_read(u64 lba, u32 count, void *to)
{
	u8 *out = to;
	int err = check(lba, count);

	while (!err && count) {
		u32 n = MIN(count, (u32)ATA_MAX_SECTORS);

		spin_lock(&lock);
		err = ata_read(&disk, lba, n, out);
		if (err)
			complain("reading", lba, err);
		spin_unlock(&lock);
		out += (size_t)n * DISK_SECTOR;
		lba += n;
		count -= n;
	}
	return err;
}

int disk_write(u64 lba, u32 count, const void *from)
{
	const u8 *in = from;
	int err = check(lba, count);

	while (!err && count) {
		u32 n = MIN(count, (u32)ATA_MAX_SECTORS);

		spin_lock(&lock);
		err = ata_write(&disk, lba, n, in);
		if (err)
			complain("writing", lba, err);
		spin_unlock(&lock);
		in += (size_t)n * DISK_SECTOR;
		lba += n;
		count -= n;
	}
	return err;
}

int disk_flush(void)
{
	int err;

	if (!disk.sectors)
		return ERR_NODEV;
	spin_lock(&lock);
	err = ata_flush(&disk);
	if (err)
		complain("flushing its cache", 0, err);
	spin_unlock(&lock);
	return err;
}
