/*
 * hv/ept in long random sequences, compared page by page with an array; with a simulated TLB that
 * shows whether the generation is bumped whenever it must be; and with a second thread that writes
 * as a guest does, setting D, while pages are split, merged, protected and harvested.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <umbra/features.h>

#include "ept/ept.h"
#include "ept_hw.h"
#include "frames.h"

#define F_1G   BIT64(FEAT_EPT_1G)
#define F_XO   BIT64(FEAT_EPT_XO)
#define F_AD   BIT64(FEAT_EPT_AD)
#define F_MBEC BIT64(FEAT_MBEC)

/* The window that the model covers: 2 GiB on either side of a PML4 boundary. */
#define WINDOW	     (510ull * GIB)
#define WINDOW_PAGES (4 * GIB / PAGE_SIZE)

static struct ept_view view;
static u64 frames_free;
static bool mbec, xo;

/* Per page: frame | perms | type << 3 | BIT64(11), or 0. */
#define MODEL_MAPPED 0x800ull
static u64 model[WINDOW_PAGES];
static bool written[WINDOW_PAGES]; /* by the guest, and not harvested since */
static bool reported[WINDOW_PAGES];

void vmx_invept_single(u64 eptp)
{
}

void ept_kick_cpu(u32 cpu)
{
}

static u64 random_state;
static struct tlb_entry {
	u64 page;
	struct hw_page hw;
} tlb[256];

static u64 next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state >> 11;
}

static u64 below(u64 n)
{
	return next_random() % n;
}

static void start(u64 features, u64 seed)
{
	frames_start(128 * MIB);
	frames_free = free_frames();
	memset(model, 0, sizeof(model));
	memset(written, 0, sizeof(written));
	memset(tlb, 0, sizeof(tlb));
	random_state = seed * 0x9e3779b97f4a7c15 | 1;
	mbec = features & F_MBEC;
	xo = features & F_XO;
	assert_int_equal(ept_view_init(&view, features, 3), 0);
}

/* --- comparison with the model ---------------------------------------------------------------- */

static bool page_is_right(u64 page)
{
	struct hw_page hw = hw_walk(view.eptp, WINDOW + page * PAGE_SIZE, mbec, xo);
	u64 m = model[page];

	if (!(m & 0x407))
		return !hw.present;
	return hw.present && (hw.frame | hw.perms | hw.type << 3 | MODEL_MAPPED) == m;
}

static bool lookup_is_right(u64 page)
{
	u64 at = WINDOW + page * PAGE_SIZE + below(PAGE_SIZE);
	struct ept_leaf leaf;
	int err = ept_lookup(&view, gpa(at), &leaf);

	if (!model[page])
		return err == ERR_NOENT;
	return err == 0 && (leaf.frame.v & 0xfff) == (at & 0xfff) &&
	       ((leaf.frame.v & ~0xfffull) | leaf.perms | (u64)leaf.type << 3 | MODEL_MAPPED) ==
		       model[page];
}

static void check_page(u64 page)
{
	if (page >= WINDOW_PAGES)
		return;
	if (!page_is_right(page) || !lookup_is_right(page))
		fail_msg("page %#llx differs from the model %#llx", (unsigned long long)page,
			 (unsigned long long)model[page]);
	if (written[page] && !hw_walk(view.eptp, WINDOW + page * PAGE_SIZE, mbec, xo).dirty)
		fail_msg("page %#llx has lost its D", (unsigned long long)page);
}

static void check_everything(void)
{
	assert_int_equal(hw_check(view.eptp, mbec, xo), view.tables);
	for (u64 page = 0; page < WINDOW_PAGES; page += 1 + below(64))
		check_page(page);
}

