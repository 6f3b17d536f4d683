/* The MC146818: calendar against timegm(3), formats, alarms, flags, set-up and memory sizes. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <cmocka.h>

#include "dev/rtc.h"

#define DATE 1735689599 /* 2024-12-31 23:59:59, a Tuesday */

static struct rtc r;

static int setup(void **state)
{
	rtc_reset(&r, DATE, 64 * MIB, 0, 1);
	return 0;
}

static u8 rd(u8 index, u64 now)
{
	rtc_select(&r, index);
	return rtc_read(&r, now);
}

static void wr(u8 index, u8 value, u64 now)
{
	rtc_select(&r, index);
	rtc_write(&r, value, now);
}

static void expect_time(u64 now, u8 year, u8 month, u8 day, u8 weekday, u8 hour, u8 minute,
			u8 second)
{
	assert_int_equal(rd(9, now), year);
	assert_int_equal(rd(8, now), month);
	assert_int_equal(rd(7, now), day);
	assert_int_equal(rd(6, now), weekday);
	assert_int_equal(rd(4, now), hour);
	assert_int_equal(rd(2, now), minute);
	assert_int_equal(rd(0, now), second);
}

static void calendar(void **state)
{
	for (s64 t = 0; t < 8000000000; t += 86400 * 13 + 3607) {
		time_t at = (time_t)t;
		struct tm tm;

		gmtime_r(&at, &tm);
		assert_int_equal(rtc_seconds((u32)tm.tm_year + 1900, (u32)tm.tm_mon + 1,
					     (u32)tm.tm_mday, (u32)tm.tm_hour, (u32)tm.tm_min,
					     (u32)tm.tm_sec),
				 t);
		rtc_reset(&r, t, 0, 0, 1);
		wr(0x0b, 0x06, 0); /* binary */
		expect_time(0, (u8)(tm.tm_year % 100), (u8)(tm.tm_mon + 1), (u8)tm.tm_mday,
			    (u8)(tm.tm_wday + 1), (u8)tm.tm_hour, (u8)tm.tm_min, (u8)tm.tm_sec);
		assert_int_equal(rd(0x32, 0), (tm.tm_year + 1900) / 100);
	}
}

static void runs(void **state)
{
	expect_time(0, 0x24, 0x12, 0x31, 3, 0x23, 0x59, 0x59);
	expect_time(RTC_HZ - 1, 0x24, 0x12, 0x31, 3, 0x23, 0x59, 0x59);
	expect_time(RTC_HZ, 0x25, 0x01, 0x01, 4, 0x00, 0x00, 0x00);
	assert_int_equal(rd(0x32, 0), 0x20);
	expect_time(RTC_HZ * 86400ull * 59, 0x25, 0x02, 0x28, 6, 0x23, 0x59, 0x59);
	expect_time(RTC_HZ * (86400ull * 59 + 1), 0x25, 0x03, 0x01, 7, 0x00, 0x00, 0x00);
}

static void twelve_hours(void **state)
{
	static const u8 table[24] = {0x12, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07,
				     0x08, 0x09, 0x10, 0x11, 0x92, 0x81, 0x82, 0x83,
				     0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x90, 0x91};

	for (u32 h = 0; h < 24; h++) {
		rtc_reset(&r, h * 3600, 0, 0, 1);
		wr(0x0b, 0, 0);
		assert_int_equal(rd(4, 0), table[h]);
		wr(0x0b, 0x80, 0);
		wr(4, table[h], 0);
		wr(0x0b, 0, 0);
		assert_int_equal(rd(4, 0), table[h]);
		wr(0x0b, 0x02, 0);
		assert_int_equal(rd(4, 0), h / 10 << 4 | h % 10);
	}
}

