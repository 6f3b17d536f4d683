/* The loader's memory map against a page-by-page model, and its page tables by walking them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "memmap.h"
#include "paging.h"

static struct boot_range ranges[BOOT_MAX_MEMORY];
static struct memmap map;

static void reset(u32 max)
{
	memset(ranges, 0xa5, sizeof(ranges));
	map = (struct memmap){.range = ranges, .max = max};
}

static void assert_range(u32 i, u64 base, u64 end, u32 type)
{
	assert_true(i < map.count);
	assert_true(ranges[i].base == base);
	assert_true(ranges[i].bytes == end - base);
	assert_int_equal(ranges[i].type, type);
	assert_int_equal(ranges[i].reserved, 0);
}

static void test_firmware_types(void **state)
{
	static const struct {
		u32 efi, boot;
		u64 attribute;
	} types[] = {
		{0, BOOT_MEM_RESERVED, 15},
		{1, BOOT_MEM_USABLE, 15},
		{2, BOOT_MEM_USABLE, 15},
		{3, BOOT_MEM_USABLE, 8},
		{4, BOOT_MEM_USABLE, 15},
		{5, BOOT_MEM_RESERVED, 15},
		{6, BOOT_MEM_RESERVED, 1ull << 63},
		{7, BOOT_MEM_USABLE, 15},
		{8, BOOT_MEM_UNUSABLE, 15},
		{9, BOOT_MEM_ACPI, 15},
		{10, BOOT_MEM_NVS, 15},
		{11, BOOT_MEM_MMIO, 1},
		{12, BOOT_MEM_MMIO, 1},
		{13, BOOT_MEM_RESERVED, 15},
		{14, BOOT_MEM_PERSISTENT, 15},
		{15, BOOT_MEM_RESERVED, 15},
		{0x80000001, BOOT_MEM_RESERVED, 15},
		{7, BOOT_MEM_RESERVED, 7},
		{7, BOOT_MEM_RESERVED, 15 | 1 << 18},
	};
	struct {
		struct memmap_descriptor d;
		u64 newer; /* firmware's descriptors may be longer than ours */
	} in[ARRAY_SIZE(types)];
	u32 i;

	for (i = 0; i < ARRAY_SIZE(types); i++) {
		memset(&in[i], 0xff, sizeof(in[i]));
		in[i].d = (struct memmap_descriptor){
			.type = types[i].efi,
			.physical = i * 0x3000,
			.pages = 2,
			.attribute = types[i].attribute,
		};
	}
	reset(BOOT_MAX_MEMORY);
	assert_int_equal(memmap_add_firmware(&map, in, sizeof(in), sizeof(in[0])), 0);
	assert_int_equal(map.count, ARRAY_SIZE(types));
	for (i = 0; i < ARRAY_SIZE(types); i++)
		assert_range(i, i * 0x3000, i * 0x3000 + 0x2000, types[i].boot);
	assert_true(memmap_sum(&map, BOOT_MEM_USABLE) == 5 * 0x2000);
	assert_true(memmap_sum(&map, BOOT_MEM_UMBRA) == 0);
	assert_true(memmap_largest(&map, BOOT_MEM_MMIO) == 0x2000);
	assert_true(memmap_top(&map) == 14 * 0x3000 + 0x2000);
	assert_int_equal(memmap_add_firmware(&map, in, sizeof(in), 39), ERR_INVAL);
	in[0].d.pages = 1ull << 52;
	assert_int_equal(memmap_add_firmware(&map, in, sizeof(in), sizeof(in[0])), ERR_INVAL);
	in[0].d.pages = (1ull << 52) - 1;
	in[0].d.physical = 0x1000;
	assert_int_equal(memmap_add_firmware(&map, in, sizeof(in), sizeof(in[0])), ERR_INVAL);
}

