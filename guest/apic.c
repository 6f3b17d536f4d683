/*
 * The local APIC, first in xAPIC form, then in x2APIC form (SDM 3A chapter 11): registers, errors,
 * priorities, IPIs to oneself and to other vCPUs, software disable, IA32_APIC_BASE.
 */
#include "apic.h"
#include "irq.h"
#include "mem.h"
#include "smp.h"
#include "umbra.h"

#define LAPIC_LVT_CMCI	  0x2f0
#define LAPIC_LVT_THERMAL 0x330
#define LAPIC_LVT_PERF	  0x340

#define ESR_SEND_VECTOR BIT(5)
#define ESR_RECV_VECTOR BIT(6)
#define ESR_ILLEGAL_REG BIT(7)

#define LVT_MASKED BIT(16)
#define LVT_STATUS (BIT(12) | BIT(14)) /* delivery status, remote IRR */

static bool x2; /* the form under test */
static u32 cpu_count;

static const char *form(void)
{
	return x2 ? "x2APIC" : "xAPIC";
}

static u32 max_lvt(void)
{
	return lapic_read(LAPIC_VERSION) >> 16 & 0xff;
}

static u32 svr_bits(void)
{
	return 0x1ff | (lapic_read(LAPIC_VERSION) & BIT(24) ? BIT(12) : 0);
}

static bool vector_bit(u32 base, u32 vector)
{
	return lapic_read(base + vector / 32 * 16) >> (vector & 31) & 1;
}

static void self_ipi(u32 vector)
{
	lapic_send(0, ICR_SELF | ICR_ASSERT | vector);
}

static u32 read_esr(void)
{
	lapic_write(LAPIC_ESR, 0);
	return lapic_read(LAPIC_ESR);
}

/* --- registers ------------------------------------------------------------------------------ */

static void test_identity(void)
{
	u32 id = lapic_id(), version = lapic_read(LAPIC_VERSION);

	tap_is(id, cpuid(1, 0).ebx >> 24, "%s: ID is the initial APIC ID of CPUID", form());
	if (cpuid(0, 0).eax >= 0xb)
		real_is(id, cpuid(0xb, 0).edx, "%s: ID is that of CPUID leaf 0BH", form());
	tap_ok((version & 0xff) >= 0x10 && (version & 0xff) < 0x20 && max_lvt() >= 3,
	       "%s: version 0x%x", form(), version);
}

/* SDM 11.4.7: after power-up or a global enable, software-disabled. */
static void test_reset_state(void)
{
	static const u32 zero[] = {LAPIC_TPR, LAPIC_PPR,       LAPIC_LDR,	LAPIC_ESR,
				   LAPIC_ICR, LAPIC_TIMER_ICR, LAPIC_TIMER_CCR, LAPIC_TIMER_DCR};
	u32 wrong = 0;

	for (u32 i = 0; i < ARRAY_SIZE(zero); i++)
		wrong |= lapic_read(zero[i]);
	for (u32 r = LAPIC_ISR; r < LAPIC_ESR; r += 16)
		wrong |= lapic_read(r);
	tap_is(wrong, 0, "reset: TPR, PPR, LDR, ISR, TMR, IRR, ESR, ICR, timer are 0");
	tap_is(lapic_read(LAPIC_DFR), 0xffffffff, "reset: DFR");
	tap_is(lapic_read(LAPIC_SVR), 0xff, "reset: software-disabled, vector 0xff");
	wrong = 0;
	for (u32 r = LAPIC_LVT_TIMER; r <= LAPIC_LVT_ERROR; r += 16)
		wrong += lapic_read(r) != LVT_MASKED;
	tap_is(wrong, 0, "reset: LVTs are masked, all else 0");
}

