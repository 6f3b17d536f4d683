#include "rdma/node.h"

#include "lib/string.h"

#define WINDOW	    64
#define RNR_TIMER   12
#define TIMEOUT_MAX 18 /* 1 s */
#define VA_BASE                                                                          \
	0x10000000000ull /* of slice 0; a client needs no more than what the answer says \
			  */

/* A splitmix64 step: well spread, not secret. What must be secret is sealed by the client. */
static u64 next_random(struct node *node)
{
	u64 z = node->random += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

int node_init(struct node *node, const struct node_config *config)
{
	memset(node, 0, sizeof(*node));
	if (!config->slices || config->slices > NODE_SLICES ||
	    config->length / config->slices < PAGE_SIZE)
		return ERR_INVAL;
	node->config = *config;
	node->random = config->entropy;
	node->incarnation = next_random(node);
	cm_init(&node->agent, config->mac, config->ip, config->guid);
	return cm_listen(&node->agent, config->port);
}

static u64 slice_length(const struct node *node)
{
	return ALIGN_DOWN(node->config.length / node->config.slices, PAGE_SIZE);
}

void node_request_encode(struct node_request *r, u16 slice, const u8 token[NODE_TOKEN])
{
	put_be32(r->magic, NODE_MAGIC);
	put_be16(r->version, NODE_VERSION);
	put_be16(r->slice, slice);
	memcpy(r->token, token, NODE_TOKEN);
	memset(r->client, 0, sizeof(r->client));
}

int node_answer_check(const struct node_answer *a)
{
	return be32(a->magic) == NODE_MAGIC && be16(a->version) == NODE_VERSION ? 0 : ERR_INVAL;
}

/* Takes the same time wherever the difference is. */
static bool token_right(const struct node *node, const u8 *token)
{
	u32 i, differ = 0;

	for (i = 0; i < NODE_TOKEN; i++)
		differ |= node->config.token[i] ^ token[i];
	return !differ;
}

static bool is_clients(const struct node_slice *s, u32 ip, u64 client)
{
	return s->client_ip == ip && s->client == client;
}

/*
 * The slice that a request gets, or NULL. Without a wish it is the client's own, else a free one,
 * preferably one that is nobody's, so that whoever comes back finds what he left.
 */
static struct node_slice *choose(struct node *node, const struct cm_connection *c, u32 wanted,
				 u64 client)
{
	struct node_slice *s, *free = NULL;
	u32 i;

	if (wanted < node->config.slices) {
		s = &node->slice[wanted];
		return !s->c || is_clients(s, c->remote_ip, client) ? s : NULL;
	}
	for (i = 0; i < node->config.slices && wanted == NODE_ANY_SLICE; i++) {
		s = &node->slice[i];
		if (client && is_clients(s, c->remote_ip, client))
			return s;
		if (!s->c && (!free || (free->client_ip && !s->client_ip)))
			free = s;
	}
	return free;
}

static void free_slice(struct node_slice *s)
{
	rdma_qp_close(&s->qp);
	s->region.access = 0;
	s->c->owner = 0;
	s->c = NULL;
}

static u32 slices_used(const struct node *node)
{
	u32 i, n = 0;

	for (i = 0; i < node->config.slices; i++)
		n += node->slice[i].c != NULL;
	return n;
}

static void fill_answer(struct node *node, const struct node_slice *s, struct node_answer *a)
{
	memset(a, 0, sizeof(*a));
	put_be32(a->magic, NODE_MAGIC);
	put_be16(a->version, NODE_VERSION);
	put_be16(a->slice, (u32)(s - node->slice));
	put_be64(a->incarnation, node->incarnation + s->clients);
	put_be64(a->va, s->region.va);
	put_be64(a->length, s->region.length);
	put_be32(a->rkey, s->region.rkey);
	put_be16(a->slices, node->config.slices);
	put_be16(a->slices_used, slices_used(node));
}

/* A QP number that no other connection has. */
static u32 new_qpn(struct node *node)
{
	u32 qpn, i;

	do {
		qpn = (u32)next_random(node) & PSN_MASK;
		for (i = 0; i < NODE_SLICES; i++)
			if (node->slice[i].c && node->slice[i].qp.config.local_qpn == qpn)
				qpn = 0;
	} while (qpn <= CM_QPN);
	return qpn;
}

static void accept(struct node *node, u64 now, struct node_slice *s, struct cm_connection *c)
{
	u64 index = (u64)(s - node->slice), length = slice_length(node);
	struct rdma_qp_config config = {.rnr_timer = RNR_TIMER, .window = WINDOW};
	struct rdma_regions regions = {&s->region, 1};
	struct node_answer answer;
	struct cm_offer offer = {
		.comm_id = (u32)next_random(node) | 1,
		.qpn = new_qpn(node),
		.psn = (u32)next_random(node) & PSN_MASK,
		.responder_resources = RDMA_READ_MAX,
		.rnr_retry = 7,
		.private_data = &answer,
		.private_len = sizeof(answer),
	};

	/* A new key each time: what is left of an old connection opens nothing. */
	s->region = (struct rdma_region){
		.base = node->config.memory + index * length,
		.va = VA_BASE + index * length,
		.length = length,
		.rkey = (u32)next_random(node) & ~0xffu,
		.access = RDMA_REMOTE_READ | RDMA_REMOTE_WRITE,
	};
	s->c = c;
	fill_answer(node, s, &answer);
	if (cm_accept(c, &offer)) {
		s->c = NULL;
		return;
	}
	c->owner = index + 1;
	cm_qp_config(&node->agent, c, &config);
	/* The client's time-out is for the probes too; it may not be for ever. */
	if (!config.timeout || config.timeout > TIMEOUT_MAX)
		config.timeout = TIMEOUT_MAX;
	s->probe = now + NODE_KEEPALIVE;
	if (rdma_qp_init(&s->qp, &config, &regions)) {
		free_slice(s);
		cm_disconnect(c);
	}
}

static void decide(struct node *node, u64 now, struct cm_connection *c)
{
	const struct node_request *r = (const struct node_request *)c->peer_private;
	u64 client = be64(r->client);
	struct node_slice *s;

	if (be32(r->magic) != NODE_MAGIC || be16(r->version) != NODE_VERSION ||
	    !token_right(node, r->token)) {
		node->refused++;
		cm_reject(c, CM_REJ_CONSUMER);
		return;
	}
	s = choose(node, c, be16(r->slice), client);
	if (!s) {
		node->refused++;
		cm_reject(c, CM_REJ_NO_QP);
		return;
	}
	if (s->c) {
		struct cm_connection *old = s->c;

		node->taken_over++;
		free_slice(s);
		cm_disconnect(old);
	}
	if (!is_clients(s, c->remote_ip, client))
		s->clients += s->client_ip != 0;
	s->client_ip = c->remote_ip;
	s->client = client;
	accept(node, now, s, c);
}

/* Follows what has become of the connections. */
static void follow(struct node *node, u64 now)
{
	u32 i;

	for (i = 0; i < CM_CONNECTIONS; i++) {
		struct cm_connection *c = &node->agent.connection[i];
		struct node_slice *s = c->owner ? &node->slice[c->owner - 1] : NULL;

		if (c->state == CM_REQ_RECEIVED)
			decide(node, now, c);
		if (s && s->c == c && c->state == CM_CLOSED)
			free_slice(s);
		if (s && s->c == c && s->qp.state == RDMA_QP_ERROR &&
		    s->qp.resp.queue_head == s->qp.resp.queue_tail) {
			free_slice(s);
			cm_disconnect(c);
		}
	}
}

/* An empty WRITE needs no memory at the other end, only somebody who answers. */
static void probe(struct node_slice *s, u64 now)
{
	const struct rdma_work empty = {.op = RDMA_WRITE};
	struct rdma_completion done;

	while (rdma_poll_send(&s->qp, &done))
		;
	if (now < s->probe || s->c->state != CM_ESTABLISHED)
		return;
	s->probe = now + NODE_KEEPALIVE;
	rdma_post(&s->qp, &empty);
}

/* Closed connections answer repetitions for as long as nobody needs their place. */
static void make_room(struct node *node)
{
	struct cm_connection *closed = NULL;
	u32 i;

	for (i = 0; i < CM_CONNECTIONS; i++) {
		struct cm_connection *c = &node->agent.connection[i];

		if (c->state == CM_FREE)
			return;
		if (c->state == CM_CLOSED && !c->owes && !closed)
			closed = c;
	}
	if (closed)
		cm_release(closed);
}

void node_receive(struct node *node, u64 now, const u8 *frame, size_t len)
{
	struct rdma_packet p;
	u32 i;

	if (rdma_decode(&p, frame, len) || p.dst_ip != node->config.ip)
		return;
	if (p.dest_qp == CM_QPN) {
		make_room(node);
		cm_receive(&node->agent, now, &p);
	}
	for (i = 0; i < node->config.slices && p.dest_qp != CM_QPN; i++) {
		struct node_slice *s = &node->slice[i];

		if (s->c && s->qp.config.local_qpn == p.dest_qp) {
			cm_data_arrived(s->c);
			s->probe = now + NODE_KEEPALIVE;
			rdma_qp_receive(&s->qp, now, &p);
		}
	}
	follow(node, now);
}

bool node_transmit(struct node *node, u64 now, struct rdma_frame *f)
{
	bool any;
	u32 i;

	any = cm_transmit(&node->agent, now, f);
	for (i = 0; i < node->config.slices && !any; i++) {
		struct node_slice *s = &node->slice[node->turn++ % node->config.slices];

		if (!s->c)
			continue;
		probe(s, now);
		any = rdma_qp_transmit(&s->qp, now, f);
	}
	follow(node, now);
	return any;
}

u64 node_deadline(const struct node *node)
{
	u64 first = cm_deadline(&node->agent);
	u32 i;

	for (i = 0; i < node->config.slices; i++) {
		const struct node_slice *s = &node->slice[i];
		u64 due;

		if (!s->c)
			continue;
		due = rdma_qp_deadline(&s->qp);
		due = MIN(due, s->probe);
		first = MIN(first, due);
	}
	return first;
}
