/* Copies with the widest registers there are, and without. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#pragma GCC push_options
#pragma GCC target("general-regs-only")
#include "lib/zmm.c"
#pragma GCC pop_options

#include "vectors.h"

static void copies(bool first, size_t offset)
{
	size_t len, i;

	for (len = 0; len <= 2048 + 64; len += len % 256 < 130 ? 1 : 31) {
		struct fenced from = fence(len + offset, first), to = fence(len + offset, first);
		u8 *source = first ? from.bytes + offset : from.bytes;
		u8 *sink = first ? to.bytes + offset : to.bytes;

		memset(to.bytes, 0x5a, len + offset);
		for (i = 0; i < len + offset; i++)
			from.bytes[i] = (u8)(i * 7 + (i >> 8) + 1);
		zmm_copy(sink, source, len);
		assert_memory_equal(sink, source, len);
		for (i = 0; i < offset; i++)
			assert_int_equal(to.bytes[first ? i : len + i], 0x5a);
		unfence(&from);
		unfence(&to);
	}
}

static void test_copy(void **state)
{
	u32 round;

	zmm_offered = false;
	for (round = 0; round < 2; round++) {
		copies(true, 0);
		copies(false, 0);
		copies(true, 13);
		copies(false, 13);
		zmm_init();
	}
}

static u8 buffer[4096];

static void copy_page(const u8 *data)
{
	zmm_copy(buffer, data, sizeof(buffer));
}

static void copy_block(const u8 *data)
{
	zmm_copy(buffer, data, 64);
}

static void test_registers_kept(void **state)
{
	static u8 data[4096] = {1, 2, 3};

	zmm_init();
	if (!zmm_usable())
		skip();
	assert_true(vectors_kept(copy_page, data));
	assert_memory_equal(buffer, data, sizeof(data));
	assert_true(vectors_kept(copy_block, data));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_copy),
		cmocka_unit_test(test_registers_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
