/*
 * A memory node among hostile hosts: three addresses send it anything at any time, some of it made
 * with knowledge of the node's state, so that every state is reached. Whatever they do, a slice's
 * memory is only written to by the host that has it, nobody reads another's, what the node sends is
 * well-formed, and an honest client gets a slice when all is over.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/panic.h"
#include "rdma/node.h"

#define NODE_IP 0x0a4d0001u /* that of the captures whose frames are seeds */
#define SLICES	3u
#define SLICE	PAGE_SIZE
#define HOSTS	3u
#define TOKEN	"sesame"

struct input {
	const uint8_t *at, *end;
};

struct host {
	u32 remote_id, remote_qpn; /* of the node's last REP */
	u32 local_id;
};

struct world {
	struct node node;
	struct host host[HOSTS + 1]; /* the last is the honest one */
	u8 *memory;
	u64 now;
	bool honest; /* the honest one's answers are watched */
	bool accepted;
};

static struct world w;

static u32 byte(struct input *in)
{
	return in->at < in->end ? *in->at++ : 0;
}

static u32 half(struct input *in)
{
	u32 low = byte(in);

	return low | byte(in) << 8;
}

static u32 host_ip(u32 n)
{
	return NODE_IP + 1 + n;
}

/* Which host's bytes these are: every host writes its own number only. */
static void check_memory(void)
{
	u32 s, i;

	for (s = 0; s < SLICES; s++) {
		const struct node_slice *slice = &w.node.slice[s];
		const u64 *word = (const u64 *)(w.memory + s * SLICE);
		u64 whose = (slice->client_ip - NODE_IP) * 0x0101010101010101ull;

		/* A write may end within a word. */
		for (i = 0; i < SLICE / 8; i++)
			ASSERT(!(word[i] & ~whose) && (!word[i] || slice->client_ip));
	}
}

/* When a slice changes hands the old content stays; the check begins anew. */
static void forget(void)
{
	static u32 owner[SLICES];
	u32 s;

	for (s = 0; s < SLICES; s++) {
		if (owner[s] != w.node.slice[s].client_ip)
			memset(w.memory + s * SLICE, 0, SLICE);
		owner[s] = w.node.slice[s].client_ip;
	}
}

static void deliver(struct rdma_packet *p)
{
	u8 wire[RDMA_FRAME_MAX], *frame;
	struct rdma_frame f;
	u32 len;

	p->dst_ip = NODE_IP;
	p->pkey = 0xffff;
	if (rdma_encode(p, &f))
		return;
	len = rdma_frame_copy(&f, wire);
	frame = malloc(len); /* of its own size, for ASan */
	memcpy(frame, wire, len);
	node_receive(&w.node, w.now, frame, len);
	free(frame);
	forget();
	if (p->dest_qp != CM_QPN)
		check_memory();
}

static void send_cm(u32 from, const struct cm_message *m)
{
	u8 mad[CM_MAD_SIZE];
	struct rdma_packet p = {.opcode = OP_UD_SEND_ONLY,
				.src_ip = host_ip(from),
				.dest_qp = CM_QPN,
				.deth = {CM_QKEY, CM_QPN},
				.payload = mad,
				.payload_len = CM_MAD_SIZE};

	if (cm_encode(m, mad) == 0)
		deliver(&p);
}

static struct cm_message request(u32 from, u32 number, u16 slice)
{
	struct cm_ip_header ip = {1000, host_ip(from), NODE_IP};
	struct node_request r;
	u8 token[NODE_TOKEN] = TOKEN;
	struct cm_message m = {
		.attribute = CM_REQ,
		.tid = number,
		.local_id = number + 1,
		.service_id = CM_SERVICE_TCP | NODE_PORT,
		.guid = from,
		.qpn = 0x100 + number,
		.psn = number * 0x1234,
		.initiator_depth = 4,
		.mtu = 1,
		.pkey = 0xffff,
		.retry_count = 2,
		.rnr_retry = 1,
		.ack_timeout = (u8)(number % 20),
	};

