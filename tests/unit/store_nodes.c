/* The store and nodes that fall silent, die, are restarted, and come back with or without pages. */
#include "store_world.h"

/* The only node falls silent, or loses its connections: everything waits and goes on. */
static void only_node(u64 silence, bool restart, u32 seal)
{
	struct world *w = world_new(200 + seal, 1, 1, seal, SLICE);
	u64 since;

	load(w, 300);
	w->net->node[0].stopped = true;
	while (w->inflight < STORE_INFLIGHT)
		one_random(w);
	since = w->net->now;
	while (w->net->now < since + silence)
		net_step(w->net, SECOND);
	assert_in_range(store_stalled(w->store), since, w->net->now);
	if (restart)
		net_node_start(w->net, 0, w->net->node[0].entropy);
	else
		w->net->node[0].stopped = false;
	load(w, 300);
	wait_all(w, 100 * SECOND);
	assert_int_equal(store_stalled(w->store), 0);
	verify_all(w);
	consistent(w);
	world_free(w);
}

static void test_only_node_silent(void **state)
{
	only_node(30 * SECOND, false, 0);
	only_node(30 * SECOND, false, 1);
	only_node(600 * SECOND, false, 1);
}

static void test_only_node_restarted(void **state)
{
	only_node(30 * SECOND, true, 0);
	only_node(12 * SECOND, true, 1);
}

/* Frames to and from a node are held for 30 s and then arrive all at once. */
static void test_held(void **state)
{
	u32 nodes, round;

	for (nodes = 1; nodes <= 2; nodes++)
		for (round = 0; round < 3; round++) {
			struct world *w = world_new(300 + round, nodes, nodes, round % 2, SLICE);

			load(w, 200 + 37 * round);
			w->net->node[0].held_until = w->net->now + 30 * SECOND;
			load(w, 600);
			settle(w);
			verify_all(w);
			world_free(w);
		}
}

/* What only a node had that has forgotten it is lost, and said to be; nothing else is. */
static void test_only_copy_lost(void **state)
{
	struct world *w = world_new(7, 1, 1, false, SLICE);
	u32 page;

	for (page = 0; page < 50; page++)
		post_write(w, page);
	wait_all(w, 10 * SECOND);
	net_node_start(w->net, 0, 999);
	w->may_be_corrupt = true;
	post_write(w, 60);
	wait_all(w, 10 * SECOND);
	verify_all(w);
	assert_int_equal(w->corrupt, 50);
	assert_int_equal(w->store->node[0].taken, 1);
	load(w, 300);
	wait_all(w, 10 * SECOND);
	verify_all(w);
	assert_int_equal(w->corrupt, 50);
	world_free(w);
}

/* Two nodes, one killed under load at some instant; it stays away, or comes back with or without
 * what it had; then the other one dies. */
static void kill_one(u32 seed)
{
	struct world *w = world_new(1000 + seed, 2, 2, seed % 2, SLICE);
	struct fabric_net *n = w->net;
	u32 victim = net_random(n, 2), fate = seed % 3, other = !victim;
	u64 at;

	if (seed % 4 == 0)
		n->faults = (struct net_faults){.loss = 20, .copy = 20, .delay = 20};
	/* What was written while one of them was not connected yet would have one copy only. */
	while (stats_of(w).nodes_up < 2)
		net_step(n, SECOND);
	load(w, 50 + net_random(n, 200));
	for (at = n->now + net_random(n, 2000000); n->now < at;) {
		while (w->inflight < STORE_INFLIGHT / 2)
			one_random(w);
		net_step(n, at - n->now);
	}
	n->node[victim].stopped = true;
	load(w, 300);
	if (fate == 0) {
		wait_all(w, 60 * SECOND);
		verify_all(w);
		assert_int_equal(stats_of(w).nodes_up, 1);
	} else {
		net_node_start(n, victim, fate == 1 ? n->node[victim].entropy : 4000 + seed);
		load(w, 200);
		settle(w);
		assert_int_equal(stats_of(w).nodes_up, 2);
		/* It has everything again: the other one is not needed. */
		n->node[other].stopped = true;
		load(w, 200);
		wait_all(w, 60 * SECOND);
		verify_all(w);
	}
	assert_int_equal(stats_of(w).corrupt, 0);
	consistent(w);
	world_free(w);
}

