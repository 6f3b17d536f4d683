/*
 * Two cascaded 8259A interrupt controllers as in a PC (Intel 8259A data sheet): master at 0x20,
 * slave at 0xa0 on the master's IR2, edge/level registers (ELCR) at 0x4d0 and 0x4d1. 8080/8085 mode
 * is not there (ICW4.uPM is taken as set); LTIM of ICW1 is ignored in favour of ELCR, as chip sets
 * do. Plain data; the caller locks.
 */
#pragma once

#include "lib/types.h"

struct pic {
	u8 irr;	   /* requests */
	u8 isr;	   /* in service */
	u8 imr;	   /* masked */
	u8 lines;  /* levels of IR0-7 */
	u8 elcr;   /* 1 = level-triggered */
	u8 base;   /* vector of IR0 */
	u8 lowest; /* IR with the lowest priority; 7 after initialisation */
	u8 init;   /* next initialisation word: 0 none, 2 to 4 */
	bool icw4, single;
	bool read_isr, poll, special_mask;
	bool auto_eoi, rotate_auto_eoi, nested; /* nested: special fully nested mode */
	bool slave;
};

struct pic_pair {
	struct pic chip[2]; /* 0 master, 1 slave */
};

void pic_reset(struct pic_pair *p);
/* port: 0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1. */
u8 pic_read(struct pic_pair *p, u16 port);
void pic_write(struct pic_pair *p, u16 port, u8 value);
/* irq 0 to 15; 2 is the cascade and does nothing. */
void pic_set_line(struct pic_pair *p, unsigned int irq, bool level);
/* The vector that an INTA cycle would give now, or -1 if INTR is low. */
int pic_pending(const struct pic_pair *p);
/* INTA: the vector; IR7 of the chip concerned if the request has gone (spurious). */
u8 pic_ack(struct pic_pair *p);
