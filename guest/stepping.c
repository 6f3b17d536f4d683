/*
 * What must not be lost when an instruction is emulated instead of executed: the single-step trap
 * after it, breakpoints on it and RFLAGS.RF, the shadows of STI and MOV SS, and NMI blocking.
 * The same sequences with NOP show that the expectation is the processor's own.
 */
#include "apic.h"
#include "cpu.h"
#include "mem.h"
#include "umbra.h"

#define VEC_TEST 0x60
#define MAX_LOG	 64

static u64 rip_log[MAX_LOG], dr6_log[MAX_LOG];
static volatile u32 logged;

static bool log_event(struct frame *f)
{
	if (logged < MAX_LOG) {
		rip_log[logged] = f->rip;
		dr6_log[logged] = read_dr6();
	}
	logged++;
	return true;
}

/* Sequences and shadows are in lib/sequences.S. */
#define DECLARE_SEQUENCE(name) \
	void name(u64 arg);    \
	extern const u64 name##_rips[], name##_rips_end[];
DECLARE_SEQUENCE(seq_nop)
DECLARE_SEQUENCE(seq_cpuid)
DECLARE_SEQUENCE(seq_in)
DECLARE_SEQUENCE(seq_out)
DECLARE_SEQUENCE(seq_msr)
DECLARE_SEQUENCE(seq_vmcall)
DECLARE_SEQUENCE(seq_mmio)
DECLARE_SEQUENCE(seq_cr)
DECLARE_SEQUENCE(seq_cr_toggle)
DECLARE_SEQUENCE(seq_outs)
DECLARE_SEQUENCE(seq_ss_nop)
DECLARE_SEQUENCE(seq_ss_cpuid)
DECLARE_SEQUENCE(seq_ss_in)
DECLARE_SEQUENCE(seq_fresh)

struct sequence {
	const char *name;
	void (*run)(u64 arg);
	const u64 *rips, *rips_end;
	u64 arg;
	bool umbra_only;
};

#define SEQ(fn) .run = fn, .rips = fn##_rips, .rips_end = fn##_rips_end

static void run_sequence(const struct sequence *s)
{
	u32 want = (u32)(s->rips_end - s->rips), wrong = 0;

	logged = 0;
	write_dr6(0xffff0ff0);
	s->run(s->arg);
	tap_ok(logged == want, "%s: %u single-step traps", s->name, want);
	for (u32 i = 0; i < want && i < logged; i++)
		wrong += rip_log[i] != s->rips[i] || !(dr6_log[i] & BIT(14));
	tap_ok(!wrong && logged == want, "%s: each behind its instruction, DR6.BS set", s->name);
	if (!wrong && logged == want)
		return;
	for (u32 i = 0; i < MIN(logged, MAX_LOG); i++)
		tap_note("#DB %u at 0x%lx, want 0x%lx, DR6 0x%lx", i, rip_log[i],
			 i < want ? s->rips[i] : 0, dr6_log[i]);
}

static void test_single_step(void)
{
	u64 fresh = (u64)(uintptr_t)mem_alloc(4 * PAGE_SIZE, PAGE_SIZE);
	const struct sequence sequences[] = {
		{"NOP", SEQ(seq_nop)},
		{"CPUID", SEQ(seq_cpuid)},
		{"IN", SEQ(seq_in)},
		{"OUT", SEQ(seq_out)},
		{"RDMSR and WRMSR", SEQ(seq_msr)},
		{"VMCALL", SEQ(seq_vmcall), .umbra_only = true},
		{"MMIO", SEQ(seq_mmio), .arg = LAPIC_BASE},
		{"MOV CR, CLTS, WBINVD", SEQ(seq_cr)},
		{"CR4.PGE and CR0.TS toggled", SEQ(seq_cr_toggle)},
		{"REP OUTSB", SEQ(seq_outs), .arg = (u64)(uintptr_t) "abc"},
		{"NOP after MOV SS", SEQ(seq_ss_nop)},
		{"CPUID after MOV SS", SEQ(seq_ss_cpuid)},
		{"IN after MOV SS", SEQ(seq_ss_in)},
		{"first touch of pages", SEQ(seq_fresh), .arg = fresh},
	};

	trap_set_handler(VEC_DB, log_event);
	for (u32 i = 0; i < ARRAY_SIZE(sequences); i++) {
		if (sequences[i].umbra_only && !umbra_present())
			tap_skip("%s: needs Umbra", sequences[i].name);
		else
			run_sequence(&sequences[i]);
	}
	trap_set_handler(VEC_DB, NULL);
	write_dr6(0xffff0ff0);
}