	w.host[from].local_id = m.local_id;
	node_request_encode(&r, slice, token);
	put_be64(r.client, number % 3);
	cm_gid_from_ip(m.local_gid, host_ip(from));
	cm_gid_from_ip(m.remote_gid, NODE_IP);
	cm_ip_encode(&ip, m.private_data);
	memcpy(m.private_data + CM_IP_HEADER, &r, sizeof(r));
	return m;
}

/* One message, of which the input changes what it likes. */
static void message(struct input *in, u32 from)
{
	static const u16 attributes[] = {CM_REQ, CM_REQ, CM_REP,  CM_RTU,
					 CM_REJ, CM_MRA, CM_DREQ, CM_DREP};
	u32 what = byte(in), how = byte(in);
	struct cm_message m = request(from, byte(in) % 16, (u16)(how & 1 ? half(in) % 5 : 0xffff));

	m.attribute = attributes[what % 8];
	m.remote_id = w.host[from].remote_id;
	if (m.attribute == CM_DREQ)
		m.qpn = w.host[from].remote_qpn;
	if (how & 2)
		m.remote_id = w.host[byte(in) % HOSTS].remote_id;
	if (how & 4)
		m.mtu = (u8)byte(in) & 15;
	if (how & 8)
		m.private_data[byte(in) % CM_REQ_PRIVATE] ^= (u8)byte(in);
	if (how & 16)
		m.initiator_depth = m.responder_resources = (u8)byte(in);
	if (how & 32)
		m.rnr_retry = m.retry_count = (u8)byte(in) & 7;
	if (how & 64)
		m.qpn = half(in) << 8 | byte(in);
	if (how & 128)
		m.service_timeout = m.ack_timeout = (u8)byte(in) & 31;
	send_cm(from, &m);
}

/* One packet to a slice's QP, or some other, with a PSN near what it expects. */
static void packet(struct input *in, u32 from)
{
	static const u8 opcodes[] = {
		OP_SEND_FIRST,	 OP_SEND_ONLY,	  OP_WRITE_FIRST, OP_WRITE_MIDDLE,
		OP_WRITE_LAST,	 OP_WRITE_ONLY,	  OP_WRITE_ONLY,  OP_WRITE_LAST_IMM,
		OP_READ_REQUEST, OP_READ_REQUEST, OP_READ_ONLY,	  OP_READ_FIRST,
		OP_ACK,		 OP_ACK,	  OP_CNP,	  OP_UD_SEND_ONLY};
	static const u32 lengths[] = {0, 1, 256, 257, 512, 4096, 8192, 8193};
	const struct node_slice *s = &w.node.slice[byte(in) % SLICES];
	u32 how = byte(in);
	u8 payload[RDMA_MTU_MAX];
	struct rdma_packet p = {
		.src_ip = host_ip(from),
		.opcode = opcodes[byte(in) % sizeof(opcodes)],
		.dest_qp = s->qp.config.local_qpn,
		.ack_request = how & 1,
		.payload = payload,
	};
	u32 flags = rdma_op_flags(p.opcode);

	p.psn = flags & OPF_RESPONSE ? s->qp.req.una_psn : s->qp.resp.expected_psn;
	if (how & 2)
		p.psn = psn_add(p.psn, (u32)(int8_t)byte(in) & PSN_MASK);
	if (how & 4)
		p.dest_qp = half(in);
	/* The keys of all slices are known, even to those whom they were not given. */
	p.reth.rkey =
		w.node.slice[how & 8 ? byte(in) % SLICES : (u32)(s - w.node.slice)].region.rkey;
	if (how & 16)
		p.reth.rkey ^= byte(in);
	p.reth.va = s->region.va + (how & 32 ? half(in) : 0);
	if (how & 64)
		p.reth.va = w.node.slice[byte(in) % SLICES].region.va - byte(in);
	p.reth.length = how & 128 ? half(in) << (byte(in) & 15) : lengths[byte(in) % 8];
	p.payload_len = flags & OPF_PAYLOAD ? lengths[byte(in) % 6] : 0;
	p.aeth.syndrome = (u8)byte(in);
	memset(payload, (int)from + 1, sizeof(payload));
	deliver(&p);
}

