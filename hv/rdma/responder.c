/* The responder of a reliable connection: IBTA 9.7.4 (validation), 9.7.5 (answers). */
#include "lib/string.h"
#include "rdma/qp_internal.h"

void responder_init(struct rdma_qp *qp)
{
	qp->resp.expected_psn = qp->config.recv_psn;
}

int rdma_post_receive(struct rdma_qp *qp, const struct rdma_receive *receive)
{
	struct rdma_responder *resp = &qp->resp;

	if (qp->state != RDMA_QP_READY)
		return ERR_IO;
	if (resp->tail - resp->head == RDMA_RECV_MAX)
		return ERR_BUSY;
	resp->ring[resp->tail++ % RDMA_RECV_MAX] = *receive;
	return 0;
}

bool rdma_poll_receive(struct rdma_qp *qp, struct rdma_completion *c)
{
	struct rdma_responder *resp = &qp->resp;

	if (resp->head == resp->used)
		return false;
	*c = resp->done[resp->head++ % RDMA_RECV_MAX];
	return true;
}

static void complete_receive(struct rdma_responder *resp, enum rdma_status status, u32 length,
			     const u32 *imm)
{
	u32 slot = resp->used++ % RDMA_RECV_MAX;

	resp->done[slot] = (struct rdma_completion){
		.id = resp->ring[slot].id,
		.status = status,
		.length = length,
		.imm = imm ? *imm : 0,
		.has_imm = imm != NULL,
	};
}

void responder_fail(struct rdma_qp *qp)
{
	while (qp->resp.used != qp->resp.tail)
		complete_receive(&qp->resp, RDMA_FLUSHED, 0, NULL);
}

static struct rdma_response *response_at(struct rdma_responder *resp, u32 index)
{
	return &resp->queue[index % RDMA_RESPONSE_MAX];
}

/* NULL if there is no room: the peer repeats what gets no answer. */
static struct rdma_response *response_add(struct rdma_responder *resp)
{
	if (resp->queue_tail - resp->queue_head == RDMA_RESPONSE_MAX)
		return NULL;
	return response_at(resp, resp->queue_tail++);
}

/* Of two acknowledgements in a row the later says all. */
static void answer(struct rdma_responder *resp, u8 syndrome, u32 psn)
{
	struct rdma_response *r = NULL;

	if (resp->queue_head != resp->queue_tail)
		r = response_at(resp, resp->queue_tail - 1);
	if (!r || r->kind != RESPONSE_ACK || (r->syndrome & AETH_KIND) != AETH_ACK)
		r = response_add(resp);
	if (r)
		*r = (struct rdma_response){
			.kind = RESPONSE_ACK, .syndrome = syndrome, .psn = psn, .msn = resp->msn};
}

/* The packet expected cannot be executed, and what follows it is not looked at. */
static void refuse(struct rdma_qp *qp, u8 syndrome)
{
	answer(&qp->resp, syndrome, qp->resp.expected_psn);
	qp->resp.nak_sent = true;
	if ((syndrome & AETH_KIND) == AETH_RNR)
		return;
	qp->state = RDMA_QP_ERROR;
	requester_fail(qp, RDMA_FLUSHED);
	responder_fail(qp);
}

static void refuse_not_ready(struct rdma_qp *qp)
{
	refuse(qp, AETH_RNR | qp->config.rnr_timer);
}

static bool queue_read(struct rdma_qp *qp, const struct rdma_packet *p, u32 msn)
{
	struct rdma_response *r = response_add(&qp->resp);

	if (!r)
		return false;
	*r = (struct rdma_response){
		.kind = RESPONSE_READ,
		.syndrome = AETH_NO_CREDIT,
		.psn = p->psn,
		.msn = msn,
		.packets = rdma_packets(qp, p->reth.length),
		.rkey = p->reth.rkey,
		.length = p->reth.length,
		.va = p->reth.va,
	};
	return true;
}

/* READs that are not answered yet, and the one with `psn` if it is among them. */
static u32 pending_reads(struct rdma_responder *resp, u32 psn, struct rdma_response **same)
{
	u32 i, n = 0;

	*same = NULL;
	for (i = resp->queue_head; i != resp->queue_tail; i++) {
		struct rdma_response *r = response_at(resp, i);

		if (r->kind != RESPONSE_READ)
			continue;
		n++;
		if (r->psn == psn)
			*same = r;
	}
	return n;
}