static void test_merge_and_align(void **state)
{
	reset(BOOT_MAX_MEMORY);
	assert_int_equal(memmap_add(&map, 0x1000, 0x1000, BOOT_MEM_USABLE), 0);
	assert_int_equal(memmap_add(&map, 0x2000, 0x1000, BOOT_MEM_USABLE), 0);
	assert_int_equal(map.count, 1);
	assert_range(0, 0x1000, 0x3000, BOOT_MEM_USABLE);
	assert_int_equal(memmap_add(&map, 0, 0x1000, BOOT_MEM_USABLE), 0);
	assert_range(0, 0, 0x3000, BOOT_MEM_USABLE);
	/* Usable shrinks to whole pages, everything else grows. */
	assert_int_equal(memmap_add(&map, 0x5001, 0x1fff, BOOT_MEM_USABLE), 0);
	assert_range(1, 0x6000, 0x7000, BOOT_MEM_USABLE);
	assert_int_equal(memmap_add(&map, 0x9001, 0xffe, BOOT_MEM_USABLE), 0);
	assert_int_equal(map.count, 2);
	assert_int_equal(memmap_add(&map, 0x9fff, 2, BOOT_MEM_RESERVED), 0);
	assert_range(2, 0x9000, 0xb000, BOOT_MEM_RESERVED);
	assert_int_equal(memmap_add(&map, 0xb000, 0, BOOT_MEM_RESERVED), 0);
	assert_int_equal(map.count, 3);
	assert_int_equal(memmap_add(&map, ~0ull - 0x10, 0x10, BOOT_MEM_USABLE), ERR_INVAL);
	assert_int_equal(memmap_add(&map, ~0ull - 0x10, 0x10, BOOT_MEM_RESERVED), ERR_INVAL);
	assert_int_equal(memmap_add(&map, ~0ull, 2, BOOT_MEM_RESERVED), ERR_INVAL);
	assert_int_equal(map.count, 3);
}

static void test_overlap(void **state)
{
	reset(BOOT_MAX_MEMORY);
	memmap_add(&map, 0, 0x10000, BOOT_MEM_USABLE);
	memmap_add(&map, 0x4000, 0x2000, BOOT_MEM_UMBRA);
	assert_int_equal(map.count, 3);
	assert_range(0, 0, 0x4000, BOOT_MEM_USABLE);
	assert_range(1, 0x4000, 0x6000, BOOT_MEM_UMBRA);
	assert_range(2, 0x6000, 0x10000, BOOT_MEM_USABLE);
	memmap_add(&map, 0, 0x10000, BOOT_MEM_USABLE);
	assert_int_equal(map.count, 3);
	memmap_add(&map, 0x3000, 0x14000, BOOT_MEM_RESERVED);
	assert_int_equal(map.count, 4);
	assert_range(1, 0x3000, 0x4000, BOOT_MEM_RESERVED);
	assert_range(2, 0x4000, 0x6000, BOOT_MEM_UMBRA);
	assert_range(3, 0x6000, 0x17000, BOOT_MEM_RESERVED);
}

static void test_full(void **state)
{
	u32 i;

	reset(4);
	for (i = 0; i < 4; i++)
		assert_int_equal(memmap_add(&map, i * 0x4000, 0x2000, BOOT_MEM_USABLE), 0);
	assert_int_equal(memmap_add(&map, 0x20000, 0x1000, BOOT_MEM_USABLE), ERR_NOMEM);
	assert_int_equal(memmap_add(&map, 0x1000, 0x1000, BOOT_MEM_UMBRA), ERR_NOMEM);
	assert_int_equal(map.count, 4);
	for (i = 0; i < 4; i++)
		assert_range(i, i * 0x4000, i * 0x4000 + 0x2000, BOOT_MEM_USABLE);
	/* A range that fits by merging is no new one. */
	assert_int_equal(memmap_add(&map, 0x2000, 0x2000, BOOT_MEM_USABLE), 0);
	assert_int_equal(map.count, 3);
}

/* The order of who wins, from the contract: what forbids more, and Umbra's own over all. */
static unsigned int strength(u32 type)
{
	static const u32 order[] = {0,
				    BOOT_MEM_USABLE,
				    BOOT_MEM_ACPI,
				    BOOT_MEM_PERSISTENT,
				    BOOT_MEM_NVS,
				    BOOT_MEM_RESERVED,
				    BOOT_MEM_MMIO,
				    BOOT_MEM_UNUSABLE,
				    BOOT_MEM_UMBRA};
	unsigned int i;

	for (i = 0; order[i] != type; i++)
		;
	return i;
}

