/* Page states, clock and queues of remote memory: see pager.h. */
#include "remote/pager.h"

#include "lib/string.h"
#include "remote/stride.h"

/*
 * A page's word. Frame and state are one value, so that a fault reads one word; the level outlasts
 * an eviction, because a page that held page tables mostly holds page tables when it returns.
 *
 *   bits    what
 *   0-23    frame: HERE, COMING, TAKEN, LEAVING
 *   24-26   level of guest paging structures in it, 0: data
 *   29-31   enum pager_state
 */
#define PAGE_FRAME	 0x00ffffffu
#define PAGE_LEVEL_SHIFT 24
#define PAGE_LEVEL	 0x07000000u
#define PAGE_STATE_SHIFT 29

_Static_assert(PAGER_MAX_PAGES - 1 == PAGE_FRAME, "frames have 24 bits");
_Static_assert((PAGE_FRAME & PAGE_LEVEL) == 0 && PAGE_LEVEL >> PAGE_STATE_SHIFT == 0,
	       "fields overlap");
_Static_assert(PAGER_LEAVING < 8, "states have three bits");

/* Flags of a frame in use. */
#define F_MAPPED   BIT(0) /* in the view */
#define F_DIRTY	   BIT(1) /* differs from the copy, as far as is known */
#define F_COPY	   BIT(2) /* the store has what was in it before it became dirty */
#define F_REF	   BIT(3) /* accessed, by a fault or by Umbra */
#define F_AHEAD	   BIT(4) /* prefetched and not touched yet */
#define F_WANTED   BIT(5) /* somebody waits for the page, or it is not to leave after all */
#define F_WRITE	   BIT(6) /* ... to write to it */
#define F_POSTED   BIT(7) /* its operation is with the store */
#define F_PREFETCH BIT(8) /* queued behind all demand */

#define NONE (~0u)

struct frame {
	u64 since; /* COMING: somebody has waited, ns */
	u32 page;
	u32 prev, next; /* in a list; free: only the next one */
	u16 flags;
	u8 age; /* passes of the clock that it survives without an access */
	u8 pins;
};

struct list {
	u32 first, last, count;
};

struct pager {
	struct pager_config config;
	const struct pager_ops *ops;
	void *ctx;
	u32 *page;
	struct frame *frame;
	struct list demand, ahead, writes; /* frames are in one of these at most, */
	u32 free, free_count;		   /* or free: the first one */
	u32 hand;
	u32 low, high; /* watermarks: free frames, and those that will be */
	u32 reads_posted, writes_posted, prefetches, away;
	u32 taken_count;
	u32 taken[PAGER_BATCH]; /* frames of the eviction that goes on */
	bool evicting;
	struct strides strides[PAGER_VCPUS];
	struct stride *asked[PAGER_VCPUS]; /* by pager_trend() */
	struct pager_stats stats;
};

/* --- lists ------------------------------------------------------------------------------------ */

static inline void list_add(struct pager *p, struct list *l, u32 f)
{
	p->frame[f].prev = l->last;
	p->frame[f].next = NONE;
	if (l->last == NONE)
		l->first = f;
	else
		p->frame[l->last].next = f;
	l->last = f;
	l->count++;
}

static inline void list_remove(struct pager *p, struct list *l, u32 f)
{
	const struct frame *frame = &p->frame[f];

	if (frame->prev == NONE)
		l->first = frame->next;
	else
		p->frame[frame->prev].next = frame->next;
	if (frame->next == NONE)
		l->last = frame->prev;
	else
		p->frame[frame->next].prev = frame->prev;
	l->count--;
}

static inline u32 list_take(struct pager *p, struct list *l)
{
	u32 f = l->first;

	if (f != NONE)
		list_remove(p, l, f);
	return f;
}

/* --- pages and frames ------------------------------------------------------------------------- */

static inline enum pager_state state_of(const struct pager *p, u32 page)
{
	return (enum pager_state)(p->page[page] >> PAGE_STATE_SHIFT);
}

/* Whoever makes a page PAGER_AWAY, or something else of it, counts that: p->away. */
static inline void set_state(struct pager *p, u32 page, enum pager_state state, u32 frame)
{
	u32 *word = &p->page[page];

	*word = (*word & PAGE_LEVEL) | (u32)state << PAGE_STATE_SHIFT | frame;
}

static u8 level_of(const struct pager *p, u32 page)
{
	return (u8)((p->page[page] & PAGE_LEVEL) >> PAGE_LEVEL_SHIFT);
}

/* Paging structures are kept longer, the more memory they map: losing one costs a fault each. */
static u8 full_age(const struct pager *p, u32 page)
{
	return (u8)(1 + level_of(p, page));
}

