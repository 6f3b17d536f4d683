/*
 * A memory node: lends memory to clients that connect by RDMA-CM, and is passive after that: they
 * READ and WRITE their slice. Portable as the rest of rdma/; whoever has frames can be a node.
 *
 * The memory is divided into equal slices. A slice keeps its content when its client goes; the same
 * client (host and number) may take it again, also while the node believes the old connection
 * alive. A client that is silent is probed with empty WRITEs, and its slice is free when it does
 * not acknowledge them. `incarnation` is what a slice's content is: random for each start of the
 * node, and another one when another client has had the slice. If it has changed, the content is
 * lost.
 */
#pragma once

#include "rdma/cm.h"

#define NODE_SLICES    8u /* at most */
#define NODE_PORT      7471
#define NODE_MAGIC     0x554d524eu /* "UMRN" */
#define NODE_VERSION   1
#define NODE_ANY_SLICE 0xffff
#define NODE_TOKEN     16u
#define NODE_KEEPALIVE 5000000000ull /* ns of silence */

/* Private data of a client's REQ, and of the node's REP. Big-endian. */
struct node_request {
	u8 magic[4], version[2];
	u8 slice[2]; /* or NODE_ANY_SLICE: the client's own, or a free one */
	u8 token[NODE_TOKEN];
	u8 client[8]; /* a number that the client keeps; 0: it has none, and no slice of its own */
};

struct node_answer {
	u8 magic[4], version[2];
	u8 slice[2];
	u8 incarnation[8];
	u8 va[8], length[8];
	u8 rkey[4];
	u8 slices[2], slices_used[2];
};

_Static_assert(sizeof(struct node_request) == 32, "fits into CM_REQ_USER_PRIVATE");
_Static_assert(sizeof(struct node_answer) == 40, "fits into CM_REP_PRIVATE");

struct node_config {
	u8 mac[6];
	u32 ip;
	u64 guid;
	u16 port;
	u8 *memory;
	u64 length;
	u32 slices;  /* 1 to NODE_SLICES */
	u64 entropy; /* random: identifiers, keys and the incarnation come from it */
	u8 token[NODE_TOKEN];
};

struct node_slice {
	struct rdma_qp qp;
	struct rdma_region region;
	struct cm_connection *c; /* NULL: free */
	u32 client_ip;		 /* who has it, or had it last; 0: nobody yet */
	u64 client;
	u32 clients; /* that followed one another */
	u64 probe;   /* when the client is asked whether it lives, unless it is heard before */
};

struct node {
	struct cm_agent agent;
	struct node_config config;
	struct node_slice slice[NODE_SLICES];
	u64 incarnation, random;
	u64 refused, taken_over;
	u32 turn;
};

/* ERR_INVAL: no slices, too many, or nothing for them. */
int node_init(struct node *node, const struct node_config *config);
/* An Ethernet frame; what is not for the node is ignored. */
void node_receive(struct node *node, u64 now, const u8 *frame, size_t len);
/* The next frame, or false. */
bool node_transmit(struct node *node, u64 now, struct rdma_frame *f);
u64 node_deadline(const struct node *node);

/* For clients; those that have a number fill in `client` afterwards. */
void node_request_encode(struct node_request *r, u16 slice, const u8 token[NODE_TOKEN]);
/* ERR_INVAL: not a node's answer, or of another version. */
int node_answer_check(const struct node_answer *a);
