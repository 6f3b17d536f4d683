/*
 * Corners where an emulated instruction or an injected event has to look exactly like the
 * processor's own: RFLAGS.RF that exceptions push, single-step traps that meet interrupts, what
 * debug exceptions do to DR6 and DEBUGCTL, HLT where NMIs are blocked, wide writes to CR4.
 * Everything here holds on any Intel processor; QEMU's TCG may miss some.
 */
#include "apic.h"
#include "cpu.h"
#include "irq.h"
#include "mem.h"
#include "umbra.h"

#define VEC_TEST  0x60
#define VEC_TIMER 0x61
#define MAX_LOG	  32

static struct {
	u64 rip, rflags, dr6, debugctl;
	int vector;
} event_log[MAX_LOG];
static volatile u32 logged;

static void note(const struct frame *f)
{
	if (logged < MAX_LOG) {
		event_log[logged].rip = f->rip;
		event_log[logged].rflags = f->rflags;
		event_log[logged].dr6 = read_dr6();
		event_log[logged].vector = (int)f->vector;
	}
	logged++;
}

static bool log_debug(struct frame *f)
{
	note(f);
	return true;
}

/* As a debugger steps over its breakpoint. */
static bool log_and_resume(struct frame *f)
{
	note(f);
	f->rflags |= RFLAGS_RF;
	return true;
}

static bool log_irq(struct frame *f)
{
	note(f);
	lapic_eoi();
	return true;
}

/* --- RF ----------------------------------------------------------------------------------------
 */

/* SDM 3B 18.3.1.1: faults push RF = 1. */
static void test_fault_sets_rf(void)
{
	u64 value;

	if (!umbra_present()) {
		tap_skip("QEMU's TCG knows neither refused MSRs nor reserved bits of CR4");
		return;
	}
	tap_is((u64)safe_rdmsr(0x12345, &value), VEC_GP, "RDMSR of an MSR that is not there");
	tap_is(trap_last()->rflags & RFLAGS_RF, RFLAGS_RF, "its #GP pushes RF = 1");
	tap_is((u64)safe_write_cr4(read_cr4() | BIT64(31)), VEC_GP, "reserved bit of CR4");
	tap_is(trap_last()->rflags & RFLAGS_RF, RFLAGS_RF, "its #GP pushes RF = 1");
	trap_clear();
	asm volatile(EX("monitor") : : "a"(0), "c"(0), "d"(0) : "memory");
	if (trap_last()->vector == VEC_UD)
		tap_is(trap_last()->rflags & RFLAGS_RF, RFLAGS_RF, "#UD pushes RF = 1");
	trap_clear();
	asm volatile(EX("int3") : : : "memory");
	tap_is(trap_last()->rflags & RFLAGS_RF, 0, "INT3 is a trap: RF = 0");
}

/* RF, set to step over a breakpoint, is clear again behind the instruction. */
static void test_rf_cleared(void)
{
	u64 apic, behind;

	trap_set_handler(VEC_DB, log_and_resume);
	logged = 0;
	asm volatile("lea 1f(%%rip), %[apic]; mov %[apic], %%dr0\n"
		     "lea 2f(%%rip), %[behind]; mov %[behind], %%dr1\n"
		     "mov %[on], %%dr7\n"
		     "1: mov 0xfee00030, %%eax\n"
		     "2: nop\n"
		     "mov %[off], %%dr7"
		     : [apic] "=&r"(apic), [behind] "=&r"(behind)
		     : [on] "r"(0x40aull), [off] "r"(0x400ull)
		     : "rax", "memory");
	tap_is(logged, 2, "breakpoints on an APIC read and on the next instruction");
	tap_ok(logged == 2 && event_log[0].rip == apic && event_log[1].rip == behind,
	       "both are hit, in order");
	trap_set_handler(VEC_DB, NULL);
	write_dr6(0xffff0ff0);
}

/* Once per instruction, however often its emulation stops on the way. */
static void test_breakpoint_on_string(void)
{
	static const u8 zeros[1000];
	const u8 *from = zeros;
	u64 at, count = sizeof(zeros);

	trap_set_handler(VEC_DB, log_and_resume);
	logged = 0;
	asm volatile("lea 1f(%%rip), %[at]; mov %[at], %%dr0; mov %[on], %%dr7\n"
		     "1: rep outsb\n"
		     "mov %[off], %%dr7"
		     : [at] "=&r"(at), "+S"(from), "+c"(count)
		     : [on] "r"(0x402ull), [off] "r"(0x400ull), "d"(0x80)
		     : "memory");
	tap_is(logged, 1, "a breakpoint on REP OUTSB of 1000 bytes is hit once");
	tap_is(count, 0, "all of it is done");
	trap_set_handler(VEC_DB, NULL);
	write_dr6(0xffff0ff0);
}

/* --- single step and interrupts -----------------------------------------------------------------
 */

