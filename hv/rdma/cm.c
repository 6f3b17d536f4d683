#include "rdma/cm.h"

#include "lib/string.h"

#define CM_TIMEOUT     18u /* about one second, while an emulated peer needs up to 50 ms */
#define CM_RETRIES     7u
#define CM_SRC_PORT    0xc001
#define CM_MRA_TIMEOUT 20u /* about four seconds */
#define CM_ACK_DELAY   15u
#define CM_TTL	       64
#define PORT_MASK      0xffffull
#define NO_LID	       0xffff

void cm_init(struct cm_agent *agent, const u8 mac[6], u32 ip, u64 guid)
{
	memset(agent, 0, sizeof(*agent));
	memcpy(agent->mac, mac, sizeof(agent->mac));
	agent->ip = ip;
	agent->guid = guid;
	agent->timeout = CM_TIMEOUT;
	agent->retries = CM_RETRIES;
}

int cm_listen(struct cm_agent *agent, u16 port)
{
	u32 i;

	for (i = 0; i < CM_LISTENERS; i++)
		if (!agent->ports[i] || agent->ports[i] == port) {
			agent->ports[i] = port;
			return 0;
		}
	return ERR_BUSY;
}

static bool listening(const struct cm_agent *agent, u64 service)
{
	u32 i;

	if ((service & ~PORT_MASK) != CM_SERVICE_TCP || !(service & PORT_MASK))
		return false;
	for (i = 0; i < CM_LISTENERS; i++)
		if (agent->ports[i] == (service & PORT_MASK))
			return true;
	return false;
}

static u64 time_of(u8 code)
{
	return 4096ull << (code & 31);
}

static struct cm_connection *free_connection(struct cm_agent *agent)
{
	u32 i;

	for (i = 0; i < CM_CONNECTIONS; i++)
		if (agent->connection[i].state == CM_FREE) {
			memset(&agent->connection[i], 0, sizeof(agent->connection[i]));
			agent->connection[i].deadline = RDMA_NEVER;
			return &agent->connection[i];
		}
	return NULL;
}

/* --- what the owner does -------------------------------------------------------------------- */

static bool offer_valid(const struct cm_offer *o, u32 private_max)
{
	return o->comm_id && o->qpn <= PSN_MASK && o->psn <= PSN_MASK &&
	       o->initiator_depth <= RDMA_READ_MAX && o->responder_resources <= RDMA_READ_MAX &&
	       o->rnr_retry < 8 && o->private_len <= private_max;
}

static void take_offer(struct cm_connection *c, const struct cm_offer *o)
{
	c->local_id = o->comm_id;
	c->local_qpn = o->qpn;
	c->local_psn = o->psn;
	c->initiator_depth = o->initiator_depth;
	c->responder_resources = o->responder_resources;
	c->wish_rnr_retry = o->rnr_retry;
	memset(c->private_data, 0, sizeof(c->private_data));
	if (o->private_len)
		memcpy(c->private_data, o->private_data, o->private_len);
}

/* Sends a message that wants an answer. */
static void ask(struct cm_connection *c, enum cm_state state, u16 attribute)
{
	c->state = state;
	c->owes = attribute;
	c->tries = 0;
	c->deadline = RDMA_NEVER; /* set when it is sent */
}

static void closed(struct cm_connection *c, u16 reason)
{
	c->state = CM_CLOSED;
	c->reason = reason;
	c->deadline = RDMA_NEVER;
}

struct cm_connection *cm_connect(struct cm_agent *agent, const struct cm_offer *offer, u32 ip,
				 const u8 mac[6], u16 port)
{
	struct cm_connection *c;
	u8 code = 1;

	while (code < 5 && 128u << code < offer->mtu)
		code++;
	if (!offer_valid(offer, CM_REQ_USER_PRIVATE) || 128u << code != offer->mtu ||
	    offer->retry_count > 7 || offer->ack_timeout > 31)
		return NULL;
	c = free_connection(agent);
	if (!c)
		return NULL;
	take_offer(c, offer);
	c->active = true;
	c->mtu = code;
	c->retry_count = offer->retry_count;
	c->ack_timeout = offer->ack_timeout;
	c->tid = offer->tid;
	c->src_port = offer->port;
	c->port = port;
	c->remote_ip = ip;
	memcpy(c->remote_mac, mac, sizeof(c->remote_mac));
	ask(c, CM_REQ_SENT, CM_REQ);
	return c;
}

