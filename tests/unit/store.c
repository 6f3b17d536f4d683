/*
 * The store against real memory nodes over a network with faults. What was written last is what is
 * read, whatever happens to frames and nodes; what cannot be is reported, and never wrong bytes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "fabric_net.h"
#include "remote/store_internal.h"

#define SECOND 1000000000ull
#define PAGES  96u
#define SLICE  (PAGES * PAGE_SIZE)

struct flight {
	bool used, write;
	u32 page;
	u32 stamp; /* of what is written, or must be read */
	u8 data[PAGE_SIZE];
};

struct world {
	struct fabric_net *net;
	struct store *store;
	void *memory;
	struct store_config config;
	u32 stamp[PAGES]; /* of the newest write posted; 0: none */
	u32 stamps;
	u32 writing[PAGES], reading[PAGES]; /* operations under way */
	struct flight flight[STORE_INFLIGHT];
	u32 inflight;
	u64 completed, corrupt, full;
	bool may_be_corrupt;
};

/* Contents that name page and stamp in every word. */
static void fill(u8 *data, u32 page, u32 stamp)
{
	u32 *words = (u32 *)(void *)data, i;

	for (i = 0; i < PAGE_SIZE / 4; i++)
		words[i] = (stamp * 2654435761u) ^ (page << 20) ^ i;
}

static void check(const u8 *data, u32 page, u32 stamp)
{
	static u8 expected[PAGE_SIZE];

	fill(expected, page, stamp);
	assert_memory_equal(data, expected, PAGE_SIZE);
}

static void collect(struct world *w)
{
	struct store_completion c;

	while (store_done(w->store, &c)) {
		struct flight *f = &w->flight[c.id];

		assert_true(f->used);
		f->used = false;
		w->inflight--;
		w->completed++;
		(f->write ? w->writing : w->reading)[f->page]--;
		if (c.result == STORE_CORRUPT) {
			assert_true(w->may_be_corrupt && !f->write);
			w->corrupt++;
			w->stamp[f->page] = 0;
			store_discard(w->store, f->page);
		} else if (c.result == STORE_FULL) {
			assert_true(f->write);
			w->full++;
		} else {
			check(f->data, f->page, f->stamp);
		}
	}
}

static void users(struct fabric_net *n)
{
	struct world *w = n->user;

	store_work(w->store, n->now);
	collect(w);
}

static u64 deadline(struct fabric_net *n)
{
	return store_deadline(((struct world *)n->user)->store);
}

static struct world *world_new(u64 seed, u32 nodes, u32 replicas, bool seal, u64 length)
{
	struct world *w = calloc(1, sizeof(*w));
	u32 i;

	w->net = net_new(seed);
	w->config = (struct store_config){.fabric = &w->net->fabric,
					  .nodes = nodes,
					  .replicas = replicas,
					  .pages = PAGES,
					  .vm = 3,
					  .seal = seal};
	for (i = 0; i < SEAL_KEY; i++)
		w->config.key[i] = (u8)net_random(w->net, 256);
	for (i = 0; i < nodes; i++) {
		net_add_node(w->net, length, 1);
		w->config.link[i] = (u32)net_link(w->net, i);
	}
	w->memory = calloc(1, store_bytes(&w->config));
	w->store = store_init(w->memory, &w->config);
	assert_non_null(w->store);
	w->net->user = w;
	w->net->users = users;
	w->net->deadline = deadline;
	return w;
}

static void world_free(struct world *w)
{
	u32 i;

	store_destroy(w->store);
	w->net->users = NULL;
	w->net->deadline = NULL;
	net_run(w->net, 10 * SECOND);
	for (i = 0; i < FABRIC_LINKS; i++)
		assert_int_equal(w->net->fabric.link[i].state, LINK_UNUSED);
	net_free(w->net);
	free(w->memory);
	free(w);
}

static struct flight *new_flight(struct world *w, u64 *id)
{
	u32 i;

	for (i = 0; i < STORE_INFLIGHT; i++)
		if (!w->flight[i].used) {
			*id = i;
			return &w->flight[i];
		}
	return NULL;
}

static int post_write(struct world *w, u32 page)
{
	struct flight *f;
	int ret;
	u64 id;

	f = new_flight(w, &id);
	if (!f)
		return store_write(w->store, 99, page, w->flight[0].data);
	f->write = true;
	f->page = page;
	f->stamp = ++w->stamps;
	fill(f->data, page, f->stamp);
	ret = store_write(w->store, id, page, f->data);
	assert_int_equal(ret, 0);
	f->used = true;
	w->inflight++;
	w->writing[page]++;
	w->stamp[page] = f->stamp;
	return 0;
}

