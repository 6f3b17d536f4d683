/*
 * A reliable connection (RC) queue pair: requester and responder (IBTA 9.7, A17).
 *
 * READ, WRITE with and without immediate, SEND with and without immediate. One owner at a time; no
 * allocation, no call-backs: the owner hands in what was received, and fetches frames to transmit
 * and completions. Time is nanoseconds of any clock that does not go back.
 *
 * Memory that a work request names must stay until its completion has been fetched; a frame's
 * payload is that memory itself. What the peer sends is checked against `struct rdma_region` for
 * every packet in both directions.
 */
#pragma once

#include "rdma/packet.h"

#define RDMA_SEND_MAX	 64u	    /* work requests posted and not fetched; a power of two */
#define RDMA_RECV_MAX	 64u	    /* receives likewise; a power of two */
#define RDMA_READ_MAX	 16u	    /* READs outstanding in either direction */
#define RDMA_MESSAGE_MAX (1u << 30) /* bytes */
#define RDMA_NEVER	 UINT64_MAX /* a time that does not come */

/* Packet sequence numbers have 24 bits; two of them are compared within half of the range. */
#define PSN_MASK 0xffffffu
#define PSN_SPAN 0x7fffffu /* most that may be outstanding */

static inline u32 psn_add(u32 psn, u32 n)
{
	return (psn + n) & PSN_MASK;
}

/* a - b, -2^23 to 2^23 - 1. */
static inline s32 psn_diff(u32 a, u32 b)
{
	return (s32)((a - b) << 8) >> 8;
}

#define RDMA_REMOTE_READ  0x1
#define RDMA_REMOTE_WRITE 0x2

/* Memory that peers may access. The low byte of `rkey` is the index in the table. */
struct rdma_region {
	u8 *base;
	u64 va, length; /* peers name [va, va + length); va + length does not wrap */
	u32 rkey;
	u8 access; /* RDMA_REMOTE_*; 0: the entry is unused */
};

struct rdma_regions {
	const struct rdma_region *table;
	u32 count; /* at most 256 */
};

/* Where [va, va + len) lies if `rkey` allows every access of `access` to all of it, else NULL. */
u8 *rdma_region_find(const struct rdma_regions *regions, u32 rkey, u64 va, u64 len, u8 access);

enum rdma_status {
	RDMA_OK,
	RDMA_FLUSHED,	     /* the QP went to the error state first */
	RDMA_RETRY_EXCEEDED, /* no answer */
	RDMA_RNR_EXCEEDED,   /* the peer has no receive posted */
	RDMA_REMOTE_INVALID, /* NAK: invalid request */
	RDMA_REMOTE_ACCESS,  /* NAK: remote access error */
	RDMA_REMOTE_ERROR,   /* NAK: remote operational error */
	RDMA_BAD_RESPONSE,   /* a READ response that does not fit its request */
	RDMA_RECV_TOO_SHORT, /* a message longer than the receive */
};

enum rdma_operation {
	RDMA_WRITE,
	RDMA_WRITE_IMM,
	RDMA_READ,
	RDMA_SEND,
	RDMA_SEND_IMM,
};

struct rdma_work {
	u64 id;
	enum rdma_operation op;
	bool fence; /* begins when all READs before it are complete */
	bool solicited;
	void *data; /* READ stores here, the others only read */
	u32 length; /* up to RDMA_MESSAGE_MAX; 0 needs neither data nor rkey */
	u32 rkey;
	u64 va;
	u32 imm;
};

struct rdma_receive {
	u64 id;
	void *data;
	u32 length;
};

struct rdma_completion {
	u64 id;
	enum rdma_status status;
	u32 length; /* of a message received */
	u32 imm;
	bool has_imm;
};

struct rdma_qp_config {
	u8 local_mac[6], remote_mac[6];
	u32 local_ip, remote_ip;
	u16 src_port; /* UDP; 0xc000 and up by A17.9.2 */
	u32 local_qpn, remote_qpn;
	u32 send_psn, recv_psn; /* of our first request and of the peer's */
	u32 mtu;		/* 256, 512, 1024, 2048 or 4096 bytes of payload */
	u8 timeout;		/* 5 bits: 4.096 us * 2^timeout for an answer, 0: for ever */
	u8 retry_count;		/* time-outs in a row that are forgiven */
	u8 rnr_retry;		/* likewise for RNR NAKs; 7: without limit */
	u8 rnr_timer;		/* 5 bits: the code that our RNR NAKs carry */
	u8 initiator_depth;	/* READs we may have outstanding, 0 to RDMA_READ_MAX */
	u8 responder_resources; /* READs the peer may have outstanding, 0 to RDMA_READ_MAX */
	u32 window;		/* packets in flight at most, a READ counting its responses */
};

/* A posted request: it owns the PSNs [first_psn, first_psn + packets). */
struct rdma_send {
	struct rdma_work work;
	u32 first_psn, packets;
	u32 received; /* READ: response packets stored */
	enum rdma_status status;
};

