/* Two QPs driven step by step, for the tests of a connection's rules. After cmocka.h. */
#pragma once

#include "rdma_pair.h"

static u8 data[65536], inbox[65536];

/* The next frame of an end, decoded; the opcode, or -1 if there is none. */
static inline int transmit(struct pair *p, int i, struct rdma_packet *packet)
{
	static u8 wire[2][RDMA_FRAME_MAX];
	struct rdma_frame f;

	if (!rdma_qp_transmit(&p->end[i].qp, p->now, &f))
		return -1;
	assert_int_equal(rdma_decode(packet, wire[i], rdma_frame_copy(&f, wire[i])), 0);
	return packet->opcode;
}

/* Hands an end a packet as if from its peer. */
static inline void inject(struct pair *p, int i, struct rdma_packet packet)
{
	const struct rdma_qp_config *c = &p->end[i].qp.config;

	packet.src_ip = c->remote_ip;
	packet.dst_ip = c->local_ip;
	packet.pkey = 0xffff;
	packet.dest_qp = c->local_qpn;
	rdma_qp_receive(&p->end[i].qp, p->now, &packet);
}

/* Sends all that end `from` has to say to the other. */
static inline u32 flush(struct pair *p, int from)
{
	struct rdma_packet packet;
	u32 n = 0;

	for (; transmit(p, from, &packet) >= 0; n++)
		rdma_qp_receive(&p->end[!from].qp, p->now, &packet);
	return n;
}

static inline void post(struct pair *p, int i, enum rdma_operation op, u32 length)
{
	struct rdma_work work = {.id = 1,
				 .op = op,
				 .data = op == RDMA_READ ? inbox : data,
				 .length = length,
				 .rkey = PAIR_RKEY,
				 .va = PAIR_VA};

	assert_int_equal(rdma_post(&p->end[i].qp, &work), 0);
}

static inline void post_receive(struct pair *p, int i, u32 length)
{
	struct rdma_receive r = {5, inbox, length};

	assert_int_equal(rdma_post_receive(&p->end[i].qp, &r), 0);
}

static inline enum rdma_status status(struct pair *p, int i)
{
	struct rdma_completion c;

	assert_true(rdma_poll_send(&p->end[i].qp, &c));
	return c.status;
}
