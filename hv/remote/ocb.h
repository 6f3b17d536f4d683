/*
 * AES-256 in offset codebook mode, OCB (RFC 7253: AEAD_AES_256_OCB_TAGLEN128), with nonces of 12
 * bytes: encryption and authentication in one pass, at one AES and a few exclusive-ors for each
 * block. AES is BearSSL's where the CPU has no instructions for it: in constant time, without
 * tables. The bytes are the same.
 *
 * ocb_init() is called between simd_begin() and simd_end() (x86/simd.h), and the others between
 * simd_begin_wide() and simd_end(). A key serves for up to 2^48 blocks (RFC 7253, 5).
 */
#pragma once

#include "lib/types.h"

#define OCB_KEY	   32u
#define OCB_TAG	   16u
#define OCB_NONCE  12u
#define OCB_ROUNDS 14u
#define OCB_LS	   11u		     /* L_0 to L_10 */
#define OCB_BLOCKS (BIT(OCB_LS) - 1) /* in a message at most, and in what goes with it */
#define OCB_EIGHT  8u
#define OCB_STEPS  (OCB_LS - 3) /* ends that eight blocks can have: L_3 to L_10 */

struct ocb {
	union {
		struct {
			/* In the order in which AESENC and AESDEC want them. */
			u8 encrypt[OCB_ROUNDS + 1][16], decrypt[OCB_ROUNDS + 1][16];
		};
		u64 soft[8 * (OCB_ROUNDS + 1)]; /* of BearSSL's aes_ct64 */
	};
	u8 l_star[16], l_dollar[16], l[OCB_LS][16];
	/*
	 * What the offsets of eight blocks differ in from the one before them: of the first four,
	 * then of the last four for each L_ntz(i) of the eighth.
	 */
	u8 steps[1 + OCB_STEPS][4][16];
	bool hardware;
} __aligned(16);

/* hardware: the CPU has AES-NI. */
void ocb_init(struct ocb *o, const u8 key[OCB_KEY], bool hardware);

/*
 * Encrypts `len` bytes at `data` in place; `extra` is authenticated with them. For ocb_decrypt()
 * `tag` is the one that the data should have come with: the caller compares, and lets nobody see
 * the data if it is not.
 */
void ocb_encrypt(const struct ocb *o, const u8 nonce[OCB_NONCE], const void *extra,
		 size_t extra_len, void *data, size_t len, u8 tag[OCB_TAG]);
void ocb_decrypt(const struct ocb *o, const u8 nonce[OCB_NONCE], const void *extra,
		 size_t extra_len, void *data, size_t len, u8 tag[OCB_TAG]);
/* The same tag as of ocb_decrypt(); the data, a multiple of 16 bytes, stays encrypted. */
void ocb_tag(const struct ocb *o, const u8 nonce[OCB_NONCE], const void *extra, size_t extra_len,
	     const void *data, size_t len, u8 tag[OCB_TAG]);

/* --- what ocb.c and the two ways to AES share ----------------------------------------------- */

/* A message that is being worked on. */
struct ocb_pass {
	u8 offset[16], sum[16]; /* RFC 7253: Offset_i and Checksum_i */
	u32 blocks;		/* i: done so far */
} __aligned(16);

/* ocb_bearssl.c. `data`: OCB_SOFT blocks, which are independent. */
#define OCB_SOFT 4u
void ocb_bearssl_init(struct ocb *o, const u8 key[OCB_KEY]);
void ocb_bearssl_crypt(const struct ocb *o, bool decrypt, u8 data[OCB_SOFT][16]);

/*
 * ocb_aesni.S: AES alone on one block; whole blocks of a message, eight at a time, of which
 * p->blocks is a multiple before and after. `to` may be `from`. Keys and l are aligned to 16 bytes.
 * The wide ones need zmm_usable().
 */
void ocb_aesni_one_encrypt(const u8 keys[OCB_ROUNDS + 1][16], u8 block[16]);
void ocb_aesni_one_decrypt(const u8 keys[OCB_ROUNDS + 1][16], u8 block[16]);
void ocb_aesni_encrypt(const u8 keys[OCB_ROUNDS + 1][16], const u8 l[OCB_LS][16],
		       struct ocb_pass *p, const u8 *from, u8 *to, u32 eights);
void ocb_aesni_decrypt(const u8 keys[OCB_ROUNDS + 1][16], const u8 l[OCB_LS][16],
		       struct ocb_pass *p, const u8 *from, u8 *to, u32 eights);
void ocb_aesni_wide_encrypt(const u8 keys[OCB_ROUNDS + 1][16], const u8 steps[1 + OCB_STEPS][4][16],
			    struct ocb_pass *p, const u8 *from, u8 *to, u32 eights);
void ocb_aesni_wide_decrypt(const u8 keys[OCB_ROUNDS + 1][16], const u8 steps[1 + OCB_STEPS][4][16],
			    struct ocb_pass *p, const u8 *from, u8 *to, u32 eights);
