/* Reading a GUID partition table: see gpt.h. */
#include "blk/gpt.h"

#include "lib/crc32.h"
#include "lib/string.h"

struct gpt_header { /* UEFI 2.10, table 5.5 */
	char signature[8];
	u32 revision, header_bytes, crc, reserved;
	u64 this_lba, other_lba, first_usable, last_usable;
	u8 disk[GPT_GUID_BYTES];
	u64 entries_lba;
	u32 entries, entry_bytes, entries_crc;
} __packed;

struct gpt_entry { /* table 5.6 */
	u8 type[GPT_GUID_BYTES], id[GPT_GUID_BYTES];
	u64 first, last, attributes;
	u16 name[36];
} __packed;

_Static_assert(sizeof(struct gpt_header) == 92 && offsetof(struct gpt_header, entries_lba) == 72,
	       "table 5.5");
_Static_assert(sizeof(struct gpt_entry) == 128 && offsetof(struct gpt_entry, first) == 32,
	       "table 5.6");

#define PRIMARY_LBA 1
#define RESERVED    33	 /* sectors of a table: its header and at least 16 KiB of entries (5.3.1) */
#define MAX_BYTES   4096 /* of an entry */

struct table {
	struct gpt_header header;
	u8 sector[DISK_SECTOR]; /* of the entries, the one read last */
	u64 at;			/* its LBA, or 0 */
};

static const char *header_error(struct table *t, u64 lba)
{
	struct gpt_header *h = &t->header;
	u8 *bytes = t->sector;
	u32 crc, zero = 0;

	memcpy(h, bytes, sizeof(*h));
	if (memcmp(h->signature, "EFI PART", 8) != 0)
		return "there is no GUID partition table";
	if (h->header_bytes < sizeof(*h) || h->header_bytes > DISK_SECTOR)
		return "the partition table's header has a wrong size";
	memcpy(bytes + offsetof(struct gpt_header, crc), &zero, sizeof(zero));
	crc = crc32(0, bytes, h->header_bytes);
	if (crc != h->crc)
		return "the checksum of the partition table's header is wrong";
	if (h->this_lba != lba)
		return "the partition table's header says that it lies elsewhere";
	if (h->first_usable > h->last_usable || h->first_usable < PRIMARY_LBA + RESERVED ||
	    h->last_usable >= disk_sectors() - RESERVED)
		return "the partition table is not for a disk of this size";
	/* 128 times a power of two (table 5.5). */
	if (h->entry_bytes < sizeof(struct gpt_entry) || h->entry_bytes > MAX_BYTES ||
	    (h->entry_bytes & (h->entry_bytes - 1)) || !h->entries || h->entries > GPT_MAX_ENTRIES)
		return "the partition table's entries have a size or number that is not supported";
	return NULL;
}

/* Entry `n`, without what a longer one has at its end. Entries of 128 bytes and up lie aligned. */
static int read_entry(struct table *t, u32 n, struct gpt_entry *out)
{
	u64 offset = (u64)n * t->header.entry_bytes;
	u64 lba = t->header.entries_lba + offset / DISK_SECTOR;
	int err = lba == t->at ? 0 : disk_read(lba, 1, t->sector);

	if (err)
		return err;
	t->at = lba;
	memcpy(out, t->sector + offset % DISK_SECTOR, sizeof(*out));
	return 0;
}

static int check_entries(struct table *t, const char **why)
{
	u64 left = (u64)t->header.entries * t->header.entry_bytes, lba = t->header.entries_lba;
	u32 crc = 0;

	while (left) {
		u32 n = (u32)MIN(left, (u64)DISK_SECTOR);
		int err = disk_read(lba, 1, t->sector);

		*why = "the partition table cannot be read";
		if (err)
			return err;
		t->at = lba++;
		crc = crc32(crc, t->sector, n);
		left -= n;
	}
	*why = "the checksum of the partition table's entries is wrong";
	return crc == t->header.entries_crc ? 0 : ERR_INVAL;
}

static int read_table(struct table *t, u64 lba, const char **why)
{
	int err = disk_read(lba, 1, t->sector);

	t->at = 0;
	*why = "the partition table cannot be read";
	if (err)
		return err;
	*why = header_error(t, lba);
	return *why ? ERR_INVAL : check_entries(t, why);
}

static bool is_used(const struct gpt_entry *e)
{
	static const u8 unused[GPT_GUID_BYTES];

	return memcmp(e->type, unused, sizeof(unused)) != 0;
}

static int find_type(struct table *t, const u8 type[GPT_GUID_BYTES], u32 *number,
		     struct gpt_entry *out, const char **why)
{
	struct gpt_entry e;
	u32 found = 0;

	for (u32 i = 0; i < t->header.entries; i++) {
		int err = read_entry(t, i, &e);

		*why = "the partition table cannot be read";
		if (err)
			return err;
		if (memcmp(e.type, type, GPT_GUID_BYTES) != 0)
			continue;
		*out = e;
		*number = i;
		found++;
	}
	*why = found ? "there is more than one partition of its type"
		     : "there is no partition of its type";
	return found == 1 ? 0 : found ? ERR_EXIST : ERR_NOENT;
}

/* We are going to write there. */
static int check_alone(struct table *t, u32 number, const struct gpt_entry *ours, const char **why)
{
	struct gpt_entry e;

	*why = "the partition does not lie within the disk's usable sectors";
	if (ours->first > ours->last || ours->first < t->header.first_usable ||
	    ours->last > t->header.last_usable)
		return ERR_INVAL;
	for (u32 i = 0; i < t->header.entries; i++) {
		int err = read_entry(t, i, &e);

		*why = "the partition table cannot be read";
		if (err)
			return err;
		*why = "another partition overlaps it";
		if (i != number && is_used(&e) && e.first <= ours->last && ours->first <= e.last)
			return ERR_INVAL;
	}
	return 0;
}

int gpt_find(const u8 type[GPT_GUID_BYTES], struct disk_part *out, bool *backup, const char **why)
{
	struct table t;
	struct gpt_entry e = {0};
	const char *backup_why;
	u32 number = 0;
	int err;

	*backup = false;
	*why = "the disk is too small for a partition table";
	if (disk_sectors() <= PRIMARY_LBA + 2 * RESERVED)
		return ERR_INVAL;
	err = read_table(&t, PRIMARY_LBA, why);
	if (err) {
		if (read_table(&t, disk_sectors() - 1, &backup_why))
			return err;
		*backup = true;
	}
	err = find_type(&t, type, &number, &e, why);
	if (!err)
		err = check_alone(&t, number, &e, why);
	if (!err)
		*out = (struct disk_part){e.first, e.last - e.first + 1};
	return err;
}
