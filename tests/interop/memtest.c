/*
 * A client of build/memnode: writes random pages, many at a time, and reads them back.
 *
 *   memtest LOCAL-UDP-PORT REMOTE-UDP-PORT OPERATIONS [LOSS-PER-MILLE [TOKEN]]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rdma/node.h"
#include "wire.h"

#define OUR_IP	 0x0a4d0001u
#define NODE_IP	 0x0a4d0002u
#define PAGES	 256u
#define DEPTH	 16u /* operations at a time */
#define PATIENCE (20ull * 1000000000)

static struct wire wire;
static struct cm_agent agent;
static struct cm_connection *c;
static struct rdma_qp qp;
static bool ready;
static u64 version[PAGES]; /* what a page was written with last; 0: never */
static u8 buffer[DEPTH][PAGE_SIZE];

static void fail(const char *what)
{
	printf("memtest: %s (state %d, reason %u)\n", what, c ? (int)c->state : -1,
	       c ? c->reason : 0u);
	exit(1);
}

static void pump(void)
{
	u8 bytes[RDMA_FRAME_MAX];
	struct rdma_packet p;
	struct rdma_frame f;
	u32 wait = 100;
	size_t n;

	while (cm_transmit(&agent, wire_now(), &f) ||
	       (ready && rdma_qp_transmit(&qp, wire_now(), &f)))
		wire_send(&wire, bytes, rdma_frame_copy(&f, bytes));
	while ((n = wire_receive(&wire, bytes, sizeof(bytes), wait)) > 0) {
		wait = 0;
		if (rdma_decode(&p, bytes, n))
			continue;
		if (p.dest_qp == CM_QPN)
			cm_receive(&agent, wire_now(), &p);
		else if (ready)
			rdma_qp_receive(&qp, wire_now(), &p);
	}
}

static void fill(u8 *page, u32 number, u64 v)
{
	u64 word = v * 0x9e3779b97f4a7c15ull + number;
	u32 i;

	for (i = 0; i < PAGE_SIZE; i += 8, word = word * 6364136223846793005ull + 1)
		put_be64(page + i, v ? word : 0);
}

static struct node_answer connect_node(const char *text)
{
	struct rdma_qp_config config = {.window = 64};
	struct rdma_regions none = {NULL, 0};
	struct node_request r;
	struct node_answer a;
	u8 token[NODE_TOKEN] = {0}, mac[6];
	u64 end = wire_now() + PATIENCE;
	struct cm_offer offer = {
		.comm_id = (u32)wire_now() | 1,
		.qpn = ((u32)wire_now() >> 8 & 0xfffff) | 0x100,
		.psn = (u32)wire_now() & PSN_MASK,
		.initiator_depth = RDMA_READ_MAX,
		.retry_count = 7,
		.rnr_retry = 7,
		.ack_timeout = 12, /* 17 ms */
		.mtu = 1024,
		.tid = wire_now(),
		.private_data = &r,
		.private_len = sizeof(r),
	};

	memcpy(token, text, strnlen(text, NODE_TOKEN));
	node_request_encode(&r, NODE_ANY_SLICE, token);
	if (!wire_resolve(&wire, NODE_IP, mac))
		fail("no answer to ARP");
	c = cm_connect(&agent, &offer, NODE_IP, mac, NODE_PORT);
	while (c->state == CM_REQ_SENT && wire_now() < end)
		pump();
	if (c->state != CM_REP_RECEIVED)
		fail("not connected");
	memcpy(&a, c->peer_private, sizeof(a));
	if (node_answer_check(&a) || be64(a.length) < PAGES * PAGE_SIZE)
		fail("not the answer of a node");
	cm_qp_config(&agent, c, &config);
	if (rdma_qp_init(&qp, &config, &none))
		fail("the QP's parameters");
	ready = true;
	cm_establish(c);
	return a;
}

/* DEPTH pages at once, none of them twice, so that READs and WRITEs do not meet. */
static void batch(const struct node_answer *a, u64 n)
{
	u64 end = wire_now() + PATIENCE;
	struct rdma_completion done;
	u32 i, first = (u32)(n < PAGES / DEPTH ? n : n * 37 % PAGES);
	/* First all pages once: what an earlier client left is not known. */
	bool write = n < PAGES / DEPTH || n % 2 == 0;

	for (i = 0; i < DEPTH; i++) {
		u32 page = (first + i * (PAGES / DEPTH)) % PAGES;
		struct rdma_work w = {.op = write ? RDMA_WRITE : RDMA_READ,
				      .data = buffer[i],
				      .length = PAGE_SIZE,
				      .rkey = be32(a->rkey),
				      .va = be64(a->va) + page * PAGE_SIZE};

		if (write)
			fill(buffer[i], page, version[page] = n * DEPTH + i + 1);
		else
			memset(buffer[i], 0xee, PAGE_SIZE);
		if (rdma_post(&qp, &w))
			fail("work was not taken");
	}
	for (i = 0; i < DEPTH; i++) {
		u32 page = (first + i * (PAGES / DEPTH)) % PAGES;
		u8 want[PAGE_SIZE];

		while (!rdma_poll_send(&qp, &done)) {
			if (wire_now() > end)
				fail("work did not end");
			pump();
		}
		if (done.status != RDMA_OK)
			fail("work failed");
		fill(want, page, version[page]);
		if (memcmp(want, buffer[i], PAGE_SIZE))
			fail("other bytes came back");
	}
}

int main(int argc, char **argv)
{
	static const u8 mac[6] = {2, 0, 0, 0, 0, 1};
	struct node_answer a;
	u64 n, batches, start, took;

	if (argc < 4)
		return 2;
	wire_open(&wire, (u16)atoi(argv[1]), (u16)atoi(argv[2]), mac, OUR_IP);
	batches = strtoull(argv[3], NULL, 0) / DEPTH;
	wire.loss = argc > 4 ? (u32)atoi(argv[4]) : 0;
	cm_init(&agent, mac, OUR_IP, 1);
	a = connect_node(argc > 5 ? argv[5] : "");
	start = wire_now();
	for (n = 0; n < batches; n++)
		batch(&a, n);
	took = wire_now() - start;
	printf("memtest: %llu pages in %llu us; tx %llu again %llu time-outs %llu gaps %llu lost "
	       "%llu\n",
	       (unsigned long long)(batches * DEPTH), (unsigned long long)took / 1000,
	       (unsigned long long)qp.stats.tx_packets, (unsigned long long)qp.stats.tx_again,
	       (unsigned long long)qp.stats.timeouts, (unsigned long long)qp.stats.gaps,
	       (unsigned long long)wire.lost);
	cm_disconnect(c);
	for (start = wire_now(); c->state != CM_CLOSED && wire_now() < start + PATIENCE;)
		pump();
	return c->state == CM_CLOSED ? 0 : 1;
}
