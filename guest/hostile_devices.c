/*
 * Random accesses to the registers of every device: of each width, aligned or not, with values that
 * find the edges. Interrupts are off meanwhile, but what the devices raise is raised. Afterwards
 * each must work as ever. Options: seed=N, rounds=N (per kind), only=KIND.
 *
 * Left out are what ends or resets the machine, and bytes that would leave the UART.
 */
#include "apic.h"
#include "ioapic.h"
#include "irq.h"
#include "umbra.h"

#define VEC_TIMER 0x70
#define VEC_PIT	  0x71

#define UART_DATA 0x3f8
#define UART_IER  0x3f9
#define UART_IIR  0x3fa
#define UART_MCR  0x3fc
#define MCR_LOOP  0x10

#define VIRTIO_BASE  0xd0000000ull
#define VIRTIO_BYTES 0x8000

#define PM_TIMER    0x608
#define PM1_CNT_TOP 0x605
#define SLP_EN	    0x20
#define PM_HZ	    3579545ull

#define RTC_A 0x0a
#define RTC_B 0x0b

static struct rng rng;

static u32 value(void)
{
	static const u32 edges[] = {0,	    1,	    0x7f,   0x80,	0xff,
				    0x7fff, 0x8000, 0xffff, 0x80000000, ~0u};

	switch (rng_below(&rng, 3)) {
	case 0:
		return edges[rng_below(&rng, ARRAY_SIZE(edges))];
	case 1:
		return 1u << rng_below(&rng, 32);
	default:
		return (u32)rng_next(&rng);
	}
}

/* --- ports -------------------------------------------------------------------------------------
 */

/* One IN or OUT of 1, 2 or 4 bytes. */
static void access_port(u16 port, u32 v)
{
	switch (rng_below(&rng, 10)) {
	case 0:
	case 1:
	case 2:
		inb(port);
		break;
	case 3:
		inw(port);
		break;
	case 4:
		inl(port);
		break;
	case 5:
		outw(port, (u16)v);
		break;
	case 6:
		outl(port, v);
		break;
	default:
		outb(port, (u8)v);
	}
}

static void round_pic(void)
{
	static const u16 ports[] = {0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1};

	access_port(ports[rng_below(&rng, ARRAY_SIZE(ports))], value());
}

/* Byte 3 of a wide access to 0x61 is a command of the keyboard controller: not its reset. */
static void round_pit(void)
{
	if (rng_below(&rng, 8))
		access_port((u16)(0x40 + rng_below(&rng, 4)), value());
	else
		access_port(0x61, value() & 0xffffff);
}

static void round_rtc(void)
{
	access_port(rng_below(&rng, 2) ? 0x70 : 0x71, value());
}

/* In loopback whatever the value, wherever in it MCR is. */
static void round_uart(void)
{
	access_port((u16)(UART_DATA + rng_below(&rng, 8)), value() | 0x10101010);
	outb(UART_MCR, (u8)(value() | MCR_LOOP));
}

/* PM1_CNT.SLP_EN ends the machine. */
static void round_acpi(void)
{
	u16 port = (u16)(0x600 + rng_below(&rng, 12));
	u32 v = value();

	for (unsigned int i = 0; i < 4; i++)
		if (port + i == PM1_CNT_TOP)
			v &= ~((u32)SLP_EN << 8 * i);
	access_port(port, v);
}

static void round_pci(void)
{
	u16 port = (u16)(0xcf8 + rng_below(&rng, 8));

	/* Not the reset control register, 0xcf9. */
	if (port == 0xcf8 || port == 0xcf9)
		outl(0xcf8, value());
	else
		access_port(port, value());
}

/* --- memory ------------------------------------------------------------------------------------
 */

static void access_memory(u64 at, u32 v)
{
	switch (rng_below(&rng, 8)) {
	case 0:
		(void)*(volatile u8 *)at;
		break;
	case 1:
		(void)*(volatile u16 *)at;
		break;
	case 2:
		(void)*(volatile u32 *)at;
		break;
	case 3:
		(void)*(volatile u64 *)at;
		break;
	case 4:
		*(volatile u8 *)at = (u8)v;
		break;
	case 5:
		*(volatile u16 *)at = (u16)v;
		break;
	case 6:
		*(volatile u64 *)at = (u64)v << 32 | v;
		break;
	default:
		*(volatile u32 *)at = v;
	}
}

/* No pin delivers INIT (mode 5), which would start the machine again, or an exception's vector. */
static void round_ioapic(void)
{
	u32 v = value(), index = (u32)rng_below(&rng, 0x48);

	if ((v >> 8 & 7) == 5)
		v &= ~BIT(8);
	if ((v & 0xe0) == 0)
		v |= 0x20;
	if (rng_below(&rng, 4)) {
		ioapic_write(index, v);
		return;
	}
	*(volatile u32 *)IOAPIC_BASE = index;
	/* Wide and odd accesses; one to the data window could make a mode of half a value. */
	access_memory(IOAPIC_BASE + rng_below(&rng, 0x10), v);
	access_memory(IOAPIC_BASE + 0x20 + rng_below(&rng, 0xfd0), v);
}

