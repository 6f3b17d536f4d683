/*
 * The short way of a frame: rdma_qp_take(), fabric_take(). Inline, as it is the way of every page
 * that comes; what it shares with the long way (requester.c) is here too.
 */
#pragma once

#include "lib/zmm.h"
#include "rdma/fabric.h"
#include "rdma/qp_internal.h"

#define BACKOFF_MAX                                                                  \
	2u /* the time-out doubles this often at most: up to 4 times, IBTA 9.7.6.1.3 \
	    */

static inline struct rdma_send *send_at(struct rdma_requester *req, u32 index)
{
	return &req->ring[index % RDMA_SEND_MAX];
}

static inline u64 timeout(const struct rdma_qp *qp)
{
	u32 shift = qp->config.timeout + MIN((u32)qp->req.retries, BACKOFF_MAX);

	return qp->config.timeout ? 4096ull << shift : RDMA_NEVER;
}

static inline void arm(struct rdma_qp *qp, u64 now)
{
	u64 time = timeout(qp);

	qp->req.deadline = time == RDMA_NEVER ? RDMA_NEVER : now + time;
}

/*
 * Everything before `psn` was answered. A window of answers lets the window grow by a packet, but
 * not those to what had been sent when it was cut.
 */
static inline void progress(struct rdma_qp *qp, u64 now, u32 psn)
{
	struct rdma_requester *req = &qp->req;

	req->una_psn = psn;
	if (psn_diff(psn, req->cut_psn) > 0) {
		req->window_credit += (u32)psn_diff(psn, req->cut_psn);
		req->cut_psn = psn;
	}
	if (req->window_credit >= req->window) {
		req->window_credit = 0;
		req->window = MIN(req->window + 1, qp->config.window);
	}
	req->retries = req->rnr_retries = 0;
	req->went_back = false;
	req->rnr_until = 0;
	if (psn == req->sent_psn)
		req->deadline = RDMA_NEVER;
	else
		arm(qp, now);
}

/* What has been answered needs no repetition that was about to begin. */
static inline void skip_answered(struct rdma_requester *req)
{
	if ((s32)(req->una - req->next) > 0) {
		req->next = req->una;
		req->send_psn = req->una_psn;
	} else if (req->next == req->una && req->una != req->tail &&
		   send_at(req, req->una)->work.op != RDMA_READ &&
		   psn_diff(req->send_psn, req->una_psn) < 0) {
		req->send_psn = req->una_psn;
	}
}

/* The response `una_psn` of the READ `s`, which is the oldest request. */
static inline void take_response(struct rdma_qp *qp, u64 now, struct rdma_send *s,
				 const u8 *payload, u32 len, bool last)
{
	struct rdma_requester *req = &qp->req;

	if (len)
		zmm_copy((u8 *)s->work.data + s->received * qp->config.mtu, payload, len);
	s->received++;
	req->una += last;
	progress(qp, now, psn_add(req->una_psn, 1));
	if (last)
		skip_answered(req);
}

/* Of a datagram: IPv4 and UDP headers, BTH and ICRC. */
#define HEADERS                                                                       \
	(u32)(sizeof(struct ipv4_hdr) + sizeof(struct udp_hdr) + sizeof(struct bth) + \
	      ROCE_ICRC_SIZE)
#define IP_AT(member)  offsetof(struct ipv4_hdr, member)
#define UDP_AT(member) (sizeof(struct ipv4_hdr) + offsetof(struct udp_hdr, member))
#define BTH_AT(member) (UDP_AT(src) + sizeof(struct udp_hdr) + offsetof(struct bth, member))
#define BTH_END	       BTH_AT(opcode) + sizeof(struct bth)
#define TWO(at)	       [at] = 0xff, [(at) + 1] = 0xff
#define THREE(at)      TWO(at), [(at) + 2] = 0xff
#define FOUR(at)       TWO(at), TWO((at) + 2)

/* Which bits are looked at. The rest is checked by itself, or does not matter. */
static const union {
	u8 bytes[40];
	u64 word[5];
} expected_mask = {.bytes = {
			   [IP_AT(version_ihl)] = 0xff,
			   [IP_AT(tos)] = 0x01, /* of ECN: congestion is for the long way */
			   TWO(IP_AT(length)),
			   [IP_AT(fragment)] = IPV4_FRAGMENT >> 8,
			   [IP_AT(fragment) + 1] = IPV4_FRAGMENT & 0xff,
			   [IP_AT(protocol)] = 0xff,
			   FOUR(IP_AT(src)),
			   FOUR(IP_AT(dst)),
			   TWO(UDP_AT(dst)),
			   TWO(UDP_AT(length)),
			   [BTH_AT(opcode)] = 0xff,
			   [BTH_AT(flags)] = BTH_PAD_MASK | BTH_VERSION,
			   [BTH_AT(pkey)] = PKEY_MASK >> 8,
			   [BTH_AT(pkey) + 1] = PKEY_MASK & 0xff,
			   THREE(BTH_AT(dest_qp)),
			   THREE(BTH_AT(psn)),
		   }};

_Static_assert(BTH_AT(psn) + 3 == sizeof(expected_mask), "up to the PSN");

