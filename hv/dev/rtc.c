/* The MC146818: see rtc.h. A "clock" is 1/32768 s since power-on. */
#include "dev/rtc.h"
#include "lib/string.h"

enum {
	SECOND,
	ALARM_SECOND,
	MINUTE,
	ALARM_MINUTE,
	HOUR,
	ALARM_HOUR,
	WEEKDAY,
	DAY,
	MONTH,
	YEAR
};
#define REG_A	0x0a
#define REG_B	0x0b
#define REG_C	0x0c
#define REG_D	0x0d
#define CENTURY 0x32

#define A_UIP	  BIT(7)
#define A_DIVIDER 0x70
#define A_RUN	  0x20 /* 32,768 Hz crystal, divider running */
#define B_SET	  BIT(7)
#define B_PIE	  BIT(6)
#define B_AIE	  BIT(5)
#define B_UIE	  BIT(4)
#define B_BINARY  BIT(2)
#define B_24H	  BIT(1)
#define C_IRQF	  BIT(7)
#define C_PF	  BIT(6)
#define C_AF	  BIT(5)
#define C_UF	  BIT(4)
#define D_VRT	  BIT(7)

#define DAY_SECONDS 86400
/* The update cycle ends with the second: 244 us of warning and 1,984 us of work before it. */
#define UIP_CLOCKS 73

static const u8 month_days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

