/*
 * Any bytes as the partition of saved memory: what is found obeys what save.h promises, nothing
 * outside the region's area and the directory is written to, and a save made on top of it comes
 * back. Random bytes have no checksums, so the input says which ones are made right.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/crc32.h"
#include "pmem/save.h"

#define FIRST	 8u
#define SECTORS	 512u
#define DATA	 3u
#define PAGES	 (DATA + 1u)
#define ATTEMPTS 2
#define HEAD	 320u /* of a directory: four entries */

#define CHECK(cond)              \
	do {                     \
		if (!(cond))     \
			abort(); \
	} while (0)

static u8 disk[FIRST + SECTORS][DISK_SECTOR];
static u8 owned[SECTORS]; /* 1: may be written to */
static u8 memory[PAGES][PAGE_SIZE], copy[PAGES][PAGE_SIZE];
static struct save_entry map[64];
static u8 kept[PAGES];
static const struct disk_part part = {FIRST, SECTORS};

u64 disk_sectors(void)
{
	return FIRST + SECTORS;
}

int disk_read(u64 lba, u32 count, void *to)
{
	CHECK(lba >= FIRST && lba + count <= FIRST + SECTORS);
	memcpy(to, disk[lba], (size_t)count * DISK_SECTOR);
	return 0;
}

int disk_write(u64 lba, u32 count, const void *from)
{
	CHECK(lba >= FIRST && lba + count <= FIRST + SECTORS);
	for (u32 i = 0; i < count; i++)
		CHECK(owned[lba - FIRST + i] == 1);
	memcpy(disk[lba], from, (size_t)count * DISK_SECTOR);
	return 0;
}

int disk_flush(void)
{
	return 0;
}

/* --- making it right
 * ----------------------------------------------------------------------------- */

static void *sector(u64 n)
{
	return n < SECTORS ? disk[FIRST + n] : disk[FIRST];
}

static void mend_header(u64 area, u32 which, u8 what)
{
	struct save_header *h = sector(area + SAVE_HEADER_AT + which * SAVE_ALIGN);
	u64 maps = area + SAVE_MAPS_AT + which * SAVE_ALIGN;
	struct save_entry *e = sector(maps);

	if (what & 1) {
		memcpy(h->magic, SAVE_HEADER_MAGIC, 8);
		h->version = SAVE_VERSION;
		h->number = 0;
		memset(h->vm, 0, sizeof(h->vm));
		h->vm[0] = 'v';
		h->bytes = DATA * PAGE_SIZE;
		h->pages = PAGES;
	}
	for (u32 i = 0; (what & 2) && i < PAGES; i++) {
		u64 at = area + SAVE_MAPS_AT + 2 * SAVE_ALIGN + (2 * i + (e[i].crc & 1)) * 8;

		e[i].place = e[i].crc % 3 ? 1 + (e[i].crc & 1) : 0;
		if (e[i].place && at + 8 <= SECTORS)
			e[i].crc = crc32(i, sector(at), PAGE_SIZE);
	}
	if (what & 4)
		h->map_crc = crc32(0, e, DISK_SECTOR);
	h->crc = 0;
	h->crc = crc32(0, h, sizeof(*h));
}

static void mend_dir(u32 n, u8 what)
{
	struct save_dir *d = sector(n * SAVE_DIR_SECTORS);

	memcpy(d->magic, SAVE_DIR_MAGIC, 8);
	d->version = SAVE_VERSION;
	d->count &= what & 1 ? 3 : 63;
	for (u32 i = 0; (what & 2) && i < MIN(d->count, 4u); i++) {
		struct save_dir_entry *e = &d->entry[i];

		memset(e->vm, 0, sizeof(e->vm));
		e->vm[0] = i ? 'w' : 'v';
		e->number = 0;
		e->bytes = DATA * PAGE_SIZE;
		e->first = SAVE_AREAS + e->first % (SECTORS - SAVE_AREAS);
		e->sectors = 1 + e->sectors % 200;
	}
	d->crc = 0;
	d->crc = crc32(0, d, SAVE_DIR_BYTES);
	for (u32 i = 0; (what & 4) && i < 2; i++)
		mend_header(MIN(d->entry[0].first, (u64)SECTORS - 64), i, what >> 4);
}

/* --- what has to hold
 * ---------------------------------------------------------------------------- */

