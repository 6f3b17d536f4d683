/*
 * The store of one VM: its pages on memory nodes. A page is 4 KiB and has a number (0 to pages -
 * 1); what was written last is what is read, or an error is reported: never other bytes.
 *
 * Sealed pages leave encrypted and authenticated (seal.h); the tags and versions stay here, so that
 * an altered, older or misplaced page is found out. With N replicas a write is complete when N
 * nodes have acknowledged it, fewer only if fewer are reachable and at least one is.
 *
 * Portable: no allocation after store_init(), no call-backs; like a QP it has one owner at a time.
 */
#pragma once

#include "lib/types.h"
#include "rdma/fabric.h"

#define STORE_NODES    4u
#define STORE_INFLIGHT 64u /* operations posted and not fetched */
#define STORE_KEY      32u

struct store_config {
	struct fabric *fabric;
	u32 link[STORE_NODES]; /* of the fabric */
	u32 nodes;	       /* 1 to STORE_NODES */
	u32 replicas;	       /* 1 to nodes */
	u32 pages;
	u32 vm; /* part of nonces */
	bool seal;
	u8 key[STORE_KEY]; /* from the machine's entropy, per VM */
};

enum store_result {
	STORE_OK,
	STORE_CORRUPT, /* no node has the page as it was written, nor can have: it is lost */
	STORE_FULL,    /* no node has room: the page stays where it is */
};

struct store_completion {
	u64 id;
	enum store_result result;
};

struct store_stats {
	u64 reads, writes;	 /* completed */
	u64 bytes_in, bytes_out; /* of pages, with those of repetitions at other nodes and copies */
	u64 failovers;		 /* operations begun again because a node was lost */
	u64 corrupt;		 /* copies found to be altered, old or misplaced */
	u64 rereplicated;
	u32 nodes_up;
	/* Pages with fewer copies on nodes that are up than they should have; those that are under
	 * way are not counted. */
	u32 under_replicated;
};

struct store;

/* How struct store begins: what its owner looks at in every round, by the functions below. */
struct store_head {
	u32 up;	     /* bit i: node i is up */
	u32 stalled; /* operations that wait for a node */
	u64 waiting; /* a bit for each that waits for a place at a node, a buffer, or another one */
	u32 places;  /* that have become free for them */
	bool look;   /* all operations want to be looked at again */
	bool working; /* within store_work() */
	u64 due;      /* of repairs */
};

static inline const struct store_head *store_head(const struct store *s)
{
	return (const struct store_head *)(const void *)s;
}

/* Bytes of memory that a store of this configuration needs: 16-byte aligned, and contiguous if a
 * NIC is to read it. */
size_t store_bytes(const struct store_config *config);
/* In `memory` of that size, zeroed. NULL: a value out of its range. Begins to connect. */
struct store *store_init(void *memory, const struct store_config *config);
/* Flushes nothing: the VM is gone. Slots and links are given up. */
void store_destroy(struct store *s);

/*
 * `data` is a page that must stay (for a write: unchanged) until the completion has been fetched.
 * ERR_BUSY: STORE_INFLIGHT are under way. ERR_NOENT: the page was never written. An operation that
 * finds no node waits until one is there: the owner sees store_stalled(). A read after a write that
 * is under way gets what that one writes.
 */
int store_read(struct store *s, u64 id, u32 page, void *data);
int store_write(struct store *s, u64 id, u32 page, const void *data);
/* The page's content is not needed any more; not while it is under way. */
void store_discard(struct store *s, u32 page);

/* In any order; false if there is none. */
bool store_done(struct store *s, struct store_completion *c);

/*
 * Moves things on: to be called before fabric_transmit() when a link has completions or has come or
 * gone, and at store_deadline(); 0: at once.
 */
void store_work(struct store *s, u64 now);

/* Whether the deadline is 0. */
static inline bool store_hurries(const struct store *s)
{
	const struct store_head *h = store_head(s);

	return h->look || (h->places && h->waiting);
}

static inline u64 store_deadline(const struct store *s)
{
	return store_hurries(s) ? 0 : store_head(s)->due;
}

/* Bit i: node i is up. As of the last store_work(). */
static inline u32 store_up(const struct store *s)
{
	return store_head(s)->up;
}

/* An operation waits for a node that has what it needs; since when: 0: none does. */
static inline bool store_stalls(const struct store *s)
{
	return store_head(s)->stalled;
}
u64 store_stalled(const struct store *s);
void store_stats(const struct store *s, struct store_stats *out);

struct store_node_view {
	bool up;
	/* Pages that it has room for, and has, current or not; 0: not known yet. */
	u32 slots, taken;
};
/* Node i of the configuration. */
void store_node_view(const struct store *s, u32 i, struct store_node_view *out);
