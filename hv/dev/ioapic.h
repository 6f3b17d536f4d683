/*
 * An I/O APIC with 24 pins (Intel 82093AA data sheet; EOI register and version 0x20 as in later
 * chip sets). Polarity is stored and not acted upon: lines here carry "asserted", not a voltage.
 * Plain data; the caller locks.
 */
#pragma once

#include "lib/types.h"

#define IOAPIC_BASE_ADDRESS 0xfec00000ull
#define IOAPIC_PINS	    24

#define IOAPIC_VECTOR	  0xffull
#define IOAPIC_MODE_SHIFT 8
#define IOAPIC_LOGICAL	  BIT64(11)
#define IOAPIC_REMOTE_IRR BIT64(14)
#define IOAPIC_LEVEL	  BIT64(15)
#define IOAPIC_MASKED	  BIT64(16)
#define IOAPIC_DEST_SHIFT 56

struct ioapic {
	u64 redir[IOAPIC_PINS];
	u64 level_vectors[4]; /* bitmap: vectors of unmasked or in-service level entries; atomic
				 words */
	u32 lines;	      /* asserted pins */
	u32 id;
	u8 select;
};

void ioapic_reset(struct ioapic *io);
/* Offset within the 4 KiB page: IOREGSEL 0x00, IOWIN 0x10, EOI 0x40. Others: 0, ignored. */
u32 ioapic_read(struct ioapic *io, u32 offset);
void ioapic_write(struct ioapic *io, u32 offset, u32 value);
void ioapic_set_line(struct ioapic *io, unsigned int pin, bool level);
/* A local APIC's EOI of a level-triggered vector: clears Remote IRR, delivers again if asserted. */
void ioapic_eoi(struct ioapic *io, u8 vector);

/*
 * dev/platform.c defines this: sends the message that the entry describes. True if some local APIC
 * took it.
 */
bool ioapic_bus_send(struct ioapic *io, u64 entry);
/* level_vectors changed. */
void ioapic_level_changed(struct ioapic *io);
