#include "rdma/qp.h"

#include "lib/string.h"
#include "rdma/qp_internal.h"

#define TTL	     64
#define DEFAULT_PKEY 0xffff
#define PKEY_MASK    0x7fff /* the top bit says full or limited member */
#define HEADERS                                                                       \
	(u32)(sizeof(struct ipv4_hdr) + sizeof(struct udp_hdr) + sizeof(struct bth) + \
	      ROCE_ICRC_SIZE)
#define CNP_INTERVAL 50000 /* ns between two congestion notifications to one peer */

u64 rdma_rnr_time(u8 code)
{
	/* In units of 10 us. */
	static const u16 units[32] = {
		0,    1,    2,	  3,	4,    6,     8,	    12,	   16,	  24,	 32,
		48,   64,   96,	  128,	192,  256,   384,   512,   768,	  1024,	 1536,
		2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152,
	};

	code &= AETH_VALUE;
	return (code ? units[code] : 65536) * 10000ull;
}

u8 *rdma_region_find(const struct rdma_regions *regions, u32 rkey, u64 va, u64 len, u8 access)
{
	const struct rdma_region *r;

	if ((rkey & 0xff) >= regions->count)
		return NULL;
	r = &regions->table[rkey & 0xff];
	/* A `va` before the region is far behind it, as the difference wraps. */
	if (!r->access || r->rkey != rkey || (r->access & access) != access ||
	    va - r->va > r->length || len > r->length - (va - r->va))
		return NULL;
	return r->base + (va - r->va);
}

static bool config_valid(const struct rdma_qp_config *c)
{
	return (c->mtu == 256 || c->mtu == 512 || c->mtu == 1024 || c->mtu == 2048 ||
		c->mtu == 4096) &&
	       c->timeout < 32 && c->retry_count < 8 && c->rnr_retry < 8 && c->rnr_timer < 32 &&
	       c->initiator_depth <= RDMA_READ_MAX && c->responder_resources <= RDMA_READ_MAX &&
	       c->window && c->window <= PSN_SPAN && c->local_qpn <= PSN_MASK &&
	       c->remote_qpn <= PSN_MASK && c->send_psn <= PSN_MASK && c->recv_psn <= PSN_MASK;
}

static void init_expected(struct rdma_qp *qp);

static void init_template(struct rdma_qp *qp)
{
	struct rdma_packet p = {
		.dst_ip = qp->config.remote_ip,
		.src_ip = qp->config.local_ip,
		.ttl = TTL,
		.dont_fragment = true,
		.src_port = qp->config.src_port,
		.pkey = DEFAULT_PKEY,
		.dest_qp = qp->config.remote_qpn,
	};

	memcpy(p.dst_mac, qp->config.remote_mac, sizeof(p.dst_mac));
	memcpy(p.src_mac, qp->config.local_mac, sizeof(p.src_mac));
	rdma_template_init(&qp->template, &p);
}

int rdma_qp_init(struct rdma_qp *qp, const struct rdma_qp_config *config,
		 const struct rdma_regions *regions)
{
	memset(qp, 0, sizeof(*qp));
	if (!config_valid(config) || regions->count > 256)
		return ERR_INVAL;
	qp->config = *config;
	qp->regions = *regions;
	init_template(qp);
	init_expected(qp);
	requester_init(qp);
	responder_init(qp);
	qp->state = RDMA_QP_READY;
	return 0;
}

void rdma_qp_close(struct rdma_qp *qp)
{
	if (qp->state == RDMA_QP_READY) {
		qp->state = RDMA_QP_ERROR;
		requester_fail(qp, RDMA_FLUSHED);
		responder_fail(qp);
	}
	qp->resp.queue_head = qp->resp.queue_tail;
}

void rdma_qp_receive(struct rdma_qp *qp, u64 now, const struct rdma_packet *p)
{
	u32 flags = rdma_op_flags(p->opcode);

	if (qp->state != RDMA_QP_READY || p->dest_qp != qp->config.local_qpn ||
	    p->src_ip != qp->config.remote_ip || p->dst_ip != qp->config.local_ip ||
	    ((p->pkey ^ DEFAULT_PKEY) & PKEY_MASK)) {
		qp->stats.dropped++;
		return;
	}
	qp->stats.rx_packets++;
	if ((p->tos & IPV4_ECN) == IPV4_CE && !(flags & OPF_CNP) && now >= qp->cnp_after) {
		qp->cnp_due = true;
		qp->cnp_after = now + CNP_INTERVAL;
	}
	if (flags & OPF_REQUEST)
		responder_receive(qp, p);
	else if (flags & OPF_RESPONSE)
		requester_receive(qp, now, p);
	else if (p->opcode == OP_CNP)
		requester_cnp(qp);
	else
		qp->stats.dropped++;
}