/* What may be written and reads back; all else reads 0. Not: ICR, EOI, which act. */
static void test_write_masks(void)
{
	const struct {
		u32 reg, value, want, ignore;
	} rows[] = {
		{LAPIC_TPR, ~0u, 0xff, 0},
		{LAPIC_SVR, ~0u, svr_bits(), 0},
		{LAPIC_LVT_TIMER, ~BIT(17), 0x500ff, LVT_STATUS},
		{LAPIC_LVT_THERMAL, ~0u, 0x107ff, LVT_STATUS},
		{LAPIC_LVT_PERF, ~0u, 0x107ff, LVT_STATUS},
		{LAPIC_LVT_LINT0, ~0u, 0x1a7ff, LVT_STATUS},
		{LAPIC_LVT_LINT1, ~0u, 0x1a7ff, LVT_STATUS},
		{LAPIC_LVT_ERROR, ~0u, 0x100ff, LVT_STATUS},
		{LAPIC_TIMER_ICR, ~0u, ~0u, 0},
		{LAPIC_TIMER_DCR, ~0u, 0xb, 0},
		{LAPIC_LDR, ~0u, 0xff000000, 0},
		{LAPIC_DFR, 0, 0x0fffffff, 0},
		{LAPIC_ICR_HIGH, ~0u, 0xff000000, 0},
	};
	u32 got;

	for (u32 i = 0; i < ARRAY_SIZE(rows); i++) {
		lapic_write(rows[i].reg, rows[i].value);
		got = lapic_read(rows[i].reg);
		real_is(got & ~rows[i].ignore, rows[i].want, "xAPIC: writable bits of 0x%x",
			rows[i].reg);
		lapic_write(rows[i].reg, 0);
	}
	lapic_write(LAPIC_DFR, ~0u);
	lapic_enable();
}

static void test_read_only(void)
{
	static const u32 regs[] = {LAPIC_VERSION, LAPIC_PPR, LAPIC_ISR,
				   LAPIC_TMR,	  LAPIC_IRR, LAPIC_TIMER_CCR};
	u32 wrong = 0;

	read_esr();
	for (u32 i = 0; i < ARRAY_SIZE(regs); i++) {
		u32 before = lapic_read(regs[i]);

		lapic_write(regs[i], ~before);
		wrong += lapic_read(regs[i]) != before;
	}
	tap_is(wrong, 0, "xAPIC: writes to read-only registers are ignored");
	tap_is(read_esr(), 0, "xAPIC: and are no errors");
}

static void test_illegal_registers(void)
{
	static const u32 reserved[] = {0x000, 0x010, 0x040, 0x070, 0x290,
				       0x2e0, 0x3a0, 0x3d0, 0x400};
	u32 missed = 0;

	read_esr();
	for (u32 i = 0; i < ARRAY_SIZE(reserved); i++) {
		lapic_read(reserved[i]);
		missed += !(read_esr() & ESR_ILLEGAL_REG);
		lapic_write(reserved[i], 0);
		missed += !(read_esr() & ESR_ILLEGAL_REG);
	}
	real_is(missed, 0, "xAPIC: reserved registers set ESR bit 7, read and written");
	real_is(read_esr(), 0, "xAPIC: once each");
}

