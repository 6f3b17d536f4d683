/* ACPI's fixed hardware against the ACPI specification 6.5, 4.8. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "dev/acpi_pm.h"

#define HALF (1ull << 31)

static struct acpi_pm pm;

static int setup(void **state)
{
	acpi_pm_reset(&pm);
	return 0;
}

static u32 in(u32 offset, unsigned int size, u64 now)
{
	return acpi_pm_read(&pm, offset, size, now);
}

static bool out(u32 offset, unsigned int size, u32 value, u64 now)
{
	return acpi_pm_write(&pm, offset, size, value, now);
}

static void at_power_on(void **state)
{
	assert_int_equal(in(0, 2, 0), 0);
	assert_int_equal(in(2, 2, 0), 0);
	assert_int_equal(in(4, 2, 0), 1); /* SCI_EN */
	assert_int_equal(in(6, 2, 0), 0);
	assert_false(acpi_pm_sci(&pm, 0));
	assert_true(acpi_pm_deadline(&pm) == ACPI_PM_NEVER);
}

static void timer_counts(void **state)
{
	u32 start = in(8, 4, 0);

	/* The first overflow comes within two seconds. */
	assert_true(HALF - start < 2 * ACPI_PM_HZ);
	assert_int_equal(in(8, 4, 1), start + 1);
	assert_int_equal(in(8, 4, 1000000), start + 1000000);
	assert_int_equal(in(8, 4, 5 * HALF), start + (u32)(5 * HALF));
	assert_int_equal(in(8, 4, HALF - start), 0x80000000);
	assert_int_equal(in(8, 4, 2 * HALF - start), 0);
	/* Any width and alignment. */
	assert_int_equal(in(8, 1, 0x123456), (start + 0x123456) & 0xff);
	assert_int_equal(in(9, 1, 0x123456), (start + 0x123456) >> 8 & 0xff);
	assert_int_equal(in(10, 2, 0x123456), (start + 0x123456) >> 16);
	/* Read-only. */
	out(8, 4, 0, 5);
	assert_int_equal(in(8, 4, 5), start + 5);
}

static void timer_status(void **state)
{
	u64 first = HALF - in(8, 4, 0);

	assert_int_equal(in(0, 2, first - 1), 0);
	assert_int_equal(in(0, 2, first), 1);
	out(0, 2, 1, first);
	assert_int_equal(in(0, 2, first), 0);
	/* When the highest bit goes back to 0 as well. */
	assert_int_equal(in(0, 2, first + HALF - 1), 0);
	assert_int_equal(in(0, 2, first + HALF), 1);
	/* What is cleared includes an overflow that nobody has seen yet. */
	out(0, 2, 1, first + 2 * HALF);
	assert_int_equal(in(0, 2, first + 2 * HALF), 0);
	assert_int_equal(in(0, 2, first + 3 * HALF - 1), 0);
}

static void timer_interrupt(void **state)
{
	u64 first = HALF - in(8, 4, 0);

	out(2, 2, 1, 0);
	assert_int_equal(acpi_pm_deadline(&pm), first);
	assert_false(acpi_pm_sci(&pm, first - 1));
	assert_true(acpi_pm_sci(&pm, first));
	/* A level: it stays until the status is cleared, or disabled. */
	assert_true(acpi_pm_sci(&pm, first + 100));
	assert_true(acpi_pm_deadline(&pm) == ACPI_PM_NEVER);
	out(2, 2, 0, first + 100);
	assert_false(acpi_pm_sci(&pm, first + 100));
	assert_true(acpi_pm_deadline(&pm) == ACPI_PM_NEVER);
	out(2, 2, 1, first + 100);
	assert_true(acpi_pm_sci(&pm, first + 100));
	out(0, 2, 1, first + 100);
	assert_false(acpi_pm_sci(&pm, first + 100));
	assert_int_equal(acpi_pm_deadline(&pm), first + HALF);
}

