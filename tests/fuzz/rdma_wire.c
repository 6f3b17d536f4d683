/*
 * Frames of any content: as they are, and with lengths, checksum and ICRC made right; what decodes
 * encodes again to what means the same. Messages go to an agent whose owner does what there is.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/crc32.h"
#include "lib/panic.h"
#include "rdma/cm.h"

#define PORT 1

/* Writes what depends on the rest; `len` is 58 at least. */
static void correct(u8 *frame, u32 len)
{
	u8 masked[512];
	u32 sum = 0, crc, i;

	memcpy(frame + 12, "\x08\0\x45", 3);
	put_be16(frame + 16, len - 14);
	put_be16(frame + 20, IPV4_DF);
	frame[23] = IPV4_PROTO_UDP;
	put_be16(frame + 24, 0);
	put_be16(frame + 36, ROCE_UDP_PORT);
	put_be16(frame + 38, len - 34);
	for (i = 14; i < 34; i += 2)
		sum += be16(frame + i);
	sum = (sum & 0xffff) + (sum >> 16);
	put_be16(frame + 24, ~(sum + (sum >> 16)));
	memcpy(masked, frame, len);
	memset(masked + 6, 0xff, 8);
	masked[15] = masked[22] = masked[24] = masked[25] = masked[40] = masked[41] = 0xff;
	masked[46] = 0xff;
	crc = crc32(0, masked + 6, len - 6 - 4);
	for (i = 0; i < 4; i++)
		frame[len - 4 + i] = (u8)(crc >> 8 * i);
}

static void again(const struct rdma_packet *p)
{
	struct rdma_packet q;
	struct rdma_frame f;
	u8 wire[RDMA_FRAME_MAX];

	ASSERT(rdma_encode(p, &f) == 0);
	ASSERT(rdma_decode(&q, wire, rdma_frame_copy(&f, wire)) == 0);
	ASSERT(q.opcode == p->opcode && q.psn == p->psn && q.dest_qp == p->dest_qp);
	ASSERT(q.reth.va == p->reth.va && q.reth.length == p->reth.length && q.imm == p->imm);
	ASSERT(q.payload_len == p->payload_len && !memcmp(q.payload, p->payload, q.payload_len));
}

/* The owner of both sides' connections takes each step that the state allows. */
static void own(struct cm_agent *agent, u32 what)
{
	struct cm_offer offer = {.comm_id = 1 + (what >> 4),
				 .qpn = 5,
				 .mtu = 1024,
				 .initiator_depth = 2,
				 .responder_resources = 2};
	struct cm_connection *c = &agent->connection[what >> 4 & 3];
	struct rdma_qp_config config;

	switch (what & 7) {
	case 0:
		cm_accept(c, &offer);
		break;
	case 1:
		cm_establish(c);
		break;
	case 2:
		cm_reject(c, CM_REJ_CONSUMER);
		break;
	case 3:
		cm_disconnect(c);
		break;
	case 4:
		cm_release(c);
		break;
	case 5:
		cm_connect(agent, &offer, 0x01010101, agent->mac, PORT);
		break;
	default:
		if (c->state == CM_ESTABLISHED) {
			cm_qp_config(agent, c, &config);
			ASSERT(config.initiator_depth <= RDMA_READ_MAX);
			ASSERT(config.mtu >= 256 && config.mtu <= 4096);
		}
		break;
	}
}

/* Input: pairs of an owner's step and a message, of which the first bytes are the fuzzer's. */
static void messages(const uint8_t *data, size_t size)
{
	static struct cm_agent agent;
	struct rdma_frame f;
	u64 now = 1;

	cm_init(&agent, (const u8[6]){2}, 0x02020202, 7);
	cm_listen(&agent, PORT);
	while (size >= 4) {
		size_t n = 4u * data[1] < size - 2 ? 4u * data[1] : size - 2;
		u8 mad[CM_MAD_SIZE] = {1, 7, 2, 3};
		struct rdma_packet p = {.opcode = OP_UD_SEND_ONLY,
					.src_ip = 0x01010101,
					.dst_ip = 0x02020202,
					.dest_qp = CM_QPN,
					.deth = {CM_QKEY, CM_QPN},
					.payload = mad,
					.payload_len = CM_MAD_SIZE};
		u32 i;

		if (n > sizeof(mad) - 16)
			n = sizeof(mad) - 16;
		memcpy(mad + 16, data + 2, n);
		/* So that a REQ is one that can be accepted, unless the input says otherwise. */
		if (n < 60) {
			put_be64(mad + 32, CM_SERVICE_TCP | PORT);
			mad[74] = 0x30;
			cm_gid_from_ip(mad + 80, 0x01010101);
			cm_gid_from_ip(mad + 96, 0x02020202);
			mad[165] = 0x40;
		}
		own(&agent, data[0]);
		cm_receive(&agent, now, &p);
		for (i = 0; i < (data[0] & 8 ? 20u : 1u); i++)
			cm_transmit(&agent, now, &f);
		now += 1u << (data[0] & 31);
		data += 2 + n;
		size -= 2 + n;
		ASSERT(agent.reply_tail - agent.reply_head <= CM_REPLIES);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rdma_packet p;
	u8 *frame;

	if (!size)
		return 0;
	if (*data & 1) {
		messages(data + 1, size - 1);
		return 0;
	}
	if (--size > 500)
		size = 500;
	frame = malloc(size ? size : 1);
	memcpy(frame, data + 1, size);
	if (*data & 2 && size >= 58)
		correct(frame, (u32)size);
	if (rdma_decode(&p, frame, size) == 0)
		again(&p);
	free(frame);
	return 0;
}