static void release(struct pager *p, u32 f)
{
	p->frame[f] = (struct frame){.page = NONE, .next = p->free};
	p->free = f;
	p->free_count++;
}

/* A free frame for the page, or NONE. */
static inline u32 claim(struct pager *p, u32 page, enum pager_state state)
{
	u32 f = p->free;
	struct frame *frame;

	if (unlikely(f == NONE)) {
		p->stats.no_frame++;
		return NONE;
	}
	frame = &p->frame[f];
	p->free = frame->next;
	p->free_count--;
	*frame = (struct frame){.page = page, .age = full_age(p, page)};
	set_state(p, page, state, f);
	return f;
}

static struct list *queue_of(struct pager *p, const struct frame *frame)
{
	return frame->flags & F_PREFETCH ? &p->ahead : &p->demand;
}

/* --- creation --------------------------------------------------------------------------------- */

static bool config_valid(const struct pager_config *c)
{
	return c->pages && c->pages <= PAGER_MAX_PAGES && c->frames >= PAGER_MIN_FRAMES &&
	       c->frames < PAGER_MAX_PAGES && c->vcpus && c->vcpus <= PAGER_VCPUS;
}

size_t pager_bytes(const struct pager_config *config)
{
	return sizeof(struct pager) + ALIGN_UP(config->pages * sizeof(u32), 8ull) +
	       config->frames * sizeof(struct frame);
}

struct pager *pager_init(void *memory, const struct pager_config *config,
			 const struct pager_ops *ops, void *ctx)
{
	struct pager *p = memory;
	static const struct list empty = {NONE, NONE, 0};

	if (!config_valid(config))
		return NULL;
	p->config = *config;
	p->ops = ops;
	p->ctx = ctx;
	p->page = (u32 *)(p + 1);
	p->frame = (struct frame *)(void *)((u8 *)p->page +
					    ALIGN_UP(config->pages * sizeof(u32), 8ull));
	p->demand = p->ahead = p->writes = empty;
	p->free = NONE;
	for (u32 f = config->frames; f--;)
		release(p, f);
	/* Eviction begins early enough that a free frame is there when a fault needs one. */
	if (config->frames < config->pages) {
		p->low = MAX(PAGER_BATCH / 2, MIN(config->frames / 32, 1024u));
		p->high = p->low + PAGER_BATCH;
	}
	return p;
}

/* --- access ----------------------------------------------------------------------------------- */

/* The page is in a frame and to be used; `map`: by the guest, who is let at it at once. */
static inline void make_ready(struct pager *p, u32 f, bool write, bool map,
			      struct pager_place *place)
{
	struct frame *frame = &p->frame[f];
	u32 flags = frame->flags;

	/* Where the processor keeps no dirty flag, or does not see the write, we do. */
	if (write && (!map || !p->config.flags))
		flags |= F_DIRTY;
	*place = (struct pager_place){.frame = f,
				      .writable = p->config.flags || (flags & F_DIRTY),
				      .hit = flags & F_AHEAD};
	p->stats.prefetch_hits += place->hit;
	frame->flags = (u16)((flags & ~F_AHEAD) | F_REF | (map ? F_MAPPED : 0));
}

/* The frame's operation is on its way, and `a` has to wait for its end. */
static enum pager_answer wait_for(struct pager *p, struct frame *frame,
				  const struct pager_access *a)
{
	if (!(frame->flags & F_WANTED))
		frame->since = a->now;
	frame->flags |= F_WANTED;
	if (a->write && !a->door)
		frame->flags |= F_WRITE;
	p->stats.waits++;
	return PAGER_WAIT;
}

/* A prefetch that has become demand: it overtakes those that have not. True: it was one. */
static bool hurry(struct pager *p, u32 f)
{
	struct frame *frame = &p->frame[f];

	if (!(frame->flags & F_PREFETCH))
		return false;
	if (!(frame->flags & F_POSTED)) {
		list_remove(p, &p->ahead, f);
		list_add(p, &p->demand, f);
	}
	frame->flags &= (u16) ~(F_PREFETCH | F_AHEAD);
	p->prefetches--;
	p->stats.prefetch_late++;
	return true;
}

static __noinline enum pager_answer access_leaving(struct pager *p, u32 f,
						   const struct pager_access *a,
						   struct pager_place *place)
{
	struct frame *frame = &p->frame[f];

