/*
 * hv/pmem/save.c on a disk in memory that loses power, forgets what was not flushed, and rots: what
 * comes back is always all of one generation, the newest that is intact, or nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/crc32.h"
#include "pmem/save.h"

#define DISK_SECTORS 1536
#define FIRST	     64 /* of the partition */
#define DATA	     6	/* pages */
#define LABELS	     2
#define PAGES	     (DATA + LABELS)

static u8 disk[DISK_SECTORS][DISK_SECTOR], medium[DISK_SECTORS][DISK_SECTOR];
static bool cached[DISK_SECTORS]; /* written and not flushed */
static u64 writes, flushes;
static u64 power; /* sectors that can still be written, before power is gone */
static u64 bad;	  /* a sector that cannot be read; 0: none */
static u64 rng;

static u32 chance(u32 n)
{
	rng = rng * 6364136223846793005ull + 1442695040888963407ull;
	return (u32)(rng >> 33) % n;
}

u64 disk_sectors(void)
{
	return DISK_SECTORS;
}

int disk_read(u64 lba, u32 count, void *to)
{
	assert_true(lba + count <= DISK_SECTORS);
	if (bad && bad >= lba && bad < lba + count)
		return ERR_IO;
	memcpy(to, disk[lba], (size_t)count * DISK_SECTOR);
	return 0;
}

int disk_write(u64 lba, u32 count, const void *from)
{
	assert_true(lba >= FIRST && lba + count <= DISK_SECTORS);
	for (u32 i = 0; i < count; i++) {
		if (!power)
			return ERR_IO;
		power--;
		writes++;
		memcpy(disk[lba + i], (const u8 *)from + (size_t)i * DISK_SECTOR, DISK_SECTOR);
		cached[lba + i] = true;
	}
	return 0;
}

int disk_flush(void)
{
	if (!power)
		return ERR_IO;
	flushes++;
	memset(cached, 0, sizeof(cached));
	memcpy(medium, disk, sizeof(medium));
	return 0;
}

/* Power is gone: of what was in the disk's cache any part has reached the medium. */
static void lose_power(void)
{
	for (u32 i = 0; i < DISK_SECTORS; i++)
		if (cached[i] && chance(2))
			memcpy(medium[i], disk[i], DISK_SECTOR);
	memcpy(disk, medium, sizeof(disk));
	memset(cached, 0, sizeof(cached));
	power = ~0ull;
}

/* --- a VM's region ------------------------------------------------------------------------------
 */

static struct disk_part part = {FIRST, DISK_SECTORS - FIRST};
static u8 memory[PAGES][PAGE_SIZE], saved[PAGES][PAGE_SIZE], before[PAGES][PAGE_SIZE];
static struct save_entry map[64];
static u8 kept[PAGES];
static struct save_region region;
static enum save_outcome outcome;
static const char *why;

static void blank_disk(void)
{
	memset(disk, 0, sizeof(disk));
	memset(medium, 0, sizeof(medium));
	memset(cached, 0, sizeof(cached));
	memset(saved, 0, sizeof(saved));
	power = ~0ull;
	bad = 0;
}

static int open_as(const char *name, u32 number, u64 data)
{
	int err = save_store_open(&part, &why);

	if (err)
		return err;
	memset(memory, 0x5a, sizeof(memory)); /* what RAM holds at start */
	memset(map, 0, sizeof(map));
	memset(kept, 0, sizeof(kept));
	region = (struct save_region){.vm = name,
				      .number = number,
				      .bytes = data * PAGE_SIZE,
				      .pages = data + LABELS,
				      .data = memory[0],
				      .labels = memory[data],
				      .map = map,
				      .kept = kept,
				      .limit = SAVE_NO_LIMIT};
	assert_true(save_map_bytes(region.pages) <= sizeof(map));
	return save_open(&region, &outcome, &why);
}

static void start(void)
{
	assert_int_equal(open_as("v", 0, DATA), 0);
}

static void write_page(u32 page)
{
	for (u32 i = 0; i < PAGE_SIZE; i++)
		memory[page][i] = chance(8) ? (u8)chance(256) : 0;
	if (!chance(4))
		memset(memory[page], 0, PAGE_SIZE);
}

