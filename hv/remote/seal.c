#include "remote/seal.h"

#include <bearssl_hash.h>

#include "lib/string.h"
#include "rdma/wire.h"
#include "x86/asm.h"
#include "x86/entropy.h"
#include "x86/simd.h"

/* Leaf 1, ECX: AES, and SSSE3 and SSE4.1, which BearSSL's key schedule is compiled for. */
#define CPUID_AES (BIT(25) | BIT(9) | BIT(19))

bool seal_hardware(void)
{
	return (cpuid(1, 0).ecx & CPUID_AES) == CPUID_AES;
}

void seal_init_as(struct seal *s, const u8 key[SEAL_KEY], bool hardware)
{
	struct simd_save save;

	simd_begin(&save);
	ocb_init(&s->ocb, key, hardware);
	simd_end(&save);
}

void seal_init(struct seal *s, const u8 key[SEAL_KEY])
{
	seal_init_as(s, key, seal_hardware());
}

_Static_assert(PAGE_SIZE / 16 <= OCB_BLOCKS, "a page is one message");

struct wire_name {
	u8 nonce[12], page[4];
};

static void encode_name(const struct seal_name *name, struct wire_name *n)
{
	put_be32(n->nonce, name->vm);
	put_be64(n->nonce + 4, name->version);
	put_be32(n->page, name->page);
}

/* Takes the same time wherever the difference is. */
static bool same_tag(const u8 *a, const u8 *b)
{
	u64 x[2], y[2];

	__builtin_memcpy(x, a, sizeof(x)); /* no call */
	__builtin_memcpy(y, b, sizeof(y));
	return !((x[0] ^ y[0]) | (x[1] ^ y[1]));
}

/*
 * What is done between simd_begin_wide() and simd_end() has functions of its own: a compiler for
 * the host may use vector registers at their beginning and end.
 */
static void __noinline seal_it(const struct seal *s, const struct seal_name *name, u8 *data,
			       u8 *tag)
{
	struct wire_name n;

	encode_name(name, &n);
	ocb_encrypt(&s->ocb, n.nonce, n.page, sizeof(n.page), data, PAGE_SIZE, tag);
}

static bool __noinline check_it(const struct seal *s, const struct seal_name *name, const u8 *data,
				const u8 *tag)
{
	u8 found[SEAL_TAG];
	struct wire_name n;

	encode_name(name, &n);
	ocb_tag(&s->ocb, n.nonce, n.page, sizeof(n.page), data, PAGE_SIZE, found);
	return same_tag(found, tag);
}

static bool __noinline open_it(const struct seal *s, const struct seal_name *name, u8 *data,
			       const u8 *tag)
{
	u8 found[SEAL_TAG];
	struct wire_name n;

	encode_name(name, &n);
	ocb_decrypt(&s->ocb, n.nonce, n.page, sizeof(n.page), data, PAGE_SIZE, found);
	if (same_tag(found, tag))
		return true;
	memset(data, 0, PAGE_SIZE);
	return false;
}

void seal_page(const struct seal *s, const struct seal_name *name, u8 *data, u8 tag[SEAL_TAG])
{
	struct simd_save save;

	simd_begin_wide(&save);
	seal_it(s, name, data, tag);
	simd_end(&save);
}

bool seal_check(const struct seal *s, const struct seal_name *name, const u8 *data,
		const u8 tag[SEAL_TAG])
{
	struct simd_save save;
	bool same;

	simd_begin_wide(&save);
	same = check_it(s, name, data, tag);
	simd_end(&save);
	return same;
}

bool seal_open(const struct seal *s, const struct seal_name *name, u8 *data, const u8 tag[SEAL_TAG])
{
	struct simd_save save;
	bool same;

	simd_begin_wide(&save);
	same = open_it(s, name, data, tag);
	simd_end(&save);
	return same;
}

/* --- keys ----------------------------------------------------------------------------------- */

/* How long CPUID and scattered memory accesses take is not the same each time. */
static void from_jitter(br_sha256_context *hash)
{
	static volatile u8 scratch[4096];
	u64 t;
	u32 i;

	for (i = 0; i < 512; i++) {
		cpuid(0, 0);
		scratch[i * 1009 % sizeof(scratch)]++;
		t = rdtsc();
		br_sha256_update(hash, &t, sizeof(t));
	}
}

bool seal_new_key(u8 key[SEAL_KEY])
{
	static u64 calls;
	br_sha256_context hash;
	struct simd_save save;
	u8 random[2 * SEAL_KEY];
	bool good = entropy_fill(random, sizeof(random));

	simd_begin(&save); /* for host builds, where a compiler may use vectors for BearSSL's C */
	br_sha256_init(&hash);
	calls++;
	br_sha256_update(&hash, &calls, sizeof(calls));
	br_sha256_update(&hash, random, sizeof(random));
	from_jitter(&hash);
	br_sha256_out(&hash, key);
	memset(&hash, 0, sizeof(hash));
	memset(random, 0, sizeof(random));
	simd_end(&save);
	return good;
}
