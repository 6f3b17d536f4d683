/* The timer of the local APIC. SDM 3A 11.5.4. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "lapic_fake.h"

static const u32 divides[8][2] = {{0, 2},  {1, 4},  {2, 8},    {3, 16},
				  {8, 32}, {9, 64}, {10, 128}, {11, 1}};

static void one_shot(void **state)
{
	for (u32 d = 0; d < 8; d++) {
		u64 start, period = 1000ull * divides[d][1];

		fresh(3);
		enable();
		wr(LAPIC_TIMER_DIVIDE, divides[d][0]);
		wr(LAPIC_LVT_TIMER, 0x35);
		wr(LAPIC_TIMER_INITIAL, 1000);
		start = clock_now;
		assert_int_equal(deadline_seen, start + period);
		assert_int_equal(rd(LAPIC_TIMER_CURRENT), 1000);
		clock_now = start + period / 4;
		assert_int_equal(rd(LAPIC_TIMER_CURRENT), 750);
		assert_int_equal(lapic_timer(&l, start + period - 1), start + period);
		assert_int_equal(lapic_pending(&l), -1);
		assert_int_equal(lapic_timer(&l, start + period), LAPIC_NEVER);
		assert_int_equal(lapic_accept(&l), 0x35);
		clock_now = start + period;
		assert_int_equal(rd(LAPIC_TIMER_CURRENT), 0);
		assert_int_equal(rd(LAPIC_TIMER_INITIAL), 1000);
		assert_int_equal(lapic_timer(&l, start + 100 * period), LAPIC_NEVER);
		assert_int_equal(lapic_pending(&l), -1);
	}
	wr(LAPIC_TIMER_INITIAL, 1000);
	wr(LAPIC_TIMER_INITIAL, 0);
	assert_int_equal(deadline_seen, LAPIC_NEVER);
}

static void periodic(void **state)
{
	const u64 period = 123457;
	u64 start = clock_now, fired = 0;

	enable();
	wr(LAPIC_TIMER_DIVIDE, 0xb);
	wr(LAPIC_LVT_TIMER, 0x20035);
	wr(LAPIC_TIMER_INITIAL, (u32)period);
	/* A hundred thousand periods, each looked at a different time late: never off the grid. */
	for (u64 k = 1; k <= 100000; k++) {
		u64 due = start + k * period;

		assert_int_equal(lapic_timer(&l, due - 1), due);
		clock_now = due + k % 1000;
		assert_int_equal(lapic_timer(&l, clock_now), due + period);
		assert_int_equal(rd(LAPIC_TIMER_CURRENT), period - k % 1000);
		fired += lapic_accept(&l) == 0x35;
		wr(LAPIC_EOI, 0);
	}
	assert_int_equal(fired, 100000);
	/* Very late: one interrupt, still on the grid. */
	clock_now = start + 200000 * period + 7;
	assert_int_equal(lapic_timer(&l, clock_now), start + 200001 * period);
	assert_int_equal(lapic_accept(&l), 0x35);
	wr(LAPIC_EOI, 0);
	assert_int_equal(lapic_pending(&l), -1);
}

static void masked_timer(void **state)
{
	u64 start = clock_now;

	enable();
	wr(LAPIC_TIMER_DIVIDE, 0xb);
	wr(LAPIC_LVT_TIMER, 0x30035);
	wr(LAPIC_TIMER_INITIAL, 100000);
	assert_int_equal(deadline_seen, LAPIC_NEVER); /* no exits for nothing */
	clock_now = start + 350000;
	assert_int_equal(rd(LAPIC_TIMER_CURRENT), 50000);
	wr(LAPIC_LVT_TIMER, 0x20035);
	assert_int_equal(lapic_pending(&l), -1); /* expiries while masked are lost */
	assert_int_equal(deadline_seen, start + 400000);
}

static void fast_periodic_is_bounded(void **state)
{
	u64 at, start = clock_now;

	enable();
	wr(LAPIC_TIMER_DIVIDE, 0xb);
	wr(LAPIC_LVT_TIMER, 0x20035);
	wr(LAPIC_TIMER_INITIAL, 1);
	at = deadline_seen;
	for (u32 i = 0; i < 1000; i++) {
		u64 next = lapic_timer(&l, at);

		assert_true(next >= at + tsc_from_us(LAPIC_MIN_PERIOD_US));
		at = next;
	}
	assert_true(at >= start + 999 * tsc_from_us(LAPIC_MIN_PERIOD_US));
}

