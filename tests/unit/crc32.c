/* CRC-32 in all its forms against published check values and the definition bit by bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* As in the hypervisor: the compiler itself leaves the vector registers alone. */
#pragma GCC push_options
#pragma GCC target("general-regs-only")
#include "lib/crc32.c"
#pragma GCC pop_options

#include "vectors.h"

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

/* --- the forms -------------------------------------------------------------------------------- */

static void in_each_form(void (*test)(void))
{
	crc32(0, "", 0);
	zmm_init();
	if (zmm_usable())
		test();
	zmm_offered = false;
	if (method == BY_FOLDING)
		test();
	method = BY_TABLE;
	test();
	method = UNKNOWN;
}

static void test_forms(void **state)
{
	crc32(0, "", 0);
	zmm_init();
	if (method != BY_FOLDING || !zmm_usable())
		skip(); /* the other tests see to those that there are */
}

/* --- values ----------------------------------------------------------------------------------- */

static void known(void)
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

static void pieces(void)
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

static u8 *random_bytes(size_t len)
{
	static u32 seed = 1;
	u8 *data = malloc(len + 1); /* exactly: reading beyond is noticed */
	size_t i;

	for (i = 0; i < len; i++) {
		seed = seed * 1103515245 + 12345;
		data[i] = (u8)(seed >> 16);
	}
	return data;
}

/* Every length up to a page and a bit, at every alignment, with and without a previous piece. */
static void lengths(void)
{
	u8 *data = random_bytes(4600);
	size_t len, at;

	for (len = 0; len < 700; len++)
		for (at = 0; at < 17; at++)
			assert_int_equal(crc32(0, data + at, len), by_bits(data + at, len));
	for (len = 0; len < 4600; len += 61) {
		u8 *exact = random_bytes(len);

		assert_int_equal(crc32(0, exact, len), by_bits(exact, len));
		assert_int_equal(crc32(crc32(0, exact, len / 3), exact + len / 3, len - len / 3),
				 by_bits(exact, len));
		free(exact);
	}
	free(data);
}

static u32 masked(const u8 *mask, const u8 *head, size_t head_len, const u8 *data, size_t len)
{
	return head_len == CRC32_HEAD ? crc32_masked(mask, head, data, len)
				      : crc32_masked_short(mask, head, head_len);
}

/* A head with bits that count as ones, and what follows it elsewhere, at every alignment. */
static void masks(void)
{
	_Alignas(16) u8 mask[CRC32_MASK], none[CRC32_MASK] = {0};
	u8 *data = random_bytes(600), *whole = malloc(600);
	size_t head, len, i;

	for (i = 0; i < sizeof(mask); i++)
		mask[i] = (u8)(i * i * 5);
	for (head = CRC32_MASK; head <= CRC32_HEAD; head++) {
		for (len = 0; len < (head == CRC32_HEAD ? 400 : 1); len++) {
			u8 *exact = random_bytes(head), *rest = (u8 *)malloc(len + 17) + len % 17;

			memcpy(rest, data, len);
			memcpy(whole, exact, head);
			memcpy(whole + head, rest, len);
			assert_int_equal(masked(none, exact, head, rest, len),
					 by_bits(whole, head + len));
			for (i = 0; i < sizeof(mask); i++)
				whole[i] |= mask[i];
			assert_int_equal(masked(mask, exact, head, rest, len),
					 by_bits(whole, head + len));
			free(rest - len % 17);
			free(exact);
		}
	}
	free(whole);
	free(data);
}

/* Nothing but the bytes in question is read, wherever head and data lie. */
static void bounds(void)
{
	_Alignas(16) u8 mask[CRC32_MASK];
	u8 whole[CRC32_HEAD + 300];
	size_t len, i;

	for (i = 0; i < sizeof(mask); i++)
		mask[i] = (u8)(i * 11);
	for (i = 0; i < sizeof(whole); i++)
		whole[i] = (u8)(i * i + 5 * i);
	for (len = 0; len < 600; len++) {
		bool first = len & 1;
		size_t head_len = len < 34 ? CRC32_MASK + len / 2 : CRC32_HEAD;
		size_t rest = len < 34 ? 0 : (len - 34) / 2;
		struct fenced head = fence(head_len, first), data = fence(rest, first);
		u8 expected[sizeof(whole)];

		memcpy(head.bytes, whole, head_len);
		memcpy(data.bytes, whole + head_len, rest);
		memcpy(expected, whole, head_len + rest);
		for (i = 0; i < sizeof(mask); i++)
			expected[i] |= mask[i];
		assert_int_equal(masked(mask, head.bytes, head_len, data.bytes, rest),
				 by_bits(expected, head_len + rest));
		assert_int_equal(crc32(0, data.bytes, rest), by_bits(whole + head_len, rest));
		unfence(&head);
		unfence(&data);
	}
}

/* --- a guest's vector registers --------------------------------------------------------------- */

static void long_one(const u8 *data)
{
	crc32(0, data, 4096);
}

static void unaligned_one(const u8 *data)
{
	crc32(0, data + 1, 4000);
}

static void ragged_one(const u8 *data)
{
	crc32(0, data, 4093);
}

static void short_one(const u8 *data)
{
	static const _Alignas(16) u8 mask[CRC32_MASK];

	crc32_masked_short(mask, data, CRC32_MASK + 4);
}

static void registers_kept(void)
{
	static void (*const run[])(const u8 *) = {long_one, unaligned_one, ragged_one, short_one};
	u8 *data = random_bytes(4096);
	size_t i;

	for (i = 0; i < ARRAY_SIZE(run); i++)
		assert_true(vectors_kept(run[i], data));
	free(data);
}

static void every_bit_counts(void)
{
	u8 data[192] = {0};
	u32 clean = crc32(0, data, sizeof(data));
	size_t bit;

	for (bit = 0; bit < sizeof(data) * 8; bit++) {
		data[bit / 8] ^= (u8)(1u << bit % 8);
		assert_int_not_equal(crc32(0, data, sizeof(data)), clean);
		data[bit / 8] ^= (u8)(1u << bit % 8);
	}
}

#define IN_EACH_FORM(name)                    \
	static void test_##name(void **state) \
	{                                     \
		in_each_form(name);           \
	}

IN_EACH_FORM(known)
IN_EACH_FORM(pieces)
IN_EACH_FORM(every_bit_counts)
IN_EACH_FORM(lengths)
IN_EACH_FORM(masks)
IN_EACH_FORM(bounds)
IN_EACH_FORM(registers_kept)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forms),	cmocka_unit_test(test_known),
		cmocka_unit_test(test_pieces),	cmocka_unit_test(test_every_bit_counts),
		cmocka_unit_test(test_lengths), cmocka_unit_test(test_masks),
		cmocka_unit_test(test_bounds),	cmocka_unit_test(test_registers_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