/* Changes some pages and saves them, some more than once. 0: they are a generation. */
static int change_and_save(void)
{
	bool dirty[PAGES] = {false};
	int err = 0;

	for (u32 i = chance(12); i && !err; i--) {
		u32 page = chance(PAGES);

		write_page(page);
		dirty[page] = true;
		if (chance(3)) {
			err = save_page(&region, page);
			dirty[page] = false;
		}
	}
	for (u32 i = 0; i < PAGES && !err; i++)
		if (dirty[i])
			err = save_page(&region, i);
	return err ? err : save_commit(&region);
}

static void keep(void)
{
	memcpy(before, saved, sizeof(before));
	memcpy(saved, memory, sizeof(saved));
}

static void run_and_save(void)
{
	assert_int_equal(save_begin(&region), 0);
	assert_int_equal(change_and_save(), 0);
	keep();
}

static bool memory_is(u8 (*what)[PAGE_SIZE])
{
	return !memcmp(memory, what, sizeof(memory));
}

static bool memory_is_zero(void)
{
	static u8 zero[PAGES][PAGE_SIZE];

	return memory_is(zero);
}

/* --- tests --------------------------------------------------------------------------------------
 */

static void test_new(void **state)
{
	blank_disk();
	start();
	assert_int_equal(outcome, SAVE_NEW);
	assert_true(memory_is_zero());
	assert_int_equal(region.generation, 1);
	start();
	assert_int_equal(outcome, SAVE_GOOD); /* never run */
	assert_true(memory_is_zero());
}

static void test_comes_back(void **state)
{
	rng = 1;
	blank_disk();
	start();
	for (u32 i = 0; i < 200; i++) {
		run_and_save();
		if (chance(3))
			continue; /* the VM restarts, the machine does not */
		start();
		assert_int_equal(outcome, SAVE_GOOD);
		assert_null(why);
		assert_true(memory_is(saved));
	}
	assert_int_equal(region.generation, 201);
}

static void test_unsaved(void **state)
{
	rng = 2;
	blank_disk();
	start();
	run_and_save();
	assert_int_equal(save_begin(&region), 0);
	write_page(0);
	memory[0][0] = 1;
	assert_int_equal(save_page(&region, 0), 0); /* in the background */
	lose_power();
	for (u32 i = 0; i < 2; i++) {
		start();
		assert_int_equal(outcome, SAVE_UNSAVED);
		assert_non_null(why);
		assert_true(memory_is(saved));
		assert_int_equal(save_begin(&region), 0);
	}
	run_and_save();
	start();
	assert_int_equal(outcome, SAVE_GOOD);
	assert_true(memory_is(saved));
}

/* Power is gone after every possible sector of a save, and again while the next one is made. */
static void test_interrupted(void **state)
{
	u32 complete = 0, refused = 0;

	rng = 3;
	blank_disk();
	start();
	run_and_save();
	for (u32 i = 0; i < 3000; i++) {
		u64 least = region.generation;
		bool done;

		assert_int_equal(save_begin(&region), 0);
		power = chance(chance(2) ? 100 : 20);
		done = !change_and_save();
		lose_power();
		memcpy(before, memory, sizeof(before)); /* what would have been saved */
		start();
		assert_int_not_equal(outcome, SAVE_OLDER);
		assert_int_not_equal(outcome, SAVE_DAMAGED);
		if (done) {
			assert_int_equal(outcome, SAVE_GOOD);
			assert_true(memory_is(before));
			complete++;
		} else if (region.generation > least) {
			/* The last flush failed, but all was there. */
			assert_int_equal(outcome, SAVE_GOOD);
			assert_true(memory_is(before));
		} else {
			assert_int_equal(outcome, SAVE_UNSAVED);
			assert_true(memory_is(saved));
			refused++;
		}
		memcpy(saved, memory, sizeof(saved));
	}
	assert_true(complete > 300 && refused > 1000);
}

/* The same by the limit that the model of a power loss uses. */
static void test_limit(void **state)
{
	u64 needed;

	rng = 4;
	blank_disk();
	start();
	run_and_save();
	needed = 3 * 8 + save_commit_sectors(PAGES);
	for (u64 limit = 0; limit <= needed; limit++) {
		int err = 0;

		assert_int_equal(save_begin(&region), 0);
		for (u32 i = 1; i < 4; i++)
			memset(memory[i], (int)(limit + i), PAGE_SIZE);
		region.limit = limit;
		region.written = 0;
		for (u32 i = 1; i < 4 && !err; i++)
			err = save_page(&region, i);
		if (!err)
			err = save_commit(&region);
		assert_int_equal(region.written, limit);
		assert_int_equal(!err, limit == needed);
		if (!err)
			keep();
		start();
		assert_int_equal(outcome, err ? SAVE_UNSAVED : SAVE_GOOD);
		assert_true(memory_is(saved));
	}
}

