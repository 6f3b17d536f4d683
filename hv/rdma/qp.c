#include "rdma/qp.h"

#include "lib/string.h"
#include "rdma/qp_internal.h"

#define TTL	     64
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
	if (qp->resp.queue_head != qp->resp.queue_tail && responder_transmit(qp, p)) {
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