/* A handler that sets RF, as a debugger does to step over its breakpoint. */
static bool log_and_resume(struct frame *f)
{
	log_event(f);
	f->rflags |= RFLAGS_RF;
	return true;
}

/*
 * A breakpoint on an emulated instruction is hit before it, once per pass: RF must be honoured on
 * entry and be clear after the instruction.
 */
static void test_breakpoint_on_emulated(void)
{
	u64 cpuid_at, in_at, rounds = 3;

	trap_set_handler(VEC_DB, log_and_resume);
	logged = 0;
	asm volatile("lea 1f(%%rip), %[c]; mov %[c], %%dr0; lea 2f(%%rip), %[i]; mov %[i], %%dr1\n"
		     "mov %[on], %%dr7\n"
		     "3: xor %%eax, %%eax\n"
		     "1: cpuid\n"
		     "2: inb $0x80, %%al\n"
		     "dec %[n]; jnz 3b\n"
		     "mov %[off], %%dr7"
		     : [c] "=&r"(cpuid_at), [i] "=&r"(in_at), [n] "+r"(rounds)
		     : [on] "r"(0x40aull), [off] "r"(0x400ull)
		     : "rax", "rbx", "rcx", "rdx", "memory", "cc");
	trap_set_handler(VEC_DB, NULL);
	tap_is(logged, 6, "breakpoints on CPUID and IN, three passes");
	tap_ok(logged == 6 && rip_log[0] == cpuid_at && rip_log[1] == in_at &&
		       rip_log[2] == cpuid_at && rip_log[5] == in_at,
	       "they are hit in order, at the instructions");
	write_dr6(0xffff0ff0);
}

static bool log_irq(struct frame *f)
{
	log_event(f);
	lapic_eoi();
	return true;
}

#define DECLARE_SHADOW(name) u64 name(u64 arg);
DECLARE_SHADOW(shadow_nop)
DECLARE_SHADOW(shadow_cpuid)
DECLARE_SHADOW(shadow_in)
DECLARE_SHADOW(shadow_out)
DECLARE_SHADOW(shadow_rdmsr)
DECLARE_SHADOW(shadow_mmio)
DECLARE_SHADOW(shadow_vmcall)
DECLARE_SHADOW(shadow_hlt)
DECLARE_SHADOW(shadow_fresh)
DECLARE_SHADOW(shadow_cr)
DECLARE_SHADOW(shadow_popf)
DECLARE_SHADOW(shadow_sti_sti)

static void pend_interrupt(void)
{
	lapic_send(0, ICR_SELF | ICR_ASSERT | VEC_TEST);
	for (int i = 0;
	     i < 100000 && !(lapic_read(LAPIC_IRR + (VEC_TEST / 32) * 16) & BIT(VEC_TEST % 32));
	     i++)
		cpu_pause();
}

