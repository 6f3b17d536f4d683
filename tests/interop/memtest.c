/*
 * A client of a memory node: writes random pages, many at a time, and reads them back. When the
 * node does not answer or is another incarnation it connects anew, and goes on with what the node
 * has to have: the same bytes, or zeros if it says that all content is lost.
 *
 *   memtest LOCAL:REMOTE [--node IP] [--ip IP] [--operations N] [--seconds N] [--pages N]
 *           [--token TEXT] [--slice N] [--mtu N] [--loss PER-MILLE] [--reconnect]
 *
 * Without --reconnect what fails ends the test. With --seconds it goes on for so long at least.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peer.h"
#include "rdma/node.h"

#define PAGES_MAX 65536u
#define DEPTH	  16u /* operations at a time */

static struct {
	u32 node, pages;
	u64 operations, seconds;
	u16 mtu, slice;
	u8 token[NODE_TOKEN];
	bool reconnect;
} option = {0x0a4d0002, 256, 2048, 0, 1024, NODE_ANY_SLICE, {0}, false};

static struct node_answer answer;
static u64 client; /* our number */
static u32 connections, incarnations;
static u64 version[PAGES_MAX]; /* what a page was written with last; 0: never */
static bool known[PAGES_MAX];  /* false: what an earlier client left */
static u8 buffer[DEPTH][PAGE_SIZE];

static void fill(u8 *page, u32 number, u64 v)
{
	u64 word = v * 0x9e3779b97f4a7c15ull + number;
	u32 i;

	for (i = 0; i < PAGE_SIZE; i += 8, word = word * 6364136223846793005ull + 1)
		put_be64(page + i, v ? word : 0);
}

/* A node's answer with the region we need; false if nobody answers or it refuses. */
static bool connect_once(void)
{
	struct cm_offer offer = peer_offer(option.mtu);
	struct node_answer a;
	struct node_request r;
	u32 i;

	node_request_encode(&r, option.slice, option.token);
	put_be64(r.client, client);
	offer.responder_resources = 0;
	offer.ack_timeout = 12; /* 17 ms */
	offer.private_data = &r;
	offer.private_len = sizeof(r);
	if (!peer_connect(option.node, NODE_PORT, &offer, 3000000000ull, NULL))
		return false;
	memcpy(&a, peer.c->peer_private, sizeof(a));
	if (node_answer_check(&a) || be64(a.length) < option.pages * PAGE_SIZE)
		peer_fail("not the answer of a node");
	if (be64(a.incarnation) != be64(answer.incarnation)) {
		/* A node begins with zeros, but our first one may have served others before. */
		for (i = 0; i < option.pages; i++) {
			version[i] = 0;
			known[i] = incarnations > 0;
		}
		incarnations++;
	}
	answer = a;
	option.slice = (u16)be16(a.slice); /* the same one the next time */
	connections++;
	return true;
}

static void connect_node(void)
{
	u64 end = wire_now() + 3 * PATIENCE;

	while (!connect_once()) {
		if (!option.reconnect || wire_now() > end)
			peer_fail("not connected");
		if (peer.c)
			peer_drop();
	}
}

/* Waits for the batch; false if any of it failed. */
static bool finish(void)
{
	u64 end = wire_now() + PATIENCE;
	struct rdma_completion done;
	bool good = true;
	u32 i;

	for (i = 0; i < DEPTH; i++) {
		while (!rdma_poll_send(&peer.qp[0], &done)) {
			if (wire_now() > end)
				peer_fail("work did not end");
			peer_pump();
		}
		good &= done.status == RDMA_OK;
	}
	return good;
}

/* DEPTH pages at once, none of them twice, so that READs and WRITEs do not meet. */
static bool batch(u64 n, bool write)
{
	u32 i, first = (u32)(n * 37 % option.pages), step = option.pages / DEPTH;
	u32 page[DEPTH];

	for (i = 0; i < DEPTH; i++) {
		struct rdma_work w = {.op = write ? RDMA_WRITE : RDMA_READ,
				      .data = buffer[i],
				      .length = PAGE_SIZE,
				      .rkey = be32(answer.rkey)};

		page[i] = (first + i * step) % option.pages;
		w.va = be64(answer.va) + page[i] * PAGE_SIZE;
		if (write) {
			version[page[i]] = n + 1;
			known[page[i]] = true;
			fill(buffer[i], page[i], n + 1);
		} else {
			memset(buffer[i], 0xee, PAGE_SIZE);
		}
		if (rdma_post(&peer.qp[0], &w))
			peer_fail("work was not taken");
	}
	if (!finish())
		return false;
	for (i = 0; i < DEPTH && !write; i++) {
		u8 want[PAGE_SIZE];

		fill(want, page[i], version[page[i]]);
		if (known[page[i]] && memcmp(want, buffer[i], PAGE_SIZE))
			peer_fail("other bytes came back");
	}
	return true;
}

/* The same until it is done, on as many connections as it takes. */
static void insist(u64 n, bool write)
{
	while (!batch(n, write)) {
		if (!option.reconnect)
			peer_fail("work failed");
		peer_drop();
		connect_node();
	}
}

static void read_options(int argc, char **argv)
{
	static const struct option options[] = {
		{"node", 1, NULL, 'n'},	     {"ip", 1, NULL, 'i'},    {"operations", 1, NULL, 'o'},
		{"pages", 1, NULL, 'p'},     {"token", 1, NULL, 't'}, {"seconds", 1, NULL, 'S'},
		{"slice", 1, NULL, 's'},     {"mtu", 1, NULL, 'm'},   {"loss", 1, NULL, 'l'},
		{"reconnect", 0, NULL, 'r'}, {NULL, 0, NULL, 0},
	};
	u32 ip = 0x0a4d0001, loss = 0;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		u64 number = optarg ? strtoull(optarg, NULL, 0) : 0;

		if (c == 'n')
			option.node = peer_ip(optarg);
		else if (c == 'i')
			ip = peer_ip(optarg);
		else if (c == 'o')
			option.operations = number;
		else if (c == 'p')
			option.pages = (u32)number;
		else if (c == 't')
			memcpy(option.token, optarg, strnlen(optarg, NODE_TOKEN));
		else if (c == 'S')
			option.seconds = number;
		else if (c == 's')
			option.slice = (u16)number;
		else if (c == 'm')
			option.mtu = (u16)number;
		else if (c == 'l')
			loss = (u32)number;
		else if (c == 'r')
			option.reconnect = true;
		else
			exit(2);
	}
	if (optind != argc - 1 || option.pages > PAGES_MAX || option.pages < DEPTH)
		exit(2);
	peer_open("memtest", argv[optind], ip);
	peer.wire.loss = loss;
}

int main(int argc, char **argv)
{
	u64 n, start;
	char what[96];

	read_options(argc, argv);
	client = peer_random() | 1;
	connect_node();
	printf("memtest: connected\n");
	fflush(stdout);
	start = wire_now();
	for (n = 0;
	     n * DEPTH < option.operations || wire_now() - start < option.seconds * 1000000000; n++)
		insist(n, n % 3 != 2);
	/* All of it once more. */
	for (n = 0; n < option.pages; n++)
		if (37 * n % option.pages < option.pages / DEPTH)
			insist(n, false);
	snprintf(what, sizeof(what), "%llu pages, %u connections, %u incarnations",
		 (unsigned long long)option.operations, connections, incarnations);
	peer_print(what, 0, wire_now() - start);
	peer_end(true);
	return 0;
}
