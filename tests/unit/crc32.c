/* CRC-32 against published check values and against the definition bit by bit. */
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
static void test_lengths(void **state)
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
static void test_masked(void **state)
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

/* Both ways of computing it. */
static void test_methods(void **state)
{
	u8 *data = random_bytes(4096);
	u32 expected = by_bits(data, 4096);

	crc32(0, "", 0);
	if (method != BY_FOLDING)
		skip();
	method = BY_TABLE;
	assert_int_equal(crc32(0, data, 4096), expected);
	assert_int_equal(crc32(0, data + 1, 4090), by_bits(data + 1, 4090));
	test_masked(state);
	method = BY_FOLDING;
	assert_int_equal(crc32(0, data, 4096), expected);
	free(data);
}

static void long_one(const u8 *data)
{
	crc32(0, data, 4096);
}

static void unaligned_one(const u8 *data)
{
	crc32(0, data + 1, 4000);
}

static void short_one(const u8 *data)
{
	static const _Alignas(16) u8 mask[CRC32_MASK];

	crc32_masked_short(mask, data, CRC32_MASK + 4);
}

/* A guest's vector registers are as before. */
static void test_registers_kept(void **state)
{
	static void (*const run[])(const u8 *) = {long_one, unaligned_one, short_one};
	static u8 before[96], after[96];
	u8 *data = random_bytes(4096);
	size_t i;

	for (i = 0; i < sizeof(before); i++)
		before[i] = (u8)(i * 3 + 1);
	for (i = 0; i < ARRAY_SIZE(run); i++) {
		asm volatile("movups 0(%0), %%xmm0; movups 16(%0), %%xmm1; movups 32(%0), %%xmm2;"
			     "movups 48(%0), %%xmm3; movups 64(%0), %%xmm4; movups 80(%0), %%xmm5"
			     :
			     : "r"(before)
			     : "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5");
		run[i](data);
		asm volatile("movups %%xmm0, 0(%0); movups %%xmm1, 16(%0); movups %%xmm2, 32(%0);"
			     "movups %%xmm3, 48(%0); movups %%xmm4, 64(%0); movups %%xmm5, 80(%0)"
			     :
			     : "r"(after)
			     : "memory");
		assert_memory_equal(before, after, sizeof(before));
	}
	free(data);
}

static void test_every_bit_counts(void **state)
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known),
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_every_bit_counts),
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_masked),
		cmocka_unit_test(test_methods),
		cmocka_unit_test(test_registers_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