static int post_read(struct world *w, u32 page)
{
	struct flight *f;
	int ret;
	u64 id;

	f = new_flight(w, &id);
	if (!f)
		return ERR_BUSY;
	memset(f->data, 0xee, PAGE_SIZE);
	f->write = false;
	f->page = page;
	f->stamp = w->stamp[page];
	ret = store_read(w->store, id, page, f->data);
	assert_int_equal(ret, w->stamp[page] ? 0 : ERR_NOENT);
	if (ret)
		return ret;
	f->used = true;
	w->inflight++;
	w->reading[page]++;
	return 0;
}

static void one_random(struct world *w)
{
	u32 page = net_random(w->net, PAGES), what = net_random(w->net, 20);

	if (what < 9)
		post_write(w, page);
	else if (what < 19)
		post_read(w, page);
	else if (!w->writing[page] && !w->reading[page]) {
		store_discard(w->store, page);
		w->stamp[page] = 0;
	}
}

static void wait_all(struct world *w, u64 time)
{
	u64 end = w->net->now + time;

	while (w->inflight) {
		assert_true(w->net->now < end);
		net_step(w->net, SECOND);
	}
}

static void write_now(struct world *w, u32 page)
{
	post_write(w, page);
	wait_all(w, SECOND);
}

static void load(struct world *w, u32 operations)
{
	u64 end = w->completed + operations, late = w->net->now + 600 * SECOND;

	while (w->completed < end) {
		assert_true(w->net->now < late);
		while (w->inflight < STORE_INFLIGHT && net_random(w->net, 8))
			one_random(w);
		net_step(w->net, SECOND);
	}
}

static void verify_all(struct world *w)
{
	u32 page;

	for (page = 0; page < PAGES; page++) {
		if (w->inflight == STORE_INFLIGHT)
			wait_all(w, 600 * SECOND);
		post_read(w, page);
	}
	wait_all(w, 600 * SECOND);
}

static struct store_stats stats_of(struct world *w)
{
	struct store_stats s;

	store_stats(w->store, &s);
	return s;
}

/* The map agrees with itself: slots, bits, counts; and nothing is left behind. */
static void consistent(struct world *w)
{
	struct store *s = w->store;
	u32 i, page, n, buffers = s->config.seal ? STORE_BUFFERS : STORE_REPAIRS;

	for (i = 0; i < s->config.nodes; i++) {
		struct store_node *node = &s->node[i];
		u8 used[PAGES] = {0};

		for (page = n = 0; page < PAGES; page++) {
			u32 slot = *slot_of(s, page, i);

			if (s->page_flags[page] & BIT(i))
				assert_true(slot);
			if (!slot)
				continue;
			assert_in_range(slot, 1, node->slots);
			assert_int_equal(used[slot - 1]++, 0);
			assert_true(node->bitmap[(slot - 1) / 64] & BIT64((slot - 1) % 64));
			n++;
		}
		assert_int_equal(n, node->taken);
		for (page = 0; page < node->ready_count; page++)
			assert_int_equal(used[node->ready[page]]++, 0);
		assert_int_equal(node->inflight, s->repairs ? node->inflight : 0);
	}
	if (w->inflight || s->repairs)
		return;
	assert_int_equal(s->free_buffers, buffers);
	assert_int_equal(s->stalled, 0);
	for (page = 0; page < PAGES; page++)
		assert_false(s->page_flags[page] & PAGE_BUSY);
}

/* Until nothing lacks copies. */
static void settle(struct world *w)
{
	u64 end = w->net->now + 120 * SECOND;

	wait_all(w, 600 * SECOND);
	while (stats_of(w).under_replicated || w->store->repairs) {
		assert_true(w->net->now < end);
		net_step(w->net, SECOND);
	}
	consistent(w);
}

static void test_configuration(void **state)
{
	struct store_config c = {.nodes = 1, .replicas = 1, .pages = 1};
	static u8 memory[1 << 19];

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

/* --- nodes that lie ------------------------------------------------------------------------- */

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
		cmocka_unit_test(test_configuration),
		cmocka_unit_test(test_clean),
		cmocka_unit_test(test_secrecy),
		cmocka_unit_test(test_wire_faults),
		cmocka_unit_test(test_only_node_silent),
		cmocka_unit_test(test_only_node_restarted),
		cmocka_unit_test(test_held),
		cmocka_unit_test(test_only_copy_lost),
		cmocka_unit_test(test_kill_one_of_two),
		cmocka_unit_test(test_rereplication),
		cmocka_unit_test(test_patience),
		cmocka_unit_test(test_fewer_copies),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_lies),
		cmocka_unit_test(test_lie_not_copied),
		cmocka_unit_test(test_versions),
		cmocka_unit_test(test_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
