/* The 8259A pair: see pic.h. */
#include "dev/pic.h"

#define ICW1	  BIT(4)
#define ICW1_IC4  BIT(0)
#define ICW1_SNGL BIT(1)
#define ICW4_AEOI BIT(1)
#define ICW4_SFNM BIT(4)
#define OCW3	  BIT(3)
#define OCW3_RIS  BIT(0)
#define OCW3_RR	  BIT(1)
#define OCW3_POLL BIT(2)
#define OCW3_SMM  BIT(5)
#define OCW3_ESMM BIT(6)
#define CASCADE	  2
#define SPURIOUS  7

/* OCW2 bits 7:5 (R, SL, EOI). */
enum ocw2 {
	OCW2_ROTATE_AEOI_CLEAR,
	OCW2_EOI,
	OCW2_NOP,
	OCW2_SPECIFIC_EOI,
	OCW2_ROTATE_AEOI_SET,
	OCW2_ROTATE_EOI,
	OCW2_SET_PRIORITY,
	OCW2_ROTATE_SPECIFIC_EOI,
};

/* ELCR: the timer, keyboard, cascade, RTC and FPU lines cannot be level-triggered. */
static const u8 elcr_mask[2] = {0xf8, 0xde};

/* The IR with the highest priority among `set`, or -1. */
static int first_by_priority(const struct pic *c, u8 set)
{
	for (unsigned int i = 1; i <= 8; i++) {
		unsigned int ir = (c->lowest + i) & 7;

		if (set & BIT(ir))
			return (int)ir;
	}
	return -1;
}

/* Priority rank of an IR: 0 is highest. */
static unsigned int rank(const struct pic *c, int ir)
{
	return ((unsigned int)ir - c->lowest - 1) & 7;
}

/* The IR that makes INTR high, or -1. */
static int pick(const struct pic *c)
{
	int request = first_by_priority(c, c->irr & (u8)~c->imr);
	u8 blocking = c->isr;
	int service;

	if (request < 0)
		return -1;
	if (c->special_mask)
		blocking &= (u8)~c->imr;
	/* A slave's request of higher priority must come through its own service bit. */
	if (c->nested && !c->slave)
		blocking &= (u8)~BIT(CASCADE);
	service = first_by_priority(c, blocking);
	return service < 0 || rank(c, request) < rank(c, service) ? request : -1;
}

static void set_line(struct pic *c, unsigned int ir, bool level)
{
	u8 bit = (u8)BIT(ir);
	bool rises = level && !(c->lines & bit);

	c->lines = level ? c->lines | bit : c->lines & (u8)~bit;
	/* A request that goes away before INTA is lost: that is where spurious interrupts come
	 * from. */
	if (!level)
		c->irr &= (u8)~bit;
	else if (rises || (c->elcr & bit))
		c->irr |= bit;
}

static void update_cascade(struct pic_pair *p)
{
	set_line(&p->chip[0], CASCADE, pick(&p->chip[1]) >= 0);
}

static void reset_chip(struct pic *c, bool slave)
{
	*c = (struct pic){.lowest = 7, .slave = slave, .imr = 0xff};
}

void pic_reset(struct pic_pair *p)
{
	reset_chip(&p->chip[0], false);
	reset_chip(&p->chip[1], true);
}

static void end_of_interrupt(struct pic *c, int ir, bool rotate)
{
	if (ir < 0)
		return;
	c->isr &= (u8)~BIT(ir);
	if (rotate)
		c->lowest = (u8)ir;
}

static void write_ocw2(struct pic *c, u8 value)
{
	u8 ir = value & 7;
	/* In special mask mode a non-specific EOI does not touch masked levels. */
	u8 ends = c->special_mask ? c->isr & (u8)~c->imr : c->isr;

	switch ((enum ocw2)(value >> 5)) {
	case OCW2_ROTATE_AEOI_CLEAR:
	case OCW2_ROTATE_AEOI_SET:
		c->rotate_auto_eoi = value >> 7;
		break;
	case OCW2_EOI:
	case OCW2_ROTATE_EOI:
		end_of_interrupt(c, first_by_priority(c, ends), value >> 7);
		break;
	case OCW2_SPECIFIC_EOI:
	case OCW2_ROTATE_SPECIFIC_EOI:
		end_of_interrupt(c, ir, value >> 7);
		break;
	case OCW2_SET_PRIORITY:
		c->lowest = ir;
		break;
	case OCW2_NOP:
		break;
	}
}