void cm_establish(struct cm_connection *c)
{
	if (c->state != CM_REP_RECEIVED)
		return;
	c->state = CM_ESTABLISHED;
	c->owes = CM_RTU;
	c->deadline = RDMA_NEVER;
}

int cm_accept(struct cm_connection *c, const struct cm_offer *offer)
{
	if (c->state != CM_REQ_RECEIVED || !offer_valid(offer, CM_REP_PRIVATE))
		return ERR_INVAL;
	take_offer(c, offer);
	/* No more than the peer may ask for, or answer. */
	c->responder_resources = MIN(c->responder_resources, c->peer_initiator_depth);
	c->initiator_depth = MIN(c->initiator_depth, c->peer_responder_resources);
	ask(c, CM_REP_SENT, CM_REP);
	return 0;
}

void cm_reject(struct cm_connection *c, enum cm_reason reason)
{
	if (c->state != CM_REQ_RECEIVED && c->state != CM_REP_RECEIVED)
		return;
	c->reject_which = c->state == CM_REP_RECEIVED;
	closed(c, (u16)reason);
	c->owes = CM_REJ;
}

void cm_data_arrived(struct cm_connection *c)
{
	if (c->state != CM_REP_SENT)
		return;
	c->state = CM_ESTABLISHED;
	c->owes = 0;
	c->deadline = RDMA_NEVER;
}

void cm_disconnect(struct cm_connection *c)
{
	if (c->state == CM_ESTABLISHED || c->state == CM_REP_SENT)
		ask(c, CM_DREQ_SENT, CM_DREQ);
}

void cm_release(struct cm_connection *c)
{
	c->state = CM_FREE;
}

void cm_qp_config(const struct cm_agent *agent, const struct cm_connection *c,
		  struct rdma_qp_config *config)
{
	memcpy(config->local_mac, agent->mac, sizeof(config->local_mac));
	memcpy(config->remote_mac, c->remote_mac, sizeof(config->remote_mac));
	config->local_ip = agent->ip;
	config->remote_ip = c->remote_ip;
	/* Switches that spread by ports keep one connection on one path. */
	config->src_port = (u16)(0xc000 | ((c->local_qpn ^ c->remote_qpn) & 0x3fff));
	config->local_qpn = c->local_qpn;
	config->remote_qpn = c->remote_qpn;
	/* Each side names the PSN that it expects, not the one that it will send. */
	config->send_psn = c->remote_psn;
	config->recv_psn = c->local_psn;
	config->mtu = 128u << c->mtu;
	config->timeout = c->ack_timeout;
	config->retry_count = c->retry_count;
	config->rnr_retry = c->rnr_retry;
	config->initiator_depth = MIN(c->initiator_depth, c->peer_responder_resources);
	config->responder_resources = c->responder_resources;
}

/* --- what arrives --------------------------------------------------------------------------- */

static void reply(struct cm_agent *agent, const struct rdma_packet *p, const struct cm_message *to,
		  u16 attribute, u16 reason)
{
	struct cm_reply *r = &agent->reply[agent->reply_tail % CM_REPLIES];

	if (agent->reply_tail - agent->reply_head == CM_REPLIES) {
		agent->dropped++;
		return;
	}
	agent->reply_tail++;
	memset(r, 0, sizeof(*r));
	r->message.attribute = attribute;
	r->message.tid = to->tid;
	r->message.local_id = to->remote_id;
	r->message.remote_id = to->local_id;
	r->message.reason = reason;
	r->ip = p->src_ip;
	memcpy(r->mac, p->src_mac, sizeof(r->mac));
}

