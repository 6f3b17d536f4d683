/*
 * A small guest for company: sleeps, wakes up with its timer, and says how long it has been up.
 * Options: period_ms (default 100), rounds (default 5; 0 goes on until `q` is typed on COM1).
 */
#include "apic.h"
#include "irq.h"
#include "sync.h"
#include "umbra.h"

#define VEC_TICK  0x70
#define COM1_DATA 0x3f8
#define COM1_LSR  0x3fd

#define LVT_PERIODIC BIT(17)
#define DCR_BY_16    0x3
#define DIVISOR	     16

static u64 tsc_rate(void)
{
	return umbra_present() ? cpuid(UMBRA_CPUID_TIMING, 0).eax : tsc_khz();
}

/* Ticks of the APIC timer's input per millisecond; QEMU's run at 1 GHz. */
static u64 timer_rate(void)
{
	return umbra_present() ? cpuid(UMBRA_CPUID_TIMING, 0).ebx : 1000000;
}

static bool quit_typed(void)
{
	while (inb(COM1_LSR) & 1)
		if (inb(COM1_DATA) == 'q')
			return true;
	return false;
}

void guest_main(void)
{
	u64 period = opt_u64("period_ms", 100), rounds = opt_u64("rounds", 5);
	u64 start, elapsed;

	lapic_enable();
	irq_record(VEC_TICK);
	lapic_write(LAPIC_LVT_TIMER, LVT_PERIODIC | VEC_TICK);
	lapic_write(LAPIC_TIMER_DCR, DCR_BY_16);
	tap_note("clock: a line every %lu ms%s", period, rounds ? "" : "; q ends it");
	start = rdtsc();
	lapic_write(LAPIC_TIMER_ICR, (u32)(period * timer_rate() / DIVISOR));
	for (u32 n = 1; !rounds || n <= rounds; n++) {
		irq_disable();
		while (irq_hits(VEC_TICK) < n)
			irq_wait();
		elapsed = (rdtsc() - start) / tsc_rate();
		tap_note("clock: %lu.%lu s", elapsed / 1000, elapsed % 1000 / 100);
		if (quit_typed())
			break;
	}
	lapic_write(LAPIC_TIMER_ICR, 0);
	elapsed = (rdtsc() - start) / tsc_rate();
	if (rounds)
		real_ok(elapsed >= rounds * period * 99 / 100 &&
				elapsed <= rounds * period * 101 / 100 + 10,
			"%lu ticks of %lu ms took %lu ms", rounds, period, elapsed);
	tap_end();
}
