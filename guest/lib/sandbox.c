/* A place for code that does harm. Contract in sandbox.h. */
#include "apic.h"
#include "ioapic.h"
#include "mem.h"
#include "sandbox.h"
#include "umbra.h"

struct sandbox sandbox;

u64 nasty(void)
{
	switch (rng_below(&sandbox.rng, 8)) {
	case 0:
		return BIT64(rng_below(&sandbox.rng, 64));
	case 1:
		return BIT64(rng_below(&sandbox.rng, 64)) - 1;
	case 2:
		return 0 - BIT64(rng_below(&sandbox.rng, 64));
	case 3:
		return SANDBOX + rng_below(&sandbox.rng, SANDBOX_PAGES * PAGE_SIZE);
	case 4:
		return rng_below(&sandbox.rng, 64);
	case 5:
		return 0x00007ffffffffff0ull + rng_below(&sandbox.rng, 32);
	case 6:
		return sandbox.phys + rng_below(&sandbox.rng, 4) * PAGE_SIZE;
	default:
		return rng_next(&sandbox.rng);
	}
}

/* --- watchdog and repair ------------------------------------------------------------------------
 */

static volatile bool watched; /* something runs that may have to be ended */
static volatile u32 barks;

static bool watchdog(struct frame *f)
{
	if (!watched || ++barks < 2)
		return true;
	sandbox.rescues++;
	return false; /* ends the innermost trap_run() or user_run() */
}

static bool time_is_up(struct frame *f)
{
	lapic_eoi();
	return !watched;
}

void watchdog_arm(void)
{
	ioapic_set(2, 0x400);
	pit_start(0, 2, 0);
}

static const u32 kept_msrs[] = {MSR_TSC_ADJUST,	 MSR_PAT,	   MSR_MISC_ENABLE, MSR_DEBUGCTL,
				MSR_XSS,	 MSR_STAR,	   MSR_LSTAR,	    MSR_CSTAR,
				MSR_FMASK,	 MSR_FS_BASE,	   MSR_GS_BASE,	    MSR_KERNEL_GS,
				MSR_SYSENTER_CS, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP};
static u64 kept_values[ARRAY_SIZE(kept_msrs)];

static void remember(void)
{
	sandbox.cr0 = read_cr0();
	sandbox.cr3 = read_cr3();
	if (cpuid(1, 0).ecx & BIT(26))
		write_cr4(read_cr4() | CR4_OSXSAVE);
	sandbox.cr4 = read_cr4();
	sandbox.efer = rdmsr(MSR_EFER);
	sandbox.apic_base = rdmsr(MSR_APIC_BASE);
	if (sandbox.cr4 & CR4_OSXSAVE)
		sandbox.xcr0 = xgetbv(0);
	for (u32 i = 0; i < ARRAY_SIZE(kept_msrs); i++)
		safe_rdmsr(kept_msrs[i], &kept_values[i]);
}

/* DR7.GD makes a #DB of the first access, which clears it. */
void repair_debug(void)
{
	for (u32 i = 0; i < 2; i++) {
		trap_clear();
		asm volatile(EX("mov %0, %%dr7") : : "r"(0x400ull) : "memory");
	}
	write_dr6(0xffff0ff0);
}

void repair_cpu(void)
{
	repair_debug();
	write_cr3(sandbox.cr3);
	write_cr4(sandbox.cr4);
	write_cr0(sandbox.cr0);
	wrmsr(MSR_EFER, sandbox.efer);
	if (sandbox.cr4 & CR4_OSXSAVE)
		safe_xsetbv(0, sandbox.xcr0);
	cpu_load_tables(0);
	asm volatile("movl %0, %%ds; movl %0, %%es; movl %0, %%ss; movl %1, %%fs; movl %1, %%gs"
		     :
		     : "r"(SEL_DATA), "r"(0)
		     : "memory");
	for (u32 i = 0; i < ARRAY_SIZE(kept_msrs); i++)
		safe_wrmsr(kept_msrs[i], kept_values[i]);
	write_cr8(0);
}