/* What each x2APIC register lets be written; bits of status in LVTs are not tried. */
static void test_x2apic_bits(void)
{
	const struct {
		u32 reg;
		u64 allowed, ignore, with;
	} rows[] = {
		{LAPIC_TPR, 0xff, 0, 0},
		{LAPIC_EOI, 0, 0, 0},
		{LAPIC_SVR, svr_bits(), 0, BIT(8)},
		{LAPIC_ESR, 0, 0, 0},
		{LAPIC_ICR, 0xffffffff000ccfff, 0, 0},
		{LAPIC_LVT_TIMER, 0x700ff, LVT_STATUS, LVT_MASKED},
		{LAPIC_LVT_THERMAL, 0x107ff, LVT_STATUS, LVT_MASKED},
		{LAPIC_LVT_PERF, 0x107ff, LVT_STATUS, LVT_MASKED},
		{LAPIC_LVT_LINT0, 0x1a7ff, LVT_STATUS, LVT_MASKED},
		{LAPIC_LVT_LINT1, 0x1a7ff, LVT_STATUS, LVT_MASKED},
		{LAPIC_LVT_ERROR, 0x100ff, LVT_STATUS, LVT_MASKED},
		{LAPIC_TIMER_ICR, 0xffffffff, 0, 0},
		{LAPIC_TIMER_DCR, 0xb, 0, 0},
		{LAPIC_SELF_IPI, 0xff, 0, 0},
	};

	for (u32 i = 0; i < ARRAY_SIZE(rows); i++) {
		u32 msr = MSR_X2APIC + rows[i].reg / 16;
		u64 wrong = 0;

		for (u32 bit = 0; bit < 64; bit++) {
			u64 value = BIT64(bit) | rows[i].with;
			int want = rows[i].allowed & BIT64(bit) ? TRAP_NONE : VEC_GP;

			if (!(rows[i].ignore & BIT64(bit)) && safe_wrmsr(msr, value) != want)
				wrong |= BIT64(bit);
		}
		tap_is(wrong, 0, "x2APIC: #GP for reserved bits of MSR 0x%x", msr);
		safe_wrmsr(msr, rows[i].with);
	}
	irq_window(); /* what the vectors of ICR and SELF IPI left pending */
	irq_window();
	lapic_enable();
	read_esr();
}

static bool x2apic_readable(u32 index)
{
	u32 reg = index * 16;

	return reg == LAPIC_ID || reg == LAPIC_VERSION || reg == LAPIC_TPR || reg == LAPIC_PPR ||
	       reg == LAPIC_LDR || reg == LAPIC_SVR || (reg >= LAPIC_ISR && reg <= LAPIC_ESR) ||
	       reg == LAPIC_ICR || (reg >= LAPIC_LVT_TIMER && reg <= LAPIC_TIMER_CCR) ||
	       reg == LAPIC_TIMER_DCR || (reg == LAPIC_LVT_CMCI && max_lvt() >= 6);
}

static bool x2apic_writable(u32 index)
{
	u32 reg = index * 16;

	return reg == LAPIC_TPR || reg == LAPIC_EOI || reg == LAPIC_SVR || reg == LAPIC_ESR ||
	       reg == LAPIC_ICR || (reg >= LAPIC_LVT_TIMER && reg <= LAPIC_TIMER_ICR) ||
	       reg == LAPIC_TIMER_DCR || reg == LAPIC_SELF_IPI ||
	       (reg == LAPIC_LVT_CMCI && max_lvt() >= 6);
}

static void test_x2apic_access(void)
{
	u32 bad_reads = 0, bad_writes = 0;
	u64 value;

	for (u32 i = 0; i < 0x100; i++) {
		bad_reads +=
			(safe_rdmsr(MSR_X2APIC + i, &value) == TRAP_NONE) != x2apic_readable(i);
		if (!x2apic_writable(i))
			bad_writes += safe_wrmsr(MSR_X2APIC + i, 0) != VEC_GP;
	}
	tap_is(bad_reads, 0, "x2APIC: readable MSRs are those of table 11-6, others #GP");
	tap_is(bad_writes, 0, "x2APIC: #GP for writes of all others");
	tap_is(lapic_read(LAPIC_LDR), (lapic_id() >> 4) << 16 | BIT(lapic_id() & 15),
	       "x2APIC: LDR follows from the ID");
}

static void test_x2apic_absent(void)
{
	u32 answered = 0;
	u64 value;

	for (u32 i = 0; i < 0x100; i++) {
		answered += safe_rdmsr(MSR_X2APIC + i, &value) != VEC_GP;
		answered += safe_wrmsr(MSR_X2APIC + i, 0) != VEC_GP;
	}
	real_is(answered, 0, "xAPIC: #GP for all x2APIC MSRs");
}

/* --- errors --------------------------------------------------------------------------------- */

