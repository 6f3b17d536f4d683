/* Rules of a reliable connection one by one: acknowledgements, losses, repetitions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "rdma_steps.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_coalescing),  cmocka_unit_test(test_read_acknowledges),
		cmocka_unit_test(test_implied_nak), cmocka_unit_test(test_sequence_nak),
		cmocka_unit_test(test_duplicates),  cmocka_unit_test(test_repeated_read),
		cmocka_unit_test(test_nak_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
