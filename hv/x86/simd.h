/*
 * XMM registers for the hypervisor's own use.
 *
 * The hypervisor is built for general registers only, and the vector registers hold a guest's state
 * while it runs. Code that uses them (sealing of pages) is called between these two. Only
 * legacy SSE instructions may be used: they leave the upper parts of YMM and ZMM registers alone,
 * which VEX-coded ones clear (SDM 1 14.8); and no floating-point, so that MXCSR does not matter.
 * Exception and interrupt handlers of the hypervisor use general registers only, so nothing is
 * lost if one runs in between; no VM entry, though.
 */
#pragma once

#include "lib/types.h"

struct simd_save {
	u8 xmm[16][16];
};

void simd_begin(struct simd_save *save);
void simd_end(const struct simd_save *save);