static void test_errors(void)
{
	if (tcg_present()) {
		tap_skip("QEMU 7.2 TCG delivers illegal vectors");
		return;
	}
	read_esr();
	irq_clear();
	lapic_write(LAPIC_LVT_ERROR, 0x4e);
	self_ipi(0x0f);
	real_is(lapic_read(LAPIC_ESR), 0, "%s: ESR changes when it is written", form());
	real_is(read_esr() & ~ESR_RECV_VECTOR, ESR_SEND_VECTOR, "%s: illegal vector sent", form());
	tap_is(read_esr(), 0, "%s: ESR starts anew with each write", form());
	real_is(vector_bit(LAPIC_IRR, 0x4e), 1, "%s: LVT error interrupt pending", form());
	irq_window();
	real_is(irq_hits(0x4e), 1, "%s: LVT error interrupt", form());
	lapic_write(LAPIC_LVT_ERROR, LVT_MASKED | 0x4e);
	self_ipi(0x03);
	irq_window();
	real_is(irq_hits(0x4e), 1, "%s: masked LVT error interrupt", form());
	read_esr();
	tap_ok(!vector_bit(LAPIC_IRR, 0x0f) && !vector_bit(LAPIC_IRR, 3),
	       "%s: illegal vectors never reach IRR", form());
}

/* --- priorities ----------------------------------------------------------------------------- */

static void test_task_priority(void)
{
	irq_clear();
	self_ipi(0x51);
	tap_ok(vector_bit(LAPIC_IRR, 0x51) && !irq_hits(0x51), "%s: in IRR while IF is 0", form());
	lapic_write(LAPIC_TPR, 0x50);
	irq_window();
	tap_is(irq_hits(0x51), 0, "%s: TPR 0x50 holds vector 0x51 back", form());
	lapic_write(LAPIC_TPR, 0x4f);
	irq_window();
	tap_is(irq_hits(0x51), 1, "%s: TPR 0x4f lets it through", form());
	tap_ok(!vector_bit(LAPIC_IRR, 0x51) && !vector_bit(LAPIC_ISR, 0x51),
	       "%s: IRR and ISR are clear after EOI", form());
	write_cr8(0xb);
	tap_is(lapic_read(LAPIC_TPR), 0xb0, "%s: CR8 writes TPR", form());
	tap_is(lapic_read(LAPIC_PPR), 0xb0, "%s: PPR follows CR8", form());
	lapic_write(LAPIC_TPR, 0x3c);
	tap_is(read_cr8(), 3, "%s: CR8 reads TPR", form());
	real_is(lapic_read(LAPIC_PPR), 0x3c, "%s: PPR is TPR with nothing in service", form());
	real_is((u64)safe_write_cr8(0x10), VEC_GP, "%s: #GP for reserved bits of CR8", form());
	real_is(lapic_read(LAPIC_TPR), 0x3c, "%s: and TPR unchanged", form());
	lapic_write(LAPIC_TPR, 0);
}

/* With IF = 1, an interrupt comes the moment the priority lets it. */
static void test_lowering(void)
{
	u32 before, after_cr8, after_tpr;

	irq_clear();
	write_cr8(6);
	irq_enable();
	self_ipi(0x66);
	delay_us(20);
	before = irq_hits(0x66);
	write_cr8(5);
	asm volatile("nop; nop");
	after_cr8 = irq_hits(0x66);
	lapic_write(LAPIC_TPR, 0xff);
	self_ipi(0xe5);
	delay_us(20);
	lapic_write(LAPIC_TPR, 0);
	delay_us(20);
	after_tpr = irq_hits(0xe5);
	irq_disable();
	tap_ok(before == 0 && after_cr8 == 1, "%s: lowering CR8 delivers at once (%u, %u)", form(),
	       before, after_cr8);
	tap_is(after_tpr, 1, "%s: lowering TPR delivers", form());
}

static void test_order(void)
{
	static const u8 sent[] = {0x31, 0x82, 0x55, 0x52, 0x81, 0xe5};
	static const u8 want[] = {0xe5, 0x82, 0x81, 0x55, 0x52, 0x31};
	bool same = true;

	irq_clear();
	for (u32 i = 0; i < sizeof(sent); i++)
		self_ipi(sent[i]);
	self_ipi(0x31); /* already pending: one interrupt */
	for (u32 i = 0; i < 10; i++)
		irq_window();
	for (u32 i = 0; i < sizeof(want); i++)
		same &= irq_logs[0].order[i] == want[i];
	tap_ok(same && irq_logs[0].count == sizeof(want), "%s: highest vector first", form());
}

