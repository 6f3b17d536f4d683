/* The memory node: clients that connect, use their slice, go, come back, or are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "rdma/node.h"

#define SLICE	  65536u
#define NODE_IP	  0x0a4d0001
#define CLIENT_IP 0x0a4d0002 /* and the following */

static const u8 node_mac[6] = {2, 0, 0, 0, 0, 1};
static const u8 token[NODE_TOKEN] = "open sesame";

/* A client with an address of its own. */
struct client {
	struct cm_agent agent;
	struct cm_connection *c;
	struct rdma_qp qp;
	bool ready;
	struct node_answer answer;
};

struct net {
	struct node node;
	struct client client[NODE_SLICES + 2];
	u8 *memory;
	u64 now;
	u32 loss, seed;
	u32 ids;
};

static struct net *net_new(u32 slices)
{
	struct net *n = calloc(1, sizeof(*n));
	struct node_config config = {
		.mac = {2, 0, 0, 0, 0, 1},
		.ip = NODE_IP,
		.port = NODE_PORT,
		.length = slices * SLICE,
		.slices = slices,
		.entropy = 42,
	};
	u32 i;

	n->memory = calloc(slices, SLICE);
	config.memory = n->memory;
	memcpy(config.token, token, NODE_TOKEN);
	assert_int_equal(node_init(&n->node, &config), 0);
	for (i = 0; i < ARRAY_SIZE(n->client); i++)
		cm_init(&n->client[i].agent, (const u8[6]){2, 0, 0, 0, 1, (u8)i}, CLIENT_IP + i, i);
	n->now = 1000;
	return n;
}

static void net_free(struct net *n)
{
	free(n->memory);
	free(n);
}

static bool lost(struct net *n)
{
	n->seed = n->seed * 1103515245 + 12345;
	return (n->seed >> 16) % 1000 < n->loss;
}

static void client_receive(struct net *n, struct client *c, const u8 *wire, u32 len)
{
	struct rdma_packet p;

	assert_int_equal(rdma_decode(&p, wire, len), 0);
	if (p.dst_ip != c->agent.ip)
		return;
	if (p.dest_qp == CM_QPN)
		cm_receive(&c->agent, n->now, &p);
	else if (c->ready)
		rdma_qp_receive(&c->qp, n->now, &p);
}

static void step(struct net *n)
{
	u8 wire[RDMA_FRAME_MAX];
	struct rdma_frame f;
	u32 i, len;

	for (i = 0; i < ARRAY_SIZE(n->client); i++) {
		struct client *c = &n->client[i];

		while (cm_transmit(&c->agent, n->now, &f) ||
		       (c->ready && rdma_qp_transmit(&c->qp, n->now, &f))) {
			len = rdma_frame_copy(&f, wire);
			if (!lost(n))
				node_receive(&n->node, n->now, wire, len);
		}
	}
	while (node_transmit(&n->node, n->now, &f)) {
		len = rdma_frame_copy(&f, wire);
		for (i = 0; i < ARRAY_SIZE(n->client) && !lost(n); i++)
			client_receive(n, &n->client[i], wire, len);
	}
	n->now += 100000;
}

/* Connects; the reason if it is refused, else 0. */
static u16 connect_with(struct net *n, u32 i, const void *request, u32 len)
{
	struct client *c = &n->client[i];
	struct rdma_qp_config config = {.window = 16};
	struct rdma_regions none = {NULL, 0};
	struct cm_offer offer = {
		.comm_id = 100 + n->ids,
		.qpn = 1000 + n->ids,
		.psn = 0xfffff0,
		.tid = 10 + n->ids,
		.initiator_depth = 8,
		.retry_count = 7,
		.rnr_retry = 7,
		.ack_timeout = 8,
		.mtu = 1024,
		.private_data = request,
		.private_len = len,
	};
	u32 steps;

	n->ids++;
	c->ready = false;
	if (c->c)
		cm_release(c->c);
	c->c = cm_connect(&c->agent, &offer, NODE_IP, node_mac, NODE_PORT);
	assert_non_null(c->c);
	for (steps = 0; steps < 200000 && c->c->state == CM_REQ_SENT; steps++)
		step(n);
	if (c->c->state == CM_CLOSED)
		return c->c->reason;
	assert_int_equal(c->c->state, CM_REP_RECEIVED);
	memcpy(&c->answer, c->c->peer_private, sizeof(c->answer));
	assert_int_equal(node_answer_check(&c->answer), 0);
	cm_qp_config(&c->agent, c->c, &config);
	assert_int_equal(rdma_qp_init(&c->qp, &config, &none), 0);
	c->ready = true;
	cm_establish(c->c);
	return 0;
}

