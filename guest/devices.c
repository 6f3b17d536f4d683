/*
 * The devices of the virtual platform: 8259s, IOAPIC, UART, CMOS, keyboard controller, PCI. Nothing
 * is printed while the UART is not as the console needs it. (Instruction forms on memory-mapped
 * registers: mmio.c.)
 */
#include "apic.h"
#include "ioapic.h"
#include "irq.h"
#include "mem.h"
#include "umbra.h"

#define COM1	 0x3f8
#define UART_RBR (COM1 + 0)
#define UART_IER (COM1 + 1)
#define UART_IIR (COM1 + 2)
#define UART_LCR (COM1 + 3)
#define UART_MCR (COM1 + 4)
#define UART_LSR (COM1 + 5)
#define UART_MSR (COM1 + 6)
#define UART_SCR (COM1 + 7)

#define IRQ_UART 4
#define VEC_UART 0x64
#define VEC_KBD	 0x65

#define PIC(irq) (0x20u + (irq))

static void settle(void)
{
	irq_enable();
	delay_us(50);
	irq_disable();
}

/* THR is empty: enabling its interrupt raises IRQ 4 at once. */
static void uart_raise(void)
{
	outb(UART_IER, 2);
}

static void uart_drop(void)
{
	outb(UART_IER, 0);
}

/* --- 8259 pair ----------------------------------------------------------------------------------
 */

static u8 pic_irr(u16 port)
{
	outb(port, 0x0a);
	return inb(port);
}

/* PIT channel 0 as a one-shot that raises IRQ 0 a moment later. */
static void pit_raise(void)
{
	pit_start(0, 0, 12);
	for (u32 i = 0; i < 5000 && !(pic_irr(0x20) & 1); i++)
		delay_us(20);
}

static u8 pic_isr(u16 port)
{
	outb(port, 0x0b);
	return inb(port);
}

static u8 seen_isr;

static bool keep_pic(struct frame *f)
{
	irq_logs[0].hits[f->vector & 255]++;
	irq_logs[0].count++;
	seen_isr = pic_isr(0x20);
	return true;
}

static void test_pic_masks(void)
{
	u32 masked, irr, unmasked;

	for (u32 i = 0; i < 256; i += 51) {
		pic_set_mask((u16)(i << 8 | (255 - i)));
		if (inb(0x21) != 255 - i || inb(0xa1) != i)
			tap_ok(false, "8259: mask %u", i);
	}
	tap_ok(true, "8259: masks read back");
	pic_set_mask(0xffff);
	irq_clear();
	uart_raise();
	settle();
	masked = irq_hits(PIC(IRQ_UART));
	irr = pic_irr(0x20);
	pic_set_mask((u16)~BIT(IRQ_UART));
	settle();
	unmasked = irq_hits(PIC(IRQ_UART));
	pic_set_mask(0xffff);
	uart_drop();
	tap_ok(!masked && (irr & BIT(IRQ_UART)), "8259: a masked request waits in IRR (0x%x)", irr);
	tap_is(unmasked, 1, "8259: and comes when it is unmasked, once");
	tap_is(pic_isr(0x20), 0, "8259: ISR is 0 after EOI");
}

static void test_pic_service(void)
{
	u32 first, during, after;

	irq_clear();
	trap_set_handler(PIC(0), keep_pic);
	pic_set_mask((u16) ~(BIT(0) | BIT(IRQ_UART)));
	pit_raise();
	settle();
	first = irq_hits(PIC(0));
	uart_raise();
	settle();
	during = irq_hits(PIC(IRQ_UART));
	outb(0x20, 0x60); /* specific EOI of IR 0 */
	settle();
	after = irq_hits(PIC(IRQ_UART));
	pic_set_mask(0xffff);
	uart_drop();
	irq_record_pic(PIC(0), 0);
	tap_ok(first == 1 && seen_isr == 1, "8259: IRQ 0 in service (ISR 0x%x)", seen_isr);
	tap_is(during, 0, "8259: IRQ 4 waits while IRQ 0 is in service");
	tap_is(after, 1, "8259: and comes after a specific EOI");
}