static inline u64 word_at(const u8 *p)
{
	u64 word;

	__builtin_memcpy(&word, p, sizeof(word));
	return word;
}

/* Big-endian fields as parts of the little-endian words that they lie in. */
#define FIELD16(at, value)  ((u64)__builtin_bswap16((u16)(value)) << (at) % 8 * 8)
#define FIELD24(at, value)  ((u64)__builtin_bswap32(value) << ((at) % 8 - 1) * 8)
#define DIFFERS(i, varying) ((word_at(d + 8 * (i)) & expected_mask.word[i]) ^ e[i] ^ (varying))

/* Whether a frame that has a datagram of `len` bytes is an answer with this opcode and PSN. */
static inline bool is_answer(const struct rdma_qp *qp, const u8 *frame, u32 len, u8 opcode, u32 psn)
{
	const u8 *d = frame + sizeof(struct eth_hdr);
	const u64 *e = qp->expected.word;
	u64 udp_len = len - sizeof(struct ipv4_hdr);
	u64 differs = DIFFERS(0, FIELD16(IP_AT(length), len)) | DIFFERS(1, 0) | DIFFERS(2, 0) |
		      DIFFERS(3, FIELD16(UDP_AT(length), udp_len) |
					 (u64)opcode << BTH_AT(opcode) % 8 * 8) |
		      DIFFERS(4, FIELD24(BTH_AT(psn), psn));

	return likely(!differs) && likely(rdma_ipv4_sum_right(d)) &&
	       likely(rdma_icrc_right(frame, len));
}

_Static_assert(IP_AT(length) / 8 == 0 && UDP_AT(length) / 8 == 3 && BTH_AT(opcode) / 8 == 3 &&
		       BTH_AT(psn) / 8 == 4,
	       "where is_answer() has them");

/* An ACK, of a datagram of up to `len` bytes. */
enum rdma_taken rdma_take_ack(struct rdma_qp *qp, u64 now, const u8 *frame, u32 len);

/* The opcode of a READ's response `index`. */
static inline u8 response_opcode(u32 index, bool last)
{
	if (last)
		return index ? OP_READ_LAST : OP_READ_ONLY;
	return index ? OP_READ_MIDDLE : OP_READ_FIRST;
}

/*
 * Of a received frame: the READ response that is expected next, exactly, or an acknowledgement is
 * taken as rdma_decode() and rdma_qp_receive() would. RDMA_OTHER: it is for those two.
 */
static inline enum rdma_taken rdma_qp_take(struct rdma_qp *qp, u64 now, const u8 *frame,
					   size_t bytes)
{
	const u8 *datagram = frame + sizeof(struct eth_hdr);
	struct rdma_requester *req = &qp->req;
	struct rdma_send *s = send_at(req, req->una);
	u32 want = qp->config.mtu, size = HEADERS, len = (u32)(bytes - sizeof(struct eth_hdr));
	bool last;
	u8 opcode;

	if (unlikely(bytes < sizeof(struct eth_hdr) + HEADERS) ||
	    unlikely(qp->state != RDMA_QP_READY) ||
	    unlikely(be16(((const struct eth_hdr *)frame)->type) != ETHERTYPE_IPV4))
		return RDMA_OTHER;
	if (datagram[BTH_AT(opcode)] == OP_ACK)
		return rdma_take_ack(qp, now, frame, len);
	if (unlikely(req->una_psn == req->sent_psn) || unlikely(s->work.op != RDMA_READ))
		return RDMA_OTHER;
	last = s->received + 1 == s->packets;
	opcode = response_opcode(s->received, last);
	if (last)
		want = s->work.length - s->received * want;
	size += want + (opcode == OP_READ_MIDDLE ? 0 : (u32)sizeof(struct aeth));
	/* Lengths that need padding are rare. */
	if (unlikely(want % 4) || unlikely(len < size) ||
	    unlikely(!is_answer(qp, frame, size, opcode, req->una_psn)))
		return RDMA_OTHER;
	qp->stats.rx_packets++;
	take_response(qp, now, s, datagram + size - ROCE_ICRC_SIZE - want, want, last);
	return last ? RDMA_COMPLETES : RDMA_TAKEN;
}

/* The same, for all links: what has been taken needs no fabric_receive(). */
static inline enum rdma_taken fabric_take(struct fabric *f, u64 now, const u8 *frame, size_t len)
{
	const struct bth *bth =
		(const struct bth *)(frame + sizeof(struct eth_hdr) + BTH_AT(opcode));
	enum rdma_taken taken;
	struct fabric_link *l;

	if (unlikely(len < sizeof(struct eth_hdr) + BTH_END))
		return RDMA_OTHER;
	/* The QP looks at all of the number. */
	l = &f->link[bth->dest_qp[2] % FABRIC_LINKS];
	if (unlikely(l->state != LINK_UP))
		return RDMA_OTHER;
	taken = rdma_qp_take(&l->qp, now, frame, len);
	if (unlikely(taken == RDMA_OTHER))
		return RDMA_OTHER;
	l->heard = now;
	if (taken == RDMA_COMPLETES) {
		fabric_sampled(l, now);
		/* What had to wait for its answer. */
		f->pending |= l->qp.req.next != l->qp.req.tail;
	}
	return taken;
}