/* In service at 0x41: higher classes preempt, the same class and lower ones wait for the EOI. */
static struct {
	u32 hits_inside, ppr, isr, isr_after, irr_same;
} nested;

static bool nest(struct frame *f)
{
	self_ipi(0x31);
	self_ipi(0x4f);
	self_ipi(0x82);
	nested.ppr = lapic_read(LAPIC_PPR);
	nested.isr = vector_bit(LAPIC_ISR, 0x41);
	irq_window();
	irq_window();
	nested.hits_inside = irq_logs[0].count;
	nested.irr_same = vector_bit(LAPIC_IRR, 0x4f) && vector_bit(LAPIC_IRR, 0x31);
	lapic_eoi();
	nested.isr_after = vector_bit(LAPIC_ISR, 0x41);
	return true;
}

static void test_nesting(void)
{
	irq_clear();
	memset(&nested, 0, sizeof(nested));
	trap_set_handler(0x41, nest);
	self_ipi(0x41);
	for (u32 i = 0; i < 4; i++)
		irq_window();
	tap_ok(nested.hits_inside == 1 && irq_logs[0].order[0] == 0x82,
	       "%s: only a higher class preempts", form());
	tap_ok(nested.isr == 1 && nested.isr_after == 0, "%s: ISR is set until EOI", form());
	real_is(nested.ppr, 0x40, "%s: PPR is the class in service", form());
	tap_is(nested.irr_same, 1, "%s: the others wait in IRR", form());
	tap_ok(irq_logs[0].count == 3 && irq_logs[0].order[1] == 0x4f &&
		       irq_logs[0].order[2] == 0x31,
	       "%s: and come after EOI, in order", form());
	lapic_eoi();
	tap_is(lapic_read(LAPIC_PPR), 0, "%s: EOI with nothing in service does nothing", form());
}

/* Two in service: EOI ends the higher one. */
static bool keep(struct frame *f)
{
	return true;
}

static void test_eoi(void)
{
	trap_set_handler(0x35, keep);
	trap_set_handler(0x75, keep);
	self_ipi(0x35);
	irq_window();
	self_ipi(0x75);
	irq_window();
	tap_ok(vector_bit(LAPIC_ISR, 0x35) && vector_bit(LAPIC_ISR, 0x75), "%s: two in service",
	       form());
	tap_is(lapic_read(LAPIC_PPR), 0x70, "%s: PPR of the higher", form());
	lapic_eoi();
	tap_ok(vector_bit(LAPIC_ISR, 0x35) && !vector_bit(LAPIC_ISR, 0x75),
	       "%s: EOI ends the higher", form());
	tap_is(lapic_read(LAPIC_PPR), 0x30, "%s: PPR of the lower", form());
	lapic_eoi();
	tap_ok(!vector_bit(LAPIC_ISR, 0x35), "%s: second EOI ends the lower", form());
	irq_record(0x35);
	irq_record(0x75);
}

/* --- software disable ----------------------------------------------------------------------- */

static void test_software_disable(void)
{
	u32 unmasked = 0;

	irq_clear();
	for (u32 r = LAPIC_LVT_TIMER; r <= LAPIC_LVT_ERROR; r += 16)
		lapic_write(r, 0x4e);
	lapic_write(LAPIC_SVR, 0xff);
	for (u32 r = LAPIC_LVT_TIMER; r <= LAPIC_LVT_ERROR; r += 16)
		unmasked += !(lapic_read(r) & LVT_MASKED);
	real_is(unmasked, 0, "%s: software disable masks the LVTs", form());
	unmasked = 0;
	for (u32 r = LAPIC_LVT_TIMER; r <= LAPIC_LVT_ERROR; r += 16) {
		lapic_write(r, 0x4e);
		unmasked += !(lapic_read(r) & LVT_MASKED);
	}
	real_is(unmasked, 0, "%s: which cannot be unmasked then", form());
	self_ipi(0x61);
	irq_window();
	real_is(irq_hits(0x61), 0, "%s: software disable: no fixed interrupt", form());
	lapic_send(lapic_id(), ICR_NMI | ICR_ASSERT);
	tap_ok(irq_await(0, VEC_NMI, 1, 10000), "%s: software disable: NMI comes", form());
	lapic_enable();
	irq_window();
	self_ipi(0x62);
	irq_window();
	real_ok(!irq_hits(0x61) && irq_hits(0x62) == 1, "%s: enabled again", form());
}

