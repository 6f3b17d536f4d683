/* Rules of a reliable connection one by one: what is sent, what is refused, and when. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "rdma_pair.h"

static u8 data[65536], inbox[65536];

/* The next frame of an end, decoded; the opcode, or -1 if there is none. */
static int transmit(struct pair *p, int i, struct rdma_packet *packet)
{
	static u8 wire[2][RDMA_FRAME_MAX];
	struct rdma_frame f;

	if (!rdma_qp_transmit(&p->end[i].qp, p->now, &f))
		return -1;
	assert_int_equal(rdma_decode(packet, wire[i], rdma_frame_copy(&f, wire[i])), 0);
	return packet->opcode;
}

/* Hands an end a packet as if from its peer. */
static void inject(struct pair *p, int i, struct rdma_packet packet)
{
	const struct rdma_qp_config *c = &p->end[i].qp.config;

	packet.src_ip = c->remote_ip;
	packet.dst_ip = c->local_ip;
	packet.pkey = 0xffff;
	packet.dest_qp = c->local_qpn;
	rdma_qp_receive(&p->end[i].qp, p->now, &packet);
}

/* Sends all that end `from` has to say to the other. */
static u32 flush(struct pair *p, int from)
{
	struct rdma_packet packet;
	u32 n = 0;

	for (; transmit(p, from, &packet) >= 0; n++)
		rdma_qp_receive(&p->end[!from].qp, p->now, &packet);
	return n;
}

static void post(struct pair *p, int i, enum rdma_operation op, u32 length)
{
	struct rdma_work work = {.id = 1,
				 .op = op,
				 .data = op == RDMA_READ ? inbox : data,
				 .length = length,
				 .rkey = PAIR_RKEY,
				 .va = PAIR_VA};

	assert_int_equal(rdma_post(&p->end[i].qp, &work), 0);
}

static void post_receive(struct pair *p, int i, u32 length)
{
	struct rdma_receive r = {5, inbox, length};

	assert_int_equal(rdma_post_receive(&p->end[i].qp, &r), 0);
}

static enum rdma_status status(struct pair *p, int i)
{
	struct rdma_completion c;

	assert_true(rdma_poll_send(&p->end[i].qp, &c));
	return c.status;
}

/* --- requests as they are sent -------------------------------------------------------------- */

static void test_segmentation(void **state)
{
	static const u32 mtus[] = {256, 512, 1024, 2048, 4096};
	struct rdma_packet packet;
	u32 m, length, n;

	for (m = 0; m < ARRAY_SIZE(mtus); m++)
		for (length = 0; length <= 3 * mtus[m] + 1;
		     length += length % mtus[m] > 1 ? mtus[m] - 3 : 1) {
			struct rdma_qp_config a = pair_config(0, 5);
			struct pair *p;
			u32 packets = length ? (length + mtus[m] - 1) / mtus[m] : 1;

			a.mtu = mtus[m];
			p = pair_new(&a, &a);
			post(p, 0, RDMA_WRITE, length);
			for (n = 0; n < packets; n++) {
				bool first = n == 0, last = n == packets - 1;

				assert_int_equal(transmit(p, 0, &packet), first && last
										  ? OP_WRITE_ONLY
									  : first ? OP_WRITE_FIRST
									  : last  ? OP_WRITE_LAST
										 : OP_WRITE_MIDDLE);
				assert_int_equal(packet.psn, 5 + n);
				assert_int_equal(packet.payload_len,
						 last ? length - n * mtus[m] : mtus[m]);
				assert_int_equal(packet.ack_request, last);
				if (first)
					assert_true(packet.reth.length == length &&
						    packet.reth.va == PAIR_VA &&
						    packet.reth.rkey == PAIR_RKEY);
			}
			assert_int_equal(transmit(p, 0, &packet), -1);
			/* A READ takes as many PSNs as its response has packets. */
			post(p, 0, RDMA_READ, length);
			post(p, 0, RDMA_SEND, 0);
			assert_int_equal(transmit(p, 0, &packet), OP_READ_REQUEST);
			assert_int_equal(packet.psn, 5 + packets);
			assert_int_equal(transmit(p, 0, &packet), OP_SEND_ONLY);
			assert_int_equal(packet.psn, 5 + 2 * packets);
			pair_free(p);
		}
}

static void test_header_fields(void **state)
{
	struct pair *p = pair_default(1);
	struct rdma_packet packet;

	post(p, 0, RDMA_WRITE, 8);
	transmit(p, 0, &packet);
	assert_memory_equal(packet.dst_mac, p->end[0].qp.config.remote_mac, 6);
	assert_memory_equal(packet.src_mac, p->end[0].qp.config.local_mac, 6);
	assert_true(packet.dst_ip == 0x0a4d0002 && packet.src_ip == 0x0a4d0001);
	assert_true(packet.src_port == 0xc000 && packet.dont_fragment && packet.ttl == 64);
	assert_true(packet.pkey == 0xffff && packet.migrated && packet.dest_qp == 0x12);
	assert_int_equal(packet.tos & 3, 0); /* not ECN-capable: switches drop instead of mark */
	pair_free(p);
}

