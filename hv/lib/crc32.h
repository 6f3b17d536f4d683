/* CRC-32 of IEEE 802.3 (reflected, polynomial 0x04c11db7, initial value and final XOR all ones). */
#pragma once

#include "lib/types.h"

/*
 * The CRC of `len` bytes. `crc` is 0 for a first piece and the previous result for the next one:
 * crc32(crc32(0, a, n), a + n, m) == crc32(0, a, n + m).
 * The first call of all must not race with another one (it is made by the start-up code).
 */
u32 crc32(u32 crc, const void *data, size_t len);

/*
 * The CRC of CRC32_HEAD bytes at `head` and `len` more at `data`, where of the first CRC32_MASK
 * those bits count as ones that `mask` has: what a frame's checksum wants, whose first bytes do not
 * count as they are. `mask` is aligned to 16 bytes. Fastest with `data` at a multiple of 16.
 */
#define CRC32_MASK 48u
#define CRC32_HEAD 64u
u32 crc32_masked(const u8 *mask, const u8 *head, const void *data, size_t len);
/* The same of less: `len` is CRC32_MASK to CRC32_HEAD. */
u32 crc32_masked_short(const u8 *mask, const u8 *head, size_t len);
