/*
 * Counting interrupts: each cause exactly once, none without a cause, in numbers. The local APIC's
 * timer by TSC deadline and periodically, and a UART in loopback through the IOAPIC; waited for
 * awake and in HLT, in xAPIC and x2APIC mode.
 *
 * count=N: of each kind (in x2APIC mode, and of the slow ones, a part of it). Nothing is printed
 * while the UART is not as the console needs it.
 */
#include "apic.h"
#include "ioapic.h"
#include "irq.h"
#include "umbra.h"

#define VEC_TIMER 0x70
#define VEC_UART  0x64
#define IRQ_UART  4

#define LVT_MASKED   BIT(16)
#define LVT_PERIODIC BIT(17)
#define LVT_DEADLINE BIT(18)
#define DCR_BY_1     0xb

#define UART_DATA 0x3f8
#define UART_IER  0x3f9
#define UART_IIR  0x3fa
#define UART_MCR  0x3fc
#define UART_LSR  0x3fd
#define UART_MSR  0x3fe

#define IER_DATA 1
#define IER_THRE 2
#define MCR_LOOP 0x10

#define GIVE_UP 5 /* lost ones, before a test is left */

static u64 khz, timer_khz;
static struct rng rng;
static const char *mode;

static volatile u32 timer_hits;
static volatile u64 timer_stamp;

static u64 us(u64 n)
{
	return n * khz / 1000;
}

static bool on_timer(struct frame *f)
{
	timer_stamp = rdtsc();
	timer_hits++;
	lapic_eoi();
	return true;
}

/* Waits, awake or in HLT, until *counter is `want` or more; false if it takes 100 ms. */
static bool await(volatile u32 *counter, u32 want, bool asleep)
{
	u64 start = rdtsc(), limit = us(100000);

	while (*counter < want && rdtsc() - start < limit) {
		if (asleep) {
			irq_wait();
			continue;
		}
		irq_enable();
		for (u32 i = 0; i < 100 && *counter < want; i++)
			cpu_pause();
		irq_disable();
	}
	return *counter >= want;
}

/* Time for what should not come. */
static void settle(void)
{
	irq_enable();
	delay_us(500);
	irq_disable();
}

/* --- local APIC timer --------------------------------------------------------------------------
 */

/* A deadline up to 60 us away; every sixteenth has passed already. */
static void test_deadlines(u32 count)
{
	u32 lost = 0, early = 0, twice = 0, i;

	lapic_write(LAPIC_LVT_TIMER, LVT_DEADLINE | VEC_TIMER);
	timer_hits = 0;
	for (i = 0; i < count && lost < GIVE_UP; i++) {
		u32 before = timer_hits;
		u64 deadline = rdtsc() + rng_below(&rng, us(60));

		if (i % 16 == 0)
			deadline = rdtsc() - us(1);
		wrmsr(MSR_TSC_DEADLINE, deadline);
		lost += !await(&timer_hits, before + 1, i % 4 == 3);
		twice += timer_hits > before + 1;
		early += timer_stamp < deadline;
	}
	settle();
	lapic_write(LAPIC_LVT_TIMER, LVT_MASKED | VEC_TIMER);
	tap_ok(timer_hits == i && !lost && !twice && i == count,
	       "%s: %u deadlines, %u interrupts, %u lost, %u more than once", mode, i, timer_hits,
	       lost, twice);
	real_is(early, 0, "%s: none before its deadline", mode);
}

static void test_periodic(u32 count, u64 microseconds, bool asleep)
{
	u32 ticks = (u32)(microseconds * timer_khz / 1000);
	u64 period = ticks * khz / timer_khz, start, elapsed, due;
	u32 hits, after;
	bool came = true;

	lapic_write(LAPIC_TIMER_DCR, DCR_BY_1);
	lapic_write(LAPIC_LVT_TIMER, LVT_PERIODIC | VEC_TIMER);
	timer_hits = 0;
	start = rdtsc();
	lapic_write(LAPIC_TIMER_ICR, ticks);
	while (came && timer_hits < count)
		came = await(&timer_hits, MIN(count, timer_hits + 64), asleep);
	elapsed = rdtsc() - start;
	hits = timer_hits;
	lapic_write(LAPIC_TIMER_ICR, 0);
	settle();
	after = timer_hits;
	settle();
	lapic_write(LAPIC_LVT_TIMER, LVT_MASKED | VEC_TIMER);
	due = elapsed / period;
	real_ok(came && hits <= due + 1 && due <= hits + 1ull,
		"%s: period %lu us, %s: %u interrupts in %lu periods", mode, microseconds,
		asleep ? "asleep" : "awake", hits, due);
	real_ok(after <= hits + 1 && timer_hits == after, "%s: and none once it is stopped", mode);
}

/* --- UART ---------------------------------------------------------------------------------------
 */

