#include "rdma/fabric.h"

#include "lib/string.h"

#define MS 1000000ull

#define WINDOW	      48u /* packets in flight on a link: 12 pages of four packets */
#define RETRIES	      7
#define RNR_TIMER     12
#define TIMEOUT_FIRST 16u /* 268 ms, before a round trip is known */
#define TIMEOUT_LEAST 12u /* 17 ms: a host that serves in software is late now and then */
#define TIMEOUT_MOST  17u
#define CM_TIMEOUT    16u
#define CM_RETRIES    4
#define KEEPALIVE     (2000 * MS) /* of silence; the node itself asks after five seconds */
#define BACKOFF_LEAST (50 * MS)
#define BACKOFF_MOST  (5000 * MS)
#define ASK_AGAIN     (20 * MS) /* an address that is being resolved */
#define BTH_AT	      (sizeof(struct eth_hdr) + sizeof(struct ipv4_hdr) + sizeof(struct udp_hdr))
#define NO_NETWORK    (500 * MS)

/* A splitmix64 step: identifiers that differ, not secrets. */
static u64 next_random(struct fabric *f)
{
	u64 z = f->random += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

void fabric_init(struct fabric *f, u32 mtu, u64 entropy)
{
	memset(f, 0, sizeof(*f));
	f->mtu = mtu;
	f->random = entropy;
}

/* Something has happened other than that a page's next packet has come. */
static void look(struct fabric *f)
{
	f->look = f->pending = true;
}

/* --- a link's life -------------------------------------------------------------------------- */

/* Its low bits are the link's number: by them its packets find it. Not the one before. */
static u32 new_qpn(struct fabric *f, const struct fabric_link *l)
{
	u32 qpn;

	do {
		qpn = (u32)next_random(f) & PSN_MASK & ~(FABRIC_LINKS - 1);
		qpn |= (u32)(l - f->link);
	} while (qpn < FABRIC_LINKS || qpn == l->qp.config.local_qpn);
	return qpn;
}

static void release(struct fabric_link *l)
{
	if (l->c)
		cm_release(l->c);
	l->c = NULL;
}

/* The next attempt: later each time, and not at the same moment as another machine's. */
static void wait_to_retry(struct fabric *f, struct fabric_link *l, u64 now)
{
	l->state = LINK_WAITING;
	l->retry_at = now + l->backoff + next_random(f) % (l->backoff / 4);
	l->backoff = MIN(2 * l->backoff, BACKOFF_MOST);
}

/* The connection is over. The QP's completions stay until they are fetched. */
static void end_connection(struct fabric_link *l)
{
	rdma_qp_close(&l->qp);
	if (l->c)
		cm_disconnect(l->c);
	l->failures++;
	l->state = LINK_DOWN;
}

static void refused(struct fabric *f, struct fabric_link *l, u64 now, u16 reason)
{
	l->refused = reason;
	l->failures++;
	wait_to_retry(f, l, now);
}

static void begin(struct fabric *f, struct fabric_link *l, u64 now)
{
	struct node_request request;
	struct cm_offer offer = {
		.comm_id = (u32)next_random(f) | 1,
		.qpn = new_qpn(f, l),
		.psn = (u32)next_random(f) & PSN_MASK,
		.initiator_depth = RDMA_READ_MAX,
		.rnr_retry = 7,
		.retry_count = RETRIES,
		.ack_timeout = TIMEOUT_MOST,
		.mtu = (u16)f->mtu,
		.port = (u16)(0xc000 | (next_random(f) & 0x3fff)),
		.tid = next_random(f),
		.private_data = &request,
		.private_len = sizeof(request),
	};
	u8 mac[6];
	int ret;

	if (!f->ip)
		return;
	ret = fabric_resolve(l->peer.ip, mac);
	if (ret) {
		l->retry_at = now + (ret == ERR_BUSY ? ASK_AGAIN : NO_NETWORK);
		return;
	}
	release(l);
	node_request_encode(&request, l->peer.slice, l->peer.token);
	put_be64(request.client, l->client);
	l->c = cm_connect(&f->agent, &offer, l->peer.ip, mac, l->peer.port);
	if (l->c)
		l->state = LINK_CONNECTING;
	else
		wait_to_retry(f, l, now);
}

/* What the node lends, if its answer makes sense. */
static bool take_answer(struct fabric_link *l)
{
	const struct node_answer *a = (const struct node_answer *)l->c->peer_private;
	u64 va = be64(a->va), length = ALIGN_DOWN(be64(a->length), PAGE_SIZE);

	if (node_answer_check(a) || !length || va + length < va)
		return false;
	l->slice = (u16)be16(a->slice);
	l->incarnation = be64(a->incarnation);
	l->va = va;
	l->length = length;
	l->rkey = be32(a->rkey);
	return true;
}

static void establish(struct fabric *f, struct fabric_link *l, u64 now)
{
	struct rdma_qp_config config = {.rnr_timer = RNR_TIMER, .window = WINDOW};
	const struct rdma_regions none = {NULL, 0};

	cm_qp_config(&f->agent, l->c, &config);
	config.timeout = TIMEOUT_FIRST;
	/* Without READs the node is of no use. */
	if (!take_answer(l) || !config.initiator_depth || rdma_qp_init(&l->qp, &config, &none)) {
		cm_reject(l->c, CM_REJ_CONSUMER);
		refused(f, l, now, CM_REJ_CONSUMER);
		return;
	}
	cm_establish(l->c);
	l->state = LINK_UP;
	l->died = RDMA_FLUSHED; /* until a completion says more */
	l->refused = 0;
	l->connections++;
	l->heard = now;
	l->round_trip = l->deviation = 0;
	l->sampling = l->proved = false;
}

/* --- time ----------------------------------------------------------------------------------- */

/* Of RFC 6298: the time-out follows the mean of round trips and how far they are from it. */
static void measured(struct fabric_link *l, u64 took)
{
	u64 limit, off;
	u8 code = TIMEOUT_LEAST;

	if (!l->round_trip) {
		l->round_trip = MAX(took, 1);
		l->deviation = took / 2;
	} else {
		off = took > l->round_trip ? took - l->round_trip : l->round_trip - took;
		l->deviation = (3 * l->deviation + off) / 4;
		l->round_trip = MAX((7 * l->round_trip + took) / 8, 1);
	}
	limit = l->round_trip + 4 * l->deviation;
	while (code < TIMEOUT_MOST && 4096ull << code < limit)
		code++;
	l->qp.config.timeout = code;
}

/*
 * One request at a time is timed. What was repeated says nothing but that the time-out may be too
 * short: it is doubled until there is a measurement (Karn's rule).
 */
void fabric_sampled(struct fabric_link *l, u64 now)
{
	if (!l->sampling || (s32)(l->qp.req.una - l->sample) <= 0)
		return;
	l->sampling = false;
	if (l->qp.stats.tx_again == l->sample_again)
		measured(l, now - l->sample_at);
	else if (l->qp.config.timeout < TIMEOUT_MOST)
		l->qp.config.timeout++;
}

static int post(struct fabric_link *l, const struct rdma_work *work)
{
	int ret = rdma_post(&l->qp, work);

	if (!ret && !l->sampling) {
		l->sampling = true;
		l->sample = l->qp.req.tail - 1;
		l->sample_at = 0;
		l->sample_again = l->qp.stats.tx_again;
	}
	return ret;
}

/* An empty WRITE needs no memory at the other end, only somebody who answers. */
static void probe(struct fabric_link *l)
{
	const struct rdma_work empty = {.id = FABRIC_PROBE, .op = RDMA_WRITE};

	if (l->qp.req.una == l->qp.req.tail)
		post(l, &empty);
}

static void step(struct fabric *f, struct fabric_link *l, u64 now)
{
	switch (l->state) {
	case LINK_UNUSED:
		break;
	case LINK_WAITING:
		if (now >= l->retry_at)
			begin(f, l, now);
		break;
	case LINK_CONNECTING:
		if (l->c->state == CM_REP_RECEIVED)
			establish(f, l, now);
		else if (l->c->state == CM_CLOSED)
			refused(f, l, now, l->c->reason);
		break;
	case LINK_UP:
		if (l->qp.state == RDMA_QP_ERROR || l->c->state != CM_ESTABLISHED)
			end_connection(l);
		else if (now >= l->heard + KEEPALIVE)
			probe(l);
		break;
	case LINK_DOWN:
		if (l->qp.req.head == l->qp.req.tail)
			wait_to_retry(f, l, now);
		break;
	case LINK_LEAVING:
		if (!l->c || (l->c->state == CM_CLOSED && !l->c->owes)) {
			release(l);
			l->state = LINK_UNUSED;
		}
		break;
	}
}

void fabric_work(struct fabric *f, u64 now)
{
	u32 i;

	if (!f->look && now < f->due)
		return;
	f->look = false;
	for (i = 0; i < f->links; i++) {
		struct fabric_link *l = &f->link[i];
		enum link_state before = l->state;

		step(f, l, now);
		if (l->state != before) /* the agent has been asked for something */
			f->cm_quiet = false;
		f->pending = true;
	}
	while (f->links && f->link[f->links - 1].state == LINK_UNUSED)
		f->links--;
}

/* When step() or transmission has something to do; 0: at once, as time-outs are found by sending.
 */
static u64 link_deadline(const struct fabric *f, const struct fabric_link *l)
{
	u64 first;

	switch (l->state) {
	case LINK_WAITING:
		return f->ip ? l->retry_at : RDMA_NEVER;
	case LINK_CONNECTING:
		return l->c->state == CM_REQ_SENT ? RDMA_NEVER : 0;
	case LINK_UP:
		if (l->qp.state == RDMA_QP_ERROR || l->c->state != CM_ESTABLISHED)
			return 0;
		first = rdma_qp_deadline(&l->qp);
		return l->qp.req.una == l->qp.req.tail ? MIN(first, l->heard + KEEPALIVE) : first;
	case LINK_DOWN:
		return l->qp.req.head == l->qp.req.tail ? 0 : RDMA_NEVER;
	case LINK_LEAVING:
		return !l->c || (l->c->state == CM_CLOSED && !l->c->owes) ? 0 : RDMA_NEVER;
	default:
		return RDMA_NEVER;
	}
}

static u64 next_deadline(const struct fabric *f)
{
	u64 first = f->cm_quiet ? f->cm_due : cm_deadline(&f->agent);
	u32 i;

	for (i = 0; i < f->links; i++) {
		u64 due = link_deadline(f, &f->link[i]);

		first = MIN(first, due);
	}
	return first;
}

/* --- what the users do ---------------------------------------------------------------------- */

void fabric_set_address(struct fabric *f, const u8 mac[6], u32 ip)
{
	u32 i;

	if (f->ip == ip && __builtin_memcmp(f->mac, mac, sizeof(f->mac)) == 0)
		return;
	memcpy(f->mac, mac, sizeof(f->mac));
	f->ip = ip;
	/* Nothing can be sent from the old address: those at the other end find out by probing. */
	for (i = 0; i < FABRIC_LINKS; i++) {
		struct fabric_link *l = &f->link[i];

		l->c = NULL;
		if (l->state == LINK_UP)
			end_connection(l);
		else if (l->state == LINK_CONNECTING)
			l->state = LINK_WAITING;
		if (l->state == LINK_WAITING)
			l->retry_at = 0;
	}
	f->cm_quiet = false;
	look(f);
	cm_init(&f->agent, mac, ip, next_random(f));
	f->agent.timeout = CM_TIMEOUT;
	f->agent.retries = CM_RETRIES;
}

int fabric_link(struct fabric *f, const struct fabric_peer *peer)
{
	u32 i;

	for (i = 0; i < FABRIC_LINKS; i++) {
		struct fabric_link *l = &f->link[i];

		if (l->state != LINK_UNUSED)
			continue;
		memset(l, 0, sizeof(*l));
		l->peer = *peer;
		l->client = next_random(f) | 1;
		l->backoff = BACKOFF_LEAST;
		l->state = LINK_WAITING;
		f->links = MAX(f->links, i + 1);
		look(f);
		return (int)i;
	}
	return ERR_BUSY;
}

void fabric_unlink(struct fabric *f, u32 link)
{
	struct fabric_link *l = &f->link[link];

	rdma_qp_close(&l->qp);
	if (l->c)
		cm_disconnect(l->c);
	/* A good-bye or a refusal is still to be sent; an attempt is just forgotten. */
	if (l->c && l->c->state != CM_DREQ_SENT && l->c->state != CM_CLOSED)
		release(l);
	l->state = LINK_LEAVING;
	f->cm_quiet = false;
	look(f);
}

int fabric_post(struct fabric *f, u32 link, const struct rdma_work *work)
{
	struct fabric_link *l = &f->link[link];

	f->pending = true;
	return l->state == LINK_UP ? post(l, work) : ERR_IO;
}

bool fabric_poll(struct fabric *f, u32 link, struct rdma_completion *c)
{
	struct fabric_link *l = &f->link[link];

	if (l->state != LINK_UP && l->state != LINK_DOWN)
		return false;
	if (l->state == LINK_DOWN)
		look(f); /* it goes on when this was the last */
	while (rdma_poll_send(&l->qp, c)) {
		if (c->status == RDMA_OK && !l->proved) {
			l->proved = true;
			l->backoff = BACKOFF_LEAST;
		}
		/* The first one that failed says why; the others are flushed. */
		if (c->status != RDMA_OK && c->status != RDMA_FLUSHED)
			l->died = c->status;
		if (c->id != FABRIC_PROBE)
			return true;
	}
	return false;
}

/* --- frames --------------------------------------------------------------------------------- */

/* The link whose connection a packet belongs to, or NULL. */
static struct fabric_link *link_of(struct fabric *f, u32 qpn)
{
	struct fabric_link *l = &f->link[qpn % FABRIC_LINKS];

	return l->state == LINK_UP && l->qp.config.local_qpn == qpn ? l : NULL;
}

void fabric_receive(struct fabric *f, u64 now, const u8 *frame, size_t len)
{
	struct fabric_link *l;
	struct rdma_packet p;

	if (!f->ip || rdma_decode(&p, frame, len) || p.dst_ip != f->ip)
		return;
	look(f);
	if (p.dest_qp == CM_QPN) {
		cm_receive(&f->agent, now, &p);
		f->cm_quiet = false;
		return;
	}
	l = link_of(f, p.dest_qp);
	if (!l || l->qp.config.remote_ip != p.src_ip)
		return;
	l->heard = now;
	rdma_qp_receive(&l->qp, now, &p);
	fabric_sampled(l, now);
}

/* Looks at all connections, so not without a reason. */
static bool transmit_cm(struct fabric *f, u64 now, struct rdma_frame *frame)
{
	if (f->cm_quiet && now < f->cm_due)
		return false;
	f->cm_quiet = !cm_transmit(&f->agent, now, frame);
	if (f->cm_quiet)
		f->cm_due = cm_deadline(&f->agent);
	return !f->cm_quiet;
}

bool fabric_transmit(struct fabric *f, u64 now, struct rdma_frame *frame)
{
	u32 i;

	f->pending = true;
	if (unlikely(!f->ip))
		return false;
	if (transmit_cm(f, now, frame))
		return true;
	for (i = 0; i < f->links; i++) {
		struct fabric_link *l;

		f->turn = f->turn + 1 < f->links ? f->turn + 1 : 0;
		l = &f->link[f->turn];
		if (l->state != LINK_UP || rdma_qp_quiet(&l->qp, now) ||
		    !rdma_qp_transmit(&l->qp, now, frame))
			continue;
		if (!l->sample_at)
			l->sample_at = now;
		f->pending = f->links > 1 || !rdma_qp_quiet(&l->qp, now);
		return true;
	}
	f->pending = false;
	return false;
}

u64 fabric_deadline(struct fabric *f)
{
	f->due = f->look ? 0 : next_deadline(f);
	return f->due;
}
