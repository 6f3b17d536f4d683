/* The fabric against real memory nodes over a network with faults: links live, die and return. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "fabric_net.h"

#define SLICE	65536u
#define SECOND	1000000000ull
#define MINUTES (60 * SECOND)

static struct fabric_net *one_node(u64 seed)
{
	struct fabric_net *n = net_new(seed);

	net_add_node(n, SLICE, 1);
	assert_int_equal(net_link(n, 0), 0);
	return n;
}

static bool wait_for(struct fabric_net *n, u32 link, enum link_state state, u64 time)
{
	u64 end = n->now + time;

	while (n->now < end) {
		if (n->fabric.link[link].state == state)
			return true;
		net_step(n, SECOND);
	}
	return false;
}

static enum rdma_status transfer(struct fabric_net *n, u32 link, enum rdma_operation op, u64 offset,
				 void *data, u32 len)
{
	const struct fabric_link *l = &n->fabric.link[link];
	struct rdma_work w = {.id = 5,
			      .op = op,
			      .data = data,
			      .length = len,
			      .rkey = l->rkey,
			      .va = l->va + offset};
	struct rdma_completion c;
	u64 end = n->now + MINUTES;

	assert_int_equal(fabric_post(&n->fabric, link, &w), 0);
	while (n->now < end) {
		if (fabric_poll(&n->fabric, link, &c)) {
			assert_int_equal(c.id, 5);
			return c.status;
		}
		net_step(n, SECOND);
	}
	fail_msg("no completion");
	return RDMA_OK;
}

/* The owner of a link that waits for nothing fetches completions all the same. */
static void idle(struct fabric_net *n, u64 time)
{
	u64 end = n->now + time;
	struct rdma_completion c;
	u32 i;

	while (n->now < end) {
		net_step(n, end - n->now);
		for (i = 0; i < FABRIC_LINKS; i++)
			while (fabric_poll(&n->fabric, i, &c))
				;
	}
}

static void test_connects(void **state)
{
	struct fabric_net *n = one_node(1);
	const struct fabric_link *l = &n->fabric.link[0];
	u8 page[PAGE_SIZE], back[PAGE_SIZE];
	u32 i;

	assert_int_equal(fabric_post(&n->fabric, 0, &(struct rdma_work){.op = RDMA_WRITE}), ERR_IO);
	assert_true(wait_for(n, 0, LINK_UP, SECOND));
	assert_true(l->length == SLICE && l->incarnation == n->node[0].node.incarnation);
	assert_int_equal(l->connections, 1);
	for (i = 0; i < SLICE / PAGE_SIZE; i++) {
		memset(page, (int)i + 1, sizeof(page));
		assert_int_equal(transfer(n, 0, RDMA_WRITE, i * PAGE_SIZE, page, sizeof(page)), 0);
		assert_memory_equal(n->node[0].memory + i * PAGE_SIZE, page, sizeof(page));
		assert_int_equal(transfer(n, 0, RDMA_READ, i * PAGE_SIZE, back, sizeof(back)), 0);
		assert_memory_equal(page, back, sizeof(page));
	}
	/* 20 us each way are measured, and a loss costs no quarter of a second any more. */
	assert_in_range(l->round_trip, 40000, 60000);
	assert_in_range(l->qp.config.timeout, 11, 13);
	net_free(n);
}

/* An idle link is asked for a sign of life, and a node that gives none is left. */
static void test_keepalive(void **state)
{
	struct fabric_net *n = one_node(2);
	const struct fabric_link *l = &n->fabric.link[0];
	u64 frames;

	assert_true(wait_for(n, 0, LINK_UP, SECOND));
	frames = n->frames;
	idle(n, MINUTES);
	assert_int_equal(l->state, LINK_UP);
	assert_int_equal(l->connections, 1);
	assert_in_range(n->frames - frames, 40, 200);
	n->node[0].stopped = true;
	idle(n, 4 * SECOND);
	assert_int_not_equal(l->state, LINK_UP);
	assert_int_equal(l->died, RDMA_RETRY_EXCEEDED);
	/* It tries again, at longer and longer intervals. */
	frames = n->frames;
	idle(n, 10 * MINUTES);
	assert_in_range(n->frames - frames, 100, 1200);
	n->node[0].stopped = false;
	assert_true(wait_for(n, 0, LINK_UP, 20 * SECOND));
	/* The node knew the client again: the same slice, the same content. */
	assert_true(l->incarnation == n->node[0].node.incarnation);
	assert_int_equal(l->connections, 2);
	net_free(n);
}