static void test_model(void **state)
{
	unsigned int round, i, page;
	u32 model[256];

	srand(1);
	for (round = 0; round < 2000; round++) {
		reset(BOOT_MAX_MEMORY);
		memset(model, 0, sizeof(model));
		for (i = 0; i < 40; i++) {
			u64 base = (u64)(rand() % 250), pages = (u64)(1 + rand() % 6);
			u32 type = (u32)(1 + rand() % 8);

			assert_int_equal(memmap_add(&map, base << 12, pages << 12, type), 0);
			for (page = (unsigned int)base; page < base + pages; page++)
				if (strength(type) > strength(model[page]))
					model[page] = type;
		}
		for (i = 0; i < map.count; i++) {
			assert_true(IS_ALIGNED(ranges[i].base | ranges[i].bytes, PAGE_SIZE));
			if (!i)
				continue;
			assert_true(ranges[i - 1].base + ranges[i - 1].bytes <= ranges[i].base);
			assert_false(ranges[i - 1].base + ranges[i - 1].bytes == ranges[i].base &&
				     ranges[i - 1].type == ranges[i].type);
		}
		for (i = 0; i < map.count; i++)
			for (page = 0; page < ranges[i].bytes >> 12; page++) {
				u32 *m = &model[(ranges[i].base >> 12) + page];

				assert_int_equal(*m, ranges[i].type);
				*m = 0;
			}
		for (page = 0; page < 256; page++)
			assert_int_equal(model[page], 0);
	}
}

/* In host builds DIRECT_MAP_BASE is an arena; the tables are for the real one. */
#define DIRECT_MAP_BASE_REAL 0xffff800000000000ull

#define POOL_PHYS 0x7000000ull
#define UNMAPPED  (~0ull)

static u64 *pool;

/* SDM 3A 4.5: translates, or UNMAPPED; *nx collects bit 63 along the way. */
static u64 walk(u64 virt, bool *nx)
{
	u64 table = POOL_PHYS, entry;
	int shift;

	*nx = false;
	for (shift = 39; shift >= 12; shift -= 9) {
		entry = pool[(table - POOL_PHYS) / 8 + (virt >> shift & 511)];
		if (!(entry & 1))
			return UNMAPPED;
		assert_true(entry & 2);
		*nx |= entry >> 63;
		table = entry & 0x000ffffffffff000ull;
		if (shift < 39 && entry >> 7 & 1) {
			assert_true(IS_ALIGNED(table, 1ull << shift));
			return table | (virt & ((1ull << shift) - 1));
		}
	}
	return UNMAPPED;
}

static void check_tables(u64 top, bool pages_1g, u64 image_virt)
{
	const struct paging_plan plan = {
		.top = top,
		.image_virt = image_virt,
		.image_phys = 0x12600000,
		.image_bytes = 0x601000,
		.pages_1g = pages_1g,
	};
	u64 pages = paging_pages(&plan), at, end = ALIGN_UP(top, SIZE_1G);
	u64 step = pages_1g ? 0x1ffff000 : 0x1ff000;
	bool nx;

	pool = malloc(pages * PAGE_SIZE);
	memset(pool, 0xff, pages * PAGE_SIZE);
	paging_build(&plan, pool, POOL_PHYS);
	for (at = 0; at < end; at += step) {
		assert_true(walk(at, &nx) == at && !nx);
		assert_true(walk(DIRECT_MAP_BASE_REAL + at, &nx) == at && nx);
	}
	assert_true(walk(end - 1, &nx) == end - 1);
	assert_true(walk(end, &nx) == UNMAPPED);
	assert_true(walk(DIRECT_MAP_BASE_REAL + end, &nx) == UNMAPPED);
	for (at = 0; at < plan.image_bytes; at += PAGE_SIZE)
		assert_true(walk(image_virt + at, &nx) == plan.image_phys + at && !nx);
	assert_true(walk(image_virt - 1, &nx) == UNMAPPED);
	assert_true(walk(image_virt + 0x800000, &nx) == UNMAPPED);
	free(pool);
}

static void test_tables(void **state)
{
	check_tables(4 * GIB, true, 0xffffffff80000000ull);
	check_tables(4 * GIB, false, 0xffffffff80200000ull);
	check_tables(5 * GIB + 1, false, 0xffffffffbfc00000ull);
	check_tables(512 * GIB, true, 0xffffffffbfa00000ull);
	check_tables(1025 * GIB, true, 0xffffffffc0000000ull);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_firmware_types), cmocka_unit_test(test_merge_and_align),
		cmocka_unit_test(test_overlap),	       cmocka_unit_test(test_full),
		cmocka_unit_test(test_model),	       cmocka_unit_test(test_tables),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
