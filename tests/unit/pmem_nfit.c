/* hv/pmem/nfit.c: what a good table says, and that each kind of wrong one is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nfit_qemu.h"
#include "nfit_table.h"
#include "pmem/nfit.h"

static struct nfit_table table;
static struct nfit nfit;
static const char *why;
static u32 where;

/* In a block of exactly its length, so that ASan sees a step beyond. */
static int parse(u32 bytes)
{
	u8 *copy = malloc(bytes);
	int err;

	memcpy(copy, table.bytes, bytes);
	err = nfit_parse(copy, bytes, &nfit, &why, &where);
	free(copy);
	assert_true(!!err == !!why);
	if (err) {
		assert_int_equal(nfit.ranges, 0);
		assert_int_equal(nfit.hints, 0);
	}
	return err;
}

static void refused(int error, const char *text)
{
	nfit_finish(&table);
	assert_int_equal(parse(table.length), error);
	assert_non_null(strstr(why, text));
	nfit_begin(&table);
}

static void put(u32 at, u64 value, u32 bytes)
{
	memcpy(table.bytes + at, &value, bytes);
}

static void test_usual(void **state)
{
	u16 dimm[NFIT_MAX_DIMMS];
	bool all;

	nfit_usual(&table);
	assert_int_equal(parse(table.length), 0);
	assert_int_equal(nfit.ranges, 2);
	assert_int_equal(nfit.range[0].kind, NFIT_PERSISTENT);
	assert_true(nfit.range[0].base == 4 * GIB && nfit.range[0].bytes == 128 * MIB);
	assert_int_equal(nfit.range[1].kind, NFIT_VOLATILE);
	assert_int_equal(nfit.mappings, 3);
	assert_int_equal(nfit.controls, 2);
	assert_int_equal(nfit.control[1].serial, 0x1002);
	assert_int_equal(nfit.hints, 3);
	assert_int_equal(nfit.hint[1], 0x90000040);
	assert_int_equal(nfit.caps, NFIT_CAP_MEMORY_FLUSH); /* only bits 0 and 1 are defined */
	assert_int_equal(nfit_range_dimms(&nfit, &nfit.range[0], dimm, &all), 2);
	assert_true(all);
	assert_int_equal(nfit.dimm[dimm[0]].handle, 0x10);
	assert_int_equal(nfit.dimm[dimm[0]].count, 2);
	assert_int_equal(nfit.dimm[dimm[1]].first, 2);
	assert_int_equal(nfit_range_dimms(&nfit, &nfit.range[1], dimm, &all), 0);
	assert_false(all);
}

static void test_bare_minimum(void **state)
{
	nfit_begin(&table);
	assert_int_equal(parse(table.length), 0);
	assert_int_equal(nfit.ranges, 0);
	/* More bytes than the table is long are not looked at. */
	memset(table.bytes + table.length, 0xff, 64);
	assert_int_equal(parse(table.length + 64), 0);
	/* A type of the future, and types that do not matter here. */
	for (u16 type = 0; type < 12; type++) {
		struct nfit_part p = {type, 4};
		bool ours = type == NFIT_SPA || type == NFIT_MAPPING || type == NFIT_CONTROL ||
			    type == NFIT_HINTS || type == NFIT_CAPS;

		nfit_begin(&table);
		nfit_add(&table, &p, sizeof(p));
		assert_int_equal(parse(table.length), ours ? ERR_INVAL : 0);
	}
	/* Hints of length 0 are none. */
	nfit_begin(&table);
	nfit_add_hints(&table, 1, 0, 0, 0);
	assert_int_equal(parse(table.length), 0);
	assert_int_equal(nfit.dimms, 0);
	/* A newer, longer range structure (6.4 added a cookie). */
	nfit_begin(&table);
	put(nfit_add_spa(&table, 1, guid_persistent, 4 * GIB, 4096) + 2, 64, 2);
	nfit_add(&table, "cookies.", 8);
	assert_int_equal(parse(table.length), 0);
	assert_int_equal(nfit.ranges, 1);
}

static void test_header(void **state)
{
	u32 usual;

	nfit_usual(&table);
	usual = table.length;
	for (u32 n = 0; n < usual; n++)
		assert_int_equal(parse(n), ERR_INVAL);
	table.bytes[usual / 2] ^= 4;
	assert_int_equal(parse(usual), ERR_INVAL);
	assert_non_null(strstr(why, "checksum"));
	nfit_begin(&table);
	table.bytes[0] = 'X';
	assert_int_equal(parse(table.length), ERR_INVAL);
	nfit_begin(&table);
	put(4, 39, 4);
	assert_int_equal(parse(table.length), ERR_INVAL);
	assert_non_null(strstr(why, "length"));
	put(4, 41, 4);
	assert_int_equal(parse(table.length), ERR_INVAL);
	assert_non_null(strstr(why, "length"));
}