/* Work that is under way when the node goes completes, as failed. */
static void test_death_under_way(void **state)
{
	struct fabric_net *n = one_node(3);
	struct rdma_work w = {.op = RDMA_READ, .length = PAGE_SIZE};
	static u8 page[8][PAGE_SIZE];
	struct rdma_completion c;
	u32 i;

	assert_true(wait_for(n, 0, LINK_UP, SECOND));
	n->node[0].stopped = true;
	w.va = n->fabric.link[0].va;
	w.rkey = n->fabric.link[0].rkey;
	for (i = 0; i < 8; i++) {
		w.id = i;
		w.data = page[i];
		assert_int_equal(fabric_post(&n->fabric, 0, &w), 0);
	}
	assert_true(wait_for(n, 0, LINK_DOWN, 20 * SECOND));
	n->node[0].stopped = false;
	/* It does not go on before all have been fetched. */
	assert_false(wait_for(n, 0, LINK_UP, 20 * SECOND));
	for (i = 0; i < 8; i++) {
		assert_true(fabric_poll(&n->fabric, 0, &c));
		assert_int_equal(c.id, i);
		assert_int_equal(c.status, i ? RDMA_FLUSHED : RDMA_RETRY_EXCEEDED);
	}
	assert_false(fabric_poll(&n->fabric, 0, &c));
	assert_int_equal(n->fabric.link[0].died, RDMA_RETRY_EXCEEDED);
	assert_true(wait_for(n, 0, LINK_UP, SECOND));
	assert_int_equal(transfer(n, 0, RDMA_WRITE, 0, page[0], 8), RDMA_OK);
	net_free(n);
}

/* A network that becomes slower than the time-out: repeated for nothing at first, then waited for.
 */
static void test_slow_network(void **state)
{
	struct fabric_net *n = one_node(11);
	const struct fabric_link *l = &n->fabric.link[0];
	u8 word[8] = {1};
	u64 again;
	u32 i;

	assert_true(wait_for(n, 0, LINK_UP, SECOND));
	for (i = 0; i < 20; i++)
		assert_int_equal(transfer(n, 0, RDMA_WRITE, 0, word, 8), RDMA_OK);
	assert_int_equal(l->qp.config.timeout, 12);
	n->one_way = 40000000;
	for (i = 0; i < 20; i++)
		assert_int_equal(transfer(n, 0, RDMA_WRITE, 0, word, 8), RDMA_OK);
	again = l->qp.stats.tx_again;
	assert_in_range(again, 1, 60);
	for (i = 0; i < 50; i++)
		assert_int_equal(transfer(n, 0, RDMA_WRITE, 0, word, 8), RDMA_OK);
	assert_true(l->qp.stats.tx_again == again);
	assert_int_equal(l->connections, 1);
	net_free(n);
}

/* A request that the node refuses ends the connection, and the next one is made. */
static void test_refused_request(void **state)
{
	struct fabric_net *n = one_node(4);
	u8 word[8];
	u32 i;

	assert_true(wait_for(n, 0, LINK_UP, SECOND));
	for (i = 1; i < 4; i++) {
		u32 qpn = n->fabric.link[0].qp.config.local_qpn;

		assert_int_equal(transfer(n, 0, RDMA_READ, SLICE, word, 8), RDMA_REMOTE_ACCESS);
		assert_true(wait_for(n, 0, LINK_WAITING, SECOND));
		assert_int_equal(n->fabric.link[0].died, RDMA_REMOTE_ACCESS);
		assert_true(wait_for(n, 0, LINK_UP, 20 * SECOND));
		assert_int_equal(n->fabric.link[0].connections, i + 1);
		assert_int_not_equal(n->fabric.link[0].qp.config.local_qpn, qpn);
		assert_int_equal(transfer(n, 0, RDMA_WRITE, 0, word, 8), RDMA_OK);
	}
	net_free(n);
}

static void test_restart(void **state)
{
	struct fabric_net *n = one_node(5);
	const struct fabric_link *l = &n->fabric.link[0];
	u64 incarnation;
	u8 word[8] = {1};

	assert_true(wait_for(n, 0, LINK_UP, SECOND));
	incarnation = l->incarnation;
	/* It knows of no connection, but still has what it held. */
	net_node_start(n, 0, n->node[0].entropy);
	assert_int_equal(transfer(n, 0, RDMA_WRITE, 0, word, 8), RDMA_RETRY_EXCEEDED);
	idle(n, SECOND);
	assert_true(l->state == LINK_UP && l->incarnation == incarnation);
	assert_int_equal(l->connections, 2);
	net_node_start(n, 0, 4711);
	assert_int_equal(transfer(n, 0, RDMA_WRITE, 0, word, 8), RDMA_RETRY_EXCEEDED);
	idle(n, SECOND);
	assert_true(l->state == LINK_UP && l->incarnation != incarnation);
	assert_true(l->incarnation == n->node[0].node.incarnation);
	net_free(n);
}

