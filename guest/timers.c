/*
 * Timers and the moment of delivery: local APIC timer in its three modes, PIT and RTC through the
 * 8259s and the IOAPIC, TSC, HLT, interrupt shadows. Rates are compared with the TSC.
 */
#include "apic.h"
#include "irq.h"
#include "ioapic.h"
#include "smp.h"
#include "umbra.h"

#define VEC_TIMER 0x70
#define VEC_PIT	  0x62
#define VEC_RTC	  0x63
#define VEC_SELF  0x51
#define PIC_PIT	  0x20
#define PIC_RTC	  0x28

#define LVT_MASKED   BIT(16)
#define LVT_PERIODIC BIT(17)
#define LVT_DEADLINE BIT(18)

#define DCR_BY_1  0xb
#define DCR_BY_2  0x0
#define DCR_BY_16 0x3

#define PIT_HZ 1193182ull

static u32 cpu_count;

/* A measurement may be half a per cent off; Umbra says what it is. */
static u64 khz(void)
{
	return umbra_present() ? cpuid(UMBRA_CPUID_TIMING, 0).eax : tsc_khz();
}

static u64 us(u64 n)
{
	return n * khz() / 1000;
}

/* `got` is `want` to one per cent and what one wake-up may cost (20,000 instructions in Bochs). */
static bool about(u64 got, u64 want)
{
	return got + want / 100 + us(20) >= want && got <= want + want / 100 + us(400);
}

/* Never before its time, and not late by more than 1 % and 400 us. */
static bool on_time(u64 got, u64 want)
{
	return got >= want && about(got, want);
}

/* Sleeps until the vector has come `n` times; gives up after `limit` TSC ticks. */
static bool sleep_until(unsigned int vector, u32 n, u64 limit)
{
	u64 start = rdtsc();

	irq_disable();
	while (irq_hits(vector) < n && rdtsc() - start < limit)
		irq_wait();
	return irq_hits(vector) >= n;
}

/* Interrupts on for a while, busy. */
static void busy(u64 microseconds)
{
	irq_enable();
	delay_us(microseconds);
	irq_disable();
}

/* Ticks of the APIC timer's input per TSC tick, times 1000: Umbra says that they are the same. */
static u64 timer_khz(void)
{
	return umbra_present() ? cpuid(UMBRA_CPUID_TIMING, 0).ebx : 1000000;
}

static u64 timer_to_tsc(u64 ticks)
{
	return ticks * khz() / timer_khz();
}

static u32 timer_ticks(u64 microseconds)
{
	return (u32)(microseconds * timer_khz() / 1000);
}

/* --- local APIC timer: one-shot, periodic ----------------------------------------------------- */

static void check_one_shot(u32 dcr, u32 divisor, u64 microseconds)
{
	u64 start, took;
	bool came;

	irq_clear();
	lapic_write(LAPIC_LVT_TIMER, VEC_TIMER);
	lapic_write(LAPIC_TIMER_DCR, dcr);
	start = rdtsc();
	lapic_write(LAPIC_TIMER_ICR, timer_ticks(microseconds) / divisor);
	came = sleep_until(VEC_TIMER, 1, us(100000));
	took = rdtsc() - start;
	real_ok(came && on_time(took, us(microseconds) - us(1)),
		"one-shot, divided by %u: %lu TSC ticks for %lu", divisor, took, us(microseconds));
	busy(2 * microseconds);
	real_ok(irq_hits(VEC_TIMER) == 1 && lapic_read(LAPIC_TIMER_CCR) == 0,
		"one-shot, divided by %u: once", divisor);
}

