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
static u8 response_opcode(const struct rdma_send *s, u32 index)
{
	if (index + 1 == s->packets)
		return index ? OP_READ_LAST : OP_READ_ONLY;
	return index ? OP_READ_MIDDLE : OP_READ_FIRST;
}

/* One comparison for a field of the header, in the order in which they lie. */
static bool headers_as_expected(const struct rdma_qp *qp, const u8 *frame, u32 len, u8 opcode)
{
	const struct eth_hdr *eth = (const struct eth_hdr *)frame;
	const struct ipv4_hdr *ip = (const struct ipv4_hdr *)(eth + 1);
	const struct udp_hdr *udp = (const struct udp_hdr *)(ip + 1);
	const struct bth *bth = (const struct bth *)(udp + 1);

	return be16(eth->type) == ETHERTYPE_IPV4 && ip->version_ihl == 0x45 &&
	       (ip->tos & IPV4_ECN) != IPV4_CE && be16(ip->length) == len &&
	       !(be16(ip->fragment) & IPV4_FRAGMENT) && ip->protocol == IPV4_PROTO_UDP &&
	       be32(ip->src) == qp->config.remote_ip && be32(ip->dst) == qp->config.local_ip &&
	       be16(udp->dst) == ROCE_UDP_PORT && be16(udp->length) == len - sizeof(*ip) &&
	       bth->opcode == opcode && !(bth->flags & (BTH_PAD_MASK | BTH_VERSION)) &&
	       !((be16(bth->pkey) ^ DEFAULT_PKEY) & PKEY_MASK) &&
	       bth_dest_qp(bth) == qp->config.local_qpn && bth_psn(bth) == qp->req.una_psn &&
	       rdma_ipv4_sum_right(ip);
}

bool rdma_qp_take_response(struct rdma_qp *qp, u64 now, const u8 *frame, size_t len)
{
	struct rdma_requester *req = &qp->req;
	struct rdma_send *s = &req->ring[req->una % RDMA_SEND_MAX];
	u32 left, want, datagram;
	bool last;
	u8 opcode;

	if (qp->state != RDMA_QP_READY || psn_diff(req->sent_psn, req->una_psn) <= 0 ||
	    s->work.op != RDMA_READ)
		return false;
	left = s->work.length - s->received * qp->config.mtu;
	last = s->received + 1 == s->packets;
	want = last ? left : qp->config.mtu;
	opcode = response_opcode(s, s->received);
	datagram = HEADERS + want + (opcode == OP_READ_MIDDLE ? 0 : (u32)sizeof(struct aeth));
	/* Lengths that need padding are rare. */
	if (want % 4 || len < sizeof(struct eth_hdr) + datagram ||
	    !headers_as_expected(qp, frame, datagram, opcode) || !rdma_icrc_right(frame, datagram))
		return false;
	qp->stats.rx_packets++;
	requester_take(qp, now, s,
		       frame + sizeof(struct eth_hdr) + datagram - ROCE_ICRC_SIZE - want, want,
		       last);
	return true;
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
