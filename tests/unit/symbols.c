/* Symbol look-up in this test's own ELF file, and in damaged copies of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/symbols.h"

static u8 *file;
static size_t file_bytes;

/* The address of main() in the file, by way of the symbol that is looked for: found by scanning. */
static u64 address_of(const char *name)
{
	u64 offset;

	for (u64 a = 0x1000; a < 0x400000; a += 1) {
		const char *found = symbols_find(a, &offset);

		if (found && !strcmp(found, name) && offset == 0)
			return a;
	}
	return 0;
}

static void test_find(void **state)
{
	u64 offset = 99, where;

	assert_true(symbols_init(file, file_bytes));
	where = address_of("symbols_find");
	assert_int_not_equal(where, 0);
	/* Position-independent: distances between functions are those of the file. */
	assert_string_equal(
		symbols_find(where + ((u64)(uintptr_t)symbols_init - (u64)(uintptr_t)symbols_find) +
				     5,
			     &offset),
		"symbols_init");
	assert_int_equal(offset, 5);
	assert_null(symbols_find(1, &offset));
}

static void test_damage(void **state)
{
	u8 *copy = malloc(file_bytes);
	u64 offset;

	srand(1);
	for (int round = 0; round < 2000; round++) {
		size_t len = file_bytes;

		memcpy(copy, file, file_bytes);
		for (int i = 0; i < 4; i++) /* header and section headers are where it hurts */
			copy[rand() % 2 ? (size_t)rand() % 64
					: file_bytes - 1 - (size_t)rand() % 2048] = (u8)rand();
		if (rand() % 4 == 0)
			len = (size_t)rand() % file_bytes;
		if (symbols_init(copy, len))
			symbols_find(0x2000, &offset);
	}
	assert_false(symbols_init(file, 0));
	assert_false(symbols_init(file, 63));
	assert_false(symbols_init(file, file_bytes / 2));
	assert_null(symbols_find(0x2000, &offset));
	free(copy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_find),
		cmocka_unit_test(test_damage),
	};
	FILE *f = fopen("/proc/self/exe", "rb");
	int failed;

	if (!f)
		return 1;
	file = malloc(16 << 20);
	file_bytes = fread(file, 1, 16 << 20, f);
	fclose(f);
	file = realloc(file, file_bytes); /* exact, so that ASan sees an overrun */
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	free(file);
	return failed;
}