static u16 connect_slice(struct net *n, u32 i, u16 slice)
{
	struct node_request r;

	node_request_encode(&r, slice, token);
	return connect_with(n, i, &r, sizeof(r));
}

static enum rdma_status transfer(struct net *n, u32 i, enum rdma_operation op, u64 offset,
				 void *data, u32 len)
{
	struct client *c = &n->client[i];
	struct rdma_completion done;
	struct rdma_work w = {.op = op,
			      .data = data,
			      .length = len,
			      .rkey = be32(c->answer.rkey),
			      .va = be64(c->answer.va) + offset};
	u32 steps;

	assert_int_equal(rdma_post(&c->qp, &w), 0);
	for (steps = 0; steps < 10000; steps++) {
		if (rdma_poll_send(&c->qp, &done))
			return done.status;
		step(n);
	}
	fail_msg("no completion");
	return RDMA_OK;
}

static void test_pages(void **state)
{
	static u8 page[PAGE_SIZE], back[PAGE_SIZE];
	struct net *n = net_new(1);
	u32 i;

	n->loss = 50;
	assert_int_equal(connect_slice(n, 0, NODE_ANY_SLICE), 0);
	assert_true(be64(n->client[0].answer.length) == SLICE);
	assert_true(be64(n->client[0].answer.incarnation) == n->node.incarnation);
	assert_true(be16(n->client[0].answer.slices) == 1 &&
		    be16(n->client[0].answer.slices_used) == 1);
	for (i = 0; i < SLICE / PAGE_SIZE; i++) {
		memset(page, (int)i + 1, sizeof(page));
		assert_int_equal(transfer(n, 0, RDMA_WRITE, i * PAGE_SIZE, page, sizeof(page)), 0);
	}
	for (i = 0; i < SLICE / PAGE_SIZE; i++) {
		memset(page, (int)i + 1, sizeof(page));
		assert_int_equal(transfer(n, 0, RDMA_READ, i * PAGE_SIZE, back, sizeof(back)), 0);
		assert_memory_equal(page, back, sizeof(page));
	}
	net_free(n);
}

/* Clients get slices of their own, and reach no other's. */
static void test_slices(void **state)
{
	struct net *n = net_new(3);
	u8 word[8] = {1, 2, 3, 4, 5, 6, 7, 8}, zero[8] = {0}, back[8];

	assert_int_equal(connect_slice(n, 0, NODE_ANY_SLICE), 0);
	assert_int_equal(connect_slice(n, 1, 2), 0);
	assert_int_equal(connect_slice(n, 2, NODE_ANY_SLICE), 0);
	assert_int_equal(be16(n->client[2].answer.slice), 1);
	assert_int_equal(be16(n->client[2].answer.slices_used), 3);
	assert_int_equal(connect_slice(n, 3, NODE_ANY_SLICE), CM_REJ_NO_QP);
	assert_int_equal(connect_slice(n, 3, 0), CM_REJ_NO_QP); /* another host's */
	assert_int_equal(connect_slice(n, 3, 3), CM_REJ_NO_QP); /* there is none */
	assert_int_equal(n->node.refused, 3);
	assert_int_equal(transfer(n, 1, RDMA_WRITE, 0, word, 8), RDMA_OK);
	assert_memory_equal(n->memory + 2 * SLICE, word, 8);
	assert_int_equal(transfer(n, 2, RDMA_READ, 0, back, 8), RDMA_OK);
	assert_memory_equal(back, zero, 8);
	/* Beyond the end, and with the neighbour's key. */
	assert_int_equal(transfer(n, 0, RDMA_WRITE, SLICE - 7, word, 8), RDMA_REMOTE_ACCESS);
	n->client[2].answer.rkey[0] ^= 1;
	assert_int_equal(transfer(n, 2, RDMA_READ, 0, back, 8), RDMA_REMOTE_ACCESS);
	net_free(n);
}

