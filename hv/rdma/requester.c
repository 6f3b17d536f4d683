/* The requester of a reliable connection: IBTA 9.7.3 (requests), 9.7.5 (acknowledgements). */
#include "lib/string.h"
#include "lib/zmm.h"
#include "rdma/take.h"

#define ASK_EVERY 16u /* packets of a long message between two requests for an acknowledgement */
/* What is always the same; the lengths, opcode and PSN are zero. */
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

void requester_init(struct rdma_qp *qp)
{
	struct rdma_requester *req = &qp->req;

	req->una_psn = req->send_psn = req->sent_psn = qp->config.send_psn;
	req->post_psn = req->cut_psn = qp->config.send_psn;
	req->window = qp->config.window;
	req->deadline = RDMA_NEVER;
	init_expected(qp);
}

int rdma_post(struct rdma_qp *qp, const struct rdma_work *work)
{
	struct rdma_requester *req = &qp->req;
	struct rdma_send *s = send_at(req, req->tail);
	u32 packets = rdma_packets(qp, work->length);
	/* A READ may be repeated from its begin though some of it has been answered. */
	u32 oldest = req->una == req->tail ? req->una_psn : send_at(req, req->una)->first_psn;

	if (qp->state != RDMA_QP_READY)
		return ERR_IO;
	if (work->length > RDMA_MESSAGE_MAX || (u32)work->op > RDMA_SEND_IMM ||
	    (work->op == RDMA_READ && !qp->config.initiator_depth))
		return ERR_INVAL;
	if (req->tail - req->head == RDMA_SEND_MAX ||
	    ((req->post_psn - oldest) & PSN_MASK) + packets > PSN_SPAN)
		return ERR_BUSY;
	s->work = *work;
	s->first_psn = req->post_psn;
	s->packets = packets;
	s->received = 0;
	s->status = RDMA_OK;
	req->post_psn = psn_add(req->post_psn, packets);
	req->tail++;
	return 0;
}

bool rdma_poll_send(struct rdma_qp *qp, struct rdma_completion *c)
{
	struct rdma_requester *req = &qp->req;
	const struct rdma_send *s = send_at(req, req->head);

	if (req->head == req->una)
		return false;
	*c = (struct rdma_completion){.id = s->work.id, .status = s->status};
	req->head++;
	return true;
}

void requester_fail(struct rdma_qp *qp, enum rdma_status status)
{
	struct rdma_requester *req = &qp->req;

	for (; req->una != req->tail; req->una++) {
		send_at(req, req->una)->status = status;
		status = RDMA_FLUSHED;
	}
	req->next = req->tail;
	req->deadline = RDMA_NEVER;
}

/* An error that the requester found: no answers are sent any more either. */
static void fatal(struct rdma_qp *qp, enum rdma_status status)
{
	qp->state = RDMA_QP_ERROR;
	requester_fail(qp, status);
	responder_fail(qp);
	qp->resp.queue_head = qp->resp.queue_tail;
}

/* Go-back-N. A READ is asked for as a whole; what is there already is ignored when it comes. */
static void go_back(struct rdma_qp *qp)
{
	struct rdma_requester *req = &qp->req;
	const struct rdma_send *s = send_at(req, req->una);

	req->next = req->una;
	req->send_psn =
		req->una == req->tail || s->work.op != RDMA_READ ? req->una_psn : s->first_psn;
}

static void cut_window(struct rdma_requester *req)
{
	if (psn_diff(req->una_psn, req->cut_psn) < 0)
		return;
	req->window = MAX(req->window / 2, 1);
	req->window_credit = 0;
	req->cut_psn = req->sent_psn;
}

void requester_cnp(struct rdma_qp *qp)
{
	qp->stats.cnps++;
	cut_window(&qp->req);
}

/*
 * The peer has executed everything before `psn`. False if that includes READ responses that are
 * not here: they were lost, and completion stops in front of them.
 */
static bool answered(struct rdma_qp *qp, u64 now, u32 psn)
{
	struct rdma_requester *req = &qp->req;
	bool whole = true;

	while (psn_diff(psn, req->una_psn) > 0) {
		const struct rdma_send *s = send_at(req, req->una);
		u32 end = psn_add(s->first_psn, s->packets);

		if (s->work.op == RDMA_READ) {
			whole = false;
			break;
		}
		if (psn_diff(psn, end) < 0) {
			progress(qp, now, psn);
			break;
		}
		progress(qp, now, end);
		req->una++;
	}
	skip_answered(req);
	return whole;
}