/* A packet that a switch has marked is answered by one CNP, and the next one only after a while. */
static void test_congestion_is_told(void **state)
{
	struct pair *p = pair_default(1);
	struct rdma_packet packet = {0};
	u32 tos;

	/* Not capable, capable in two ways, capable but with another service: no congestion. */
	for (tos = 0; tos < 3; tos++)
		inject(p, 1, (struct rdma_packet){.opcode = OP_ACK, .tos = (u8)(tos | 0x68)});
	assert_int_equal(transmit(p, 1, &packet), -1);
	inject(p, 1, (struct rdma_packet){.opcode = OP_WRITE_ONLY, .tos = 3, .ack_request = true});
	inject(p, 1, (struct rdma_packet){.opcode = OP_ACK, .tos = 0x6b});
	assert_int_equal(transmit(p, 1, &packet), OP_CNP);
	assert_int_equal(packet.congestion, BTH_BECN);
	assert_int_equal(packet.dest_qp, p->end[1].qp.config.remote_qpn);
	assert_false(packet.ack_request);
	assert_int_not_equal(transmit(p, 1, &packet), OP_CNP);
	/* A marked CNP says nothing of our own packets' way. */
	p->now += 1000000;
	inject(p, 1, (struct rdma_packet){.opcode = OP_CNP, .tos = 3});
	assert_int_not_equal(transmit(p, 1, &packet), OP_CNP);
	inject(p, 1, (struct rdma_packet){.opcode = OP_ACK, .tos = 3});
	assert_int_equal(transmit(p, 1, &packet), OP_CNP);
	p->now += 1000;
	inject(p, 1, (struct rdma_packet){.opcode = OP_ACK, .tos = 3});
	assert_int_not_equal(transmit(p, 1, &packet), OP_CNP);
	assert_int_equal(p->end[1].qp.stats.tx_cnps, 2);
	pair_free(p);
}

static void test_window(void **state)
{
	struct rdma_qp_config a = pair_config(0, 0);
	struct rdma_packet packet;
	struct pair *p;
	u32 n;

	a.window = 8;
	p = pair_new(&a, &a);
	post(p, 0, RDMA_WRITE, 20 * 1024);
	for (n = 0; n < 8; n++)
		assert_true(transmit(p, 0, &packet) >= 0);
	assert_true(packet.ack_request); /* or it would stand still */
	assert_int_equal(transmit(p, 0, &packet), -1);
	/* Three answered, three more. */
	inject(p, 0, (struct rdma_packet){.opcode = OP_ACK, .psn = 2, .aeth.syndrome = 0x1f});
	for (n = 0; n < 3; n++)
		assert_true(transmit(p, 0, &packet) >= 0);
	assert_int_equal(transmit(p, 0, &packet), -1);
	/* A congestion notification halves it, once for a window. */
	inject(p, 0, (struct rdma_packet){.opcode = OP_CNP});
	inject(p, 0, (struct rdma_packet){.opcode = OP_CNP});
	inject(p, 0, (struct rdma_packet){.opcode = OP_ACK, .psn = 8, .aeth.syndrome = 0x1f});
	assert_int_equal(transmit(p, 0, &packet), OP_WRITE_MIDDLE);
	assert_int_equal(packet.psn, 11);
	assert_int_equal(transmit(p, 0, &packet), OP_WRITE_MIDDLE);
	assert_int_equal(transmit(p, 0, &packet), -1);
	assert_int_equal(p->end[0].qp.req.window, 4);
	/* And it grows again, up to what is configured. */
	for (n = 12; n < 19; n++) {
		inject(p, 0, (struct rdma_packet){.opcode = OP_ACK, .psn = n});
		while (transmit(p, 0, &packet) >= 0)
			;
	}
	assert_int_equal(p->end[0].qp.req.window, 5);
	pair_free(p);

	/* Long messages ask for an acknowledgement every 16 packets, so that losses show. */
	p = pair_default(0);
	post(p, 0, RDMA_WRITE, 40 * 1024);
	for (n = 0; n < 40; n++) {
		transmit(p, 0, &packet);
		assert_int_equal(packet.ack_request, n == 15 || n == 31 || n == 39);
	}
	pair_free(p);

	/* A READ bigger than the window is sent when nothing else is in flight. */
	p = pair_new(&a, &a);
	post(p, 0, RDMA_WRITE, 1);
	post(p, 0, RDMA_READ, 9 * 1024);
	assert_int_equal(transmit(p, 0, &packet), OP_WRITE_ONLY);
	assert_int_equal(transmit(p, 0, &packet), -1);
	inject(p, 0, (struct rdma_packet){.opcode = OP_ACK, .psn = 0});
	assert_int_equal(transmit(p, 0, &packet), OP_READ_REQUEST);
	pair_free(p);
}

static void test_initiator_depth_and_fence(void **state)
{
	struct pair *p = pair_default(0);
	struct rdma_packet packet;
	struct rdma_work fenced = {.op = RDMA_WRITE, .fence = true};
	int n;

	for (n = 0; n < 6; n++)
		post(p, 0, RDMA_READ, 4);
	assert_int_equal(rdma_post(&p->end[0].qp, &fenced), 0);
	for (n = 0; n < 4; n++)
		assert_int_equal(transmit(p, 0, &packet), OP_READ_REQUEST);
	assert_int_equal(transmit(p, 0, &packet), -1);
	packet = (struct rdma_packet){.opcode = OP_READ_ONLY, .payload = data, .payload_len = 4};
	for (n = 0; n < 2; n++) {
		packet.psn = (u32)n;
		inject(p, 0, packet);
	}
	assert_int_equal(status(p, 0), RDMA_OK);
	for (n = 0; n < 2; n++)
		assert_int_equal(transmit(p, 0, &(struct rdma_packet){0}), OP_READ_REQUEST);
	for (n = 2; n < 6; n++) {
		assert_int_equal(transmit(p, 0, &(struct rdma_packet){0}), -1);
		packet.psn = (u32)n;
		inject(p, 0, packet);
	}
	assert_int_equal(transmit(p, 0, &packet), OP_WRITE_ONLY);
	pair_free(p);
}

