/* CRC-32 against published check values and against the definition bit by bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "lib/crc32.h"

/* The definition: polynomial division, one bit at a time. */
static u32 by_bits(const u8 *p, size_t len)
{
	u32 crc = ~0u;
	int i;

	while (len--) {
		crc ^= *p++;
		for (i = 0; i < 8; i++)
			crc = crc & 1 ? crc >> 1 ^ 0xedb88320 : crc >> 1;
	}
	return ~crc;
}

static void test_known(void **state)
{
	static const u8 zeros[32];
	u8 ones[32];

	memset(ones, 0xff, sizeof(ones));
	assert_int_equal(crc32(0, "", 0), 0);
	assert_int_equal(crc32(0, "123456789", 9), 0xcbf43926);
	assert_int_equal(crc32(0, "a", 1), 0xe8b7be43);
	assert_int_equal(crc32(0, zeros, 32), 0x190a55ad);
	assert_int_equal(crc32(0, ones, 32), 0xff6cab0b);
}

static void test_pieces(void **state)
{
	u8 data[257];
	size_t i;

	for (i = 0; i < sizeof(data); i++)
		data[i] = (u8)(i * 7 + 3);
	for (i = 0; i <= sizeof(data); i++) {
		assert_int_equal(crc32(0, data, i), by_bits(data, i));
		assert_int_equal(crc32(crc32(0, data, i), data + i, sizeof(data) - i),
				 by_bits(data, sizeof(data)));
	}
}

static void test_every_bit_counts(void **state)
{
	u8 data[64] = {0};
	u32 clean = crc32(0, data, sizeof(data));
	size_t bit;

	for (bit = 0; bit < sizeof(data) * 8; bit++) {
		data[bit / 8] ^= (u8)(1u << bit % 8);
		assert_int_not_equal(crc32(0, data, sizeof(data)), clean);
		data[bit / 8] ^= (u8)(1u << bit % 8);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known),
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_every_bit_counts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
