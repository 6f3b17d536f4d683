#include "remote/ocb.h"

#include "lib/string.h"
#include "lib/zmm.h"
#include "rdma/wire.h"

#define TAG_PIECE 16u /* blocks that ocb_tag() decrypts at a time */

/* ocb_aesni.S */
_Static_assert(offsetof(struct ocb_pass, offset) == 0 && offsetof(struct ocb_pass, sum) == 16 &&
		       offsetof(struct ocb_pass, blocks) == 32,
	       "struct ocb_pass");
_Static_assert(offsetof(struct ocb, encrypt) % 16 == 0 && offsetof(struct ocb, decrypt) % 16 == 0 &&
		       offsetof(struct ocb, l) % 16 == 0,
	       "alignment of SSE's operands");
_Static_assert(TAG_PIECE % OCB_EIGHT == 0, "ocb_aesni.S begins where it ended");

/* Sixteen bytes, without calls: they would double what there is to do besides the blocks. */
static inline void copy_block(u8 to[16], const u8 from[16])
{
	__builtin_memcpy(to, from, 16);
}

static inline void clear_block(u8 block[16])
{
	__builtin_memset(block, 0, 16);
}

static inline void xor_block(u8 to[16], const u8 with[16])
{
	u64 a[2], b[2];

	copy_block((u8 *)a, to);
	copy_block((u8 *)b, with);
	a[0] ^= b[0];
	a[1] ^= b[1];
	copy_block(to, (const u8 *)a);
}

/* Times x in GF(2^128). */
static void double_block(u8 to[16], const u8 from[16])
{
	u64 high = be64(from), low = be64(from + 8);

	put_be64(to, high << 1 | low >> 63);
	put_be64(to + 8, low << 1 ^ (high >> 63) * 0x87);
}

/* AES alone, on up to OCB_SOFT blocks. */
static void cipher(const struct ocb *o, bool decrypt, u8 block[OCB_SOFT][16], u32 blocks)
{
	u32 i;

	if (!o->hardware) {
		ocb_bearssl_crypt(o, decrypt, block);
		return;
	}
	for (i = 0; i < blocks; i++) {
		if (decrypt)
			ocb_aesni_one_decrypt(o->decrypt, block[i]);
		else
			ocb_aesni_one_encrypt(o->encrypt, block[i]);
	}
}

static void encipher(const struct ocb *o, u8 block[16])
{
	u8 four[OCB_SOFT][16];

	if (o->hardware) {
		ocb_aesni_one_encrypt(o->encrypt, block);
		return;
	}
	memset(four, 0, sizeof(four));
	copy_block(four[0], block);
	ocb_bearssl_crypt(o, false, four);
	copy_block(block, four[0]);
}

/* The sums of L_ntz(i) that lead from one offset to each of the next eight. */
static void find_steps(struct ocb *o)
{
	u8 step[16] = {0};
	u32 i, k;

	for (i = 0; i < OCB_EIGHT - 1; i++) {
		xor_block(step, o->l[__builtin_ctz(i + 1)]);
		if (i < 4)
			copy_block(o->steps[0][i], step);
		for (k = 1; i >= 4 && k <= OCB_STEPS; k++)
			copy_block(o->steps[k][i - 4], step);
	}
	for (k = 1; k <= OCB_STEPS; k++) {
		copy_block(o->steps[k][3], step);
		xor_block(o->steps[k][3], o->l[k + 2]);
	}
}

void ocb_init(struct ocb *o, const u8 key[OCB_KEY], bool hardware)
{
	u32 i;

	memset(o, 0, sizeof(*o));
	o->hardware = hardware;
	ocb_bearssl_init(o, key);
	encipher(o, o->l_star);
	double_block(o->l_dollar, o->l_star);
	double_block(o->l[0], o->l_dollar);
	for (i = 1; i < OCB_LS; i++)
		double_block(o->l[i], o->l[i - 1]);
	find_steps(o);
}

/* To Offset_i of the next block. */
static void next_offset(const struct ocb *o, u8 offset[16], u32 i)
{
	xor_block(offset, o->l[__builtin_ctz(i)]);
}

/* `len` < 16 bytes, then a one, then zeros. */
static void pad(u8 block[16], const u8 *data, size_t len)
{
	size_t i;

	clear_block(block);
	for (i = 0; i < len; i++)
		block[i] = data[i];
	block[len] = 0x80;
}

/* RFC 7253, 4.1: HASH. */
static void hash(const struct ocb *o, const u8 *data, size_t len, u8 sum[16])
{
	u8 offset[16] = {0}, block[16];
	u32 i;

	clear_block(sum);
	for (i = 1; len >= 16; i++, data += 16, len -= 16) {
		next_offset(o, offset, i);
		copy_block(block, data);
		xor_block(block, offset);
		encipher(o, block);
		xor_block(sum, block);
	}
	if (!len)
		return;
	pad(block, data, len);
	xor_block(block, offset);
	xor_block(block, o->l_star);
	encipher(o, block);
	xor_block(sum, block);
}

