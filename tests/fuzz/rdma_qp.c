/*
 * A QP whose peer says anything at any time, while its owner posts, fetches and lets time pass.
 * Packets are made of the input with PSNs near those that matter, as valid ones are rare otherwise.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/panic.h"
#include "rdma/qp.h"
#include "rdma/take.h"

#define VA	0x10000ull
#define RW_SIZE 6000u
#define RO_SIZE 300u
#define RW_KEY	0xabcd00u
#define RO_KEY	0xabce01u
#define BUFFER	9000u

struct input {
	const uint8_t *at, *end;
};

static u32 byte(struct input *in)
{
	return in->at < in->end ? *in->at++ : 0;
}

static u32 half(struct input *in)
{
	u32 low = byte(in);

	return low | byte(in) << 8;
}

static void check(const struct rdma_qp *qp)
{
	const struct rdma_requester *req = &qp->req;
	const struct rdma_responder *resp = &qp->resp;

	ASSERT(req->una - req->head <= RDMA_SEND_MAX && req->tail - req->head <= RDMA_SEND_MAX);
	ASSERT(req->tail - req->una <= RDMA_SEND_MAX && req->tail - req->next <= RDMA_SEND_MAX);
	ASSERT(req->next - req->una <= RDMA_SEND_MAX);
	ASSERT(psn_diff(req->sent_psn, req->una_psn) >= 0 || qp->state == RDMA_QP_ERROR);
	ASSERT(psn_diff(req->sent_psn, req->send_psn) >= 0 || qp->state == RDMA_QP_ERROR);
	ASSERT(req->window >= 1 && req->window <= qp->config.window);
	ASSERT(resp->used - resp->head <= RDMA_RECV_MAX &&
	       resp->tail - resp->used <= RDMA_RECV_MAX);
	ASSERT(resp->queue_tail - resp->queue_head <= RDMA_RESPONSE_MAX);
	ASSERT(qp->state == RDMA_QP_READY || (req->una == req->tail && resp->used == resp->tail));
}

/*
 * A frame, some of them altered by a bit, both ways: what the short one takes leaves the same as
 * the long one would, and what it does not leaves nothing.
 */
static void deliver(struct rdma_qp *qp, struct input *in, u64 now, const struct rdma_frame *f)
{
	static struct rdma_qp other;
	struct rdma_packet p;
	u32 len = rdma_frame_len(f), flip = byte(in);
	u8 *frame = malloc(len);
	bool taken;

	rdma_frame_copy(f, frame);
	if (flip & 1)
		frame[half(in) % len] ^= (u8)(1u << (flip >> 1 & 7));
	other = *qp;
	taken = rdma_qp_take(&other, now, frame, len - (flip == 255)) != RDMA_OTHER;
	if (!taken)
		ASSERT(memcmp(&other, qp, sizeof(other)) == 0);
	if (rdma_decode(&p, frame, len) == 0)
		rdma_qp_receive(qp, now, &p);
	else
		ASSERT(!taken);
	if (taken)
		ASSERT(memcmp(&other, qp, sizeof(other)) == 0);
	free(frame);
}

