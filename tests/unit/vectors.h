/*
 * For tests of code that borrows a guest's vector registers: are they as they were? And memory
 * before and behind which there is nothing.
 */
#pragma once

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/zmm.h"

#define VECTORS_LEGACY 512 /* XSAVE's area: the legacy region, then XSTATE_BV */

#pragma GCC push_options
#pragma GCC target("general-regs-only")

/* Nothing in between that the compiler might use vector registers for. */
static inline void vectors_around(void (*run)(const u8 *), const u8 *arg, const u8 *before,
				  u8 *after, u64 mask)
{
	asm volatile("xrstor64 (%0)" : : "r"(before), "a"((u32)mask), "d"(0) : "memory");
	run(arg);
	asm volatile("xsave64 (%0)" : : "r"(after), "a"((u32)mask), "d"(0) : "memory");
}

/* Whether what uses YMM's or ZMM's upper halves has not left them so. */
static inline bool vectors_unused(void (*run)(const u8 *), const u8 *arg, const u8 *before,
				  u64 mask)
{
	u32 first;

	asm volatile("xrstor64 (%0)" : : "r"(before), "a"((u32)mask), "d"(0) : "memory");
	first = zmm_in_use();
	run(arg);
	return !(zmm_in_use() & ~first & (1 << 2 | 1 << 6));
}

static inline u64 vectors_enabled(void)
{
	u32 low, high;

	asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return low & 0xe6; /* SSE, AVX, AVX-512 */
}

static inline u32 vectors_place(u32 component, u32 *bytes)
{
	u32 eax = 0xd, ebx, ecx = component, edx;

	asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	*bytes = eax;
	return ebx;
}
#pragma GCC pop_options

static inline bool vectors_compare(void (*run)(const u8 *), const u8 *arg, u64 mask, u64 filled)
{
	static _Alignas(64) u8 before[8192], after[8192];
	u32 component, i, bytes, at, mxcsr = 0x1f80;
	bool same = true;

	memset(before, 0, sizeof(before));
	memset(after, 0, sizeof(after));
	memcpy(before + 24, &mxcsr, 4);
	memcpy(before + VECTORS_LEGACY, &filled, 8);
	for (component = 1; component < 8; component++) {
		if (!(filled >> component & 1))
			continue;
		at = 160;
		bytes = 256;
		if (component > 1)
			at = vectors_place(component, &bytes);
		for (i = 0; i < bytes; i++)
			before[at + i] = (u8)(i * 7 + component + 1);
	}
	vectors_around(run, arg, before, after, mask);
	for (component = 1; component < 8; component++) {
		if (!(mask >> component & 1))
			continue;
		at = 160;
		bytes = 256;
		if (component > 1)
			at = vectors_place(component, &bytes);
		same = same && !memcmp(before + at, after + at, bytes);
	}
	return same && (filled & 4 || !zmm_usable() || vectors_unused(run, arg, before, mask));
}

/*
 * Whether all of XMM and, where there are, YMM, ZMM and k0 to k7 have kept what they had; and so if
 * nothing but XMM is in use, which it must be afterwards too.
 */
static inline bool vectors_kept(void (*run)(const u8 *), const u8 *arg)
{
	u64 mask = vectors_enabled();

	return vectors_compare(run, arg, mask, mask) && vectors_compare(run, arg, mask, mask & 2);
}

/* `len` bytes that begin (or, if not `first`, end) with a run of pages: nothing is beside. */
struct fenced {
	u8 *all, *bytes;
	size_t size;
};

static inline struct fenced fence(size_t len, bool first)
{
	size_t pages = (len + 4095) / 4096 + 2;
	struct fenced f = {.size = pages * 4096};

	f.all = mmap(NULL, f.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (f.all == MAP_FAILED || mprotect(f.all + 4096, f.size - 8192, PROT_READ | PROT_WRITE))
		abort();
	f.bytes = first ? f.all + 4096 : f.all + f.size - 4096 - len;
	return f;
}

static inline void unfence(struct fenced *f)
{
	munmap(f->all, f->size);
}