static void power_button(void **state)
{
	acpi_pm_event(&pm, ACPI_PM1_PWRBTN);
	assert_int_equal(in(0, 2, 0), 0x100);
	assert_false(acpi_pm_sci(&pm, 0));
	out(2, 2, 0x100, 0);
	assert_true(acpi_pm_sci(&pm, 0));
	out(0, 2, 0xfeff, 0); /* every other bit */
	assert_true(acpi_pm_sci(&pm, 0));
	out(1, 1, 0x01, 0); /* the same bit as a byte */
	assert_int_equal(in(0, 2, 0), 0);
	assert_false(acpi_pm_sci(&pm, 0));
	/* Disabled from the other side, and as part of a 32-bit access. */
	acpi_pm_event(&pm, ACPI_PM1_PWRBTN);
	assert_true(acpi_pm_sci(&pm, 0));
	assert_int_equal(in(0, 4, 0), 0x01000100);
	out(0, 4, 0x00200100, 0);
	assert_int_equal(in(0, 4, 0), 0x00200000);
}

static void alarm_clock(void **state)
{
	acpi_pm_event(&pm, ACPI_PM1_RTC);
	assert_int_equal(in(0, 2, 0), 0x400);
	assert_false(acpi_pm_sci(&pm, 0));
	out(2, 2, 0x400, 0);
	assert_true(acpi_pm_sci(&pm, 0));
	out(0, 2, 0x400, 0);
	assert_false(acpi_pm_sci(&pm, 0));
}

/* ACPICA enables the events of the global lock and the RTC and looks whether the bits stuck. */
static void enable_bits(void **state)
{
	out(2, 2, 0xffff, 0);
	assert_int_equal(in(2, 2, 0), 0x521);
	out(3, 1, 0, 0);
	assert_int_equal(in(2, 2, 0), 0x021);
	out(2, 1, 0x01, 0);
	assert_int_equal(in(2, 2, 0), 0x001);
}

static void control_and_s5(void **state)
{
	/* SLP_TYP and BM_RLD are kept, SCI_EN stays, GBL_RLS and SLP_EN read 0. */
	assert_false(out(4, 2, 0x1c02, 0));
	assert_int_equal(in(4, 2, 0), 0x1c03);
	assert_false(out(4, 2, 0x0004, 0));
	assert_int_equal(in(4, 2, 0), 0x0001);
	/* Sleep states that there are not are ignored. */
	for (u32 type = 1; type < 8; type++)
		assert_false(out(4, 2, 0x2000 | type << 10, 0));
	assert_int_equal(in(4, 2, 0), 0x1c01);
	assert_true(out(4, 2, 0x2000, 0));
	assert_true(out(4, 2, 0x2001, 0));
	assert_true(out(5, 1, 0x20, 0));
	assert_true(out(4, 4, 0x2000, 0));
	assert_true(out(2, 4, 0x20000000, 0));
	/* SLP_EN is not remembered until SLP_TYP fits. */
	assert_false(out(4, 2, 0x3c00, 0));
	assert_false(out(4, 2, 0x0000, 0));
	assert_false(out(4, 1, 0x00, 0));
	assert_false(out(6, 2, 0x2000, 0));
	assert_false(out(0, 4, 0x20002000, 0));
}

static void ends_of_the_block(void **state)
{
	u32 timer = in(8, 4, 0x654321);

	assert_int_equal(in(10, 4, 0x654321), 0xffff0000 | timer >> 16);
	assert_int_equal(in(11, 2, 0x654321), 0xff00 | timer >> 24);
	assert_false(out(10, 4, 0xffffffff, 0x654321));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(at_power_on, setup),
		cmocka_unit_test_setup(timer_counts, setup),
		cmocka_unit_test_setup(timer_status, setup),
		cmocka_unit_test_setup(timer_interrupt, setup),
		cmocka_unit_test_setup(power_button, setup),
		cmocka_unit_test_setup(alarm_clock, setup),
		cmocka_unit_test_setup(enable_bits, setup),
		cmocka_unit_test_setup(control_and_s5, setup),
		cmocka_unit_test_setup(ends_of_the_block, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