/* "Disabled" and on again is a reset. */
void repair_apic(void)
{
	wrmsr(MSR_APIC_BASE, sandbox.apic_base & ~(APIC_BASE_EN | APIC_BASE_EXTD));
	wrmsr(MSR_APIC_BASE, sandbox.apic_base);
	lapic_enable();
	for (u32 pin = 0; pin < IOAPIC_PINS; pin++)
		ioapic_mask(pin);
	watchdog_arm();
}

/* Does everything still work as for a kernel that did nothing? */
bool healthy(void)
{
	u32 before = trap_count[VEC_SANDBOX_TIMER];
	u64 start = rdtsc();
	bool good = true;

	lapic_write(LAPIC_LVT_TIMER, VEC_SANDBOX_TIMER);
	lapic_write(LAPIC_TIMER_DCR, 0xb);
	lapic_write(LAPIC_TIMER_ICR, 10000);
	while (trap_count[VEC_SANDBOX_TIMER] == before && rdtsc() - start < 100 * tsc_khz())
		irq_window();
	good &= trap_count[VEC_SANDBOX_TIMER] == before + 1;
	lapic_write(LAPIC_LVT_TIMER, BIT(16) | VEC_SANDBOX_TIMER);
	if (umbra_present())
		good &= hypercall(HC_VERSION, 0, 0, 0, 0) == UMBRA_HYPERCALL_VERSION;
	good &= ram_contains(sandbox.phys, SIZE_2M);
	*(volatile u64 *)(uintptr_t)SANDBOX = start;
	good &= *(volatile u64 *)(uintptr_t)sandbox.phys == start;
	return good;
}

void watch_begin(void)
{
	barks = 0;
	watched = true;
}

void watch_end(void)
{
	watched = false;
}

bool attempt(void (*fn)(void *), void *arg)
{
	bool trapped;

	watch_begin();
	trapped = trap_run(NULL, fn, arg);
	watch_end();
	sandbox.exceptions += trapped;
	return trapped;
}

void sandbox_create(void)
{
	u64 chunk = (u64)(uintptr_t)mem_alloc(SIZE_2M, SIZE_2M);

	if (!chunk)
		tap_bail("out of memory");
	memset((void *)(uintptr_t)chunk, 0xcc, SIZE_2M); /* INT3 for who gets there */
	sandbox.phys = chunk;
	sandbox.code_phys = chunk + SANDBOX_PAGES * PAGE_SIZE;
	pt_map(SANDBOX, sandbox.phys, SANDBOX_PAGES * PAGE_SIZE, PTE_P | PTE_W | PTE_U, 1);
	pt_map(CODE, sandbox.code_phys, PAGE_SIZE, PTE_P | PTE_U, 1);
	pt_map(DEV_IOAPIC, 0xfec00000, SIZE_2M, PTE_P | PTE_W | PTE_PCD, 2);
	pt_map(DEV_LAPIC, 0xfee00000, SIZE_2M, PTE_P | PTE_W | PTE_PCD, 2);
	pt_map(DEV_HOLE, HOLE_PHYS, SIZE_2M, PTE_P | PTE_W | PTE_PCD, 2);
	/* Of the identity map only RAM and the APICs stay. */
	for (u64 at = (ram_top() + SIZE_2M - 1) & ~(SIZE_2M - 1); at < 4 * SIZE_1G; at += SIZE_2M) {
		if (at != 0xfec00000 && at != 0xfee00000)
			*pt_split(at, 2) = 0;
	}
	write_cr3(read_cr3());
	cpus[0].tss.rsp[0] = SANDBOX + 0x30000;
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~EFER_SCE); /* SYSCALL would give CPL 3 all it wants */
	remember();
	trap_set_handler(VEC_NMI, watchdog);
	trap_set_handler(VEC_SANDBOX_TIMER, time_is_up);
	repair_apic();
}
