/*
 * AVX-512 for a few instructions of the hypervisor's own. The vector and mask registers, and XCR0,
 * are a guest's while it runs: who uses them asks each time whether he may, and puts back whole
 * registers, as VEX and EVEX instructions clear the parts of a register that they do not write.
 * A guest without AVX-512 in its XCR0 has the hypervisor do without too.
 */
#pragma once

#include "lib/types.h"

/* The CPU has AVX-512F, VL and BW, PCLMULQDQ, and XGETBV with ECX = 1; CR4.OSXSAVE is set. */
extern bool zmm_offered;

/* Looks, once CR4.OSXSAVE is set on each CPU. Before this, the answer is no. */
void zmm_init(void);

/* XCR0 has what AVX-512 needs (SDM 1 15.2). XGETBV causes no exit, should Umbra be in a VM. */
static inline bool zmm_usable(void)
{
	const u32 needed = BIT(1) | BIT(2) | BIT(5) | BIT(6) | BIT(7); /* SSE, AVX, k, ZMM */
	u32 low, high;

	if (!zmm_offered)
		return false;
	asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (low & needed) == needed;
}

/* If zmm_usable(): XINUSE, the components of XCR0 that are not as after reset (SDM 1 13.6). */
static inline u32 zmm_in_use(void)
{
	u32 low, high;

	asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));
	return low;
}

/*
 * memcpy() for the payloads of packets and for pages, whose lengths are multiples of 64: with the
 * widest registers there are. Other lengths are right too.
 */
void zmm_copy(void *restrict to, const void *restrict from, size_t len);
