/* Sealing: published vectors, both implementations alike, every change noticed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <bearssl_hash.h>

#include "lib/zmm.h"
#include "remote/seal.h"
#include "vectors.h"
#include "x86/simd.h"

static u32 from_hex(const char *hex, u8 *to)
{
	u32 n = 0;

	for (; *hex; hex += 2)
		to[n++] = (u8)strtoul((char[3]){hex[0], hex[1], 0}, NULL, 16);
	return n;
}

/* Encrypts, and decrypts back; the tags must be the same. */
static void ocb(const struct ocb *o, const u8 *nonce, const u8 *extra, size_t extra_len, u8 *data,
		size_t len, u8 *tag)
{
	static u8 copy[PAGE_SIZE];
	u8 again[OCB_TAG];
	struct simd_save save;

	simd_begin_wide(&save);
	memcpy(copy, data, len);
	ocb_encrypt(o, nonce, extra, extra_len, data, len, tag);
	if (len % 16 == 0) {
		ocb_tag(o, nonce, extra, extra_len, data, len, again);
		assert_memory_equal(again, tag, OCB_TAG);
	}
	ocb_decrypt(o, nonce, extra, extra_len, data, len, again);
	assert_memory_equal(again, tag, OCB_TAG);
	assert_memory_equal(data, copy, len);
	ocb_encrypt(o, nonce, extra, extra_len, data, len, tag);
	simd_end(&save);
}

static void count_up(u8 nonce[OCB_NONCE], u32 n)
{
	memset(nonce, 0, OCB_NONCE);
	nonce[10] = (u8)(n >> 8);
	nonce[11] = (u8)n;
}

/*
 * RFC 7253, appendix A: messages of 0 to 127 bytes, whose ciphertexts and tags (S with itself, with
 * nothing, and nothing with S) are authenticated with an empty message; the tag is published.
 */
static void iterated(bool hardware)
{
	/* AEAD_AES_256_OCB_TAGLEN128 */
	static const char published[] = "d90eb8e9c977c88b79dd793d7ffa161c";
	static u8 all[128 * 3 * OCB_TAG + 128 * 127];
	static const u8 zeros[128];
	u8 key[OCB_KEY] = {[31] = 128}, nonce[OCB_NONCE], tag[OCB_TAG], expected[OCB_TAG],
	   *at = all;
	struct ocb o;
	u32 i, j;

	ocb_init(&o, key, hardware);
	for (i = 0; i < 128; i++) {
		for (j = 0; j < 3; j++) {
			u32 extra = j == 1 ? 0 : i, len = j == 2 ? 0 : i;

			count_up(nonce, 3 * i + 1 + j);
			memset(at, 0, len);
			ocb(&o, nonce, zeros, extra, at, len, tag);
			memcpy(at + len, tag, OCB_TAG);
			at += len + OCB_TAG;
		}
	}
	assert_int_equal(at - all, sizeof(all));
	count_up(nonce, 385);
	ocb(&o, nonce, all, sizeof(all), all, 0, tag);
	from_hex(published, expected);
	assert_memory_equal(tag, expected, OCB_TAG);
}

/* What OpenSSL 3.0's EVP_aes_256_ocb() makes of messages that are longer: eight blocks and more. */
static const struct {
	u32 len;
	const char *tag, *sha256;
} long_ones[] = {
	{128, "2f320e265b9781852783d248616edd9b",
	 "9ae0ac96055e3937b660be9b7d69fdfc1ddb5e466b10f06089e07d8432c04b9b"},
	{129, "c6bda304c2b9022770195d91cfbf9baa",
	 "70295f75c152ad3f92d7ae2f09fa0cec9cb81290e2fb5e08e8e06a7a8e9a5d08"},
	{256, "f75c55d6f65157c4290ad971ae076238",
	 "c274ee8f1eb8ab2c31abdd77fd405032508745c79dc388b307e048680563228d"},
	{1000, "213923482b749c150674689e7198f7a2",
	 "52ec003b66eeb530da4b0478ef36627110990100768b69dcc0afbb59fe2f748b"},
	{4095, "416789edc55992c08b57a36c30f518f5",
	 "58475d864a0620d50005d191bbd078adc37d9db0771f9a269a9bfb01ad50edd1"},
	{4096, "3e5cb946962d90bee231859ee3f0f725",
	 "07968928cbb943755e57a0d244850fc0347a7339e013ee47aa306862553f4294"},
};

