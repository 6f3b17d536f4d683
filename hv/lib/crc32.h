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
 * The CRC of `head_len` bytes (48 to 64) at `head` and `len` more at `data`, where of the first 48
 * those bits count as ones that `mask` has: what a frame's checksum wants, whose first bytes do not
 * count as they are. `mask` is aligned to 16 bytes. Fastest with a head of 64 and `data` at a
 * multiple of 16.
 */
#define CRC32_MASK 48u
u32 crc32_masked(const u8 *mask, const u8 *head, size_t head_len, const void *data, size_t len);