/* --- the expected response ------------------------------------------------------------------ */

/* The opcode of a READ's response `index`. */
static inline u8 response_opcode(u32 index, bool last)
{
	if (last)
		return index ? OP_READ_LAST : OP_READ_ONLY;
	return index ? OP_READ_MIDDLE : OP_READ_FIRST;
}

#define IP_AT(member)  offsetof(struct ipv4_hdr, member)
#define UDP_AT(member) (sizeof(struct ipv4_hdr) + offsetof(struct udp_hdr, member))
#define BTH_AT(member) (UDP_AT(src) + sizeof(struct udp_hdr) + offsetof(struct bth, member))
#define BTH_END	       BTH_AT(opcode) + sizeof(struct bth)
#define TWO(at)	       [at] = 0xff, [(at) + 1] = 0xff
#define FOUR(at)       TWO(at), TWO((at) + 2)

/* Which bits these are. The rest is checked by itself, or does not matter. */
static const union {
	u8 bytes[40];
	u64 word[5];
} expected_mask = {.bytes = {
			   [IP_AT(version_ihl)] = 0xff,
			   [IP_AT(tos)] = 0x01, /* of ECN: congestion is for the long way */
			   [IP_AT(fragment)] = IPV4_FRAGMENT >> 8,
			   [IP_AT(fragment) + 1] = IPV4_FRAGMENT & 0xff,
			   [IP_AT(protocol)] = 0xff,
			   FOUR(IP_AT(src)),
			   FOUR(IP_AT(dst)),
			   TWO(UDP_AT(dst)),
			   [BTH_AT(flags)] = BTH_PAD_MASK | BTH_VERSION,
			   [BTH_AT(pkey)] = PKEY_MASK >> 8,
			   [BTH_AT(pkey) + 1] = PKEY_MASK & 0xff,
			   TWO(BTH_AT(dest_qp)),
			   [BTH_AT(dest_qp) + 2] = 0xff,
		   }};

_Static_assert(BTH_AT(psn) < sizeof(expected_mask) && BTH_AT(psn) + 3 == sizeof(expected_mask),
	       "up to the PSN");

static void init_expected(struct rdma_qp *qp)
{
	u8 at[sizeof(expected_mask)] = {0};
	u32 i;

	at[IP_AT(version_ihl)] = 0x45;
	at[IP_AT(protocol)] = IPV4_PROTO_UDP;
	put_be32(at + IP_AT(src), qp->config.remote_ip);
	put_be32(at + IP_AT(dst), qp->config.local_ip);
	put_be16(at + UDP_AT(dst), ROCE_UDP_PORT);
	put_be16(at + BTH_AT(pkey), DEFAULT_PKEY);
	put_be24(at + BTH_AT(dest_qp), qp->config.local_qpn);
	memcpy(&qp->expected, at, sizeof(at));
	for (i = 0; i < ARRAY_SIZE(qp->expected.word); i++)
		qp->expected.word[i] &= expected_mask.word[i];
}

/* All that does not depend on what the packet is. */
static bool headers_as_expected(const struct rdma_qp *qp, const u8 *datagram)
{
	u64 word, other = 0;
	u32 i;

#pragma GCC unroll 5
	for (i = 0; i < ARRAY_SIZE(qp->expected.word); i++) {
		__builtin_memcpy(&word, datagram + i * sizeof(word), sizeof(word));
		other |= (word & expected_mask.word[i]) ^ qp->expected.word[i];
	}
	return likely(!other) && likely(rdma_ipv4_sum_right(datagram));
}

/* Of `left` bytes, which are there, the datagram has `len`, and they have come unaltered. */
static inline bool whole(const u8 *frame, size_t left, u32 len)
{
	const u8 *datagram = frame + sizeof(struct eth_hdr);

	return likely(left >= len) && likely(be16(datagram + IP_AT(length)) == len) &&
	       likely(be16(datagram + UDP_AT(length)) == len - sizeof(struct ipv4_hdr)) &&
	       likely(rdma_icrc_right(frame, len));
}

