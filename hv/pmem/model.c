/* The model of memory controllers with write-pending queues: see medium.h. */
#include "pmem/model.h"

#include "lib/string.h"
#include "pmem/nfit_layout.h"

#define LINES_PER_PAGE (PAGE_SIZE / MEDIUM_LINE)
#define LINE_WORDS     (MEDIUM_LINE / sizeof(u64))
#define DRAIN_ONE_IN   4

void medium_init_model(struct medium *m, hpa_t base, u64 bytes, u32 controllers, u64 seed,
		       u8 *stored, u64 *written)
{
	memset(m, 0, sizeof(*m));
	m->kind = MEDIUM_MODEL;
	m->base = base;
	m->bytes = bytes;
	m->controllers = controllers;
	m->hints = controllers;
	m->stored = stored;
	m->written = written;
	m->random = seed * 2 + 1; /* never 0 */
	memcpy(phys_to_ptr(base), stored, bytes);
}

/* xorshift64* (Marsaglia, Vigna): 32 good bits. */
static u32 next_random(struct medium *m)
{
	u64 x = m->random;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	m->random = x;
	return (u32)(x * 0x2545f4914f6cdd1dull >> 32);
}

void model_written(struct medium *m, u64 offset, u64 bytes)
{
	if (!bytes || offset >= m->bytes)
		return;
	bytes = MIN(bytes, m->bytes - offset);
	for (u64 page = offset / PAGE_SIZE; page <= (offset + bytes - 1) / PAGE_SIZE; page++)
		__atomic_or_fetch(&m->written[page / 64], BIT64(page % 64), __ATOMIC_RELAXED);
}

static u64 *line_at(u8 *base, u64 offset)
{
	return (u64 *)(void *)(base + offset);
}

/*
 * Guests may be storing to the line: words are read one by one and once each, as a real line would
 * be caught between two stores.
 */
static bool same_line(const u64 *live, const u64 *stored)
{
	u64 difference = 0;

	for (u32 i = 0; i < LINE_WORDS; i++)
		difference |= __atomic_load_n(&live[i], __ATOMIC_RELAXED) ^ stored[i];
	return !difference;
}

static void copy_line(u64 *to, const u64 *from)
{
	for (u32 i = 0; i < LINE_WORDS; i++)
		to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}

/* What becomes of a pending line. */
typedef void (*line_fn)(struct medium *m, u64 offset, u64 *live, u64 *stored, u32 arg);

/* Calls fn for each line that is pending; returns how many were, and forgets pages where none is
 * left. */
static u64 for_pending(struct medium *m, line_fn fn, u32 arg)
{
	u8 *live = phys_to_ptr(m->base);
	u64 total = 0;

	for (u64 page = 0; page < m->bytes / PAGE_SIZE; page++) {
		u64 *word = &m->written[page / 64], at = page * PAGE_SIZE, left = 0;

		if (!__atomic_load_n(word, __ATOMIC_RELAXED)) {
			page |= 63;
			continue;
		}
		if (!(__atomic_load_n(word, __ATOMIC_RELAXED) >> page % 64 & 1))
			continue;
		/* Cleared before we look: who writes during that says so again. */
		__atomic_and_fetch(word, ~BIT64(page % 64), __ATOMIC_SEQ_CST);
		for (u64 end = at + PAGE_SIZE; at < end; at += MEDIUM_LINE) {
			u64 *l = line_at(live, at), *s = line_at(m->stored, at);

			if (same_line(l, s))
				continue;
			total++;
			if (fn)
				fn(m, at, l, s, arg);
			left += !same_line(l, s);
		}
		if (left)
			__atomic_or_fetch(word, BIT64(page % 64), __ATOMIC_RELAXED);
	}
	return total;
}

static void flush_line(struct medium *m, u64 offset, u64 *live, u64 *stored, u32 controller)
{
	if (offset / MODEL_INTERLEAVE % m->controllers != controller)
		return;
	copy_line(stored, live);
	m->lines_flushed++;
}

void model_flush(struct medium *m, u32 controller)
{
	for_pending(m, flush_line, controller);
}

static void drain_line(struct medium *m, u64 offset, u64 *live, u64 *stored, u32 one_in)
{
	if (next_random(m) % one_in)
		return;
	copy_line(stored, live);
	m->lines_drained++;
}

void model_drain(struct medium *m)
{
	for_pending(m, drain_line, DRAIN_ONE_IN);
}

/* `chance` of 256 that the line had left the queue by itself. */
static void cut_line(struct medium *m, u64 offset, u64 *live, u64 *stored, u32 chance)
{
	if ((next_random(m) & 255) < chance) {
		copy_line(stored, live);
		m->lines_drained++;
	} else {
		copy_line(live, stored);
		m->lines_lost++;
	}
}

void model_cut(struct medium *m)
{
	/* Queues are now nearly empty, now full: none, some, or all of it arrives. */
	static const u16 chances[] = {0, 16, 128, 240, 256};

	for_pending(m, cut_line, chances[next_random(m) % ARRAY_SIZE(chances)]);
	m->cuts++;
}

u64 model_pending(struct medium *m)
{
	return for_pending(m, NULL, 0);
}
