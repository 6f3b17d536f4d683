/*
 * The connections of this machine to memory nodes: one CM agent and up to FABRIC_LINKS links, each
 * a reliable connection that is made again for as long as the link exists.
 *
 *   WAITING ....... CONNECTING ....... UP ....... DOWN ....... WAITING
 *   for an address,                    work may   ended; completions
 *   or a back-off                      be posted  are to be fetched
 *
 * A connection ends when the peer does not answer (time-outs; an idle one is probed by an empty
 * WRITE), refuses a request, or says good-bye. Everything posted completes, as RDMA_FLUSHED if no
 * otherwise. Each connection has a queue pair number, CM identifier and PSN of its own, so that
 * nothing late of an old one is taken for the new one's.
 *
 * Portable: no allocation, no call-backs but fabric_resolve(); like a QP it has one owner at a
 * time. A round: fabric_take() or fabric_receive() for what has arrived, fabric_work(), the users'
 * work (store_work()), fabric_transmit() until it returns false, fabric_deadline(); again when a
 * frame arrives or at that time. Most frames bring a page's next packet, and nothing to do: before
 * the deadline a round may end after fabric_take(), or after the users' work.
 */
#pragma once

#include "rdma/node.h"

#define FABRIC_LINKS CM_CONNECTIONS

enum link_state {
	LINK_UNUSED,
	LINK_WAITING,
	LINK_CONNECTING,
	LINK_UP,
	LINK_DOWN,
	LINK_LEAVING, /* removed; the peer is being told */
};

struct fabric_peer {
	u32 ip;
	u16 port;
	u16 slice; /* wanted, or NODE_ANY_SLICE */
	u8 token[NODE_TOKEN];
};

/* Users read it. */
struct fabric_link {
	enum link_state state;
	struct fabric_peer peer;
	/* What the node said when it was last UP: its slice, and what the slice's content is. If
	 * `incarnation` is another than before, the content is lost. */
	u64 incarnation, va, length;
	u32 rkey;
	u16 slice;
	u16 refused;	       /* the last attempt: enum cm_reason, 0: none */
	enum rdma_status died; /* why the last connection ended */
	u64 connections;       /* made so far */
	u64 failures;	       /* attempts and connections that ended, not by fabric_unlink() */
	u64 round_trip;	       /* ns from posting to completion, smoothed; 0: not known */
	/* The rest is the fabric's own. */
	u64 client; /* who we are to the node */
	struct cm_connection *c;
	struct rdma_qp qp;
	u64 retry_at, backoff;
	u64 heard;		  /* the peer, last */
	u64 deviation, sample_at; /* 0: not sent yet */
	u32 sample;		  /* index of the request that is timed */
	bool sampling;		  /* one is */
	bool proved;		  /* a request was answered on this connection */
	u64 sample_again;	  /* tx_again when it was posted */
};

struct fabric {
	struct cm_agent agent;
	struct fabric_link link[FABRIC_LINKS];
	u8 mac[6];
	u32 ip, mtu;
	u64 random;
	u32 turn, links; /* none is in use from `links` on */
	bool cm_quiet;	 /* the agent has nothing to send before cm_due */
	u64 cm_due;
	bool look;    /* something has come for a link itself */
	bool pending; /* something may be to be sent */
	u64 due;      /* else fabric_work() has nothing to do before: may be too early */
};

/* mtu: bytes of payload in a packet, 256 to 4096: 1024 for Ethernet's 1500. entropy: random. */
void fabric_init(struct fabric *f, u32 mtu, u64 entropy);
/* This machine's address, at any time; ip 0: it has none. A change ends all connections. */
void fabric_set_address(struct fabric *f, const u8 mac[6], u32 ip);

/* Begins to connect. Returns the link's number, or ERR_BUSY: there is no room. */
int fabric_link(struct fabric *f, const struct fabric_peer *peer);
/* Ends a link. Memory that posted work names is not touched any more; completions are dropped. */
void fabric_unlink(struct fabric *f, u32 link);

static inline bool fabric_up(const struct fabric *f, u32 link)
{
	return f->link[link].state == LINK_UP;
}

/* As rdma_post(); ERR_IO: the link is not up. `work->id` is not FABRIC_PROBE. */
#define FABRIC_PROBE UINT64_MAX
int fabric_post(struct fabric *f, u32 link, const struct rdma_work *work);
/* As rdma_poll_send(). A link that is DOWN goes on when it returned false. */
bool fabric_poll(struct fabric *f, u32 link, struct rdma_completion *c);

/* An Ethernet frame that fabric_take() (take.h) has not taken. */
void fabric_receive(struct fabric *f, u64 now, const u8 *frame, size_t len);
void fabric_work(struct fabric *f, u64 now);
/* The next frame, or false; its payload stays until the work's completion. */
bool fabric_transmit(struct fabric *f, u64 now, struct rdma_frame *frame);
/* True: it would be false. */
static inline bool fabric_rests(const struct fabric *f, u64 now)
{
	return !f->pending && now < f->due;
}

/* For fabric_take(): the answer to what is timed may have come. */
void fabric_sampled(struct fabric_link *l, u64 now);
/*
 * When fabric_transmit() has returned false: by when the next round is to be though nothing arrives
 * before; too early at worst. 0: now.
 */
u64 fabric_deadline(struct fabric *f);

/*
 * Defined by net/ (or a test): the MAC address to send to for `ip`. 0, ERR_BUSY: being asked for,
 * ERR_NODEV: no network.
 */
int fabric_resolve(u32 ip, u8 mac[6]);
