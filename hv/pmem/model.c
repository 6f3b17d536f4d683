/* The model of memory controllers with write-pending queues: see medium.h. */
#include "pmem/model.h"

#include "lib/string.h"
#include "pmem/nfit_layout.h"

#define LINE_WORDS   (MEDIUM_LINE / sizeof(u64))
#define DRAIN_ONE_IN 4

void medium_init_model(struct medium *m, hpa_t base, u64 bytes, u32 controllers, u64 seed,
		       u8 *stored, void *marks)
{
	memset(m, 0, sizeof(*m));
	m->kind = MEDIUM_MODEL;
	m->base = base;
	m->bytes = bytes;
	m->controllers = controllers;
	m->hints = controllers;
	m->stored = stored;
	marks_init(&m->written, marks, bytes / PAGE_SIZE);
	model_seed(m, seed);
	memcpy(phys_to_ptr(base), stored, bytes);
}

void model_seed(struct medium *m, u64 seed)
{
	m->random = seed * 2 + 1; /* never 0 */
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
		marks_add(&m->written, page);
}

static u64 *line_at(u8 *base, u64 offset)
{
	return (u64 *)(void *)(base + offset);
}

/*
 * Umbra may be writing to the line for the guest: words are read one by one and once each, as a
 * real line would be caught between two stores.
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

static u32 controller_of(const struct medium *m, u64 offset)
{
	return (u32)(offset / MODEL_INTERLEAVE % m->controllers);
}

/* What becomes of a pending line: false if it stays pending. */
typedef bool (*line_fn)(struct medium *m, u64 offset, u64 *live, u64 *stored, const void *arg);

/* Calls fn for each line that is pending; returns how many were. Pages with none left drop out. */
static u64 for_pending(struct medium *m, line_fn fn, const void *arg)
{
	u8 *live = phys_to_ptr(m->base);
	u64 total = 0;

	/* A page drops out before we look: who writes during that adds it again. */
	for (u64 page = 0; (page = marks_take(&m->written, page)) != MARKS_NONE; page++) {
		bool left = false;

		for (u64 at = page * PAGE_SIZE; at < (page + 1) * PAGE_SIZE; at += MEDIUM_LINE) {
			u64 *l = line_at(live, at), *s = line_at(m->stored, at);

			if (same_line(l, s))
				continue;
			total++;
			left |= !fn(m, at, l, s, arg);
		}
		if (left)
			marks_add(&m->written, page);
	}
	return total;
}

static bool flush_line(struct medium *m, u64 offset, u64 *live, u64 *stored, const void *arg)
{
	const u32 *controllers = arg;

	if (!(*controllers >> controller_of(m, offset) & 1))
		return false;
	copy_line(stored, live);
	m->lines_flushed++;
	return true;
}

void model_flush(struct medium *m, u32 controllers)
{
	for_pending(m, flush_line, &controllers);
}

static bool drain_line(struct medium *m, u64 offset, u64 *live, u64 *stored, const void *arg)
{
	if (next_random(m) % DRAIN_ONE_IN)
		return false;
	copy_line(stored, live);
	m->lines_drained++;
	return true;
}

void model_drain(struct medium *m)
{
	for_pending(m, drain_line, NULL);
}

/* Of 256: the chance that a line had left its controller's queue by itself. */
struct chances {
	u16 of[MEDIUM_CONTROLLERS];
};

static void pick_chances(struct medium *m, struct chances *chances)
{
	/* Queues are now nearly empty, now full: none, some, or all of it arrives. */
	static const u16 levels[] = {0, 16, 128, 240, 256};

	for (u32 c = 0; c < MEDIUM_CONTROLLERS; c++)
		chances->of[c] = m->unseen ? 256 : levels[next_random(m) % ARRAY_SIZE(levels)];
}

static bool arrives(struct medium *m, u64 offset, const struct chances *chances)
{
	return (next_random(m) & 255) < chances->of[controller_of(m, offset)];
}

static bool cut_line(struct medium *m, u64 offset, u64 *live, u64 *stored, const void *arg)
{
	if (arrives(m, offset, arg)) {
		copy_line(stored, live);
		m->lines_drained++;
	} else {
		copy_line(live, stored);
		m->lines_lost++;
	}
	return true;
}

void model_cut(struct medium *m)
{
	struct chances chances;

	pick_chances(m, &chances);
	for_pending(m, cut_line, &chances);
	m->cuts++;
}

struct image {
	struct chances chances;
	u8 *live, *stored;
};

static bool image_line(struct medium *m, u64 offset, u64 *live, u64 *stored, const void *arg)
{
	const struct image *image = arg;

	if (arrives(m, offset, &image->chances)) {
		copy_line(line_at(image->stored, offset), live);
		/* Once read, as what is live may change. */
		copy_line(line_at(image->live, offset), line_at(image->stored, offset));
	}
	return false;
}

void model_image(struct medium *m, struct medium *to)
{
	struct image image = {.live = phys_to_ptr(to->base), .stored = to->stored};

	pick_chances(m, &image.chances);
	memcpy(image.stored, m->stored, m->bytes);
	memcpy(image.live, m->stored, m->bytes);
	for_pending(m, image_line, &image);
	m->cuts++;
}

static bool stay(struct medium *m, u64 offset, u64 *live, u64 *stored, const void *arg)
{
	return false;
}

u64 model_pending(struct medium *m)
{
	return for_pending(m, stay, NULL);
}