/* Reason to refuse a REQ on its own, or 0. */
static u16 req_reason(const struct cm_agent *agent, const struct rdma_packet *p,
		      const struct cm_message *m)
{
	struct cm_ip_header ip;

	if (!listening(agent, m->service_id) || cm_ip_decode(&ip, m->private_data))
		return CM_REJ_INVALID_SERVICE;
	if (m->transport)
		return CM_REJ_INVALID_TRANSPORT;
	if (m->mtu < 1 || m->mtu > 5)
		return CM_REJ_INVALID_MTU;
	if (!cm_gid_is_ip(m->remote_gid, agent->ip) || !cm_gid_is_ip(m->local_gid, p->src_ip))
		return CM_REJ_REMOTE_GID;
	return 0;
}

static void fill_passive(struct cm_connection *c, const struct rdma_packet *p,
			 const struct cm_message *m)
{
	struct cm_ip_header ip;

	cm_ip_decode(&ip, m->private_data);
	c->src_port = ip.src_port;
	c->port = (u16)(m->service_id & PORT_MASK);
	c->remote_ip = p->src_ip;
	memcpy(c->remote_mac, p->src_mac, sizeof(c->remote_mac));
	c->remote_id = m->local_id;
	c->tid = m->tid;
	c->remote_qpn = m->qpn;
	c->remote_psn = m->psn;
	c->remote_guid = m->guid;
	c->peer_initiator_depth = m->initiator_depth;
	c->peer_responder_resources = m->responder_resources;
	c->rnr_retry = m->rnr_retry;
	c->retry_count = m->retry_count;
	c->ack_timeout = m->ack_timeout;
	c->mtu = m->mtu;
	c->peer_private_len = CM_REQ_USER_PRIVATE;
	memcpy(c->peer_private, m->private_data + CM_IP_HEADER, CM_REQ_USER_PRIVATE);
}

/* The same REQ again: the answer was lost, or is not decided. */
static void repeated_req(struct cm_connection *c)
{
	if (c->state == CM_REQ_RECEIVED)
		c->owes = CM_MRA;
	else if (c->state == CM_REP_SENT)
		c->owes = CM_REP;
	else if (c->state == CM_CLOSED && c->reason && !c->active)
		c->owes = CM_REJ;
}

static void receive_req(struct cm_agent *agent, const struct rdma_packet *p,
			const struct cm_message *m)
{
	struct cm_connection *c;
	bool stale = false;
	u16 reason;
	u32 i;

	for (i = 0; i < CM_CONNECTIONS; i++) {
		c = &agent->connection[i];
		if (c->state == CM_FREE || c->active || c->remote_ip != p->src_ip)
			continue;
		if (c->remote_id == m->local_id && c->remote_qpn == m->qpn && c->tid == m->tid) {
			repeated_req(c);
			return;
		}
		/* The peer's QP cannot be in two connections: it has forgotten the first. */
		if (c->remote_qpn == m->qpn && c->remote_guid == m->guid && c->state != CM_CLOSED) {
			stale = true;
			cm_disconnect(c);
		}
	}
	reason = stale ? CM_REJ_STALE : req_reason(agent, p, m);
	c = reason ? NULL : free_connection(agent);
	if (!c) {
		reply(agent, p, m, CM_REJ, reason ? reason : CM_REJ_NO_QP);
		return;
	}
	fill_passive(c, p, m);
	c->state = CM_REQ_RECEIVED;
}

static void receive_rep(struct cm_connection *c, const struct cm_message *m)
{
	if (c->state == CM_ESTABLISHED && c->active && m->local_id == c->remote_id) {
		c->owes = CM_RTU;
		return;
	}
	if (c->state != CM_REQ_SENT)
		return;
	c->state = CM_REP_RECEIVED;
	c->owes = 0;
	c->deadline = RDMA_NEVER;
	c->remote_id = m->local_id;
	c->remote_qpn = m->qpn;
	c->remote_psn = m->psn;
	c->remote_guid = m->guid;
	c->peer_initiator_depth = m->initiator_depth;
	c->peer_responder_resources = m->responder_resources;
	c->rnr_retry = m->rnr_retry;
	c->peer_private_len = m->private_len;
	memcpy(c->peer_private, m->private_data, m->private_len);
}