	p->stats.rescues++;
	if (!(frame->flags & F_POSTED)) {
		list_remove(p, &p->writes, f);
		set_state(p, a->page, PAGER_HERE, f);
		make_ready(p, f, a->write, !a->door, place);
		place->writable = true; /* it is dirty */
		return PAGER_READY;
	}
	/* The store reads the bytes, as the guest may. */
	if (a->write)
		return wait_for(p, frame, a);
	frame->flags |= F_WANTED | F_REF;
	if (!a->door)
		frame->flags |= F_MAPPED;
	*place = (struct pager_place){.frame = f};
	return PAGER_READY;
}

/* Zero, or to be overwritten: there is nothing to read. */
static __noinline enum pager_answer access_fresh(struct pager *p, const struct pager_access *a,
						 struct pager_place *place)
{
	bool away = state_of(p, a->page) == PAGER_AWAY;
	u32 f = claim(p, a->page, PAGER_HERE);

	if (f == NONE)
		return PAGER_NO_FRAME;
	if (away) {
		p->away--;
		p->stats.overwrites++;
		p->frame[f].flags = F_DIRTY;
	} else {
		p->stats.zero_fills++;
		memset(p->ops->data(p->ctx, f), 0, PAGE_SIZE);
	}
	make_ready(p, f, a->write || away, !a->door, place);
	return PAGER_READY;
}

static enum pager_answer access_away(struct pager *p, const struct pager_access *a,
				     struct pager_place *place)
{
	u32 f = claim(p, a->page, PAGER_COMING);
	struct frame *frame;

	if (f == NONE)
		return PAGER_NO_FRAME;
	p->away--;
	frame = &p->frame[f];
	frame->since = a->now;
	frame->flags = (u16)(F_WANTED | (a->write && !a->door ? F_WRITE : 0));
	if (!a->posts) {
		list_add(p, &p->demand, f);
		return PAGER_WAIT;
	}
	frame->flags |= F_POSTED;
	p->reads_posted++;
	*place = (struct pager_place){.frame = f};
	return PAGER_FETCH;
}

enum pager_answer pager_access(struct pager *p, const struct pager_access *a,
			       struct pager_place *place)
{
	enum pager_state state = state_of(p, a->page);
	u32 f = p->page[a->page] & PAGE_FRAME;

	if (!a->door || state != PAGER_HERE)
		p->stats.faults++;
	if (a->level) {
		p->page[a->page] &= ~PAGE_LEVEL;
		p->page[a->page] |= (u32)(a->level & 7) << PAGE_LEVEL_SHIFT;
		p->stats.table_faults++;
	}
	switch (state) {
	case PAGER_HERE:
		p->stats.minor += !a->door;
		break;
	case PAGER_TAKEN:
		/* pager_settle() sees that it is here again. Other CPUs may still write to it by
		 * old translations: no matter, it stays the same frame. */
		p->stats.rescues++;
		set_state(p, a->page, PAGER_HERE, f);
		break;
	case PAGER_ZERO:
		return access_fresh(p, a, place);
	case PAGER_AWAY:
		return a->whole ? access_fresh(p, a, place) : access_away(p, a, place);
	case PAGER_COMING:
		place->hit = hurry(p, f);
		return wait_for(p, &p->frame[f], a);
	case PAGER_LEAVING:
		return access_leaving(p, f, a, place);
	}
	make_ready(p, f, a->write, !a->door, place);
	return PAGER_READY;
}

bool pager_pin(struct pager *p, u32 page)
{
	struct frame *frame = &p->frame[p->page[page] & PAGE_FRAME];

	if (state_of(p, page) != PAGER_HERE || frame->pins == 255)
		return false;
	frame->pins++;
	return true;
}

void pager_unpin(struct pager *p, u32 page)
{
	p->frame[p->page[page] & PAGE_FRAME].pins--;
}

bool pager_discard(struct pager *p, u32 page)
{
	enum pager_state state = state_of(p, page);
	u32 f = p->page[page] & PAGE_FRAME;

	if (state == PAGER_COMING || state == PAGER_TAKEN ||
	    (state == PAGER_LEAVING && (p->frame[f].flags & F_POSTED)))
		return false;
	if (state == PAGER_HERE && p->frame[f].pins) {
		memset(p->ops->data(p->ctx, f), 0, PAGE_SIZE);
		p->frame[f].flags |= F_DIRTY;
		return true;
	}
	if (state == PAGER_LEAVING)
		list_remove(p, &p->writes, f);
	if (state == PAGER_HERE || state == PAGER_LEAVING)
		release(p, f);
	p->away -= state == PAGER_AWAY;
	set_state(p, page, PAGER_ZERO, 0);
	return true;
}

/* --- the store's work ------------------------------------------------------------------------- */

