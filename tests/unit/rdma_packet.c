/* RoCEv2 packets: captured frames back and forth, every field, every refusal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "lib/crc32.h"
#include "rdma/packet.h"
#include "roce_pcap.h"

static const struct {
	const char *name;
	u32 frames;
} captures[] = {
	{"rping1500.pcap", 41}, {"rping9000.pcap", 29}, {"stale.pcap", 13},
	{"pt_write.pcap", 82},	{"pt_read.pcap", 48},	{"bare_metal.pcap", 48},
};

/* What Linux's rdma_rxe sent is well-formed, and comes out again byte for byte. */
static void test_captures(void **state)
{
	struct rdma_packet p;
	struct rdma_frame f;
	struct pcap pcap;
	u8 again[RDMA_FRAME_MAX];
	const u8 *frame;
	size_t len, i;
	u32 frames;

	for (i = 0; i < ARRAY_SIZE(captures); i++) {
		assert_true(pcap_open(&pcap, captures[i].name));
		for (frames = 0; (frame = pcap_next(&pcap, &len)); frames++) {
			assert_int_equal(rdma_decode(&p, frame, len), 0);
			assert_int_equal(rdma_encode(&p, &f), 0);
			assert_int_equal(rdma_frame_copy(&f, again), len);
			assert_memory_equal(again, frame, len);
		}
		assert_int_equal(frames, captures[i].frames);
		pcap_close(&pcap);
	}
}

/* Each bit of a captured frame: covered by the ICRC, checked, or known to be variant. */
static void test_every_bit(void **state)
{
	struct rdma_packet p;
	struct pcap pcap;
	const u8 *frame;
	u8 copy[RDMA_FRAME_MAX];
	size_t len, bit;

	assert_true(pcap_open(&pcap, "rping1500.pcap"));
	while ((frame = pcap_next(&pcap, &len)) && frame[42] != OP_WRITE_FIRST)
		;
	assert_non_null(frame);
	memcpy(copy, frame, len);
	for (bit = 0; bit < len * 8; bit++) {
		size_t byte = bit / 8;
		/* MAC addresses; UDP checksum; BTH byte 4. */
		bool variant = byte < 12 || byte == 40 || byte == 41 || byte == 46;

		copy[byte] ^= (u8)(1u << bit % 8);
		if (variant)
			assert_int_equal(rdma_decode(&p, copy, len), 0);
		else
			assert_int_not_equal(rdma_decode(&p, copy, len), 0);
		copy[byte] ^= (u8)(1u << bit % 8);
	}
	for (bit = 0; bit < len; bit++)
		assert_int_not_equal(rdma_decode(&p, copy, bit), 0);
	assert_int_equal(rdma_decode(&p, copy, len), 0);
	pcap_close(&pcap);
}

static struct rdma_packet sample(u8 opcode, const u8 *payload, u32 len)
{
	return (struct rdma_packet){
		.dst_mac = {2, 3, 4, 5, 6, 7},
		.src_mac = {10, 11, 12, 13, 14, 15},
		.dst_ip = 0x0a4d0001,
		.src_ip = 0xc0a80102,
		.ip_id = 0xbeef,
		.tos = 0x02,
		.ttl = 63,
		.dont_fragment = true,
		.src_port = 0xc001,
		.udp_checksum = 0x1234,
		.opcode = opcode,
		.solicited = true,
		.migrated = true,
		.ack_request = true,
		.congestion = BTH_BECN,
		.pkey = 0xffff,
		.dest_qp = 0x123456,
		.psn = 0xfedcba,
		.payload = payload,
		.payload_len = len,
	};
}

static void fill_extended(struct rdma_packet *p)
{
	u32 flags = rdma_op_flags(p->opcode);

	if (flags & OPF_RETH) {
		p->reth.va = 0x0123456789abcdef;
		p->reth.rkey = 0xa1b2c3d4;
		p->reth.length = 0x80000001;
	}
	if (flags & OPF_AETH) {
		p->aeth.syndrome = 0x61;
		p->aeth.msn = 0x998877;
	}
	if (flags & OPF_IMM)
		p->imm = 0x55667788;
	if (flags & OPF_DETH) {
		p->deth.qkey = 0x80010000;
		p->deth.src_qp = 0xabcdef;
	}
}