static void rtc_periodic(bool on)
{
	outb(0x70, 0x0b);
	outb(0x71, on ? 0x42 : 0x02);
	outb(0x70, 0x0c);
	inb(0x71);
}

/* IRQ 0, 8 (by the cascade at 2) and 4 pending at once come in this order. */
static void test_pic_priority(void)
{
	u32 hits;
	u8 order[3], irr_slave;

	irq_clear();
	irq_record_pic(PIC(8), 8);
	pic_set_mask(0xffff);
	uart_raise();
	rtc_periodic(true);
	for (u32 i = 0; i < 5000 && !(pic_irr(0xa0) & 1); i++)
		delay_us(20);
	irr_slave = pic_irr(0xa0);
	pit_raise();
	pic_set_mask((u16) ~(BIT(0) | BIT(2) | BIT(IRQ_UART) | BIT(8)));
	settle();
	hits = irq_logs[0].count;
	memcpy(order, (const void *)(uintptr_t)irq_logs[0].order, 3);
	pic_set_mask(0xffff);
	uart_drop();
	rtc_periodic(false);
	tap_is(irr_slave & 1, 1, "8259: the RTC's request is in the slave's IRR");
	tap_ok(hits == 3 && order[0] == PIC(0) && order[1] == PIC(8) && order[2] == PIC(4),
	       "8259: priorities with the cascade: 0x%x 0x%x 0x%x", order[0], order[1], order[2]);
}

static void test_pic_poll(void)
{
	u8 polled, isr, empty;

	pic_set_mask((u16)~BIT(IRQ_UART));
	uart_raise();
	outb(0x20, 0x0c); /* OCW3: poll */
	polled = inb(0x20);
	isr = pic_isr(0x20);
	outb(0x20, 0x20);
	outb(0x20, 0x0c);
	empty = inb(0x20);
	uart_drop();
	pic_set_mask(0xffff);
	tap_ok((polled & 0x87) == (0x80 | IRQ_UART) && isr == BIT(IRQ_UART),
	       "8259: poll acknowledges (0x%x)", polled);
	tap_is(empty & 0x80, 0, "8259: poll with nothing pending");
}

/* A request that goes before it is acknowledged: nothing, or IRQ 7 without an ISR bit. */
static void test_pic_spurious(void)
{
	u32 own, spurious;
	u8 isr;

	irq_clear();
	trap_set_handler(PIC(7), keep_pic);
	seen_isr = 0;
	pic_set_mask((u16) ~(BIT(IRQ_UART) | BIT(7)));
	uart_raise();
	uart_drop();
	settle();
	own = irq_hits(PIC(IRQ_UART));
	spurious = irq_hits(PIC(7));
	isr = pic_isr(0x20);
	pic_set_mask(0xffff);
	real_ok(own == 0 && spurious <= 1 && seen_isr == 0 && isr == 0,
		"8259: a request that went is no interrupt (%u, %u spurious)", own, spurious);
}

static void test_pic(void)
{
	lapic_write(LAPIC_LVT_LINT0, 0x700);
	irq_record_pic(PIC(0), 0);
	irq_record_pic(PIC(IRQ_UART), IRQ_UART);
	test_pic_masks();
	test_pic_service();
	test_pic_priority();
	test_pic_poll();
	test_pic_spurious();
	irq_clear();
	lapic_write(LAPIC_LVT_LINT0, BIT(16));
	pic_set_mask((u16)~BIT(IRQ_UART));
	uart_raise();
	settle();
	pic_set_mask(0xffff);
	uart_drop();
	tap_is(irq_logs[0].count, 0, "8259: nothing by way of a masked LINT0");
}

