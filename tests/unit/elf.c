/* The loader's ELF reader: what it accepts, and that it refuses each malformation by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "elf.h"

#define BASE 0xffffffff80000000ull

/* Offsets in the file (System V gABI, figures 4-3 and 5-1). */
enum {
	H_CLASS = 4,
	H_DATA = 5,
	H_TYPE = 16,
	H_MACHINE = 18,
	H_ENTRY = 24,
	H_PHOFF = 32
};
enum {
	H_PHENTSIZE = 54,
	H_PHNUM = 56,
	PH = 64,
	PH_SIZE = 56
};
enum {
	P_TYPE = 0,
	P_FLAGS = 4,
	P_OFFSET = 8,
	P_VADDR = 16,
	P_FILESZ = 32,
	P_MEMSZ = 40
};

#define FILE_BYTES 0x3000

static u8 file[FILE_BYTES];
static struct elf_image image;
static char why[120];

static void put(size_t at, u64 value, unsigned int bytes)
{
	while (bytes--) {
		file[at++] = (u8)value;
		value >>= 8;
	}
}

static void segment(unsigned int i, u32 flags, u64 offset, u64 vaddr, u64 filesz, u64 memsz)
{
	size_t at = PH + i * PH_SIZE;

	put(at + P_TYPE, 1, 4);
	put(at + P_FLAGS, flags, 4);
	put(at + P_OFFSET, offset, 8);
	put(at + P_VADDR, vaddr, 8);
	put(at + P_FILESZ, filesz, 8);
	put(at + P_MEMSZ, memsz, 8);
}

/* Text of one page, and data of 0x800 bytes with a bss that ends in the middle of a page. */
static void good_file(void)
{
	size_t i;

	for (i = 0; i < sizeof(file); i++)
		file[i] = (u8)(i * 13 + 1);
	memset(file, 0, PH + 16 * PH_SIZE);
	memcpy(file, "\177ELF\2\1\1", 7);
	put(H_TYPE, 2, 2);
	put(H_MACHINE, 62, 2);
	put(H_ENTRY, BASE + 0x1010, 8);
	put(H_PHOFF, PH, 8);
	put(H_PHENTSIZE, PH_SIZE, 2);
	put(H_PHNUM, 2, 2);
	segment(0, 5, 0x1000, BASE + 0x1000, 0x1000, 0x1000);
	segment(1, 6, 0x2000, BASE + 0x2000, 0x800, 0x2345);
}

/* elf_check() of a copy of exactly `size` bytes, so that ASan sees a read beyond it. */
static int check(size_t size)
{
	u8 *copy = malloc(size ? size : 1);
	int err;

	memcpy(copy, file, size);
	why[0] = 0;
	err = elf_check(copy, size, &image, why, sizeof(why));
	free(copy);
	assert_true(err == 0 || err == ERR_INVAL);
	assert_int_equal(!err, !why[0]);
	return err;
}

static void assert_refused(size_t size, const char *part)
{
	if (!check(size) || !strstr(why, part))
		fail_msg("wanted \"%s\", got \"%s\"", part, why);
}

static void test_good(void **state)
{
	u8 *to;
	size_t i;

	good_file();
	assert_int_equal(check(sizeof(file)), 0);
	assert_true(image.virt == BASE);
	assert_true(image.bytes == 0x5000);
	assert_true(image.entry == BASE + 0x1010);
	to = malloc(image.bytes);
	memset(to, 0xee, image.bytes);
	elf_load(file, &image, to);
	for (i = 0; i < image.bytes; i++)
		assert_int_equal(to[i], i < 0x1000 ? 0 : i < 0x2800 ? file[i] : 0);
	free(to);
}

static void test_placement(void **state)
{
	u8 *to;

	good_file();
	segment(0, 5, 0x1000, BASE + SIZE_2M + 0x1000, 0x1000, 0x1000);
	segment(1, 6, 0x2000, BASE + SIZE_2M + 0x400000, 0x800, 0x800);
	put(H_ENTRY, BASE + SIZE_2M + 0x1000, 8);
	assert_int_equal(check(sizeof(file)), 0);
	assert_true(image.virt == BASE + SIZE_2M);
	assert_true(image.bytes == 0x401000);
	to = malloc(image.bytes);
	elf_load(file, &image, to);
	assert_memory_equal(to + 0x1000, file + 0x1000, 0x1000);
	assert_memory_equal(to + 0x400000, file + 0x2000, 0x800);
	assert_int_equal(to[0x3fffff], 0);
	assert_int_equal(to[0x400800], 0);
	free(to);
	/* The very last page below 2^64, and an end that is exactly the limit. */
	segment(1, 6, 0x2000, 0xfffffffffffff000ull, 0x800, 0xfff);
	segment(0, 5, 0x1000, 0xffffffffffffe000ull, 0x1000, 0x1000);
	put(H_ENTRY, 0xffffffffffffe000ull, 8);
	assert_int_equal(check(sizeof(file)), 0);
	assert_true(image.bytes == SIZE_2M);
	segment(1, 6, 0x2000, 0xfffffffffffff000ull, 0x800, 0x1000);
	assert_refused(sizeof(file), "segment 1 wraps around");
}