static void test_refusals(void **state)
{
	struct fabric_net *n = net_new(6);
	struct fabric_peer peer = {
		.ip = NODE_IP(0), .port = NODE_PORT, .slice = NODE_ANY_SLICE, .token = "wrong"};
	const struct fabric_link *l = n->fabric.link;

	net_add_node(n, SLICE, 1);
	assert_int_equal(fabric_link(&n->fabric, &peer), 0);
	peer.port = 99;
	memcpy(peer.token, net_token, NODE_TOKEN);
	assert_int_equal(fabric_link(&n->fabric, &peer), 1);
	assert_int_equal(net_link(n, 0), 2);
	assert_true(wait_for(n, 2, LINK_UP, SECOND));
	assert_int_equal(net_link(n, 0), 3); /* no slice is left */
	idle(n, MINUTES);
	assert_int_equal(l[0].refused, CM_REJ_CONSUMER);
	assert_int_equal(l[1].refused, CM_REJ_INVALID_SERVICE);
	assert_int_equal(l[2].refused, 0);
	assert_int_equal(l[3].refused, CM_REJ_NO_QP);
	assert_in_range(l[0].failures, 8, 30);
	assert_true(l[0].connections == 0 && l[1].connections == 0 && l[3].connections == 0);
	/* When the slice becomes free, the one who waits gets it. */
	fabric_unlink(&n->fabric, 2);
	assert_true(wait_for(n, 3, LINK_UP, 20 * SECOND));
	assert_int_equal(l[2].state, LINK_UNUSED);
	net_free(n);
}

/* An answer that makes no sense: nothing is posted on the strength of it. */
static void test_mad_answers(void **state)
{
	struct fabric_net *n = one_node(7);
	struct node *node = &n->node[0].node;
	u32 i;

	for (i = 0; i < 40; i++) {
		struct cm_connection *c = &node->agent.connection[0];
		struct node_answer *a = (struct node_answer *)c->private_data;
		u64 end = n->now + 30 * SECOND;

		while (n->fabric.link[0].state != LINK_CONNECTING && n->now < end)
			net_step(n, SECOND);
		while (c->state != CM_REP_SENT && n->now < end) {
			net_deliver(n);
			n->now += 1000;
		}
		if (c->state != CM_REP_SENT)
			break;
		switch (i % 4) {
		case 0:
			a->magic[i % 3] ^= 1;
			break;
		case 1:
			memset(a->length, 0, 8);
			break;
		case 2:
			memset(a->va, 0xff, 8);
			break;
		default:
			a->version[1] = 9;
			break;
		}
		while (n->fabric.link[0].state == LINK_CONNECTING && n->now < end)
			net_step(n, SECOND);
		assert_int_not_equal(n->fabric.link[0].state, LINK_UP);
		assert_int_equal(n->fabric.link[0].refused, CM_REJ_CONSUMER);
		net_node_start(n, 0, n->node[0].entropy);
	}
	assert_in_range(i, 8, 40);
	assert_true(wait_for(n, 0, LINK_UP, 30 * SECOND));
	net_free(n);
}

/*
 * A round has something to do after a post, after what completes it and after what is no expected
 * answer, and not after a page's other packets.
 */
static void test_rests(void **state)
{
	struct fabric_net *n = one_node(3);
	struct fabric *f = &n->fabric;
	const struct fabric_link *l = &f->link[0];
	static u8 page[4096];
	struct rdma_work w = {.op = RDMA_READ, .data = page, .length = sizeof(page)};
	struct rdma_completion c;
	struct rdma_frame frame;
	u8 wire[RDMA_FRAME_MAX];

	assert_true(wait_for(n, 0, LINK_UP, SECOND));
	net_run(n, SECOND / 10);
	assert_true(fabric_deadline(f) > n->now);
	w.va = l->va;
	w.rkey = l->rkey;
	assert_int_equal(fabric_post(f, 0, &w), 0);
	assert_true(f->pending);
	while (fabric_transmit(f, n->now, &frame))
		node_receive(&n->node[0].node, n->now, wire, rdma_frame_copy(&frame, wire));
	assert_false(f->pending);
	assert_in_range(fabric_deadline(f), n->now + 1, n->now + SECOND);
	for (u32 i = 0; i < 4; i++) {
		assert_true(node_transmit(&n->node[0].node, n->now, &frame));
		assert_int_equal(fabric_take(f, n->now, wire, rdma_frame_copy(&frame, wire)),
				 i == 3 ? RDMA_COMPLETES : RDMA_TAKEN);
		assert_true(fabric_deadline(f) > n->now);
	}
	assert_false(f->pending);
	assert_true(fabric_poll(f, 0, &c));
	assert_false(fabric_transmit(f, n->now, &frame));
	assert_true(fabric_deadline(f) > n->now);
	/* An answer lets a READ out that had to wait. */
	for (u32 i = 0; i <= RDMA_READ_MAX; i++)
		assert_int_equal(fabric_post(f, 0, &w), 0);
	while (fabric_transmit(f, n->now, &frame))
		node_receive(&n->node[0].node, n->now, wire, rdma_frame_copy(&frame, wire));
	assert_false(f->pending);
	for (u32 i = 0; i < 4; i++) {
		assert_true(node_transmit(&n->node[0].node, n->now, &frame));
		fabric_take(f, n->now, wire, rdma_frame_copy(&frame, wire));
		assert_int_equal(f->pending, i == 3);
	}
	assert_true(fabric_transmit(f, n->now, &frame));
	net_free(n);
}

