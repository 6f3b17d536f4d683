#include "lib/crc32.h"

#define POLYNOMIAL 0xedb88320u /* 0x04c11db7, bits reversed */
#define FOLD_FROM  64u	       /* bytes; below, folding does not pay */

/*
 * table[k][b]: the remainder of byte b followed by k zero bytes, so that eight bytes are taken in
 * one step. Built at the first call: two callers at once would both write the same values.
 */
static u32 table[8][256];

static enum {
	UNKNOWN,
	BY_TABLE,
	BY_FOLDING
} method;

static void build_table(void)
{
	unsigned int byte, bit, k;
	u32 crc;

	for (byte = 0; byte < 256; byte++) {
		crc = byte;
		for (bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
		table[0][byte] = crc;
	}
	for (k = 1; k < 8; k++)
		for (byte = 0; byte < 256; byte++)
			table[k][byte] =
				table[k - 1][byte] >> 8 ^ table[0][table[k - 1][byte] & 0xff];
}

static u32 by_table(u32 crc, const u8 *p, size_t len)
{
	u32 low, high;

	for (; len >= 8; len -= 8, p += 8) {
		__builtin_memcpy(&low, p, 4);
		__builtin_memcpy(&high, p + 4, 4);
		low ^= crc;
		crc = table[7][low & 0xff] ^ table[6][low >> 8 & 0xff] ^
		      table[5][low >> 16 & 0xff] ^ table[4][low >> 24] ^ table[3][high & 0xff] ^
		      table[2][high >> 8 & 0xff] ^ table[1][high >> 16 & 0xff] ^
		      table[0][high >> 24];
	}
	if (len >= 4) {
		__builtin_memcpy(&low, p, 4);
		low ^= crc;
		crc = table[3][low & 0xff] ^ table[2][low >> 8 & 0xff] ^
		      table[1][low >> 16 & 0xff] ^ table[0][low >> 24];
		len -= 4;
		p += 4;
	}
	while (len--)
		crc = crc >> 8 ^ table[0][(crc ^ *p++) & 0xff];
	return crc;
}

/* PCLMULQDQ and SSE2: CPUID.01H:ECX[1], EDX[26]. */
static void choose(void)
{
	u32 eax = 1, ebx, ecx = 0, edx;

	asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	build_table();
	method = ecx & BIT(1) && edx & BIT(26) ? BY_FOLDING : BY_TABLE;
}

/*
 * Factors by which 128 bits are moved over n further bits: the low half is to be multiplied by
 * x^(n + 64) mod P, the high half by x^n mod P, in the order and shifted by the bit that PCLMULQDQ
 * on reflected values wants. After these: x^64 mod P, P itself, and x^64 / P.
 */
struct factors {
	_Alignas(16) u64 over_three[2]; /* n = 512: one of four blocks of 16 bytes, over the
					   other three */
	u64 over_none[2];		/* n = 128 */
	u64 by_64[2];
	u64 barrett[2]; /* x^64 / P, P */
	u32 low_word[4];
};

static const struct factors factors = {
	.over_three = {0x154442bd4, 0x1c6e41596},
	.over_none = {0x1751997d0, 0x0ccaa009e},
	.by_64 = {0x163cd6124, 0},
	.barrett = {0x1f7011641, 0x1db710641},
	.low_word = {~0u, 0, 0, 0},
};

static const _Alignas(16) u8 no_mask[CRC32_MASK];

/*
 * Pieces of assembly. xmm0 to xmm3 are blocks, xmm4 is for passing use, xmm5 a factor. The vector
 * registers belong to a guest: those used are put back, all within one statement, and only legacy
 * SSE is used, which leaves the upper parts alone.
 */
#define SAVE(n)	     "movups %%xmm" #n ", 16*" #n "(%[save])\n"
#define RESTORE(n)   "movups 16*" #n "(%[save]), %%xmm" #n "\n"
#define SAVE_ALL     SAVE(0) SAVE(1) SAVE(2) SAVE(3) SAVE(4) SAVE(5)
#define RESTORE_ALL  RESTORE(0) RESTORE(1) RESTORE(2) RESTORE(3) RESTORE(4) RESTORE(5)
#define FACTOR(name) "movaps %[" #name "], %%xmm5\n"
#define MASKED(n)                                  \
	"movups 16*" #n "(%[head]), %%xmm" #n "\n" \
	"por 16*" #n "(%[mask]), %%xmm" #n "\n"
#define TAKE_CRC                \
	"movd %[crc], %%xmm4\n" \
	"pxor %%xmm4, %%xmm0\n"
#define TIMES(n)                                 \
	"movdqa %%xmm" #n ", %%xmm4\n"           \
	"pclmulqdq $0x00, %%xmm5, %%xmm" #n "\n" \
	"pclmulqdq $0x11, %%xmm5, %%xmm4\n"      \
	"pxor %%xmm4, %%xmm" #n "\n"
#define FOLD(n)                                    \
	TIMES(n)                                   \
	"movups 16*" #n "(%[end],%[at]), %%xmm4\n" \
	"pxor %%xmm4, %%xmm" #n "\n"
#define FOLD_ALIGNED(n) TIMES(n) "pxor 16*" #n "(%[end],%[at]), %%xmm" #n "\n"
#define UNITE(n)	TIMES(0) "pxor %%xmm" #n ", %%xmm0\n"
/* 128 bits to 96, to 64, to 32. The factor is over_none. */
#define REDUCE                                                                                     \
	"movdqa %%xmm0, %%xmm1\n"                                                                  \
	"psrldq $8, %%xmm1\n"                                                                      \
	"pclmulqdq $0x10, %%xmm5, %%xmm0\n"                                                        \
	"pxor %%xmm1, %%xmm0\n" FACTOR(by_64) "movaps %[word], %%xmm2\n"                           \
					      "movdqa %%xmm0, %%xmm1\n"                            \
					      "psrldq $4, %%xmm1\n"                                \
					      "pand %%xmm2, %%xmm0\n"                              \
					      "pclmulqdq $0x00, %%xmm5, %%xmm0\n"                  \
					      "pxor %%xmm1, %%xmm0\n" FACTOR(                      \
						      barrett) "movdqa %%xmm0, %%xmm1\n"           \
							       "pand %%xmm2, %%xmm0\n"             \
							       "pclmulqdq $0x00, %%xmm5, %%xmm0\n" \
							       "pand %%xmm2, %%xmm0\n"             \
							       "pclmulqdq $0x10, %%xmm5, %%xmm0\n" \
							       "pxor %%xmm1, %%xmm0\n"             \
							       "psrldq $4, %%xmm0\n"               \
							       "movd %%xmm0, %[crc]\n"
#define REDUCE_FACTORS                                                  \
	[over_none] "m"(factors.over_none), [by_64] "m"(factors.by_64), \
		[barrett] "m"(factors.barrett), [word] "m"(factors.low_word)

/*
 * The remainder of 64 bytes at `head`, into which `crc` is taken and of which the first count as
 * `mask` says, and as many of the `len` at `data` as are whole blocks of 16.
 */
static u32 fold(u32 crc, const u8 *mask, const u8 *head, const u8 *data, size_t len)
{
	u8 save[6 * 16];
	const u8 *end = data + (len & ~(size_t)63);
	const u8 *end_of_all = data + (len & ~(size_t)15);
	ptrdiff_t at = data - end;

	asm volatile(SAVE_ALL MASKED(0) MASKED(1) MASKED(2) /* */
		     "movups 48(%[head]), %%xmm3\n"	    /* */
		     TAKE_CRC FACTOR(over_three)	    /* */
		     "test %[at], %[at]\n"
		     "jz 3f\n"
		     /* Four blocks at a time. */
		     "test $15, %b[end]\n"
		     "jnz 2f\n"
		     "1:\n" FOLD_ALIGNED(0) FOLD_ALIGNED(1) FOLD_ALIGNED(2) FOLD_ALIGNED(3) /* */
		     "add $64, %[at]\n"
		     "js 1b\n"
		     "jmp 3f\n"
		     "2:\n" FOLD(0) FOLD(1) FOLD(2) FOLD(3) /* */
		     "add $64, %[at]\n"
		     "js 2b\n"
		     "3:\n" FACTOR(over_none) UNITE(1) UNITE(2) UNITE(3)
		     /* One at a time. */
		     "mov %[end], %[at]\n"
		     "mov %[end_of_all], %[end]\n"
		     "sub %[end], %[at]\n"
		     "jz 5f\n"
		     "4:\n" FOLD(0) /* */
		     "add $16, %[at]\n"
		     "js 4b\n"
		     "5:\n" REDUCE RESTORE_ALL
		     : [crc] "+r"(crc), [at] "+r"(at), [end] "+r"(end)
		     : [end_of_all] "r"(end_of_all), [head] "r"(head), [mask] "r"(mask),
		       [save] "r"(save), [over_three] "m"(factors.over_three), REDUCE_FACTORS
		     : "memory", "cc");
	return crc;
}

/* Likewise of CRC32_MASK bytes at `head`. */
static u32 fold_short(u32 crc, const u8 *mask, const u8 *head)
{
	u8 save[6 * 16];

	asm volatile(SAVE_ALL MASKED(0) MASKED(1) MASKED(2) /* */
		     TAKE_CRC FACTOR(over_none) UNITE(1) UNITE(2) REDUCE RESTORE_ALL
		     : [crc] "+r"(crc)
		     : [head] "r"(head), [mask] "r"(mask), [save] "r"(save), REDUCE_FACTORS
		     : "memory", "cc");
	return crc;
}

u32 crc32(u32 crc, const void *data, size_t len)
{
	const u8 *p = data;

	if (unlikely(method == UNKNOWN))
		choose();
	crc = ~crc;
	if (len >= FOLD_FROM && method == BY_FOLDING) {
		crc = fold(crc, no_mask, p, p + 64, len - 64);
		p += len & ~(size_t)15;
		len &= 15;
	}
	return ~by_table(crc, p, len);
}

static u32 masked_by_table(const u8 *mask, const u8 *head)
{
	u8 first[CRC32_MASK];
	u32 i;

	for (i = 0; i < CRC32_MASK; i++)
		first[i] = head[i] | mask[i];
	return by_table(~0u, first, CRC32_MASK);
}

u32 crc32_masked(const u8 *mask, const u8 *head, const void *data, size_t len)
{
	const u8 *p = data;
	u32 crc;

	if (unlikely(method != BY_FOLDING)) {
		if (method == UNKNOWN)
			choose();
		return crc32(crc32_masked_short(mask, head, CRC32_HEAD), data, len);
	}
	crc = fold(~0u, mask, head, p, len);
	return ~(len & 15 ? by_table(crc, p + (len & ~(size_t)15), len & 15) : crc);
}

u32 crc32_masked_short(const u8 *mask, const u8 *head, size_t len)
{
	u32 crc;

	if (unlikely(method == UNKNOWN))
		choose();
	crc = method == BY_FOLDING ? fold_short(~0u, mask, head) : masked_by_table(mask, head);
	return ~by_table(crc, head + CRC32_MASK, len - CRC32_MASK);
}
