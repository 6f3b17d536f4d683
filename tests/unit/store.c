/* The store alone and on a wire that has faults: what is written is what is read. */
#include "store_world.h"

static void test_configuration(void **state)
{
	static struct fabric fabric;
	static u8 memory[1 << 19];
	struct store_config c = {.fabric = &fabric, .nodes = 1, .replicas = 1, .pages = 1};

	assert_in_range(store_bytes(&c), 4 * PAGE_SIZE, sizeof(memory));
	assert_non_null(store_init(memory, &c));
	c.nodes = 0;
	assert_int_equal(store_bytes(&c), 0);
	assert_null(store_init(memory, &c));
	c.nodes = 5;
	assert_null(store_init(memory, &c));
	c.nodes = 2;
	c.replicas = 3;
	assert_null(store_init(memory, &c));
	c.replicas = 2;
	c.pages = 0;
	assert_null(store_init(memory, &c));
}

static void test_clean(void **state)
{
	u32 nodes, replicas, seal;

	for (nodes = 1; nodes <= STORE_NODES; nodes++)
		for (replicas = 1; replicas <= nodes; replicas++)
			for (seal = 0; seal < 2; seal++) {
				struct world *w = world_new(nodes * 10 + replicas, nodes, replicas,
							    seal, SLICE);

				load(w, 400);
				settle(w);
				verify_all(w);
				assert_int_equal(stats_of(w).nodes_up, nodes);
				assert_int_equal(stats_of(w).corrupt, 0);
				assert_int_equal(stats_of(w).failovers, 0);
				world_free(w);
			}
}

/* Nothing of a sealed page is to be seen on a node; without sealing it lies there as it is. */
static void test_secrecy(void **state)
{
	u32 seal, i, page;
	u8 plain[PAGE_SIZE];

	for (seal = 0; seal < 2; seal++) {
		struct world *w = world_new(5, 1, 1, seal, SLICE);
		bool found = false;

		for (page = 0; page < 20; page++)
			post_write(w, page);
		wait_all(w, 10 * SECOND);
		fill(plain, 7, w->stamp[7]);
		for (i = 0; i + 16 <= SLICE; i++)
			found |= !memcmp(w->net->node[0].memory + i, plain + 256, 16);
		assert_int_equal(found, !seal);
		world_free(w);
	}
}

static void test_wire_faults(void **state)
{
	static const struct net_faults faults[] = {
		{.loss = 1},   {.loss = 10},
		{.loss = 50},  {.loss = 100},
		{.copy = 200}, {.delay = 100},
		{.alter = 50}, {.loss = 30, .copy = 50, .delay = 50, .alter = 30},
	};
	u32 i, replicas;

	for (i = 0; i < ARRAY_SIZE(faults); i++)
		for (replicas = 1; replicas <= 2; replicas++) {
			struct world *w = world_new(100 + i, 2, replicas, i % 2, SLICE);

			w->net->faults = faults[i];
			load(w, 1000);
			settle(w);
			verify_all(w);
			assert_int_equal(stats_of(w).corrupt, 0);
			world_free(w);
		}
}

static void test_full(void **state)
{
	struct world *w = world_new(11, 2, 1, true, 20 * PAGE_SIZE);
	u32 page, before;

	for (page = 0; page < 50; page++) {
		post_write(w, page);
		wait_all(w, SECOND);
	}
	assert_int_equal(w->full, 10);
	for (page = 0; page < 40; page++)
		post_read(w, page);
	wait_all(w, SECOND);
	/* Those that found no place are not there; those that have one can be written again. */
	for (page = 40; page < 50; page++) {
		w->stamp[page] = 0;
		assert_int_equal(post_read(w, page), ERR_NOENT);
	}
	for (page = 0; page < 40; page++)
		post_write(w, page);
	wait_all(w, SECOND);
	assert_int_equal(w->full, 10);
	before = w->stamps;
	for (page = 0; page < 40; page += 2) {
		store_discard(w->store, page);
		w->stamp[page] = 0;
		assert_int_equal(post_read(w, page), ERR_NOENT);
	}
	for (page = 40; page < 60; page++)
		post_write(w, page);
	wait_all(w, SECOND);
	assert_int_equal(w->full, 10);
	assert_int_equal(w->stamps, before + 20);
	verify_all(w);
	consistent(w);
	world_free(w);
}

/* Each write has a version of its own, also when it is written to several nodes or again. */
static void test_versions(void **state)
{
	struct world *w = world_new(13, 2, 2, true, SLICE);
	u32 i;

	load(w, 200);
	w->net->node[0].stopped = true;
	load(w, 200);
	wait_all(w, 60 * SECOND);
	assert_true(w->store->versions <= w->stamps);
	for (i = 0; i < 20; i++) {
		u64 before = w->store->versions;

		post_write(w, 5);
		wait_all(w, 60 * SECOND);
		assert_true(w->store->versions == before + 1);
		assert_true(w->store->version[5] == before + 1);
	}
	world_free(w);
}

static void test_limits(void **state)
{
	struct world *w = world_new(14, 1, 1, true, SLICE);
	static u8 page[PAGE_SIZE];
	u32 i;

	assert_int_equal(store_read(w->store, 0, PAGES, page), ERR_NOENT);
	assert_int_equal(store_write(w->store, 0, PAGES, page), ERR_NOENT);
	store_discard(w->store, PAGES);
	w->net->node[0].stopped = true;
	for (i = 0; i < STORE_INFLIGHT; i++)
		post_write(w, i % 10);
	assert_int_equal(post_write(w, 1), ERR_BUSY);
	assert_int_equal(store_read(w->store, 0, 1, page), ERR_BUSY);
	w->net->node[0].stopped = false;
	wait_all(w, 60 * SECOND);
	verify_all(w);
	consistent(w);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_configuration), cmocka_unit_test(test_clean),
		cmocka_unit_test(test_secrecy),	      cmocka_unit_test(test_wire_faults),
		cmocka_unit_test(test_full),	      cmocka_unit_test(test_versions),
		cmocka_unit_test(test_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
