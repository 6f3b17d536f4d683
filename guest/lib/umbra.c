#include "umbra.h"

bool umbra_present(void)
{
	struct cpuid_regs r;

	if (!(cpuid(1, 0).ecx & BIT(31)))
		return false;
	r = cpuid(UMBRA_CPUID_BASE, 0);
	return r.ebx == UMBRA_CPUID_EBX && r.ecx == UMBRA_CPUID_ECX && r.edx == UMBRA_CPUID_EDX;
}

bool tcg_present(void)
{
	struct cpuid_regs r = cpuid(0x40000000, 0);

	return (cpuid(1, 0).ecx & BIT(31)) && r.ebx == 0x54474354 && r.ecx == 0x43544743;
}

u32 umbra_vcpu_index(void)
{
	return umbra_present() ? cpuid(UMBRA_CPUID_INFO, 0).ecx : 0;
}
