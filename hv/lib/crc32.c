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
 * For 128 bits a, high and low half: a * x^n is congruent to low * (x^(n + 64) mod P) + high * (x^n
 * mod P), bits reversed and shifted as PCLMULQDQ wants it. n = 512 moves a block over three others,
 * n = 128 over none.
 */
static const u64 over_three[2] = {0x154442bd4, 0x1c6e41596};
static const u64 over_none[2] = {0x1751997d0, 0x0ccaa009e};

/* Pieces of fold()'s assembly, one register or lane each. */
#define SAVE(n)	   "movups %%xmm" #n ", 16*" #n "(%[save])\n"
#define RESTORE(n) "movups 16*" #n "(%[save]), %%xmm" #n "\n"
#define LOAD(n)	   "movups 16*" #n "(%[p]), %%xmm" #n "\n"

/* xmm<n> * the factor in xmm5. */
#define TIMES(n)                                 \
	"movdqa %%xmm" #n ", %%xmm4\n"           \
	"pclmulqdq $0x00, %%xmm5, %%xmm" #n "\n" \
	"pclmulqdq $0x11, %%xmm5, %%xmm4\n"      \
	"pxor %%xmm4, %%xmm" #n "\n"
#define FOLD(n)                            \
	TIMES(n)                           \
	"movups 16*" #n "(%[p]), %%xmm4\n" \
	"pxor %%xmm4, %%xmm" #n "\n"
#define UNITE(n) TIMES(0) "pxor %%xmm" #n ", %%xmm0\n"

/*
 * 16 bytes with the same remainder as the `blocks` times 64 at `p`. The vector registers belong to
 * a guest: those used are put back, all within one statement, and only legacy SSE is used, which
 * leaves the upper parts alone.
 */
static void fold(u32 crc, const u8 *p, size_t blocks, u8 out[16])
{
	u8 save[6 * 16];

	asm volatile(SAVE(0) SAVE(1) SAVE(2) SAVE(3) SAVE(4) SAVE(5) /* */
		     LOAD(0) LOAD(1) LOAD(2) LOAD(3)		     /* */
		     "movd %[crc], %%xmm4\n"
		     "pxor %%xmm4, %%xmm0\n"
		     "movups (%[three]), %%xmm5\n"
		     "jmp 2f\n"
		     "1: add $64, %[p]\n" FOLD(0) FOLD(1) FOLD(2) FOLD(3) /* */
		     "2: dec %[blocks]\n"
		     "jnz 1b\n"
		     "movups (%[none]), %%xmm5\n" UNITE(1) UNITE(2) UNITE(3) /* */
		     "movups %%xmm0, (%[out])\n"			     /* */
		     RESTORE(0) RESTORE(1) RESTORE(2) RESTORE(3) RESTORE(4) RESTORE(5)
		     : [p] "+r"(p), [blocks] "+r"(blocks)
		     : [save] "r"(save), [crc] "r"(crc), [out] "r"(out), [three] "r"(over_three),
		       [none] "r"(over_none)
		     : "memory", "cc");
}

u32 crc32(u32 crc, const void *data, size_t len)
{
	const u8 *p = data;
	u8 rest[16];

	if (unlikely(method == UNKNOWN))
		choose();
	crc = ~crc;
	if (len >= FOLD_FROM && method == BY_FOLDING) {
		fold(crc, p, len / 64, rest);
		crc = by_table(0, rest, sizeof(rest));
		p += len & ~(size_t)63;
		len &= 63;
	}
	return ~by_table(crc, p, len);
}
