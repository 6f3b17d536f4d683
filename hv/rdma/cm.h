/*
 * RDMA-CM: connects, accepts, refuses and ends reliable connections (IBTA 12.9, annex A11).
 *
 * An agent is one IPv4 address; it knows CM_CONNECTIONS connections and the ports it listens on.
 * Like a QP it has no call-backs: the owner hands in UD packets for QP 1, fetches frames, looks at
 * `state`, and answers with one of the functions below. A life:
 *
 *   active   cm_connect() REQ_SENT .. REP_RECEIVED cm_establish() ESTABLISHED
 *   passive  REQ_RECEIVED cm_accept() REP_SENT .. ESTABLISHED
 *   both     cm_disconnect() DREQ_SENT .. CLOSED; the peer may begin that too
 *   failing  CLOSED, with `reason`
 *
 * A CLOSED connection still answers repeated messages until cm_release().
 */
#pragma once

#include "rdma/cm_message.h"
#include "rdma/qp.h"

#define CM_CONNECTIONS 16u
#define CM_LISTENERS   4u
#define CM_REPLIES     8u /* refusals that wait to be sent; more are dropped */

enum cm_state {
	CM_FREE,
	CM_REQ_SENT,
	CM_REP_RECEIVED,
	CM_REQ_RECEIVED,
	CM_REP_SENT,
	CM_ESTABLISHED,
	CM_DREQ_SENT,
	CM_CLOSED,
};

/* What one side brings. Identifiers should be random: a peer refuses some that it remembers. */
struct cm_offer {
	u32 comm_id, qpn, psn; /* comm_id not 0 */
	u8 initiator_depth, responder_resources;
	u8 rnr_retry, retry_count; /* of the active side: 3 bits each */
	u8 ack_timeout;		   /* of the active side: 5 bits */
	u16 mtu;		   /* of the active side: bytes */
	u16 port;		   /* of the active side: its own, any */
	u64 tid;		   /* of the active side */
	const void *private_data;
	u32 private_len; /* CM_REQ_USER_PRIVATE or CM_REP_PRIVATE at most */
};

struct cm_connection {
	enum cm_state state;
	bool active;
	u16 reason; /* CLOSED: of a REJ (enum cm_reason), 0: after a disconnect */
	u16 port;   /* of the passive side */
	u16 owes;   /* attribute of the message to send next, 0: none */
	u32 remote_ip;
	u8 remote_mac[6];
	u32 local_id, remote_id;
	u64 tid;
	u32 local_qpn, remote_qpn, local_psn, remote_psn;
	u64 remote_guid;
	u8 initiator_depth, responder_resources; /* ours */
	u8 peer_initiator_depth, peer_responder_resources;
	u8 wish_rnr_retry; /* how often the peer should repeat what finds no receive */
	u8 rnr_retry, retry_count, ack_timeout, mtu; /* mtu: 1 to 5 */
	u16 src_port;
	u8 reject_which;
	u8 tries;
	u64 deadline;
	u32 peer_private_len;
	u8 private_data[CM_REP_PRIVATE]; /* ours */
	u8 peer_private[CM_PRIVATE_MAX]; /* of its REQ (behind the IP header), REP or REJ */
	u64 owner;			 /* for the owner, not used here */
};

struct cm_reply {
	struct cm_message message;
	u32 ip;
	u8 mac[6];
};

struct cm_agent {
	u8 mac[6];
	u32 ip;
	u64 guid;
	u8 timeout;		 /* 5 bits: 4.096 us * 2^timeout for an answer to a message */
	u8 retries;		 /* 4 bits */
	u16 ports[CM_LISTENERS]; /* 0: unused */
	struct cm_connection connection[CM_CONNECTIONS];
	struct cm_reply reply[CM_REPLIES];
	u32 reply_head, reply_tail;
	u32 psn; /* of UD packets */
	u16 ip_id;
	u64 dropped;
	u8 mad[CM_MAD_SIZE];
};

void cm_init(struct cm_agent *agent, const u8 mac[6], u32 ip, u64 guid);
/* ERR_BUSY: CM_LISTENERS ports are taken. */
int cm_listen(struct cm_agent *agent, u16 port);

/* Begins to connect; NULL: no place is free, or the offer is out of range. */
struct cm_connection *cm_connect(struct cm_agent *agent, const struct cm_offer *offer, u32 ip,
				 const u8 mac[6], u16 port);
/* REP_RECEIVED: the QP of cm_qp_config() is ready. */
void cm_establish(struct cm_connection *c);
/* REQ_RECEIVED: the QP is ready once this has returned 0 and cm_qp_config() was applied. */
int cm_accept(struct cm_connection *c, const struct cm_offer *offer);
/* REQ_RECEIVED or REP_RECEIVED. */
void cm_reject(struct cm_connection *c, enum cm_reason reason);
/* REP_SENT: the first packet on the QP says as much as an RTU. */
void cm_data_arrived(struct cm_connection *c);
void cm_disconnect(struct cm_connection *c);
void cm_release(struct cm_connection *c);

/* From REP_RECEIVED or cm_accept() on: fills all of `config` but rnr_timer, window. */
void cm_qp_config(const struct cm_agent *agent, const struct cm_connection *c,
		  struct rdma_qp_config *config);

/* A decoded packet with dest_qp CM_QPN. */
void cm_receive(struct cm_agent *agent, u64 now, const struct rdma_packet *p);
/* The next frame, or false; its payload is in the agent until the next call. */
bool cm_transmit(struct cm_agent *agent, u64 now, struct rdma_frame *f);
/* When cm_transmit() has to be called though nothing happens before. */
u64 cm_deadline(const struct cm_agent *agent);