static void test_posting_limits(void **state)
{
	struct rdma_qp_config a = pair_config(0, 0), none = a;
	struct rdma_work work = {.op = RDMA_READ};
	struct rdma_completion c;
	struct rdma_regions no_regions = {NULL, 0};
	static struct rdma_qp qp, reader;
	u32 n;

	none.initiator_depth = 0;
	none.mtu = 256;
	assert_int_equal(rdma_qp_init(&qp, &none, &no_regions), 0);
	assert_int_equal(rdma_post(&qp, &work), ERR_INVAL);
	work.op = RDMA_WRITE;
	work.data = data;
	work.length = RDMA_MESSAGE_MAX + 1;
	assert_int_equal(rdma_post(&qp, &work), ERR_INVAL);
	/* 2^22 packets each: two would be half of the PSNs. */
	work.length = RDMA_MESSAGE_MAX;
	assert_int_equal(rdma_post(&qp, &work), 0);
	assert_int_equal(rdma_post(&qp, &work), ERR_BUSY);
	work.length = 1;
	for (n = 1; n < RDMA_SEND_MAX; n++)
		assert_int_equal(rdma_post(&qp, &work), 0);
	assert_int_equal(rdma_post(&qp, &work), ERR_BUSY);
	assert_false(rdma_poll_send(&qp, &c));
	rdma_qp_close(&qp);
	assert_int_equal(rdma_post(&qp, &work), ERR_IO);
	/* A packet of a READ is there, but the READ may have to be repeated from its begin. */
	none.initiator_depth = 1;
	assert_int_equal(rdma_qp_init(&reader, &none, &no_regions), 0);
	work.op = RDMA_READ;
	work.data = inbox;
	work.length = RDMA_MESSAGE_MAX;
	assert_int_equal(rdma_post(&reader, &work), 0);
	assert_true(rdma_qp_transmit(&reader, 0, &(struct rdma_frame){0}));
	rdma_qp_receive(&reader, 0,
			&(struct rdma_packet){.opcode = OP_READ_FIRST,
					      .payload = data,
					      .payload_len = 256,
					      .src_ip = none.remote_ip,
					      .dst_ip = none.local_ip,
					      .pkey = 0xffff,
					      .dest_qp = none.local_qpn});
	assert_int_equal(reader.req.una_psn, 1);
	assert_int_equal(rdma_post(&reader, &work), ERR_BUSY);
	work.length -= 256;
	assert_int_equal(rdma_post(&reader, &work), 0);
	for (n = 0; n < RDMA_SEND_MAX; n++)
		assert_true(rdma_poll_send(&qp, &c) && c.status == RDMA_FLUSHED);
	assert_false(rdma_poll_send(&qp, &c));

	a.mtu = 1000;
	assert_int_equal(rdma_qp_init(&qp, &a, &no_regions), ERR_INVAL);
	a = pair_config(0, 0);
	a.send_psn = 0x1000000;
	assert_int_equal(rdma_qp_init(&qp, &a, &no_regions), ERR_INVAL);
	a = pair_config(0, 0);
	a.initiator_depth = RDMA_READ_MAX + 1;
	assert_int_equal(rdma_qp_init(&qp, &a, &no_regions), ERR_INVAL);
}

/* --- time ----------------------------------------------------------------------------------- */

static void test_timeouts(void **state)
{
	static const u64 factors[] = {1, 2, 4, 4};
	struct rdma_qp_config a = pair_config(0, 0);
	struct rdma_packet packet;
	struct pair *p;
	u64 unit = 4096ull << 8, at;
	u32 n;

	a.retry_count = 3;
	p = pair_new(&a, &a);
	p->now = 1000000007;
	assert_true(rdma_qp_deadline(&p->end[0].qp) == RDMA_NEVER);
	post(p, 0, RDMA_WRITE, 2000);
	post(p, 0, RDMA_WRITE, 1);
	for (n = 0; n < ARRAY_SIZE(factors); n++) {
		assert_int_equal(transmit(p, 0, &packet), OP_WRITE_FIRST);
		assert_int_equal(packet.psn, 0);
		assert_int_equal(packet.ack_request, n > 0); /* repeated: each packet asks */
		assert_int_equal(transmit(p, 0, &packet), OP_WRITE_LAST);
		assert_int_equal(transmit(p, 0, &packet), OP_WRITE_ONLY);
		at = rdma_qp_deadline(&p->end[0].qp);
		assert_int_equal(at - p->now, unit * factors[n]);
		p->now = at - 1;
		assert_int_equal(transmit(p, 0, &packet), -1);
		p->now = at;
	}
	assert_int_equal(transmit(p, 0, &packet), -1);
	assert_int_equal(status(p, 0), RDMA_RETRY_EXCEEDED);
	assert_int_equal(status(p, 0), RDMA_FLUSHED);
	assert_int_equal(p->end[0].qp.state, RDMA_QP_ERROR);
	assert_int_equal(p->end[0].qp.stats.timeouts, 4);
	assert_int_equal(p->end[0].qp.req.window, 32); /* cut once: nothing was answered since */
	pair_free(p);

	/* What was answered leaves no time-out behind. */
	p = pair_new(&a, &a);
	for (n = 0; n < 3; n++) {
		post(p, 0, RDMA_WRITE, 1);
		assert_int_equal(transmit(p, 0, &packet), OP_WRITE_ONLY);
		assert_int_equal(rdma_qp_deadline(&p->end[0].qp) - p->now, unit);
		inject(p, 0, (struct rdma_packet){.opcode = OP_ACK, .psn = n});
		p->now += 100 * unit;
	}
	assert_int_equal(transmit(p, 0, &packet), -1);
	assert_int_equal(p->end[0].qp.stats.timeouts, 0);
	pair_free(p);

	/* An answer in between starts the count again. */
	p = pair_new(&a, &a);
	post(p, 0, RDMA_WRITE, 64 * 1024);
	for (n = 0; n < 20; n++) {
		while (transmit(p, 0, &packet) >= 0)
			;
		p->now = rdma_qp_deadline(&p->end[0].qp);
		inject(p, 0, (struct rdma_packet){.opcode = OP_ACK, .psn = n});
		p->now = rdma_qp_deadline(&p->end[0].qp);
		assert_true(transmit(p, 0, &packet) >= 0);
		assert_int_equal(packet.psn, n + 1);
	}
	assert_int_equal(p->end[0].qp.state, RDMA_QP_READY);
	pair_free(p);

	/* Time-out 0 waits for ever. */
	a.timeout = 0;
	p = pair_new(&a, &a);
	post(p, 0, RDMA_WRITE, 1);
	assert_int_equal(transmit(p, 0, &packet), OP_WRITE_ONLY);
	assert_true(rdma_qp_deadline(&p->end[0].qp) == RDMA_NEVER);
	p->now = UINT64_MAX - 1;
	assert_int_equal(transmit(p, 0, &packet), -1);
	pair_free(p);
}

