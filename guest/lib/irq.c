/* Recorder of interrupts. Contract in irq.h. */
#include "apic.h"
#include "irq.h"
#include "umbra.h"

struct irq_log irq_logs[MAX_CPUS];
static u8 pic_irq[256];

static void note(unsigned int vector)
{
	struct irq_log *log = &irq_logs[this_cpu()->index];

	if (log->count < IRQ_LOG)
		log->order[log->count] = (u8)vector;
	log->hits[vector]++;
	__atomic_store_n(&log->count, log->count + 1, __ATOMIC_RELEASE);
}

static bool take(struct frame *f)
{
	note((unsigned int)f->vector & 255);
	lapic_eoi();
	return true;
}

static bool take_pic(struct frame *f)
{
	unsigned int vector = (unsigned int)f->vector & 255;

	note(vector);
	if (pic_irq[vector] >= 8)
		outb(0xa0, 0x20);
	outb(0x20, 0x20);
	return true;
}

static bool take_nmi(struct frame *f)
{
	note(VEC_NMI);
	return true;
}

void irq_record(unsigned int vector)
{
	trap_set_handler(vector, take);
}

void irq_record_pic(unsigned int vector, unsigned int irq)
{
	pic_irq[vector] = (u8)irq;
	trap_set_handler(vector, take_pic);
}

void irq_record_nmi(void)
{
	trap_set_handler(VEC_NMI, take_nmi);
}

void irq_clear(void)
{
	for (u32 cpu = 0; cpu < MAX_CPUS; cpu++) {
		struct irq_log *log = &irq_logs[cpu];

		if (!log->count)
			continue;
		for (unsigned int v = 0; v < 256; v++)
			log->hits[v] = 0;
		log->count = 0;
	}
}

u32 irq_hits(unsigned int vector)
{
	return irq_logs[this_cpu()->index].hits[vector];
}

bool irq_await(u32 cpu, unsigned int vector, u32 n, u64 us)
{
	u64 start = rdtsc(), ticks = us * tsc_khz() / 1000;

	while (irq_logs[cpu].hits[vector] < n) {
		if (rdtsc() - start > ticks)
			return false;
		cpu_pause();
	}
	return true;
}

static bool excused(bool cond, const char *text)
{
	if (cond || !tcg_present())
		return tap_ok(cond, "%s", text);
	tap_skip("%s (QEMU TCG differs)", text);
	return true;
}

bool real_ok(bool cond, const char *fmt, ...)
{
	char text[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return excused(cond, text);
}

bool real_is(u64 got, u64 want, const char *fmt, ...)
{
	char text[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (excused(got == want, text) && got == want)
		return true;
	tap_note("got 0x%lx, want 0x%lx", got, want);
	return false;
}
