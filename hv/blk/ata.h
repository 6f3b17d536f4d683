/*
 * An ATA disk on the primary channel in compatibility mode, by programmed I/O (PIO): registers at
 * ports 0x1f0 to 0x1f7 and 0x3f6, no interrupts. ATA8-ACS for the commands, ATA/ATAPI-7 volume 2
 * for the registers and the protocol.
 *
 * One caller at a time. What disk.h says of time-outs and errors holds here; nothing is logged.
 */
#pragma once

#include "lib/types.h"

#define ATA_MAX_SECTORS 256 /* in one command, without the 48-bit ones */

struct ata_disk {
	u64 sectors;
	u8 device; /* 0 or 1 */
	bool lba48;
	bool flushes; /* has a FLUSH CACHE command; one without has no cache that would need it */
	bool flush48;
	char model[41];
	u8 status, error; /* registers after the last failure */
};

/* 0 and the device described, or ERR_NODEV: none, no ATA disk, or one with larger sectors. */
int ata_identify(u8 device, struct ata_disk *out);

/* `count` sectors, 1 to ATA_MAX_SECTORS, that lie on the disk. */
int ata_read(struct ata_disk *d, u64 lba, u32 count, void *to);
int ata_write(struct ata_disk *d, u64 lba, u32 count, const void *from);
int ata_flush(struct ata_disk *d);
