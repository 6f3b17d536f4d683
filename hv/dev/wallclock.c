/* The host's real-time clock, read when a VM is created; registers as in rtc.h. */
#include "dev/platform.h"
#include "x86/asm.h"

#define FIXED_DATE 1735689600 /* 2025-01-01 00:00:00: a host without a clock */

static u8 cmos_in(u8 index)
{
	outb(0x70, index);
	return inb(0x71);
}

static u32 number(u8 v, bool binary)
{
	return binary ? v : (v >> 4) * 10u + (v & 15);
}

/* False if an update was under way. */
static bool read_once(u8 out[6])
{
	static const u8 registers[6] = {0, 2, 4, 7, 8, 9};

	if (cmos_in(0x0a) & 0x80)
		return false;
	for (unsigned int i = 0; i < 6; i++)
		out[i] = cmos_in(registers[i]);
	return true;
}

s64 wallclock_read(void)
{
	u8 a[6], b[6], mode;
	u32 v[6];
	bool same = false, pm;

	/* A few thousand reads outlast an update of 2 ms on any machine. */
	for (unsigned int tries = 0; tries < 20000 && !same; tries++) {
		same = read_once(a) && read_once(b);
		for (unsigned int i = 0; same && i < 6; i++)
			same = a[i] == b[i];
	}
	if (!same)
		return FIXED_DATE;
	mode = cmos_in(0x0b);
	pm = !(mode & 2) && (a[2] & 0x80);
	if (pm)
		a[2] &= 0x7f;
	for (unsigned int i = 0; i < 6; i++)
		v[i] = number(a[i], mode & 4);
	if (!(mode & 2))
		v[2] = v[2] % 12 + (pm ? 12 : 0);
	if (v[0] > 59 || v[1] > 59 || v[2] > 23 || v[3] < 1 || v[3] > 31 || v[4] < 1 || v[4] > 12 ||
	    v[5] > 99)
		return FIXED_DATE;
	return rtc_seconds(2000 + v[5], v[4], v[3], v[2], v[1], v[0]);
}
