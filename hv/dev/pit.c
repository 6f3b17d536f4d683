/* The 8254: see pit.h. "Clock" is a PIT clock since power-on. */
#include "dev/pit.h"

#define P61_GATE    BIT(0)
#define P61_SPEAKER BIT(1)
#define P61_REFRESH BIT(4)
#define P61_OUT2    BIT(5)
/* Channel 1 paces DRAM refresh at 15 us; software times delays by this bit's toggling. */
#define REFRESH_CLOCKS 18

static u32 modulus(const struct pit_channel *c)
{
	return c->bcd ? 10000 : 65536;
}

static bool periodic(const struct pit_channel *c)
{
	return c->mode == 2 || c->mode == 3;
}

static u64 elapsed(const struct pit_channel *c, u64 now)
{
	if (!c->running)
		return c->held;
	/* Loading takes one clock; a start "before power-on" is possible and wraps. */
	return (s64)(now - c->start) > 0 ? now - c->start : 0;
}

/* A count that waits for the end of the cycle takes over when that has come. */
static void settle(struct pit_channel *c, u64 now)
{
	u64 high;

	if (c->next_at == PIT_NEVER || now < c->next_at || !c->running)
		return;
	high = (c->next + 1) / 2;
	c->start = c->next_at;
	/* Mode 3 may have ended its high half: then the low half of the new count follows. */
	if (c->next_low)
		c->start -= high;
	c->next_low = false;
	c->count = c->next;
	c->next = 0;
	c->next_at = PIT_NEVER;
}

/* The value of the counting element. */
static u32 value(const struct pit_channel *c, u64 now)
{
	u64 e = elapsed(c, now);
	u32 phase, high;

	if (!c->armed)
		return c->count % modulus(c);
	switch (c->mode) {
	case 2:
		return c->count - (u32)(e % c->count);
	case 3:
		phase = (u32)(e % c->count);
		high = (c->count + 1) / 2;
		return (c->count & ~1u) - 2 * (phase < high ? phase : phase - high);
	default: /* counts on through zero */
		return (u32)((c->count + modulus(c) - e % modulus(c)) % modulus(c));
	}
}

static bool out(const struct pit_channel *c, u64 now)
{
	u64 e = elapsed(c, now);

	switch (c->mode) {
	case 0:
		return c->armed && e >= c->count;
	case 1:
		return !c->armed || e >= c->count;
	case 2:
		return !c->armed || !c->gate || e % c->count != c->count - 1;
	case 3:
		return !c->armed || !c->gate || e % c->count < (c->count + 1) / 2;
	default: /* 4, 5: a strobe of one clock */
		return !c->armed || e != c->count;
	}
}

/* Clock of the output's next rising edge after `now`. */
static u64 next_edge(const struct pit_channel *c, u64 now)
{
	u64 e = elapsed(c, now), at;

	if (!c->armed || !c->running)
		return PIT_NEVER;
	switch (c->mode) {
	case 0:
	case 1:
		at = c->start + c->count;
		break;
	case 2:
	case 3:
		at = c->start + (e / c->count + 1) * c->count;
		/* A waiting count changes what follows the edge, or moves it if it comes first. */
		if (c->next_at != PIT_NEVER && c->next_at < at)
			at = c->next_at + c->next / 2;
		return at;
	default:
		at = c->start + c->count + 1;
		break;
	}
	return at > now ? at : PIT_NEVER;
}

/* --- programming ---------------------------------------------------------------------------- */

static void start(struct pit_channel *c, u32 count, u64 now)
{
	c->count = count;
	c->next = 0;
	c->next_at = PIT_NEVER;
	c->next_low = false;
	c->held = 0;
	c->start = now + 1;
	c->armed = true;
	c->running = c->gate || c->mode == 1 || c->mode == 5;
}

static u32 decode(const struct pit_channel *c, u32 raw)
{
	u32 n = raw;

	if (c->bcd)
		n = (raw >> 12) * 1000 + (raw >> 8 & 15) * 100 + (raw >> 4 & 15) * 10 + (raw & 15);
	return n ? MIN(n, modulus(c)) : modulus(c);
}

static u32 encode(const struct pit_channel *c, u32 n)
{
	if (!c->bcd)
		return n & 0xffff;
	n %= 10000;
	return n / 1000 << 12 | n / 100 % 10 << 8 | n / 10 % 10 << 4 | n % 10;
}

static void load(struct pit_channel *c, u32 raw, u64 now)
{
	u32 count = decode(c, raw);
	u64 e = elapsed(c, now), half;

	/* Count 1 is illegal in modes 2 and 3; the shortest cycle stands for it. */
	if (periodic(c) && count < 2)
		count = 2;
	if (c->mode == 1 || c->mode == 5) {
		c->next = count;
		return;
	}
	if (!periodic(c) || !c->armed) {
		start(c, count, now);
		return;
	}
	if (!c->running) { /* the gate's rise will load it */
		c->next = count;
		return;
	}
	/* Modes 2 and 3: at the end of the current cycle, or half cycle. */
	half = (c->count + 1) / 2;
	c->next = count;
	c->next_low = c->mode == 3 && e % c->count < half;
	c->next_at = c->start + e / c->count * c->count + (c->next_low ? half : c->count);
}

static void set_mode(struct pit_channel *c, u8 control)
{
	u8 mode = control >> 1 & 7;

	c->mode = mode > 5 ? mode - 4 : mode;
	c->access = control >> 4 & 3;
	c->bcd = control & 1;
	c->armed = c->running = c->next_low = false;
	c->held = 0;
	c->next = 0;
	c->next_at = PIT_NEVER;
	c->latched = 0;
	c->status_latched = c->write_high = c->read_high = false;
}

