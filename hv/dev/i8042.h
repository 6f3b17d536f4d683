/*
 * The keyboard controller (i8042) without keyboard and mouse, port 0x92 and the reset control
 * register 0xcf9. A20 is a bit that reads back; the address line itself is always on. Plain data;
 * the caller locks.
 */
#pragma once

#include "lib/types.h"

struct i8042 {
	u8 status;	/* bits OBF, SYS, CMD and time-out */
	u8 command;	/* whose data byte is awaited, 0 = none */
	u8 out;		/* output buffer */
	u8 output_port; /* bit 0 reset line (1 = run), bit 1 A20 */
	u8 cf9;
	u8 ram[32]; /* ram[0] is the command byte */
};

void i8042_reset(struct i8042 *k);
/* port: 0x60, 0x64, 0x92, 0xcf9. */
u8 i8042_read(struct i8042 *k, u16 port);
/* Returns true if the write resets the machine. */
bool i8042_write(struct i8042 *k, u16 port, u8 value);
/* Level of IRQ 1. */
bool i8042_irq(const struct i8042 *k);
