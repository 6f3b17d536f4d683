/*
 * An 8254 programmable interval timer (Intel 8254 data sheet) and port 0x61. Time comes in as PIT
 * clocks since power-on (1,193,182 Hz); all counts are computed from the clock at which a count was
 * loaded, nothing is accumulated. A count written at clock t is in the counter at clock t + 1.
 * Plain data; the caller locks.
 */
#pragma once

#include "lib/types.h"

#define PIT_HZ	  1193182
#define PIT_NEVER (~0ull)

struct pit_channel {
	u64 start;   /* clock at which the current count was loaded (its value then is `count`) */
	u64 held;    /* clocks counted when the gate stopped it */
	u64 next_at; /* clock at which `next` takes over (modes 2, 3); PIT_NEVER = nothing waits */
	u32 count;   /* 1 to 65536 (or 10000 in BCD) */
	u32 next;    /* modes 1 and 5: for the next trigger; 2 and 3: for next_at; 0 = none */
	u16 latch;   /* output latch */
	u8 mode;     /* 0 to 5 */
	u8 access;   /* 1 low byte, 2 high byte, 3 both */
	u8 status;   /* latched status byte */
	u8 low;	     /* first byte of a two-byte write */
	u8 latched;  /* bytes of `latch` still to be read */
	bool bcd, gate;
	bool next_low; /* mode 3: at next_at the low half begins */
	bool running;  /* counting */
	bool armed;    /* a count has been loaded since the mode was set */
	bool status_latched;
	bool write_high, read_high; /* the second byte is next */
};

struct pit {
	struct pit_channel channel[3];
	u64 irq_next; /* clock of channel 0's next rising edge of OUT, PIT_NEVER = none */
	u8 port61;    /* bits 3:0 as written */
};

void pit_reset(struct pit *p);
/* reg 0 to 2: counters, 3: control word. `now` never goes back. */
u8 pit_read(struct pit *p, unsigned int reg, u64 now);
void pit_write(struct pit *p, unsigned int reg, u8 value, u64 now);
u8 pit_read_61(struct pit *p, u64 now);
void pit_write_61(struct pit *p, u8 value, u64 now);
/* Level of a channel's OUT. */
bool pit_out(struct pit *p, unsigned int channel, u64 now);
/* True if channel 0's output has risen since the last call (several edges count as one). */
bool pit_edge(struct pit *p, u64 now);
/* Clock at which pit_edge() is to be asked next, PIT_NEVER = no need. */
u64 pit_deadline(const struct pit *p);
