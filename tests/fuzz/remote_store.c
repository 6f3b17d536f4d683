/*
 * A store with sealed pages and two memory nodes behind somebody who drops, repeats and alters
 * packets (with a right ICRC), CM messages among them, and what the nodes hold. Nothing breaks, and
 * no read succeeds with other bytes than were written.
 */
#include <assert.h>
#include <stdio.h>

#include "fabric_net.h"
#include "remote/store.h"

#define PAGES 8u
#define NODES 2u
#define STEPS 600u

struct input {
	const u8 *at, *end;
};

struct flight {
	bool used, write;
	u32 page, stamp;
	u8 data[PAGE_SIZE];
};

static struct flight flight[STORE_INFLIGHT];
static u32 stamp[PAGES], stamps;

static u8 next(struct input *in)
{
	return in->at < in->end ? *in->at++ : 0;
}

static u32 next32(struct input *in)
{
	u32 v = next(in);

	v = v << 8 | next(in);
	v = v << 8 | next(in);
	return v << 8 | next(in);
}

static void fill(u8 *data, u32 page, u32 number)
{
	u32 i;

	for (i = 0; i < PAGE_SIZE; i++)
		data[i] = (u8)(number * 7 + page + i / 16);
}

/* One field becomes another; of a payload, one byte. */
static void alter(struct input *in, struct rdma_packet *p, u8 *payload)
{
	u32 v = next32(in);

	switch (next(in) % 12) {
	case 0:
		p->opcode = (u8)v;
		break;
	case 1:
		p->psn = (p->psn + v) & PSN_MASK;
		break;
	case 2:
		p->psn = (p->psn + v % 8 - 4) & PSN_MASK;
		break;
	case 3:
		p->aeth.syndrome = (u8)v;
		break;
	case 4:
		p->aeth.msn = v & PSN_MASK;
		break;
	case 5:
		p->reth.length = v;
		break;
	case 6:
		p->reth.va += v;
		break;
	case 7:
		p->payload_len = v % (p->payload_len + 2);
		break;
	case 8:
		p->dest_qp = v & PSN_MASK;
		break;
	case 9:
		p->ack_request = !p->ack_request;
		break;
	default:
		payload[v % MAX(p->payload_len, 1)] ^= (u8)(1u << v / 65536 % 8);
		break;
	}
}

static void send(struct fabric_net *n, struct input *in, int to, const struct rdma_frame *f)
{
	u8 bytes[RDMA_FRAME_MAX], payload[RDMA_MTU_MAX + 8];
	u32 len = rdma_frame_copy(f, bytes), what = next(in);
	struct rdma_packet p;
	struct rdma_frame g;

	if (what >= 224)
		return;
	if (what >= 208)
		net_put(n, to, bytes, len, n->now + n->one_way * (what % 8));
	if (what < 160 || rdma_decode(&p, bytes, len)) {
		net_put(n, to, bytes, len, n->now + n->one_way);
		return;
	}
	memset(payload, 0, sizeof(payload));
	memcpy(payload, p.payload, p.payload_len);
	p.payload = payload;
	alter(in, &p, payload);
	if (rdma_encode(&p, &g) == 0) {
		len = rdma_frame_copy(&g, bytes);
		net_put(n, to, bytes, len, n->now + n->one_way);
	}
}

static void post(struct store *s, struct input *in)
{
	u32 id = next(in) % STORE_INFLIGHT, page = next(in) % PAGES, what = next(in) % 8, i;
	struct flight *f = &flight[id];

	if (what == 7) {
		for (i = 0; i < STORE_INFLIGHT; i++)
			if (flight[i].used && flight[i].page == page)
				return;
		store_discard(s, page);
		stamp[page] = 0;
	}
	if (f->used || what == 7)
		return;
	f->page = page;
	f->write = what & 1;
	f->stamp = f->write ? ++stamps : stamp[page];
	if (f->write)
		fill(f->data, page, f->stamp);
	if (f->write ? store_write(s, id, page, f->data) : store_read(s, id, page, f->data))
		return;
	f->used = true;
	if (f->write)
		stamp[page] = f->stamp;
}

static void collect(struct store *s)
{
	static u8 expected[PAGE_SIZE];
	struct store_completion c;

	while (store_done(s, &c)) {
		struct flight *f = &flight[c.id];

		assert(f->used);
		f->used = false;
		if (c.result != STORE_OK)
			continue;
		fill(expected, f->page, f->stamp);
		assert(!memcmp(f->data, expected, PAGE_SIZE));
	}
}

static void step(struct fabric_net *n, struct input *in, struct store *s)
{
	struct rdma_frame f;
	u32 i, what = next(in);

	if (what < 64)
		post(s, in);
	if (what >= 240)
		n->node[what % NODES].memory[next32(in) % (PAGES * PAGE_SIZE)] ^= next(in);
	if (what == 239)
		net_node_start(n, next(in) % NODES, next(in) % 4);
	net_deliver(n);
	fabric_work(&n->fabric, n->now);
	store_work(s, n->now);
	collect(s);
	while (fabric_transmit(&n->fabric, n->now, &f))
		for (i = 0; i < NODES; i++)
			if (NODE_IP(i) == net_destination(f.head))
				send(n, in, (int)i, &f);
	for (i = 0; i < NODES; i++)
		while (node_transmit(&n->node[i].node, n->now, &f))
			send(n, in, -1, &f);
	n->now = MIN(MAX(net_next(n), n->now + 1000), n->now + 1000000000);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct input in = {data, data + size};
	struct fabric_net *n = net_new(1);
	struct store_config config = {.fabric = &n->fabric,
				      .nodes = NODES,
				      .replicas = 1 + next(&in) % NODES,
				      .pages = PAGES,
				      .seal = true};
	struct store *s;
	void *memory;
	u32 i;

	memset(flight, 0, sizeof(flight));
	memset(stamp, 0, sizeof(stamp));
	stamps = 0;
	for (i = 0; i < NODES; i++) {
		net_add_node(n, PAGES * PAGE_SIZE, 1);
		config.link[i] = (u32)net_link(n, i);
	}
	memory = calloc(1, store_bytes(&config));
	s = store_init(memory, &config);
	for (i = 0; i < STEPS && in.at < in.end; i++)
		step(n, &in, s);
	store_destroy(s);
	free(memory);
	net_free(n);
	return 0;
}
