/* Sealing: published vectors, both implementations alike, every change noticed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "remote/seal.h"
#include "x86/simd.h"

static u32 from_hex(const char *hex, u8 *to)
{
	u32 n = 0;

	for (; *hex; hex += 2)
		to[n++] = (u8)strtoul((char[3]){hex[0], hex[1], 0}, NULL, 16);
	return n;
}

struct vector {
	const char *key, *nonce, *extra, *plain, *cipher, *tag;
};

#define KEY_15 "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"
#define KEY_0  "0000000000000000000000000000000000000000000000000000000000000000"

/* McGrew and Viega, "The Galois/Counter Mode of Operation", test cases 13 to 16. */
static const struct vector vectors[] = {
	{KEY_0, "000000000000000000000000", "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"},
	{KEY_0, "000000000000000000000000", "", "00000000000000000000000000000000",
	 "cea7403d4d606b6e074ec5d3baf39d18", "d0d1c8a799996bf0265b98b5d48ab919"},
	{KEY_15, "cafebabefacedbaddecaf888", "",
	 "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
	 "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
	 "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
	 "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad",
	 "b094dac5d93471bdec1a502270e3cc6c"},
	{KEY_15, "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
	 "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
	 "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
	 "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
	 "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
	 "76fc6ece0f4e1768cddf8853bb2d551b"},
};

static void known(bool hardware)
{
	u8 key[32], nonce[12], extra[64], plain[64], cipher[64], tag[16], found[16];
	struct seal s;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(vectors); i++) {
		const struct vector *v = &vectors[i];
		u32 extra_len = from_hex(v->extra, extra), len = from_hex(v->plain, plain);

		from_hex(v->key, key);
		from_hex(v->nonce, nonce);
		from_hex(v->cipher, cipher);
		from_hex(v->tag, tag);
		seal_init_as(&s, key, hardware);
		seal_gcm_crypt(&s, nonce, plain, len);
		assert_memory_equal(plain, cipher, len);
		seal_gcm_tag(&s, nonce, extra, extra_len, cipher, len, found);
		assert_memory_equal(found, tag, 16);
	}
}

static void test_known_software(void **state)
{
	known(false);
}

static void test_known_hardware(void **state)
{
	if (!seal_hardware())
		skip();
	known(true);
}

static void random_bytes(u8 *at, size_t len)
{
	while (len--)
		*at++ = (u8)(rand() >> 7);
}

static void test_both_alike(void **state)
{
	static u8 page[PAGE_SIZE], a[PAGE_SIZE], b[PAGE_SIZE];
	u8 key[SEAL_KEY], tag_a[SEAL_TAG], tag_b[SEAL_TAG];
	struct seal soft, hard;
	u32 i;

	if (!seal_hardware())
		skip();
	for (i = 0; i < 50; i++) {
		struct seal_name name = {i, (u32)rand(), (u64)rand() << 32 | (u32)rand()};

		random_bytes(key, sizeof(key));
		random_bytes(page, sizeof(page));
		seal_init_as(&soft, key, false);
		seal_init_as(&hard, key, true);
		memcpy(a, page, sizeof(a));
		memcpy(b, page, sizeof(b));
		seal_page(&soft, &name, a, tag_a);
		seal_page(&hard, &name, b, tag_b);
		assert_memory_equal(a, b, sizeof(a));
		assert_memory_equal(tag_a, tag_b, sizeof(tag_a));
		assert_int_not_equal(memcmp(a, page, sizeof(a)), 0);
		assert_true(seal_check(&hard, &name, a, tag_a));
		assert_true(seal_open(&soft, &name, a, tag_a));
		assert_true(seal_open(&hard, &name, b, tag_b));
		assert_memory_equal(a, page, sizeof(a));
		assert_memory_equal(b, page, sizeof(b));
	}
}

/* Any bit of data, tag, version, page or VM; what is refused is left as it came. */
static void every_bit(bool hardware)
{
	static u8 page[PAGE_SIZE], sealed[PAGE_SIZE], copy[PAGE_SIZE];
	struct seal_name name = {3, 1000, 77}, other;
	u8 key[SEAL_KEY], tag[SEAL_TAG];
	struct seal s;
	u32 bit;

	random_bytes(key, sizeof(key));
	random_bytes(page, sizeof(page));
	seal_init_as(&s, key, hardware);
	memcpy(sealed, page, sizeof(page));
	seal_page(&s, &name, sealed, tag);
	for (bit = 0; bit < PAGE_SIZE * 8; bit += hardware ? 1 : 31) {
		sealed[bit / 8] ^= (u8)(1u << bit % 8);
		if (bit % 64 == 0)
			memcpy(copy, sealed, sizeof(copy));
		assert_false(seal_check(&s, &name, sealed, tag));
		assert_false(seal_open(&s, &name, sealed, tag));
		if (bit % 64 == 0)
			assert_memory_equal(copy, sealed, sizeof(copy));
		sealed[bit / 8] ^= (u8)(1u << bit % 8);
	}
	for (bit = 0; bit < SEAL_TAG * 8; bit++) {
		tag[bit / 8] ^= (u8)(1u << bit % 8);
		assert_false(seal_open(&s, &name, sealed, tag));
		tag[bit / 8] ^= (u8)(1u << bit % 8);
	}
	for (bit = 0; bit < 128; bit++) {
		other = name;
		if (bit < 32)
			other.vm ^= BIT(bit);
		else if (bit < 64)
			other.page ^= BIT(bit - 32);
		else
			other.version ^= BIT64(bit - 64);
		assert_false(seal_open(&s, &other, sealed, tag));
	}
	for (bit = 0; bit < SEAL_KEY * 8; bit += 17) {
		key[bit / 8] ^= (u8)(1u << bit % 8);
		seal_init_as(&s, key, hardware);
		assert_false(seal_open(&s, &name, sealed, tag));
		key[bit / 8] ^= (u8)(1u << bit % 8);
	}
	seal_init_as(&s, key, hardware);
	assert_true(seal_open(&s, &name, sealed, tag));
	assert_memory_equal(sealed, page, sizeof(page));
}

static void test_every_bit_software(void **state)
{
	every_bit(false);
}

static void test_every_bit_hardware(void **state)
{
	if (!seal_hardware())
		skip();
	every_bit(true);
}

static void test_new_keys(void **state)
{
	u8 key[64][SEAL_KEY];
	u32 i, j;

	for (i = 0; i < ARRAY_SIZE(key); i++) {
		seal_new_key(key[i]);
		for (j = 0; j < i; j++)
			assert_int_not_equal(memcmp(key[i], key[j], SEAL_KEY), 0);
	}
}

/* What a guest has in its vector registers is there afterwards, all of it. */
static void test_registers_kept(void **state)
{
	static u8 page[PAGE_SIZE];
	const struct seal_name name = {1, 2, 3};
	struct simd_save mine, pattern, after;
	u8 tag[SEAL_TAG];
	struct seal s;

	seal_init(&s, page);
	random_bytes((u8 *)&pattern, sizeof(pattern));
	simd_begin(&mine);
	simd_end(&pattern);
	seal_page(&s, &name, page, tag);
	seal_open(&s, &name, page, tag);
	seal_check(&s, &name, page, tag);
	simd_begin(&after);
	simd_end(&mine);
	assert_memory_equal(&after, &pattern, sizeof(after));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known_software),
		cmocka_unit_test(test_known_hardware),
		cmocka_unit_test(test_both_alike),
		cmocka_unit_test(test_every_bit_software),
		cmocka_unit_test(test_every_bit_hardware),
		cmocka_unit_test(test_new_keys),
		cmocka_unit_test(test_registers_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