/* SDM 3A table 6-2: the trap of the last instruction comes before interrupts. */
static void test_step_meets_interrupt(void)
{
	u64 behind, first = MAX_LOG, traps = 0;

	trap_set_handler(VEC_DB, log_debug);
	trap_set_handler(VEC_TEST, log_irq);
	lapic_write(LAPIC_ICR_HIGH, 0);
	logged = 0;
	asm volatile("lea 1f(%%rip), %[behind]\n"
		     "pushfq; orq $0x300, (%%rsp); popfq\n" /* TF and IF */
		     "mov %[icr], 0xfee00300\n"
		     "1: nop; nop; nop; nop\n"
		     "pushfq; andq $~0x300, (%%rsp); popfq"
		     : [behind] "=&r"(behind)
		     : [icr] "r"((u32)(ICR_SELF | ICR_ASSERT | VEC_TEST))
		     : "memory", "cc");
	for (u32 i = 0; i < MIN(logged, MAX_LOG); i++) {
		traps += event_log[i].vector == VEC_DB && event_log[i].rip == behind;
		if (event_log[i].vector == VEC_TEST)
			first = MIN(first, i);
	}
	tap_is(traps, 1, "single step: the write that sends a self-IPI has its trap");
	tap_ok(first < MAX_LOG && first > 0 && event_log[first - 1].vector == VEC_DB &&
		       event_log[first - 1].rip >= behind,
	       "the interrupt comes after that trap");
	tap_is(logged, 9, "eight traps and one interrupt");
	if (traps != 1 || logged != 9)
		for (u32 i = 0; i < MIN(logged, MAX_LOG); i++)
			tap_note("vector %d at 0x%lx", event_log[i].vector, event_log[i].rip);
	trap_set_handler(VEC_DB, NULL);
	trap_set_handler(VEC_TEST, NULL);
	write_dr6(0xffff0ff0);
}

/* --- what debug exceptions change ---------------------------------------------------------------
 */

static bool log_debugctl(struct frame *f)
{
	note(f);
	if (logged <= MAX_LOG)
		event_log[logged - 1].debugctl = rdmsr(MSR_DEBUGCTL);
	f->rflags &= ~RFLAGS_TF;
	return true;
}

static void test_debug_state(void)
{
	trap_set_handler(VEC_DB, log_debugctl);
	logged = 0;
	/* BT, which no hardware clears (SDM 18.2.3), and B1, which a debug exception may. */
	write_dr6(0xffff0ff0 | BIT64(15) | BIT64(1));
	if (safe_wrmsr(MSR_DEBUGCTL, 2) != TRAP_NONE) {
		tap_skip("no branch stepping");
	} else {
		asm volatile("pushfq; orq $0x100, (%%rsp); popfq; jmp 1f; 1: nop; nop"
			     :
			     :
			     : "memory", "cc");
		real_is(logged, 1, "branch step");
		real_is(event_log[0].debugctl & 2, 0, "the debug exception has cleared BTF");
		real_is(event_log[0].dr6 & 0xe00f, BIT64(15) | BIT64(14),
			"DR6: BS is added, BT stays, B1 is cleared");
		wrmsr(MSR_DEBUGCTL, 0);
	}
	trap_set_handler(VEC_DB, NULL);
	write_dr6(0xffff0ff0);
}

/* --- HLT and NMIs --------------------------------------------------------------------------------
 */

static volatile u32 nmis, timers, timers_behind_hlt;

static bool count_timer(struct frame *f)
{
	timers++;
	lapic_eoi();
	return true;
}

static bool halt_in_nmi(struct frame *f)
{
	if (nmis++)
		return true;
	idt_set_ist(VEC_NMI, 0); /* the timer's IRET lets the second one in */
	lapic_send(lapic_id(), ICR_NMI | ICR_ASSERT);
	delay_us(50);
	lapic_write(LAPIC_TIMER_DCR, 0xb);
	lapic_write(LAPIC_LVT_TIMER, VEC_TIMER);
	lapic_write(LAPIC_TIMER_ICR, (u32)(tsc_khz() * 2));
	irq_wait();
	timers_behind_hlt = timers;
	idt_set_ist(VEC_NMI, 2);
	return true;
}

/* An NMI that is blocked does not end HLT (SDM 3A 6.7.1). */
static void test_halt_with_blocked_nmi(void)
{
	trap_set_handler(VEC_NMI, halt_in_nmi);
	trap_set_handler(VEC_TIMER, count_timer);
	lapic_send(lapic_id(), ICR_NMI | ICR_ASSERT);
	delay_us(100);
	real_is(timers_behind_hlt, 1, "HLT in an NMI handler sleeps until the timer interrupts");
	tap_is(nmis, 2, "the second NMI has come, after IRET");
	trap_set_handler(VEC_NMI, NULL);
	trap_set_handler(VEC_TIMER, NULL);
}

/* --- registers ----------------------------------------------------------------------------------
 */

static void test_wide_cr4(void)
{
	u64 cr4 = read_cr4();

	if (!umbra_present()) {
		tap_skip("QEMU's TCG ignores wide writes to CR4");
		return;
	}
	tap_is((u64)safe_write_cr4(cr4 | BIT64(32)), VEC_GP, "CR4 has no bit 32");
	tap_is((u64)safe_write_cr4(cr4 ^ CR4_MCE ^ BIT64(63)), VEC_GP, "nor a bit 63");
	tap_is(read_cr4(), cr4, "CR4 is unchanged");
}

/* Without CR4.LA57 in CPUID nobody may be told of more than 48 bits. */
static void test_linear_bits(void)
{
	bool la57 = cpuid(7, 0).ecx & BIT(16);

	tap_ok((cpuid(0x80000008, 0).eax >> 8 & 0xff) <= (la57 ? 57 : 48), "linear-address bits");
}

void guest_main(void)
{
	lapic_enable();
	test_fault_sets_rf();
	test_rf_cleared();
	test_breakpoint_on_string();
	test_step_meets_interrupt();
	test_debug_state();
	test_halt_with_blocked_nmi();
	test_wide_cr4();
	test_linear_bits();
}
