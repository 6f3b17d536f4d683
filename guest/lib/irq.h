/*
 * Interrupts for tests to count: a recorder that may be put on any vector, and points that QEMU's
 * TCG (7.2), whose interrupt controllers are simpler than the SDM's, is allowed to miss.
 */
#pragma once

#include "cpu.h"

#define IRQ_LOG 64

struct irq_log {
	volatile u32 count;	    /* all recorded interrupts since irq_clear() */
	volatile u8 order[IRQ_LOG]; /* the first of them, in order of arrival */
	volatile u32 hits[256];
};
extern struct irq_log irq_logs[MAX_CPUS];

/* Counts the vector on the CPU that takes it, and sends an EOI to the local APIC. */
void irq_record(unsigned int vector);
/* The same for an interrupt that the 8259s sent: EOI to them (IRQ 8 to 15: both). */
void irq_record_pic(unsigned int vector, unsigned int irq);
/* NMIs: counted, no EOI. */
void irq_record_nmi(void);
/* Forgets what was recorded, on all CPUs. */
void irq_clear(void);
/* Recorded on this CPU. */
u32 irq_hits(unsigned int vector);
/* Waits until CPU `cpu` has `n` of this vector; false after `us` microseconds. */
bool irq_await(u32 cpu, unsigned int vector, u32 n, u64 us);

/* As tap_ok() and tap_is(), but a miss on TCG is reported as skipped. */
bool real_ok(bool cond, const char *fmt, ...) __format(2, 3);
bool real_is(u64 got, u64 want, const char *fmt, ...) __format(3, 4);