static void receive_rej(struct cm_connection *c, const struct cm_message *m)
{
	if (c->state != CM_REQ_SENT && c->state != CM_REP_SENT && c->state != CM_REP_RECEIVED)
		return;
	closed(c, m->reason ? m->reason : CM_REJ_CONSUMER);
	c->owes = 0;
	c->peer_private_len = m->private_len;
	memcpy(c->peer_private, m->private_data, m->private_len);
}

/* The peer has seen the message and wants more time for the answer. */
static void receive_mra(struct cm_connection *c, u64 now, const struct cm_message *m)
{
	if ((c->state != CM_REQ_SENT || m->which != 0) &&
	    (c->state != CM_REP_SENT || m->which != 1))
		return;
	c->deadline = now + time_of(m->service_timeout);
	c->owes = 0;
}

static void receive_dreq(struct cm_connection *c, const struct cm_message *m)
{
	if (m->qpn != c->local_qpn || m->local_id != c->remote_id)
		return;
	if (c->state == CM_ESTABLISHED || c->state == CM_REP_SENT || c->state == CM_DREQ_SENT)
		closed(c, 0);
	if (c->state == CM_CLOSED) {
		c->tid = m->tid;
		c->owes = CM_DREP;
	}
}

static struct cm_connection *by_id(struct cm_agent *agent, u32 ip, u32 id)
{
	u32 i;

	for (i = 0; i < CM_CONNECTIONS; i++) {
		struct cm_connection *c = &agent->connection[i];

		if (c->state != CM_FREE && c->state != CM_REQ_RECEIVED && c->local_id == id &&
		    c->remote_ip == ip)
			return c;
	}
	return NULL;
}

void cm_receive(struct cm_agent *agent, u64 now, const struct rdma_packet *p)
{
	struct cm_connection *c;
	struct cm_message m;

	if (p->opcode != OP_UD_SEND_ONLY || p->dest_qp != CM_QPN || p->deth.qkey != CM_QKEY ||
	    p->dst_ip != agent->ip || cm_decode(&m, p->payload, p->payload_len)) {
		agent->dropped++;
		return;
	}
	if (m.attribute == CM_REQ) {
		receive_req(agent, p, &m);
		return;
	}
	c = by_id(agent, p->src_ip, m.remote_id);
	if (!c) {
		/* Whoever wants to end what is not there has what he wants. */
		if (m.attribute == CM_DREQ)
			reply(agent, p, &m, CM_DREP, 0);
		else
			agent->dropped++;
		return;
	}
	switch (m.attribute) {
	case CM_REP:
		receive_rep(c, &m);
		break;
	case CM_RTU:
		if (m.local_id == c->remote_id)
			cm_data_arrived(c);
		break;
	case CM_REJ:
		receive_rej(c, &m);
		break;
	case CM_MRA:
		receive_mra(c, now, &m);
		break;
	case CM_DREQ:
		receive_dreq(c, &m);
		break;
	default: /* DREP */
		if (c->state == CM_DREQ_SENT && m.local_id == c->remote_id) {
			closed(c, 0);
			c->owes = 0;
		}
		break;
	}
}

/* --- what is sent --------------------------------------------------------------------------- */

static void build_req(const struct cm_agent *agent, const struct cm_connection *c,
		      struct cm_message *m)
{
	struct cm_ip_header ip = {c->src_port, agent->ip, c->remote_ip};

	m->service_id = CM_SERVICE_TCP | c->port;
	m->remote_timeout = agent->timeout;
	m->local_timeout = agent->timeout;
	m->retry_count = c->retry_count;
	m->max_cm_retries = agent->retries;
	m->mtu = c->mtu;
	m->pkey = 0xffff;
	m->local_lid = m->remote_lid = NO_LID;
	cm_gid_from_ip(m->local_gid, agent->ip);
	cm_gid_from_ip(m->remote_gid, c->remote_ip);
	m->hop_limit = CM_TTL;
	m->ack_timeout = c->ack_timeout;
	cm_ip_encode(&ip, m->private_data);
	memcpy(m->private_data + CM_IP_HEADER, c->private_data, CM_REQ_USER_PRIVATE);
}

