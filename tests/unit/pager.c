/*
 * The pager against a model of the machine: vCPUs that read and write through a view, which keep
 * old translations until they are invalidated, and a store that completes in any order. Every read
 * is compared with what was written last.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "remote/pager.h"
#include "remote/stride.h"

#define PAGES  1024u
#define FRAMES PAGER_MIN_FRAMES
#define WORDS  (PAGE_SIZE / 8)
#define VCPUS  2u
#define POSTED 64u

struct mapping {
	bool present, writable, accessed, dirty;
	u32 frame;
};

static struct {
	struct pager *pager;
	void *memory;
	struct pager_config config;
	struct mapping view[PAGES], stale[PAGES]; /* stale: what CPUs may still use */
	u64 frame[FRAMES][WORDS];
	u64 expected[PAGES]; /* the first word, and every other one is derived */
	u64 remote[PAGES][WORDS];
	bool stored[PAGES];
	struct pager_op posted[POSTED];
	u64 copy[POSTED][WORDS]; /* of a write, as it was when it was posted */
	u32 posted_count;
	bool fetches; /* faults may post their own READs */
	u64 now;
	u32 reads, writes, unmaps;
	bool hole_tolerated;
} m;

static u64 word_of(u64 seed, u32 i)
{
	return seed ? seed * 0x9e3779b97f4a7c15ull + i : 0;
}

static void fill(u64 *to, u64 seed)
{
	for (u32 i = 0; i < WORDS; i++)
		to[i] = word_of(seed, i);
}

static void check(const u64 *bytes, u64 seed)
{
	for (u32 i = 0; i < WORDS; i += 73)
		assert_int_equal(bytes[i], word_of(seed, i));
	assert_int_equal(bytes[WORDS - 1], word_of(seed, WORDS - 1));
}

static bool op_accessed(void *ctx, u32 page)
{
	bool was = m.view[page].accessed;

	assert_true(m.config.flags);
	assert_true(m.view[page].present);
	m.view[page].accessed = false;
	return was;
}

static bool op_unmap(void *ctx, u32 page)
{
	struct mapping old = m.view[page];

	assert_true(old.present);
	m.stale[page] = old;
	m.view[page] = (struct mapping){0};
	m.unmaps++;
	return m.config.flags && old.dirty;
}

static void *op_data(void *ctx, u32 frame)
{
	return m.frame[frame];
}

static const struct pager_ops ops = {op_accessed, op_unmap, op_data};

static void setup(bool flags, bool prefetch)
{
	memset(&m, 0, sizeof(m));
	m.config = (struct pager_config){.pages = PAGES,
					 .frames = FRAMES,
					 .vcpus = VCPUS,
					 .flags = flags,
					 .prefetch = prefetch};
	m.memory = calloc(1, pager_bytes(&m.config));
	m.pager = pager_init(m.memory, &m.config, &ops, NULL);
	assert_non_null(m.pager);
	/* Frames that nobody has cleared. */
	memset(m.frame, 0xa5, sizeof(m.frame));
}

static void teardown(void)
{
	free(m.memory);
}

static void map(u32 page, const struct pager_place *place)
{
	struct mapping *v = &m.view[page];

	*v = (struct mapping){true, place->writable, true, false, place->frame};
}

/* --- the store -------------------------------------------------------------------------------- */

/* False: it is back in the queue. */
static bool post_one(const struct pager_op *op)
{
	if (m.posted_count == POSTED || rand() % 16 == 0) {
		pager_put_back(m.pager, op);
		return false;
	}
	if (op->write)
		memcpy(m.copy[m.posted_count], m.frame[op->frame], PAGE_SIZE);
	else
		assert_true(m.stored[op->page]);
	m.posted[m.posted_count++] = *op;
	return true;
}

static void post(void)
{
	struct pager_op op;

	while (pager_next(m.pager, &op))
		if (!post_one(&op))
			return;
}