static void longer(bool hardware)
{
	static const u8 extra[] = {0, 0, 16, 1};
	static u8 data[PAGE_SIZE];
	u8 key[OCB_KEY], nonce[OCB_NONCE], tag[OCB_TAG], expected[32], found[32];
	br_sha256_context hash;
	struct ocb o;
	u32 i, j;

	for (i = 0; i < sizeof(key); i++)
		key[i] = (u8)i;
	for (i = 0; i < sizeof(nonce); i++)
		nonce[i] = (u8)(100 + i);
	ocb_init(&o, key, hardware);
	for (i = 0; i < ARRAY_SIZE(long_ones); i++) {
		for (j = 0; j < long_ones[i].len; j++)
			data[j] = (u8)(7 * j + (j >> 8));
		ocb(&o, nonce, extra, sizeof(extra), data, long_ones[i].len, tag);
		from_hex(long_ones[i].tag, expected);
		assert_memory_equal(tag, expected, OCB_TAG);
		br_sha256_init(&hash);
		br_sha256_update(&hash, data, long_ones[i].len);
		br_sha256_out(&hash, found);
		from_hex(long_ones[i].sha256, expected);
		assert_memory_equal(found, expected, sizeof(found));
	}
}

static void test_known_software(void **state)
{
	iterated(false);
	longer(false);
}

/* Calls test() without AVX-512, and with it if there is. */
static void each_width(void (*test)(void))
{
	bool offered = zmm_offered;

	zmm_offered = false;
	test();
	zmm_offered = offered;
	if (offered)
		test();
}

static void known_hardware(void)
{
	iterated(true);
	longer(true);
}

static void test_known_hardware(void **state)
{
	if (!seal_hardware())
		skip();
	each_width(known_hardware);
}

static void random_bytes(u8 *at, size_t len)
{
	while (len--)
		*at++ = (u8)(rand() >> 7);
}

