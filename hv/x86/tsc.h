/*
 * Time. The TSC is the only clock; its frequency is calibrated at start against the ACPI PM timer,
 * HPET or the 8254 (CPUID 15H/16H are not believed without a second witness: emulators lie).
 */
#pragma once

#include "lib/types.h"

struct boot_info;
void tsc_init(const struct boot_info *boot);

extern u64 tsc_hz;
extern u64 tsc_start; /* TSC of the loader's first instruction */

/* a * b / c without overflow of the product. */
static inline u64 mul_div(u64 a, u64 b, u64 c)
{
	u64 hi, lo, q;

	asm("mulq %3" : "=a"(lo), "=d"(hi) : "a"(a), "rm"(b));
	if (hi >= c)
		return ~0ull;
	asm("divq %2" : "=a"(q), "+d"(hi) : "rm"(c), "a"(lo));
	return q;
}

static inline u64 tsc_from_us(u64 us)
{
	return mul_div(us, tsc_hz, 1000000);
}

/*
 * The core crystal clock that guests are told of by CPUID leaf 0x15, and that drives their local
 * APICs' timers (SDM 3A 11.5.4), is tsc_hz >> this: its frequency has to fit 32 bits, and while it
 * does, it is the TSC's.
 */
static inline unsigned int tsc_crystal_shift(void)
{
	u32 high = (u32)(tsc_hz >> 32);

	return high ? 32 - (unsigned int)__builtin_clz(high) : 0;
}
