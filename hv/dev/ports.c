/*
 * I/O ports: the complete policy. Every port that a PC's software may touch is listed; what is not
 * listed is refused (all ones, ignored) and logged once per VM.
 */
#include <umbra/hypercall.h>

#include "dev/exit_port.h"
#include "dev/platform.h"
#include "vm/console.h"
#include "vm/platform.h"
#include "x86/tsc.h"

enum port_class {
	PORT_UNKNOWN,	/* refused and logged */
	PORT_ABSENT,	/* a PC has something there and we do not: all ones, ignored, not logged */
	PORT_EXIT,	/* any width */
	PORT_HYPERCALL, /* 4 bytes, in */
	PORT_PCI,	/* any width */
	PORT_PCI_RESET, /* 0xcf9 as a byte; otherwise PORT_PCI; from here on: byte-wide devices */
	PORT_PIC,
	PORT_PIT,
	PORT_PIT_GATE,
	PORT_I8042,
	PORT_RTC_INDEX,
	PORT_RTC_DATA,
	PORT_UART,
	PORT_PM, /* any width */
};

#define PORTS_LISTED 0x1000

static const u8 port_class[PORTS_LISTED] = {
	[0x000 ... 0x01f] = PORT_ABSENT, /* DMA controller 1 */
	[0x020 ... 0x021] = PORT_PIC,
	[0x02e ... 0x02f] = PORT_ABSENT, /* super I/O */
	[0x040 ... 0x043] = PORT_PIT,
	[0x04e ... 0x04f] = PORT_ABSENT, /* super I/O */
	[0x060] = PORT_I8042,
	[0x061] = PORT_PIT_GATE,
	[0x064] = PORT_I8042,
	[0x070] = PORT_RTC_INDEX,
	[0x071] = PORT_RTC_DATA,
	[0x072 ... 0x077] = PORT_ABSENT, /* extended CMOS */
	[0x080 ... 0x08f] = PORT_ABSENT, /* delay port, DMA pages */
	[0x092] = PORT_I8042,
	[0x0a0 ... 0x0a1] = PORT_PIC,
	[0x0b2 ... 0x0b3] = PORT_ABSENT, /* APM */
	[0x0c0 ... 0x0df] = PORT_ABSENT, /* DMA controller 2 */
	[0x0e9] = PORT_ABSENT,		 /* Bochs' debug console */
	[0x0ed] = PORT_ABSENT,		 /* delay port */
	[0x0f0 ... 0x0f1] = PORT_ABSENT, /* FPU error latch */
	[EXIT_PORT] = PORT_EXIT,
	[EXIT_PORT + 1 ... 0x0f7] = PORT_ABSENT,
	[0x170 ... 0x177] = PORT_ABSENT, /* IDE */
	[0x1f0 ... 0x1f7] = PORT_ABSENT, /* IDE */
	[0x200 ... 0x207] = PORT_ABSENT, /* game port */
	[0x220 ... 0x22f] = PORT_ABSENT, /* sound */
	[0x278 ... 0x27f] = PORT_ABSENT, /* LPT */
	[0x2e8 ... 0x2ef] = PORT_ABSENT, /* COM4 */
	[0x2f8 ... 0x2ff] = PORT_ABSENT, /* COM2 */
	[0x376 ... 0x377] = PORT_ABSENT, /* IDE */
	[0x378 ... 0x37f] = PORT_ABSENT, /* LPT */
	[0x388 ... 0x38b] = PORT_ABSENT, /* sound */
	[0x3b0 ... 0x3df] = PORT_ABSENT, /* MDA, LPT, VGA */
	[0x3e8 ... 0x3ef] = PORT_ABSENT, /* COM3 */
	[0x3f0 ... 0x3f7] = PORT_ABSENT, /* floppy, IDE */
	[0x3f8 ... 0x3ff] = PORT_UART,
	[0x402] = PORT_ABSENT, /* firmware debug console of QEMU */
	[0x4d0 ... 0x4d1] = PORT_PIC,
	[0x510 ... 0x51b] = PORT_ABSENT, /* QEMU's fw_cfg */
	[ACPI_PM_BASE... ACPI_PM_BASE + ACPI_PM_BYTES - 1] = PORT_PM,
	[UMBRA_PORT... UMBRA_PORT + 3] = PORT_HYPERCALL,
	[0x778 ... 0x77a] = PORT_ABSENT, /* LPT, ECP */
	[0xa79] = PORT_ABSENT,		 /* ISA plug and play */
	[0xcf8] = PORT_PCI,
	[0xcf9] = PORT_PCI_RESET,
	[0xcfa ... 0xcff] = PORT_PCI,
};

static enum port_class class_of(u16 port)
{
	return port < PORTS_LISTED ? (enum port_class)port_class[port] : PORT_UNKNOWN;
}

static u32 all_ones(unsigned int size)
{
	return size == 4 ? ~0u : BIT(size * 8) - 1;
}