/* Every opcode, every pad: what goes in comes out. */
static void test_fields(void **state)
{
	struct rdma_packet p, q;
	struct rdma_frame f;
	u8 payload[64], wire[RDMA_FRAME_MAX];
	u32 op, n, len, known = 0;

	for (n = 0; n < sizeof(payload); n++)
		payload[n] = (u8)(n * 37 + 1);
	for (op = 0; op < 256; op++) {
		u32 flags = rdma_op_flags((u8)op);

		known += flags != 0;
		for (n = 0; n <= sizeof(payload); n++) {
			p = sample((u8)op, payload, n);
			fill_extended(&p);
			if (!flags || (n && !(flags & OPF_PAYLOAD))) {
				assert_int_equal(rdma_encode(&p, &f), ERR_INVAL);
				continue;
			}
			assert_int_equal(rdma_encode(&p, &f), 0);
			len = rdma_frame_copy(&f, wire);
			assert_int_equal((len - 14) % 4, 0);
			assert_int_equal(rdma_decode(&q, wire, len), 0);
			assert_memory_equal(q.payload, payload, n);
			p.payload = q.payload;
			/* Field by field would forget one; both were zeroed before. */
			assert_memory_equal(&p, &q, offsetof(struct rdma_packet, opcode));
			assert_true(p.opcode == q.opcode && p.solicited == q.solicited &&
				    p.migrated == q.migrated && p.ack_request == q.ack_request &&
				    p.congestion == q.congestion && p.pkey == q.pkey);
			assert_true(p.dest_qp == q.dest_qp && p.psn == q.psn);
			assert_true(p.reth.va == q.reth.va && p.reth.rkey == q.reth.rkey &&
				    p.reth.length == q.reth.length);
			assert_true(p.aeth.syndrome == q.aeth.syndrome && p.aeth.msn == q.aeth.msn);
			assert_true(p.imm == q.imm && p.deth.qkey == q.deth.qkey &&
				    p.deth.src_qp == q.deth.src_qp);
			assert_int_equal(q.payload_len, n);
			/* Behind the datagram may be anything. */
			assert_int_equal(rdma_decode(&q, wire, len + 7), 0);
			assert_int_equal(q.payload_len, n);
		}
	}
	assert_int_equal(known, 20);
}

/* The frame sizes of a page's transfer, from the specification's header sizes. */
static void test_sizes(void **state)
{
	static const struct {
		u8 opcode;
		u32 payload, frame;
	} rows[] = {
		{OP_READ_REQUEST, 0, 74},
		{OP_READ_FIRST, 1024, 1086},
		{OP_READ_LAST, 1024, 1086},
		{OP_READ_MIDDLE, 1024, 1082},
		{OP_WRITE_FIRST, 1024, 1098},
		{OP_WRITE_LAST, 1024, 1082},
		{OP_ACK, 0, 62},
		{OP_UD_SEND_ONLY, 256, 322},
	};
	static const u8 payload[1024];
	struct rdma_packet p;
	struct rdma_frame f;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		p = sample(rows[i].opcode, payload, rows[i].payload);
		assert_int_equal(rdma_encode(&p, &f), 0);
		assert_int_equal(rdma_frame_len(&f), rows[i].frame);
	}
	p = sample(OP_SEND_ONLY, payload, RDMA_MTU_MAX + 1);
	assert_int_equal(rdma_encode(&p, &f), ERR_INVAL);
}

/* Sets a byte and makes IPv4 checksum and ICRC right again, so that only the check itself is left.
 */
static int decode_with(size_t at, u8 value)
{
	static const u8 payload[8] = {1, 2, 3, 4, 5, 6, 7, 8};
	u8 wire[RDMA_FRAME_MAX], masked[RDMA_FRAME_MAX];
	struct rdma_packet p = sample(OP_SEND_ONLY, payload, sizeof(payload)), q;
	struct rdma_frame f;
	u32 len, sum = 0, crc, i;

	assert_int_equal(rdma_encode(&p, &f), 0);
	len = rdma_frame_copy(&f, wire);
	wire[at] = value;
	put_be16(wire + 24, 0);
	for (i = 14; i < 34; i += 2)
		sum += be16(wire + i);
	sum = (sum & 0xffff) + (sum >> 16);
	put_be16(wire + 24, ~(sum + (sum >> 16)));
	memcpy(masked, wire, len);
	memset(masked + 6, 0xff, 8);
	masked[15] = masked[22] = masked[24] = masked[25] = masked[40] = masked[41] = 0xff;
	masked[46] = 0xff;
	crc = crc32(0, masked + 6, len - 6 - 4);
	for (i = 0; i < 4; i++)
		wire[len - 4 + i] = (u8)(crc >> 8 * i);
	return rdma_decode(&q, wire, len);
}