static void complete_one(u32 i, bool ok)
{
	struct pager_op op = m.posted[i];
	struct pager_place place;

	if (op.write) {
		/* It was read at any time between post and now: it must not have changed. */
		assert_memory_equal(m.copy[i], m.frame[op.frame], PAGE_SIZE);
		if (ok) {
			memcpy(m.remote[op.page], m.copy[i], PAGE_SIZE);
			m.stored[op.page] = true;
		}
		m.writes += ok;
	} else {
		memcpy(m.frame[op.frame], m.remote[op.page], PAGE_SIZE);
		m.reads++;
		ok = true;
	}
	m.posted_count--;
	m.posted[i] = m.posted[m.posted_count];
	memcpy(m.copy[i], m.copy[m.posted_count], PAGE_SIZE);
	if (pager_done(m.pager, &op, ok, m.now, &place))
		map(op.page, &place);
}

static void complete_all(void)
{
	for (post(); m.posted_count; post())
		complete_one(0, true);
	while (pager_queued(m.pager)) {
		post();
		while (m.posted_count)
			complete_one(0, true);
	}
}

/* --- guests ----------------------------------------------------------------------------------- */

/* One access through what a CPU may use as translation: false: it has to fault. */
static bool through(struct mapping *t, u32 page, bool write, u64 seed)
{
	if (!t->present || (write && !t->writable))
		return false;
	t->accessed = true;
	if (write) {
		t->dirty = true;
		m.expected[page] = seed;
		fill(m.frame[t->frame], seed);
	} else {
		check(m.frame[t->frame], m.expected[page]);
	}
	return true;
}

static enum pager_answer fault(u32 page, bool write, bool whole, bool door,
			       struct pager_place *place)
{
	struct pager_access a = {.page = page,
				 .now = m.now,
				 .write = write,
				 .whole = whole,
				 .door = door,
				 .posts = m.fetches && rand() % 2,
				 .level = rand() % 8 ? 0 : (u8)(1 + rand() % 4)};
	enum pager_answer answer = pager_access(m.pager, &a, place);

	if (answer == PAGER_FETCH) {
		assert_true(a.posts);
		post_one(&(struct pager_op){.page = page, .frame = place->frame});
		return PAGER_WAIT;
	}
	if (answer == PAGER_READY && !door)
		map(page, place);
	return answer;
}

/* True: it has been made. */
static bool touch(u32 page, bool write, u64 seed)
{
	struct pager_place place;

	if (through(&m.view[page], page, write, seed))
		return true;
	if (fault(page, write, false, false, &place) != PAGER_READY)
		return false;
	return through(&m.view[page], page, write, seed);
}

static bool door(u32 page, bool write, bool whole, u64 seed)
{
	struct pager_place place;

	if (fault(page, write, whole, true, &place) != PAGER_READY)
		return false;
	if (write) {
		m.expected[page] = seed;
		fill(m.frame[place.frame], seed);
	} else {
		check(m.frame[place.frame], m.expected[page]);
	}
	return true;
}

/* What a CPU with an old translation may do until it is invalidated: read, and write if its copy of
 * the entry says dirty or has no dirty flag. */
static void use_stale(void)
{
	for (u32 page = 0; page < PAGES; page++) {
		struct mapping *t = &m.stale[page];

		if (!t->present || rand() % 2)
			continue;
		through(t, page, t->writable && (t->dirty || !m.config.flags),
			1 + (u64)(u32)rand());
	}
}

static void evict(bool busy)
{
	if (!pager_collect(m.pager))
		return;
	for (u32 i = 0; busy && i < 20; i++)
		touch((u32)rand() % PAGES, rand() % 2, 1 + (u64)(u32)rand());
	use_stale();
	if (busy && rand() % 2)
		assert_int_equal(pager_collect(m.pager), 0);
	memset(m.stale, 0, sizeof(m.stale));
	pager_settle(m.pager);
	post();
}

