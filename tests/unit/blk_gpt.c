/* hv/blk/gpt.c: tables as they should be, damaged, contradicting themselves, on disks of any size.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "blk/gpt.h"
#include "lib/crc32.h"

#define SECTORS 4096

static u8 disk[SECTORS][DISK_SECTOR];
static u64 bad; /* cannot be read; 0: none */
static const u8 ours[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
static const u8 other[16] = {99};

u64 disk_sectors(void)
{
	return SECTORS;
}

int disk_read(u64 lba, u32 count, void *to)
{
	if (lba >= SECTORS || count > SECTORS - lba)
		return ERR_RANGE;
	if (bad && bad - lba < count)
		return ERR_IO;
	memcpy(to, disk[lba], (size_t)count * DISK_SECTOR);
	return 0;
}

int disk_write(u64 lba, u32 count, const void *from)
{
	assert_true(lba < SECTORS && count <= SECTORS - lba);
	memcpy(disk[lba], from, (size_t)count * DISK_SECTOR);
	return 0;
}

static void put(u8 *at, u64 value, u32 bytes)
{
	memcpy(at, &value, bytes);
}

/* --- a table ------------------------------------------------------------------------------------
 */

struct spec {
	u32 entry_bytes, entries;
	u64 first_usable, last_usable;
};

static struct spec spec;

static u8 *entry(bool backup, u32 n)
{
	u64 lba = backup ? SECTORS - 33 : 2;

	return (u8 *)disk + lba * DISK_SECTOR + (u64)n * spec.entry_bytes;
}

static void set_entry(u32 n, const u8 type[16], u64 first, u64 last)
{
	for (u32 backup = 0; backup < 2; backup++) {
		u8 *e = entry(backup, n);

		memcpy(e, type, 16);
		put(e + 32, first, 8);
		put(e + 40, last, 8);
	}
}

static void seal_header(bool backup)
{
	u8 *h = disk[backup ? SECTORS - 1 : 1];
	u32 bytes;

	memcpy(&bytes, h + 12, 4);
	put(h + 16, 0, 4);
	put(h + 16, crc32(0, h, bytes > DISK_SECTOR ? DISK_SECTOR : bytes), 4);
}

static void seal(void)
{
	for (u32 backup = 0; backup < 2; backup++) {
		u8 *h = disk[backup ? SECTORS - 1 : 1];

		memset(h, 0, DISK_SECTOR);
		memcpy(h, "EFI PART", 8);
		put(h + 8, 0x10000, 4);
		put(h + 12, 92, 4);
		put(h + 24, backup ? SECTORS - 1 : 1, 8);
		put(h + 32, backup ? 1 : SECTORS - 1, 8);
		put(h + 40, spec.first_usable, 8);
		put(h + 48, spec.last_usable, 8);
		put(h + 72, backup ? SECTORS - 33 : 2, 8);
		put(h + 80, spec.entries, 4);
		put(h + 84, spec.entry_bytes, 4);
		put(h + 88, crc32(0, entry(backup, 0), (size_t)spec.entries * spec.entry_bytes), 4);
		seal_header(backup);
	}
}

static void blank(void)
{
	memset(disk, 0, sizeof(disk));
	bad = 0;
	spec = (struct spec){128, 128, 34, SECTORS - 34};
}

static void usual(void)
{
	blank();
	set_entry(0, other, 64, 999);
	set_entry(1, ours, 1000, 1999);
	seal();
}

static struct disk_part part;
static const char *why;
static bool backup_told;

static int find(void)
{
	int err;

	why = NULL;
	err = gpt_find(ours, &part, &backup_told, &why);
	assert_true(!err || why);
	if (!err) {
		assert_true(part.first >= 34 && part.sectors &&
			    part.first + part.sectors <= SECTORS - 33);
	}
	return err;
}

static void assert_found(bool backup)
{
	assert_int_equal(find(), 0);
	assert_int_equal(part.first, 1000);
	assert_int_equal(part.sectors, 1000);
	assert_int_equal(backup_told, backup);
}

/* --- tests --------------------------------------------------------------------------------------
 */

static void test_found(void **state)
{
	usual();
	assert_found(false);
	blank();
	spec.entry_bytes = 512;
	spec.entries = 32;
	set_entry(31, ours, 1000, 1999);
	seal();
	assert_found(false);
	blank(); /* the whole of what is usable */
	set_entry(127, ours, 34, SECTORS - 34);
	seal();
	assert_int_equal(find(), 0);
	assert_int_equal(part.first, 34);
	assert_int_equal(part.sectors, SECTORS - 67);
}

static void test_not_there(void **state)
{
	blank();
	assert_int_equal(find(), ERR_INVAL);
	assert_string_equal(why, "there is no GUID partition table");
	blank();
	set_entry(0, other, 64, 999);
	seal();
	assert_int_equal(find(), ERR_NOENT);
	usual();
	set_entry(5, ours, 3000, 3001);
	seal();
	assert_int_equal(find(), ERR_EXIST);
}

/* Each bit of the primary's header and entries: the backup is as good. Of both: refused. */
static void test_damaged(void **state)
{
	static u8 good[SECTORS][DISK_SECTOR];

	usual();
	memcpy(good, disk, sizeof(good));
	for (u32 bit = 0; bit < 92 * 8; bit++) {
		disk[1][bit / 8] ^= (u8)(1u << bit % 8);
		assert_found(true);
		disk[SECTORS - 1][(bit + 9) % 736 / 8] ^= (u8)(1u << (bit + 9) % 8);
		assert_int_equal(find(), ERR_INVAL);
		memcpy(disk[1], good[1], DISK_SECTOR);
		assert_found(false);
		memcpy(disk[SECTORS - 1], good[SECTORS - 1], DISK_SECTOR);
	}
	for (u32 byte = 0; byte < 128 * 128; byte += 7) {
		disk[2 + byte / DISK_SECTOR][byte % DISK_SECTOR] ^= 4;
		assert_found(true);
		disk[2 + byte / DISK_SECTOR][byte % DISK_SECTOR] ^= 4;
	}
}

static void test_unreadable(void **state)
{
	usual();
	for (bad = 1; bad < 34; bad++)
		assert_found(true);
	for (bad = SECTORS - 33; bad < SECTORS; bad++)
		assert_found(false);
	memset(disk[1], 0, DISK_SECTOR);
	bad = SECTORS - 1;
	assert_int_equal(find(), ERR_INVAL);
}

/* With right checksums. */
static void test_contradictions(void **state)
{
	static const struct {
		u32 at, bytes;
		u64 value;
	} wrong[] = {
		{12, 4, 91},
		{12, 4, 513},
		{12, 4, ~0u},
		{24, 8, 2},
		{40, 8, 33},
		{40, 8, 0},
		{40, 8, SECTORS},
		{48, 8, SECTORS - 33},
		{48, 8, ~0ull},
		{48, 8, 20},
		{72, 8, SECTORS},
		{72, 8, ~0ull},
		{72, 8, SECTORS - 31},
		{80, 4, 0},
		{80, 4, 1025},
		{80, 4, ~0u},
		{84, 4, 0},
		{84, 4, 64},
		{84, 4, 129},
		{84, 4, 8192},
		{84, 4, ~0u},
	};

	for (u32 i = 0; i < ARRAY_SIZE(wrong); i++) {
		usual();
		put(disk[1] + wrong[i].at, wrong[i].value, wrong[i].bytes);
		seal_header(false);
		assert_found(true);
		memset(disk[SECTORS - 1], 0, DISK_SECTOR);
		assert_int_equal(find() ? 1 : 0, 1);
	}
}

static void test_bad_partition(void **state)
{
	static const u64 wrong[][2] = {
		{33, 100},  {1, 1},	    {2000, 1999},	   {1000, SECTORS - 33},
		{0, ~0ull}, {~0ull, ~0ull}, {SECTORS, SECTORS + 9}};

	for (u32 i = 0; i < ARRAY_SIZE(wrong); i++) {
		usual();
		set_entry(1, ours, wrong[i][0], wrong[i][1]);
		seal();
		assert_int_equal(find(), ERR_INVAL);
	}
	for (u32 i = 0; i < 3; i++) {
		usual();
		set_entry(7, other, i == 0 ? 1999 : 500, i == 1 ? 1000 : 3000);
		seal();
		assert_int_equal(find(), ERR_INVAL);
		assert_string_equal(why, "another partition overlaps it");
	}
	usual(); /* neighbours */
	set_entry(7, other, 2000, 2000);
	set_entry(8, other, 999, 999);
	seal();
	assert_found(false);
}

/* Nobody gets beyond a partition. */
static void test_part(void **state)
{
	const struct disk_part p = {100, 10};
	u8 buffer[10 * DISK_SECTOR];

	usual();
	assert_int_equal(part_read(&p, 0, 10, buffer), 0);
	assert_int_equal(part_write(&p, 9, 1, buffer), 0);
	assert_int_equal(part_read(&p, 10, 1, buffer), ERR_RANGE);
	assert_int_equal(part_write(&p, 9, 2, buffer), ERR_RANGE);
	assert_int_equal(part_write(&p, ~0ull, 2, buffer), ERR_RANGE);
	assert_int_equal(part_write(&p, 0, ~0u, buffer), ERR_RANGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_found),	       cmocka_unit_test(test_not_there),
		cmocka_unit_test(test_damaged),	       cmocka_unit_test(test_unreadable),
		cmocka_unit_test(test_contradictions), cmocka_unit_test(test_bad_partition),
		cmocka_unit_test(test_part),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