bool pager_next(struct pager *p, struct pager_op *op)
{
	u32 f = list_take(p, &p->demand);

	op->write = false;
	if (f == NONE && p->writes_posted < PAGER_WRITES) {
		f = list_take(p, &p->writes);
		op->write = f != NONE;
	}
	if (f == NONE)
		f = list_take(p, &p->ahead);
	if (f == NONE)
		return false;
	p->frame[f].flags |= F_POSTED;
	if (op->write)
		p->writes_posted++;
	else
		p->reads_posted++;
	op->frame = f;
	op->page = p->frame[f].page;
	return true;
}

void pager_put_back(struct pager *p, const struct pager_op *op)
{
	struct frame *frame = &p->frame[op->frame];
	struct list *list = op->write ? &p->writes : queue_of(p, frame);

	frame->flags &= (u16)~F_POSTED;
	if (op->write)
		p->writes_posted--;
	else
		p->reads_posted--;
	list_add(p, list, op->frame);
}

static void count_latency(struct pager *p, const struct frame *frame, u64 now)
{
	u64 ns = now - frame->since, us = ns / 1000;
	u32 bits = us ? 64 - (u32)__builtin_clzll(us) : 0;

	p->stats.latency_sum += ns;
	p->stats.latency[MIN(bits, PAGER_LATENCIES - 1)]++;
}

static bool read_done(struct pager *p, u32 f, u64 now, struct pager_place *place)
{
	struct frame *frame = &p->frame[f];
	u16 flags = frame->flags;

	p->reads_posted--;
	p->stats.reads++;
	set_state(p, frame->page, PAGER_HERE, f);
	if (flags & F_PREFETCH) {
		p->prefetches--;
		frame->flags = F_COPY | F_AHEAD;
		return false;
	}
	frame->flags = F_COPY;
	count_latency(p, frame, now);
	make_ready(p, f, flags & F_WRITE, true, place);
	return true;
}

static bool write_done(struct pager *p, u32 f, bool ok, struct pager_place *place)
{
	struct frame *frame = &p->frame[f];
	bool wanted = frame->flags & F_WANTED, write = frame->flags & F_WRITE;

	p->writes_posted--;
	p->stats.writes += ok;
	frame->flags &= (u16) ~(F_POSTED | F_WANTED | F_WRITE);
	if (ok)
		frame->flags = (u16)((frame->flags & ~F_DIRTY) | F_COPY);
	if (ok && !wanted) {
		set_state(p, frame->page, PAGER_AWAY, 0);
		p->away++;
		release(p, f);
		return false;
	}
	/* Mapped for reading by now, or waited for. */
	set_state(p, frame->page, PAGER_HERE, f);
	frame->age = full_age(p, frame->page);
	if (wanted && write)
		make_ready(p, f, true, true, place);
	return wanted && write;
}

bool pager_done(struct pager *p, const struct pager_op *op, bool ok, u64 now,
		struct pager_place *place)
{
	return op->write ? write_done(p, op->frame, ok, place)
			 : read_done(p, op->frame, now, place);
}

void pager_unmap(struct pager *p, u32 page)
{
	enum pager_state state = state_of(p, page);
	struct frame *frame = &p->frame[p->page[page] & PAGE_FRAME];

	if ((state != PAGER_HERE && state != PAGER_LEAVING) || !(frame->flags & F_MAPPED))
		return;
	if (p->ops->unmap(p->ctx, page))
		frame->flags |= F_DIRTY;
	frame->flags &= (u16)~F_MAPPED;
}

/* --- eviction --------------------------------------------------------------------------------- */

/* Free ones, and those that will be without any more doing. */
static u32 frames_to_come(const struct pager *p)
{
	return p->free_count + p->writes.count + p->writes_posted;
}

bool pager_should_evict(const struct pager *p)
{
	return !p->evicting && frames_to_come(p) < p->low;
}

/* Without accessed flags, an access shows as a fault: the page is left unmapped after each pass. */
static bool was_accessed(struct pager *p, struct frame *frame)
{
	bool accessed = frame->flags & F_REF;

	frame->flags &= (u16)~F_REF;
	if (!(frame->flags & F_MAPPED))
		return accessed;
	if (p->config.flags)
		return p->ops->accessed(p->ctx, frame->page) || accessed;
	p->ops->unmap(p->ctx, frame->page);
	frame->flags &= (u16)~F_MAPPED;
	return accessed;
}

static bool is_victim(struct pager *p, struct frame *frame)
{
	if (frame->page == NONE || frame->pins || state_of(p, frame->page) != PAGER_HERE)
		return false;
	if (was_accessed(p, frame)) {
		frame->age = full_age(p, frame->page);
		return false;
	}
	if (frame->age)
		frame->age--;
	return !frame->age;
}

