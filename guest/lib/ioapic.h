/* The IOAPIC (Intel 82093AA) and counters of the 8254, for tests. */
#pragma once

#include "cpu.h"

#define IOAPIC_BASE 0xfec00000ull
#define IOAPIC_PINS 24

#define IOAPIC_LOGICAL	  BIT(11)
#define IOAPIC_LOW	  BIT(13)
#define IOAPIC_REMOTE_IRR BIT(14)
#define IOAPIC_LEVEL	  BIT(15)
#define IOAPIC_MASKED	  BIT(16)

u32 ioapic_read(u32 index);
void ioapic_write(u32 index, u32 value);
/* Low half of a redirection entry; the destination is APIC ID 0. */
void ioapic_set(u32 pin, u32 low);
u32 ioapic_get(u32 pin);
void ioapic_mask(u32 pin);

/* Mode 0 to 5, binary, both bytes; count 0 is 65536. */
void pit_start(u32 channel, u32 mode, u16 count);
