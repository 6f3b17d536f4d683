#include "x86/cpu.h"

#include "x86/apic.h"
#include "x86/asm.h"
#include "x86/desc.h"
#include "x86/exception.h"
#include "x86/fpu.h"
#include "x86/paging.h"
#include "x86/regs.h"

struct cpu cpus[MAX_CPUS];
u32 cpu_count = 1;

_Static_assert(STACK_COUNT == IST_COUNT, "one stack for each IST entry, and the main one");

/* CR0 and CR4 as the hypervisor runs. VMXE and what the VMX fixed bits ask for are vmx/'s. */
static void set_control_registers(void)
{
	struct cpuid_regs leaf1 = cpuid(1, 0), leaf7 = {0};
	u64 cr4 = CR4_PAE | CR4_DE | CR4_MCE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT;

	if (cpuid(0, 0).eax >= 7)
		leaf7 = cpuid(7, 0);
	if (leaf1.ecx & BIT(26))
		cr4 |= CR4_OSXSAVE;
	if (leaf7.ebx & BIT(7))
		cr4 |= CR4_SMEP;
	if (leaf7.ebx & BIT(20))
		cr4 |= CR4_SMAP;
	if (leaf7.ecx & BIT(2))
		cr4 |= CR4_UMIP;
	write_cr0(CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG);
	write_cr4(cr4 | (read_cr4() & CR4_VMXE));
}

void cpu_init(struct cpu *c)
{
	u8 *tops[STACK_COUNT];

	paging_map_stacks(c->index, tops);
	c->stack_top = tops[0];
	desc_load(c);
	desc_set_stacks(c, tops);
	set_control_registers();
	wrmsr_safe(MSR_DEBUGCTL, 0);
	write_dr7(0x400);
	fpu_init_cpu();
	apic_init_cpu();
	c->apic_id = apic_id();
}