/* --- IOAPIC -------------------------------------------------------------------------------------
 */

static void test_ioapic_registers(void)
{
	u32 version = ioapic_read(1), wrong = 0;

	tap_is(version >> 16 & 0xff, IOAPIC_PINS - 1, "IOAPIC: version 0x%x", version);
	ioapic_write(0, 0x05000000);
	tap_is(ioapic_read(0) & 0x0f000000, 0x05000000, "IOAPIC: ID");
	ioapic_write(0, 0);
	for (u32 pin = 0; pin < IOAPIC_PINS; pin++) {
		ioapic_write(0x10 + 2 * pin, IOAPIC_MASKED | (0x30 + pin));
		ioapic_write(0x11 + 2 * pin, pin << 24);
	}
	for (u32 pin = 0; pin < IOAPIC_PINS; pin++) {
		wrong += ioapic_get(pin) != (IOAPIC_MASKED | (0x30 + pin));
		wrong += ioapic_read(0x11 + 2 * pin) != pin << 24;
		ioapic_mask(pin);
	}
	tap_is(wrong, 0, "IOAPIC: all redirection entries read back");
	ioapic_write(0x10 + 2 * 20, ~0u);
	real_is(ioapic_get(20) & ~BIT(12), 0x1afff, "IOAPIC: status bits are read-only");
	ioapic_mask(20);
	real_is(*(volatile u32 *)(uintptr_t)IOAPIC_BASE, 0x10 + 2 * 20, "IOAPIC: IOREGSEL");
}

static u32 level_left, level_entry;
static bool level_tmr;

/* Takes a level-triggered interrupt, removing its cause only the last time. */
static bool take_level(struct frame *f)
{
	irq_logs[0].hits[VEC_UART]++;
	irq_logs[0].count++;
	level_entry = ioapic_get(IRQ_UART);
	level_tmr = lapic_read(LAPIC_TMR + VEC_UART / 32 * 16) >> (VEC_UART & 31) & 1;
	if (--level_left == 0)
		uart_drop();
	lapic_eoi();
	return true;
}

static void test_ioapic_edge(void)
{
	u32 masked, once, again;

	irq_clear();
	ioapic_set(IRQ_UART, IOAPIC_MASKED | VEC_UART);
	uart_raise();
	settle();
	masked = irq_hits(VEC_UART);
	uart_drop();
	ioapic_set(IRQ_UART, VEC_UART);
	uart_raise();
	settle();
	once = irq_hits(VEC_UART);
	uart_drop();
	uart_raise();
	settle();
	again = irq_hits(VEC_UART);
	uart_drop();
	ioapic_mask(IRQ_UART);
	tap_is(masked, 0, "IOAPIC: masked");
	tap_ok(once == 1 && again == 2, "IOAPIC: one interrupt for each edge (%u, %u)", once,
	       again);
}

static void test_ioapic_level(void)
{
	u32 hits, after, unmasked;

	irq_clear();
	trap_set_handler(VEC_UART, take_level);
	level_left = 3;
	ioapic_set(IRQ_UART, IOAPIC_LEVEL | VEC_UART);
	uart_raise();
	settle();
	hits = irq_hits(VEC_UART);
	after = ioapic_get(IRQ_UART);
	tap_is(hits, 3, "IOAPIC: a level interrupt comes again until its cause is gone");
	real_ok(level_entry & IOAPIC_REMOTE_IRR, "IOAPIC: remote IRR is set in service (0x%x)",
		level_entry);
	tap_ok(!(after & IOAPIC_REMOTE_IRR), "IOAPIC: and clear after EOI (0x%x)", after);
	tap_ok(level_tmr, "IOAPIC: TMR says level");
	/* Asserted while masked: comes with unmasking, as it is a level. */
	irq_clear();
	level_left = 1;
	ioapic_set(IRQ_UART, IOAPIC_MASKED | IOAPIC_LEVEL | VEC_UART);
	uart_raise();
	settle();
	hits = irq_hits(VEC_UART);
	ioapic_write(0x10 + 2 * IRQ_UART, IOAPIC_LEVEL | VEC_UART);
	settle();
	unmasked = irq_hits(VEC_UART);
	ioapic_mask(IRQ_UART);
	uart_drop();
	tap_ok(!hits && unmasked == 1, "IOAPIC: a masked level waits (%u, %u)", hits, unmasked);
	irq_record(VEC_UART);
}