/* Indices run freely: head <= una <= next <= tail. */
struct rdma_requester {
	struct rdma_send ring[RDMA_SEND_MAX];
	u32 head; /* oldest not fetched; complete up to una */
	u32 una;  /* oldest not complete */
	u32 next; /* the one that transmits */
	u32 tail;
	u32 una_psn;  /* oldest PSN without answer */
	u32 send_psn; /* next to transmit, within ring[next]; before una_psn if a READ is repeated
		       */
	u32 sent_psn; /* one after the last that was ever sent */
	u32 post_psn; /* first PSN of the next work request */
	u32 window, window_credit;
	u32 cut_psn; /* the window is not cut again before this is answered */
	u32 unasked; /* packets since an acknowledgement was asked for */
	u64 deadline, rnr_until;
	u8 retries, rnr_retries;
	bool went_back; /* for a gap; not again before progress or a time-out */
};

enum rdma_response_kind {
	RESPONSE_ACK,
	RESPONSE_READ
};

/* Something to answer, in the order of PSNs asked. */
struct rdma_response {
	u8 kind;     /* enum rdma_response_kind */
	u8 syndrome; /* RESPONSE_ACK: AETH */
	u32 psn, msn;
	u32 packets, sent; /* RESPONSE_READ, as are the following */
	u32 rkey, length;
	u64 va;
};

#define RDMA_RESPONSE_MAX 64u /* a power of two; READs, repeated ones, and ACKs between them */

struct rdma_responder {
	u32 expected_psn, msn;
	bool nak_sent;	/* what comes out of order is dropped until the expected packet is here */
	u32 message;	/* OPF_SEND or OPF_WRITE while one is incomplete, else 0 */
	u64 va;		/* WRITE: where the next packet goes */
	u32 rkey, left; /* and how much is to come */
	u32 received;	/* SEND: bytes stored in the receive at `used`; WRITE: bytes so far */
	struct rdma_receive ring[RDMA_RECV_MAX];
	struct rdma_completion done[RDMA_RECV_MAX];
	u32 head, used, tail; /* fetched up to head, complete up to used, posted up to tail */
	struct rdma_response queue[RDMA_RESPONSE_MAX];
	u32 queue_head, queue_tail;
};

/* What is the same in the headers of all the peer's answers, IPv4 to the PSN. */
struct rdma_expected {
	u64 word[5];
};

struct rdma_qp_stats {
	u64 tx_packets, rx_packets;
	u64 tx_again; /* request packets repeated */
	u64 timeouts, gaps, naks, rnr_naks;
	u64 duplicates;	   /* requests seen before */
	u64 dropped;	   /* packets that fit nowhere */
	u64 cnps, tx_cnps; /* congestion notifications received and sent */
};

enum rdma_qp_state {
	RDMA_QP_ERROR,
	RDMA_QP_READY
};

struct rdma_qp {
	enum rdma_qp_state state;
	struct rdma_qp_config config;
	struct rdma_regions regions;
	struct rdma_requester req;
	struct rdma_responder resp;
	struct rdma_template template;
	struct rdma_expected expected;
	u16 ip_id;
	bool requester_turn;
	bool cnp_due;  /* the peer has to hear that its packets met congestion */
	u64 cnp_after; /* and not again before this time */
	struct rdma_qp_stats stats;
};

/*
 * Makes a QP that sends and receives. `regions` is copied, its table is not and may change at any
 * time between calls. ERR_INVAL: a value out of the ranges above.
 */
int rdma_qp_init(struct rdma_qp *qp, const struct rdma_qp_config *config,
		 const struct rdma_regions *regions);

/* To the error state: everything posted completes as RDMA_FLUSHED, nothing more is sent. */
void rdma_qp_close(struct rdma_qp *qp);

/* ERR_BUSY: no room before completions are fetched. ERR_INVAL: too long. ERR_IO: not ready. */
int rdma_post(struct rdma_qp *qp, const struct rdma_work *work);
int rdma_post_receive(struct rdma_qp *qp, const struct rdma_receive *receive);

/* False if there is none. Both in the order of posting, also after an error. */
bool rdma_poll_send(struct rdma_qp *qp, struct rdma_completion *c);
bool rdma_poll_receive(struct rdma_qp *qp, struct rdma_completion *c);

/* A decoded packet whose dest_qp is this QP's. */
void rdma_qp_receive(struct rdma_qp *qp, u64 now, const struct rdma_packet *p);

/* What has become of a frame that was offered to the short way, rdma_qp_take() in take.h. */
enum rdma_taken {
	RDMA_OTHER, /* something else, or not right: nothing has happened, it is for those two */
	RDMA_TAKEN, /* and nothing is complete by it */
	RDMA_COMPLETES, /* there are completions */
};

/* The next frame to transmit, or false. Time-outs are noticed here. */
bool rdma_qp_transmit(struct rdma_qp *qp, u64 now, struct rdma_frame *f);

/* Asked often, and mostly there is nothing to transmit. */
static inline bool rdma_qp_quiet(const struct rdma_qp *qp, u64 now)
{
	return qp->req.next == qp->req.tail && now < qp->req.deadline &&
	       qp->resp.queue_head == qp->resp.queue_tail && !qp->req.rnr_until && !qp->cnp_due;
}

/* When rdma_qp_transmit() has to be called though nothing is posted or received before. */
u64 rdma_qp_deadline(const struct rdma_qp *qp);

/* The time that the timer code of an RNR NAK means, IBTA table 45, in nanoseconds. */
u64 rdma_rnr_time(u8 code);
