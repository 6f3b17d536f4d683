/* ATA disks by PIO: see ata.h. */
#include "blk/ata.h"

#include "blk/disk.h"
#include "lib/string.h"
#include "x86/asm.h"
#include "x86/tsc.h"

enum { /* ports of the primary channel */
	ATA_DATA = 0x1f0,
	ATA_ERROR = 0x1f1,
	ATA_COUNT = 0x1f2,
	ATA_LBA_LOW = 0x1f3,
	ATA_LBA_MID = 0x1f4,
	ATA_LBA_HIGH = 0x1f5,
	ATA_DEVICE = 0x1f6,
	ATA_STATUS = 0x1f7,
	ATA_COMMAND = 0x1f7,
	ATA_CONTROL = 0x3f6,
	ATA_ALT_STATUS = 0x3f6,
};

#define STATUS_BSY  BIT(7)
#define STATUS_DF   BIT(5)
#define STATUS_DRQ  BIT(3)
#define STATUS_ERR  BIT(0)
#define STATUS_NONE 0xff /* nothing drives the bus */

#define DEVICE_LBA  0xe0 /* with the bits that were once fixed */
#define CONTROL_IEN BIT(1)

enum {
	CMD_READ = 0x20,
	CMD_READ_EXT = 0x24,
	CMD_WRITE = 0x30,
	CMD_WRITE_EXT = 0x34,
	CMD_FLUSH = 0xe7,
	CMD_FLUSH_EXT = 0xea,
	CMD_IDENTIFY = 0xec,
};

#define WORDS	    (DISK_SECTOR / 2)
#define LBA28_LIMIT BIT64(28)
#define LBA48_LIMIT BIT64(48)

/* The status is valid 400 ns after a command or a change of device: four reads of a port take that
 * long. */
static void settle(void)
{
	for (unsigned int i = 0; i < 4; i++)
		inb(ATA_ALT_STATUS);
}

static int failed(struct ata_disk *d, int err, u8 status)
{
	d->status = status;
	d->error = inb(ATA_ERROR);
	return err;
}

/* Until the device is not busy and, with `data`, has or wants a sector. */
static int wait(struct ata_disk *d, bool data)
{
	u64 start = rdtsc(), limit = tsc_from_us(DISK_TIMEOUT_US);
	u8 status;

	for (;;) {
		status = inb(ATA_STATUS);
		if (!(status & STATUS_BSY)) {
			if (status & (STATUS_ERR | STATUS_DF))
				return failed(d, ERR_IO, status);
			if (!data || (status & STATUS_DRQ))
				return 0;
		}
		if (rdtsc() - start > limit)
			return failed(d, ERR_TIMEOUT, status);
		cpu_relax();
	}
}

static int select(struct ata_disk *d, u8 bits)
{
	u64 start = rdtsc(), limit = tsc_from_us(DISK_TIMEOUT_US);
	u8 status;

	outb(ATA_DEVICE, (u8)(DEVICE_LBA | d->device << 4 | bits));
	settle();
	/* An error of the command before may still be shown; the next one clears it. */
	while ((status = inb(ATA_STATUS)) & (STATUS_BSY | STATUS_DRQ)) {
		if (rdtsc() - start > limit)
			return failed(d, ERR_TIMEOUT, status);
		cpu_relax();
	}
	return 0;
}

/* A command with an address: the second half of each register first, with 48 bits. */
static int command(struct ata_disk *d, u8 code28, u8 code48, u64 lba, u32 count)
{
	bool wide = lba + count > LBA28_LIMIT && d->lba48;
	int err = select(d, wide ? 0 : (lba >> 24) & 0xf);

	if (err)
		return err;
	if (wide) {
		outb(ATA_COUNT, (u8)(count >> 8));
		outb(ATA_LBA_LOW, (u8)(lba >> 24));
		outb(ATA_LBA_MID, (u8)(lba >> 32));
		outb(ATA_LBA_HIGH, (u8)(lba >> 40));
	}
	outb(ATA_COUNT, (u8)count); /* 0 means 256 */
	outb(ATA_LBA_LOW, (u8)lba);
	outb(ATA_LBA_MID, (u8)(lba >> 8));
	outb(ATA_LBA_HIGH, (u8)(lba >> 16));
	outb(ATA_COMMAND, wide ? code48 : code28);
	settle();
	return 0;
}

