/* Rules of a reliable connection one by one: what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "rdma_steps.h"

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
		cmocka_unit_test(test_refusals),	  cmocka_unit_test(test_access_flags),
		cmocka_unit_test(test_receive_too_short), cmocka_unit_test(test_bad_responses),
		cmocka_unit_test(test_nak_codes),	  cmocka_unit_test(test_strangers),
		cmocka_unit_test(test_read_flood),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