static void refuse(struct vcpu *vcpu, u16 port)
{
	vcpu->refusals++;
	vm_log_refusal(vcpu, "port", port);
}

/* What has to be done once the lock is gone. */
struct after {
	bool any;
	bool reset;
	bool off;
	bool deadline; /* the devices' deadline may have changed */
};

/* --- byte-wide devices, under the lock -------------------------------------------------------- */

static u8 clock_in(struct platform *p, u16 port, struct after *after)
{
	u64 now = platform_now(p);
	u8 v;

	switch (class_of(port)) {
	case PORT_PIT:
		return pit_read(&p->pit, port & 3, platform_pit_clock(p, now));
	case PORT_PIT_GATE:
		return pit_read_61(&p->pit, platform_pit_clock(p, now));
	default:
		v = rtc_read(&p->rtc, platform_rtc_clock(p, now));
		if ((p->rtc.index & 0x7f) == 0x0c) { /* reading the flags ends the interrupt */
			platform_update_clocks(p, now);
			after->any = after->deadline = true;
		}
		return v;
	}
}

/* Any width: the timer and 16-bit registers are read as a whole. */
static u32 pm_in(struct platform *p, u16 port, unsigned int size)
{
	u64 clock = platform_pm_clock(p, platform_now(p));

	return acpi_pm_read(&p->pm, port - ACPI_PM_BASE, size, clock);
}

static void pm_out(struct platform *p, u16 port, unsigned int size, u32 value, struct after *after)
{
	u64 now = platform_now(p);

	after->off =
		acpi_pm_write(&p->pm, port - ACPI_PM_BASE, size, value, platform_pm_clock(p, now));
	platform_update_clocks(p, now);
	after->any = after->deadline = true;
}

static u8 uart_in(struct platform *p, u16 port)
{
	u8 v = vuart_read(&p->uart, port & 7);

	if ((port & 7) == 0)
		platform_pump_uart(p); /* room for more */
	else
		platform_update_uart(p);
	return v;
}

static u8 pic_in(struct platform *p, u16 port)
{
	bool poll = port < 0x4d0 && p->pic.chip[port >> 7 & 1].poll;
	u8 v = pic_read(&p->pic, port);

	if (poll) /* which acknowledges */
		platform_update_intr(p);
	return v;
}

static u8 byte_in(struct platform *p, enum port_class class, u16 port, struct after *after)
{
	u8 v;

	switch (class) {
	case PORT_UART:
		return uart_in(p, port);
	case PORT_PIC:
		return pic_in(p, port);
	case PORT_PIT:
	case PORT_PIT_GATE:
	case PORT_RTC_DATA:
		return clock_in(p, port, after);
	case PORT_PM:
		return (u8)pm_in(p, port, 1);
	case PORT_I8042:
	case PORT_PCI_RESET:
		v = i8042_read(&p->i8042, port);
		platform_set_line(p, IRQ_KEYBOARD, i8042_irq(&p->i8042));
		return v;
	default: /* the RTC's index is write-only */
		return 0xff;
	}
}

static void clock_out(struct platform *p, u16 port, u8 v, struct after *after)
{
	u64 now = platform_now(p), pit_now = platform_pit_clock(p, now);

	switch (class_of(port)) {
	case PORT_PIT:
		pit_write(&p->pit, port & 3, v, pit_now);
		if (!pit_out(&p->pit, 0, pit_now))
			platform_set_line(p, IRQ_PIT, false);
		break;
	case PORT_PIT_GATE:
		pit_write_61(&p->pit, v, pit_now);
		return;
	default:
		rtc_write(&p->rtc, v, platform_rtc_clock(p, now));
		break;
	}
	platform_update_clocks(p, now);
	after->any = after->deadline = true;
}

static void byte_out(struct platform *p, enum port_class class, u16 port, u8 v, struct after *after)
{
	switch (class) {
	case PORT_PIC:
		pic_write(&p->pic, port, v);
		platform_update_intr(p);
		break;
	case PORT_PIT:
	case PORT_PIT_GATE:
	case PORT_RTC_DATA:
		clock_out(p, port, v, after);
		break;
	case PORT_PM:
		pm_out(p, port, 1, v, after);
		break;
	case PORT_RTC_INDEX:
		rtc_select(&p->rtc, v);
		break;
	case PORT_I8042:
	case PORT_PCI_RESET:
		after->any = after->reset = i8042_write(&p->i8042, port, v);
		platform_set_line(p, IRQ_KEYBOARD, i8042_irq(&p->i8042));
		break;
	default:
		break;
	}
}

/* --- one access ------------------------------------------------------------------------------- */

static void finish(struct vcpu *vcpu, const struct after *after)
{
	if (after->deadline)
		platform_deadline_changed(vcpu);
	if (after->reset)
		vm_restart(vcpu->vm, "the guest reset its machine");
	if (after->off)
		vm_end(vcpu->vm, 0, "powered off");
}