/* With EOI broadcasts suppressed, the IOAPIC's own EOI register ends a level interrupt. */
static void test_ioapic_directed_eoi(void)
{
	volatile u32 *eoi = (volatile u32 *)(uintptr_t)(IOAPIC_BASE + 0x40);
	u32 entry, after, hits;

	if (!(lapic_read(LAPIC_VERSION) & BIT(24)) || (ioapic_read(1) & 0xff) < 0x20) {
		tap_skip("no directed EOI");
		return;
	}
	irq_clear();
	lapic_write(LAPIC_SVR, 0x11ff);
	ioapic_set(IRQ_UART, IOAPIC_LEVEL | VEC_UART);
	uart_raise();
	settle();
	entry = ioapic_get(IRQ_UART);
	hits = irq_hits(VEC_UART);
	uart_drop();
	*eoi = VEC_UART;
	after = ioapic_get(IRQ_UART);
	lapic_write(LAPIC_SVR, 0x1ff);
	ioapic_mask(IRQ_UART);
	tap_ok(hits == 1 && (entry & IOAPIC_REMOTE_IRR),
	       "IOAPIC: no broadcast of EOI when suppressed (%u, 0x%x)", hits, entry);
	tap_ok(!(after & IOAPIC_REMOTE_IRR), "IOAPIC: directed EOI");
}

static void test_ioapic_modes(void)
{
	u32 nmi, logical, before;

	irq_clear();
	ioapic_set(IRQ_UART, 0x400);
	uart_raise();
	settle();
	nmi = irq_hits(VEC_NMI);
	uart_drop();
	lapic_write(LAPIC_DFR, ~0u);
	lapic_write(LAPIC_LDR, 0x04000000);
	ioapic_set(IRQ_UART, IOAPIC_MASKED);
	ioapic_write(0x11 + 2 * IRQ_UART, 0x06000000);
	ioapic_write(0x10 + 2 * IRQ_UART, IOAPIC_LOGICAL | 0x100 | VEC_UART);
	uart_raise();
	settle();
	logical = irq_hits(VEC_UART);
	uart_drop();
	before = irq_logs[0].count;
	ioapic_write(0x11 + 2 * IRQ_UART, 0x02000000);
	uart_raise();
	settle();
	uart_drop();
	ioapic_mask(IRQ_UART);
	tap_is(nmi, 1, "IOAPIC: delivery mode NMI");
	tap_is(logical, 1, "IOAPIC: logical destination, lowest priority");
	tap_is(irq_logs[0].count, before, "IOAPIC: a destination that nobody has");
}

static void test_ioapic(void)
{
	irq_record(VEC_UART);
	irq_record_nmi();
	test_ioapic_registers();
	test_ioapic_edge();
	test_ioapic_level();
	test_ioapic_directed_eoi();
	test_ioapic_modes();
}

/* --- UART ---------------------------------------------------------------------------------------
 */

