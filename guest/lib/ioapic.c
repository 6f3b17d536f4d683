/* IOAPIC and 8254. Contract in ioapic.h. */
#include "ioapic.h"

static volatile u32 *const ioregsel = (volatile u32 *)(uintptr_t)IOAPIC_BASE;
static volatile u32 *const iowin = (volatile u32 *)(uintptr_t)(IOAPIC_BASE + 0x10);

u32 ioapic_read(u32 index)
{
	*ioregsel = index;
	return *iowin;
}

void ioapic_write(u32 index, u32 value)
{
	*ioregsel = index;
	*iowin = value;
}

void ioapic_set(u32 pin, u32 low)
{
	ioapic_write(0x10 + 2 * pin, IOAPIC_MASKED);
	ioapic_write(0x11 + 2 * pin, 0);
	ioapic_write(0x10 + 2 * pin, low);
}

u32 ioapic_get(u32 pin)
{
	return ioapic_read(0x10 + 2 * pin);
}

void ioapic_mask(u32 pin)
{
	ioapic_set(pin, IOAPIC_MASKED);
}

void pit_start(u32 channel, u32 mode, u16 count)
{
	outb(0x43, (u8)(channel << 6 | 0x30 | mode << 1));
	outb((u16)(0x40 + channel), (u8)count);
	outb((u16)(0x40 + channel), (u8)(count >> 8));
}
