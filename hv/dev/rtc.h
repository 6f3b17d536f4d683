/*
 * An MC146818 real-time clock with 128 bytes of CMOS RAM (Motorola data sheet) at ports 0x70/0x71.
 * Time comes in as clocks of its 32,768 Hz crystal since power-on. Plain data; the caller locks.
 *
 * The registers of the time are computed from the clock when they are read; day of the week follows
 * from the date. Register 0x32 is the century (binary-coded decimal, or binary with DM).
 */
#pragma once

#include "lib/types.h"

#define RTC_HZ	  32768
#define RTC_NEVER (~0ull)

struct rtc {
	u8 cmos[128];
	u8 index;    /* port 0x70, bit 7: NMI masked */
	s64 seconds; /* time at clock `base`, seconds since 1970-01-01 */
	u64 base;
	u64 seen; /* flags of register C are right up to this clock */
};

/* memory: bytes of RAM below and above 4 GiB, for the firmware's size registers. */
void rtc_reset(struct rtc *r, s64 seconds, u64 low, u64 high, u32 cpus);
u8 rtc_read(struct rtc *r, u64 now);
void rtc_write(struct rtc *r, u8 value, u64 now);
static inline void rtc_select(struct rtc *r, u8 index)
{
	r->index = index;
}
/* Level of IRQ 8 at this clock. */
bool rtc_irq(struct rtc *r, u64 now);
/* Clock at which rtc_irq() may change by itself, RTC_NEVER = not. */
u64 rtc_deadline(const struct rtc *r, u64 now);

/* Calendar, for the host's clock too: seconds since 1970-01-01 of a date (month and day from 1). */
s64 rtc_seconds(u32 year, u32 month, u32 day, u32 hour, u32 minute, u32 second);