static void test_header(void **state)
{
	size_t i;

	for (i = 0; i < 7; i++) {
		good_file();
		file[i] ^= 3;
		assert_refused(sizeof(file), "is not an ELF64 file");
	}
	good_file();
	put(H_MACHINE, 3, 2);
	assert_refused(sizeof(file), "is not for x86-64");
	good_file();
	put(H_TYPE, 3, 2);
	assert_refused(sizeof(file), "is not a statically linked executable");
	good_file();
	put(H_PHENTSIZE, 32, 2);
	assert_refused(sizeof(file), "program headers of an unknown size");
	good_file();
	put(H_PHNUM, 0, 2);
	assert_refused(sizeof(file), "has no program headers, or too many");
	put(H_PHNUM, 17, 2);
	assert_refused(sizeof(file), "has no program headers, or too many");
	good_file();
	put(H_PHOFF, sizeof(file) - 2 * PH_SIZE + 1, 8);
	assert_refused(sizeof(file), "truncated: its program headers");
	put(H_PHOFF, ~0ull, 8);
	assert_refused(sizeof(file), "truncated: its program headers");
	good_file();
	put(H_ENTRY, BASE + 0x2000, 8);
	assert_refused(sizeof(file), "entry point is in no executable segment");
	put(H_ENTRY, BASE + 0xfff, 8);
	assert_refused(sizeof(file), "entry point is in no executable segment");
}

static void test_segments(void **state)
{
	good_file();
	segment(1, 6, 0x2000, BASE + 0x1fff, 0x800, 0x800);
	assert_refused(sizeof(file), "segment 1 overlaps another segment");
	segment(1, 6, 0x2000, BASE + 0x800, 0x800, 0x801);
	assert_refused(sizeof(file), "segment 1 overlaps another segment");
	segment(1, 6, 0x2000, BASE, 0x800, 0x10000);
	assert_refused(sizeof(file), "segment 1 overlaps another segment");
	segment(1, 6, 0x2000, BASE + 0x800, 0x800, 0x800);
	assert_int_equal(check(sizeof(file)), 0);
	segment(1, 6, 0x2000, BASE + 0x2000, 0x801, 0x800);
	assert_refused(sizeof(file), "segment 1 is larger in the file than in memory");
	segment(1, 6, 0x2801, BASE + 0x2000, 0x800, 0x800);
	assert_refused(sizeof(file), "segment 1 lies beyond the end of the file");
	segment(1, 6, 0x2000, BASE + 0x2000, ~0ull - 0x1fff, ~0ull - 0x1fff);
	assert_refused(sizeof(file), "segment 1 lies beyond the end of the file");
	segment(1, 6, ~0ull - 0x7ff, BASE + 0x2000, 0x800, 0x800);
	assert_refused(sizeof(file), "segment 1 lies beyond the end of the file");
	segment(1, 6, 0x2000, BASE - 0x1000, 0x800, 0x800);
	assert_refused(sizeof(file), "segment 1 lies below 0xffffffff80000000");
	segment(1, 6, 0x2000, 0x100000, 0x800, 0x800);
	assert_refused(sizeof(file), "segment 1 lies below 0xffffffff80000000");
	segment(1, 6, 0x2000, BASE + 0x2000, 0x800, ELF_IMAGE_MAX_BYTES - 0x2000);
	assert_int_equal(check(sizeof(file)), 0);
	segment(1, 6, 0x2000, BASE + 0x2000, 0x800, ELF_IMAGE_MAX_BYTES - 0x1fff);
	assert_refused(sizeof(file), "the limit is 65536 KiB");
	segment(1, 6, 0x2000, BASE + 0x2000, 0x800, 0x800);
	put(PH + PH_SIZE + P_TYPE, 3, 4);
	assert_refused(sizeof(file), "needs a dynamic linker");
	put(PH + PH_SIZE + P_TYPE, 2, 4);
	assert_refused(sizeof(file), "needs a dynamic linker");
	/* Others, such as notes, are none of our business. */
	put(PH + PH_SIZE + P_TYPE, 4, 4);
	assert_int_equal(check(sizeof(file)), 0);
	assert_true(image.bytes == 0x2000);
}

static void test_truncated(void **state)
{
	size_t size;

	good_file();
	for (size = 0; size < 0x2800; size += size < 0x200 ? 1 : 0x101)
		assert_int_equal(check(size), ERR_INVAL);
	assert_int_equal(check(0x2800), 0);
	check(63);
	assert_string_equal(why, "is too short for an ELF file (63 bytes)");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),	  cmocka_unit_test(test_placement),
		cmocka_unit_test(test_header),	  cmocka_unit_test(test_segments),
		cmocka_unit_test(test_truncated),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