/* All areas lie in the partition, none in another, and all have names. */
static bool apart(const struct save_dir *d)
{
	static u8 seen[SECTORS];

	memset(seen, 0, sizeof(seen));
	for (u32 i = 0; i < d->count && i < SAVE_DIR_MAX; i++) {
		const struct save_dir_entry *e = &d->entry[i];

		if (e->first < SAVE_AREAS || e->first >= SECTORS || !e->sectors ||
		    !memchr(e->vm, 0, sizeof(e->vm)) || e->sectors > SECTORS - e->first)
			return false;
		for (u64 n = e->first; n < e->first + e->sectors; n++)
			if (seen[n]++)
				return false;
	}
	return d->count <= SAVE_DIR_MAX;
}

/* Other regions' areas, by the directory that counts. */
static void find_areas(void)
{
	struct save_dir d, best = {0};
	bool found = false;

	for (u32 i = 0; i < SAVE_DIR_COPIES; i++) {
		u32 crc;

		memcpy(&d, sector(i * SAVE_DIR_SECTORS), sizeof(d));
		crc = d.crc;
		d.crc = 0;
		if (!memcmp(d.magic, SAVE_DIR_MAGIC, 8) && crc32(0, &d, sizeof(d)) == crc &&
		    apart(&d) && (!found || d.generation > best.generation)) {
			best = d;
			found = true;
		}
	}
	memset(owned, 1, SECTORS);
	for (u32 i = 0; i < best.count; i++)
		if (best.entry[i].number || strncmp(best.entry[i].vm, "v", 32) != 0)
			memset(owned + best.entry[i].first, 2, best.entry[i].sectors);
}

static bool all_zero(void)
{
	static const u8 nothing[sizeof(memory)];

	return !memcmp(memory, nothing, sizeof(memory));
}

static struct save_region region(void)
{
	memset(memory, 0x5a, sizeof(memory));
	memset(map, 0, sizeof(map));
	memset(kept, 0, sizeof(kept));
	return (struct save_region){.vm = "v",
				    .bytes = DATA * PAGE_SIZE,
				    .pages = PAGES,
				    .data = memory[0],
				    .labels = memory[DATA],
				    .map = map,
				    .kept = kept,
				    .limit = SAVE_NO_LIMIT};
}

static void check_found(const struct save_region *r, int err, enum save_outcome outcome)
{
	if (err || outcome == SAVE_NEW || outcome == SAVE_DAMAGED) {
		CHECK(all_zero());
		return;
	}
	for (u32 i = 0; i < PAGES; i++) {
		CHECK(map[i].place <= SAVE_SECOND && kept[i] == map[i].place);
		if (map[i].place)
			CHECK(crc32(i, memory[i], PAGE_SIZE) == map[i].crc);
	}
	CHECK(r->generation);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enum save_outcome outcome;
	struct save_region r;
	const char *why;
	int err;

	if (size < 4)
		return 0;
	memset(disk, 0, sizeof(disk));
	/* Both directories' first entries, then what lies behind them. */
	for (size_t i = 0; i < size - 4; i++) {
		size_t at = i < 2 * HEAD ? i / HEAD * SAVE_DIR_BYTES + i % HEAD
					 : SAVE_AREAS * DISK_SECTOR + i - 2 * HEAD;

		if (at < SECTORS * DISK_SECTOR)
			disk[FIRST + at / DISK_SECTOR][at % DISK_SECTOR] = data[4 + i];
	}
	for (u32 i = 0; i < 2; i++)
		if (data[0] & BIT(i))
			mend_dir(i, data[1 + i]);
	find_areas();
	if (save_store_open(&part, &why)) {
		CHECK(why);
		return 0;
	}
	for (u32 n = 0; n < ATTEMPTS; n++) {
		r = region();
		err = save_open(&r, &outcome, &why);
		check_found(&r, err, outcome);
		if (err)
			return 0;
		if (n)
			CHECK(outcome == SAVE_GOOD && !memcmp(memory, copy, sizeof(copy)));
		if (r.generation > ~0ull - 4)
			return 0;
		CHECK(!save_begin(&r));
		memory[data[3] % PAGES][7] ^= data[3];
		for (u32 i = 0; i < PAGES; i++)
			CHECK(!save_page(&r, i));
		CHECK(!save_commit(&r));
		memcpy(copy, memory, sizeof(copy));
	}
	return 0;
}