/* A slice keeps its content, whether its client says good-bye, or is forgotten, or fails. */
static void test_return(void **state)
{
	struct net *n = net_new(1);
	u8 word[8] = {1, 2, 3, 4, 5, 6, 7, 8}, back[8];
	u32 i, old_key;

	assert_int_equal(connect_slice(n, 0, 0), 0);
	assert_int_equal(transfer(n, 0, RDMA_WRITE, 16, word, 8), RDMA_OK);
	old_key = be32(n->client[0].answer.rkey);
	cm_disconnect(n->client[0].c);
	for (i = 0; i < 10; i++)
		step(n);
	assert_int_equal(n->client[0].c->state, CM_CLOSED);
	assert_null(n->node.slice[0].c);
	/* Another host may have it now. */
	assert_int_equal(connect_slice(n, 1, 0), 0);
	assert_int_equal(transfer(n, 1, RDMA_READ, 16, back, 8), RDMA_OK);
	assert_memory_equal(back, word, 8);
	assert_int_not_equal(be32(n->client[1].answer.rkey), old_key);
	/* And again, without a good-bye. */
	assert_int_equal(connect_slice(n, 0, 0), CM_REJ_NO_QP);
	for (i = 0; i < 40; i++) {
		assert_int_equal(connect_slice(n, 1, 0), 0);
		assert_int_equal(transfer(n, 1, RDMA_READ, 16, back, 8), RDMA_OK);
		assert_memory_equal(back, word, 8);
		assert_int_equal(n->node.taken_over, i + 1);
		step(n);
		step(n);
	}
	/* And after an error. */
	assert_int_equal(transfer(n, 1, RDMA_READ, SLICE, back, 8), RDMA_REMOTE_ACCESS);
	for (i = 0; i < 10; i++)
		step(n);
	assert_null(n->node.slice[0].c);
	assert_int_equal(connect_slice(n, 0, 0), 0);
	assert_int_equal(transfer(n, 0, RDMA_READ, 16, back, 8), RDMA_OK);
	assert_memory_equal(back, word, 8);
	net_free(n);
}

static u16 connect_as(struct net *n, u32 i, u16 slice, u64 client)
{
	struct node_request r;

	node_request_encode(&r, slice, token);
	put_be64(r.client, client);
	return connect_with(n, i, &r, sizeof(r));
}

/* Clients with numbers find their own slices again, and learn if another has had them. */
static void test_numbered_clients(void **state)
{
	struct net *n = net_new(2);
	u64 first;
	u32 i;

	assert_int_equal(connect_as(n, 0, NODE_ANY_SLICE, 7), 0);
	assert_int_equal(be16(n->client[0].answer.slice), 0);
	first = be64(n->client[0].answer.incarnation);
	/* Two of one host do not take each other's, with or without asking for it. */
	assert_int_equal(connect_as(n, 0, 0, 8), CM_REJ_NO_QP);
	assert_int_equal(connect_as(n, 0, NODE_ANY_SLICE, 7), 0);
	assert_int_equal(n->node.taken_over, 1);
	assert_int_equal(be16(n->client[0].answer.slice), 0);
	assert_true(be64(n->client[0].answer.incarnation) == first);
	cm_disconnect(n->client[0].c);
	for (i = 0; i < 10; i++)
		step(n);
	/* What is nobody's is lent first. */
	assert_int_equal(connect_as(n, 1, NODE_ANY_SLICE, 7), 0);
	assert_int_equal(be16(n->client[1].answer.slice), 1);
	assert_int_equal(connect_as(n, 0, NODE_ANY_SLICE, 7), 0);
	assert_int_equal(be16(n->client[0].answer.slice), 0);
	assert_true(be64(n->client[0].answer.incarnation) == first);
	cm_disconnect(n->client[0].c);
	for (i = 0; i < 10; i++)
		step(n);
	assert_int_equal(connect_as(n, 2, NODE_ANY_SLICE, 9), 0);
	assert_int_equal(be16(n->client[2].answer.slice), 0);
	assert_true(be64(n->client[2].answer.incarnation) != first);
	cm_disconnect(n->client[2].c);
	for (i = 0; i < 10; i++)
		step(n);
	assert_int_equal(connect_as(n, 0, NODE_ANY_SLICE, 7), 0);
	assert_true(be64(n->client[0].answer.incarnation) != first);
	net_free(n);
}