static struct {
	volatile u32 interrupts, thre, received;
	u32 wrong, spurious, other;
	u32 to_send; /* that the handler has to send */
	u8 next, expected;
} uart;

static void serve_uart(u8 cause)
{
	switch (cause & 0xf) {
	case 2:
		if (uart.to_send) {
			uart.to_send--;
			outb(UART_DATA, uart.next++);
		}
		uart.thre++;
		break;
	case 4:
	case 12:
		uart.wrong += inb(UART_DATA) != uart.expected++;
		uart.received++;
		break;
	default:
		uart.other++;
		inb(UART_LSR);
		inb(UART_MSR);
	}
}

/* As a driver: until the UART says that there is nothing more. */
static bool on_uart(struct frame *f)
{
	u8 cause = inb(UART_IIR);

	uart.interrupts++;
	uart.spurious += cause & 1;
	for (; !(cause & 1) && uart.other < GIVE_UP; cause = inb(UART_IIR))
		serve_uart(cause);
	lapic_eoi();
	return true;
}

static void uart_begin(u32 pin_flags)
{
	memset(&uart, 0, sizeof(uart));
	outb(UART_IER, 0);
	outb(UART_IIR, 0); /* FIFO off */
	outb(UART_MCR, MCR_LOOP);
	inb(UART_LSR);
	inb(UART_DATA);
	inb(UART_MSR);
	inb(UART_IIR);
	ioapic_set(IRQ_UART, pin_flags | VEC_UART);
}

static void uart_done(void)
{
	settle();
	outb(UART_IER, 0);
	ioapic_mask(IRQ_UART);
	uart_init();
}

static bool uart_clean(void)
{
	return !uart.wrong && !uart.spurious && !uart.other;
}

static void uart_report(bool good, u32 count, const char *what)
{
	tap_ok(good && uart_clean(), "%s: %u bytes, %s", mode, count, what);
	if (!good || !uart_clean())
		tap_note("%u interrupts, %u of them with no cause; %u THRE, %u received, %u wrong, "
			 "%u other causes",
			 uart.interrupts, uart.spurious, uart.thre, uart.received, uart.wrong,
			 uart.other);
}

/* Each byte that has left raises one interrupt; so does enabling it while THR is empty. */
static void test_transmit(u32 count)
{
	bool came;

	uart_begin(0);
	outb(UART_IER, IER_THRE);
	came = await(&uart.thre, 1, false);
	for (u32 i = 0; came && i < count; i++) {
		outb(UART_DATA, (u8)i);
		came = await(&uart.thre, i + 2, i % 4 == 3);
	}
	uart_done();
	uart_report(came && uart.thre == count + 1 && uart.interrupts == count + 1, count,
		    "a THRE interrupt each");
}

static void test_receive(u32 count)
{
	bool came = true;

	uart_begin(0);
	outb(UART_IER, IER_DATA);
	for (u32 i = 0; came && i < count; i++) {
		outb(UART_DATA, uart.next++);
		came = await(&uart.received, i + 1, i % 4 == 3);
	}
	uart_done();
	uart_report(came && uart.received == count && uart.interrupts == count, count,
		    "a receive interrupt each");
}

/* The handler sends the next byte: both causes at a time, by a level-triggered pin. */
static void test_echo(u32 count)
{
	bool came = true;
	u32 last = 0;

	uart_begin(IOAPIC_LEVEL);
	uart.to_send = count;
	outb(UART_IER, IER_DATA | IER_THRE);
	for (u32 round = 0; came && uart.received < count; round++) {
		came = await(&uart.received, MIN(count, last + 64), round % 4 == 3);
		last = uart.received;
	}
	uart_done();
	uart_report(came && uart.received == count && uart.thre == count + 1, count,
		    "sent by the handler");
}

/* --- */

static void test_all(u32 count)
{
	if (cpuid(1, 0).ecx & BIT(24))
		test_deadlines(count);
	else
		tap_skip("%s: no TSC deadline", mode);
	test_periodic(count, 100, false);
	test_periodic(count / 10, 1000, true);
	test_transmit(count);
	test_receive(count);
	test_echo(count);
}

void guest_main(void)
{
	u32 count = (u32)opt_u64("count", 2000);

	khz = umbra_present() ? cpuid(UMBRA_CPUID_TIMING, 0).eax : tsc_khz();
	timer_khz = umbra_present() ? cpuid(UMBRA_CPUID_TIMING, 0).ebx : 1000000;
	rng_seed(&rng, opt_u64("seed", 1));
	lapic_enable();
	pic_mask_all();
	trap_set_handler(VEC_TIMER, on_timer);
	trap_set_handler(VEC_UART, on_uart);
	mode = "xAPIC";
	test_all(count);
	if (!lapic_enable_x2apic()) {
		tap_skip("no x2APIC");
		return;
	}
	mode = "x2APIC";
	test_all(count / 4);
}