/* --- IPIs ----------------------------------------------------------------------------------- */

/*
 * Sends and compares what each CPU got. `want` is a bit mask of CPUs. The others may share our
 * physical CPU, so absence shows for sure only in the totals at the end: `owed`.
 */
static u32 owed[MAX_CPUS][256];

static void check_ipi(u32 dest, u32 icr, u32 want, const char *what)
{
	u32 vector = (icr & 0x700) == ICR_NMI ? VEC_NMI : icr & 0xff;
	u32 wrong = 0;

	irq_enable();
	lapic_send(dest, icr | ICR_ASSERT);
	for (u32 cpu = 0; cpu < cpu_count; cpu++) {
		owed[cpu][vector] += want >> cpu & 1;
		irq_await(cpu, vector, owed[cpu][vector], 200000);
	}
	delay_us(50);
	irq_disable();
	for (u32 cpu = 0; cpu < cpu_count; cpu++)
		wrong |= (u32)(irq_logs[cpu].hits[vector] != owed[cpu][vector]) << cpu;
	real_ok(!wrong, "%s: IPI %s", form(), what);
	for (u32 cpu = 0; wrong && cpu < cpu_count; cpu++) {
		tap_note("CPU %u has %u of vector 0x%x, should have %u", cpu,
			 irq_logs[cpu].hits[vector], vector, owed[cpu][vector]);
		owed[cpu][vector] = irq_logs[cpu].hits[vector];
	}
}

static void ipi_reset(void)
{
	irq_clear();
	memset(owed, 0, sizeof(owed));
}

static u32 everybody(void)
{
	return (1u << cpu_count) - 1;
}

static void check_destinations(u32 cpu)
{
	u32 id = cpus[cpu].apic_id;

	check_ipi(id, 0x60, 1u << cpu, cpu ? "to another, physical" : "to oneself, physical");
	check_ipi(id, ICR_NMI, 1u << cpu, cpu ? "NMI to another" : "NMI to oneself");
	if (x2)
		check_ipi((id >> 4) << 16 | BIT(id & 15), ICR_LOGICAL | 0x63, 1u << cpu, "logical");
}

static void test_ipis(void)
{
	u32 others = everybody() & ~1u, all = everybody(), nobody_logical = x2 ? 0x00ff0001 : 0;

	ipi_reset();
	check_ipi(0, ICR_SELF | 0x60, 1, "to oneself, shorthand");
	check_ipi(0, ICR_ALL | 0x61, all, "to all including oneself");
	check_ipi(0, ICR_OTHERS | 0x62, others, "to all but oneself");
	check_ipi(x2 ? ~0u : 0xff, 0x63, all, "physical broadcast");
	check_ipi(x2 ? ~0u : 0xff, ICR_LOGICAL | 0x60, all, "logical broadcast");
	check_ipi(0, ICR_OTHERS | ICR_NMI, others, "NMI to all but oneself");
	check_ipi(x2 ? 0xfffe : 0xfe, 0x61, 0, "to an ID that nobody has");
	check_ipi(nobody_logical, ICR_LOGICAL | 0x61, 0, "to a logical ID that nobody has");
	check_ipi(0, ICR_SMI, 0, "SMI does nothing that shows");
	for (u32 cpu = 0; cpu < cpu_count; cpu++)
		check_destinations(cpu);
	tap_is(lapic_read(LAPIC_ICR) & ICR_PENDING, 0, "%s: delivery status is idle", form());
}

