/*
 * Which pages of a VM are in local frames, and what is to be fetched and given away: the policy of
 * remote memory without the machine. Pages and frames are numbers; the VM's view, the frames' bytes
 * and the store belong to the caller.
 *
 * Portable: no allocation after pager_init(), no waiting. Not locked: the caller has one lock per
 * pager. A page is in one of the states of enum pager_state; a frame belongs to a page or is free.
 *
 * Eviction goes in three steps, so that one invalidation serves a batch: pager_collect() chooses
 * victims and takes them out of the view; then the caller invalidates, without the lock;
 * pager_settle() drops the clean ones and queues the dirty ones to be written. One at a time.
 */
#pragma once

#include "lib/types.h"

#define PAGER_BATCH	 32u /* victims of one invalidation */
#define PAGER_WRITES	 32u /* given away at a time: the rest of the store is for reads */
#define PAGER_PREFETCHES 16u /* under way at a time */
#define PAGER_VCPUS	 16u
#define PAGER_MAX_PAGES	 BIT(24)
#define PAGER_MIN_FRAMES 128u
#define PAGER_LATENCIES	 24u /* bucket n: below 2^n microseconds; the last: the rest */

enum pager_state {
	PAGER_ZERO,    /* never touched, or known to be zero: no frame, no traffic */
	PAGER_AWAY,    /* in the store only */
	PAGER_HERE,    /* in a frame, mapped or not */
	PAGER_COMING,  /* has a frame; its READ is queued or under way */
	PAGER_TAKEN,   /* out of the view, until pager_settle() */
	PAGER_LEAVING, /* its WRITE is queued or under way; the frame's bytes are still right */
};

/* What the pager asks of its owner. A page that was to be mapped, and could not be, asks again;
 * here it is one that was neither accessed nor written to. */
struct pager_ops {
	/* The page has been accessed since the last call. Only with config.flags. */
	bool (*accessed)(void *ctx, u32 page);
	/* Takes a page out of the view; true if it has been written to since it was mapped (false
	 * without config.flags: then it is mapped for writing only when it counts as dirty). */
	bool (*unmap)(void *ctx, u32 page);
	/* The frame's bytes. */
	void *(*data)(void *ctx, u32 frame);
};

struct pager_config {
	u32 pages;  /* 1 to PAGER_MAX_PAGES */
	u32 frames; /* PAGER_MIN_FRAMES to PAGER_MAX_PAGES - 1 */
	u32 vcpus;  /* 1 to PAGER_VCPUS */
	bool flags; /* the view has accessed and dirty flags */
	bool prefetch;
};

struct pager_stats {
	u64 faults;	  /* of guests and of Umbra itself on pages that were not mapped */
	u64 minor;	  /* of these: the page was in a frame */
	u64 zero_fills;	  /* ... it was zero */
	u64 waits;	  /* ... it was on its way already */
	u64 overwrites;	  /* ... it was going to be overwritten whole: no READ */
	u64 rescues;	  /* ... it was about to be given away, and stays */
	u64 table_faults; /* ... it holds paging structures of the guest */
	u64 no_frame;	  /* ... there was no frame: tried again later */
	u64 reads, writes;
	u64 drops;  /* evicted without traffic: clean */
	u64 zeroes; /* ... because they were all zero */
	u64 batches;
	u64 prefetched, prefetch_hits, prefetch_late, prefetch_wasted;
	u64 latency[PAGER_LATENCIES]; /* of reads that somebody waited for, from the fault on */
	u64 latency_sum;	      /* ns */
};

struct pager;

size_t pager_bytes(const struct pager_config *config);
/* In `memory` of that size, zeroed, 8-byte aligned. NULL: a value is out of its range. */
struct pager *pager_init(void *memory, const struct pager_config *config,
			 const struct pager_ops *ops, void *ctx);

/* An access to a page that is not mapped so. */
struct pager_access {
	u32 page;
	u64 now; /* ns */
	bool write;
	bool whole; /* the caller will overwrite all of it before anybody else looks */
	bool door;  /* by Umbra, under the lock, not to be mapped */
	bool posts; /* the caller can post a READ: PAGER_FETCH may be the answer */
	u8 level;   /* 1 to 4: the page holds guest paging structures of this level; 0: data */
};

enum pager_answer {
	PAGER_READY,	/* in *place; not for `door`: to be mapped now */
	PAGER_WAIT,	/* on its way: pager_done() will say so */
	PAGER_FETCH,	/* likewise, if the caller posts its READ into place->frame, as if he had
			 * it from pager_next() */
	PAGER_NO_FRAME, /* evict, and try again when frames have come free */
};

struct pager_place {
	u32 frame;
	bool writable; /* may be mapped for writing */
	bool hit;      /* a prefetched page is touched for the first time; also with PAGER_WAIT */
};

enum pager_answer pager_access(struct pager *p, const struct pager_access *a,
			       struct pager_place *place);

/* In PAGER_HERE: its frame is not evicted until pager_unpin(). False: not here. At most 255. */
bool pager_pin(struct pager *p, u32 page);
void pager_unpin(struct pager *p, u32 page);

/* The page is zero from now on. False: it is on its way, try again later. The caller has unmapped
 * it. */
bool pager_discard(struct pager *p, u32 page);

/*
 * What is to be posted, demand first. The caller posts it, or gives it back if the store is full.
 * pager_done() says that it is complete; `ok` false (a write): the page stays where it is.
 */
struct pager_op {
	u32 page, frame;
	bool write;
};
bool pager_next(struct pager *p, struct pager_op *op);
void pager_put_back(struct pager *p, const struct pager_op *op);

/* True: the page is in *place now, and to be mapped, for somebody waits for it. */
bool pager_done(struct pager *p, const struct pager_op *op, bool ok, u64 now,
		struct pager_place *place);
/* Takes the page out of the view if it is there; the next access asks again. */
void pager_unmap(struct pager *p, u32 page);

/* Frames are getting few: the three steps are due. */
bool pager_should_evict(const struct pager *p);
/* How many pages have been taken; 0: nothing found in this piece of the scan, or an eviction is
 * going on. */
u32 pager_collect(struct pager *p);
/* How many frames have come free. */
u32 pager_settle(struct pager *p);

/*
 * Prefetch. Each fault that is not one of Umbra's own and each first touch of a prefetched page
 * (`hit`: place.hit) is told with its page number in the guest's linear addresses; returns how many
 * pages are to be fetched: *first and further ones *stride apart. pager_prefetch() queues one of
 * them, if it is away. False: no more now. pager_ahead() says for how many that has been done.
 */
u32 pager_trend(struct pager *p, u32 vcpu, u64 linear_page, bool hit, u64 *first, s64 *stride);
void pager_ahead(struct pager *p, u32 vcpu, u32 count);
bool pager_prefetch(struct pager *p, u32 page);

enum pager_state pager_state(const struct pager *p, u32 page);
/* Who wants it, or wants to write to it, has to wait. */
bool pager_is_under_way(const struct pager *p, u32 page);
u32 pager_free(const struct pager *p);
u32 pager_under_way(const struct pager *p); /* queued or posted */
u32 pager_queued(const struct pager *p);    /* of these: not posted */
u32 pager_away(const struct pager *p);	    /* pages in the store only */
const struct pager_stats *pager_stats(const struct pager *p);