static void round_virtio(void)
{
	access_memory(VIRTIO_BASE + rng_below(&rng, VIRTIO_BYTES - 8), value());
}

/* --- does everything work? ---------------------------------------------------------------------
 */

static void quiet_everything(void)
{
	for (u32 pin = 0; pin < IOAPIC_PINS; pin++)
		ioapic_mask(pin);
	pic_mask_all();
	outb(0x61, 0);
	outb(0x70, RTC_B);
	outb(0x71, 0x02);
	outb(0x70, RTC_A);
	outb(0x71, 0x26);
	outb(0x70, 0x0c);
	inb(0x71);
	uart_init();
	lapic_enable();
	irq_enable();
	delay_us(100);
	irq_disable();
}

static bool timer_works(void)
{
	irq_clear();
	lapic_write(LAPIC_LVT_TIMER, VEC_TIMER);
	lapic_write(LAPIC_TIMER_DCR, 0xb);
	lapic_write(LAPIC_TIMER_ICR, 10000);
	irq_enable();
	delay_us(2000);
	irq_disable();
	return irq_hits(VEC_TIMER) == 1;
}

/* Channel 0 as IRQ 0, through the IOAPIC. */
static bool pit_works(void)
{
	/* First, since whatever it was doing may raise the line at any time. */
	pit_start(0, 0, 1193);
	irq_clear();
	ioapic_set(2, VEC_PIT);
	irq_enable();
	delay_us(3000);
	irq_disable();
	ioapic_mask(2);
	return irq_hits(VEC_PIT) == 1;
}

static bool uart_works(void)
{
	bool good = true;

	outb(UART_IIR, 0x07);
	outb(UART_MCR, MCR_LOOP);
	for (u32 i = 0; i < 8; i++)
		outb(UART_DATA, (u8)(0x5a + i));
	for (u32 i = 0; i < 8; i++)
		good &= inb(UART_DATA) == 0x5a + i;
	good &= !(inb(0x3fd) & 1);
	uart_init();
	return good;
}

static u8 rtc_second(void)
{
	outb(0x70, RTC_A);
	for (u32 i = 0; i < 100000 && (inb(0x71) & 0x80); i++)
		cpu_pause();
	outb(0x70, 0);
	return inb(0x71);
}

/* A second goes by in a second. */
static bool rtc_works(void)
{
	u8 first;

	outb(0x70, 0);
	outb(0x71, 0x10);
	first = rtc_second();
	delay_us(1100000);
	return first == 0x10 && (rtc_second() == 0x11 || rtc_second() == 0x12);
}

/* It counts on through everything, at its rate to 2 %. */
static bool pm_timer_works(void)
{
	u32 start = inl(PM_TIMER), ticks;

	delay_us(10000);
	ticks = inl(PM_TIMER) - start;
	return ticks > PM_HZ / 100 * 98 / 100 && ticks < PM_HZ / 100 * 102 / 100 + 200;
}

/* --- */

static void round_any(void);

static const struct {
	const char *name;
	void (*fn)(void);
} kinds[] = {
	{"8259", round_pic},	    {"8254", round_pit},      {"RTC", round_rtc},
	{"UART", round_uart},	    {"ACPI", round_acpi},     {"PCI", round_pci},
	{"I/O APIC", round_ioapic}, {"virtio", round_virtio}, {"all", round_any},
};

static void round_any(void)
{
	kinds[rng_below(&rng, ARRAY_SIZE(kinds) - 1)].fn();
}

static void run_kind(u32 i, u64 seed, u64 rounds)
{
	bool timer, pit, uart, rtc, pm;

	rng_seed(&rng, seed * 1000 + i);
	for (u64 n = 0; n < rounds; n++)
		kinds[i].fn();
	quiet_everything();
	timer = timer_works();
	pit = pit_works();
	uart = uart_works();
	rtc = i + 1 < ARRAY_SIZE(kinds) || rtc_works();
	pm = pm_timer_works();
	tap_ok(timer && pit && uart && rtc && pm, "%s: %lu rounds, and all devices work",
	       kinds[i].name, rounds);
	if (!(timer && pit && uart && rtc && pm))
		tap_note("APIC timer %d, 8254 %d, UART %d, RTC %d, PM timer %d", timer, pit, uart,
			 rtc, pm);
}

void guest_main(void)
{
	u64 seed = opt_u64("seed", 1), rounds = opt_u64("rounds", 2000);
	char name[16];

	if (!umbra_present() && !opt_flag("force")) {
		tap_skip("only Umbra has to stand this");
		return;
	}
	tap_note("seed=%lu rounds=%lu", seed, rounds);
	tsc_khz(); /* measured while the 8254 is as it should be */
	for (u32 v = 0x20; v < 256; v++)
		irq_record(v);
	irq_record_nmi();
	quiet_everything();
	for (u32 i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (!opt_str("only", name, sizeof(name)) || !strcmp(name, kinds[i].name))
			run_kind(i, seed, rounds);
	}
}