static void test_rnr(void **state)
{
	struct rdma_qp_config a = pair_config(0, 0), b = pair_config(1, 0);
	struct rdma_completion c;
	struct rdma_packet packet;
	struct pair *p;
	u64 before;
	int n;

	/* Both ends of the table and one of the middle: IBTA table 45. */
	assert_int_equal(rdma_rnr_time(0), 655360000);
	assert_int_equal(rdma_rnr_time(1), 10000);
	assert_int_equal(rdma_rnr_time(14), 1280000);
	assert_int_equal(rdma_rnr_time(31), 491520000);

	a.rnr_retry = 2;
	b.rnr_timer = 14;
	p = pair_new(&a, &b);
	for (n = 0; n < 3; n++) {
		if (!n) {
			post(p, 0, RDMA_SEND, 3000);
			post(p, 0, RDMA_WRITE, 1);
		}
		assert_int_not_equal(flush(p, 0), 0);
		/* One NAK, though more came after the packet that could not be taken. */
		assert_int_equal(transmit(p, 1, &packet), OP_ACK);
		assert_int_equal(packet.aeth.syndrome, AETH_RNR | 14);
		assert_int_equal(packet.psn, 0);
		before = p->now;
		rdma_qp_receive(&p->end[0].qp, p->now, &packet);
		assert_int_equal(transmit(p, 1, &packet), -1);
		if (n == 2)
			break;
		/* A copy counts once. */
		inject(p, 0,
		       (struct rdma_packet){.opcode = OP_ACK, .aeth.syndrome = AETH_RNR | 14});
		assert_int_equal(rdma_qp_deadline(&p->end[0].qp), before + 1280000);
		p->now = before + 1279999;
		assert_int_equal(transmit(p, 0, &packet), -1);
		p->now++;
	}
	assert_int_equal(status(p, 0), RDMA_RNR_EXCEEDED);
	assert_int_equal(status(p, 0), RDMA_FLUSHED);
	pair_free(p);

	/* With a receive it goes on; 7 has no limit. */
	a.rnr_retry = 7;
	p = pair_new(&a, &b);
	post(p, 0, RDMA_WRITE_IMM, 2000);
	for (n = 0; n < 20; n++) {
		assert_int_not_equal(flush(p, 0), 0);
		assert_int_equal(flush(p, 1), 1);
		p->now = rdma_qp_deadline(&p->end[0].qp);
	}
	post_receive(p, 1, 0);
	assert_int_equal(flush(p, 0), 1); /* the first packet had been taken */
	flush(p, 1);
	assert_int_equal(status(p, 0), RDMA_OK);
	assert_true(rdma_poll_receive(&p->end[1].qp, &c));
	assert_true(c.status == RDMA_OK && c.length == 2000 && c.has_imm);
	assert_memory_equal(p->end[1].memory, data, 2000);
	pair_free(p);
}

/* --- acknowledgements ----------------------------------------------------------------------- */

static void test_coalescing(void **state)
{
	struct pair *p = pair_default(0xfffffe);
	struct rdma_packet packet;
	int n;

	for (n = 0; n < 8; n++)
		post(p, 0, RDMA_WRITE, 100);
	assert_int_equal(flush(p, 0), 8);
	assert_int_equal(transmit(p, 1, &packet), OP_ACK);
	assert_int_equal(packet.psn, 5);
	assert_int_equal(packet.aeth.msn, 8);
	assert_int_equal(packet.aeth.syndrome, AETH_NO_CREDIT);
	rdma_qp_receive(&p->end[0].qp, p->now, &packet);
	assert_int_equal(transmit(p, 1, &packet), -1);
	for (n = 0; n < 8; n++)
		assert_int_equal(status(p, 0), RDMA_OK);
	assert_true(rdma_qp_deadline(&p->end[0].qp) == RDMA_NEVER);
	pair_free(p);
}

/* A READ's response says that what was before it is done; it is not overtaken by an ACK. */
static void test_read_acknowledges(void **state)
{
	struct pair *p = pair_default(0);
	struct rdma_packet packet;

	post(p, 0, RDMA_WRITE, 1);
	post(p, 0, RDMA_READ, 1500);
	post(p, 0, RDMA_WRITE, 1);
	flush(p, 0);
	assert_int_equal(transmit(p, 1, &packet), OP_ACK); /* lost */
	assert_int_equal(transmit(p, 1, &packet), OP_READ_FIRST);
	assert_int_equal(packet.aeth.msn, 2);
	rdma_qp_receive(&p->end[0].qp, p->now, &packet);
	assert_int_equal(status(p, 0), RDMA_OK);
	assert_int_equal(transmit(p, 1, &packet), OP_READ_LAST);
	rdma_qp_receive(&p->end[0].qp, p->now, &packet);
	assert_int_equal(status(p, 0), RDMA_OK);
	assert_int_equal(transmit(p, 1, &packet), OP_ACK);
	assert_int_equal(packet.psn, 3);
	pair_free(p);
}

