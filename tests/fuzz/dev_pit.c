/* The 8254 and port 0x61 under random programming and time steps. */
#include <stddef.h>
#include <stdint.h>

#include "dev/pit.h"
#include "lib/panic.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pit p;
	u64 now = 0;

	pit_reset(&p);
	for (size_t i = 0; i + 1 < size; i += 2) {
		u8 v = data[i + 1];

		switch (data[i] & 7) {
		case 0 ... 3:
			if (data[i] & 8)
				pit_read(&p, data[i] & 3, now);
			else
				pit_write(&p, data[i] & 3, v, now);
			break;
		case 4:
			pit_write_61(&p, v, now);
			ASSERT((pit_read_61(&p, now) & 0x0f) == (v & 0x0f));
			break;
		case 5:
			now += v;
			break;
		case 6:
			now += (u64)v << (data[i] >> 3);
			break;
		default:
			/* Time goes to the deadline: there must be the edge, and not before. */
			if (pit_deadline(&p) != PIT_NEVER && pit_deadline(&p) > now) {
				ASSERT(!pit_edge(&p, pit_deadline(&p) - 1));
				now = pit_deadline(&p);
				ASSERT(pit_edge(&p, now));
				ASSERT(pit_out(&p, 0, now) || p.channel[0].mode == 0);
			}
			break;
		}
		for (unsigned int c = 0; c < 3; c++) {
			const struct pit_channel *ch = &p.channel[c];

			pit_out(&p, c, now);
			ASSERT(ch->count >= 1 && ch->count <= 65536 && ch->mode < 6);
			ASSERT(ch->next_at == PIT_NEVER || ch->next >= 2);
			ASSERT(!ch->running || ch->armed);
		}
		pit_edge(&p, now);
		ASSERT(pit_deadline(&p) > now);
	}
	return 0;
}