/* Until it has been made; everything else stands still. */
static void insist(u32 page, bool write, u64 seed)
{
	for (u32 i = 0; !touch(page, write, seed); i++) {
		assert_true(i < 1000);
		m.now += 50000;
		if (pager_should_evict(m.pager) || !pager_free(m.pager))
			evict(false);
		post();
		if (m.posted_count)
			complete_one(0, true);
	}
	if (pager_should_evict(m.pager))
		evict(false);
}

static void check_all(void)
{
	for (u32 page = 0; page < PAGES; page++)
		insist(page, false, 0);
}

/* --- tests ------------------------------------------------------------------------------------ */

static void random_work(bool flags, u32 seed)
{
	setup(flags, true);
	m.fetches = true;
	srand(seed);
	for (u32 i = 0; i < 60000; i++) {
		/* A hot set, and now and then anything. */
		u32 page = (u32)rand() % (rand() % 4 ? FRAMES / 2 : PAGES);
		u64 value = rand() % 8 ? 1 + (u64)(u32)rand() : 0;

		m.now += (u64)rand() % 3000;
		switch (rand() % 16) {
		case 0:
			door(page, rand() % 2, false, value);
			break;
		case 1:
			door(page, true, true, value);
			break;
		case 2:
			if (pager_should_evict(m.pager))
				evict(true);
			break;
		case 3:
			if (m.posted_count)
				complete_one((u32)rand() % m.posted_count, rand() % 8);
			break;
		case 4:
			if (pager_pin(m.pager, page)) {
				evict(true);
				assert_int_equal(pager_state(m.pager, page), PAGER_HERE);
				pager_unpin(m.pager, page);
			}
			break;
		case 7:
			/* As for other rights: invalidated before anything else happens. */
			pager_unmap(m.pager, page);
			m.stale[page] = (struct mapping){0};
			assert_true(pager_state(m.pager, page) == PAGER_TAKEN ||
				    !m.view[page].present);
			break;
		case 5:
			pager_prefetch(m.pager, page);
			break;
		case 6:
			/* As the owner does it: out of the view first. */
			if (rand() % 8 ||
			    (m.view[page].present && pager_state(m.pager, page) != PAGER_HERE))
				break;
			m.view[page] = (struct mapping){0};
			if (pager_discard(m.pager, page))
				m.expected[page] = 0;
			break;
		default:
			touch(page, rand() % 2, value);
		}
		if (rand() % 2)
			post();
		if (rand() % 4 == 0)
			evict(true);
	}
	complete_all();
	check_all();
	assert_true(pager_stats(m.pager)->rescues > 0);
	assert_true(pager_stats(m.pager)->drops > 0);
	assert_true(pager_stats(m.pager)->zeroes > 0);
	assert_true(pager_stats(m.pager)->overwrites > 0);
	assert_true(m.reads > 1000 && m.writes > 1000);
	teardown();
}

static void test_random_with_flags(void **state)
{
	for (u32 seed = 1; seed <= 6; seed++)
		random_work(true, seed);
}

static void test_random_without_flags(void **state)
{
	for (u32 seed = 1; seed <= 6; seed++)
		random_work(false, seed);
}

static void test_untouched_is_free(void **state)
{
	setup(true, true);
	for (u32 page = 0; page < PAGES; page++)
		insist(page, false, 0);
	for (u32 page = 0; page < PAGES; page++)
		insist(page, false, 0);
	assert_int_equal(m.reads, 0);
	assert_int_equal(m.writes, 0);
	assert_int_equal(pager_away(m.pager), 0);
	teardown();
}

static void test_clean_is_dropped(void **state)
{
	const struct pager_stats *s;
	u32 writes;

	setup(true, false);
	for (u32 page = 0; page < PAGES; page++)
		insist(page, true, 1 + page);
	complete_all();
	check_all();
	complete_all();
	writes = m.writes;
	/* All that is in frames is clean now, but for those that have not left since. */
	check_all();
	check_all();
	s = pager_stats(m.pager);
	assert_true(m.writes <= writes + FRAMES);
	writes = m.writes;
	check_all();
	assert_int_equal(m.writes, writes);
	assert_true(s->drops > 2 * PAGES);
	teardown();
}

