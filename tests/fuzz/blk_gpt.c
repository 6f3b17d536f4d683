/*
 * Any bytes as the start and the end of a disk: a partition that is found lies on the disk, clear
 * of the tables. Signature and checksums are put right first, as the first byte says.
 */
#include <stdlib.h>
#include <string.h>

#include "blk/gpt.h"
#include "lib/crc32.h"

#define SECTORS 200
#define CHECK(cond)              \
	do {                     \
		if (!(cond))     \
			abort(); \
	} while (0)

static uint8_t disk[SECTORS][DISK_SECTOR];

u64 disk_sectors(void)
{
	return SECTORS;
}

int disk_read(u64 lba, u32 count, void *to)
{
	if (lba >= SECTORS || count > SECTORS - lba)
		return ERR_RANGE;
	memcpy(to, disk[lba], (size_t)count * DISK_SECTOR);
	return 0;
}

static void mend(uint32_t lba)
{
	uint8_t *h = disk[lba];
	uint64_t here = lba, entries;
	uint32_t count, bytes, crc, zero = 0, header = 92;

	memcpy(h, "EFI PART", 8);
	memcpy(h + 12, &header, 4);
	memcpy(h + 24, &here, 8);
	memcpy(&entries, h + 72, 8);
	memcpy(&count, h + 80, 4);
	memcpy(&bytes, h + 84, 4);
	if (entries < SECTORS && (uint64_t)count * bytes <= (SECTORS - entries) * DISK_SECTOR) {
		crc = crc32(0, disk[entries], (size_t)count * bytes);
		memcpy(h + 88, &crc, 4);
	}
	memcpy(h + 16, &zero, 4);
	crc = crc32(0, h, header);
	memcpy(h + 16, &crc, 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t type[GPT_GUID_BYTES] = {1};
	struct disk_part part;
	const char *why = NULL;
	uint8_t how;
	bool backup;
	int err;

	if (!size)
		return 0;
	how = *data++;
	size--;
	memset(disk, 0, sizeof(disk));
	memcpy(disk[1], data, size < 60 * DISK_SECTOR ? size : 60 * DISK_SECTOR);
	memcpy(disk[SECTORS - 1], data, size < DISK_SECTOR ? size : DISK_SECTOR);
	if (how & 1)
		mend(1);
	if (how & 2)
		mend(SECTORS - 1);
	err = gpt_find(type, &part, &backup, &why);
	if (err)
		CHECK(why);
	else
		CHECK(part.first >= 34 && part.sectors && part.sectors <= SECTORS &&
		      part.first + part.sectors <= SECTORS - 33);
	return 0;
}