static void test_kill_one_of_two(void **state)
{
	u32 seed;

	for (seed = 0; seed < 100; seed++)
		kill_one(seed);
}

/* A third node takes over what a lost one had; one that returns gives up what is too many. */
static void test_rereplication(void **state)
{
	struct world *w = world_new(8, 3, 2, true, SLICE);
	u32 page, i, copies;
	u64 end;

	for (page = 0; page < PAGES; page++) {
		post_write(w, page);
		wait_all(w, SECOND);
	}
	w->net->node[1].stopped = true;
	end = w->net->now + 3 * SECOND;
	while (w->net->now < end)
		net_step(w->net, SECOND);
	settle(w);
	assert_in_range(stats_of(w).rereplicated, 40, 90);
	assert_int_equal(w->store->node[0].taken, PAGES);
	assert_int_equal(w->store->node[2].taken, PAGES);
	verify_all(w);
	/* Every second page changes while it is away. */
	for (page = 0; page < PAGES; page += 2) {
		post_write(w, page);
		wait_all(w, SECOND);
	}
	w->net->node[1].stopped = false;
	end = w->net->now + 30 * SECOND;
	while (w->net->now < end)
		net_step(w->net, SECOND);
	consistent(w);
	for (page = copies = 0; page < PAGES; page++)
		for (i = 0; i < 3; i++)
			copies += *slot_of(w->store, page, i) != 0;
	assert_int_equal(copies, 2 * PAGES);
	/* Any one node is enough to lose. */
	w->net->node[0].stopped = true;
	verify_all(w);
	settle(w);
	verify_all(w);
	assert_int_equal(stats_of(w).corrupt, 0);
	world_free(w);
}

/* A node that is away for a moment is not replaced. */
static void test_patience(void **state)
{
	struct world *w = world_new(9, 3, 2, false, SLICE);
	u32 page;
	u64 end;

	for (page = 0; page < PAGES; page++) {
		post_write(w, page);
		wait_all(w, SECOND);
	}
	net_node_start(w->net, 1, w->net->node[1].entropy);
	for (page = 0; page < PAGES; page++)
		post_read(w, page);
	end = w->net->now + 10 * SECOND;
	while (w->net->now < end)
		net_step(w->net, SECOND);
	assert_int_equal(stats_of(w).nodes_up, 3);
	assert_int_equal(stats_of(w).rereplicated, 0);
	assert_in_range(stats_of(w).failovers, 1, 100);
	world_free(w);
}

/* While a node is away, one copy must do; when it is back, there are two again. */
static void test_fewer_copies(void **state)
{
	struct world *w = world_new(10, 2, 2, true, SLICE);
	u32 page;

	load(w, 10);
	wait_all(w, SECOND);
	w->net->node[0].stopped = true;
	for (page = 0; page < 60; page++)
		post_write(w, page);
	wait_all(w, 20 * SECOND);
	assert_in_range(stats_of(w).under_replicated, 60, PAGES);
	w->net->node[0].stopped = false;
	settle(w);
	assert_in_range(stats_of(w).rereplicated, 60, PAGES);
	w->net->node[1].stopped = true;
	verify_all(w);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_only_node_silent),
		cmocka_unit_test(test_only_node_restarted),
		cmocka_unit_test(test_held),
		cmocka_unit_test(test_only_copy_lost),
		cmocka_unit_test(test_kill_one_of_two),
		cmocka_unit_test(test_rereplication),
		cmocka_unit_test(test_patience),
		cmocka_unit_test(test_fewer_copies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