static void test_refusals(void **state)
{
	static const struct {
		u8 at, value;
		int ret;
		const char *what;
	} rows[] = {
		{12, 0x08, 0, "nothing changed"},
		{13, 0x06, ERR_NOENT, "ARP"},
		{14, 0x65, ERR_NOENT, "IP version 6"},
		{14, 0x46, ERR_INVAL, "options"},
		{17, 64, ERR_INVAL, "total length beyond the frame"},
		{17, 48, ERR_INVAL, "total length is not UDP's"},
		{20, 0x60, ERR_INVAL, "more fragments"},
		{21, 0x01, ERR_INVAL, "fragment offset"},
		{23, 6, ERR_NOENT, "TCP"},
		{37, 0xb6, ERR_NOENT, "another port"},
		{39, 28, ERR_INVAL, "UDP length"},
		{42, 0x12, ERR_INVAL, "unassigned opcode (ATOMIC)"},
		{42, 0x11, ERR_INVAL, "an ACK with payload"},
		{42, 0x10, 0, "a READ response: AETH and four bytes"},
		{42, 0x0a, ERR_INVAL, "too short for a RETH"},
		{42, 0x20, ERR_INVAL, "unreliable connection"},
		{43, 0x01, ERR_INVAL, "transport version 1"},
		{43, 0x30, 0, "pad 3 of 8"},
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(rows); i++)
		if (decode_with(rows[i].at, rows[i].value) != rows[i].ret)
			fail_msg("%s: %d", rows[i].what, decode_with(rows[i].at, rows[i].value));
}

/* Lengths that the ICRC cannot notice, as it is right for them. */
static int decode_sized(u32 udp_payload, u8 flags)
{
	u8 wire[128] = {0};
	u8 masked[128];
	u32 total = 28 + udp_payload, len = 14 + total, crc, i;
	struct rdma_packet p = sample(OP_SEND_ONLY, NULL, 0);
	struct rdma_frame f;

	assert_int_equal(rdma_encode(&p, &f), 0);
	memcpy(wire, f.head, f.head_len);
	put_be16(wire + 16, total);
	put_be16(wire + 38, total - 20);
	wire[43] = flags;
	put_be16(wire + 24, 0);
	for (crc = 0, i = 14; i < 34; i += 2)
		crc += be16(wire + i);
	crc = (crc & 0xffff) + (crc >> 16);
	put_be16(wire + 24, ~(crc + (crc >> 16)));
	memcpy(masked, wire, sizeof(wire));
	memset(masked + 6, 0xff, 8);
	masked[15] = masked[22] = masked[24] = masked[25] = masked[40] = masked[41] = 0xff;
	masked[46] = 0xff;
	crc = crc32(0, masked + 6, len - 6 - 4);
	for (i = 0; i < 4; i++)
		wire[len - 4 + i] = (u8)(crc >> 8 * i);
	return rdma_decode(&p, wire, len);
}

static void test_pad(void **state)
{
	struct rdma_packet p;
	struct rdma_frame f;
	u32 n, i;

	assert_int_equal(decode_sized(16, 0), 0);
	assert_int_equal(decode_sized(20, 0), 0);
	assert_int_equal(decode_sized(20, 0x30), 0);
	assert_int_equal(decode_sized(16, 0x10), ERR_INVAL);
	for (n = 17; n < 20; n++)
		assert_int_equal(decode_sized(n, 0), ERR_INVAL);
	/* The pad that goes out is zero. */
	for (n = 1; n < 4; n++) {
		memset(&f, 0xff, sizeof(f));
		p = sample(OP_SEND_ONLY, (const u8 *)"abcd", n);
		assert_int_equal(rdma_encode(&p, &f), 0);
		assert_int_equal(f.tail_len, 8 - n);
		for (i = 0; i < 4 - n; i++)
			assert_int_equal(f.tail[i], 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_captures), cmocka_unit_test(test_every_bit),
		cmocka_unit_test(test_fields),	 cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_refusals), cmocka_unit_test(test_pad),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