/* A loss that an answer shows: repeat at once, but once only. */
static void gap(struct rdma_qp *qp, u64 now)
{
	qp->stats.gaps++;
	if (qp->req.went_back)
		return;
	go_back(qp);
	qp->req.went_back = true;
	arm(qp, now);
}

static void read_response(struct rdma_qp *qp, u64 now, const struct rdma_packet *p)
{
	struct rdma_requester *req = &qp->req;
	u32 flags = rdma_op_flags(p->opcode), offset, want;
	struct rdma_send *s;
	bool last;

	if (!answered(qp, now, p->psn)) {
		gap(qp, now);
		return;
	}
	s = send_at(req, req->una);
	if (s->work.op != RDMA_READ) {
		qp->stats.dropped++;
		return;
	}
	offset = s->received * qp->config.mtu;
	last = s->received + 1 == s->packets;
	want = last ? s->work.length - offset : qp->config.mtu;
	/* FIRST is not checked: a responder that resumes a READ may begin anew in its middle. */
	if (p->payload_len != want || !(flags & OPF_LAST) == last) {
		fatal(qp, RDMA_BAD_RESPONSE);
		return;
	}
	take_response(qp, now, s, p->payload, want, last);
}

static void rnr_nak(struct rdma_qp *qp, u64 now, const struct rdma_packet *p)
{
	struct rdma_requester *req = &qp->req;

	answered(qp, now, p->psn);
	if (req->rnr_until) /* a copy of the one that is waited for */
		return;
	qp->stats.rnr_naks++;
	if (qp->config.rnr_retry != 7 && req->rnr_retries++ >= qp->config.rnr_retry) {
		fatal(qp, RDMA_RNR_EXCEEDED);
		return;
	}
	go_back(qp);
	req->rnr_until = now + rdma_rnr_time(p->aeth.syndrome & AETH_VALUE);
	req->deadline = RDMA_NEVER;
}

static void nak(struct rdma_qp *qp, u64 now, const struct rdma_packet *p)
{
	answered(qp, now, p->psn);
	qp->stats.naks++;
	switch (p->aeth.syndrome) {
	case NAK_SEQUENCE:
		gap(qp, now);
		break;
	case NAK_INVALID:
		fatal(qp, RDMA_REMOTE_INVALID);
		break;
	case NAK_REMOTE_ACCESS:
		fatal(qp, RDMA_REMOTE_ACCESS);
		break;
	case NAK_REMOTE_ERROR:
		fatal(qp, RDMA_REMOTE_ERROR);
		break;
	default: /* reserved codes */
		qp->stats.dropped++;
		break;
	}
}

static void acknowledged(struct rdma_qp *qp, u64 now, u32 psn)
{
	if (!answered(qp, now, psn_add(psn, 1)))
		gap(qp, now);
}

void requester_receive(struct rdma_qp *qp, u64 now, const struct rdma_packet *p)
{
	struct rdma_requester *req = &qp->req;

	/* Answers to nothing that is open: copies, or of another connection. */
	if (psn_diff(p->psn, req->una_psn) < 0 || psn_diff(p->psn, req->sent_psn) >= 0) {
		qp->stats.dropped++;
		return;
	}
	if (p->opcode != OP_ACK) {
		read_response(qp, now, p);
		return;
	}
	switch (p->aeth.syndrome & AETH_KIND) {
	case AETH_ACK:
		acknowledged(qp, now, p->psn);
		break;
	case AETH_RNR:
		rnr_nak(qp, now, p);
		break;
	case AETH_NAK:
		nak(qp, now, p);
		break;
	default:
		qp->stats.dropped++;
		break;
	}
}

enum rdma_taken rdma_take_ack(struct rdma_qp *qp, u64 now, const u8 *frame, u32 len)
{
	const struct bth *bth =
		(const struct bth *)(frame + sizeof(struct eth_hdr) + BTH_AT(opcode));
	const struct aeth *aeth = (const struct aeth *)(bth + 1);
	const struct rdma_requester *req = &qp->req;
	u32 psn = bth_psn(bth), size = HEADERS + (u32)sizeof(*aeth);

	/* Answers to nothing that is open are not expected. */
	if (len < size || psn_diff(psn, req->una_psn) < 0 || psn_diff(psn, req->sent_psn) >= 0 ||
	    !is_answer(qp, frame, size, OP_ACK, psn) || (aeth->syndrome & AETH_KIND) != AETH_ACK)
		return RDMA_OTHER;
	qp->stats.rx_packets++;
	acknowledged(qp, now, psn);
	return req->una != req->head ? RDMA_COMPLETES : RDMA_TAKEN;
}

/* --- transmission --------------------------------------------------------------------------- */

