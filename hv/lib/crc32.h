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
 * crc32(crc32(0, head, 64), data, len) in one go: what a frame's checksum wants, whose first bytes
 * are not counted as they are.
 */
u32 crc32_headed(const u8 head[64], const void *data, size_t len);