static void setting(void **state)
{
	wr(0x0b, 0x82, 100); /* SET stops the time */
	wr(0, 0x30, 100);
	wr(2, 0x15, 100);
	wr(4, 0x07, 100);
	wr(7, 0x29, 100);
	wr(8, 0x02, 100);
	wr(9, 0x28, 100);
	expect_time(RTC_HZ * 100, 0x28, 0x02, 0x29, 3, 0x07, 0x15, 0x30);
	assert_int_equal(rd(0x0a, RTC_HZ * 101 - 1) & 0x80, 0); /* no updates: no UIP */
	wr(0x0b, 0x02, RTC_HZ * 100 + 50);
	/* Goes on, seconds ending in phase with the crystal. */
	expect_time(RTC_HZ * 101 - 1, 0x28, 0x02, 0x29, 3, 0x07, 0x15, 0x30);
	expect_time(RTC_HZ * 101, 0x28, 0x02, 0x29, 3, 0x07, 0x15, 0x31);
	/* Without SET one field alone can be written. */
	wr(2, 0x59, RTC_HZ * 101);
	expect_time(RTC_HZ * 130, 0x28, 0x02, 0x29, 3, 0x08, 0x00, 0x00);
}

static void divider_reset(void **state)
{
	wr(0x0a, 0x66, 1000);
	assert_int_equal(rd(0, RTC_HZ * 10), 0x59);
	wr(0x0a, 0x26, RTC_HZ * 10);
	assert_int_equal(rd(0, RTC_HZ * 10 + RTC_HZ / 2 - 1), 0x59); /* half a second to the next */
	assert_int_equal(rd(0, RTC_HZ * 10 + RTC_HZ / 2), 0x00);
}

static void update_in_progress(void **state)
{
	u32 clocks = 0;

	for (u64 t = 0; t < RTC_HZ; t++)
		clocks += rd(0x0a, t) >> 7;
	assert_in_range(clocks, 72, 74); /* 2,228 us */
	assert_int_equal(rd(0x0a, RTC_HZ - 1) & 0x80, 0x80);
	assert_int_equal(rd(0x0a, RTC_HZ) & 0x80, 0);
	wr(0x0a, 0xa6, RTC_HZ); /* UIP is read-only */
	assert_int_equal(rd(0x0a, RTC_HZ), 0x26);
}

static void periodic(void **state)
{
	/* Rate and interrupts per second (table 5). */
	static const u32 table[16] = {0,   256, 128, 8192, 4096, 2048, 1024, 512,
				      256, 128, 64,  32,   16,	 8,    4,    2};

	for (u8 rate = 0; rate < 16; rate++) {
		u32 count = 0;
		u64 now = 0;

		setup(NULL);
		wr(0x0a, 0x20 | rate, 0);
		wr(0x0b, 0x42, 0);
		/* Jumping from deadline to deadline sees every one. */
		for (;;) {
			u64 at = rtc_deadline(&r, now);

			if (at > 10 * RTC_HZ)
				break;
			assert_true(at > now);
			assert_false(rtc_irq(&r, at - 1));
			now = at;
			assert_true(rtc_irq(&r, now));
			assert_int_equal(rtc_deadline(&r, now), RTC_NEVER);
			assert_int_equal(rd(0x0c, now) & 0xc0, 0xc0);
			assert_false(rtc_irq(&r, now));
			count++;
		}
		assert_int_equal(count, 10 * table[rate]);
	}
}

static void flags_without_interrupts(void **state)
{
	assert_int_equal(rd(0x0c, RTC_HZ / 2), 0x40);
	assert_int_equal(rd(0x0c, RTC_HZ / 2), 0);
	assert_int_equal(rd(0x0c, RTC_HZ), 0x70); /* the alarm at 00:00:00 too */
	assert_false(rtc_irq(&r, RTC_HZ * 2));
	assert_int_equal(rtc_deadline(&r, RTC_HZ * 2), RTC_NEVER);
	wr(0x0b, 0x12, RTC_HZ * 2); /* enabling finds the flag */
	assert_true(rtc_irq(&r, RTC_HZ * 2));
	assert_int_equal(rd(0x0c, RTC_HZ * 2), 0xd0);
	assert_int_equal(rtc_deadline(&r, RTC_HZ * 2), RTC_HZ * 3);
	wr(0x0b, 0x92, RTC_HZ * 2); /* SET clears UIE */
	assert_int_equal(rd(0x0b, RTC_HZ * 2), 0x82);
}