static void check_around(u64 first, u64 n)
{
	u64 spots[] = {first - 1, first, first + 1, first + n / 2, first + n - 1, first + n};

	for (unsigned int i = 0; i < ARRAY_SIZE(spots); i++)
		check_page(spots[i]);
	for (int i = 0; i < 8; i++)
		check_page(first + below(n));
	for (int i = 0; i < 8; i++)
		check_page(below(WINDOW_PAGES));
	assert_int_equal(frames_free - free_frames(),
			 view.tables + view.reserve_count + view.limbo_count);
}

/* --- a TLB ------------------------------------------------------------------------------------ */

static void tlb_fill(u64 page)
{
	struct hw_page hw = hw_walk(view.eptp, WINDOW + page * PAGE_SIZE, mbec, xo);

	if (hw.present)
		tlb[below(ARRAY_SIZE(tlb))] = (struct tlb_entry){page, hw};
}

/* Whatever a processor has cached may be used for as long as the generation stays the same. */
static void tlb_check(u64 generation_before)
{
	if (view.generation != generation_before) {
		memset(tlb, 0, sizeof(tlb));
		return;
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(tlb); i++) {
		struct tlb_entry *t = &tlb[i];
		struct hw_page now;

		if (!t->hw.present)
			continue;
		now = hw_walk(view.eptp, WINDOW + t->page * PAGE_SIZE, mbec, xo);
		if (!now.present || now.frame != t->hw.frame || now.type != t->hw.type ||
		    (t->hw.perms & ~now.perms) || (t->hw.dirty && !now.dirty))
			fail_msg("stale translation of page %#llx without a new generation",
				 (unsigned long long)t->page);
	}
}

/* --- random operations ------------------------------------------------------------------------ */

struct range {
	u64 first, n; /* pages */
};

static struct range random_range(void)
{
	static const u64 edges[] = {0, 512, 1024, 262144, 2 * 262144, 3 * 262144, 300 * 512};
	struct range r;

	switch (below(5)) {
	case 0: /* whole gigabytes */
		r = (struct range){below(4) * 262144, (1 + below(2)) * 262144};
		break;
	case 1: /* whole 2M */
		r = (struct range){below(2048) * 512, (1 + below(20)) * 512};
		break;
	case 2: /* around an edge */
		r = (struct range){edges[below(ARRAY_SIZE(edges))] + below(8), 1 + below(8)};
		r.first = r.first < 8 ? 0 : r.first - below(8);
		break;
	case 3: /* anything small */
		r = (struct range){below(WINDOW_PAGES), 1 + below(2000)};
		break;
	default: /* within few 2M, so that things meet */
		r = (struct range){262144 + below(3 * 512), 1 + below(700)};
		break;
	}
	r.n = MIN(r.n, WINDOW_PAGES - r.first);
	return r;
}

static u64 random_perms(void)
{
	static const u64 perms[] = {EPT_RWX, EPT_RWX, EPT_R, EPT_R | EPT_W, EPT_R | EPT_X,
				    EPT_X,   0,	      EPT_W, EPT_W | EPT_X};
	u64 p = perms[below(ARRAY_SIZE(perms))];

	return mbec && below(2) ? p | EPT_XU : p;
}

static bool perms_allowed(u64 p)
{
	return (p & EPT_R) || p == 0 || (xo && !(p & EPT_W));
}

/* The largest leaves: every aligned block of the range that can be one must be one. */
static void check_leaves(struct range r, u64 to)
{
	unsigned int top = view.features & F_1G ? 30 : 21;

	for (unsigned int shift = 21; shift <= top; shift += 9) {
		u64 size = 1ull << shift, from = WINDOW + r.first * PAGE_SIZE;

		if (((from ^ to) & (size - 1)) != 0)
			continue;
		for (u64 at = ALIGN_UP(from, size); at + size <= from + r.n * PAGE_SIZE;
		     at += size) {
			struct ept_leaf leaf;

			assert_int_equal(ept_lookup(&view, gpa(at), &leaf), 0);
			assert_true(leaf.shift >= shift);
		}
	}
}

