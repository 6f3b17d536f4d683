/*
 * Two QPs in one process, each with a region of memory, and a network between them that loses,
 * copies, delays and alters frames. Everything passes through encoder and decoder.
 */
#pragma once

#include <stdlib.h>
#include <string.h>

#include "rdma/qp.h"
#include "rdma/take.h"

#define PAIR_MEMORY 65536u
#define PAIR_VA	    0x7f0000010000ull
#define PAIR_RKEY   0x5a5a5a00u
#define NET_FRAMES  1024

struct net_frame {
	u64 due;
	u32 len;
	int to;
	u8 *bytes;
};

/* Chances in 1/1000. */
struct net_faults {
	u32 loss, copy, delay, alter;
};

struct end {
	struct rdma_qp qp;
	struct rdma_region region[2];
	u8 memory[PAIR_MEMORY];
	u64 frames; /* received and well-formed */
	u64 refused;
	u64 taken; /* of the frames: the short way */
};

struct pair {
	struct end end[2];
	struct net_frame net[NET_FRAMES]; /* in flight: the first `flying` */
	u32 flying;
	struct net_faults faults;
	u64 now, seed;
	u64 sent;     /* frames given to the network */
	u64 fault_at; /* this one (from 1) meets `fault` */
	char fault;   /* 'd'rop, 'c'opy, 'l'ate */
	u64 one_way;  /* ns */
	u32 per_step; /* frames an end transmits in a step */
};

static inline u32 pair_random(struct pair *p, u32 below)
{
	p->seed = p->seed * 6364136223846793005ull + 1442695040888963407ull;
	return (u32)(p->seed >> 33) % below;
}

static inline struct rdma_qp_config pair_config(int i, u32 psn)
{
	return (struct rdma_qp_config){
		.local_mac = {2, 0, 0, 0, 0, (u8)(1 + i)},
		.remote_mac = {2, 0, 0, 0, 0, (u8)(2 - i)},
		.local_ip = 0x0a4d0001 + (u32)i,
		.remote_ip = 0x0a4d0002 - (u32)i,
		.src_port = 0xc000,
		.local_qpn = 0x11 + (u32)i,
		.remote_qpn = 0x12 - (u32)i,
		.send_psn = (psn + (i ? 0x1234 : 0)) & PSN_MASK,
		.recv_psn = (psn + (i ? 0 : 0x1234)) & PSN_MASK,
		.mtu = 1024,
		.timeout = 8, /* 1 ms */
		.retry_count = 7,
		.rnr_retry = 7,
		.rnr_timer = 1, /* 10 us */
		.initiator_depth = 4,
		.responder_resources = 4,
		.window = 64,
	};
}

static inline void pair_region(struct end *e, u8 access)
{
	e->region[0] = (struct rdma_region){e->memory, PAIR_VA, PAIR_MEMORY, PAIR_RKEY, access};
}

static inline struct pair *pair_new(const struct rdma_qp_config *a, const struct rdma_qp_config *b)
{
	struct pair *p = calloc(1, sizeof(*p));
	int i;

	p->seed = 1;
	p->one_way = 5000;
	p->per_step = 4;
	for (i = 0; i < 2; i++) {
		struct end *e = &p->end[i];
		struct rdma_regions regions = {e->region, 2};

		pair_region(e, RDMA_REMOTE_READ | RDMA_REMOTE_WRITE);
		if (rdma_qp_init(&e->qp, i ? b : a, &regions))
			abort();
	}
	return p;
}

static inline struct pair *pair_default(u32 psn)
{
	struct rdma_qp_config a = pair_config(0, psn), b = pair_config(1, psn);

	return pair_new(&a, &b);
}

static inline void pair_free(struct pair *p)
{
	while (p->flying)
		free(p->net[--p->flying].bytes);
	free(p);
}