/* Every cut of the table whose header and checksum say that it ends there. */
static void test_truncated(void **state)
{
	u32 usual, whole = 0;

	nfit_usual(&table);
	usual = table.length;
	for (u32 n = sizeof(struct nfit_header); n <= usual; n++) {
		nfit_usual(&table);
		table.length = n;
		nfit_finish(&table);
		whole += !parse(n);
	}
	/* Only after the header, the third control region's end and so on can it be whole: before
	 * the ranges are there, mappings have nothing to refer to. */
	assert_in_range(whole, 2, 6);
}

static void test_lengths(void **state)
{
	nfit_begin(&table);
	put(nfit_add_control(&table, 1) + 2, 0, 2);
	refused(ERR_INVAL, "leads out");
	put(nfit_add_control(&table, 1) + 2, 3, 2);
	refused(ERR_INVAL, "leads out");
	put(nfit_add_control(&table, 1) + 2, 33, 2);
	refused(ERR_INVAL, "leads out");
	put(nfit_add_spa(&table, 1, guid_persistent, 0, 4096) + 2, 55, 2);
	refused(ERR_INVAL, "too short");
	put(nfit_add_hints(&table, 1, 2, 0x1000, 8) + 8, 3, 2);
	refused(ERR_INVAL, "more flush hints");
	put(nfit_add_hints(&table, 1, 2, 0x1000, 8) + 8, 0xffff, 2);
	refused(ERR_INVAL, "more flush hints");
	nfit_add(&table, "\0\0", 2);
	refused(ERR_INVAL, "no structure");
}

static void test_ranges(void **state)
{
	nfit_begin(&table);
	nfit_add_spa(&table, 1, guid_persistent, 4 * GIB, 0);
	refused(ERR_INVAL, "empty");
	nfit_add_spa(&table, 1, guid_persistent, 4 * GIB + 512, 4096);
	refused(ERR_INVAL, "whole pages");
	nfit_add_spa(&table, 1, guid_persistent, 4 * GIB, 4097);
	refused(ERR_INVAL, "whole pages");
	nfit_add_spa(&table, 0, guid_persistent, 4 * GIB, 4096);
	refused(ERR_INVAL, "index");
	nfit_add_spa(&table, 1, guid_persistent, 0xfffffffffffff000, 0x2000); /* wraps */
	refused(ERR_INVAL, "beyond");
	nfit_add_spa(&table, 1, guid_persistent, NFIT_ADDRESS_MAX - 4096, 8192);
	refused(ERR_INVAL, "beyond");
	nfit_add_spa(&table, 1, guid_persistent, 4 * GIB, 8192);
	nfit_add_spa(&table, 1, guid_persistent, 5 * GIB, 8192);
	refused(ERR_INVAL, "twice");
	nfit_add_spa(&table, 1, guid_persistent, 4 * GIB, 8192);
	nfit_add_spa(&table, 2, guid_volatile, 4 * GIB + 4096, 8192);
	refused(ERR_INVAL, "overlap");
	nfit_add_spa(&table, 1, guid_persistent, 4 * GIB + 4096, 4096);
	nfit_add_spa(&table, 2, guid_volatile, 4 * GIB, 16384);
	refused(ERR_INVAL, "overlap");
	/* Side by side is fine. */
	nfit_add_spa(&table, 1, guid_persistent, 4 * GIB, 8192);
	nfit_add_spa(&table, 2, guid_persistent, 4 * GIB + 8192, 8192);
	assert_int_equal(parse(table.length), 0);
	nfit_begin(&table);
	for (u16 i = 1; i <= NFIT_MAX_RANGES + 1; i++)
		nfit_add_spa(&table, i, guid_persistent, i * GIB, 4096);
	refused(ERR_RANGE, "too many");
}