/* An ACK from behind a READ without the response: the READ again, at once, and once. */
static void test_implied_nak(void **state)
{
	struct pair *p = pair_default(0);
	struct rdma_packet packet;

	post(p, 0, RDMA_READ, 1500);
	post(p, 0, RDMA_WRITE, 1);
	flush(p, 0);
	assert_int_equal(transmit(p, 1, &packet), OP_READ_FIRST);
	rdma_qp_receive(&p->end[0].qp, p->now, &packet);
	assert_int_equal(transmit(p, 1, &packet), OP_READ_LAST); /* lost */
	assert_int_equal(transmit(p, 1, &packet), OP_ACK);
	rdma_qp_receive(&p->end[0].qp, p->now, &packet);
	rdma_qp_receive(&p->end[0].qp, p->now, &packet);
	assert_int_equal(transmit(p, 0, &packet), OP_READ_REQUEST);
	assert_int_equal(packet.psn, 0);
	assert_int_equal(transmit(p, 0, &packet), OP_WRITE_ONLY);
	assert_int_equal(transmit(p, 0, &packet), -1);
	inject(p, 0, (struct rdma_packet){.opcode = OP_ACK, .psn = 2});
	assert_int_equal(transmit(p, 0, &packet), -1);
	/* After the response has come it may happen again... */
	packet = (struct rdma_packet){
		.opcode = OP_READ_LAST, .psn = 1, .payload = data, .payload_len = 476};
	inject(p, 0, packet);
	post(p, 0, RDMA_READ, 1);
	post(p, 0, RDMA_WRITE, 1);
	assert_int_equal(transmit(p, 0, &packet), OP_READ_REQUEST);
	assert_int_equal(transmit(p, 0, &packet), OP_WRITE_ONLY);
	inject(p, 0, (struct rdma_packet){.opcode = OP_ACK, .psn = 4});
	assert_int_equal(transmit(p, 0, &packet), OP_READ_REQUEST);
	assert_int_equal(packet.psn, 3);
	assert_int_equal(transmit(p, 0, &packet), OP_WRITE_ONLY);
	/* ... and after a time-out. */
	p->now = rdma_qp_deadline(&p->end[0].qp);
	assert_int_equal(transmit(p, 0, &packet), OP_READ_REQUEST);
	assert_int_equal(transmit(p, 0, &packet), OP_WRITE_ONLY);
	assert_int_equal(transmit(p, 0, &packet), -1);
	inject(p, 0, (struct rdma_packet){.opcode = OP_ACK, .psn = 4});
	assert_int_equal(transmit(p, 0, &packet), OP_READ_REQUEST);
	pair_free(p);
}

static void test_sequence_nak(void **state)
{
	struct pair *p = pair_default(0);
	struct rdma_packet packet;
	int n;

	for (n = 0; n < 4; n++)
		post(p, 0, RDMA_WRITE, 1);
	transmit(p, 0, &packet);
	rdma_qp_receive(&p->end[1].qp, p->now, &packet);
	transmit(p, 0, &packet); /* lost */
	assert_int_equal(flush(p, 0), 2);
	/* One NAK for the gap; it acknowledges what was before. */
	assert_int_equal(transmit(p, 1, &packet), OP_ACK);
	assert_int_equal(packet.aeth.syndrome, NAK_SEQUENCE);
	assert_int_equal(packet.psn, 1);
	rdma_qp_receive(&p->end[0].qp, p->now, &packet);
	assert_int_equal(transmit(p, 1, &packet), -1);
	assert_int_equal(status(p, 0), RDMA_OK);
	assert_int_equal(transmit(p, 0, &packet), OP_WRITE_ONLY);
	assert_int_equal(packet.psn, 1);
	rdma_qp_receive(&p->end[1].qp, p->now, &packet);
	assert_int_equal(flush(p, 0), 2);
	flush(p, 1);
	for (n = 0; n < 3; n++)
		assert_int_equal(status(p, 0), RDMA_OK);
	/* The next gap is told of too. */
	inject(p, 1, (struct rdma_packet){.opcode = OP_WRITE_ONLY, .psn = 5});
	inject(p, 1, (struct rdma_packet){.opcode = OP_WRITE_ONLY, .psn = 6});
	assert_int_equal(transmit(p, 1, &packet), OP_ACK);
	assert_int_equal(packet.aeth.syndrome, NAK_SEQUENCE);
	assert_int_equal(packet.psn, 4);
	assert_int_equal(transmit(p, 1, &packet), -1);
	/* Acknowledgements that are old, or ahead of what was sent, say nothing. */
	inject(p, 0, (struct rdma_packet){.opcode = OP_ACK, .psn = 1, .aeth.syndrome = 0x61});
	inject(p, 0, (struct rdma_packet){.opcode = OP_ACK, .psn = 4, .aeth.syndrome = 0x61});
	inject(p, 0, (struct rdma_packet){.opcode = OP_ACK, .psn = 0x800000});
	assert_int_equal(p->end[0].qp.state, RDMA_QP_READY);
	assert_int_equal(p->end[0].qp.stats.dropped, 3);
	pair_free(p);
}

static void test_duplicates(void **state)
{
	struct pair *p = pair_default(0);
	struct rdma_packet write, read, packet;
	static u8 wire[100];

	post(p, 0, RDMA_WRITE, 16);
	post(p, 0, RDMA_READ, 16);
	transmit(p, 0, &write);
	memcpy(wire, write.payload, 16);
	write.payload = wire;
	transmit(p, 0, &read);
	rdma_qp_receive(&p->end[1].qp, p->now, &write);
	rdma_qp_receive(&p->end[1].qp, p->now, &read);
	while (transmit(p, 1, &packet) >= 0)
		;
	/* Repeated: the WRITE is not executed again, but acknowledged up to the newest. */
	memset(p->end[1].memory, 0x77, 16);
	rdma_qp_receive(&p->end[1].qp, p->now, &write);
	assert_int_equal(p->end[1].memory[0], 0x77);
	assert_int_equal(transmit(p, 1, &packet), OP_ACK);
	assert_int_equal(packet.psn, 1);
	assert_int_equal(packet.aeth.msn, 2);
	write.ack_request = false;
	rdma_qp_receive(&p->end[1].qp, p->now, &write);
	assert_int_equal(transmit(p, 1, &packet), -1);
	/* The READ is, and sees what is there now; twice asked, once answered. */
	rdma_qp_receive(&p->end[1].qp, p->now, &read);
	rdma_qp_receive(&p->end[1].qp, p->now, &read);
	assert_int_equal(transmit(p, 1, &packet), OP_READ_ONLY);
	assert_int_equal(packet.payload[0], 0x77);
	assert_int_equal(transmit(p, 1, &packet), -1);
	/* A "repeated" READ that reaches beyond what was asked is nothing. */
	read.reth.length = 1025;
	rdma_qp_receive(&p->end[1].qp, p->now, &read);
	assert_int_equal(transmit(p, 1, &packet), -1);
	/* And its memory is checked again. */
	read.reth.length = 16;
	pair_region(&p->end[1], RDMA_REMOTE_WRITE);
	rdma_qp_receive(&p->end[1].qp, p->now, &read);
	assert_int_equal(transmit(p, 1, &packet), OP_ACK);
	assert_int_equal(packet.aeth.syndrome, NAK_REMOTE_ACCESS);
	pair_free(p);
}

