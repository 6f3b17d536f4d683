#include "x86/fpu.h"

#include "lib/string.h"
#include "x86/asm.h"
#include "x86/regs.h"

/* State components that guests may use (SDM 1 13.1). Not MPX (deprecated, needs BNDCFGS in the
 * VMCS) and not AMX (8 KiB of tiles for each vCPU). */
#define KNOWN_COMPONENTS (0x7ull | 0xe0ull | BIT64(9)) /* x87 SSE AVX, AVX-512, PKRU */
#define LEGACY_BYTES	 576			       /* legacy region and header */

#define AREA_MXCSR 24

static enum {
	USE_FXSAVE,
	USE_XSAVE,
	USE_XSAVEOPT
} method;
static u64 features;
static u32 area_bytes = LEGACY_BYTES;

void fpu_init(void)
{
	struct cpuid_regs r;

	if (!(cpuid(1, 0).ecx & BIT(26)))
		return;
	r = cpuid(0xd, 0);
	features = ((u64)r.edx << 32 | r.eax) & KNOWN_COMPONENTS;
	if ((features & 0xe0) != 0xe0 || !(features & 4))
		features &= ~0xe0ull;
	r = cpuid(0xd, 1);
	/*
	 * Not XSAVES: guests have no supervisor components, so it would save nothing more, and it
	 * does not work everywhere (xsave_test.c).
	 */
	method = r.eax & BIT(0) ? USE_XSAVEOPT : USE_XSAVE;
}

void fpu_init_cpu(void)
{
	if (method == USE_FXSAVE)
		return;
	xsetbv(0, features);
	if (cpuid(0xd, 1).eax & BIT(3))
		wrmsr(MSR_XSS, 0);
	area_bytes = MAX(cpuid(0xd, 0).ebx, (u32)LEGACY_BYTES);
}

u64 xsave_features(void)
{
	return features;
}

u32 xsave_area_bytes(void)
{
	return area_bytes;
}

void xsave_init_area(void *area)
{
	u16 control = 0x37f;
	u32 mxcsr = 0x1f80;

	memset(area, 0, area_bytes);
	memcpy(area, &control, sizeof(control));
	memcpy((u8 *)area + AREA_MXCSR, &mxcsr, sizeof(mxcsr));
}

void xsave_save(void *area, u64 mask)
{
	u32 lo = (u32)mask, hi = (u32)(mask >> 32);

	switch (method) {
	case USE_XSAVEOPT:
		asm volatile("xsaveopt64 (%0)" : : "r"(area), "a"(lo), "d"(hi) : "memory");
		break;
	case USE_XSAVE:
		asm volatile("xsave64 (%0)" : : "r"(area), "a"(lo), "d"(hi) : "memory");
		break;
	case USE_FXSAVE:
		asm volatile("fxsave64 (%0)" : : "r"(area) : "memory");
		break;
	}
}

void xsave_restore(const void *area, u64 mask)
{
	u32 lo = (u32)mask, hi = (u32)(mask >> 32);

	switch (method) {
	case USE_XSAVEOPT:
	case USE_XSAVE:
		asm volatile("xrstor64 (%0)" : : "r"(area), "a"(lo), "d"(hi) : "memory");
		break;
	case USE_FXSAVE:
		asm volatile("fxrstor64 (%0)" : : "r"(area) : "memory");
		break;
	}
}