static void test_one_shot(void)
{
	check_one_shot(DCR_BY_1, 1, 300);
	check_one_shot(DCR_BY_2, 2, 1000);
	check_one_shot(DCR_BY_16, 16, 3000);
	/* Stopped before it is due. */
	irq_clear();
	lapic_write(LAPIC_TIMER_DCR, DCR_BY_1);
	lapic_write(LAPIC_TIMER_ICR, timer_ticks(300));
	lapic_write(LAPIC_TIMER_ICR, 0);
	busy(600);
	real_is(irq_hits(VEC_TIMER), 0, "one-shot: initial count 0 stops it");
	/* Masked: it counts, and nothing is kept for later. */
	lapic_write(LAPIC_LVT_TIMER, LVT_MASKED | VEC_TIMER);
	lapic_write(LAPIC_TIMER_ICR, timer_ticks(200));
	busy(400);
	lapic_write(LAPIC_LVT_TIMER, VEC_TIMER);
	busy(400);
	real_is(irq_hits(VEC_TIMER), 0, "one-shot: masked when it is due");
	/* A new count starts over. */
	lapic_write(LAPIC_TIMER_ICR, timer_ticks(400));
	busy(200);
	lapic_write(LAPIC_TIMER_ICR, timer_ticks(400));
	busy(300);
	real_is(irq_hits(VEC_TIMER), 0, "one-shot: a new count starts over");
	busy(300);
	real_is(irq_hits(VEC_TIMER), 1, "one-shot: and comes to its end");
}

static void test_count(void)
{
	u32 initial = timer_ticks(2000), before = initial, wrong = 0, reloads = 0;

	lapic_write(LAPIC_LVT_TIMER, LVT_MASKED | LVT_PERIODIC | VEC_TIMER);
	lapic_write(LAPIC_TIMER_DCR, DCR_BY_1);
	lapic_write(LAPIC_TIMER_ICR, initial);
	for (u64 start = rdtsc(); rdtsc() - start < us(7000);) {
		u32 now = lapic_read(LAPIC_TIMER_CCR);

		wrong += now > initial;
		reloads += now > before;
		before = now;
	}
	lapic_write(LAPIC_TIMER_ICR, 0);
	real_is(wrong, 0, "periodic: the count never exceeds the initial count");
	real_is(reloads, 3, "periodic: the count falls and is reloaded");
	tap_is(lapic_read(LAPIC_TIMER_CCR), 0, "a stopped timer's count is 0");
}

/* Sleeping through `n` ticks: as many as time passed, none lost, none more. */
static void check_periodic(u64 period, u32 n)
{
	u64 start, took;
	bool came;

	irq_clear();
	lapic_write(LAPIC_LVT_TIMER, LVT_PERIODIC | VEC_TIMER);
	lapic_write(LAPIC_TIMER_DCR, DCR_BY_1);
	start = rdtsc();
	lapic_write(LAPIC_TIMER_ICR, timer_ticks(period));
	came = sleep_until(VEC_TIMER, n, us(10 * period * n));
	took = rdtsc() - start;
	lapic_write(LAPIC_TIMER_ICR, 0);
	real_ok(came && about(took, timer_to_tsc(timer_ticks(period)) * n),
		"periodic, %lu us: %u ticks in %lu TSC ticks, not %lu", period, n, took,
		us(period) * n);
}

static void test_periodic(void)
{
	u32 hits;

	check_periodic(250, 3000);
	check_periodic(1000, 100);
	irq_clear();
	lapic_write(LAPIC_TIMER_ICR, timer_ticks(500));
	busy(20250);
	lapic_write(LAPIC_TIMER_ICR, 0);
	hits = irq_hits(VEC_TIMER);
	real_ok(hits >= 39 && hits <= 41, "periodic: %u ticks of 40 in a busy loop", hits);
	busy(1000);
	real_is(irq_hits(VEC_TIMER), hits, "periodic: none after it was stopped");
	/* From one-shot to periodic while it counts. */
	irq_clear();
	lapic_write(LAPIC_LVT_TIMER, VEC_TIMER);
	lapic_write(LAPIC_TIMER_ICR, timer_ticks(1000));
	lapic_write(LAPIC_LVT_TIMER, LVT_PERIODIC | VEC_TIMER);
	busy(3500);
	lapic_write(LAPIC_TIMER_ICR, 0);
	real_is(irq_hits(VEC_TIMER), 3, "one-shot becomes periodic while it counts");
}

