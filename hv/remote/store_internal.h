/* What store.c (operations), store_map.c (where copies lie) and store_repair.c share. */
#pragma once

#include "remote/seal.h"
#include "remote/store.h"

#define STORE_REPAIRS 4u
#define STORE_OPS     (STORE_INFLIGHT + STORE_REPAIRS)
#define STORE_WRITES  32u /* with a buffer at a time: they are sealed in it */
#define STORE_BUFFERS (STORE_WRITES + STORE_REPAIRS)
#define STORE_SLAB    64u /* slots made ready at a time: a word of the bitmap */
#define ALL_NODES     (BIT(STORE_NODES) - 1)
#define NO_NODE	      STORE_NODES
#define NO_BUFFER     STORE_BUFFERS

/* page_flags[]: the nodes whose copy is the page as it was last written (one bit each), and: */
#define PAGE_WRITTEN 0x10
#define PAGE_BUSY    0x20 /* an operation or a repair names it */
#define PAGE_SHARED  0x40 /* perhaps more than one does */

_Static_assert(ALL_NODES < PAGE_WRITTEN, "the bits of nodes are below");

struct store_node {
	u32 link;
	const struct fabric_link *l; /* that one */
	bool up;		     /* usable: what it has is known */
	bool used;		     /* it was up once: incarnation and slots are known */
	u64 incarnation, length;
	u64 down_since;
	bool replaced;	  /* it has been away for so long that its copies do not count */
	u32 slots, taken; /* there are; pages have */
	u32 ready[STORE_SLAB], ready_count;
	u32 cursor;   /* word of the bitmap where the next slab is looked for */
	u64 *bitmap;  /* of slots: taken or ready */
	u32 inflight; /* requests posted */
	u32 writes;   /* of these */
};

enum op_kind {
	OP_READ,
	OP_WRITE,
	OP_REPAIR
};

enum op_state {
	OP_FREE,
	OP_QUEUED, /* waits for another one on the same page, or for a buffer */
	OP_ACTIVE,
	OP_DONE,
};

struct store_op {
	enum op_kind kind;
	enum op_state state;
	u64 id, number; /* numbers grow: which of two is older */
	void *data;	/* the owner's */
	u8 *wire;	/* what travels: that, or a buffer */
	u32 page;
	u32 buffer;   /* NO_BUFFER: none */
	u32 pending;  /* nodes that have not answered yet */
	u32 acked;    /* WRITE: nodes that have it */
	bool begun;   /* WRITE: the page's older copies are invalid */
	bool dropped; /* REPAIR: the page has been discarded */
	bool writing; /* REPAIR: the second half */
	enum store_result result;
	u32 target;  /* REPAIR */
	u64 since;   /* it has waited for a node; 0: it does not */
	u64 version; /* WRITE: the new one */
	u8 tag[SEAL_TAG];
	struct store_op *next; /* of those that are free, or of those that are done */
};

struct store {
	struct store_head head; /* first */
	struct store_config config;
	struct seal seal;
	struct store_node node[STORE_NODES];
	struct store_op op[STORE_OPS]; /* the last STORE_REPAIRS are repairs */
	struct store_op *free, *done;
	u32 free_buffer[STORE_BUFFERS], free_buffers;
	u64 now;
	u64 numbers;  /* given to operations */
	u64 versions; /* given to writes */
	u32 turn;     /* the next operation to get a place */
	u32 repairs;  /* under way */
	u32 scan_at, scan_left;
	bool lacking; /* the scan has met pages that it could do nothing for */
	u64 repair_at, rescan_at;
	struct store_stats stats;
	u8 *page_flags;
	u32 *slots;   /* [page * nodes + node]: its slot there + 1, 0: none */
	u64 *version; /* of each page, if sealed */
	u8 (*tag)[SEAL_TAG];
	u8 *buffers;
};

_Static_assert(STORE_INFLIGHT == 64, "a bit of `waiting` for each");
_Static_assert(offsetof(struct store, head) == 0, "store_head()");

/* --- store_map.c ---------------------------------------------------------------------------- */

static inline u32 *slot_of(struct store *s, u32 page, u32 node)
{
	return &s->slots[(size_t)page * s->config.nodes + node];
}

static inline bool node_has_room(const struct store_node *n)
{
	return n->taken < n->slots;
}

static inline u32 nodes_in(u32 mask)
{
	u32 n = 0;

	for (mask &= ALL_NODES; mask; mask &= mask - 1)
		n++;
	return n;
}

/* False: the node is full. */
bool slot_take(struct store *s, u32 page, u32 node);
void slot_give_back(struct store *s, u32 page, u32 node);
void slots_ahead(struct store_node *n);
/* The node has nothing of ours any more; `length` bytes are there. */
void node_forget(struct store *s, u32 node, u64 length);

/* --- store.c -------------------------------------------------------------------------------- */

#define NO_NUMBER UINT64_MAX
struct store_op *op_on_page(struct store *s, u32 page, u64 except);
void page_busy(struct store *s, u32 page);
void page_release(struct store *s, const struct store_op *op);
u32 buffer_take(struct store *s, struct store_op *op);
void buffer_give_back(struct store *s, struct store_op *op);
/* Posts a READ or WRITE of the operation's page at a node. */
int op_post(struct store *s, struct store_op *op, u32 node, enum rdma_operation what);
/* The node to read a page from, of those in `among`, or NO_NODE. */
u32 nearest(const struct store *s, u32 among);

/* --- store_repair.c ------------------------------------------------------------------------- */

/* All pages are to be looked at, for some may lack copies or have too many. */
void repair_scan(struct store *s);
void repair_completed(struct store *s, struct store_op *op, u32 node, bool ok);
void repair_work(struct store *s);
u64 repair_deadline(const struct store *s);