/* A READ that is repeated while it is answered begins anew; another one in its place is nothing. */
static void test_repeated_read(void **state)
{
	struct pair *p = pair_default(0);
	struct rdma_packet read, packet;

	post(p, 0, RDMA_READ, 1500);
	transmit(p, 0, &read);
	rdma_qp_receive(&p->end[1].qp, p->now, &read);
	assert_int_equal(transmit(p, 1, &packet), OP_READ_FIRST);
	rdma_qp_receive(&p->end[1].qp, p->now, &read);
	assert_int_equal(transmit(p, 1, &packet), OP_READ_FIRST);
	read.reth.va++;
	rdma_qp_receive(&p->end[1].qp, p->now, &read);
	assert_int_equal(transmit(p, 1, &packet), OP_READ_LAST);
	assert_int_equal(transmit(p, 1, &packet), -1);
	pair_free(p);
}

/* A refusal that waits to be sent is not replaced by an acknowledgement. */
static void test_nak_stays(void **state)
{
	struct pair *p = pair_default(0);
	struct rdma_packet write, packet;

	post(p, 0, RDMA_WRITE, 1);
	post(p, 0, RDMA_SEND, 1);
	transmit(p, 0, &write);
	rdma_qp_receive(&p->end[1].qp, p->now, &write);
	flush(p, 0);
	rdma_qp_receive(&p->end[1].qp, p->now, &write);
	assert_int_equal(transmit(p, 1, &packet), OP_ACK);
	assert_int_equal(packet.aeth.syndrome & AETH_KIND, AETH_RNR);
	assert_int_equal(transmit(p, 1, &packet), OP_ACK);
	assert_int_equal(packet.aeth.syndrome, AETH_NO_CREDIT);
	assert_int_equal(packet.psn, 0);
	pair_free(p);
}

/* --- refusals ------------------------------------------------------------------------------- */

/* What the responder says to a packet after `prefix` packets of a 3-packet WRITE or SEND. */
static int answer_to(u8 opcode, u32 len, u64 va, u32 rkey, u32 reth_len, u8 prefix_opcode)
{
	struct pair *p = pair_default(0);
	struct rdma_packet packet;
	int ret;

	post_receive(p, 1, 3000);
	if (prefix_opcode != 0xff)
		inject(p, 1,
		       (struct rdma_packet){.opcode = prefix_opcode,
					    .payload = data,
					    .payload_len = 1024,
					    .reth = {PAIR_VA, PAIR_RKEY, 3000}});
	inject(p, 1,
	       (struct rdma_packet){.opcode = opcode,
				    .psn = prefix_opcode != 0xff,
				    .ack_request = true,
				    .payload = data,
				    .payload_len = len,
				    .reth = {va, rkey, reth_len}});
	ret = transmit(p, 1, &packet);
	if (ret == OP_ACK) {
		bool fatal = (packet.aeth.syndrome & AETH_KIND) == AETH_NAK;

		ret = packet.aeth.syndrome;
		assert_int_equal(p->end[1].qp.state, fatal ? RDMA_QP_ERROR : RDMA_QP_READY);
		assert_int_equal(packet.psn, prefix_opcode != 0xff);
	}
	pair_free(p);
	return ret;
}

