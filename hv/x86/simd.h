/*
 * Vector registers for the hypervisor's own use.
 *
 * The hypervisor is built for general registers only, and the vector registers hold a guest's state
 * while it runs. Code that uses them (sealing of pages) is called between a begin and simd_end().
 * After simd_begin() that is XMM0 to 15, with legacy SSE instructions only: they leave the upper
 * parts of YMM and ZMM registers alone, which VEX-coded ones clear (SDM 1 14.8). After
 * simd_begin_wide(), if zmm_usable() (lib/zmm.h), it is instead all of ZMM0 to 7 and 16 to 18. No
 * floating-point, so that MXCSR does not matter.
 * Exception and interrupt handlers of the hypervisor use general registers only, so nothing is
 * lost if one runs in between; no VM entry, though.
 */
#pragma once

#include "lib/types.h"

#define SIMD_ZMM 11u

struct simd_save {
	union {
		u8 xmm[16][16];
		u8 zmm[SIMD_ZMM][64];
	};
	bool wide;
	u32 in_use; /* if wide: zmm_in_use() */
};

void simd_begin(struct simd_save *save);
void simd_begin_wide(struct simd_save *save);
/* After either. Upper halves that were not in use are not in use afterwards. */
void simd_end(const struct simd_save *save);