/* INIT level de-assert: does nothing since the P6. */
static void test_init_deassert(void)
{
	lapic_send(0, ICR_OTHERS | ICR_INIT | ICR_LEVEL);
	check_ipi(0, ICR_ALL | 0x63, everybody(), "works after INIT level de-assert");
}

static void set_flat(void *arg)
{
	lapic_write(LAPIC_DFR, 0xffffffff);
	lapic_write(LAPIC_LDR, 1u << (24 + (this_cpu()->index & 7)));
}

/* Cluster model: two APICs to a cluster. */
static void set_cluster(void *arg)
{
	u32 index = this_cpu()->index;

	lapic_write(LAPIC_DFR, 0x0fffffff);
	lapic_write(LAPIC_LDR, (index / 2 << 4 | BIT(index & 1)) << 24);
}

static void test_xapic_logical(void)
{
	ipi_reset();
	for (u32 cpu = 0; cpu < cpu_count; cpu++)
		check_ipi(1u << cpu, ICR_LOGICAL | 0x61, 1u << cpu, "logical, flat model");
	check_ipi(everybody() & 0xff, ICR_LOGICAL | 0x62, everybody(), "logical, flat, several");
	smp_run_all(set_cluster, NULL);
	for (u32 cpu = 0; cpu < cpu_count; cpu++)
		check_ipi(cpu / 2 << 4 | BIT(cpu & 1), ICR_LOGICAL | 0x61, 1u << cpu,
			  "logical, cluster model");
	check_ipi(0x03, ICR_LOGICAL | 0x62, everybody() & 3, "logical, one cluster");
	check_ipi(0xf1, ICR_LOGICAL | 0x63, everybody() & 0x55555555, "logical, all clusters");
	smp_run_all(set_flat, NULL);
}

/* Lowest priority: exactly one of the addressed; never one with a higher task priority. */
static void test_lowest_priority(void)
{
	u32 total = 0, mine;

	if (x2)
		return; /* the processors that have it do not support it as IPI (SDM 11.6.1) */
	ipi_reset();
	write_cr8(3);
	irq_enable();
	for (u32 i = 0; i < 8; i++) {
		lapic_send(everybody() & 0xff, ICR_LOGICAL | ICR_LOWEST | ICR_ASSERT | 0x60);
		for (u64 spin = 0; spin < 200 && total <= i; spin++) {
			total = 0;
			for (u32 cpu = 0; cpu < cpu_count; cpu++)
				total += irq_logs[cpu].hits[0x60];
			delay_us(200);
		}
	}
	irq_disable();
	write_cr8(0);
	mine = irq_hits(0x60);
	real_is(total, 8, "%s: lowest priority: each goes to one", form());
	if (cpu_count > 1)
		real_is(mine, 0, "%s: lowest priority: not to us, whose TPR is higher", form());
}

/* --- IA32_APIC_BASE (figure 11-27) ----------------------------------------------------------- */

static void test_base_faults(void)
{
	u64 base = rdmsr(MSR_APIC_BASE), wrong = 0;

	tap_ok((base & APIC_BASE_EN) && (base & APIC_BASE_BSP), "IA32_APIC_BASE 0x%lx", base);
	for (u32 bit = 0; bit < 64; bit++) {
		bool reserved = bit < 8 || bit == 9 || bit >= 52;

		if (reserved && safe_wrmsr(MSR_APIC_BASE, base | BIT64(bit)) != VEC_GP)
			wrong |= BIT64(bit);
	}
	real_is(wrong, 0, "%s: #GP for reserved bits of IA32_APIC_BASE", form());
	real_is((u64)safe_wrmsr(MSR_APIC_BASE, (base & ~APIC_BASE_EN) | APIC_BASE_EXTD), VEC_GP,
		"%s: #GP for EXTD without EN", form());
	if (x2)
		tap_is((u64)safe_wrmsr(MSR_APIC_BASE, base & ~APIC_BASE_EXTD), VEC_GP,
		       "#GP for x2APIC to xAPIC");
	real_is(rdmsr(MSR_APIC_BASE), base, "%s: IA32_APIC_BASE unchanged", form());
}