static void test_uart_registers(void)
{
	u32 scratch, divisor, ier, lcr;

	outb(UART_SCR, 0xa5);
	scratch = inb(UART_SCR);
	outb(UART_SCR, 0x5a);
	scratch = scratch << 8 | inb(UART_SCR);
	lcr = inb(UART_LCR);
	outb(UART_LCR, 0x83);
	divisor = inb(UART_RBR) | (u32)inb(UART_IER) << 8;
	outb(UART_RBR, 0x34);
	outb(UART_IER, 0x12);
	scratch = scratch << 16 | inb(UART_RBR) | (u32)inb(UART_IER) << 8;
	outb(UART_RBR, (u8)divisor);
	outb(UART_IER, (u8)(divisor >> 8));
	outb(UART_LCR, 0x03);
	outb(UART_IER, 0xf0);
	ier = inb(UART_IER);
	outb(UART_IER, 0);
	tap_is(scratch, 0xa55a1234, "UART: scratch register and divisor latch");
	tap_is(lcr, 3, "UART: LCR");
	tap_is(ier, 0, "UART: IER has four bits");
}

/* Loopback: what is sent is received; modem outputs come back as inputs. */
static void test_uart_loopback(void)
{
	static const u8 outputs[] = {0, 1, 2, 4, 8, 15},
			inputs[] = {0, 0x20, 0x10, 0x40, 0x80, 0xf0};
	u32 wrong = 0, modem = 0, lsr_empty, lsr_full, lsr_over, count = 0;

	outb(UART_MCR, 0x10);
	outb(UART_IIR, 0x07);
	lsr_empty = inb(UART_LSR);
	for (u32 i = 0; i < 16; i++)
		outb(UART_RBR, (u8)(0x41 + i));
	lsr_full = inb(UART_LSR);
	for (u32 i = 0; i < 16; i++, count++) {
		if (!(inb(UART_LSR) & 1))
			break;
		wrong += inb(UART_RBR) != 0x41 + i;
	}
	for (u32 i = 0; i < 17; i++)
		outb(UART_RBR, (u8)i);
	lsr_over = inb(UART_LSR) | (u32)inb(UART_LSR) << 8;
	outb(UART_IIR, 0x07);
	for (u32 i = 0; i < sizeof(outputs); i++) {
		outb(UART_MCR, 0x10 | outputs[i]);
		modem += (inb(UART_MSR) & 0xf0) != inputs[i];
	}
	uart_init();
	tap_is(lsr_empty & 0x61, 0x60, "UART: empty at first");
	real_ok((lsr_full & 3) == 1 && count == 16 && !wrong,
		"UART: loopback of 16 bytes (%u, %u wrong)", count, wrong);
	real_ok((lsr_over & 2) && !(lsr_over & 0x200), "UART: overrun is reported once (0x%x)",
		lsr_over);
	tap_is(modem, 0, "UART: loopback of the modem lines");
}

static void test_uart_iir(void)
{
	u32 none, thre, gone, fifo, data, line, after;

	none = inb(UART_IIR);
	outb(UART_IER, 2);
	thre = inb(UART_IIR);
	gone = inb(UART_IIR);
	outb(UART_IER, 0);
	outb(UART_IIR, 0x07);
	fifo = inb(UART_IIR);
	outb(UART_MCR, 0x10);
	outb(UART_IER, 7);
	outb(UART_RBR, 'x');
	data = inb(UART_IIR);
	for (u32 i = 0; i < 17; i++)
		outb(UART_RBR, 'y');
	line = inb(UART_IIR);
	inb(UART_LSR);
	after = inb(UART_IIR);
	uart_init();
	tap_is(none & 0x0f, 1, "UART: IIR with nothing pending");
	tap_is(thre & 0x0f, 2, "UART: IIR says THR empty");
	tap_is(gone & 0x0f, 1, "UART: which reading IIR ends");
	tap_is(fifo & 0xc0, 0xc0, "UART: IIR says that the FIFOs are on");
	real_ok((data & 0x0f) == 4 || (data & 0x0f) == 0x0c, "UART: received data (IIR 0x%x)",
		data);
	real_is(line & 0x0f, 6, "UART: line status comes first");
	real_is(after & 0x0f, 4, "UART: then data, before THR empty");
}

static void test_uart(void)
{
	test_uart_registers();
	test_uart_loopback();
	test_uart_iir();
}