static void test_refusals(void **state)
{
	enum {
		OK = AETH_NO_CREDIT,
		NONE = 0xff
	};
	static const struct {
		u8 opcode;
		u32 len;
		u64 va;
		u32 rkey, reth_len;
		u8 prefix;
		int answer;
	} rows[] = {
		/* Sequence of opcodes */
		{OP_WRITE_MIDDLE, 1024, 0, 0, 0, NONE, NAK_INVALID},
		{OP_WRITE_LAST, 1, 0, 0, 0, NONE, NAK_INVALID},
		{OP_SEND_MIDDLE, 1024, 0, 0, 0, NONE, NAK_INVALID},
		{OP_SEND_LAST, 1, 0, 0, 0, NONE, NAK_INVALID},
		{OP_SEND_MIDDLE, 1024, 0, 0, 0, OP_WRITE_FIRST, NAK_INVALID},
		{OP_WRITE_MIDDLE, 1024, 0, 0, 0, OP_SEND_FIRST, NAK_INVALID},
		{OP_SEND_ONLY, 1, 0, 0, 0, OP_SEND_FIRST, NAK_INVALID},
		{OP_WRITE_FIRST, 1024, PAIR_VA, PAIR_RKEY, 2000, OP_WRITE_FIRST, NAK_INVALID},
		{OP_READ_REQUEST, 0, PAIR_VA, PAIR_RKEY, 1, OP_WRITE_FIRST, NAK_INVALID},
		{OP_WRITE_MIDDLE, 1024, 0, 0, 0, OP_WRITE_FIRST, OK},
		{OP_SEND_LAST, 1024, 0, 0, 0, OP_SEND_FIRST, OK},
		/* Lengths */
		{OP_SEND_FIRST, 1023, 0, 0, 0, NONE, NAK_INVALID},
		{OP_SEND_MIDDLE, 1000, 0, 0, 0, OP_SEND_FIRST, NAK_INVALID},
		{OP_SEND_LAST, 0, 0, 0, 0, OP_SEND_FIRST, NAK_INVALID},
		{OP_SEND_ONLY, 1028, 0, 0, 0, NONE, NAK_INVALID},
		{OP_SEND_ONLY, 0, 0, 0, 0, NONE, OK},
		{OP_WRITE_ONLY, 4, PAIR_VA, PAIR_RKEY, 5, NONE, NAK_INVALID},
		{OP_WRITE_ONLY, 4, PAIR_VA, PAIR_RKEY, 3, NONE, NAK_INVALID},
		{OP_WRITE_ONLY, 4, PAIR_VA, PAIR_RKEY, 4, NONE, OK},
		{OP_WRITE_FIRST, 1024, PAIR_VA, PAIR_RKEY, 1024, NONE, NAK_INVALID},
		{OP_WRITE_FIRST, 1024, PAIR_VA, PAIR_RKEY, 1025, NONE, OK},
		{OP_WRITE_LAST, 1024, 0, 0, 0, OP_WRITE_FIRST, NAK_INVALID},
		{OP_WRITE_FIRST, 1024, PAIR_VA, PAIR_RKEY, RDMA_MESSAGE_MAX + 1, NONE, NAK_INVALID},
		{OP_READ_REQUEST, 0, PAIR_VA, PAIR_RKEY, RDMA_MESSAGE_MAX + 1, NONE, NAK_INVALID},
		/* Memory */
		{OP_WRITE_ONLY, 4, PAIR_VA - 1, PAIR_RKEY, 4, NONE, NAK_REMOTE_ACCESS},
		{OP_WRITE_ONLY, 4, PAIR_VA + PAIR_MEMORY - 3, PAIR_RKEY, 4, NONE,
		 NAK_REMOTE_ACCESS},
		{OP_WRITE_ONLY, 4, PAIR_VA + PAIR_MEMORY - 4, PAIR_RKEY, 4, NONE, OK},
		{OP_WRITE_ONLY, 4, UINT64_MAX, PAIR_RKEY, 4, NONE, NAK_REMOTE_ACCESS},
		{OP_WRITE_ONLY, 4, PAIR_VA, PAIR_RKEY + 1, 4, NONE, NAK_REMOTE_ACCESS},
		{OP_WRITE_ONLY, 4, PAIR_VA, PAIR_RKEY ^ 0x100, 4, NONE, NAK_REMOTE_ACCESS},
		{OP_WRITE_ONLY, 4, PAIR_VA, PAIR_RKEY | 0xff, 4, NONE, NAK_REMOTE_ACCESS},
		{OP_WRITE_FIRST, 1024, PAIR_VA, PAIR_RKEY, PAIR_MEMORY + 1, NONE,
		 NAK_REMOTE_ACCESS},
		{OP_READ_REQUEST, 0, PAIR_VA + 1, PAIR_RKEY, PAIR_MEMORY, NONE, NAK_REMOTE_ACCESS},
		{OP_READ_REQUEST, 0, PAIR_VA, PAIR_RKEY, PAIR_MEMORY, NONE, OP_READ_FIRST},
		/* Nothing transferred: nothing checked. */
		{OP_WRITE_ONLY, 0, 0, 0, 0, NONE, OK},
		{OP_READ_REQUEST, 0, 0, 0, 0, NONE, OP_READ_ONLY},
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		int answer = answer_to(rows[i].opcode, rows[i].len, rows[i].va, rows[i].rkey,
				       rows[i].reth_len, rows[i].prefix);

		if (answer != rows[i].answer)
			fail_msg("row %zu: %#x", i, (unsigned int)answer);
	}
}

static void test_access_flags(void **state)
{
	struct pair *p;

	p = pair_default(0);
	pair_region(&p->end[1], RDMA_REMOTE_READ);
	post(p, 0, RDMA_READ, 10);
	post(p, 0, RDMA_WRITE, 10);
	post(p, 0, RDMA_READ, 10);
	flush(p, 0);
	flush(p, 1);
	assert_int_equal(status(p, 0), RDMA_OK);
	assert_int_equal(status(p, 0), RDMA_REMOTE_ACCESS);
	assert_int_equal(status(p, 0), RDMA_FLUSHED);
	pair_free(p);

	p = pair_default(0);
	pair_region(&p->end[1], RDMA_REMOTE_WRITE);
	post(p, 0, RDMA_WRITE, 10);
	post(p, 0, RDMA_READ, 10);
	flush(p, 0);
	flush(p, 1);
	assert_int_equal(status(p, 0), RDMA_OK);
	assert_int_equal(status(p, 0), RDMA_REMOTE_ACCESS);
	pair_free(p);

	/* A region that goes away stops READs and WRITEs in their middle. */
	p = pair_default(0);
	post(p, 0, RDMA_WRITE, 2000);
	transmit(p, 0, &(struct rdma_packet){0});
	inject(p, 1,
	       (struct rdma_packet){.opcode = OP_WRITE_FIRST,
				    .payload = data,
				    .payload_len = 1024,
				    .reth = {PAIR_VA, PAIR_RKEY, 2000}});
	pair_region(&p->end[1], 0);
	flush(p, 0);
	flush(p, 1);
	assert_int_equal(status(p, 0), RDMA_REMOTE_ACCESS);
	pair_free(p);

	p = pair_default(0);
	post(p, 0, RDMA_READ, 3000);
	flush(p, 0);
	transmit(p, 1, &(struct rdma_packet){0});
	pair_region(&p->end[1], 0);
	flush(p, 1);
	assert_int_equal(status(p, 0), RDMA_REMOTE_ACCESS);
	assert_int_equal(p->end[1].qp.state, RDMA_QP_ERROR);
	pair_free(p);
}

