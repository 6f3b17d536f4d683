/* The timer of the local APIC (SDM 3A 11.5.4): see lapic.h and lapic_timer.h. */
#include "dev/lapic_timer.h"
#include "x86/tsc.h"

/* LVT timer, bits 18:17. */
enum timer_mode {
	TIMER_ONE_SHOT,
	TIMER_PERIODIC,
	TIMER_DEADLINE,
	TIMER_RESERVED
};

static enum timer_mode mode(const struct lapic *l)
{
	return (enum timer_mode)(l->lvt_timer >> 17 & 3);
}

/* TSC ticks in one of the counter, as a power of two. */
static unsigned int shift(const struct lapic *l)
{
	return (((l->divide & 3) + (l->divide >> 1 & 4) + 1) & 7) + tsc_crystal_shift();
}

static u64 deadline(const struct lapic *l)
{
	/* A masked expiry has no effect that could not be computed later. */
	if (l->lvt_timer & LAPIC_LVT_MASKED)
		return LAPIC_NEVER;
	if (l->expiry != LAPIC_NEVER && mode(l) == TIMER_PERIODIC && l->last_fire)
		return MAX(l->expiry, l->last_fire + tsc_from_us(LAPIC_MIN_PERIOD_US));
	return l->expiry;
}

/* Brings the timer up to date: whatever expired by `now` has fired. */
static void sync(struct lapic *l, u64 now)
{
	if (now < l->expiry || l->expiry == LAPIC_NEVER)
		return;
	if (mode(l) == TIMER_PERIODIC) {
		l->expiry += ((now - l->expiry) / l->period + 1) * l->period;
		l->last_fire = now;
	} else {
		l->expiry = LAPIC_NEVER;
		l->tsc_deadline = 0;
	}
	if (!(l->lvt_timer & LAPIC_LVT_MASKED))
		lapic_set_irr(l, (u8)l->lvt_timer, false);
}

void lapic_timer_stop(struct lapic *l)
{
	l->expiry = LAPIC_NEVER;
	l->tsc_deadline = 0;
	l->last_fire = 0;
}

u32 lapic_timer_count(struct lapic *l, u64 now)
{
	unsigned int n = shift(l);

	sync(l, now);
	if (l->expiry == LAPIC_NEVER || mode(l) == TIMER_DEADLINE)
		return 0;
	return (u32)((l->expiry - now + BIT64(n) - 1) >> n);
}

void lapic_timer_start(struct lapic *l, u32 count, u64 now)
{
	lapic_reg_set(l, LAPIC_TIMER_INITIAL, count);
	if (mode(l) == TIMER_DEADLINE)
		return;
	lapic_timer_stop(l);
	if (count && mode(l) != TIMER_RESERVED) {
		l->period = (u64)count << shift(l);
		l->expiry = now + l->period;
	}
	lapic_timer_changed(l, deadline(l));
}

void lapic_timer_set_divide(struct lapic *l, u32 value, u64 now)
{
	u32 left = lapic_timer_count(l, now);

	l->divide = value & 0xb;
	lapic_reg_set(l, LAPIC_TIMER_DIVIDE, l->divide);
	if (l->expiry != LAPIC_NEVER && mode(l) != TIMER_DEADLINE) {
		l->expiry = now + ((u64)left << shift(l));
		l->period = (u64)lapic_reg(l, LAPIC_TIMER_INITIAL) << shift(l);
		lapic_timer_changed(l, deadline(l));
	}
}

void lapic_timer_set_lvt(struct lapic *l, u32 lvt, u64 now)
{
	enum timer_mode old = mode(l);
	bool armed = l->expiry != LAPIC_NEVER;

	sync(l, now);
	l->lvt_timer = lvt;
	lapic_reg_set(l, LAPIC_LVT_TIMER, lvt);
	if (mode(l) != old && (old == TIMER_DEADLINE || mode(l) >= TIMER_DEADLINE))
		lapic_timer_stop(l);
	if (armed)
		lapic_timer_changed(l, deadline(l));
}

static void arm_deadline(struct lapic *l)
{
	l->expiry = l->tsc_deadline ? lapic_clock_at(l, l->tsc_deadline) : LAPIC_NEVER;
	sync(l, lapic_clock(l));
	lapic_timer_changed(l, deadline(l));
}

u64 lapic_timer(struct lapic *l, u64 now)
{
	if (now >= deadline(l))
		sync(l, now);
	return deadline(l);
}

void lapic_tsc_changed(struct lapic *l)
{
	if (mode(l) == TIMER_DEADLINE && l->tsc_deadline)
		arm_deadline(l);
}

void lapic_timer_set_deadline(struct lapic *l, u64 value)
{
	if (mode(l) != TIMER_DEADLINE)
		return;
	l->tsc_deadline = value;
	arm_deadline(l);
}

u64 lapic_timer_get_deadline(struct lapic *l)
{
	if (l->tsc_deadline)
		sync(l, lapic_clock(l));
	return l->tsc_deadline;
}