/* --- CMOS, keyboard controller, ports -----------------------------------------------------------
 */

static u8 cmos(u8 reg)
{
	outb(0x70, reg);
	return inb(0x71);
}

static u32 cmos16(u8 reg)
{
	return cmos(reg) | (u32)cmos((u8)(reg + 1)) << 8;
}

static void test_cmos(void)
{
	u64 top = 0, below_4g, high = 0, extended;
	u8 seconds;

	for (u32 i = 0; i < boot.range_count; i++) {
		const struct mem_range *m = &boot.range[i];

		if (m->type == MEM_USABLE && m->base < 4 * SIZE_1G)
			top = MAX(top, m->base + m->bytes);
		else if (m->type == MEM_USABLE)
			high += m->bytes;
	}
	/* Firmware keeps some for itself at the top: QEMU. */
	below_4g = (u64)cmos16(0x34) * 65536 + (16 << 20);
	extended = (u64)cmos16(0x30) * 1024 + (1 << 20);
	tap_is(cmos16(0x15), 640, "CMOS: base memory");
	real_is(below_4g, MAX(top, 16ull << 20), "CMOS: memory above 16 MiB is the map's");
	tap_is(extended, MIN(below_4g, (1ull << 20) + 0xffff * 1024ull),
	       "CMOS: extended memory agrees");
	tap_is(((u64)cmos16(0x5b) | (u64)cmos(0x5d) << 16) * 65536, high,
	       "CMOS: memory above 4 GiB is the map's");
	tap_is(cmos(0x0d) & 0x80, 0x80, "RTC: the battery is good");
	seconds = cmos(0x00);
	tap_ok((seconds & 0x0f) <= 9 && seconds >> 4 <= 5, "RTC: seconds are BCD (0x%x)", seconds);
	tap_ok(cmos(0x32) >= 0x20 && cmos(0x08) >= 1 && cmos(0x08) <= 0x12 && cmos(0x07) >= 1 &&
		       cmos(0x07) <= 0x31,
	       "RTC: date 0x%02x%02x-%02x-%02x", cmos(0x32), cmos(0x09), cmos(0x08), cmos(0x07));
	outb(0x70, 0x40);
	outb(0x71, 0x5a);
	tap_is(cmos(0x40), 0x5a, "CMOS: RAM");
}

static u8 kbd_wait(void)
{
	for (u32 i = 0; i < 1000 && !(inb(0x64) & 1); i++)
		cpu_pause();
	return inb(0x60);
}

static void kbd_command(u8 command)
{
	for (u32 i = 0; i < 1000 && (inb(0x64) & 2); i++)
		cpu_pause();
	outb(0x64, command);
}

static void test_i8042(void)
{
	u8 mode, back, out;
	u32 hits;

	for (u32 i = 0; i < 16 && (inb(0x64) & 1); i++)
		inb(0x60);
	kbd_command(0xaa);
	tap_is(kbd_wait(), 0x55, "i8042: self-test");
	kbd_command(0xab);
	tap_is(kbd_wait(), 0x00, "i8042: interface test");
	kbd_command(0x20);
	mode = kbd_wait();
	kbd_command(0x60);
	outb(0x60, (u8)(mode | 0x01));
	kbd_command(0x20);
	back = kbd_wait();
	tap_is(back, mode | 1u, "i8042: command byte");
	irq_clear();
	irq_record(VEC_KBD);
	ioapic_set(1, VEC_KBD);
	kbd_command(0xd2);
	outb(0x60, 0x1c);
	settle();
	hits = irq_hits(VEC_KBD);
	tap_ok(hits == 1 && kbd_wait() == 0x1c, "i8042: output buffer and IRQ 1 (%u)", hits);
	ioapic_mask(1);
	kbd_command(0x60);
	outb(0x60, mode);
	kbd_command(0xd0);
	out = kbd_wait();
	tap_is(out & 3, 3, "i8042: output port: A20 on, no reset");
	outb(0x92, 0x02);
	tap_is(inb(0x92) & 3, 2, "port 0x92: A20 on");
	tap_is(*(volatile u8 *)(uintptr_t)0x108000 == *(volatile u8 *)(uintptr_t)0x8000 &&
		       (*(volatile u8 *)(uintptr_t)0x8000 ^= 0xff,
			*(volatile u8 *)(uintptr_t)0x108000 == *(volatile u8 *)(uintptr_t)0x8000),
	       0, "addresses 1 MiB apart are different");
}