static void test_address(void **state)
{
	struct fabric_net *n = net_new(8);
	const struct fabric_link *l = &n->fabric.link[0];
	const u8 other[6] = {2, 0, 0, 0, 0, 1};
	u32 asked;

	net_add_node(n, SLICE, 2);
	fabric_set_address(&n->fabric, host_mac, 0);
	assert_int_equal(net_link(n, 0), 0);
	assert_false(wait_for(n, 0, LINK_CONNECTING, MINUTES));
	assert_int_equal(n->resolutions, 0);
	n->unresolved = true;
	fabric_set_address(&n->fabric, host_mac, HOST_IP);
	assert_false(wait_for(n, 0, LINK_CONNECTING, SECOND));
	asked = n->resolutions;
	assert_in_range(asked, 20, 60);
	n->unresolved = false;
	assert_true(wait_for(n, 0, LINK_UP, SECOND));
	fabric_set_address(&n->fabric, host_mac, HOST_IP);
	assert_int_equal(l->state, LINK_UP);
	fabric_set_address(&n->fabric, other, HOST_IP + 5);
	assert_int_not_equal(l->state, LINK_UP);
	assert_true(wait_for(n, 0, LINK_UP, SECOND));
	assert_int_equal(l->connections, 2);
	net_free(n);
}

/* All places used, over a bad network: data intact, links up in the end. */
static void test_many_links(void **state)
{
	struct fabric_net *n = net_new(9);
	u8 out[64], in[64];
	u32 i, round;

	n->faults = (struct net_faults){.loss = 30, .copy = 30, .delay = 30, .alter = 10};
	net_add_node(n, 8 * SLICE, 8);
	net_add_node(n, 8 * SLICE, 8);
	for (i = 0; i < FABRIC_LINKS; i++)
		assert_int_equal(net_link(n, i % 2), (int)i);
	assert_int_equal(net_link(n, 0), ERR_BUSY);
	for (i = 0; i < FABRIC_LINKS; i++)
		assert_true(wait_for(n, i, LINK_UP, MINUTES));
	for (round = 0; round < 5; round++)
		for (i = 0; i < FABRIC_LINKS; i++) {
			memset(out, (int)(round * 16 + i + 1), sizeof(out));
			assert_true(wait_for(n, i, LINK_UP, MINUTES));
			assert_int_equal(transfer(n, i, RDMA_WRITE, 64, out, sizeof(out)), 0);
			assert_int_equal(transfer(n, i, RDMA_READ, 64, in, sizeof(in)), 0);
			assert_memory_equal(out, in, sizeof(in));
		}
	for (i = 0; i < FABRIC_LINKS; i++)
		fabric_unlink(&n->fabric, i);
	net_run(n, 10 * SECOND);
	for (i = 0; i < FABRIC_LINKS; i++)
		assert_int_equal(n->fabric.link[i].state, LINK_UNUSED);
	for (i = 0; i < 8; i++)
		assert_true(!n->node[0].node.slice[i].c && !n->node[1].node.slice[i].c);
	net_free(n);
}

/* A link may be taken away in any state. */
static void test_unlink(void **state)
{
	u32 steps;

	for (steps = 0; steps < 60; steps++) {
		struct fabric_net *n = one_node(100 + steps);
		u32 i;

		n->faults.loss = 100;
		for (i = 0; i < steps; i++)
			net_step(n, SECOND / 10);
		fabric_unlink(&n->fabric, 0);
		assert_false(fabric_up(&n->fabric, 0));
		net_run(n, 20 * SECOND);
		assert_int_equal(n->fabric.link[0].state, LINK_UNUSED);
		assert_int_equal(net_link(n, 0), 0);
		assert_true(wait_for(n, 0, LINK_UP, 4 * MINUTES));
		net_free(n);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_connects),	cmocka_unit_test(test_keepalive),
		cmocka_unit_test(test_death_under_way), cmocka_unit_test(test_refused_request),
		cmocka_unit_test(test_restart),		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_mad_answers),	cmocka_unit_test(test_address),
		cmocka_unit_test(test_rests),		cmocka_unit_test(test_slow_network),
		cmocka_unit_test(test_many_links),	cmocka_unit_test(test_unlink),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
