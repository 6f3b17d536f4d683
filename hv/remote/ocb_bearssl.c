/* AES of BearSSL: the key schedules, and the cipher for CPUs that have no instructions for it. */
#include <inner.h>

#include "remote/ocb.h"

_Static_assert(OCB_SOFT == 4, "br_aes_ct64 works on four blocks");

void ocb_bearssl_init(struct ocb *o, const u8 key[OCB_KEY])
{
	uint64_t compact[2 * (OCB_ROUNDS + 1)];

	if (o->hardware) {
		br_aes_x86ni_keysched_enc(o->encrypt[0], key, OCB_KEY);
		br_aes_x86ni_keysched_dec(o->decrypt[0], key, OCB_KEY);
		return;
	}
	br_aes_ct64_keysched(compact, key, OCB_KEY);
	br_aes_ct64_skey_expand(o->soft, OCB_ROUNDS, compact);
}

void ocb_bearssl_crypt(const struct ocb *o, bool decrypt, u8 data[OCB_SOFT][16])
{
	uint32_t words[16];
	uint64_t q[8];
	u32 i;

	br_range_dec32le(words, 16, data);
	for (i = 0; i < 4; i++)
		br_aes_ct64_interleave_in(&q[i], &q[i + 4], words + 4 * i);
	br_aes_ct64_ortho(q);
	if (decrypt)
		br_aes_ct64_bitslice_decrypt(OCB_ROUNDS, o->soft, q);
	else
		br_aes_ct64_bitslice_encrypt(OCB_ROUNDS, o->soft, q);
	br_aes_ct64_ortho(q);
	for (i = 0; i < 4; i++)
		br_aes_ct64_interleave_out(words + 4 * i, q[i], q[i + 4]);
	br_range_enc32le(data, words, 16);
}
