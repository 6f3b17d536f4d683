/*
 * The short way of expected answers, rdma_qp_take(): what it takes and what not. That it leaves
 * what the long way leaves is looked at for every frame of the other tests too (rdma_pair.h).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "rdma_steps.h"

/* All that a quick network brings is expected, but lengths with padding. */
static void test_all_of_a_page(void **state)
{
	static const struct {
		enum rdma_operation op;
		u32 length, taken, frames;
	} rows[] = {
		{RDMA_READ, 4096, 4, 4}, {RDMA_READ, 1024, 1, 1}, {RDMA_READ, 4, 1, 1},
		{RDMA_READ, 0, 1, 1},	 {RDMA_READ, 2050, 2, 3}, {RDMA_WRITE, 4096, 1, 1},
		{RDMA_WRITE, 3, 1, 1},
	};

	for (u32 i = 0; i < ARRAY_SIZE(rows); i++) {
		struct pair *p = pair_default(0xfffffe);

		memset(p->end[1].memory, (int)(i + 1), sizeof(p->end[1].memory));
		memset(inbox, 0, sizeof(inbox));
		post(p, 0, rows[i].op, rows[i].length);
		assert_true(pair_run(p, 100));
		assert_int_equal(status(p, 0), RDMA_OK);
		assert_int_equal(p->end[0].frames, rows[i].frames);
		assert_int_equal(p->end[0].taken, rows[i].taken);
		if (rows[i].op == RDMA_READ)
			assert_memory_equal(inbox, p->end[1].memory, rows[i].length);
		pair_free(p);
	}
}

/* A QP that has taken the first `taken` responses to a READ of a page, and the next one. */
static struct pair *begun(u32 taken, u8 *wire, u32 *len)
{
	struct pair *p = pair_default(100);
	struct rdma_packet packet;
	struct rdma_frame f;

	post(p, 0, RDMA_READ, 4096);
	flush(p, 0);
	while (taken--) {
		assert_true(transmit(p, 1, &packet) >= 0);
		rdma_qp_receive(&p->end[0].qp, p->now, &packet);
	}
	assert_true(rdma_qp_transmit(&p->end[1].qp, p->now, &f));
	*len = rdma_frame_copy(&f, wire);
	return p;
}

static bool takes(const struct pair *p, const u8 *frame, u32 len)
{
	struct rdma_qp *qp = malloc(sizeof(*qp));
	u8 *exact = malloc(len); /* reading beyond is noticed */
	bool taken;

	memcpy(qp, &p->end[0].qp, sizeof(*qp));
	memcpy(exact, frame, len);
	taken = rdma_qp_take(qp, p->now, exact, len) != RDMA_OTHER;
	assert_true(taken || !memcmp(qp, &p->end[0].qp, sizeof(*qp)));
	free(exact);
	free(qp);
	return taken;
}

/* Whoever may change a bit on the way: MAC addresses, the UDP checksum, congestion marks. */
static bool does_not_matter(u32 byte)
{
	return byte < 12 || byte == 40 || byte == 41 || byte == 46;
}

static void test_every_bit(void **state)
{
	u8 wire[RDMA_FRAME_MAX];
	u32 len, bit, cut;

	for (u32 taken = 0; taken < 4; taken++) {
		struct pair *p = begun(taken, wire, &len);

		assert_true(takes(p, wire, len));
		for (bit = 0; bit < 8 * len; bit++) {
			wire[bit / 8] ^= (u8)(1u << bit % 8);
			assert_int_equal(takes(p, wire, len), does_not_matter(bit / 8));
			wire[bit / 8] ^= (u8)(1u << bit % 8);
		}
		for (cut = 1; cut <= len; cut++)
			assert_false(takes(p, wire, len - cut));
		pair_free(p);
	}
}

/* Frames that are right, with one thing that makes them others. */
static void test_others(void **state)
{
	u8 wire[RDMA_FRAME_MAX], again[RDMA_FRAME_MAX];
	struct rdma_packet good, packet;
	struct rdma_frame f;
	u32 len, what;
	struct pair *p = begun(1, wire, &len);

	assert_int_equal(rdma_decode(&good, wire, len), 0);
	for (what = 0; what < 13; what++) {
		packet = good;
		packet.src_ip += what == 1;
		packet.dst_ip += what == 2;
		packet.dest_qp += what == 3;
		packet.psn = psn_add(packet.psn, what == 4 ? 1 : what == 5 ? PSN_MASK : 0);
		packet.opcode = what == 6   ? OP_READ_FIRST
				: what == 7 ? OP_READ_LAST
				: what == 8 ? OP_WRITE_MIDDLE
					    : good.opcode;
		packet.pkey = what == 9 ? 0xfffe : 0xffff;
		packet.tos = what == 10 ? IPV4_CE : 0x80;
		packet.payload_len -= what == 11 ? 4 : what == 12 ? 3 : 0;
		assert_int_equal(rdma_encode(&packet, &f), 0);
		assert_int_equal(takes(p, again, rdma_frame_copy(&f, again)), what == 0);
	}
	p->end[0].qp.state = RDMA_QP_ERROR;
	assert_false(takes(p, wire, len));
	p->end[0].qp.state = RDMA_QP_READY;
	assert_true(takes(p, wire, len));
	pair_free(p);
}

/* Nothing is expected, or something else is. */
static void test_not_asked(void **state)
{
	u8 wire[RDMA_FRAME_MAX];
	u32 len;
	struct pair *p = begun(0, wire, &len), *idle = pair_default(100);

	assert_false(takes(idle, wire, len));
	post(idle, 0, RDMA_READ, 4096); /* not sent yet */
	assert_false(takes(idle, wire, len));
	flush(idle, 0);
	assert_true(takes(idle, wire, len));
	pair_free(idle);
	idle = pair_default(100);
	post(idle, 0, RDMA_WRITE, 4096);
	flush(idle, 0);
	assert_false(takes(idle, wire, len));
	pair_free(idle);
	pair_free(p);
}

/* Acknowledgements of what is open, of any of it; refusals go the long way. */
static void test_acknowledgements(void **state)
{
	struct pair *p = pair_default(0);
	u8 wire[RDMA_FRAME_MAX];
	struct rdma_packet packet = {.opcode = OP_ACK,
				     .src_ip = p->end[0].qp.config.remote_ip,
				     .dst_ip = p->end[0].qp.config.local_ip,
				     .pkey = 0x7fff,
				     .dest_qp = p->end[0].qp.config.local_qpn};
	struct rdma_packet sent;
	struct rdma_frame f;

	post(p, 0, RDMA_WRITE, 2048);
	post(p, 0, RDMA_WRITE, 2048);
	while (transmit(p, 0, &sent) >= 0)
		;
	for (u32 psn = 0; psn < 6; psn++) {
		for (u32 kind = 0; kind < 8; kind++) {
			packet.psn = psn;
			packet.aeth.syndrome = (u8)(kind << 5 | 0x1f);
			assert_int_equal(rdma_encode(&packet, &f), 0);
			assert_int_equal(takes(p, wire, rdma_frame_copy(&f, wire)),
					 kind == 0 && psn < 4);
		}
	}
	pair_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_of_a_page),	 cmocka_unit_test(test_every_bit),
		cmocka_unit_test(test_others),		 cmocka_unit_test(test_not_asked),
		cmocka_unit_test(test_acknowledgements),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