static void random_map(void)
{
	static const u64 distances[] = {0, SIZE_1G, 5 * SIZE_1G, SIZE_2M, 0x1000, 1ull << 45};
	static const enum ept_memtype types[] = {EPT_WB, EPT_WB, EPT_WB, EPT_UC,
						 EPT_WC, EPT_WT, EPT_WP};
	struct range r = random_range();
	u64 from = WINDOW + r.first * PAGE_SIZE,
	    to = from + distances[below(ARRAY_SIZE(distances))];
	u64 perms = random_perms();
	enum ept_memtype type = types[below(ARRAY_SIZE(types))];
	int err = ept_map(&view, gpa(from), hpa(to), r.n * PAGE_SIZE, perms, type);

	if (!perms_allowed(perms)) {
		assert_int_equal(err, ERR_INVAL);
	} else if (err == 0) {
		for (u64 i = 0; i < r.n; i++) {
			model[r.first + i] =
				(to + i * PAGE_SIZE) | perms | (u64)type << 3 | MODEL_MAPPED;
			written[r.first + i] = false;
		}
		check_leaves(r, to);
	} else {
		assert_int_equal(err, ERR_NOMEM);
	}
	check_around(r.first, r.n);
}

static void random_protect(void)
{
	struct range r = random_range();
	u64 perms = random_perms();
	int err = ept_protect(&view, gpa(WINDOW + r.first * PAGE_SIZE), r.n * PAGE_SIZE, perms);

	if (!perms_allowed(perms))
		assert_int_equal(err, ERR_INVAL);
	else if (err)
		assert_int_equal(err, ERR_NOMEM);
	for (u64 i = r.first; err == 0 && i < r.first + r.n; i++) {
		if (model[i])
			model[i] = (model[i] & ~0x407ull) | perms;
		if (!perms)
			written[i] = false; /* D is kept, but hw_walk() does not show it */
	}
	check_around(r.first, r.n);
}

static void random_unmap(void)
{
	struct range r = random_range();
	int err = ept_unmap(&view, gpa(WINDOW + r.first * PAGE_SIZE), r.n * PAGE_SIZE);

	if (err)
		assert_int_equal(err, ERR_NOMEM);
	else
		for (u64 i = r.first; i < r.first + r.n; i++) {
			model[i] = 0;
			written[i] = false;
		}
	check_around(r.first, r.n);
}

/* Could the 2M around the page be one leaf? */
static bool is_uniform(u64 page)
{
	u64 first = ALIGN_DOWN(page, 512ull);

	if (!model[first] || !IS_ALIGNED(model[first] & ~0xfffull, SIZE_2M))
		return false;
	for (u64 i = 0; i < 512; i++)
		if (model[first + i] != model[first] + i * PAGE_SIZE)
			return false;
	return true;
}

static void random_merge(void)
{
	u64 page = random_range().first;
	unsigned int shift = ept_merge(&view, gpa(WINDOW + page * PAGE_SIZE + 5));

	if (!model[page])
		assert_int_equal(shift, 0);
	else if (shift == 12)
		assert_false(is_uniform(page));
	else
		assert_true(is_uniform(page));
	if (!(view.features & F_1G))
		assert_true(shift < 30);
	check_around(ALIGN_DOWN(page, 512ull), 512);
}

static void random_write(void)
{
	u64 page = random_range().first;
	bool can = (model[page] & 3) == 3;

	assert_int_equal(hw_write(view.eptp, WINDOW + page * PAGE_SIZE), can);
	if (can && (view.features & F_AD))
		written[page] = true;
}

static void note_harvest(void *ctx, gpa_t at, const struct ept_leaf *leaf)
{
	u64 first = (at.v - WINDOW) / PAGE_SIZE;

	assert_true(leaf->accessed || leaf->dirty);
	assert_int_equal(leaf->frame.v, model[first] & ~0xfffull);
	if (leaf->dirty)
		memset(&written[first], false, 1ull << (leaf->shift - 12));
}