static void build(const struct cm_agent *agent, const struct cm_connection *c, struct cm_message *m)
{
	memset(m, 0, sizeof(*m));
	m->attribute = c->owes;
	m->tid = c->tid;
	m->local_id = c->local_id;
	m->remote_id = c->remote_id;
	m->guid = agent->guid;
	m->qpn = c->owes == CM_DREQ ? c->remote_qpn : c->local_qpn;
	m->psn = c->local_psn;
	m->responder_resources = c->responder_resources;
	m->initiator_depth = c->initiator_depth;
	m->rnr_retry = c->wish_rnr_retry;
	m->ack_delay = CM_ACK_DELAY;
	m->reason = c->reason;
	m->which = c->owes == CM_REJ ? c->reject_which : 0;
	m->service_timeout = CM_MRA_TIMEOUT;
	if (c->owes == CM_REQ)
		build_req(agent, c, m);
	else if (c->owes == CM_REP)
		memcpy(m->private_data, c->private_data, CM_REP_PRIVATE);
}

/* Repeats what has no answer, or gives up. */
static void check_time(struct cm_agent *agent, struct cm_connection *c, u64 now)
{
	if (c->state == CM_FREE || now < c->deadline)
		return;
	c->deadline = RDMA_NEVER;
	if (c->tries > agent->retries)
		closed(c, c->state == CM_DREQ_SENT ? 0 : CM_REJ_TIMEOUT);
	else
		c->owes = c->state == CM_REQ_SENT   ? CM_REQ
			  : c->state == CM_REP_SENT ? CM_REP
						    : CM_DREQ;
}

static bool encode(struct cm_agent *agent, const struct cm_message *m, u32 ip, const u8 mac[6],
		   struct rdma_frame *f)
{
	struct rdma_packet p;

	if (cm_encode(m, agent->mad))
		return false;
	memset(&p, 0, sizeof(p));
	memcpy(p.dst_mac, mac, sizeof(p.dst_mac));
	memcpy(p.src_mac, agent->mac, sizeof(p.src_mac));
	p.dst_ip = ip;
	p.src_ip = agent->ip;
	p.ip_id = agent->ip_id++;
	p.ttl = CM_TTL;
	p.dont_fragment = true;
	p.src_port = CM_SRC_PORT;
	p.opcode = OP_UD_SEND_ONLY;
	p.migrated = true;
	p.pkey = 0xffff;
	p.dest_qp = CM_QPN;
	p.psn = agent->psn;
	agent->psn = psn_add(agent->psn, 1);
	p.deth.qkey = CM_QKEY;
	p.deth.src_qp = CM_QPN;
	p.payload = agent->mad;
	p.payload_len = CM_MAD_SIZE;
	return rdma_encode(&p, f) == 0;
}

bool cm_transmit(struct cm_agent *agent, u64 now, struct rdma_frame *f)
{
	struct cm_message m;
	u32 i;

	if (agent->reply_head != agent->reply_tail) {
		const struct cm_reply *r = &agent->reply[agent->reply_head++ % CM_REPLIES];

		return encode(agent, &r->message, r->ip, r->mac, f);
	}
	for (i = 0; i < CM_CONNECTIONS; i++) {
		struct cm_connection *c = &agent->connection[i];

		check_time(agent, c, now);
		if (c->state == CM_FREE || !c->owes)
			continue;
		build(agent, c, &m);
		if (c->owes == CM_REQ || c->owes == CM_REP || c->owes == CM_DREQ) {
			c->tries++;
			c->deadline = now + time_of(agent->timeout);
		}
		c->owes = 0;
		return encode(agent, &m, c->remote_ip, c->remote_mac, f);
	}
	return false;
}

u64 cm_deadline(const struct cm_agent *agent)
{
	u64 first = RDMA_NEVER;
	u32 i;

	for (i = 0; i < CM_CONNECTIONS; i++)
		if (agent->connection[i].state != CM_FREE)
			first = MIN(first, agent->connection[i].deadline);
	return first;
}
