/* The store and nodes that give back other bytes than they were given. */
#include "store_world.h"

static u8 *memory_of(struct world *w, u32 page, u32 node)
{
	return w->net->node[node].memory + (*slot_of(w->store, page, node) - 1) * PAGE_SIZE;
}

enum lie {
	LIE_ALTERED,
	LIE_OLD,
	LIE_MISPLACED,
	LIE_ZERO,
	LIES
};

/* Does something to a page at a node; `old` is what it was before the last write. */
static void lie(struct world *w, enum lie what, u32 page, u32 node, const u8 *old)
{
	u8 *at = memory_of(w, page, node);

	switch (what) {
	case LIE_ALTERED:
		at[net_random(w->net, PAGE_SIZE)] ^= (u8)(1u << net_random(w->net, 8));
		break;
	case LIE_OLD:
		memcpy(at, old, PAGE_SIZE);
		break;
	case LIE_MISPLACED:
		memcpy(at, memory_of(w, (page + 1) % PAGES, node), PAGE_SIZE);
		break;
	default:
		memset(at, 0, PAGE_SIZE);
		break;
	}
}

static void lies(u32 nodes, enum lie what)
{
	struct world *w = world_new(400 + what, nodes, nodes, true, SLICE);
	static u8 old[PAGES][PAGE_SIZE];
	u32 page, pages = PAGES / 2;

	for (page = 0; page < PAGES; page++)
		write_now(w, page);
	for (page = 0; page < PAGES; page++)
		memcpy(old[page], memory_of(w, page, 0), PAGE_SIZE);
	for (page = 0; page < PAGES; page++)
		write_now(w, page);
	for (page = 0; page < pages; page++)
		lie(w, what, page, 0, old[page]);
	/* With a good copy elsewhere nobody notices but the statistics; else it is said. */
	w->may_be_corrupt = nodes == 1;
	while (stats_of(w).corrupt < pages) {
		u32 round;

		for (page = 0; page < PAGES; page++) {
			if (w->inflight == STORE_INFLIGHT)
				wait_all(w, SECOND);
			post_read(w, page);
		}
		wait_all(w, SECOND);
		/* The one that lies is asked first again. */
		w->net->fabric.link[w->config.link[0]].round_trip = 1;
		for (round = 0; round < 100; round++)
			net_step(w->net, 1000000);
	}
	assert_int_equal(stats_of(w).corrupt, pages);
	assert_int_equal(w->corrupt, nodes == 1 ? pages : 0);
	if (nodes == 2) {
		settle(w);
		w->net->node[1].stopped = true;
		verify_all(w);
		assert_int_equal(stats_of(w).corrupt, pages);
	}
	world_free(w);
}

static void test_lies(void **state)
{
	u32 what;

	for (what = 0; what < LIES; what++) {
		lies(1, (enum lie)what);
		lies(2, (enum lie)what);
	}
}

/* A lie is not spread: what is copied to another node is verified first. */
static void test_lie_not_copied(void **state)
{
	struct world *w = world_new(12, 3, 2, true, SLICE);
	u32 page, liar;
	u64 end;

	for (page = 0; page < PAGES; page++)
		write_now(w, page);
	w->net->node[1].stopped = true;
	for (page = 0; page < PAGES; page++)
		for (liar = 0; liar < 3; liar += 2)
			if (*slot_of(w->store, page, liar) && *slot_of(w->store, page, 1))
				lie(w, LIE_ALTERED, page, liar, NULL);
	end = w->net->now + 60 * SECOND;
	while (w->net->now < end)
		net_step(w->net, SECOND);
	assert_in_range(stats_of(w).corrupt, 30, PAGES);
	assert_int_equal(stats_of(w).rereplicated, 0);
	/* The stopped node has good ones. */
	w->net->node[1].stopped = false;
	settle(w);
	verify_all(w);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lies),
		cmocka_unit_test(test_lie_not_copied),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