static void test_receive_too_short(void **state)
{
	struct pair *p = pair_default(0);
	struct rdma_completion c;

	post_receive(p, 1, 1500);
	post_receive(p, 1, 3000);
	post(p, 0, RDMA_SEND, 1501);
	flush(p, 0);
	flush(p, 1);
	assert_int_equal(status(p, 0), RDMA_REMOTE_INVALID);
	assert_true(rdma_poll_receive(&p->end[1].qp, &c) && c.status == RDMA_RECV_TOO_SHORT);
	assert_true(rdma_poll_receive(&p->end[1].qp, &c) && c.status == RDMA_FLUSHED);
	assert_false(rdma_poll_receive(&p->end[1].qp, &c));
	pair_free(p);
}

static void test_bad_responses(void **state)
{
	static const struct {
		u8 opcode;
		u32 psn, len;
		enum rdma_qp_state after;
	} rows[] = {
		{OP_READ_FIRST, 0, 1024, RDMA_QP_READY},
		{OP_READ_FIRST, 0, 1020, RDMA_QP_ERROR},
		{OP_READ_ONLY, 0, 1024, RDMA_QP_ERROR},
		{OP_READ_LAST, 0, 1024, RDMA_QP_ERROR},
		{OP_READ_LAST, 1, 476, RDMA_QP_READY}, /* a gap */
		{OP_READ_FIRST, 2, 1024, RDMA_QP_READY},
		{OP_READ_FIRST, 0xffffff, 4, RDMA_QP_READY},
		{OP_READ_MIDDLE, 0, 4096, RDMA_QP_ERROR},
	};
	struct rdma_completion c;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		struct pair *p = pair_default(0);

		memset(inbox, 0, sizeof(inbox));
		post(p, 0, RDMA_READ, 1500);
		transmit(p, 0, &(struct rdma_packet){0});
		inject(p, 0,
		       (struct rdma_packet){.opcode = rows[i].opcode,
					    .psn = rows[i].psn,
					    .payload = data,
					    .payload_len = rows[i].len});
		assert_int_equal(p->end[0].qp.state, rows[i].after);
		if (rows[i].after == RDMA_QP_ERROR)
			assert_int_equal(status(p, 0), RDMA_BAD_RESPONSE);
		else
			assert_false(rdma_poll_send(&p->end[0].qp, &c));
		assert_int_equal(inbox[0], i == 0 ? data[0] : 0);
		pair_free(p);
	}
}

/* NAK codes as the requester reports them. */
static void test_nak_codes(void **state)
{
	static const enum rdma_status statuses[] = {RDMA_REMOTE_INVALID, RDMA_REMOTE_ACCESS,
						    RDMA_REMOTE_ERROR};
	u32 i;

	for (i = 0; i < 3; i++) {
		struct pair *p = pair_default(0);

		post(p, 0, RDMA_WRITE, 1);
		post(p, 0, RDMA_WRITE, 1);
		flush(p, 0);
		inject(p, 0,
		       (struct rdma_packet){
			       .opcode = OP_ACK, .psn = 1, .aeth.syndrome = (u8)(NAK_INVALID + i)});
		assert_int_equal(status(p, 0), RDMA_OK);
		assert_int_equal(status(p, 0), statuses[i]);
		pair_free(p);
	}
}

/* Packets that are not this connection's. */
static void test_strangers(void **state)
{
	struct pair *p = pair_default(0);
	struct rdma_packet good, packet;
	int n;

	post(p, 0, RDMA_WRITE, 4);
	transmit(p, 0, &good);
	for (n = 0; n < 5; n++) {
		packet = good;
		packet.src_ip += n == 0;
		packet.dst_ip += n == 1;
		packet.pkey = n == 2 ? 0x7ffe : 0xffff;
		packet.dest_qp += n == 3;
		packet.opcode = n == 4 ? OP_UD_SEND_ONLY : good.opcode;
		rdma_qp_receive(&p->end[1].qp, p->now, &packet);
		assert_int_equal(transmit(p, 1, &packet), -1);
	}
	assert_int_equal(p->end[1].qp.stats.dropped, 5);
	good.pkey = 0x7fff; /* a limited member of the default partition */
	rdma_qp_receive(&p->end[1].qp, p->now, &good);
	assert_int_equal(transmit(p, 1, &packet), OP_ACK);
	pair_free(p);
}

/* A peer that asks for more READs than was agreed, and repeats them: bounded, and no harm. */
static void test_read_flood(void **state)
{
	struct pair *p = pair_default(0);
	struct rdma_packet packet;
	u32 i, n;

	for (i = 0; i < 200; i++)
		inject(p, 1,
		       (struct rdma_packet){.opcode = OP_READ_REQUEST,
					    .psn = i % 100,
					    .reth = {PAIR_VA, PAIR_RKEY, 4}});
	for (n = 0; transmit(p, 1, &packet) == OP_READ_ONLY; n++)
		;
	assert_int_equal(n, 8);
	assert_int_equal(p->end[1].qp.state, RDMA_QP_READY);
	pair_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_segmentation),
		cmocka_unit_test(test_header_fields),
		cmocka_unit_test(test_congestion_is_told),
		cmocka_unit_test(test_window),
		cmocka_unit_test(test_initiator_depth_and_fence),
		cmocka_unit_test(test_posting_limits),
		cmocka_unit_test(test_timeouts),
		cmocka_unit_test(test_rnr),
		cmocka_unit_test(test_coalescing),
		cmocka_unit_test(test_read_acknowledges),
		cmocka_unit_test(test_implied_nak),
		cmocka_unit_test(test_sequence_nak),
		cmocka_unit_test(test_duplicates),
		cmocka_unit_test(test_repeated_read),
		cmocka_unit_test(test_nak_stays),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_access_flags),
		cmocka_unit_test(test_receive_too_short),
		cmocka_unit_test(test_bad_responses),
		cmocka_unit_test(test_nak_codes),
		cmocka_unit_test(test_strangers),
		cmocka_unit_test(test_read_flood),
	};
	size_t i;

	for (i = 0; i < sizeof(data); i++)
		data[i] = (u8)(i * 7 + 3);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