/* --- TSC deadline ------------------------------------------------------------------------------
 */

static void arm(u64 ticks_from_now)
{
	wrmsr(MSR_TSC_DEADLINE, rdtsc() + ticks_from_now);
}

static void check_deadline(u64 microseconds)
{
	u64 deadline, armed, late;
	bool came;

	irq_clear();
	deadline = rdtsc() + us(microseconds);
	wrmsr(MSR_TSC_DEADLINE, deadline);
	armed = rdmsr(MSR_TSC_DEADLINE);
	came = sleep_until(VEC_TIMER, 1, us(100000));
	late = rdtsc() - deadline;
	tap_is(armed, deadline, "deadline reads back while armed");
	tap_ok(came && (s64)late >= 0 && late < us(400), "deadline in %lu us: %ld TSC ticks late",
	       microseconds, (s64)late);
	tap_is(rdmsr(MSR_TSC_DEADLINE), 0, "deadline reads 0 afterwards");
	busy(microseconds / 4);
	tap_is(irq_hits(VEC_TIMER), 1, "deadline: once");
}

static void test_deadline_forms(void)
{
	irq_clear();
	wrmsr(MSR_TSC_DEADLINE, rdtsc() - us(1000));
	busy(20);
	tap_is(irq_hits(VEC_TIMER), 1, "a deadline in the past comes at once");
	wrmsr(MSR_TSC_DEADLINE, 1);
	busy(20);
	tap_is(irq_hits(VEC_TIMER), 2, "and one long ago");
	arm(us(300));
	wrmsr(MSR_TSC_DEADLINE, 0);
	busy(600);
	tap_is(irq_hits(VEC_TIMER), 2, "deadline 0 disarms");
	arm(us(300));
	arm(us(900));
	busy(600);
	tap_is(irq_hits(VEC_TIMER), 2, "a later deadline replaces an earlier one");
	busy(600);
	tap_is(irq_hits(VEC_TIMER), 3, "and comes");
	arm(us(90000));
	arm(us(300));
	busy(600);
	tap_is(irq_hits(VEC_TIMER), 4, "an earlier one replaces a later one");
	wrmsr(MSR_TSC_DEADLINE, ~0ull);
	busy(300);
	tap_ok(irq_hits(VEC_TIMER) == 4 && rdmsr(MSR_TSC_DEADLINE) == ~0ull,
	       "the farthest deadline stays armed");
	lapic_write(LAPIC_LVT_TIMER, LVT_MASKED | LVT_DEADLINE | VEC_TIMER);
	arm(us(100));
	busy(300);
	tap_is(irq_hits(VEC_TIMER), 4, "deadline: masked");
	lapic_write(LAPIC_LVT_TIMER, LVT_DEADLINE | VEC_TIMER);
	busy(100);
	tap_is(irq_hits(VEC_TIMER), 4, "deadline: nothing is kept while masked");
}

static void test_deadline_modes(void)
{
	irq_clear();
	lapic_write(LAPIC_TIMER_ICR, timer_ticks(100));
	tap_ok(lapic_read(LAPIC_TIMER_CCR) == 0, "deadline mode: the count reads 0");
	busy(300);
	tap_is(irq_hits(VEC_TIMER), 0, "deadline mode: the initial count does nothing");
	arm(us(200));
	lapic_write(LAPIC_LVT_TIMER, VEC_TIMER);
	busy(400);
	tap_is(irq_hits(VEC_TIMER), 0, "leaving deadline mode disarms");
	tap_is(rdmsr(MSR_TSC_DEADLINE), 0, "IA32_TSC_DEADLINE reads 0 in another mode");
	arm(us(100));
	tap_is(rdmsr(MSR_TSC_DEADLINE), 0, "and writes are ignored there");
	lapic_write(LAPIC_TIMER_ICR, timer_ticks(200));
	lapic_write(LAPIC_LVT_TIMER, LVT_DEADLINE | VEC_TIMER);
	busy(400);
	tap_is(irq_hits(VEC_TIMER), 0, "entering deadline mode stops the count");
}