static void random_harvest(void)
{
	struct range r = random_range();
	int err = ept_harvest(&view, gpa(WINDOW + r.first * PAGE_SIZE), r.n * PAGE_SIZE,
			      note_harvest, NULL);

	assert_int_equal(err, view.features & F_AD ? 0 : ERR_NOSYS);
	for (u64 i = 0; err == 0 && i < r.n; i += 1 + below(16)) {
		struct ept_leaf leaf;

		assert_false(written[r.first + i]); /* all were reported */
		if (ept_lookup(&view, gpa(WINDOW + (r.first + i) * PAGE_SIZE), &leaf) == 0)
			assert_false(leaf.accessed || leaf.dirty);
	}
}

/* One operation with a reserve that may be too small; refused, it must have changed nothing. */
static void random_operation(void)
{
	static void (*const operations[])(void) = {random_map,	 random_map,   random_protect,
						   random_unmap, random_merge, random_harvest};
	struct ept_view before;

	if (view.reserve_count < 4 || below(4) == 0)
		assert_int_equal(ept_reserve(&view, below(8) ? 2100 : below(6)), 0);
	before = view;
	operations[below(ARRAY_SIZE(operations))]();
	tlb_check(before.generation);
	if (view.limbo_count != before.limbo_count)
		assert_int_equal(view.generation, before.generation + 1);
	if (view.generation == before.generation)
		assert_true(view.tables + view.reserve_count ==
			    before.tables + before.reserve_count);
}

static void run_random(u64 features, u64 seed, int rounds)
{
	start(features, seed);
	for (int round = 0; round < rounds; round++) {
		for (int i = 0; i < 4; i++)
			tlb_fill(random_range().first);
		for (int i = below(6); i > 0; i--)
			random_write();
		random_operation();
		if (below(8) == 0) {
			ept_sync(&view, 0, 2);
			assert_int_equal(view.limbo_count, 0);
		}
		if (round % 250 == 249)
			check_everything();
	}
	ept_view_destroy(&view);
	assert_int_equal(free_frames(), frames_free);
	host_memory_release();
}

static int rounds_wanted(void)
{
	const char *s = getenv("UMBRA_TEST_ROUNDS");

	return s ? atoi(s) : 1000;
}

static void test_random(void **state)
{
	static const u64 features[] = {
		0, F_1G, F_AD, F_1G | F_XO | F_AD, F_XO | F_MBEC, F_1G | F_XO | F_AD | F_MBEC};

	for (unsigned int i = 0; i < ARRAY_SIZE(features); i++)
		run_random(features[i], 1 + i, rounds_wanted());
}

/* Refusals: with each reserve from nothing up, an operation either succeeds or leaves no trace. */
static void test_reserve_sizes(void **state)
{
	u64 from = WINDOW + 2 * SIZE_1G - SIZE_2M - 0x1000; /* crosses the PML4 boundary */
	u64 bytes = 2 * SIZE_2M + 0x3000;
	u32 needed = 0;

	for (;; needed++) {
		struct ept_view before;
		int err;

		start(0, 1);
		assert_int_equal(ept_reserve(&view, needed), 0);
		before = view;
		err = ept_map(&view, gpa(from), hpa(from), bytes, EPT_RWX, EPT_WB);
		if (err == 0)
			break;
		assert_int_equal(err, ERR_NOMEM);
		before.lock = view.lock;
		assert_memory_equal(&before, &view, sizeof(view));
		assert_int_equal(hw_check(view.eptp, false, false), 1);
		ept_view_destroy(&view);
	}
	/* Two branches of PDPT and PD, and a PT at each end of the range. */
	assert_int_equal(needed, 6);
	assert_int_equal(view.reserve_count, 0);
	ept_view_destroy(&view);
}

