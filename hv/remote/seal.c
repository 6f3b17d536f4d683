#include "remote/seal.h"

#include <bearssl_block.h>
#include <bearssl_hash.h>

#include "lib/string.h"
#include "rdma/wire.h"
#include "x86/asm.h"
#include "x86/entropy.h"
#include "x86/simd.h"

#define CPUID_AES_AND_CLMUL (BIT(25) | BIT(1) | BIT(9) | BIT(19)) /* SSSE3 and SSE4.1 too */
#define CPUID_RDRAND	    BIT(30)				  /* leaf 1, ECX */
#define CPUID_RDSEED	    BIT(18)				  /* leaf 7, EBX */

_Static_assert(sizeof(br_aes_x86ni_ctr_keys) <= sizeof(((struct seal *)0)->schedule) &&
		       sizeof(br_aes_ct64_ctr_keys) <= sizeof(((struct seal *)0)->schedule),
	       "room for BearSSL's key schedules");

bool seal_hardware(void)
{
	return (cpuid(1, 0).ecx & CPUID_AES_AND_CLMUL) == CPUID_AES_AND_CLMUL;
}

/* AES in counter mode from block `counter` on; between simd_begin() and simd_end(). */
static void crypt(const struct seal *s, const u8 nonce[12], u32 counter, void *data, size_t len)
{
	if (s->hardware)
		br_aes_x86ni_ctr_run((const br_aes_x86ni_ctr_keys *)s->schedule, nonce, counter,
				     data, len);
	else
		br_aes_ct64_ctr_run((const br_aes_ct64_ctr_keys *)s->schedule, nonce, counter, data,
				    len);
}

static void ghash(const struct seal *s, void *y, const void *data, size_t len)
{
	if (s->hardware)
		br_ghash_pclmul(y, s->h, data, len);
	else
		br_ghash_ctmul64(y, s->h, data, len);
}

void seal_init_as(struct seal *s, const u8 key[SEAL_KEY], bool hardware)
{
	static const u8 zero[12];
	struct simd_save save;

	memset(s, 0, sizeof(*s));
	s->hardware = hardware;
	simd_begin(&save);
	if (hardware)
		br_aes_x86ni_ctr_init((br_aes_x86ni_ctr_keys *)s->schedule, key, SEAL_KEY);
	else
		br_aes_ct64_ctr_init((br_aes_ct64_ctr_keys *)s->schedule, key, SEAL_KEY);
	crypt(s, zero, 0, s->h, sizeof(s->h));
	simd_end(&save);
}

void seal_init(struct seal *s, const u8 key[SEAL_KEY])
{
	seal_init_as(s, key, seal_hardware());
}

static void tag_of(const struct seal *s, const u8 nonce[12], const void *extra, size_t extra_len,
		   const void *data, size_t len, u8 tag[SEAL_TAG])
{
	u8 lengths[16], y[16] = {0};
	u32 i;

	put_be64(lengths, 8 * (u64)extra_len);
	put_be64(lengths + 8, 8 * (u64)len);
	if (extra_len)
		ghash(s, y, extra, extra_len);
	ghash(s, y, data, len);
	ghash(s, y, lengths, sizeof(lengths));
	memset(tag, 0, SEAL_TAG);
	crypt(s, nonce, 1, tag, SEAL_TAG);
	for (i = 0; i < SEAL_TAG; i++)
		tag[i] ^= y[i];
}

void seal_gcm_tag(const struct seal *s, const u8 nonce[12], const void *extra, size_t extra_len,
		  const void *data, size_t len, u8 tag[SEAL_TAG])
{
	struct simd_save save;

	simd_begin(&save);
	tag_of(s, nonce, extra, extra_len, data, len, tag);
	simd_end(&save);
}

void seal_gcm_crypt(const struct seal *s, const u8 nonce[12], void *data, size_t len)
{
	struct simd_save save;

	simd_begin(&save);
	crypt(s, nonce, 2, data, len);
	simd_end(&save);
}

struct wire_name {
	u8 nonce[12], page[4];
};

static void encode_name(const struct seal_name *name, struct wire_name *n)
{
	put_be32(n->nonce, name->vm);
	put_be64(n->nonce + 4, name->version);
	put_be32(n->page, name->page);
}

void seal_page(const struct seal *s, const struct seal_name *name, u8 *data, u8 tag[SEAL_TAG])
{
	struct simd_save save;
	struct wire_name n;

	encode_name(name, &n);
	simd_begin(&save);
	crypt(s, n.nonce, 2, data, PAGE_SIZE);
	tag_of(s, n.nonce, n.page, sizeof(n.page), data, PAGE_SIZE, tag);
	simd_end(&save);
}

/* Takes the same time wherever the difference is. */
static bool same_tag(const u8 *a, const u8 *b)
{
	u32 i, differ = 0;

	for (i = 0; i < SEAL_TAG; i++)
		differ |= a[i] ^ b[i];
	return !differ;
}

bool seal_check(const struct seal *s, const struct seal_name *name, const u8 *data,
		const u8 tag[SEAL_TAG])
{
	u8 found[SEAL_TAG];
	struct wire_name n;

	encode_name(name, &n);
	seal_gcm_tag(s, n.nonce, n.page, sizeof(n.page), data, PAGE_SIZE, found);
	return same_tag(found, tag);
}

bool seal_open(const struct seal *s, const struct seal_name *name, u8 *data, const u8 tag[SEAL_TAG])
{
	struct simd_save save;
	u8 found[SEAL_TAG];
	struct wire_name n;
	bool same;

	encode_name(name, &n);
	simd_begin(&save);
	tag_of(s, n.nonce, n.page, sizeof(n.page), data, PAGE_SIZE, found);
	same = same_tag(found, tag);
	if (same)
		crypt(s, n.nonce, 2, data, PAGE_SIZE);
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