/* A deadline is a TSC value: it moves with the TSC. */
static void test_tsc_writes(void)
{
	u64 adjust = rdmsr(MSR_TSC_ADJUST), t;

	irq_clear();
	arm(us(2000));
	wrmsr(MSR_TSC_ADJUST, adjust + us(4000));
	busy(50);
	tap_is(irq_hits(VEC_TIMER), 1, "TSC_ADJUST forward: the deadline has passed");
	arm(us(300));
	wrmsr(MSR_TSC_ADJUST, adjust);
	busy(1000);
	tap_is(irq_hits(VEC_TIMER), 1, "TSC_ADJUST back: it is farther away");
	busy(3500);
	tap_is(irq_hits(VEC_TIMER), 2, "and comes");
	arm(us(5000));
	wrmsr(MSR_TSC, rdtsc() + us(10000));
	busy(50);
	tap_is(irq_hits(VEC_TIMER), 3, "writing the TSC forward: the deadline has passed");
	t = rdmsr(MSR_TSC_ADJUST) - adjust;
	tap_ok(t >= us(9900) && t <= us(10100), "TSC_ADJUST shows it");
	wrmsr(MSR_TSC, 0);
	t = rdtsc();
	tap_ok(t < us(1000), "the TSC can be set to 0");
	irq_clear();
	arm(us(200));
	busy(400);
	tap_is(irq_hits(VEC_TIMER), 1, "and deadlines work from there");
	wrmsr(MSR_TSC_ADJUST, adjust);
}

/* One wake-up after another at all distances; the PIT would end a sleep that is too long. */
static void test_deadline_sleeps(void)
{
	struct rng r;
	u32 n = 2000, done = 0;

	rng_seed(&r, 7);
	irq_clear();
	ioapic_set(2, VEC_PIT);
	pit_start(0, 2, 0);
	for (; done < n && irq_hits(VEC_PIT) < 40; done++) {
		u32 before = irq_hits(VEC_TIMER);

		arm(rng_below(&r, us(60)));
		irq_disable();
		while (irq_hits(VEC_TIMER) == before && irq_hits(VEC_PIT) < 40)
			irq_wait();
	}
	ioapic_mask(2);
	tap_is(irq_hits(VEC_TIMER), n, "HLT ends for each of %u deadlines", n);
}

static void test_deadline(void)
{
	if (!(cpuid(1, 0).ecx & BIT(24))) {
		tap_skip("no TSC-deadline timer");
		return;
	}
	lapic_write(LAPIC_LVT_TIMER, LVT_DEADLINE | VEC_TIMER);
	tap_is(rdmsr(MSR_TSC_DEADLINE), 0, "not armed at first");
	check_deadline(200);
	check_deadline(5000);
	test_deadline_forms();
	test_deadline_modes();
	if (cpuid(7, 0).ebx & BIT(1))
		test_tsc_writes();
	test_deadline_sleeps();
	lapic_write(LAPIC_LVT_TIMER, LVT_MASKED);
}

/* --- PIT and RTC --------------------------------------------------------------------------------
 */

static void check_rate(unsigned int vector, u32 n, u64 hz_times_1000, const char *what)
{
	u64 start, took, want = n * khz() * 1000000 / hz_times_1000;
	bool came;

	busy(50); /* what is left of an earlier test */
	irq_clear();
	came = sleep_until(vector, 1, us(2000000));
	irq_clear();
	start = rdtsc();
	came &= sleep_until(vector, n, 4 * want);
	took = rdtsc() - start;
	real_ok(came && about(took, want), "%s: %u in %lu TSC ticks, not %lu", what, n, took, want);
}