/* --- writes by another CPU -------------------------------------------------------------------- */

#define GUEST_PAGES 1024 /* two 2M */

static u32 guest_stop, guest_pause, guest_paused;

/* A CPU: enters, writes a few pages, leaves. D is set by compare-exchange as hardware does it. */
static void *guest(void *arg)
{
	u64 seed = 88172645463325252;

	while (!__atomic_load_n(&guest_stop, __ATOMIC_ACQUIRE)) {
		u32 pause = __atomic_load_n(&guest_pause, __ATOMIC_ACQUIRE);

		if (pause) {
			__atomic_store_n(&guest_paused, pause, __ATOMIC_RELEASE);
			sched_yield();
			continue;
		}
		ept_enter(&view, 1);
		for (int i = 0; i < 8; i++) {
			u64 page;

			seed ^= seed << 13;
			seed ^= seed >> 7;
			seed ^= seed << 17;
			page = (seed >> 20) % GUEST_PAGES;
			if (hw_write(view.eptp, page * PAGE_SIZE))
				__atomic_store_n(&written[page], true, __ATOMIC_RELEASE);
		}
		ept_assert_fresh(&view, 1);
		ept_leave(1);
	}
	return NULL;
}

static void note_report(void *ctx, gpa_t at, const struct ept_leaf *leaf)
{
	if (leaf->dirty)
		memset(&reported[at.v / PAGE_SIZE], true, 1ull << (leaf->shift - 12));
}

static void test_writes_meanwhile(void **state)
{
	pthread_t thread;
	u64 merges;
	int err;

	start(F_AD, 42);
	assert_int_equal(ept_reserve(&view, 64), 0);
	guest_stop = guest_pause = guest_paused = 0;
	err = ept_map(&view, gpa(0), hpa(SIZE_1G), GUEST_PAGES * PAGE_SIZE, EPT_RWX, EPT_WB);
	assert_int_equal(err, 0);
	assert_int_equal(pthread_create(&thread, NULL, guest, NULL), 0);

	for (int round = 0; round < 1500; round++) {
		memset(reported, 0, sizeof(bool) * GUEST_PAGES);
		for (int i = 0; i < 6; i++) {
			u64 at = below(GUEST_PAGES) * PAGE_SIZE;

			assert_int_equal(ept_protect(&view, gpa(at), PAGE_SIZE, EPT_R | EPT_W), 0);
			assert_int_equal(ept_protect(&view, gpa(at), PAGE_SIZE, EPT_RWX), 0);
			if (below(3) == 0)
				ept_merge(&view, gpa(below(2) * SIZE_2M));
		}
		err = ept_harvest(&view, gpa(0), GUEST_PAGES * PAGE_SIZE, note_report, NULL);
		assert_int_equal(err, 0);
		ept_sync(&view, 0, 2);

		/* Whatever was written is in this report, or dirty for the next one. */
		__atomic_store_n(&guest_pause, round + 1, __ATOMIC_RELEASE);
		while (__atomic_load_n(&guest_paused, __ATOMIC_ACQUIRE) != (u32)round + 1)
			sched_yield();
		for (u64 page = 0; page < GUEST_PAGES; page++) {
			struct ept_leaf leaf;

			assert_int_equal(ept_lookup(&view, gpa(page * PAGE_SIZE), &leaf), 0);
			if (written[page] && !reported[page] && !leaf.dirty)
				fail_msg("round %d: write to page %llu lost", round,
					 (unsigned long long)page);
			written[page] = leaf.dirty && written[page];
		}
		__atomic_store_n(&guest_pause, 0, __ATOMIC_RELEASE);
	}
	__atomic_store_n(&guest_stop, 1, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	merges = view.merges;
	assert_true(merges > 50);
	ept_view_destroy(&view);
	assert_int_equal(free_frames(), frames_free);
	host_memory_release();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reserve_sizes),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_writes_meanwhile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