/* A client that falls silent is asked, and when it does not answer, its slice is free. */
static void test_silent_client(void **state)
{
	struct net *n = net_new(1);
	u8 word[8] = {1};
	u32 i;

	assert_int_equal(connect_slice(n, 0, NODE_ANY_SLICE), 0);
	assert_int_equal(transfer(n, 0, RDMA_WRITE, 0, word, 8), RDMA_OK);
	for (i = 0; i < 10; i++) {
		step(n);
		n->now = node_deadline(&n->node);
	}
	for (i = 0; i < 10; i++)
		step(n);
	assert_int_equal(n->client[0].qp.state, RDMA_QP_READY);
	assert_in_range(n->client[0].qp.resp.msn, 4, 10); /* so often it was asked */
	assert_non_null(n->node.slice[0].c);
	assert_int_equal(connect_slice(n, 1, NODE_ANY_SLICE), CM_REJ_NO_QP);
	n->client[0].ready = false;
	for (i = 0; i < 20 && n->node.slice[0].c; i++) {
		n->now = node_deadline(&n->node);
		step(n);
	}
	assert_null(n->node.slice[0].c);
	assert_int_equal(connect_slice(n, 1, NODE_ANY_SLICE), 0);
	net_free(n);
}

static void test_refusals(void **state)
{
	struct net *n = net_new(2);
	struct node_request r;
	u32 bit;

	for (bit = 0; bit < 6 * 8; bit++) {
		node_request_encode(&r, 0, token);
		((u8 *)&r)[bit / 8] ^= (u8)(1u << bit % 8);
		assert_int_equal(connect_with(n, 0, &r, sizeof(r)), CM_REJ_CONSUMER);
	}
	for (bit = 0; bit < NODE_TOKEN * 8; bit++) {
		node_request_encode(&r, 0, token);
		r.token[bit / 8] ^= (u8)(1u << bit % 8);
		assert_int_equal(connect_with(n, 0, &r, sizeof(r)), CM_REJ_CONSUMER);
	}
	assert_int_equal(connect_with(n, 0, NULL, 0), CM_REJ_CONSUMER);
	assert_int_equal(connect_slice(n, 0, 0), 0);
	net_free(n);
}

static void test_configuration(void **state)
{
	static struct node node;
	struct node_config config = {.port = 1, .length = 8 * PAGE_SIZE, .slices = 8};

	assert_int_equal(node_init(&node, &config), 0);
	config.length--;
	assert_int_equal(node_init(&node, &config), ERR_INVAL);
	config.length = SLICE;
	config.slices = 0;
	assert_int_equal(node_init(&node, &config), ERR_INVAL);
	config.slices = NODE_SLICES + 1;
	config.length = 100 * SLICE;
	assert_int_equal(node_init(&node, &config), ERR_INVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pages),
		cmocka_unit_test(test_slices),
		cmocka_unit_test(test_return),
		cmocka_unit_test(test_silent_client),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_configuration),
		cmocka_unit_test(test_numbered_clients),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