static bool leap(s64 y)
{
	return (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
}

static s64 days_before_year(s64 y) /* since 0000-01-01 */
{
	return y * 365 + (y + 3) / 4 - (y + 99) / 100 + (y + 399) / 400;
}

static s64 days_in_month(s64 y, u32 m)
{
	return month_days[m] + (m == 1 && leap(y));
}

s64 rtc_seconds(u32 year, u32 month, u32 day, u32 hour, u32 minute, u32 second)
{
	s64 days = days_before_year(year) - days_before_year(1970) + (s64)day - 1;

	for (u32 m = 0; m + 1 < month && m < 12; m++)
		days += days_in_month(year, m);
	return days * DAY_SECONDS + (s64)hour * 3600 + (s64)minute * 60 + second;
}

/* --- time and registers --------------------------------------------------------------------- */

static bool running(const struct rtc *r)
{
	return !(r->cmos[REG_B] & B_SET) && (r->cmos[REG_A] & A_DIVIDER) == A_RUN;
}

static s64 time_at(const struct rtc *r, u64 now)
{
	return r->seconds + (s64)((now - r->base) / RTC_HZ);
}

static u8 to_reg(const struct rtc *r, u32 v)
{
	return (u8)(r->cmos[REG_B] & B_BINARY ? v : v / 10 << 4 | v % 10);
}

static u32 from_reg(const struct rtc *r, u8 v)
{
	return r->cmos[REG_B] & B_BINARY ? v : (v >> 4) * 10u + (v & 15);
}

static u8 hour_to_reg(const struct rtc *r, u32 hour)
{
	if (r->cmos[REG_B] & B_24H)
		return to_reg(r, hour);
	return to_reg(r, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? 0x80 : 0);
}

static u32 hour_from_reg(const struct rtc *r, u8 v)
{
	if (r->cmos[REG_B] & B_24H)
		return from_reg(r, v);
	return from_reg(r, v & 0x7f) % 12 + (v & 0x80 ? 12 : 0);
}

/* Stores the time of this clock in the registers. */
static void time_to_regs(struct rtc *r, u64 now)
{
	s64 t = time_at(r, now);
	s64 days = t / DAY_SECONDS + days_before_year(1970);
	u32 rest = (u32)(t % DAY_SECONDS), month = 0;
	s64 year = days / 366;

	while (days_before_year(year + 1) <= days)
		year++;
	days -= days_before_year(year);
	for (; days >= days_in_month(year, month); month++)
		days -= days_in_month(year, month);
	r->cmos[SECOND] = to_reg(r, rest % 60);
	r->cmos[MINUTE] = to_reg(r, rest / 60 % 60);
	r->cmos[HOUR] = hour_to_reg(r, rest / 3600);
	r->cmos[WEEKDAY] =
		to_reg(r, (u32)((t / DAY_SECONDS + 4) % 7 + 1)); /* 1970 began on a Thursday */
	r->cmos[DAY] = to_reg(r, (u32)days + 1);
	r->cmos[MONTH] = to_reg(r, month + 1);
	r->cmos[YEAR] = to_reg(r, (u32)(year % 100));
	r->cmos[CENTURY] = to_reg(r, (u32)(year / 100));
}

/* Takes the time from the registers; fields out of range are reduced, the chip's result is
 * undefined. */
static void time_from_regs(struct rtc *r)
{
	u32 year = from_reg(r, r->cmos[CENTURY]) % 100 * 100 + from_reg(r, r->cmos[YEAR]) % 100;
	u32 month = (from_reg(r, r->cmos[MONTH]) + 11) % 12 + 1;
	u32 day = (from_reg(r, r->cmos[DAY]) + 30) % 31 + 1;

	r->seconds =
		rtc_seconds(MAX(year, 1970), month, day, hour_from_reg(r, r->cmos[HOUR]) % 24,
			    from_reg(r, r->cmos[MINUTE]) % 60, from_reg(r, r->cmos[SECOND]) % 60);
}

/* --- flags and interrupts ------------------------------------------------------------------- */

static u32 period(const struct rtc *r)
{
	u32 rate = r->cmos[REG_A] & 15;

	if (!rate)
		return 0;
	return BIT((rate < 3 ? rate + 7 : rate) - 1);
}

/* True if an alarm falls into the seconds (from, to]. */
static bool alarm_between(const struct rtc *r, s64 from, s64 to)
{
	const u8 *c = r->cmos;
	bool any_s = c[ALARM_SECOND] >= 0xc0, any_m = c[ALARM_MINUTE] >= 0xc0;
	bool any_h = c[ALARM_HOUR] >= 0xc0;
	u32 s = from_reg(r, c[ALARM_SECOND]), m = from_reg(r, c[ALARM_MINUTE]);
	u32 h = hour_from_reg(r, c[ALARM_HOUR]);
	s64 t = from + 1;

	if ((!any_s && s > 59) || (!any_m && m > 59) || (!any_h && h > 23))
		return false;
	/* Skip to the hour, then to the minute (which may leave the hour), then to the second. */
	for (unsigned int i = 0; i < 4 && t <= to; i++) {
		u32 day = (u32)(t % DAY_SECONDS);

		if (!any_h && day / 3600 != h)
			t += (h * 3600 + DAY_SECONDS - day / 3600 * 3600) % DAY_SECONDS -
			     day % 3600;
		else if (!any_m && day / 60 % 60 != m)
			t += (m * 60 + 3600 - day % 3600 / 60 * 60) % 3600 - day % 60;
		else if (!any_s && day % 60 != s)
			t += (s + 60 - day % 60) % 60;
		else
			return true;
	}
	return false;
}

/* Brings register C up to this clock. */
static void update_flags(struct rtc *r, u64 now)
{
	u32 p = period(r);

	if (now <= r->seen)
		return;
	if (p && (r->cmos[REG_A] & A_DIVIDER) == A_RUN &&
	    (now - r->base) / p != (r->seen - r->base) / p)
		r->cmos[REG_C] |= C_PF;
	if (running(r) && time_at(r, now) != time_at(r, r->seen)) {
		r->cmos[REG_C] |= C_UF;
		if (alarm_between(r, time_at(r, r->seen), time_at(r, now)))
			r->cmos[REG_C] |= C_AF;
	}
	r->seen = now;
}

bool rtc_irq(struct rtc *r, u64 now)
{
	update_flags(r, now);
	if (r->cmos[REG_B] & r->cmos[REG_C] & (C_PF | C_AF | C_UF))
		r->cmos[REG_C] |= C_IRQF;
	else
		r->cmos[REG_C] &= (u8)~C_IRQF;
	return r->cmos[REG_C] & C_IRQF;
}

u64 rtc_deadline(const struct rtc *r, u64 now)
{
	u64 at = RTC_NEVER, since = now - r->base;
	u32 p = period(r);

	if (r->cmos[REG_C] & C_IRQF) /* nothing new before register C is read */
		return RTC_NEVER;
	if ((r->cmos[REG_B] & B_PIE) && p && (r->cmos[REG_A] & A_DIVIDER) == A_RUN)
		at = (since / p + 1) * p;
	if ((r->cmos[REG_B] & (B_UIE | B_AIE)) && running(r))
		at = MIN(at, (since / RTC_HZ + 1) * RTC_HZ);
	return at == RTC_NEVER ? at : r->base + at;
}

/* --- registers ------------------------------------------------------------------------------ */

static bool is_time(u8 index)
{
	return index == CENTURY || (index <= YEAR && (index > HOUR || !(index & 1)));
}

static u8 read_a(const struct rtc *r, u64 now)
{
	bool uip = running(r) && (now - r->base) % RTC_HZ >= RTC_HZ - UIP_CLOCKS;

	return r->cmos[REG_A] | (uip ? A_UIP : 0);
}

u8 rtc_read(struct rtc *r, u64 now)
{
	u8 index = r->index & 0x7f, v;

	if (is_time(index) && running(r))
		time_to_regs(r, now);
	switch (index) {
	case REG_A:
		return read_a(r, now);
	case REG_C:
		rtc_irq(r, now);
		v = r->cmos[REG_C];
		r->cmos[REG_C] = 0;
		return v;
	default:
		return r->cmos[index];
	}
}

/* Stops or starts the clock by registers A or B; the time stands in the registers meanwhile. */
static void write_control(struct rtc *r, u8 index, u8 value, u64 now)
{
	bool was = running(r);
	bool divider = (r->cmos[REG_A] & A_DIVIDER) == A_RUN;

	if (was)
		time_to_regs(r, now);
	r->cmos[index] = value;
	if (was || !running(r))
		return;
	time_from_regs(r);
	/* Seconds go on in phase; out of a divider reset the first update comes after half a
	 * second. */
	r->base = now - (divider ? (now - r->base) % RTC_HZ : RTC_HZ / 2);
	r->seen = now;
}

void rtc_write(struct rtc *r, u8 value, u64 now)
{
	u8 index = r->index & 0x7f;
	bool was = running(r);

	update_flags(r, now);
	switch (index) {
	case REG_A:
		write_control(r, index, value & 0x7f, now);
		break;
	case REG_B:
		if (value & B_SET) /* which also clears UIE */
			value &= (u8)~B_UIE;
		write_control(r, index, value, now);
		break;
	case REG_C:
	case REG_D:
		break;
	default:
		if (!is_time(index)) {
			r->cmos[index] = value;
			break;
		}
		if (was)
			time_to_regs(r, now);
		r->cmos[index] = value;
		if (was) {
			time_from_regs(r);
			r->base = now - (now - r->base) % RTC_HZ;
		}
		break;
	}
}

static void put16(struct rtc *r, u8 index, u64 value)
{
	r->cmos[index] = (u8)value;
	r->cmos[index + 1] = (u8)(value >> 8);
}

void rtc_reset(struct rtc *r, s64 seconds, u64 low, u64 high, u32 cpus)
{
	u64 above_1m = low > MIB ? low - MIB : 0, above_16m = low > 16 * MIB ? low - 16 * MIB : 0;
	u32 sum = 0;

	memset(r, 0, sizeof(*r));
	r->seconds = MAX(seconds, 0);
	r->cmos[REG_A] = A_RUN | 6;
	r->cmos[REG_B] = B_24H;
	r->cmos[REG_D] = D_VRT;
	r->cmos[0x14] = 0x02; /* equipment: FPU */
	put16(r, 0x15, 640);
	put16(r, 0x17, MIN(above_1m / KIB, 0xffff));
	put16(r, 0x30, MIN(above_1m / KIB, 0xffff));
	put16(r, 0x34, MIN(above_16m / (64 * KIB), 0xffff));
	put16(r, 0x5b, high / (64 * KIB));
	r->cmos[0x5d] = (u8)(high / (64 * KIB) >> 16);
	r->cmos[0x5f] = (u8)(cpus - 1);
	for (u32 i = 0x10; i < 0x2e; i++)
		sum += r->cmos[i];
	r->cmos[0x2e] = (u8)(sum >> 8); /* the checksum's high byte comes first */
	r->cmos[0x2f] = (u8)sum;
	time_to_regs(r, 0);
}
