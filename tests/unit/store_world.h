/*
 * For tests of the store: one with random work against real memory nodes over a network with
 * faults. What was written last is what is read, whatever happens to frames and nodes; what cannot
 * be is reported, and never wrong bytes.
 */
#pragma once

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
static inline void fill(u8 *data, u32 page, u32 stamp)
{
	u32 *words = (u32 *)(void *)data, i;

	for (i = 0; i < PAGE_SIZE / 4; i++)
		words[i] = (stamp * 2654435761u) ^ (page << 20) ^ i;
}

static inline void check(const u8 *data, u32 page, u32 stamp)
{
	static u8 expected[PAGE_SIZE];

	fill(expected, page, stamp);
	assert_memory_equal(data, expected, PAGE_SIZE);
}

static inline void collect(struct world *w)
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

static inline void users(struct fabric_net *n)
{
	struct world *w = n->user;

	store_work(w->store, n->now);
	collect(w);
}

static inline u64 deadline(struct fabric_net *n)
{
	return store_deadline(((struct world *)n->user)->store);
}

static inline struct world *world_new(u64 seed, u32 nodes, u32 replicas, bool seal, u64 length)
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

static inline void world_free(struct world *w)
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

static inline struct flight *new_flight(struct world *w, u64 *id)
{
	u32 i;

	for (i = 0; i < STORE_INFLIGHT; i++)
		if (!w->flight[i].used) {
			*id = i;
			return &w->flight[i];
		}
	return NULL;
}

static inline int post_write(struct world *w, u32 page)
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

static inline int post_read(struct world *w, u32 page)
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

static inline void one_random(struct world *w)
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

static inline void wait_all(struct world *w, u64 time)
{
	u64 end = w->net->now + time;

	while (w->inflight) {
		assert_true(w->net->now < end);
		net_step(w->net, SECOND);
	}
}

static inline void write_now(struct world *w, u32 page)
{
	post_write(w, page);
	wait_all(w, SECOND);
}

static inline void load(struct world *w, u32 operations)
{
	u64 end = w->completed + operations, late = w->net->now + 600 * SECOND;

	while (w->completed < end) {
		assert_true(w->net->now < late);
		while (w->inflight < STORE_INFLIGHT && net_random(w->net, 8))
			one_random(w);
		net_step(w->net, SECOND);
	}
}

static inline void verify_all(struct world *w)
{
	u32 page;

	for (page = 0; page < PAGES; page++) {
		if (w->inflight == STORE_INFLIGHT)
			wait_all(w, 600 * SECOND);
		post_read(w, page);
	}
	wait_all(w, 600 * SECOND);
}

static inline struct store_stats stats_of(struct world *w)
{
	struct store_stats s;

	store_stats(w->store, &s);
	return s;
}

/* The map agrees with itself: slots, bits, counts; and nothing is left behind. */
static inline void consistent(struct world *w)
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
	assert_int_equal(s->head.stalled, 0);
	for (page = 0; page < PAGES; page++)
		assert_false(s->page_flags[page] & PAGE_BUSY);
}

/* Until nothing lacks copies. */
static inline void settle(struct world *w)
{
	u64 end = w->net->now + 120 * SECOND;

	wait_all(w, 600 * SECOND);
	while (stats_of(w).under_replicated || w->store->repairs) {
		assert_true(w->net->now < end);
		net_step(w->net, SECOND);
	}
	consistent(w);
}