static void test_second_fault_waits(void **state)
{
	struct pager_place place;
	struct pager_op op;
	u32 page = 3;

	setup(true, false);
	for (u32 i = 0; i < 4 * FRAMES; i++)
		insist(i, true, 1 + i);
	complete_all();
	assert_int_equal(pager_state(m.pager, page), PAGER_AWAY);
	assert_int_equal(fault(page, false, false, false, &place), PAGER_WAIT);
	assert_int_equal(fault(page, true, false, false, &place), PAGER_WAIT);
	assert_int_equal(pager_queued(m.pager), 1);
	assert_true(pager_next(m.pager, &op));
	assert_int_equal(op.page, page);
	assert_false(op.write);
	assert_false(pager_next(m.pager, &op) && !op.write);
	m.now += 3000000;
	op = (struct pager_op){.page = page, .frame = op.frame};
	memcpy(m.frame[op.frame], m.remote[page], PAGE_SIZE);
	assert_true(pager_done(m.pager, &op, true, m.now, &place));
	assert_true(place.writable);
	assert_int_equal(pager_stats(m.pager)->waits, 1);
	assert_int_equal(pager_stats(m.pager)->latency[12], 1); /* 2048 to 4095 us */
	teardown();
}

/* Who can post at once does, and gives back what he could not: it is first in the queue then. */
static void test_fetch(void **state)
{
	struct pager_access a = {.page = 3, .posts = true};
	struct pager_place place = {.hit = true};
	struct pager_op op;

	setup(true, false);
	for (u32 i = 0; i < 4 * FRAMES; i++)
		insist(i, true, 1 + i);
	complete_all();
	assert_int_equal(pager_access(m.pager, &a, &place), PAGER_FETCH);
	assert_false(place.hit);
	assert_int_equal(pager_state(m.pager, 3), PAGER_COMING);
	assert_int_equal(pager_queued(m.pager), 0);
	assert_int_equal(pager_under_way(m.pager), 1);
	assert_int_equal(pager_access(m.pager, &a, &place), PAGER_WAIT);
	op = (struct pager_op){.page = 3, .frame = place.frame};
	pager_put_back(m.pager, &op);
	assert_int_equal(pager_queued(m.pager), 1);
	assert_int_equal(pager_under_way(m.pager), 1);
	assert_true(pager_next(m.pager, &op));
	assert_true(op.page == 3 && op.frame == place.frame && !op.write);
	assert_true(pager_done(m.pager, &op, true, m.now, &place));
	assert_int_equal(pager_under_way(m.pager), 0);
	/* Zero, or to be overwritten: nothing is read. */
	a.page = 4;
	a.whole = a.door = true;
	assert_int_equal(pager_access(m.pager, &a, &place), PAGER_READY);
	teardown();
}

static void test_demand_first(void **state)
{
	struct pager_place place;
	struct pager_op op;

	setup(true, true);
	for (u32 i = 0; i < 4 * FRAMES; i++)
		insist(i, true, 1 + i);
	complete_all();
	evict(false);
	complete_all();
	assert_true(pager_prefetch(m.pager, 1));
	assert_true(pager_prefetch(m.pager, 2));
	place.hit = false;
	assert_int_equal(fault(7, false, false, false, &place), PAGER_WAIT);
	assert_false(place.hit);
	/* Demand for what was to be prefetched makes it demand, and was foreseen. */
	assert_int_equal(fault(2, false, false, false, &place), PAGER_WAIT);
	assert_true(place.hit);
	assert_true(pager_next(m.pager, &op) && op.page == 7);
	assert_true(pager_next(m.pager, &op) && op.page == 2);
	assert_true(pager_next(m.pager, &op) && op.page == 1);
	assert_int_equal(pager_stats(m.pager)->prefetch_late, 1);
	assert_int_equal(pager_stats(m.pager)->prefetched, 2);
	teardown();
}

