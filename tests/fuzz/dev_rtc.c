/* The MC146818 under random register accesses and time steps. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "dev/rtc.h"
#include "lib/panic.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rtc r;
	u64 now = 0;
	s64 start = 0;

	if (size < 4)
		return 0;
	memcpy(&start, data, 4);
	rtc_reset(&r, start, 64 * MIB, 0, 1);
	for (size_t i = 4; i + 1 < size; i += 2) {
		u64 deadline;

		switch (data[i] & 7) {
		case 0:
		case 1:
			rtc_select(&r, data[i + 1]);
			break;
		case 2:
		case 3:
			rtc_select(&r, data[i] >> 3 & 15);
			rtc_write(&r, data[i + 1], now);
			break;
		case 4:
			rtc_write(&r, data[i + 1], now);
			break;
		case 5:
			rtc_read(&r, now);
			break;
		default:
			now += (u64)data[i + 1] << (data[i] >> 3);
			break;
		}
		rtc_irq(&r, now);
		deadline = rtc_deadline(&r, now);
		ASSERT(deadline > now);
		/* Up to the deadline the line does not change by itself. */
		if (deadline != RTC_NEVER) {
			struct rtc copy = r;

			ASSERT(!rtc_irq(&copy, deadline - 1));
		}
		ASSERT((s64)(now - r.base) >= 0 && (r.cmos[0x0d] & 0x80) && !(r.cmos[0x0a] & 0x80));
		/* Flag and enable are the line. */
		ASSERT(!(r.cmos[0x0c] & 0x80) == !(r.cmos[0x0b] & r.cmos[0x0c] & 0x70));
	}
	return 0;
}