static void test_pit(void)
{
	u64 count = 1193;

	irq_clear();
	lapic_write(LAPIC_LVT_LINT0, 0x700);
	irq_record_pic(PIC_PIT, 0);
	pit_start(0, 2, (u16)count);
	pic_set_mask(0xfffe);
	check_rate(PIC_PIT, 200, PIT_HZ * 1000 / count, "PIT mode 2 through the 8259");
	pic_set_mask(0xffff);
	irq_clear();
	busy(5000);
	tap_is(irq_hits(PIC_PIT), 0, "masked in the 8259");
	ioapic_set(2, VEC_PIT);
	check_rate(VEC_PIT, 200, PIT_HZ * 1000 / count, "PIT mode 2 through the IOAPIC");
	pit_start(0, 3, (u16)(2 * count));
	check_rate(VEC_PIT, 100, PIT_HZ * 500 / count, "PIT mode 3");
	/* Each interrupt costs some thousand instructions in Bochs, where there are 50 to a us. */
	pit_start(0, 2, 597);
	check_rate(VEC_PIT, 1000, PIT_HZ * 1000 / 597, "PIT at 2 kHz");
	/* One-shot modes. */
	pit_start(0, 0, 1193);
	busy(50);
	irq_clear();
	busy(4000);
	real_is(irq_hits(VEC_PIT), 1, "PIT mode 0: once");
	pit_start(0, 4, 1193);
	irq_clear();
	busy(4000);
	real_is(irq_hits(VEC_PIT), 1, "PIT mode 4: once");
	ioapic_mask(2);
	irq_clear();
	pit_start(0, 2, 1193);
	busy(3000);
	tap_is(irq_hits(VEC_PIT), 0, "masked in the IOAPIC");
	lapic_write(LAPIC_LVT_LINT0, LVT_MASKED);
}

static u32 pit_latched(u32 channel)
{
	u32 low;

	outb(0x43, (u8)(channel << 6));
	low = inb((u16)(0x40 + channel));
	return low | (u32)inb((u16)(0x40 + channel)) << 8;
}

static void test_pit_readback(void)
{
	u32 a, b, status;

	outb(0x61, (inb(0x61) & ~2u) | 1);
	pit_start(2, 2, 50000);
	delay_us(100);
	a = pit_latched(2);
	outb(0x43, 0x80);
	delay_us(2000);
	b = inb(0x42);
	b |= (u32)inb(0x42) << 8;
	real_ok(a <= 50000 && b <= a && a - b < 600, "PIT: a latched count stays (%u, %u)", a, b);
	a = pit_latched(2);
	delay_us(2000);
	b = pit_latched(2);
	real_ok(about((a - b) * khz() * 1000 / PIT_HZ, us(2000)) || b > a,
		"PIT: counts at 1.193182 MHz (%u in 2 ms)", a - b);
	outb(0x43, 0xe8); /* read back: status of channel 2 */
	status = inb(0x42);
	tap_is(status & 0x3f, 0x34, "PIT: read-back status is access, mode, binary");
	outb(0x43, 0xc8); /* status and count of channel 2 */
	status = inb(0x42);
	a = inb(0x42);
	a |= (u32)inb(0x42) << 8;
	tap_ok((status & 0x3f) == 0x34 && a <= 50000, "PIT: read-back of both");
	pit_start(2, 0, 2000);
	real_ok(!(inb(0x61) & 0x20), "PIT mode 0: OUT is low while it counts");
	delay_us(3000);
	tap_ok(inb(0x61) & 0x20, "PIT mode 0: and high at the end");
	/* The gate of channel 2 stops it. */
	pit_start(2, 0, 60000);
	outb(0x61, inb(0x61) & ~1u);
	a = pit_latched(2);
	delay_us(1000);
	b = pit_latched(2);
	real_is(b, a, "PIT: the gate stops channel 2");
}

static u8 cmos_read(u8 reg)
{
	outb(0x70, reg);
	return inb(0x71);
}

static void cmos_write(u8 reg, u8 value)
{
	outb(0x70, reg);
	outb(0x71, value);
}