/*
 * Seen before. Writes and sends are acknowledged again, up to the newest; READs are executed again,
 * with the memory of now, unless what is repeated was never asked for (IBTA 9.7.5.1.4).
 */
static void duplicate(struct rdma_qp *qp, const struct rdma_packet *p)
{
	struct rdma_responder *resp = &qp->resp;
	struct rdma_response *same;
	u32 reads;

	qp->stats.duplicates++;
	if (p->opcode != OP_READ_REQUEST) {
		if (p->ack_request)
			answer(resp, AETH_NO_CREDIT, psn_add(resp->expected_psn, PSN_MASK));
		return;
	}
	if (p->reth.length > RDMA_MESSAGE_MAX ||
	    psn_diff(psn_add(p->psn, rdma_packets(qp, p->reth.length)), resp->expected_psn) > 0) {
		qp->stats.dropped++;
		return;
	}
	reads = pending_reads(resp, p->psn, &same);
	if (same && same->length == p->reth.length && same->va == p->reth.va &&
	    same->rkey == p->reth.rkey)
		same->sent = 0;
	else if (same || reads >= 2u * qp->config.responder_resources ||
		 !queue_read(qp, p, resp->msn))
		qp->stats.dropped++;
}

static void read_request(struct rdma_qp *qp, const struct rdma_packet *p)
{
	struct rdma_responder *resp = &qp->resp;
	u32 length = p->reth.length;
	struct rdma_response *same;

	if (length > RDMA_MESSAGE_MAX || !qp->config.responder_resources) {
		refuse(qp, NAK_INVALID);
		return;
	}
	if (length &&
	    !rdma_region_find(&qp->regions, p->reth.rkey, p->reth.va, length, RDMA_REMOTE_READ)) {
		refuse(qp, NAK_REMOTE_ACCESS);
		return;
	}
	/* Repeated READs that nobody waits for may hold places: as if lost, not as an error. */
	if (pending_reads(resp, p->psn, &same) >= 2u * qp->config.responder_resources) {
		qp->stats.dropped++;
		return;
	}
	if (!queue_read(qp, p, psn_add(resp->msn, 1))) {
		qp->stats.dropped++;
		return;
	}
	resp->msn = psn_add(resp->msn, 1);
	resp->expected_psn = psn_add(resp->expected_psn, rdma_packets(qp, length));
	resp->nak_sent = false;
}

/* Sizes that the opcode allows, IBTA 9.7.4.1.6 (length). */
static bool length_fits(const struct rdma_qp *qp, const struct rdma_packet *p, u32 flags)
{
	if (!(flags & OPF_LAST))
		return p->payload_len == qp->config.mtu;
	return p->payload_len <= qp->config.mtu && (p->payload_len || flags & OPF_FIRST);
}

/* Stores a SEND's packet; false: refused. */
static bool take_send(struct rdma_qp *qp, const struct rdma_packet *p, u32 flags)
{
	struct rdma_responder *resp = &qp->resp;
	const struct rdma_receive *r = &resp->ring[resp->used % RDMA_RECV_MAX];

	if (flags & OPF_FIRST)
		resp->received = 0;
	if (resp->used == resp->tail) {
		refuse_not_ready(qp);
		return false;
	}
	if (p->payload_len > r->length - resp->received) {
		complete_receive(resp, RDMA_RECV_TOO_SHORT, 0, NULL);
		refuse(qp, NAK_INVALID);
		return false;
	}
	if (p->payload_len)
		memcpy((u8 *)r->data + resp->received, p->payload, p->payload_len);
	resp->received += p->payload_len;
	return true;
}

static bool take_write(struct rdma_qp *qp, const struct rdma_packet *p, u32 flags)
{
	struct rdma_responder *resp = &qp->resp;
	u64 va = flags & OPF_FIRST ? p->reth.va : resp->va;
	u32 rkey = flags & OPF_FIRST ? p->reth.rkey : resp->rkey;
	u32 left = flags & OPF_FIRST ? p->reth.length : resp->left;
	u32 len = p->payload_len;
	u8 *to;

	/* The RETH's length is what all packets bring, no less and no more. */
	if (left > RDMA_MESSAGE_MAX || (flags & OPF_LAST ? len != left : len >= left)) {
		refuse(qp, NAK_INVALID);
		return false;
	}
	to = left ? rdma_region_find(&qp->regions, rkey, va, left, RDMA_REMOTE_WRITE) : NULL;
	if (left && !to) {
		refuse(qp, NAK_REMOTE_ACCESS);
		return false;
	}
	if (flags & OPF_IMM && resp->used == resp->tail) {
		refuse_not_ready(qp);
		return false;
	}
	if (len)
		memcpy(to, p->payload, len);
	resp->received = flags & OPF_FIRST ? len : resp->received + len;
	resp->va = va + len;
	resp->rkey = rkey;
	resp->left = left - len;
	return true;
}