/* Any bit of the area: either it does not matter, or it is seen. */
static void test_bit_flips(void **state)
{
	static u8 good[DISK_SECTORS][DISK_SECTOR];
	u32 older = 0, damaged = 0, unsaved = 0, same = 0;
	u64 sectors = save_area_sectors(PAGES);

	rng = 5;
	blank_disk();
	start();
	for (u32 i = 0; i < 5; i++)
		run_and_save();
	memcpy(good, disk, sizeof(good));
	for (u32 i = 0; i < 8000; i++) {
		u64 sector = FIRST + SAVE_AREAS + chance((u32)sectors);

		if (chance(2)) /* where the small structures are */
			sector = FIRST + SAVE_AREAS + chance(40);
		memcpy(disk, good, sizeof(disk));
		disk[sector][chance(DISK_SECTOR)] ^= (u8)(1u << chance(8));
		assert_int_equal(open_as("v", 0, DATA), 0);
		switch (outcome) {
		case SAVE_GOOD:
			assert_true(memory_is(saved));
			same++;
			break;
		case SAVE_OLDER:
		case SAVE_UNSAVED: /* the header or the session: it looks like a save too few */
			assert_true(memory_is(before) ||
				    (outcome == SAVE_UNSAVED && memory_is(saved)));
			older += outcome == SAVE_OLDER;
			unsaved += outcome == SAVE_UNSAVED;
			break;
		default:
			assert_true(memory_is_zero());
			damaged++;
		}
		assert_int_equal(outcome != SAVE_GOOD, why != NULL);
		/* And it goes on from there. */
		if (i % 16 == 0) {
			u8 had[PAGES][PAGE_SIZE];

			memcpy(had, memory, sizeof(had));
			assert_int_equal(save_begin(&region), 0);
			had[3][7] ^= 1;
			memory[3][7] ^= 1;
			assert_int_equal(save_page(&region, 3), 0);
			assert_int_equal(save_commit(&region), 0);
			assert_int_equal(open_as("v", 0, DATA), 0);
			assert_int_equal(outcome, SAVE_GOOD);
			assert_true(memory_is(had));
		}
	}
	assert_true(older && unsaved && same);
	print_message("%u same, %u older, %u unsaved, %u lost\n", same, older, unsaved, damaged);
}

/* Every byte of the two directories: the other copy is used, or the partition is refused. */
static void test_directory(void **state)
{
	static u8 good[DISK_SECTORS][DISK_SECTOR];

	rng = 6;
	blank_disk();
	start();
	run_and_save();
	memcpy(good, disk, sizeof(good));
	for (u32 i = 0; i < 2000; i++) {
		bool both = chance(2);

		memcpy(disk, good, sizeof(disk));
		for (u32 copy = 0; copy < 2; copy++)
			if (both || copy == i % 2)
				disk[FIRST + copy * 8 + chance(8)][chance(DISK_SECTOR)] ^=
					(u8)(1u << chance(8));
		if (both) {
			assert_int_equal(save_store_open(&part, &why), ERR_INVAL);
			continue;
		}
		start();
		assert_int_equal(outcome, SAVE_GOOD);
		assert_true(memory_is(saved));
	}
	/* Somebody else's, wherever it begins. */
	for (u32 sector = 0; sector < 16; sector++) {
		blank_disk();
		memset(disk[FIRST + sector], 0xee, DISK_SECTOR);
		assert_int_equal(save_store_open(&part, &why), ERR_INVAL);
	}
}

/* Checksums are right, and two areas share sectors: nobody writes to either. */
static void test_overlap(void **state)
{
	struct save_dir dir;
	u64 apart;

	blank_disk();
	start();
	assert_int_equal(open_as("w", 0, DATA), 0);
	memcpy(&dir, disk[FIRST], sizeof(dir));
	assert_int_equal(dir.count, 2);
	apart = dir.entry[1].first;
	for (u64 first = apart - 1; first <= apart; first++) {
		dir.entry[1].first = first;
		dir.crc = 0;
		dir.crc = crc32(0, &dir, sizeof(dir));
		for (u32 copy = 0; copy < 2; copy++)
			memcpy(disk[FIRST + copy * 8], &dir, sizeof(dir));
		assert_int_equal(save_store_open(&part, &why), first < apart ? ERR_INVAL : 0);
	}
}

