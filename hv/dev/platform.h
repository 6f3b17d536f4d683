/*
 * The virtual platform of one VM: its devices in one object, and what platform.c and ports.c share.
 * What vm/ asks of it is in vm/platform.h.
 *
 * Locking: vm->dev_lock guards everything here but the local APICs, which belong to their vCPU's
 * CPU (other CPUs read their routing registers and post vectors). Members marked "atomic" are
 * written under the lock and read without it. The clock of the devices is the host's TSC since
 * creation.
 */
#pragma once

#include "dev/acpi_pm.h"
#include "dev/i8042.h"
#include "dev/ioapic.h"
#include "dev/lapic.h"
#include "dev/pci.h"
#include "dev/pic.h"
#include "dev/pit.h"
#include "dev/rtc.h"
#include "dev/uart.h"
#include "dev/virtio.h"
#include "vm/vm.h"

/* region->device numbers. */
enum {
	PLATFORM_LAPIC,
	PLATFORM_IOAPIC,
	PLATFORM_VIRTIO
};

/* ISA interrupts; IRQ n is input n of the 8259s and pin n of the IOAPIC, but IRQ 0 is pin 2. */
enum {
	IRQ_PIT = 0,
	IRQ_KEYBOARD = 1,
	IRQ_COM1 = 4,
	IRQ_RTC = 8
};

#define PLATFORM_INTR BIT(8)

struct platform {
	struct vm *vm;
	u64 epoch;	 /* host TSC of power-on */
	u64 last;	 /* newest time the devices have seen; TSCs of CPUs may differ a little */
	u64 deadline;	 /* atomic: host TSC at which PIT, RTC or PM timer want to be run */
	u64 earliest;	 /* host TSC before which the PIT may not interrupt again */
	u32 intr;	 /* atomic: PLATFORM_INTR | vector while the 8259s drive INTR, else 0 */
	u32 lowest_next; /* where the next lowest-priority arbitration starts */
	bool uart_line;	 /* level of IRQ 4 */
	bool rtc_line;	 /* level of IRQ 8 */
	bool sci_line;	 /* level of IRQ 9 */
	struct vuart uart;
	struct pic_pair pic;
	struct pit pit;
	struct rtc rtc;
	struct i8042 i8042;
	struct acpi_pm pm;
	struct virtio *virtio; /* NULL: none. Its devices have locks of their own */
	struct pci pci;
	struct ioapic ioapic;
	u64 lapic_deadline[BOOT_MAX_VCPUS]; /* each written by its own CPU */
	u64 tsc_offset[BOOT_MAX_VCPUS];	    /* for which lapic_deadline[] holds; likewise */
	struct lapic lapic[BOOT_MAX_VCPUS];
};

/* With the lock held, until platform_unlock(). */
u64 platform_now(struct platform *p);
u64 platform_pit_clock(const struct platform *p, u64 now);
u64 platform_rtc_clock(const struct platform *p, u64 now);
u64 platform_pm_clock(const struct platform *p, u64 now);
void platform_set_line(struct platform *p, unsigned int irq, bool level);
/* After anything that may have changed the outputs of a device. */
void platform_update_uart(struct platform *p);
void platform_update_intr(struct platform *p);
/* Interrupts of PIT, RTC and ACPI that are due, and when to look again. */
void platform_update_clocks(struct platform *p, u64 now);
/* Fills the UART from the console. */
void platform_pump_uart(struct platform *p);

/* Without the lock: makes `vcpu` (ours) or vCPU 0 notice that the devices' deadline changed. */
void platform_deadline_changed(struct vcpu *vcpu);

/* Wall clock for the guests' RTC: seconds since 1970-01-01; a fixed date if the host has none. */
s64 wallclock_read(void);