/* What the node says to a host: remembered, and its READ responses hold that host's bytes only. */
static void hear(const struct rdma_packet *p)
{
	u32 n = p->dst_ip - NODE_IP - 1, i;
	struct cm_message m;

	ASSERT(p->src_ip == NODE_IP && n <= HOSTS); /* number n writes n + 1 */
	if (p->opcode == OP_UD_SEND_ONLY) {
		ASSERT(cm_decode(&m, p->payload, p->payload_len) == 0);
		if (m.attribute != CM_REP || m.remote_id != w.host[n].local_id)
			return;
		w.host[n].remote_id = m.local_id;
		w.host[n].remote_qpn = m.qpn;
		w.accepted |= n == HOSTS;
		return;
	}
	for (i = 0; i < p->payload_len; i++)
		ASSERT(!p->payload[i] || p->payload[i] == n + 1);
}

static void transmit(u32 frames)
{
	u8 wire[RDMA_FRAME_MAX];
	struct rdma_packet p;
	struct rdma_frame f;

	while (frames-- && node_transmit(&w.node, w.now, &f)) {
		ASSERT(rdma_decode(&p, wire, rdma_frame_copy(&f, wire)) == 0);
		hear(&p);
	}
	forget();
}

/* Connects as one should. */
static void connect(u32 from, u32 number)
{
	struct cm_message m = request(from, number, NODE_ANY_SLICE);

	send_cm(from, &m);
	transmit(20);
	m.attribute = CM_RTU;
	m.remote_id = w.host[from].remote_id;
	send_cm(from, &m);
}

static void check(void)
{
	u32 i, j;

	for (i = 0; i < SLICES; i++) {
		const struct node_slice *s = &w.node.slice[i];

		ASSERT(!s->c || (s->c->owner == i + 1 && s->c->state != CM_FREE));
		ASSERT(!s->c || s->c->remote_ip == s->client_ip);
		for (j = 0; j < i; j++)
			ASSERT(!s->c || !w.node.slice[j].c ||
			       s->qp.config.local_qpn != w.node.slice[j].qp.config.local_qpn);
	}
}

static void step(struct input *in)
{
	u32 what = byte(in), from = what >> 3 & 3;
	u8 raw[512];
	size_t n;

	from %= HOSTS;
	switch (what & 7) {
	case 0:
	case 1:
		message(in, from);
		break;
	case 2:
		connect(from, byte(in) % 16);
		break;
	case 3:
		w.now += (u64)half(in) << (what >> 3);
		break;
	case 4:
		n = 2 * byte(in);
		n = MIN(n, (size_t)(in->end - in->at));
		memcpy(raw, in->at, n);
		in->at += n;
		node_receive(&w.node, w.now, raw, n);
		break;
	case 5:
		transmit(byte(in));
		break;
	default:
		packet(in, from);
		break;
	}
	check();
}

/* All hosts are silent now: their slices become free, and somebody else can have one. */
static void recover(void)
{
	u32 i;

	w.accepted = false;
	for (i = 0; i < 50 && !w.accepted; i++) {
		w.now += 5000000000; /* longer than any time-out */
		transmit(1000);
		connect(HOSTS, 100 + i);
	}
	ASSERT(w.accepted);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, data + size};
	struct node_config config = {.mac = {2},
				     .ip = NODE_IP,
				     .port = NODE_PORT,
				     .length = SLICES * SLICE,
				     .slices = SLICES,
				     .entropy = 1 + byte(&in),
				     .token = TOKEN};

	memset(&w, 0, sizeof(w));
	w.now = 1;
	w.memory = calloc(1, SLICES * SLICE);
	config.memory = w.memory;
	ASSERT(node_init(&w.node, &config) == 0);
	while (in.at < in.end)
		step(&in);
	recover();
	free(w.memory);
	return 0;
}