static bool take_response(struct rdma_qp *qp, u64 now, const u8 *frame, size_t left, u8 opcode)
{
	struct rdma_requester *req = &qp->req;
	struct rdma_send *s = &req->ring[req->una % RDMA_SEND_MAX];
	u32 want = qp->config.mtu, size = HEADERS;
	bool last = s->received + 1 == s->packets;

	if (unlikely(s->work.op != RDMA_READ || opcode != response_opcode(s->received, last)))
		return false;
	if (last)
		want = s->work.length - s->received * want;
	size += want + (opcode == OP_READ_MIDDLE ? 0 : (u32)sizeof(struct aeth));
	/* Lengths that need padding are rare. */
	if (unlikely(want % 4) || unlikely(!whole(frame, left, size)))
		return false;
	qp->stats.rx_packets++;
	requester_take(qp, now, s, frame + sizeof(struct eth_hdr) + size - ROCE_ICRC_SIZE - want,
		       want, last);
	return true;
}

static bool take_ack(struct rdma_qp *qp, u64 now, const u8 *frame, size_t left, u32 psn)
{
	const struct aeth *aeth = (const struct aeth *)(frame + sizeof(struct eth_hdr) + BTH_END);

	if (unlikely(!whole(frame, left, HEADERS + (u32)sizeof(*aeth))) ||
	    unlikely((aeth->syndrome & AETH_KIND) != AETH_ACK))
		return false;
	qp->stats.rx_packets++;
	requester_acknowledged(qp, now, psn);
	return true;
}

bool rdma_qp_take(struct rdma_qp *qp, u64 now, const u8 *frame, size_t len)
{
	const struct rdma_requester *req = &qp->req;
	const struct eth_hdr *eth = (const struct eth_hdr *)frame;
	const u8 *datagram = frame + sizeof(*eth);
	const struct bth *bth = (const struct bth *)(datagram + BTH_AT(opcode));
	u32 psn;

	if (unlikely(len < sizeof(*eth) + HEADERS) || unlikely(qp->state != RDMA_QP_READY) ||
	    unlikely(be16(eth->type) != ETHERTYPE_IPV4) ||
	    unlikely(!headers_as_expected(qp, datagram)))
		return false;
	psn = bth_psn(bth);
	len -= sizeof(*eth);
	/* Answers to nothing that is open are not expected. */
	if (unlikely(psn_diff(psn, req->una_psn) < 0) ||
	    unlikely(psn_diff(psn, req->sent_psn) >= 0))
		return false;
	if (bth->opcode == OP_ACK)
		return take_ack(qp, now, frame, len, psn);
	return psn == req->una_psn && take_response(qp, now, frame, len, bth->opcode);
}

/* --- transmission --------------------------------------------------------------------------- */

/*
 * Requests and answers take turns, so that a long READ of the peer's holds up neither; a congestion
 * notification (A17.9.3) is before both.
 */
static bool next_packet(struct rdma_qp *qp, u64 now, struct rdma_packet *p)
{
	bool requester = qp->requester_turn;

	if (qp->cnp_due) {
		qp->cnp_due = false;
		qp->stats.tx_cnps++;
		p->opcode = OP_CNP;
		p->congestion = BTH_BECN;
		return true;
	}
	if (requester && requester_transmit(qp, now, p)) {
		qp->requester_turn = false;
		return true;
	}
	if (responder_transmit(qp, p)) {
		qp->requester_turn = true;
		return true;
	}
	return !requester && requester_transmit(qp, now, p);
}

bool rdma_qp_transmit(struct rdma_qp *qp, u64 now, struct rdma_frame *f)
{
	struct rdma_packet p;

	if (rdma_qp_quiet(qp, now))
		return false;
	/* Headers are filled in by those whose opcodes have them. */
	p.solicited = p.ack_request = false;
	p.congestion = 0;
	p.payload = NULL;
	p.payload_len = 0;
	if (!next_packet(qp, now, &p))
		return false;
	p.migrated = true;
	p.ip_id = qp->ip_id++;
	qp->stats.tx_packets++;
	return rdma_encode_as(&qp->template, &p, f) == 0;
}

u64 rdma_qp_deadline(const struct rdma_qp *qp)
{
	const struct rdma_requester *req = &qp->req;

	if (qp->state != RDMA_QP_READY || req->una == req->tail)
		return RDMA_NEVER;
	return req->rnr_until ? req->rnr_until : req->deadline;
}