static bool take_rtc(struct frame *f)
{
	struct irq_log *log = &irq_logs[0];

	log->hits[f->vector & 255]++;
	log->count++;
	cmos_read(0x0c);
	if (f->vector == PIC_RTC) {
		outb(0xa0, 0x20);
		outb(0x20, 0x20);
	} else {
		lapic_eoi();
	}
	return true;
}

static void test_rtc(void)
{
	u8 a = cmos_read(0x0a), b = cmos_read(0x0b);

	irq_clear();
	trap_set_handler(PIC_RTC, take_rtc);
	trap_set_handler(VEC_RTC, take_rtc);
	cmos_write(0x0a, (a & 0xf0) | 6);
	cmos_write(0x0b, (b & 0x0f) | 0x40);
	cmos_read(0x0c);
	lapic_write(LAPIC_LVT_LINT0, 0x700);
	pic_set_mask(0xfefb);
	check_rate(PIC_RTC, 200, 1024000, "RTC at 1024 Hz through the 8259s");
	pic_set_mask(0xffff);
	lapic_write(LAPIC_LVT_LINT0, LVT_MASKED);
	ioapic_set(8, VEC_RTC);
	cmos_read(0x0c); /* an edge needs the line low first */
	check_rate(VEC_RTC, 200, 1024000, "RTC at 1024 Hz through the IOAPIC");
	cmos_write(0x0a, (a & 0xf0) | 5);
	check_rate(VEC_RTC, 1000, 2048000, "RTC at 2048 Hz");
	cmos_write(0x0b, (b & 0x0f) | 0x10);
	check_rate(VEC_RTC, 1, 1000, "RTC update interrupt");
	cmos_write(0x0b, b & 0x0f);
	cmos_write(0x0a, a);
	cmos_read(0x0c);
	irq_clear();
	busy(2000);
	tap_is(irq_hits(VEC_RTC), 0, "RTC: off");
	ioapic_mask(8);
}

/* --- moments of delivery ------------------------------------------------------------------------
 */

static volatile u64 taken_at;

static bool take_where(struct frame *f)
{
	taken_at = f->rip;
	irq_logs[0].hits[f->vector & 255]++;
	irq_logs[0].count++;
	lapic_eoi();
	return true;
}

/* Runs `insns`, which set IF with an interrupt pending; RIP must be at the label 1 in them. */
#define CHECK_SHADOW(insns, what)                                                           \
	do {                                                                                \
		u64 at;                                                                     \
		taken_at = 0;                                                               \
		lapic_send(0, ICR_SELF | ICR_ASSERT | VEC_SELF);                            \
		asm volatile("mov %%ss, %%edx; lea 1f(%%rip), %0\n" insns "; nop; nop; cli" \
			     : "=&r"(at)                                                    \
			     : "a"(0), "c"(0)                                               \
			     : "rbx", "rdx", "memory", "cc");                               \
		real_is(taken_at, at, "%s", what);                                          \
		irq_window();                                                               \
	} while (0)

static void test_shadows(void)
{
	trap_set_handler(VEC_SELF, take_where);
	CHECK_SHADOW("sti; nop; 1:", "STI: after the next instruction");
	CHECK_SHADOW("pushfq; orl $0x200, (%%rsp); popfq; 1:", "POPF has no shadow");
	CHECK_SHADOW("sti; push %%rax; 1: pop %%rax", "STI; PUSH");
	irq_clear();
	lapic_send(0, ICR_SELF | ICR_ASSERT | VEC_SELF);
	asm volatile("sti; cli; nop" : : : "memory");
	tap_is(irq_hits(VEC_SELF), 0, "STI; CLI opens no window");
	asm volatile("sti; hlt; cli" : : : "memory");
	tap_is(irq_hits(VEC_SELF), 1, "STI; HLT does not sleep on a pending interrupt");
}

/* Instructions that leave the guest, inside shadows. */
static void test_shadows_with_exits(void)
{
	CHECK_SHADOW("sti; cpuid; 1:", "STI; CPUID");
	CHECK_SHADOW("sti; in $0x80, %%al; 1:", "STI; IN");
}

