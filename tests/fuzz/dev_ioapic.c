/* The I/O APIC under random programming, lines and EOIs. */
#include <stddef.h>
#include <stdint.h>

#include "dev/ioapic.h"
#include "lib/panic.h"

static bool taken;
static u32 sends;

bool ioapic_bus_send(struct ioapic *io, u64 entry)
{
	ASSERT(!(entry & IOAPIC_MASKED));
	sends++;
	return taken;
}

void ioapic_level_changed(struct ioapic *io)
{
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ioapic io;

	ioapic_reset(&io);
	for (size_t i = 0; i + 4 < size; i += 5) {
		u32 v = data[i + 1] | data[i + 2] << 8 | data[i + 3] << 16 | (u32)data[i + 4] << 24;

		taken = !(data[i] & 0x40);
		sends = 0;
		switch (data[i] & 7) {
		case 0:
			ioapic_write(&io, 0, v);
			break;
		case 1:
		case 2:
			ioapic_write(&io, 0x10, v);
			break;
		case 3:
			ioapic_read(&io, v & 0xff0);
			break;
		case 4:
			ioapic_eoi(&io, (u8)v);
			break;
		case 5:
			ioapic_write(&io, v & 0xff0, v);
			break;
		default:
			ioapic_set_line(&io, v % IOAPIC_PINS, v & 0x100);
			break;
		}
		ASSERT(sends <= IOAPIC_PINS);
		for (unsigned int pin = 0; pin < IOAPIC_PINS; pin++) {
			u64 e = io.redir[pin];
			bool level = (e & IOAPIC_LEVEL) && (e >> 8 & 7) <= 1;

			ASSERT(!(e & IOAPIC_REMOTE_IRR) || level);
			ASSERT(!(e & 0x00fffffffffe1000ull));
			/* An EOI that matters is in the map. */
			if (e & IOAPIC_REMOTE_IRR)
				ASSERT(io.level_vectors[(u8)e / 64] >> (e % 64) & 1);
		}
	}
	return 0;
}
