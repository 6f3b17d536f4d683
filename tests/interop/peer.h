/*
 * What the programs here share: an agent of the communication manager and a few queue pairs of
 * hv/rdma on a wire (tools/memnode/wire.h), and waiting for them. A process is one peer.
 *
 * Functions that wait give up with a message and exit status 1 when nothing happens for PATIENCE.
 */
#pragma once

#include "rdma/cm.h"
#include "wire.h"

#define PEER_QPS     2u
#define PEER_REGIONS 1u
#define PATIENCE     (30ull * 1000000000)

struct peer {
	const char *name; /* of the program, for messages */
	struct wire wire;
	struct cm_agent agent;
	struct cm_connection *c; /* the one that we began or accepted; NULL: none yet */
	struct rdma_qp qp[PEER_QPS];
	bool ready[PEER_QPS];
	struct rdma_region region[PEER_REGIONS]; /* of all QPs */
	u64 strange;				 /* frames that did not decode */
};

extern struct peer peer;

_Noreturn void peer_fail(const char *what);
u32 peer_random(void);
/* "A.B.C.D" as a number. */
u32 peer_ip(const char *text);

/* `wire`: LOCAL:REMOTE UDP ports. */
void peer_open(const char *name, const char *wire, u32 ip);
/* Sends what there is and receives for a moment. */
void peer_pump(void);

/* Random identifiers and common values; the caller may change them. */
struct cm_offer peer_offer(u16 mtu);
/*
 * Connects and makes QP 0 of it. False: refused, or no answer in `patience` ns. `ready`, unless
 * NULL, is called when QP 0 can take receives and the peer does not know of it yet.
 */
bool peer_connect(u32 ip, u16 port, const struct cm_offer *offer, u64 patience,
		  void (*ready)(void));
void peer_accept(u16 port, void (*ready)(void));
/* Makes a QP that no agent has connected. */
void peer_make_qp(u32 index, const struct rdma_qp_config *config);
/* Forgets connection and QPs, after telling the other side if it listens. */
void peer_drop(void);
/* Ends the connection, or waits until the other side has: whoever should begin. */
void peer_end(bool begin);

/* Posts and waits; the status it ended with. */
enum rdma_status peer_try(u32 index, const struct rdma_work *work);
/* The same, but must end well. */
void peer_do(u32 index, const struct rdma_work *work);
/* The next message on QP 0, which has to have `length` bytes; returns its receive's id. */
u64 peer_message(u32 length);
/* A line with the counters of QP `index`. */
void peer_print(const char *what, u32 index, u64 ns);
