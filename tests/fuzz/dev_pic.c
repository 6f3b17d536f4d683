/* The 8259 pair under random programming, lines and acknowledgements. */
#include <stddef.h>
#include <stdint.h>

#include "dev/pic.h"
#include "lib/panic.h"

static void check(const struct pic_pair *p)
{
	for (int i = 0; i < 2; i++) {
		const struct pic *c = &p->chip[i];

		/* Level-triggered requests follow their lines, and no request lacks its line. */
		ASSERT((c->irr & c->elcr) == (c->lines & c->elcr));
		ASSERT(!(c->irr & ~c->lines));
		ASSERT(c->lowest < 8 && (c->base & 7) == 0 && (c->init == 0 || c->init >= 2));
	}
	ASSERT(!(p->chip[0].elcr & 7) && !(p->chip[1].elcr & 0x21));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const u16 ports[] = {0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1, 0x20, 0xa0};
	struct pic_pair p;

	pic_reset(&p);
	for (size_t i = 0; i + 1 < size; i += 2) {
		u16 port = ports[data[i] & 7];
		int pending;

		switch (data[i] >> 6) {
		case 0:
			pic_read(&p, port);
			break;
		case 1:
			pic_write(&p, port, data[i + 1]);
			break;
		case 2:
			pic_set_line(&p, data[i + 1] & 15, data[i + 1] & 16);
			break;
		default:
			pending = pic_pending(&p);
			if (data[i + 1] & 1) { /* INTA without INTR: IR7, and nothing in service */
				struct pic_pair before = p;
				u8 vector = pic_ack(&p);

				if (pending < 0) {
					ASSERT(vector == p.chip[0].base + 7);
					ASSERT(p.chip[0].isr == before.chip[0].isr);
				} else {
					ASSERT(vector == pending);
					ASSERT(p.chip[0].auto_eoi || p.chip[0].isr != 0);
				}
			}
			break;
		}
		check(&p);
		/* What is pending is requested, unmasked, and not in service already. */
		pending = pic_pending(&p);
		if (pending >= 0) {
			const struct pic *m = &p.chip[0];

			ASSERT(m->irr & ~m->imr);
		}
	}
	return 0;
}