static inline void net_put(struct pair *p, int to, const u8 *bytes, u32 len, u64 due)
{
	struct net_frame *f = &p->net[p->flying];

	if (p->flying == NET_FRAMES)
		return; /* full: lost */
	/* Exactly as long as the frame, so that reading past its end is noticed. */
	*f = (struct net_frame){due, len, to, malloc(len)};
	memcpy(f->bytes, bytes, len);
	p->flying++;
}

static inline void net_send(struct pair *p, int from, const struct rdma_frame *f)
{
	u8 bytes[RDMA_FRAME_MAX];
	u32 len = rdma_frame_copy(f, bytes);
	bool marked = ++p->sent == p->fault_at;
	u64 due = p->now + p->one_way;

	if ((marked && p->fault == 'd') || pair_random(p, 1000) < p->faults.loss)
		return;
	if (pair_random(p, 1000) < p->faults.delay)
		due += pair_random(p, 20) * p->one_way;
	if (marked && p->fault == 'l')
		due += 8 * p->one_way;
	if ((marked && p->fault == 'c') || pair_random(p, 1000) < p->faults.copy)
		net_put(p, !from, bytes, len, due + (1 + pair_random(p, 10)) * p->one_way);
	if (pair_random(p, 1000) < p->faults.alter) {
		u32 n = 1 + pair_random(p, 3);

		while (n--)
			bytes[pair_random(p, len)] ^= (u8)(1u << pair_random(p, 8));
	}
	net_put(p, !from, bytes, len, due);
}

/*
 * A frame goes both ways: what rdma_qp_take() takes must leave the same as the long way does, what
 * it does not take must leave all as it was.
 */
static inline void end_receive(struct pair *p, const struct net_frame *f)
{
	struct end *end = &p->end[f->to];
	struct rdma_qp *other = malloc(sizeof(*other));
	struct rdma_packet packet;
	bool taken;

	memcpy(other, &end->qp, sizeof(*other));
	taken = rdma_qp_take(other, p->now, f->bytes, f->len) != RDMA_OTHER;
	if (!taken && memcmp(other, &end->qp, sizeof(*other)) != 0)
		abort();
	if (rdma_decode(&packet, f->bytes, f->len)) {
		end->refused++;
		if (taken)
			abort();
	} else {
		end->frames++;
		end->taken += taken;
		rdma_qp_receive(&end->qp, p->now, &packet);
		if (taken && memcmp(other, &end->qp, sizeof(*other)) != 0)
			abort();
	}
	free(other);
}

/* Takes the oldest frame that is due from the network. */
static inline bool net_take(struct pair *p, struct net_frame *f)
{
	u32 i, first = NET_FRAMES;

	for (i = 0; i < p->flying; i++)
		if (p->net[i].due <= p->now &&
		    (first == NET_FRAMES || p->net[i].due < p->net[first].due))
			first = i;
	if (first == NET_FRAMES)
		return false;
	*f = p->net[first];
	/* The others keep their order, which decides among frames of one time. */
	memmove(&p->net[first], &p->net[first + 1], (--p->flying - first) * sizeof(*f));
	return true;
}

/* Delivers what is due, oldest first, and lets both ends transmit; time goes on by a step. */
static inline void pair_step(struct pair *p)
{
	struct rdma_frame f;
	struct net_frame taken;
	u32 n;
	int i;

	while (net_take(p, &taken)) {
		end_receive(p, &taken);
		free(taken.bytes);
	}
	for (i = 0; i < 2; i++)
		for (n = 0; n < p->per_step && rdma_qp_transmit(&p->end[i].qp, p->now, &f); n++)
			net_send(p, i, &f);
	p->now += 1000;
}

/* Whether an end has nothing posted that is not complete. */
static inline bool end_idle(const struct end *e)
{
	return e->qp.req.una == e->qp.req.tail;
}

/* Steps until both ends are idle and the network is empty; false: not within `steps`. */
static inline bool pair_run(struct pair *p, u32 steps)
{
	while (steps--) {
		pair_step(p);
		if (end_idle(&p->end[0]) && end_idle(&p->end[1]) && !p->flying)
			return true;
	}
	return false;
}