static void test_pci(void)
{
	u32 present = 0, bridge;

	outl(0xcf8, 0x80000000);
	tap_is(inl(0xcf8), 0x80000000, "PCI: CONFIG_ADDRESS reads back");
	bridge = inl(0xcfc);
	tap_ok(bridge != 0xffffffff && inw(0xcfc) == (u16)bridge && inw(0xcfe) == bridge >> 16 &&
		       inb(0xcfd) == (u8)(bridge >> 8),
	       "PCI: the host bridge is 0x%x in all sizes", bridge);
	outl(0xcf8, 0x80000008);
	tap_is(inl(0xcfc) >> 16, 0x0600, "PCI: class of a host bridge");
	if (!umbra_present()) {
		tap_skip("PCI has nothing else on Umbra only");
		return;
	}
	for (u32 bus = 0; bus < 256; bus += 15) {
		for (u32 device = 0; device < 32; device++) {
			outl(0xcf8, 0x80000000 | bus << 16 | device << 11);
			present += inl(0xcfc) != 0xffffffff;
		}
	}
	tap_is(present, 1, "PCI: nobody else answers");
	outl(0xcf8, 0x80000000);
	outl(0xcfc, 0);
	tap_is(inl(0xcfc), bridge, "PCI: the bridge cannot be written");
	outl(0xcf8, 0);
	tap_is(inl(0xcfc), 0xffffffff, "PCI: nobody answers with the enable bit clear");
	outb(0xcf8, 0x12);
	outw(0xcfa, 0x8000);
	tap_is(inl(0xcf8), 0, "PCI: CONFIG_ADDRESS takes double words only");
}

static void test_ports(void)
{
	u64 start = rdtsc();

	for (u32 i = 0; i < 100; i++) {
		outb(0x80, (u8)i);
		inb(0x80);
		outb(0xed, (u8)i);
	}
	tap_ok(rdtsc() > start, "ports 0x80 and 0xed may be written");
}

/* --- CPL 3 --------------------------------------------------------------------------------------
 */

/* From CPL 3, where the page tables allow it. */
static u64 __user user_load(u64 address)
{
	return *(volatile u32 *)(uintptr_t)address;
}

static void test_user_access(void)
{
	struct trap t;
	u64 value = 0;

	*pt_split(LAPIC_BASE, 1) |= PTE_U;
	invlpg(LAPIC_BASE);
	tap_ok(!user_run(&t, user_load, LAPIC_BASE + LAPIC_VERSION, &value) &&
		       value == lapic_read(LAPIC_VERSION),
	       "MMIO: from CPL 3 where the tables allow it");
	*pt_split(LAPIC_BASE, 1) &= ~PTE_U;
	invlpg(LAPIC_BASE);
	tap_ok(user_run(&t, user_load, LAPIC_BASE + LAPIC_VERSION, &value) && t.vector == VEC_PF &&
		       t.error == (PF_P | PF_U) && t.cr2 == LAPIC_BASE + LAPIC_VERSION,
	       "MMIO: #PF where they do not");
}

void guest_main(void)
{
	lapic_enable();
	test_pic();
	test_ioapic();
	test_uart();
	test_cmos();
	test_i8042();
	test_pci();
	test_ports();
	test_user_access();
}