static void latch_count(struct pit_channel *c, u64 now)
{
	if (c->latched) /* the first latch stays until it is read */
		return;
	c->latch = (u16)encode(c, value(c, now));
	c->latched = c->access;
}

static void latch_status(struct pit_channel *c, u64 now)
{
	bool null = c->next || !c->armed || (c->running && now < c->start);

	if (c->status_latched)
		return;
	c->status = (u8)(out(c, now) << 7 | null << 6 | c->access << 4 | c->mode << 1 | c->bcd);
	c->status_latched = true;
}

static void read_back(struct pit *p, u8 control, u64 now)
{
	for (unsigned int i = 0; i < 3; i++) {
		if (!(control & BIT(i + 1)))
			continue;
		if (!(control & BIT(5)))
			latch_count(&p->channel[i], now);
		if (!(control & BIT(4)))
			latch_status(&p->channel[i], now);
	}
}

static void write_counter(struct pit_channel *c, u8 byte, u64 now)
{
	switch (c->access) {
	case 1:
		load(c, byte, now);
		break;
	case 2:
		load(c, (u32)byte << 8, now);
		break;
	default:
		if (c->write_high) {
			load(c, (u32)byte << 8 | c->low, now);
		} else {
			c->low = byte;
			if (c->mode == 0) /* the first byte stops the count, output low */
				c->armed = c->running = false;
		}
		c->write_high = !c->write_high;
		break;
	}
}

static u8 read_counter(struct pit_channel *c, u64 now)
{
	u32 v;

	if (c->status_latched) {
		c->status_latched = false;
		return c->status;
	}
	if (c->latched) {
		bool high = !(c->latched & 1);

		c->latched &= high ? 0 : 2;
		return (u8)(high ? c->latch >> 8 : c->latch);
	}
	v = encode(c, value(c, now));
	if (c->access == 2)
		return (u8)(v >> 8);
	if (c->access == 3) {
		c->read_high = !c->read_high;
		return (u8)(c->read_high ? v : v >> 8);
	}
	return (u8)v;
}

/* Channel 0's edges up to `now` have been seen; what is next? */
static void schedule(struct pit *p, u64 now)
{
	p->irq_next = next_edge(&p->channel[0], now);
}

void pit_write(struct pit *p, unsigned int reg, u8 v, u64 now)
{
	unsigned int select = reg < 3 ? reg : v >> 6;
	struct pit_channel *c = &p->channel[select % 3];
	bool missed = now >= p->irq_next, was;

	if (reg == 3 && select == 3) {
		for (unsigned int i = 0; i < 3; i++)
			settle(&p->channel[i], now);
		read_back(p, v, now);
		return;
	}
	settle(c, now);
	was = out(c, now);
	if (reg < 3)
		write_counter(c, v, now);
	else if (!(v & 0x30))
		latch_count(c, now);
	else
		set_mode(c, v);
	if (c != &p->channel[0] || (reg == 3 && !(v & 0x30)))
		return;
	schedule(p, now);
	/* An edge that was due and not yet asked for, or one that the new mode itself makes. */
	if (missed || (!was && out(c, now)))
		p->irq_next = now;
}

u8 pit_read(struct pit *p, unsigned int reg, u64 now)
{
	if (reg > 2) /* the control word cannot be read */
		return 0xff;
	settle(&p->channel[reg], now);
	return read_counter(&p->channel[reg], now);
}

bool pit_out(struct pit *p, unsigned int channel, u64 now)
{
	settle(&p->channel[channel], now);
	return out(&p->channel[channel], now);
}

bool pit_edge(struct pit *p, u64 now)
{
	if (now < p->irq_next || p->irq_next == PIT_NEVER)
		return false;
	settle(&p->channel[0], now);
	schedule(p, now);
	return true;
}

u64 pit_deadline(const struct pit *p)
{
	return p->irq_next;
}

/* --- gate of channel 2 ---------------------------------------------------------------------- */

static void set_gate(struct pit_channel *c, bool gate, u64 now)
{
	bool rises = gate && !c->gate;

	settle(c, now);
	if (rises && (c->mode == 1 || c->mode == 5)) {
		if (c->next || c->armed)
			start(c, c->next ? c->next : c->count, now);
	} else if (c->armed && periodic(c) && gate != c->gate) {
		/* Falling stops (and forces the output high), rising begins a cycle. */
		if (gate) {
			start(c, c->next ? c->next : c->count, now);
			c->running = true;
		} else {
			c->held = elapsed(c, now);
			c->next_at = PIT_NEVER;
			c->running = false;
		}
	} else if (c->armed && !periodic(c) && gate != c->gate && c->mode != 1 && c->mode != 5) {
		if (gate) {
			c->start = now - c->held;
			c->held = 0;
		} else {
			c->held = elapsed(c, now);
		}
		c->running = gate;
	}
	c->gate = gate;
}

u8 pit_read_61(struct pit *p, u64 now)
{
	u8 refresh = now / REFRESH_CLOCKS & 1 ? P61_REFRESH : 0;

	return (p->port61 & 0x0f) | refresh | (pit_out(p, 2, now) ? P61_OUT2 : 0);
}

void pit_write_61(struct pit *p, u8 v, u64 now)
{
	set_gate(&p->channel[2], v & P61_GATE, now);
	p->port61 = v & 0x0f;
}

void pit_reset(struct pit *p)
{
	*p = (struct pit){.irq_next = PIT_NEVER};
	for (unsigned int i = 0; i < 3; i++) {
		set_mode(&p->channel[i], 0x34);
		p->channel[i].count = 65536;
		p->channel[i].gate = i < 2;
	}
}
