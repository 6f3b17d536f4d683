#include "lib/crc32.h"

#include "lib/crc32_fold.h"
#include "lib/zmm.h"

#define POLYNOMIAL 0xedb88320u /* 0x04c11db7, bits reversed */
#define FOLD_FROM  CRC32_HEAD  /* bytes; below, folding does not pay */

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

	crc = ~crc;
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
	return ~crc;
}

/* PCLMULQDQ and SSE2: CPUID.01H:ECX[1], EDX[26]. */
static void choose(void)
{
	u32 eax = 1, ebx, ecx = 0, edx;

	asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	build_table();
	method = ecx & BIT(1) && edx & BIT(26) ? BY_FOLDING : BY_TABLE;
}

static const _Alignas(16) u8 no_mask[CRC32_MASK];

u32 crc32(u32 crc, const void *data, size_t len)
{
	const u8 *p = data;

	if (unlikely(method == UNKNOWN))
		choose();
	if (len < FOLD_FROM || method != BY_FOLDING)
		return by_table(crc, p, len);
	if (zmm_usable())
		return crc32_fold_avx512(no_mask, p, p + CRC32_HEAD, len - CRC32_HEAD, crc,
					 zmm_in_use());
	crc = crc32_fold_sse(no_mask, p, p + CRC32_HEAD, len - CRC32_HEAD, crc);
	return by_table(crc, p + (len & ~(size_t)15), len & 15);
}

static u32 masked_by_table(const u8 *mask, const u8 *head)
{
	u8 first[CRC32_MASK];
	u32 i;

	for (i = 0; i < CRC32_MASK; i++)
		first[i] = head[i] | mask[i];
	return by_table(0, first, CRC32_MASK);
}

/* Apart, so that the fast way has no registers to save. */
static __noinline u32 masked_slowly(const u8 *mask, const u8 *head, const u8 *data, size_t len)
{
	u32 crc;

	if (unlikely(method == UNKNOWN))
		choose();
	if (method != BY_FOLDING) {
		crc = by_table(masked_by_table(mask, head), head + CRC32_MASK,
			       CRC32_HEAD - CRC32_MASK);
		return by_table(crc, data, len);
	}
	crc = crc32_fold_sse(mask, head, data, len, 0);
	return len & 15 ? by_table(crc, data + (len & ~(size_t)15), len & 15) : crc;
}

static __noinline u32 short_slowly(const u8 *mask, const u8 *head, const u8 *rest, size_t len)
{
	if (unlikely(method == UNKNOWN))
		choose();
	if (method != BY_FOLDING)
		return by_table(masked_by_table(mask, head), rest, len);
	return by_table(crc32_fold_short_sse(mask, head, rest, len, 0), rest + (len & 16),
			len & 15);
}

u32 crc32_masked(const u8 *mask, const u8 *head, const void *data, size_t len)
{
	return zmm_usable() ? crc32_fold_avx512(mask, head, data, len, 0, zmm_in_use())
			    : masked_slowly(mask, head, data, len);
}

u32 crc32_masked_short(const u8 *mask, const u8 *head, size_t len)
{
	const u8 *rest = head + CRC32_MASK;

	len -= CRC32_MASK;
	return zmm_usable() ? crc32_fold_short_avx512(mask, head, rest, len, 0, zmm_in_use())
			    : short_slowly(mask, head, rest, len);
}