/* Tables that are looked at now and then outlive data that is looked at as often. */
static void test_tables_stay_longer(void **state)
{
	u32 gone[2] = {0};

	setup(true, false);
	for (u32 round = 0; round < 100; round++) {
		for (u32 i = 0; i < 32; i++) {
			struct pager_access a = {.page = i, .write = true, .level = i < 16 ? 3 : 0};
			struct pager_place place;

			if (through(&m.view[i], i, true, 1 + i))
				continue;
			gone[i / 16]++;
			while (pager_access(m.pager, &a, &place) != PAGER_READY) {
				evict(false);
				complete_all();
			}
			map(i, &place);
			through(&m.view[i], i, true, 1 + i);
		}
		for (u32 i = 0; i < FRAMES / 2; i++)
			insist(32 + (round * FRAMES / 2 + i) % (PAGES - 32), true, 7);
	}
	print_message("gone: %u tables, %u others\n", gone[0], gone[1]);
	assert_true(gone[0] < gone[1] / 4);
	teardown();
}

/* --- strides ---------------------------------------------------------------------------------- */

static void test_stride_majority(void **state)
{
	struct stride s = {0};
	u64 page = 1000, first = 0;
	s64 stride;

	for (u32 i = 0; i < 8; i++)
		stride_note(&s, page += 3, false);
	assert_int_equal(stride_trend(&s), 3);
	/* One stray access does not change its mind, nor do four with the longer vote. */
	stride_note(&s, 77, false);
	stride_note(&s, page += 3, false);
	for (u32 i = 0; i < 8; i++)
		stride_note(&s, page += 3, false);
	assert_int_equal(stride_window(&s, &first, &stride), 1);
	assert_int_equal(stride, 3);
	assert_int_equal(first, page + 3);
	for (u32 i = 0; i < 32; i++)
		stride_note(&s, page -= 1, false);
	assert_int_equal(stride_trend(&s), -1);
	assert_int_equal(stride_window(&s, &first, &stride), 1);
	assert_int_equal(first, page - 1);
}

static void test_stride_random(void **state)
{
	struct stride s = {0};
	u32 pages = 0;
	u64 first;
	s64 stride;

	srand(5);
	for (u32 i = 0; i < 1000; i++) {
		stride_note(&s, (u64)(u32)rand(), false);
		pages += stride_window(&s, &first, &stride);
	}
	assert_true(pages < 10);
}

/* Walks through memory of which every page is fetched that is asked for; returns how many pages had
 * not been asked for, and whether each was asked for once. */
static u32 walk_ahead(struct stride *s, u64 page, s64 step, u32 pages, u32 *asked)
{
	static u8 fetched[1 << 16];
	u32 misses = 0;

	memset(fetched, 0, sizeof(fetched));
	*asked = 0;
	for (u32 n = 0; n < pages; n++, page += (u64)step) {
		u64 first = 0;
		s64 stride = 0;
		u32 count;

		misses += !fetched[page];
		stride_note(s, page, fetched[page]);
		count = stride_window(s, &first, &stride);
		assert_true(count <= STRIDE_WINDOW);
		for (u32 i = 0; i < count; i++) {
			u64 at = first + i * (u64)stride;

			assert_true(at < sizeof(fetched) && !fetched[at]);
			assert_true((s64)(at - page) * step > 0);
			assert_true((s64)(at - page) / step <= STRIDE_WINDOW);
			fetched[at] = 1;
		}
		stride_ahead(s, count);
		*asked += count;
	}
	return misses;
}