static void test_references(void **state)
{
	nfit_begin(&table);
	nfit_add_mapping(&table, 1, 7, 0, 4096);
	refused(ERR_INVAL, "names no range");
	nfit_add_spa(&table, 7, guid_persistent, GIB, 4096);
	nfit_add_mapping(&table, 1, 7, 9, 4096);
	refused(ERR_INVAL, "no control");
	nfit_add_spa(&table, 7, guid_persistent, GIB, 4096);
	nfit_add_mapping(&table, 1, 7, 0, 8192);
	refused(ERR_INVAL, "larger");
	nfit_add_spa(&table, 7, guid_persistent, GIB, 4096);
	nfit_add_mapping(&table, 1, 7, 0, 4096);
	nfit_add_mapping(&table, 1, 7, 0, 4096);
	refused(ERR_INVAL, "twice");
	nfit_add_control(&table, 3);
	nfit_add_control(&table, 3);
	refused(ERR_INVAL, "twice");
	nfit_add_caps(&table, 0, 0);
	nfit_add_caps(&table, 0, 0);
	refused(ERR_INVAL, "twice");
	for (u16 i = 1; i <= NFIT_MAX_CONTROLS + 1; i++)
		nfit_add_control(&table, i);
	refused(ERR_RANGE, "too many");
	for (u32 i = 1; i <= NFIT_MAX_MAPPINGS + 1; i++)
		nfit_add_mapping(&table, i, 0, 0, 0);
	refused(ERR_RANGE, "too many");
}

static void test_hints(void **state)
{
	nfit_begin(&table);
	nfit_add_hints(&table, 1, 1, 0x1004, 8);
	refused(ERR_INVAL, "aligned");
	nfit_add_hints(&table, 1, 1, 0, 8);
	refused(ERR_INVAL, "aligned");
	nfit_add_hints(&table, 1, 1, NFIT_ADDRESS_MAX, 8);
	refused(ERR_INVAL, "aligned");
	nfit_add_hints(&table, 1, 2, 0x1000, 0);
	refused(ERR_INVAL, "twice");
	nfit_add_hints(&table, 1, 1, 0x1000, 8);
	nfit_add_hints(&table, 1, 1, 0x2000, 8);
	refused(ERR_INVAL, "twice");
	nfit_add_hints(&table, 1, NFIT_MAX_HINTS + 1, 0x1000, 8);
	refused(ERR_RANGE, "too many");
	nfit_add_hints(&table, 1, 1, GIB + 0xff8, 8);
	nfit_add_spa(&table, 1, guid_persistent, GIB, 4096);
	refused(ERR_INVAL, "in a range");
	for (u32 i = 0; i <= NFIT_MAX_DIMMS; i++)
		nfit_add_hints(&table, i, 1, 0x1000 + i * 8, 8);
	refused(ERR_RANGE, "too many");
	/* Two NVDIMMs behind one controller. */
	nfit_add_hints(&table, 1, 2, 0x1000, 8);
	nfit_add_hints(&table, 2, 2, 0x1008, 8);
	nfit_finish(&table);
	assert_int_equal(parse(table.length), 0);
	assert_int_equal(nfit.hints, 4);
	assert_true(nfit.dimm[0].first == 0 && nfit.dimm[1].first == 2);
	assert_true(nfit.hint[1] == 0x1008 && nfit.hint[2] == 0x1008);
}

/* A table that we have not made. */
static void test_qemu(void **state)
{
	u16 dimm[NFIT_MAX_DIMMS];
	bool all;

	memcpy(table.bytes, nfit_qemu, sizeof(nfit_qemu));
	assert_int_equal(parse(sizeof(nfit_qemu)), 0);
	assert_int_equal(nfit.ranges, 2);
	assert_int_equal(nfit.range[0].index, 4);
	assert_int_equal(nfit.range[0].kind, NFIT_PERSISTENT);
	assert_true(nfit.range[0].base == 0x103e00000 && nfit.range[0].bytes == 32 * MIB);
	assert_int_equal(nfit.range[0].attributes, NFIT_ATTR_WB | NFIT_ATTR_NV);
	assert_true(nfit.range[1].base == 4 * GIB && nfit.range[1].bytes == 62 * MIB);
	assert_int_equal(nfit.mappings, 2);
	assert_int_equal(nfit.mapping[0].handle, 2);
	assert_int_equal(nfit.mapping[0].control, 5);
	assert_int_equal(nfit.mapping[1].bytes, 62 * MIB);
	assert_int_equal(nfit.controls, 2);
	assert_int_equal(nfit.control[0].vendor, 0x8086);
	assert_int_equal(nfit.control[1].serial, 0x123456);
	assert_int_equal(nfit.hints, 0);
	assert_false(nfit.has_caps);
	assert_int_equal(nfit_range_dimms(&nfit, &nfit.range[0], dimm, &all), 0);
	assert_false(all);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_usual),	   cmocka_unit_test(test_bare_minimum),
		cmocka_unit_test(test_header),	   cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_lengths),	   cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_references), cmocka_unit_test(test_hints),
		cmocka_unit_test(test_qemu),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
