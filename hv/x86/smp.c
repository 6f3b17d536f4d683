#include "x86/smp.h"

#include <umbra/boot_info.h>

#include "lib/log.h"
#include "lib/string.h"
#include "x86/asm.h"
#include "x86/cpu.h"
#include "x86/paging.h"
#include "x86/regs.h"
#include "x86/tsc.h"

extern u8 trampoline_start[], trampoline_end[];
extern u8 trampoline_gdtr[], trampoline_far32[], trampoline_far64[];
extern u8 trampoline_cr3[], trampoline_cr4[];
extern u8 trampoline_to32[], trampoline_to64[], trampoline_gdt[];

/* What the processor that is being started needs, read by start.S. */
struct cpu *ap_cpu;
u8 *ap_stack;
u64 ap_cr3;
static u64 ap_tsc; /* its TSC, just before it came online */
static u64 bsp_tsc_adjust;

__noreturn void ap_main(struct cpu *c);

static void wait_us(u64 us)
{
	u64 start = rdtsc();

	while (rdtsc() - start < tsc_from_us(us))
		cpu_relax();
}

static void patch(u8 *copy, const u8 *label, u64 value)
{
	u32 v = (u32)value;

	memcpy(copy + label_span(trampoline_start, label), &v, sizeof(v));
}

static bool prepare_trampoline(const struct boot_info *boot)
{
	u64 page = boot->trampoline;
	u8 *copy;

	if (!page || page >= 0xa0000 || !IS_ALIGNED(page, PAGE_SIZE) || boot->boot_cr3 >> 32) {
		log_warn("no usable trampoline page: only the boot processor runs");
		return false;
	}
	copy = paging_map_mmio(hpa(page), PAGE_SIZE, PAGING_WB);
	memcpy(copy, trampoline_start, label_span(trampoline_start, trampoline_end));
	patch(copy, trampoline_gdtr + 2, page + label_span(trampoline_start, trampoline_gdt));
	patch(copy, trampoline_far32, page + label_span(trampoline_start, trampoline_to32));
	patch(copy, trampoline_far64, page + label_span(trampoline_start, trampoline_to64));
	patch(copy, trampoline_cr3, boot->boot_cr3);
	patch(copy, trampoline_cr4, CR4_PAE);
	return true;
}

static bool wait_online(const struct cpu *c, u64 us)
{
	u64 start = rdtsc();

	while (rdtsc() - start < tsc_from_us(us)) {
		if (__atomic_load_n(&c->online, __ATOMIC_ACQUIRE))
			return true;
		cpu_relax();
	}
	return false;
}

/*
 * TSCs start together at reset; where they differ the firmware has written to them, which
 * IA32_TSC_ADJUST keeps account of (SDM 3B 18.17.3). All take the boot processor's.
 */
static bool has_tsc_adjust(void)
{
	return cpuid(0, 0).eax >= 7 && (cpuid(7, 0).ebx & BIT(1));
}

static void match_tsc(void)
{
	if (has_tsc_adjust() && rdmsr(MSR_TSC_ADJUST) != bsp_tsc_adjust)
		wrmsr(MSR_TSC_ADJUST, bsp_tsc_adjust);
}

/* INIT-SIPI-SIPI (SDM 3A 9.4.4.1). */
static bool start_cpu(struct cpu *c, u8 page)
{
	u8 *tops[STACK_COUNT];
	u64 before;

	paging_map_stacks(c->index, tops);
	c->stack_top = tops[0];
	ap_cpu = c;
	ap_stack = c->stack_top;
	ap_cr3 = paging_cr3();
	before = rdtsc();
	memory_fence();
	apic_send_init(c->apic_id);
	wait_us(10000);
	apic_send_startup(c->apic_id, page);
	if (!wait_online(c, 200)) {
		apic_send_startup(c->apic_id, page);
		if (!wait_online(c, 1000000))
			return false;
	}
	if (ap_tsc < before || ap_tsc > rdtsc())
		log_warn("cpu%u: its TSC is not that of the boot processor: timers will be off",
			 c->index);
	return true;
}

void smp_start(const struct boot_info *boot, u32 limit)
{
	if (!limit || limit > MAX_CPUS)
		limit = MAX_CPUS;
	if (has_tsc_adjust())
		bsp_tsc_adjust = rdmsr(MSR_TSC_ADJUST);
	for (u32 i = 0; i < boot->cpu_count && i < BOOT_MAX_CPUS && cpu_count < limit; i++) {
		struct cpu *c = &cpus[cpu_count];

		if (boot->cpu[i].apic_id == cpus[0].apic_id)
			continue;
		if (cpu_count == 1 && !prepare_trampoline(boot))
			return;
		*c = (struct cpu){.index = cpu_count, .apic_id = boot->cpu[i].apic_id};
		cpu_count++;
		if (!start_cpu(c, (u8)(boot->trampoline >> PAGE_SHIFT))) {
			/* Back to waiting for a start-up message: it must not arrive late and find
			 * another processor's stack. */
			apic_send_init(c->apic_id);
			log_warn("the processor with APIC ID %u does not start", c->apic_id);
			cpu_count--;
		}
	}
}

void ap_main(struct cpu *c)
{
	paging_load();
	cpu_init(c);
	match_tsc();
	ap_tsc = rdtsc();
	__atomic_store_n(&c->online, 1, __ATOMIC_RELEASE);
	cpu_entry();
}