/* One packet of the peer's. The payload lies in memory of its own size. */
static void packet(struct rdma_qp *qp, struct input *in, u64 now)
{
	static const u8 opcodes[] = {OP_SEND_FIRST,   OP_SEND_MIDDLE,
				     OP_SEND_LAST,    OP_SEND_LAST_IMM,
				     OP_SEND_ONLY,    OP_SEND_ONLY_IMM,
				     OP_WRITE_FIRST,  OP_WRITE_MIDDLE,
				     OP_WRITE_LAST,   OP_WRITE_LAST_IMM,
				     OP_WRITE_ONLY,   OP_WRITE_ONLY_IMM,
				     OP_READ_REQUEST, OP_READ_FIRST,
				     OP_READ_MIDDLE,  OP_READ_LAST,
				     OP_READ_ONLY,    OP_ACK,
				     OP_ACK,	      OP_UD_SEND_ONLY,
				     OP_CNP};
	static const u32 lengths[] = {0, 1, 255, 256, 257, 512, 4096};
	struct rdma_packet p = {
		.src_ip = qp->config.remote_ip,
		.dst_ip = qp->config.local_ip,
		.pkey = 0xffff,
		.dest_qp = qp->config.local_qpn,
		.opcode = opcodes[byte(in) % sizeof(opcodes)],
	};
	u32 flags = rdma_op_flags(p.opcode), how = byte(in);
	struct rdma_frame f;
	u8 *payload;

	p.ack_request = how & 1;
	p.psn = flags & OPF_RESPONSE ? qp->req.una_psn : qp->resp.expected_psn;
	if (how & 2)
		p.psn = psn_add(p.psn, (u32)(int8_t)byte(in) & PSN_MASK);
	if (how & 4)
		p.psn = psn_add(p.psn, half(in) << 8);
	p.reth.rkey = how & 8 ? RO_KEY : RW_KEY;
	if (how & 16)
		p.reth.rkey = half(in);
	p.reth.va = VA + (how & 32 ? half(in) : 0);
	p.reth.length = how & 64 ? half(in) << (byte(in) & 15) : lengths[byte(in) % 7];
	p.payload_len = flags & OPF_PAYLOAD ? (how & 128 ? half(in) % 4097 : 256) : 0;
	p.aeth.syndrome = (u8)byte(in);
	payload = malloc(p.payload_len + 1);
	memset(payload, 0xee, p.payload_len + 1);
	p.payload = payload + 1; /* not aligned, and ends with its block */
	ASSERT(rdma_encode(&p, &f) == 0);
	deliver(qp, in, now, &f);
	free(payload);
}

static void transmit(struct rdma_qp *qp, u64 now)
{
	struct rdma_frame f;
	struct rdma_packet p;
	u8 wire[RDMA_FRAME_MAX];

	if (rdma_qp_transmit(qp, now, &f))
		ASSERT(rdma_decode(&p, wire, rdma_frame_copy(&f, wire)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct rdma_qp qp;
	struct input in = {data, data + size};
	struct rdma_region region[2] = {
		{malloc(RW_SIZE), VA, RW_SIZE, RW_KEY, RDMA_REMOTE_READ | RDMA_REMOTE_WRITE},
		{calloc(1, RO_SIZE), VA, RO_SIZE, RO_KEY, RDMA_REMOTE_READ},
	};
	struct rdma_regions regions = {region, 2};
	u8 *buffer = calloc(1, BUFFER);
	u8 *inbox = calloc(1, BUFFER);
	u64 now = 1;
	struct rdma_qp_config config = {
		.remote_ip = 1,
		.local_ip = 2,
		.local_qpn = 3,
		.send_psn = 0xffffff - byte(&in),
		.recv_psn = 0x800000 - byte(&in),
		.mtu = 256,
		.timeout = 1,
		.retry_count = 7,
		.rnr_retry = (u8)(byte(&in) & 7),
		.initiator_depth = 4,
		.responder_resources = (u8)(byte(&in) % (RDMA_READ_MAX + 1)),
		.window = 1 + byte(&in) % 64,
	};
	struct rdma_completion c;
	u32 i;

	memset(region[0].base, 0, RW_SIZE);
	ASSERT(rdma_qp_init(&qp, &config, &regions) == 0);
	while (in.at < in.end) {
		u32 what = byte(&in);

		switch (what & 7) {
		case 0: {
			struct rdma_work w = {.op = (enum rdma_operation)((what >> 3) % 5),
					      .fence = what & 128,
					      .length = half(&in) % BUFFER};

			w.data = w.op == RDMA_READ ? inbox : buffer;
			rdma_post(&qp, &w);
			break;
		}
		case 1: {
			struct rdma_receive r = {0, inbox, half(&in) % BUFFER};

			rdma_post_receive(&qp, &r);
			break;
		}
		case 2:
			while (rdma_poll_send(&qp, &c) || rdma_poll_receive(&qp, &c))
				;
			break;
		case 3:
			now += half(&in) << (what >> 4);
			break;
		case 4:
		case 5:
			for (i = 0; i <= what >> 3; i++)
				transmit(&qp, now);
			break;
		default:
			packet(&qp, &in, now);
			break;
		}
		check(&qp);
	}
	for (i = 0; i < RO_SIZE; i++)
		ASSERT(region[1].base[i] == 0); /* nobody may write there */
	for (i = 0; i < BUFFER; i++)
		ASSERT(buffer[i] == 0); /* only sent */
	rdma_qp_close(&qp);
	check(&qp);
	free(region[0].base);
	free(region[1].base);
	free(buffer);
	free(inbox);
	return 0;
}