static void take_out(struct pager *p, u32 f)
{
	struct frame *frame = &p->frame[f];

	if ((frame->flags & F_MAPPED) && p->ops->unmap(p->ctx, frame->page))
		frame->flags |= F_DIRTY;
	frame->flags &= (u16)~F_MAPPED;
	set_state(p, frame->page, PAGER_TAKEN, f);
	p->taken[p->taken_count++] = f;
}

u32 pager_collect(struct pager *p)
{
	u32 wanted = p->high - MIN(p->high, frames_to_come(p));
	u32 most = MIN(p->config.frames, 16 * PAGER_BATCH);

	if (p->evicting)
		return 0;
	p->taken_count = 0;
	wanted = MIN(wanted, PAGER_BATCH);
	for (u32 i = 0; i < most && p->taken_count < wanted; i++) {
		u32 f = p->hand;

		p->hand = f + 1 == p->config.frames ? 0 : f + 1;
		if (is_victim(p, &p->frame[f]))
			take_out(p, f);
	}
	p->evicting = p->taken_count;
	p->stats.batches += p->evicting;
	return p->taken_count;
}

static bool all_zero(const u64 *word)
{
	for (u32 i = 0; i < PAGE_SIZE / sizeof(*word); i++)
		if (word[i])
			return false;
	return true;
}

/* True: its frame is free. */
static bool settle(struct pager *p, u32 f)
{
	struct frame *frame = &p->frame[f];
	bool same;

	p->stats.prefetch_wasted += !!(frame->flags & F_AHEAD);
	frame->flags &= (u16)~F_AHEAD;
	if ((frame->flags & F_DIRTY) && !all_zero(p->ops->data(p->ctx, f))) {
		set_state(p, frame->page, PAGER_LEAVING, f);
		frame->flags &= (u16) ~(F_WANTED | F_WRITE);
		list_add(p, &p->writes, f);
		return false;
	}
	p->stats.drops++;
	p->stats.zeroes += !!(frame->flags & F_DIRTY);
	same = !(frame->flags & F_DIRTY) && (frame->flags & F_COPY);
	p->away += same;
	set_state(p, frame->page, same ? PAGER_AWAY : PAGER_ZERO, 0);
	release(p, f);
	return true;
}

u32 pager_settle(struct pager *p)
{
	u32 freed = 0;

	for (u32 i = 0; i < p->taken_count; i++) {
		u32 f = p->taken[i];

		/* It may have been wanted back meanwhile. */
		if (state_of(p, p->frame[f].page) == PAGER_TAKEN)
			freed += settle(p, f);
	}
	p->taken_count = 0;
	p->evicting = false;
	return freed;
}

/* --- prefetch --------------------------------------------------------------------------------- */

u32 pager_trend(struct pager *p, u32 vcpu, u64 linear_page, bool hit, u64 *first, s64 *stride)
{
	if (!p->config.prefetch)
		return 0;
	p->asked[vcpu] = strides_note(&p->strides[vcpu], linear_page, hit);
	return stride_window(p->asked[vcpu], first, stride);
}

void pager_ahead(struct pager *p, u32 vcpu, u32 count)
{
	stride_ahead(p->asked[vcpu], count);
}

bool pager_prefetch(struct pager *p, u32 page)
{
	u32 f;

	if (p->prefetches >= PAGER_PREFETCHES || p->free_count <= p->low / 2)
		return false;
	if (state_of(p, page) != PAGER_AWAY)
		return true;
	f = claim(p, page, PAGER_COMING);
	p->away--;
	p->frame[f].flags = F_PREFETCH;
	list_add(p, &p->ahead, f);
	p->prefetches++;
	p->stats.prefetched++;
	return true;
}

/* --- looking ---------------------------------------------------------------------------------- */

enum pager_state pager_state(const struct pager *p, u32 page)
{
	return state_of(p, page);
}

bool pager_is_under_way(const struct pager *p, u32 page)
{
	enum pager_state state = state_of(p, page);

	return state == PAGER_COMING ||
	       (state == PAGER_LEAVING && (p->frame[p->page[page] & PAGE_FRAME].flags & F_POSTED));
}

u32 pager_free(const struct pager *p)
{
	return p->free_count;
}

u32 pager_queued(const struct pager *p)
{
	return p->demand.count + p->ahead.count + p->writes.count;
}

u32 pager_under_way(const struct pager *p)
{
	return pager_queued(p) + p->reads_posted + p->writes_posted;
}

u32 pager_away(const struct pager *p)
{
	return p->away;
}

const struct pager_stats *pager_stats(const struct pager *p)
{
	return &p->stats;
}
