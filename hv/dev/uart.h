/*
 * A 16550A UART (National Semiconductor PC16550D data sheet) without line timing: what is sent has
 * left at once, so THR is always empty again; what was received below the trigger level is reported
 * by the time-out interrupt at once. Plain data; the caller locks.
 *
 * One liberty: IRQ does not depend on MCR.OUT2. The gate is the PC's, not the chip's, and kernels
 * that were made on QEMU, which has none, do not set it.
 */
#pragma once

#include "lib/types.h"

#define VUART_FIFO 16

struct vuart {
	u8 ier, fcr, lcr, mcr, msr, scr;
	u8 dll, dlm;
	u8 errors;     /* LSR bits OE..BI, cleared by reading LSR */
	bool thr_irq;  /* THRE interrupt pending */
	bool irq_drop; /* the IRQ output fell and may have risen again since vuart_irq() */
	u8 rx_head, rx_count;
	u8 rx[VUART_FIFO];
};

void vuart_reset(struct vuart *u);
/* reg 0 to 7. */
u8 vuart_read(struct vuart *u, unsigned int reg);
/* Returns the byte that leaves the wire, or -1. */
int vuart_write(struct vuart *u, unsigned int reg, u8 value);
/* Room for received bytes (0 in loopback: the wire is cut off). */
unsigned int vuart_rx_room(const struct vuart *u);
/* A byte arrives; overruns as the chip does if there is no room. */
void vuart_rx(struct vuart *u, u8 byte);
/* The level of the IRQ output; *dropped: it was low in between since the last call. */
bool vuart_irq(struct vuart *u, bool *dropped);