static void both_alike(void)
{
	static u8 page[PAGE_SIZE], a[PAGE_SIZE], b[PAGE_SIZE];
	u8 key[SEAL_KEY], tag_a[SEAL_TAG], tag_b[SEAL_TAG];
	struct seal soft, hard;
	u32 i;

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

static void test_both_alike(void **state)
{
	if (!seal_hardware())
		skip();
	each_width(both_alike);
}

/* Eight blocks and more from each place that a message can be at; steps up to L_10. */
static void test_widths_alike(void **state)
{
	static u8 from[OCB_BLOCKS / 8 * 128], to[2][sizeof(from)];
	struct ocb_pass pass[2];
	u8 key[OCB_KEY];
	struct ocb o;
	u32 at, n;

	if (!seal_hardware() || !zmm_usable())
		skip();
	random_bytes(key, sizeof(key));
	random_bytes(from, sizeof(from));
	ocb_init(&o, key, true);
	for (at = 0; at < sizeof(from) / 128; at++) {
		n = (u32)(sizeof(from) / 128 - at);
		random_bytes((u8 *)&pass[0], sizeof(pass[0]));
		pass[0].blocks = at * 8;
		pass[1] = pass[0];
		ocb_aesni_encrypt(o.encrypt, o.l, &pass[0], from, to[0], n);
		ocb_aesni_wide_encrypt(o.encrypt, o.steps, &pass[1], from, to[1], n);
		assert_memory_equal(&pass[0], &pass[1], sizeof(pass[0]));
		assert_memory_equal(to[0], to[1], n * 128);
		pass[0].blocks = pass[1].blocks = at * 8;
		ocb_aesni_decrypt(o.decrypt, o.l, &pass[0], from, to[0], n);
		ocb_aesni_wide_decrypt(o.decrypt, o.steps, &pass[1], from, to[1], n);
		assert_memory_equal(&pass[0], &pass[1], sizeof(pass[0]));
		assert_memory_equal(to[0], to[1], n * 128);
	}
}

/* Any bit of data, tag, version, page or VM; what is refused is wiped, or left by seal_check(). */
static void every_bit(bool hardware)
{
	static u8 page[PAGE_SIZE], sealed[PAGE_SIZE], copy[PAGE_SIZE];
	static const u8 zeros[PAGE_SIZE];
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
		memcpy(copy, sealed, sizeof(copy));
		assert_false(seal_check(&s, &name, copy, tag));
		assert_memory_equal(copy, sealed, sizeof(copy));
		assert_false(seal_open(&s, &name, copy, tag));
		assert_memory_equal(copy, zeros, sizeof(copy));
		sealed[bit / 8] ^= (u8)(1u << bit % 8);
	}
	for (bit = 0; bit < SEAL_TAG * 8; bit++) {
		tag[bit / 8] ^= (u8)(1u << bit % 8);
		assert_false(seal_check(&s, &name, sealed, tag));
		memcpy(copy, sealed, sizeof(copy));
		assert_false(seal_open(&s, &name, copy, tag));
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
		assert_false(seal_check(&s, &other, sealed, tag));
		memcpy(copy, sealed, sizeof(copy));
		assert_false(seal_open(&s, &other, copy, tag));
	}
	for (bit = 0; bit < SEAL_KEY * 8; bit += 17) {
		key[bit / 8] ^= (u8)(1u << bit % 8);
		seal_init_as(&s, key, hardware);
		assert_false(seal_check(&s, &name, sealed, tag));
		memcpy(copy, sealed, sizeof(copy));
		assert_false(seal_open(&s, &name, copy, tag));
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

static struct seal kept;
static struct simd_save kept_save;
static struct ocb_pass kept_pass;

/* Without C in between: for the host it is compiled to use vector registers, and calls glibc's. */
#pragma GCC push_options
#pragma GCC target("general-regs-only")
static void all_assembly(const u8 *from)
{
	static u8 to[PAGE_SIZE];
	struct ocb *o = &kept.ocb;

	simd_begin_wide(&kept_save);
	ocb_aesni_one_encrypt(o->encrypt, to);
	ocb_aesni_one_decrypt(o->decrypt, to);
	if (zmm_usable()) {
		ocb_aesni_wide_encrypt(o->encrypt, o->steps, &kept_pass, from, to, 32);
		ocb_aesni_wide_decrypt(o->decrypt, o->steps, &kept_pass, from, to, 32);
	} else {
		ocb_aesni_encrypt(o->encrypt, o->l, &kept_pass, from, to, 32);
		ocb_aesni_decrypt(o->decrypt, o->l, &kept_pass, from, to, 32);
	}
	simd_end(&kept_save);
}
#pragma GCC pop_options

static void registers_kept(void)
{
	static const u8 page[PAGE_SIZE];

	kept_pass.blocks = 0;
	assert_true(vectors_kept(all_assembly, page));
}

/* What a guest has in its vector registers is there afterwards, all of it. */
static void test_registers_kept(void **state)
{
	static const u8 key[SEAL_KEY] = {1};

	if (!seal_hardware())
		skip();
	seal_init(&kept, key);
	each_width(registers_kept);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known_software),
		cmocka_unit_test(test_known_hardware),
		cmocka_unit_test(test_both_alike),
		cmocka_unit_test(test_widths_alike),
		cmocka_unit_test(test_every_bit_software),
		cmocka_unit_test(test_every_bit_hardware),
		cmocka_unit_test(test_new_keys),
		cmocka_unit_test(test_registers_kept),
	};

	zmm_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