static void test_shadows(void)
{
	const struct {
		const char *name;
		u64 (*run)(u64 arg);
		u64 arg;
		bool umbra_only;
	} shadows[] = {
		{"STI; NOP", .run = shadow_nop},
		{"STI; CPUID", .run = shadow_cpuid},
		{"STI; IN", .run = shadow_in},
		{"STI; OUT", .run = shadow_out},
		{"STI; RDMSR", .run = shadow_rdmsr},
		{"STI; MMIO read", .run = shadow_mmio, .arg = LAPIC_BASE},
		{"STI; VMCALL", .run = shadow_vmcall, .umbra_only = true},
		{"STI; HLT", .run = shadow_hlt},
		{"STI; first touch of a page", .run = shadow_fresh,
		 .arg = (u64)(uintptr_t)mem_alloc(PAGE_SIZE, PAGE_SIZE)},
		{"STI; MOV CR0", .run = shadow_cr},
		{"POPF", .run = shadow_popf},
		{"STI; STI", .run = shadow_sti_sti},
	};

	trap_set_handler(VEC_TEST, log_irq);
	for (u32 i = 0; i < ARRAY_SIZE(shadows); i++) {
		u64 want;

		if (shadows[i].umbra_only && !umbra_present()) {
			tap_skip("%s: needs Umbra", shadows[i].name);
			continue;
		}
		pend_interrupt();
		logged = 0;
		want = shadows[i].run(shadows[i].arg);
		tap_ok(logged == 1 && rip_log[0] == want,
		       "%s: a pending interrupt comes right behind", shadows[i].name);
		if (logged != 1 || rip_log[0] != want)
			tap_note("%u interrupts, RIP 0x%lx, want 0x%lx", logged, rip_log[0], want);
	}
	pend_interrupt();
	logged = 0;
	asm volatile("sti; cli; nop" : : : "memory");
	tap_is(logged, 0, "STI; CLI lets no interrupt in");
	irq_window();
	tap_is(logged, 1, "it comes with the next window");
}

static volatile u32 nmi_depth, nmi_nested, nmi_seen;

static void send_nmi(void)
{
	lapic_send(lapic_id(), ICR_NMI | ICR_ASSERT);
}

/* Emulated and native work, long enough for an NMI that is wrongly let through. */
static void busy(void)
{
	for (int i = 0; i < 50; i++) {
		cpuid(0, 0);
		inb(0x80);
		delay_us(5);
	}
}

static bool nmi_handler(struct frame *f)
{
	nmi_seen++;
	if (nmi_depth++)
		nmi_nested++;
	if (nmi_seen == 1) {
		send_nmi();
		busy();
	}
	nmi_depth--;
	return true;
}

static bool nmi_unblock_handler(struct frame *f)
{
	u32 before;

	if (nmi_seen++)
		return true;
	idt_set_ist(VEC_NMI, 0); /* the nested one must not reuse this stack */
	send_nmi();
	busy();
	before = nmi_seen;
	asm volatile("int3" : : : "memory"); /* its handler's IRET unblocks NMIs */
	busy();
	nmi_nested = before == 1 && nmi_seen == 2;
	idt_set_ist(VEC_NMI, 2);
	return true;
}

static bool ignore(struct frame *f)
{
	return true;
}

static void test_nmi(void)
{
	trap_set_handler(VEC_NMI, nmi_handler);
	nmi_seen = 0;
	nmi_nested = 0;
	send_nmi();
	busy();
	tap_is(nmi_seen, 2, "two NMIs, one sent while the first was handled");
	tap_is(nmi_nested, 0, "the second waited for IRET");
	trap_set_handler(VEC_NMI, nmi_unblock_handler);
	trap_set_handler(VEC_BP, ignore);
	nmi_seen = 0;
	nmi_nested = 0;
	send_nmi();
	busy();
	tap_is(nmi_seen, 2, "two NMIs, the second after any IRET");
	tap_is(nmi_nested, 1, "an IRET within the handler unblocked NMIs");
	trap_set_handler(VEC_BP, NULL);
	trap_set_handler(VEC_NMI, NULL);
}

void guest_main(void)
{
	lapic_enable();
	test_single_step();
	test_breakpoint_on_emulated();
	test_shadows();
	test_nmi();
}