static bool is_pci(enum port_class class, unsigned int size)
{
	return class == PORT_PCI || (class == PORT_PCI_RESET && size != 1);
}

/* Whether the access goes to a device at all, as bytes; refusals are noted. */
static bool reaches_device(struct vcpu *vcpu, u16 port, unsigned int size)
{
	bool device = false, known = false;

	for (unsigned int i = 0; i < size; i++) {
		enum port_class class = class_of((u16)(port + i));

		device |= class >= PORT_PCI_RESET;
		known |= class != PORT_UNKNOWN;
	}
	if (!known)
		refuse(vcpu, port);
	return device;
}

/* Apart from the others: what a guest prints goes this way. */
static __noinline void uart_out(struct vm *vm, u16 port, u8 v)
{
	struct platform *p = vm->platform;
	int byte;

	spin_lock(&vm->dev_lock);
	byte = vuart_write(&p->uart, port & 7, v);
	if (p->uart.ier || p->uart_line)
		platform_update_uart(p);
	spin_unlock(&vm->dev_lock);
	if (byte >= 0)
		console_put(vm, (u8)byte);
}

/* Accesses that are not one byte of one device. */
static __noinline u32 slow_in(struct vcpu *vcpu, u16 port, unsigned int size)
{
	enum port_class class = class_of(port);
	u32 value = 0;

	if (is_pci(class, size)) {
		spin_lock(&vcpu->vm->dev_lock);
		value = pci_read(&vcpu->vm->platform->pci, port, size);
		spin_unlock(&vcpu->vm->dev_lock);
		return value;
	}
	if (class == PORT_PM) {
		spin_lock(&vcpu->vm->dev_lock);
		value = pm_in(vcpu->vm->platform, port, size);
		spin_unlock(&vcpu->vm->dev_lock);
		return value;
	}
	if (class == PORT_EXIT)
		return 0;
	if (port == UMBRA_PORT && size == 4)
		return hypercall_by_port(vcpu);
	if (!reaches_device(vcpu, port, size))
		return all_ones(size);
	for (unsigned int i = 0; i < size; i++) {
		u16 at = (u16)(port + i);
		bool device = class_of(at) >= PORT_PCI_RESET;

		value |= (device ? platform_port_in(vcpu, at, 1) : 0xff) << (i * 8);
	}
	return value;
}

static __noinline void slow_out(struct vcpu *vcpu, u16 port, unsigned int size, u32 value)
{
	enum port_class class = class_of(port);

	value &= all_ones(size);
	if (is_pci(class, size)) {
		spin_lock(&vcpu->vm->dev_lock);
		pci_write(&vcpu->vm->platform->pci, port, size, value);
		spin_unlock(&vcpu->vm->dev_lock);
		return;
	}
	if (class == PORT_PM) {
		struct after after = {0};

		spin_lock(&vcpu->vm->dev_lock);
		pm_out(vcpu->vm->platform, port, size, value, &after);
		spin_unlock(&vcpu->vm->dev_lock);
		finish(vcpu, &after);
		return;
	}
	if (class == PORT_EXIT) {
		vm_end(vcpu->vm, exit_port_status(value), "(exit port: %#x)", value);
		return;
	}
	if (!reaches_device(vcpu, port, size))
		return;
	for (unsigned int i = 0; i < size; i++)
		if (class_of((u16)(port + i)) >= PORT_PCI_RESET)
			platform_port_out(vcpu, (u16)(port + i), 1, (u8)(value >> (i * 8)));
}

static __noinline void device_out(struct vcpu *vcpu, enum port_class class, u16 port, u8 v)
{
	struct after after = {0};

	spin_lock(&vcpu->vm->dev_lock);
	byte_out(vcpu->vm->platform, class, port, v, &after);
	spin_unlock(&vcpu->vm->dev_lock);
	if (after.any)
		finish(vcpu, &after);
}

/* One byte of a byte-wide device is the usual access. */
static bool is_simple(enum port_class class, unsigned int size)
{
	return class >= PORT_PCI_RESET && size == 1;
}

u32 platform_port_in(struct vcpu *vcpu, u16 port, unsigned int size)
{
	enum port_class class = class_of(port);
	struct after after = {0};
	u8 v;

	if (unlikely(!is_simple(class, size)))
		return slow_in(vcpu, port, size);
	spin_lock(&vcpu->vm->dev_lock);
	v = byte_in(vcpu->vm->platform, class, port, &after);
	spin_unlock(&vcpu->vm->dev_lock);
	if (unlikely(after.any))
		finish(vcpu, &after);
	return v;
}

void platform_port_out(struct vcpu *vcpu, u16 port, unsigned int size, u32 value)
{
	enum port_class class = class_of(port);

	if (unlikely(!is_simple(class, size)))
		slow_out(vcpu, port, size, value);
	else if (likely(class == PORT_UART))
		uart_out(vcpu->vm, port, (u8)value);
	else
		device_out(vcpu, class, port, (u8)value);
}
