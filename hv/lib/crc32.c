#include "lib/crc32.h"

#define POLYNOMIAL 0xedb88320u /* 0x04c11db7, bits reversed */

/*
 * table[k][b]: the remainder of byte b followed by k zero bytes, so that four bytes are taken in
 * one step. Built at the first call: two callers at once would both write the same values.
 */
static u32 table[4][256];

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
	for (k = 1; k < 4; k++)
		for (byte = 0; byte < 256; byte++)
			table[k][byte] =
				table[k - 1][byte] >> 8 ^ table[0][table[k - 1][byte] & 0xff];
}

u32 crc32(u32 crc, const void *data, size_t len)
{
	const u8 *p = data;
	u32 word;

	if (!table[3][255])
		build_table();
	crc = ~crc;
	for (; len >= 4; len -= 4, p += 4) {
		__builtin_memcpy(&word, p, 4);
		crc ^= word;
		crc = table[3][crc & 0xff] ^ table[2][crc >> 8 & 0xff] ^
		      table[1][crc >> 16 & 0xff] ^ table[0][crc >> 24];
	}
	while (len--)
		crc = crc >> 8 ^ table[0][(crc ^ *p++) & 0xff];
	return ~crc;
}