static void message_packet(struct rdma_qp *qp, const struct rdma_packet *p, u32 flags)
{
	struct rdma_responder *resp = &qp->resp;
	u32 kind = flags & (OPF_SEND | OPF_WRITE);

	if (resp->message != (flags & OPF_FIRST ? 0 : kind) || !length_fits(qp, p, flags)) {
		refuse(qp, NAK_INVALID);
		return;
	}
	if (!(kind == OPF_SEND ? take_send(qp, p, flags) : take_write(qp, p, flags)))
		return;
	resp->message = flags & OPF_LAST ? 0 : kind;
	resp->expected_psn = psn_add(resp->expected_psn, 1);
	resp->nak_sent = false;
	if (flags & OPF_LAST) {
		resp->msn = psn_add(resp->msn, 1);
		if (kind == OPF_SEND || flags & OPF_IMM)
			complete_receive(resp, RDMA_OK, resp->received,
					 flags & OPF_IMM ? &p->imm : NULL);
	}
	if (p->ack_request)
		answer(resp, AETH_NO_CREDIT, p->psn);
}

void responder_receive(struct rdma_qp *qp, const struct rdma_packet *p)
{
	struct rdma_responder *resp = &qp->resp;
	s32 ahead = psn_diff(p->psn, resp->expected_psn);

	if (ahead < 0) {
		duplicate(qp, p);
	} else if (ahead > 0) {
		if (!resp->nak_sent)
			answer(resp, NAK_SEQUENCE, resp->expected_psn);
		resp->nak_sent = true;
	} else if (p->opcode == OP_READ_REQUEST) {
		if (resp->message)
			refuse(qp, NAK_INVALID);
		else
			read_request(qp, p);
	} else {
		message_packet(qp, p, rdma_op_flags(p->opcode));
	}
}

static u8 read_opcode(bool first, bool last)
{
	if (first)
		return last ? OP_READ_ONLY : OP_READ_FIRST;
	return last ? OP_READ_LAST : OP_READ_MIDDLE;
}

/* The next packet of a READ's response; false: the memory may not be read any more. */
static bool read_packet(struct rdma_qp *qp, struct rdma_response *r, struct rdma_packet *p)
{
	u32 offset = r->sent * qp->config.mtu;
	bool last = r->sent + 1 == r->packets;

	p->opcode = read_opcode(r->sent == 0, last);
	p->payload_len = last ? r->length - offset : qp->config.mtu;
	if (!p->payload_len)
		return true;
	p->payload = rdma_region_find(&qp->regions, r->rkey, r->va + offset, p->payload_len,
				      RDMA_REMOTE_READ);
	return p->payload != NULL;
}

bool responder_transmit(struct rdma_qp *qp, struct rdma_packet *p)
{
	struct rdma_responder *resp = &qp->resp;
	struct rdma_response *r = response_at(resp, resp->queue_head);

	if (resp->queue_head == resp->queue_tail)
		return false;
	p->psn = psn_add(r->psn, r->sent);
	p->aeth.syndrome = r->syndrome;
	p->aeth.msn = r->msn;
	if (r->kind == RESPONSE_ACK) {
		p->opcode = OP_ACK;
		resp->queue_head++;
		return true;
	}
	if (read_packet(qp, r, p)) {
		if (++r->sent == r->packets)
			resp->queue_head++;
		return true;
	}
	/* The region went away after the request had been accepted. */
	p->opcode = OP_ACK;
	p->payload_len = 0;
	p->aeth.syndrome = NAK_REMOTE_ACCESS;
	resp->queue_head = resp->queue_tail;
	qp->state = RDMA_QP_ERROR;
	requester_fail(qp, RDMA_FLUSHED);
	responder_fail(qp);
	return true;
}
