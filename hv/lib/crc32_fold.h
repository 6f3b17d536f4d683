/*
 * crc32_fold.S: CRC-32 with PCLMULQDQ, for lib/crc32.c alone. The vector registers are afterwards
 * as they were.
 */
#pragma once

#include "lib/crc32.h"

/*
 * The CRC of CRC32_HEAD bytes at `head`, of the first CRC32_MASK of which those bits count as ones
 * that `mask` has, and of `len` at `data`; the short ones: of CRC32_MASK bytes at `head` and less
 * than 32 at `data`. `crc` is of what is before, as in crc32().
 *
 * The SSE forms, which need SSE2, leave out the last len % 16 bytes, and want `mask` at a multiple
 * of 16. The others need zmm_usable(), and want to know zmm_in_use().
 */
typedef u32 crc32_sse(const u8 *mask, const u8 *head, const u8 *data, size_t len, u32 crc);
typedef u32 crc32_avx512(const u8 *mask, const u8 *head, const u8 *data, size_t len, u32 crc,
			 u32 in_use);

crc32_sse crc32_fold_sse, crc32_fold_short_sse;
crc32_avx512 crc32_fold_avx512, crc32_fold_short_avx512;
