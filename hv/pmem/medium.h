/*
 * What lies behind a persistent region: memory that processors store to directly, and controllers
 * that have to be told, by a store to one of their flush hints (ACPI 6.5, 5.2.25.8), to move what
 * they hold in queues to where it persists. Three kinds; the code above cannot tell them apart:
 *
 * - real: a range of the host's NFIT with the flush hints of the NVDIMMs it lies on;
 * - RAM that is lent: nothing persists, and there are no hints;
 * - a model of hardware, for machines that have none. Its processor side is RAM, its medium another
 *   piece of RAM. A line of 64 bytes that differs between them is what a write-pending queue of a
 *   real controller would hold (or a cache: that CLWB was forgotten the model does not notice).
 *   Lines belong to controllers by address, MODEL_INTERLEAVE bytes in turn; a controller that is
 *   told to flush copies exactly its lines. Any line may reach the medium earlier: by
 *   medium_drain(), and some of them in medium_cut(), both by a generator with a seed.
 *
 * Only pages in `written` are compared: whoever maps the memory adds those that may differ, after
 * no CPU can write there unnoticed any more; medium_written() is for what Umbra itself has written.
 * Between that and the end of the functions that compare, nobody else may do either: the caller
 * holds medium_lock(), which does nothing for other kinds.
 *
 * Plain data but for the pointers to the memory itself.
 */
#pragma once

#include "lib/marks.h"
#include "lib/spinlock.h"
#include "lib/types.h"

#define MEDIUM_CONTROLLERS 16
#define MEDIUM_HINTS	   64 /* of all controllers of a region */
#define MEDIUM_LINE	   64
#define MODEL_INTERLEAVE   256

enum medium_kind {
	MEDIUM_NONE,
	MEDIUM_REAL,
	MEDIUM_RAM,
	MEDIUM_MODEL
};

struct medium {
	u32 kind; /* enum medium_kind */
	u32 caps; /* NFIT_CAP_* of the platform */
	hpa_t base;
	u64 bytes;	 /* whole pages */
	u32 controllers; /* that have flush hints: 0 = nothing needs to be flushed. Real: NVDIMMs,
			  * but those that share all of their hints with others are one */
	u32 hints;
	u64 flushes[MEDIUM_CONTROLLERS]; /* atomic */
	struct spinlock lock;		 /* the model */
	/* real */
	u32 first_hint[MEDIUM_CONTROLLERS + 1]; /* of controller i: up to that of i + 1 */
	u64 hint[MEDIUM_HINTS];			/* host-physical */
	/* The page of the only hint there is, if nothing else is in it; or 0. A model's is for all
	 * of its controllers. */
	hpa_t direct;
	/* model */
	bool unseen; /* the guest stores to `direct`, and nobody notices: all is taken for flushed
		      */
	u8 *stored;  /* the medium */
	struct marks written; /* pages that may differ */
	u64 random;
	u64 lines_flushed, lines_drained, lines_lost, cuts;
};

/* Lent RAM. */
void medium_init_ram(struct medium *m, hpa_t base, u64 bytes);

/*
 * The model: `stored` has `bytes` bytes and is what the memory at `base` becomes; `marks` has
 * marks_bytes(pages) of zeroes. 1 to MEDIUM_CONTROLLERS controllers.
 */
void medium_init_model(struct medium *m, hpa_t base, u64 bytes, u32 controllers, u64 seed,
		       u8 *stored, void *marks);

/*
 * Range `range` of the host's NFIT; the hints' pages have been mapped uncached (phys_to_ptr()).
 * ERR_RANGE if there are more controllers or hints than we have room for. `direct_allowed`: the
 * user vouches that the page of a single hint holds no other register, which no table says.
 */
struct nfit;
struct nfit_range;
int medium_init_real(struct medium *m, const struct nfit *nfit, const struct nfit_range *range,
		     bool direct_allowed);

/* Umbra has written to [offset, offset + bytes). No lock needed. */
void medium_written(struct medium *m, u64 offset, u64 bytes);

static inline void medium_lock(struct medium *m)
{
	if (m->kind == MEDIUM_MODEL)
		spin_lock(&m->lock);
}

static inline void medium_unlock(struct medium *m)
{
	if (m->kind == MEDIUM_MODEL)
		spin_unlock(&m->lock);
}

/*
 * Makes everything durable that was globally visible before the call: stores to every hint of every
 * controller, with SFENCE before and after.
 */
void medium_flush(struct medium *m);

/* The model only, here and below; others ignore it. Some lines, at random. */
void medium_drain(struct medium *m);
/*
 * Loss of power. No CPU writes to the memory. Of the lines that are pending, some reach the medium,
 * as full as each controller's queue happens to be; then memory is what the medium holds.
 */
void medium_cut(struct medium *m);
/*
 * Memory and medium of `to`, a model of the same size, become what medium_cut() would make of m, as
 * of now or later: CPUs may go on writing to m's memory, which with its medium stays as it is. Both
 * are locked. ERR_INVAL: not models, or of different sizes.
 */
int medium_image(struct medium *m, struct medium *to);
/*
 * A model: `direct` is mapped through from now on, or no longer. What has been stored by then is on
 * the medium: the guest may have flushed it.
 */
void medium_set_direct(struct medium *m, bool on);
/* From now on everything that happens by chance follows from this number. */
void medium_seed(struct medium *m, u64 seed);
/* Lines that are not on the medium yet, of those that may have been written. */
u64 medium_pending(struct medium *m);
