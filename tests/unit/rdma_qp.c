/* Rules of a reliable connection one by one: requests as they are sent, and when. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "rdma_steps.h"

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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