/* Every alarm setting against a walk through the seconds. */
static void alarms(void **state)
{
	static const u8 seconds[] = {0, 17, 59, 0xc0, 0xff}, minutes[] = {0, 1, 59, 0xc0};
	static const u8 hours[] = {0, 23, 12, 0xff};

	for (size_t i = 0; i < ARRAY_SIZE(seconds) * ARRAY_SIZE(minutes) * ARRAY_SIZE(hours); i++) {
		u8 s = seconds[i % 5], m = minutes[i / 5 % 4], h = hours[i / 20];
		u64 at = 1;

		rtc_reset(&r, DATE, 0, 0, 1);
		wr(0x0b, 0x26, 0);
		wr(1, s, 0);
		wr(3, m, 0);
		wr(5, h, 0);
		for (;; at++) {
			u32 day = (u32)((DATE + at) % 86400);

			if ((s >= 0xc0 || s == day % 60) && (m >= 0xc0 || m == day / 60 % 60) &&
			    (h >= 0xc0 || h == day / 3600))
				break;
		}
		assert_false(rtc_irq(&r, at * RTC_HZ - 1));
		assert_true(rtc_irq(&r, at * RTC_HZ));
		/* In one leap from the start too. */
		rtc_reset(&r, DATE, 0, 0, 1);
		wr(0x0b, 0x26, 0);
		wr(1, s, 0);
		wr(3, m, 0);
		wr(5, h, 0);
		assert_true(rtc_irq(&r, (at + 100000) * RTC_HZ));
	}
	rtc_reset(&r, DATE, 0, 0, 1);
	wr(0x0b, 0x26, 0);
	wr(1, 77, 0); /* never */
	assert_false(rtc_irq(&r, 200000ull * RTC_HZ));
}

static void memory_sizes(void **state)
{
	static const struct {
		u64 low, high;
		u32 kib, units, high_units;
	} table[] = {
		{4 * MIB, 0, 3072, 0, 0},
		{64 * MIB, 0, 64512, 768, 0},
		{65 * MIB, 0, 65535, 784, 0},
		{3 * GIB, 0, 65535, 48896, 0},
		{3 * GIB, 509 * GIB, 65535, 48896, 8339456},
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		u32 sum = 0;

		rtc_reset(&r, DATE, table[i].low, table[i].high, 4);
		assert_int_equal(rd(0x15, 0) | rd(0x16, 0) << 8, 640);
		assert_int_equal(rd(0x17, 0) | rd(0x18, 0) << 8, table[i].kib);
		assert_int_equal(rd(0x30, 0) | rd(0x31, 0) << 8, table[i].kib);
		assert_int_equal(rd(0x34, 0) | rd(0x35, 0) << 8, table[i].units);
		assert_int_equal(rd(0x5b, 0) | rd(0x5c, 0) << 8 | rd(0x5d, 0) << 16,
				 table[i].high_units);
		assert_int_equal(rd(0x5f, 0), 3);
		assert_int_equal(rd(0x0d, 0), 0x80);
		for (u8 c = 0x10; c < 0x2e; c++)
			sum += rd(c, 0);
		assert_int_equal(rd(0x2e, 0) << 8 | rd(0x2f, 0), sum);
	}
}

static void ram(void **state)
{
	wr(0x40, 0x99, 0);
	assert_int_equal(rd(0xc0, 0), 0x99); /* bit 7 is the NMI mask */
	wr(0x0d, 0, 0);
	assert_int_equal(rd(0x0d, 0), 0x80);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(calendar, setup),
		cmocka_unit_test_setup(runs, setup),
		cmocka_unit_test_setup(twelve_hours, setup),
		cmocka_unit_test_setup(setting, setup),
		cmocka_unit_test_setup(divider_reset, setup),
		cmocka_unit_test_setup(update_in_progress, setup),
		cmocka_unit_test_setup(periodic, setup),
		cmocka_unit_test_setup(flags_without_interrupts, setup),
		cmocka_unit_test_setup(alarms, setup),
		cmocka_unit_test_setup(memory_sizes, setup),
		cmocka_unit_test_setup(ram, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