/* --- other vCPUs --------------------------------------------------------------------------------
 */

static volatile u64 stage;

static void sleep_masked(void *arg)
{
	lapic_write(LAPIC_LVT_TIMER, VEC_TIMER);
	lapic_write(LAPIC_TIMER_DCR, DCR_BY_1);
	lapic_write(LAPIC_TIMER_ICR, timer_ticks(200));
	stage = 1;
	asm volatile("cli; hlt" : : : "memory");
	stage = 2;
	irq_window();
	stage = 3;
}

/* HLT with IF = 0 sleeps through interrupts; an NMI ends it, and the interrupt is still there. */
static void test_masked_sleep(void)
{
	u64 early;

	stage = 0;
	irq_clear();
	smp_post(1, sleep_masked, NULL);
	while (stage < 1)
		cpu_pause();
	delay_us(5000);
	early = stage;
	lapic_send(cpus[1].apic_id, ICR_NMI | ICR_ASSERT);
	tap_ok(early == 1, "HLT with IF = 0 is not ended by an interrupt");
	tap_ok(smp_wait(1, 1000) && stage == 3, "but by an NMI");
	real_is(irq_logs[1].hits[VEC_TIMER], 1, "and the interrupt comes when IF is set");
	tap_is(irq_logs[1].hits[VEC_NMI], 1, "one NMI");
}

static volatile bool busy_stop;
static volatile u64 busy_beats;

static void busy_masked(void *arg)
{
	irq_disable();
	while (!busy_stop)
		busy_beats++;
}

/* A vCPU that loops with IF = 0 must not keep another from its work, even on one CPU. */
static void test_busy_neighbour(void)
{
	u64 loops = 0, beats;

	busy_stop = false;
	busy_beats = 0;
	smp_post(1, busy_masked, NULL);
	irq_clear();
	lapic_write(LAPIC_LVT_TIMER, LVT_PERIODIC | VEC_TIMER);
	lapic_write(LAPIC_TIMER_ICR, timer_ticks(1000));
	irq_enable();
	for (u64 start = rdtsc(); rdtsc() - start < us(60000); loops++)
		cpu_pause();
	irq_disable();
	lapic_write(LAPIC_TIMER_ICR, 0);
	beats = busy_beats;
	busy_stop = true;
	tap_ok(loops > 1000 && beats > 1000, "both run while one loops with IF = 0 (%lu, %lu)",
	       loops, beats);
	real_ok(irq_hits(VEC_TIMER) >= 5, "and timer interrupts come (%u of 60)",
		irq_hits(VEC_TIMER));
	tap_ok(smp_wait(1, 1000), "the loop ends");
}

static struct spinlock tsc_lock;
static u64 tsc_newest;
static volatile u32 tsc_backwards;

static void read_tsc(void *arg)
{
	for (u32 i = 0; i < 3000; i++) {
		u64 t;

		spin_lock(&tsc_lock);
		t = rdtsc();
		if (t < tsc_newest)
			tsc_backwards++;
		tsc_newest = t;
		spin_unlock(&tsc_lock);
	}
}

static void test_tsc(void)
{
	smp_run_all(read_tsc, NULL);
	tap_is(tsc_backwards, 0, "the TSC never goes back, across %u vCPUs", cpu_count);
}

void guest_main(void)
{
	cpu_count = smp_start();
	tap_ok(khz() * 99 / 100 < tsc_khz() && tsc_khz() < khz() * 102 / 100,
	       "TSC at %lu kHz, measured %lu", khz(), tsc_khz());
	irq_record(VEC_TIMER);
	irq_record(VEC_PIT);
	irq_record_nmi();
	test_one_shot();
	test_count();
	test_periodic();
	test_deadline();
	test_pit();
	test_pit_readback();
	test_rtc();
	test_shadows();
	test_shadows_with_exits();
	test_tsc();
	if (cpu_count < 2) {
		tap_skip("one CPU only");
		return;
	}
	test_masked_sleep();
	test_busy_neighbour();
}