/* READs sent or about to be, and not complete. */
static u32 reads_before(struct rdma_requester *req, u32 index)
{
	u32 i, n = 0;

	for (i = req->una; i != index; i++)
		n += send_at(req, i)->work.op == RDMA_READ;
	return n;
}

/* May ring[next] send its next packet, which takes `need` PSNs? */
static bool may_send(struct rdma_qp *qp, const struct rdma_send *s, u32 need)
{
	struct rdma_requester *req = &qp->req;
	s32 flight = psn_diff(req->send_psn, req->una_psn);

	if (flight > 0 && (u32)flight + need > req->window)
		return false;
	if (s->work.op == RDMA_READ && reads_before(req, req->next) >= qp->config.initiator_depth)
		return false;
	return !s->work.fence || !reads_before(req, req->next);
}

/* The opcode of a message's packet; what an immediate adds is at its end only. */
static u8 message_opcode(enum rdma_operation op, bool first, bool last)
{
	bool send = op == RDMA_SEND || op == RDMA_SEND_IMM;
	bool imm = op == RDMA_SEND_IMM || op == RDMA_WRITE_IMM;

	if (first && last)
		return send ? (imm ? OP_SEND_ONLY_IMM : OP_SEND_ONLY)
			    : (imm ? OP_WRITE_ONLY_IMM : OP_WRITE_ONLY);
	if (first)
		return send ? OP_SEND_FIRST : OP_WRITE_FIRST;
	if (last)
		return send ? (imm ? OP_SEND_LAST_IMM : OP_SEND_LAST)
			    : (imm ? OP_WRITE_LAST_IMM : OP_WRITE_LAST);
	return send ? OP_SEND_MIDDLE : OP_WRITE_MIDDLE;
}

static void message_packet(struct rdma_qp *qp, const struct rdma_send *s, struct rdma_packet *p)
{
	struct rdma_requester *req = &qp->req;
	u32 index = (u32)psn_diff(req->send_psn, s->first_psn);
	u32 offset = index * qp->config.mtu;
	bool last = index + 1 == s->packets;
	u32 flight = (u32)psn_diff(req->send_psn, req->una_psn) + 1;

	p->opcode = message_opcode(s->work.op, index == 0, last);
	p->solicited = last && s->work.solicited;
	p->imm = s->work.imm;
	p->payload_len = last ? s->work.length - offset : qp->config.mtu;
	p->payload = p->payload_len ? (const u8 *)s->work.data + offset : NULL;
	/* After a time-out each packet asks: the one that did may be what is lost again and again.
	 */
	p->ack_request =
		last || ++req->unasked >= ASK_EVERY || flight >= req->window || req->retries;
	if (p->ack_request)
		req->unasked = 0;
}

/* True if the QP may go on. */
static bool check_time(struct rdma_qp *qp, u64 now)
{
	struct rdma_requester *req = &qp->req;

	if (req->rnr_until) {
		if (now < req->rnr_until)
			return false;
		req->rnr_until = 0;
	}
	if (now < req->deadline)
		return true;
	qp->stats.timeouts++;
	if (req->retries++ >= qp->config.retry_count) {
		fatal(qp, RDMA_RETRY_EXCEEDED);
		return false;
	}
	cut_window(req);
	go_back(qp);
	req->went_back = false;
	req->deadline = RDMA_NEVER;
	return true;
}

bool requester_transmit(struct rdma_qp *qp, u64 now, struct rdma_packet *p)
{
	struct rdma_requester *req = &qp->req;
	struct rdma_send *s;
	u32 need;

	if (qp->state != RDMA_QP_READY || !check_time(qp, now) || req->next == req->tail)
		return false;
	s = send_at(req, req->next);
	need = s->work.op == RDMA_READ ? s->packets : 1;
	if (!may_send(qp, s, need))
		return false;
	p->psn = req->send_psn;
	p->reth.va = s->work.va;
	p->reth.rkey = s->work.rkey;
	p->reth.length = s->work.length;
	if (s->work.op == RDMA_READ) {
		p->opcode = OP_READ_REQUEST;
		p->ack_request = true;
	} else {
		message_packet(qp, s, p);
	}
	if (psn_diff(req->send_psn, req->sent_psn) < 0)
		qp->stats.tx_again++;
	req->send_psn = psn_add(req->send_psn, need);
	if (psn_diff(req->send_psn, req->sent_psn) > 0)
		req->sent_psn = req->send_psn;
	if (req->send_psn == psn_add(s->first_psn, s->packets))
		req->next++;
	if (req->deadline == RDMA_NEVER)
		arm(qp, now);
	return true;
}
