/*
 * What the tests of the monitor look at from outside: a kernel that runs until somebody ends it.
 *
 * Options: role=busy (default) computes all the time and says "beat N at T" every 20 ms; role=idle
 * sleeps, and says so every 100 ms. T is in milliseconds by the TSC. Both say first where things
 * are: a page with a known text, which they have protected against writing, and the kernel. A byte
 * of input is answered. An NMI is answered too. With vcpus=2 the second one sleeps for ever.
 */
#include "apic.h"
#include "irq.h"
#include "mem.h"
#include "smp.h"
#include "trap.h"
#include "umbra.h"

#define VEC_TIMER 0x70

extern char guest_image_start[], guest_data_end[];

static char mark[PAGE_SIZE] __aligned(4096) = "The monitor can read this.";
static volatile u64 keep;

static volatile bool nmi_seen;

/* It may have come in the middle of a line: who prints has a lock. */
static bool on_nmi(struct frame *f)
{
	nmi_seen = true;
	return true;
}

static u64 ms_since(u64 start)
{
	return (rdtsc() - start) / tsc_khz();
}

static void answer_input(void)
{
	if (nmi_seen) {
		nmi_seen = false;
		printf("# nmi\n");
	}
	while (inb(0x3fd) & 1)
		printf("# typed %c\n", inb(0x3f8));
}

static void run_busy(u64 start)
{
	for (u64 n = 0;; n++) {
		while (ms_since(start) < n * 20)
			keep++;
		tap_note("beat %lu at %lu", n, ms_since(start));
		answer_input();
		/* Said late: a gap in the time, which a pause must not make. */
		if (ms_since(start) >= (n + 1) * 20 + 15)
			tap_note("gap");
		n = MAX(n, ms_since(start) / 20);
	}
}

static void run_idle(u64 start)
{
	bool deadline = cpuid(1, 0).ecx & BIT(24);

	irq_record(VEC_TIMER);
	lapic_enable();
	lapic_write(LAPIC_TIMER_DCR, 0xb);
	lapic_write(LAPIC_LVT_TIMER, VEC_TIMER | (deadline ? BIT(18) : 0));
	for (u64 n = 1;; n++) {
		u32 before = irq_hits(VEC_TIMER);

		if (deadline)
			wrmsr(MSR_TSC_DEADLINE, start + n * 100 * tsc_khz());
		else
			lapic_write(LAPIC_TIMER_ICR, (u32)(100 * tsc_khz()));
		irq_disable();
		while (irq_hits(VEC_TIMER) == before)
			irq_wait();
		tap_note("nap %lu at %lu", n, ms_since(start));
		answer_input();
	}
}

void guest_main(void)
{
	char role[16] = "busy";
	u64 start;

	opt_str("role", role, sizeof(role));
	trap_set_handler(VEC_NMI, on_nmi);
	tsc_khz();
	if (umbra_present())
		tap_is((u64)hypercall(HC_PROTECT, (uintptr_t)mark, PAGE_SIZE, HC_PERM_R, 0), 0,
		       "the page is protected");
	if (opt_flag("smp"))
		tap_is(smp_start(), smp_expected(), "all CPUs are online");
	tap_note("mark %lx kernel %lx %lx", (u64)(uintptr_t)mark, (u64)(uintptr_t)guest_image_start,
		 (u64)(uintptr_t)guest_data_end);
	start = rdtsc();
	if (!strcmp(role, "idle"))
		run_idle(start);
	run_busy(start);
}