/* What IDENTIFY DEVICE returned (ATA8-ACS 7.16). */
static int describe(struct ata_disk *d, const u16 id[WORDS])
{
	bool commands = (id[83] & 0xc000) == 0x4000; /* words 82 and 83 mean something */

	/* Addresses by LBA; words 106, 117: logical sectors longer than 256 words. */
	if (!(id[49] & BIT(9)) || ((id[106] & 0xd000) == 0x5000))
		return ERR_NODEV;
	d->lba48 = commands && (id[83] & BIT(10));
	d->flushes = commands && (id[83] & (BIT(12) | BIT(13)));
	d->flush48 = commands && (id[83] & BIT(13));
	d->sectors = id[60] | (u64)id[61] << 16;
	if (d->lba48)
		d->sectors = id[100] | (u64)id[101] << 16 | (u64)id[102] << 32 | (u64)id[103] << 48;
	if (!d->sectors || d->sectors > (d->lba48 ? LBA48_LIMIT : LBA28_LIMIT))
		return ERR_NODEV;
	for (unsigned int i = 0; i < 20; i++) {
		d->model[2 * i] = (char)(id[27 + i] >> 8);
		d->model[2 * i + 1] = (char)id[27 + i];
	}
	for (unsigned int i = 0; i < 40; i++)
		if (d->model[i] < ' ' || d->model[i] > '~')
			d->model[i] = ' ';
	for (unsigned int i = 40; i && d->model[i - 1] == ' '; i--)
		d->model[i - 1] = 0;
	return 0;
}

int ata_identify(u8 device, struct ata_disk *d)
{
	u16 id[WORDS];
	int err;

	memset(d, 0, sizeof(*d));
	d->device = device;
	if (inb(ATA_STATUS) == STATUS_NONE)
		return ERR_NODEV;
	outb(ATA_CONTROL, CONTROL_IEN); /* no interrupts */
	if (select(d, 0))
		return ERR_NODEV;
	outb(ATA_COUNT, 0);
	outb(ATA_LBA_LOW, 0);
	outb(ATA_LBA_MID, 0);
	outb(ATA_LBA_HIGH, 0);
	outb(ATA_COMMAND, CMD_IDENTIFY);
	settle();
	/* 0: there is no such device. Others than disks abort the command and leave a signature. */
	if (!inb(ATA_STATUS))
		return ERR_NODEV;
	err = wait(d, true);
	if (err || inb(ATA_LBA_MID) || inb(ATA_LBA_HIGH))
		return ERR_NODEV;
	insw(ATA_DATA, id, WORDS);
	return describe(d, id);
}

int ata_read(struct ata_disk *d, u64 lba, u32 count, void *to)
{
	u8 *out = to;
	int err = command(d, CMD_READ, CMD_READ_EXT, lba, count);

	for (u32 i = 0; !err && i < count; i++) {
		err = wait(d, true);
		if (!err)
			insw(ATA_DATA, out + (size_t)i * DISK_SECTOR, WORDS);
	}
	return err;
}

int ata_write(struct ata_disk *d, u64 lba, u32 count, const void *from)
{
	const u8 *in = from;
	int err = command(d, CMD_WRITE, CMD_WRITE_EXT, lba, count);

	for (u32 i = 0; !err && i < count; i++) {
		err = wait(d, true);
		if (!err) {
			outsw(ATA_DATA, in + (size_t)i * DISK_SECTOR, WORDS);
			settle();
		}
	}
	return err ? err : wait(d, false);
}

int ata_flush(struct ata_disk *d)
{
	int err;

	if (!d->flushes)
		return 0;
	err = select(d, 0);
	if (err)
		return err;
	outb(ATA_COMMAND, d->flush48 ? CMD_FLUSH_EXT : CMD_FLUSH);
	settle();
	return wait(d, false);
}