/* The way through "disabled" and back to xAPIC, which is a reset. */
static void test_base_disable(void)
{
	u64 base = rdmsr(MSR_APIC_BASE);
	u64 off = base & ~(APIC_BASE_EN | APIC_BASE_EXTD);
	u32 edx;

	lapic_write(LAPIC_TPR, 0x20);
	lapic_write(LAPIC_TIMER_DCR, 3);
	wrmsr(MSR_APIC_BASE, off);
	edx = cpuid(1, 0).edx;
	tap_is(edx & BIT(9), 0, "CPUID.1:EDX.APIC is 0 while disabled");
	tap_is(*(volatile u32 *)(uintptr_t)(LAPIC_BASE + LAPIC_VERSION), 0xffffffff,
	       "nothing answers at its address then");
	tap_is((u64)safe_wrmsr(MSR_APIC_BASE, off | APIC_BASE_EN | APIC_BASE_EXTD), VEC_GP,
	       "#GP for disabled to x2APIC");
	wrmsr(MSR_APIC_BASE, off | APIC_BASE_EN);
	tap_ok(cpuid(1, 0).edx & BIT(9), "CPUID.1:EDX.APIC is back");
	test_reset_state();
	lapic_enable();
	irq_clear();
	self_ipi(0x60);
	irq_window();
	tap_is(irq_hits(0x60), 1, "interrupts come after enabling again");
}

/* The MMIO page is dead in x2APIC mode: reads are of nothing, writes go nowhere. */
static void test_dead_page(void)
{
	volatile u32 *tpr = (volatile u32 *)(uintptr_t)(LAPIC_BASE + LAPIC_TPR);

	lapic_write(LAPIC_TPR, 0x10);
	*tpr = 0x40;
	tap_is(lapic_read(LAPIC_TPR), 0x10, "x2APIC: the xAPIC page cannot be written");
	tap_is(*tpr, 0xffffffff, "x2APIC: nor read");
	lapic_write(LAPIC_TPR, 0);
}

static void test_common(void)
{
	test_identity();
	test_errors();
	test_task_priority();
	test_lowering();
	test_order();
	test_nesting();
	test_eoi();
	test_software_disable();
	test_ipis();
	test_init_deassert();
	test_lowest_priority();
	test_base_faults();
}

static void go_x2apic(void *arg)
{
	lapic_enable_x2apic();
	cpus[this_cpu()->index].apic_id = lapic_id();
}

static void record_vectors(void)
{
	static const u8 vectors[] = {0x10, 0x20, 0x31, 0x35, 0x40, 0x4e, 0x4f,
				     0x51, 0x52, 0x55, 0x60, 0x61, 0x62, 0x63,
				     0x66, 0x75, 0x80, 0x81, 0x82, 0xe5, 0xff};

	for (u32 i = 0; i < sizeof(vectors); i++)
		irq_record(vectors[i]);
	irq_record_nmi();
}

void guest_main(void)
{
	record_vectors();
	if (lapic_is_x2apic())
		tap_bail("started in x2APIC mode");
	cpu_count = smp_start();
	tap_is(cpu_count, smp_expected(), "%u CPUs are online", cpu_count);
	smp_spin = false;
	test_write_masks();
	test_read_only();
	test_illegal_registers();
	test_x2apic_absent();
	smp_run_all(set_flat, NULL);
	test_common();
	test_xapic_logical();
	if (!(cpuid(1, 0).ecx & BIT(21))) {
		tap_skip("no x2APIC");
		return;
	}
	smp_run_all(go_x2apic, NULL);
	tap_ok(lapic_is_x2apic(), "x2APIC mode");
	x2 = true;
	test_x2apic_access();
	test_x2apic_bits();
	test_dead_page();
	test_common();
	tap_is(irq_hits(0xff), 0, "no spurious interrupt");
	test_base_disable();
}
