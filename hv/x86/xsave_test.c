/*
 * A trial of XSAVEC and XSAVES (SDM 1 13.4.3, 13.10, 13.11): what they save must come back, and lie
 * where the compacted format has it. That of Bochs 2.7 begins the extended region at offset 416, so
 * that AVX state and header overwrite each other.
 */
#include "lib/log.h"
#include "lib/string.h"
#include "x86/asm.h"
#include "x86/fpu.h"

#define AREA_MXCSR	24
#define AREA_XMM	160
#define XMM_BYTES	256
#define AREA_XSTATE_BV	512
#define AREA_XCOMP_BV	520
#define HEADER_RESERVED 528
#define HEADER_END	576

#define COMPACTED  BIT64(63)
#define X87	   BIT64(0)
#define PKRU	   9
#define COMPONENTS 63

/* CPUID.0DH.1:EAX */
#define XSAVEC BIT(1)
#define XSAVES BIT(3)

static u32 instructions;

/* One component in the standard format; of PKRU's 8 bytes, 4 are the register. */
struct component {
	u32 offset, bytes;
};

static struct component component(u32 n)
{
	struct cpuid_regs r;

	if (n == 1)
		return (struct component){AREA_XMM, XMM_BYTES};
	r = cpuid(0xd, n);
	return (struct component){r.ebx, n == PKRU ? 4 : r.eax};
}

static u64 *word(u8 *area, u32 offset)
{
	return (u64 *)(area + offset);
}

/* Every component but x87, in the standard format, with bytes that differ. */
static void fill(u8 *area, u64 components)
{
	xsave_init_area(area);
	for (u32 n = 1; n < COMPONENTS; n++) {
		struct component c = component(n);

		for (u32 i = 0; (components & BIT64(n)) && i < c.bytes; i++)
			area[c.offset + i] = (u8)(i * 7 + n * 31 + 1);
	}
	*word(area, AREA_XSTATE_BV) = components & ~X87;
}

static bool same(const u8 *a, const u8 *b, u64 components)
{
	for (u32 n = 1; n < COMPONENTS; n++) {
		struct component c = component(n);

		if ((components & BIT64(n)) && memcmp(a + c.offset, b + c.offset, c.bytes) != 0)
			return false;
	}
	return true;
}

static void save(u8 *area, u64 components, bool supervisor)
{
	u32 lo = (u32)components, hi = (u32)(components >> 32);

	if (supervisor)
		asm volatile("xsaves64 (%0)" : : "r"(area), "a"(lo), "d"(hi) : "memory");
	else
		asm volatile("xsavec64 (%0)" : : "r"(area), "a"(lo), "d"(hi) : "memory");
}

static void restore(const u8 *area, u64 components, bool supervisor)
{
	u32 lo = (u32)components, hi = (u32)(components >> 32);

	if (supervisor)
		asm volatile("xrstors64 (%0)" : : "r"(area), "a"(lo), "d"(hi) : "memory");
	else
		asm volatile("xrstor64 (%0)" : : "r"(area), "a"(lo), "d"(hi) : "memory");
}

/* XRSTOR raises #GP for a bad header, so it is looked at first. */
static bool header_good(u8 *area, u64 components)
{
	if (*word(area, AREA_XCOMP_BV) != (components | COMPACTED))
		return false;
	if ((*word(area, AREA_XSTATE_BV) | X87) != (components | X87))
		return false;
	for (u32 at = HEADER_RESERVED; at < HEADER_END; at += 8)
		if (*word(area, at))
			return false;
	return true;
}

static bool works(u8 *scratch, u32 bytes, bool supervisor)
{
	u64 components = xsave_features();
	u8 *pattern = scratch, *compacted = scratch + bytes, *back = scratch + 2 * bytes;
	bool good;

	fill(pattern, components);
	xsave_restore(pattern, components);
	memset(compacted, 0, bytes);
	save(compacted, components, supervisor);
	xsave_init_area(back);
	xsave_restore(back, components);
	good = header_good(compacted, components);
	if (good) {
		restore(compacted, components, supervisor);
		xsave_save(back, components);
		good = same(pattern, back, components);
	}
	xsave_init_area(back);
	xsave_restore(back, components);
	return good;
}

static u32 area_bytes(void)
{
	u32 bytes = MAX(cpuid(0xd, 1).ebx, xsave_area_bytes());

	return ALIGN_UP(bytes, 64);
}

u32 xsave_try_bytes(void)
{
	return 3 * area_bytes();
}

u32 xsave_instructions(void)
{
	return instructions;
}

void xsave_try(u8 *scratch)
{
	u32 offered = xsave_features() ? cpuid(0xd, 1).eax & 0xf : 0;

	instructions = offered;
	if ((offered & XSAVEC) && !works(scratch, area_bytes(), false))
		instructions &= ~XSAVEC;
	if ((offered & XSAVES) && !works(scratch, area_bytes(), true))
		instructions &= ~XSAVES;
	if (instructions != offered)
		log_warn("this CPU does not restore what%s%s saved: not for guests",
			 offered & ~instructions & XSAVEC ? " XSAVEC" : "",
			 offered & ~instructions & XSAVES ? " XSAVES" : "");
}