static void write_ocw3(struct pic *c, u8 value)
{
	if (value & OCW3_POLL)
		c->poll = true;
	else if (value & OCW3_RR)
		c->read_isr = value & OCW3_RIS;
	if (value & OCW3_ESMM)
		c->special_mask = value & OCW3_SMM;
}

static void write_icw1(struct pic *c, u8 value)
{
	u8 lines = c->lines, elcr = c->elcr, base = c->base;

	reset_chip(c, c->slave);
	c->imr = 0;
	c->elcr = elcr;
	c->base = base;
	c->lines = lines;
	c->irr = lines & elcr; /* edges must come again */
	c->icw4 = value & ICW1_IC4;
	c->single = value & ICW1_SNGL;
	c->init = 2;
}

static void write_odd(struct pic *c, u8 value)
{
	switch (c->init) {
	case 2:
		c->base = value & 0xf8;
		c->init = !c->single ? 3 : c->icw4 ? 4 : 0;
		break;
	case 3: /* how the chips are wired is not up to software */
		c->init = c->icw4 ? 4 : 0;
		break;
	case 4:
		c->auto_eoi = value & ICW4_AEOI;
		c->nested = value & ICW4_SFNM;
		c->init = 0;
		break;
	default:
		c->imr = value;
		break;
	}
}

void pic_write(struct pic_pair *p, u16 port, u8 value)
{
	struct pic *c;

	if (port >= 0x4d0) {
		c = &p->chip[port & 1];
		c->elcr = value & elcr_mask[port & 1];
		c->irr |= c->lines & c->elcr;
	} else {
		c = &p->chip[port >> 7 & 1];
		if (port & 1)
			write_odd(c, value);
		else if (value & ICW1)
			write_icw1(c, value);
		else if (value & OCW3)
			write_ocw3(c, value);
		else
			write_ocw2(c, value);
	}
	update_cascade(p);
}

/* The INTA cycle of one chip: the IR it serves, or -1 if the request has gone. */
static int acknowledge(struct pic *c)
{
	int ir = pick(c);

	if (ir < 0)
		return -1;
	if (!(c->elcr & BIT(ir)) && !(ir == CASCADE && !c->slave))
		c->irr &= (u8)~BIT(ir);
	if (!c->auto_eoi)
		c->isr |= (u8)BIT(ir);
	else if (c->rotate_auto_eoi)
		c->lowest = (u8)ir;
	return ir;
}

u8 pic_read(struct pic_pair *p, u16 port)
{
	struct pic *c;
	int ir;

	if (port >= 0x4d0)
		return p->chip[port & 1].elcr;
	c = &p->chip[port >> 7 & 1];
	if (c->poll) { /* a poll is an INTA by reading */
		c->poll = false;
		ir = acknowledge(c);
		update_cascade(p);
		return ir < 0 ? 0 : (u8)(0x80 | ir);
	}
	if (port & 1)
		return c->imr;
	return c->read_isr ? c->isr : c->irr;
}

void pic_set_line(struct pic_pair *p, unsigned int irq, bool level)
{
	if (irq == CASCADE || irq > 15)
		return;
	set_line(&p->chip[irq >> 3], irq & 7, level);
	if (irq > 7)
		update_cascade(p);
}

int pic_pending(const struct pic_pair *p)
{
	int ir = pick(&p->chip[0]);

	if (ir < 0)
		return -1;
	if (ir != CASCADE)
		return p->chip[0].base + ir;
	ir = pick(&p->chip[1]);
	return p->chip[1].base + (ir < 0 ? SPURIOUS : ir);
}

u8 pic_ack(struct pic_pair *p)
{
	int ir = acknowledge(&p->chip[0]);

	if (ir < 0)
		return p->chip[0].base + SPURIOUS;
	if (ir != CASCADE)
		return (u8)(p->chip[0].base + ir);
	ir = acknowledge(&p->chip[1]);
	update_cascade(p);
	return (u8)(p->chip[1].base + (ir < 0 ? SPURIOUS : ir));
}