/* The first start: power is gone at every sector of it. */
static void test_first_interrupted(void **state)
{
	for (u64 sectors = 0;; sectors++) {
		int err;

		rng = sectors;
		blank_disk();
		power = sectors;
		err = open_as("v", 0, DATA);
		lose_power();
		start();
		assert_true(outcome == SAVE_NEW || outcome == SAVE_GOOD);
		assert_true(memory_is_zero());
		run_and_save();
		start();
		assert_true(memory_is(saved));
		if (!err)
			break;
		assert_true(sectors < 200);
	}
}

static void test_many_regions(void **state)
{
	u32 n = 0;

	rng = 7;
	blank_disk();
	for (; !open_as(n % 2 ? "one" : "another", n / 2, 2 + n % 3); n++) {
		assert_int_equal(outcome, SAVE_NEW);
		assert_int_equal(save_begin(&region), 0);
		memset(memory, (int)n + 1, region.pages * PAGE_SIZE);
		for (u32 i = 0; i < region.pages; i++)
			assert_int_equal(save_page(&region, i), 0);
		assert_int_equal(save_commit(&region), 0);
	}
	assert_string_equal(why, "the partition is full");
	assert_true(n > 6);
	for (u32 i = 0; i < n; i++) {
		assert_int_equal(open_as(i % 2 ? "one" : "another", i / 2, 2 + i % 3), 0);
		assert_int_equal(outcome, SAVE_GOOD);
		for (u32 b = 0; b < region.pages * PAGE_SIZE; b++)
			assert_int_equal(memory[b / PAGE_SIZE][b % PAGE_SIZE], (u8)(i + 1));
	}
	assert_int_equal(open_as("one", 0, 5), ERR_EXIST);
}

static void test_unreadable(void **state)
{
	rng = 8;
	blank_disk();
	start();
	for (u32 i = 0; i < 3; i++) {
		assert_int_equal(save_begin(&region), 0);
		for (u32 p = 0; p < PAGES; p++) {
			memset(memory[p], (int)(p + i + 1), PAGE_SIZE);
			assert_int_equal(save_page(&region, p), 0);
		}
		assert_int_equal(save_commit(&region), 0);
	}
	keep();
	for (u64 s = 0; s < save_area_sectors(PAGES); s++) {
		int err;

		bad = FIRST + SAVE_AREAS + s;
		err = open_as("v", 0, DATA);
		if (err) {
			assert_int_equal(err, ERR_IO);
			assert_true(memory_is_zero());
			assert_non_null(why);
		} else {
			assert_true(memory_is(saved));
		}
	}
	bad = FIRST + 1;
	assert_int_equal(open_as("v", 0, DATA), ERR_IO);
	bad = 0;
	start();
	assert_true(memory_is(saved));
}

/* A save takes the pages, the map, the header and two flushes: what the budget is reckoned with. */
static void test_cost(void **state)
{
	blank_disk();
	start();
	assert_int_equal(save_begin(&region), 0);
	writes = flushes = 0;
	memset(memory[2], 1, PAGE_SIZE);
	memset(memory[7], 2, PAGE_SIZE);
	assert_int_equal(save_page(&region, 2), 0);
	assert_int_equal(save_page(&region, 7), 0);
	assert_int_equal(writes, 16);
	assert_int_equal(save_commit(&region), 0);
	assert_int_equal(writes, 16 + save_commit_sectors(PAGES));
	assert_int_equal(flushes, 2);
	assert_int_equal(save_commit_sectors(64), 2);
	assert_int_equal(save_commit_sectors(65), 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_new),	     cmocka_unit_test(test_comes_back),
		cmocka_unit_test(test_unsaved),	     cmocka_unit_test(test_interrupted),
		cmocka_unit_test(test_limit),	     cmocka_unit_test(test_bit_flips),
		cmocka_unit_test(test_directory),    cmocka_unit_test(test_first_interrupted),
		cmocka_unit_test(test_many_regions), cmocka_unit_test(test_unreadable),
		cmocka_unit_test(test_cost),	     cmocka_unit_test(test_overlap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