static void divide_change_keeps_count(void **state)
{
	u64 start = clock_now;

	enable();
	wr(LAPIC_TIMER_DIVIDE, 0xb);
	wr(LAPIC_LVT_TIMER, 0x35);
	wr(LAPIC_TIMER_INITIAL, 10000);
	clock_now = start + 4000;
	wr(LAPIC_TIMER_DIVIDE, 0x3);
	assert_int_equal(rd(LAPIC_TIMER_CURRENT), 6000);
	assert_int_equal(deadline_seen, clock_now + 6000 * 16);
}

static void tsc_deadline(void **state)
{
	enable();
	guest_offset = 5000000;
	assert_true(wrmsr_ok(0x6e0, 7000000)); /* ignored outside the mode */
	assert_int_equal(rdmsr_ok(0x6e0), 0);
	wr(LAPIC_LVT_TIMER, 0x40036);
	wr(LAPIC_TIMER_INITIAL, 1000); /* ignored in the mode */
	assert_int_equal(rd(LAPIC_TIMER_CURRENT), 0);
	assert_int_equal(deadline_seen, LAPIC_NEVER);
	assert_true(wrmsr_ok(0x6e0, 7000000));
	assert_int_equal(deadline_seen, 2000000);
	assert_int_equal(rdmsr_ok(0x6e0), 7000000);
	assert_int_equal(lapic_timer(&l, 1999999), 2000000);
	assert_int_equal(lapic_pending(&l), -1);
	assert_int_equal(lapic_timer(&l, 2000000), LAPIC_NEVER);
	assert_int_equal(lapic_accept(&l), 0x36);
	wr(LAPIC_EOI, 0);
	assert_int_equal(rdmsr_ok(0x6e0), 0);
	/* In the past: at once. */
	clock_now = 3000000;
	assert_true(wrmsr_ok(0x6e0, 8000000));
	assert_int_equal(lapic_accept(&l), 0x36);
	wr(LAPIC_EOI, 0);
	assert_int_equal(rdmsr_ok(0x6e0), 0);
	/* Disarmed by 0; moved with the TSC; disarmed by leaving the mode. */
	assert_true(wrmsr_ok(0x6e0, 9000000));
	assert_true(wrmsr_ok(0x6e0, 0));
	assert_int_equal(deadline_seen, LAPIC_NEVER);
	assert_true(wrmsr_ok(0x6e0, 9000000));
	guest_offset = 4000000;
	lapic_tsc_changed(&l);
	assert_int_equal(deadline_seen, 5000000);
	wr(LAPIC_LVT_TIMER, 0x36);
	assert_int_equal(deadline_seen, LAPIC_NEVER);
	assert_int_equal(rdmsr_ok(0x6e0), 0);
	/* Entering the mode disarms a count. */
	wr(LAPIC_TIMER_INITIAL, 1000);
	wr(LAPIC_LVT_TIMER, 0x40036);
	assert_int_equal(deadline_seen, LAPIC_NEVER);
	/* Masked, it still expires, without an interrupt. */
	wr(LAPIC_LVT_TIMER, 0x50036);
	assert_true(wrmsr_ok(0x6e0, 8000000));
	clock_now = 4000001;
	assert_int_equal(rdmsr_ok(0x6e0), 0);
	assert_int_equal(lapic_pending(&l), -1);
}

/* Faster than what fits CPUID leaf 0x15: the timer counts the crystal that is told of there. */
static void crystal(void **state)
{
	u64 start = clock_now;

	tsc_hz = 0x100000000ull; /* the first that does not fit */
	assert_int_equal(tsc_crystal_shift(), 1);
	enable();
	wr(LAPIC_TIMER_DIVIDE, 0);
	wr(LAPIC_LVT_TIMER, 0x35);
	wr(LAPIC_TIMER_INITIAL, 1000);
	assert_int_equal(deadline_seen, start + 4000);
	clock_now = start + 1000;
	assert_int_equal(rd(LAPIC_TIMER_CURRENT), 750);
	tsc_hz = 0xffffffffull;
	assert_int_equal(tsc_crystal_shift(), 0);
	tsc_hz = 0x7fffffffffull;
	assert_int_equal(tsc_crystal_shift(), 7);
	tsc_hz = 1000000000;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(one_shot, setup),
		cmocka_unit_test_setup(periodic, setup),
		cmocka_unit_test_setup(masked_timer, setup),
		cmocka_unit_test_setup(fast_periodic_is_bounded, setup),
		cmocka_unit_test_setup(divide_change_keeps_count, setup),
		cmocka_unit_test_setup(tsc_deadline, setup),
		cmocka_unit_test_setup(crystal, setup),
	};
	int failed = cmocka_run_group_tests_name("software delivery", tests, NULL, NULL);

	hardware = true;
	return failed + cmocka_run_group_tests_name("hardware delivery", tests, NULL, NULL);
}