/* 4.2: nonce-dependent and per-encryption variables. */
static void begin(const struct ocb *o, struct ocb_pass *p, const u8 nonce[OCB_NONCE])
{
	u8 top[16] = {[3] = 1};
	u64 high, low, more;
	u32 bottom;

	__builtin_memcpy(top + 4, nonce, OCB_NONCE);
	bottom = top[15] & 63;
	top[15] &= 0xc0;
	encipher(o, top);
	high = be64(top);
	low = be64(top + 8);
	if (bottom) {
		more = high ^ (high << 8 | low >> 56);
		high = high << bottom | low >> (64 - bottom);
		low = low << bottom | more >> (64 - bottom);
	}
	put_be64(p->offset, high);
	put_be64(p->offset + 8, low);
	clear_block(p->sum);
	p->blocks = 0;
}

static void __noinline few_blocks(const struct ocb *o, struct ocb_pass *p, bool decrypt,
				  const u8 *from, u8 *to, u32 blocks)
{
	u8 offset[OCB_SOFT][16], data[OCB_SOFT][16] = {{0}};
	u32 i, n;

	for (; blocks; blocks -= n, from += n * 16, to += n * 16) {
		n = MIN(blocks, OCB_SOFT);
		memcpy(data, from, n * 16);
		for (i = 0; i < n; i++) {
			next_offset(o, p->offset, ++p->blocks);
			copy_block(offset[i], p->offset);
			if (!decrypt)
				xor_block(p->sum, data[i]);
			xor_block(data[i], offset[i]);
		}
		cipher(o, decrypt, data, n);
		for (i = 0; i < n; i++) {
			xor_block(data[i], offset[i]);
			if (decrypt)
				xor_block(p->sum, data[i]);
		}
		memcpy(to, data, n * 16);
	}
}

static void whole_blocks(const struct ocb *o, struct ocb_pass *p, bool decrypt, const u8 *from,
			 u8 *to, u32 blocks)
{
	u32 eights = o->hardware ? blocks / OCB_EIGHT : 0, done = eights * OCB_EIGHT;

	if (eights && zmm_usable())
		(decrypt ? ocb_aesni_wide_decrypt : ocb_aesni_wide_encrypt)(
			decrypt ? o->decrypt : o->encrypt, o->steps, p, from, to, eights);
	else if (eights && decrypt)
		ocb_aesni_decrypt(o->decrypt, o->l, p, from, to, eights);
	else if (eights)
		ocb_aesni_encrypt(o->encrypt, o->l, p, from, to, eights);
	if (done < blocks)
		few_blocks(o, p, decrypt, from + done * 16, to + done * 16, blocks - done);
}

/* The rest of a message, which is less than a block. */
static void last_bytes(const struct ocb *o, struct ocb_pass *p, bool decrypt, u8 *data, size_t len)
{
	u8 stream[16], plain[16];
	size_t i;

	xor_block(p->offset, o->l_star);
	copy_block(stream, p->offset);
	encipher(o, stream);
	if (!decrypt)
		pad(plain, data, len);
	for (i = 0; i < len; i++)
		data[i] ^= stream[i];
	if (decrypt)
		pad(plain, data, len);
	xor_block(p->sum, plain);
}

static void end(const struct ocb *o, struct ocb_pass *p, const void *extra, size_t extra_len,
		u8 tag[OCB_TAG])
{
	u8 sum[16];

	hash(o, extra, extra_len, sum);
	copy_block(tag, p->sum);
	xor_block(tag, p->offset);
	xor_block(tag, o->l_dollar);
	encipher(o, tag);
	xor_block(tag, sum);
}

static void crypt(const struct ocb *o, bool decrypt, const u8 nonce[OCB_NONCE], const void *extra,
		  size_t extra_len, u8 *data, size_t len, u8 tag[OCB_TAG])
{
	struct ocb_pass p;

	begin(o, &p, nonce);
	whole_blocks(o, &p, decrypt, data, data, (u32)(len / 16));
	if (len % 16)
		last_bytes(o, &p, decrypt, data + len / 16 * 16, len % 16);
	end(o, &p, extra, extra_len, tag);
}

void ocb_encrypt(const struct ocb *o, const u8 nonce[OCB_NONCE], const void *extra,
		 size_t extra_len, void *data, size_t len, u8 tag[OCB_TAG])
{
	crypt(o, false, nonce, extra, extra_len, data, len, tag);
}

void ocb_decrypt(const struct ocb *o, const u8 nonce[OCB_NONCE], const void *extra,
		 size_t extra_len, void *data, size_t len, u8 tag[OCB_TAG])
{
	crypt(o, true, nonce, extra, extra_len, data, len, tag);
}

void ocb_tag(const struct ocb *o, const u8 nonce[OCB_NONCE], const void *extra, size_t extra_len,
	     const void *data, size_t len, u8 tag[OCB_TAG])
{
	u8 plain[TAG_PIECE][16];
	struct ocb_pass p;
	const u8 *from = data;
	u32 n, blocks = (u32)(len / 16);

	begin(o, &p, nonce);
	for (; blocks; blocks -= n, from += n * 16) {
		n = MIN(blocks, TAG_PIECE);
		whole_blocks(o, &p, true, from, plain[0], n);
	}
	end(o, &p, extra, extra_len, tag);
	memset(plain, 0, sizeof(plain));
	/* Otherwise the compiler may leave it out: nothing reads `plain` any more. */
	asm volatile("" : : "r"(plain) : "memory");
}