static void test_stride_runs_ahead(void **state)
{
	static const s64 steps[] = {1, -1, 3, -7};

	for (u32 i = 0; i < ARRAY_SIZE(steps); i++) {
		struct stride s = {0};
		u32 asked;

		/* Four steps that agree, and no page is missed any more, nor asked for twice. */
		assert_int_equal(walk_ahead(&s, 30000, steps[i], 1000, &asked), 5);
		assert_in_range(asked, 995, 995 + STRIDE_WINDOW);
		assert_int_equal(s.window, STRIDE_WINDOW);
	}
}

/* Two walks towards one another, as of a sort, and one that jumps beside them: each is followed. */
static void test_stride_places(void **state)
{
	static u8 fetched[1 << 20];
	struct strides s = {0};
	u64 page[3] = {0, 60000, 100000};
	static const s64 step[3] = {1, -1, 100};
	u32 misses = 0;

	srand(7);
	for (u32 n = 0; n < 3000; n++) {
		u32 which = (u32)rand() % 3;
		struct stride *found;
		u64 at = page[which], first = 0;
		s64 stride = 0;
		u32 count;

		page[which] += (u64)step[which];
		misses += !fetched[at];
		found = strides_note(&s, at, fetched[at]);
		count = stride_window(found, &first, &stride);
		for (u32 i = 0; i < count; i++)
			fetched[first + i * (u64)stride] = 1;
		stride_ahead(found, count);
	}
	assert_in_range(misses, 15, 20);
}

static void test_stride_window_follows_hits(void **state)
{
	struct stride s = {0};
	u64 page = 0, first;
	u32 wanted = STRIDE_WINDOW / 2, asked;
	s64 stride;

	walk_ahead(&s, page, 1, 100, &asked);
	page = 100 + STRIDE_WINDOW;
	/* The first miss may follow touches that were hits. */
	stride_note(&s, page++, false);
	stride_window(&s, &first, &stride);
	/* Nothing of it is used any more: it shrinks, by half at a time. */
	for (; wanted; wanted /= 2) {
		stride_note(&s, page++, false);
		assert_int_equal(stride_window(&s, &first, &stride), wanted);
	}
	stride_note(&s, page++, false);
	assert_int_equal(stride_window(&s, &first, &stride), 1);
	/* Those that could not be dealt with are asked for again. */
	assert_int_equal(first, page);
	stride_note(&s, page++, true);
	assert_int_equal(stride_window(&s, &first, &stride), 2);
	assert_int_equal(first, page);
	stride_ahead(&s, 1);
	stride_note(&s, page++, true);
	assert_int_equal(stride_window(&s, &first, &stride), 4);
	assert_int_equal(first, page);
}

static void test_config(void **state)
{
	struct pager_config c = {.pages = 100, .frames = PAGER_MIN_FRAMES - 1, .vcpus = 1};
	void *memory = calloc(1, 1 << 20);

	assert_null(pager_init(memory, &c, &ops, NULL));
	c.frames++;
	c.vcpus = PAGER_VCPUS + 1;
	assert_null(pager_init(memory, &c, &ops, NULL));
	c.vcpus = 1;
	c.pages = 0;
	assert_null(pager_init(memory, &c, &ops, NULL));
	c.pages = 100;
	assert_non_null(pager_init(memory, &c, &ops, NULL));
	free(memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_config),
		cmocka_unit_test(test_untouched_is_free),
		cmocka_unit_test(test_clean_is_dropped),
		cmocka_unit_test(test_second_fault_waits),
		cmocka_unit_test(test_fetch),
		cmocka_unit_test(test_demand_first),
		cmocka_unit_test(test_tables_stay_longer),
		cmocka_unit_test(test_random_with_flags),
		cmocka_unit_test(test_random_without_flags),
		cmocka_unit_test(test_stride_majority),
		cmocka_unit_test(test_stride_random),
		cmocka_unit_test(test_stride_runs_ahead),
		cmocka_unit_test(test_stride_places),
		cmocka_unit_test(test_stride_window_follows_hits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
