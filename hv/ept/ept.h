/*
 * The EPT engine: views (whole EPT hierarchies), mapping with the largest pages that fit, split and
 * merge, accessed/dirty harvesting, and generation-checked invalidation. SDM 3C 29.3.
 *
 * Ownership: a view belongs to one VM (`vm_id`); its tables are frames of owner FRAME_EPT_BASE +
 * id. The page-fault path does not allocate from the frame allocator: each view has a reserve of
 * table frames, filled by ept_reserve() outside of faults; an operation that needs more tables than
 * the reserve holds takes none, changes nothing and returns ERR_NOMEM. Tables that an operation
 * takes out of use go to limbo, because CPUs in guest mode may still walk them, and from there to
 * the reserve in the next ept_sync(). The same holds for frames of guest RAM that were unmapped:
 * their owner may use them for something else only after ept_sync().
 *
 * Addresses reach from 0 to 2^48 - 1. Ranges are whole 4 KiB pages; others are ERR_INVAL; an empty
 * range is fine. All changes may make a guest on another CPU fault where the new state would not:
 * a violation that the current state does not explain is retried.
 *
 * Locking: every function below takes view->lock itself unless it says otherwise.
 */
#pragma once

#include "lib/spinlock.h"
#include "lib/types.h"

#define EPT_MAX_CPUS 64

/* Permissions: bits 2:0 of an EPT entry. XU only means something with MBEC. */
#define EPT_R	BIT64(0)
#define EPT_W	BIT64(1)
#define EPT_X	BIT64(2)
#define EPT_XU	BIT64(10)
#define EPT_RWX (EPT_R | EPT_W | EPT_X)

/* Memory types for ept_map(): the EPT entry's bits 5:3. */
enum ept_memtype {
	EPT_UC = 0,
	EPT_WC = 1,
	EPT_WT = 4,
	EPT_WP = 5,
	EPT_WB = 6
};

struct ept_view {
	u64 eptp; /* value for the VMCS (SDM table 25-9) */
	hpa_t root;
	u64 features; /* 1 << enum feature: ept_1g, ept_xo, ept_ad, mbec */
	u16 vm_id;
	struct spinlock lock;
	u64 generation;		/* atomic; starts at 1 */
	u64 seen[EPT_MAX_CPUS]; /* atomic; the generation each CPU has invalidated up to; starts at
				   0 */
	u64 settled;   /* atomic; the newest generation for which ept_sync() has returned */
	hpa_t reserve; /* free list of zeroed table frames, linked through their first word */
	hpa_t limbo;   /* dead tables that a CPU may still walk, newest first: ept_table.c */
	u32 reserve_count, limbo_count;
	u64 tables; /* in the hierarchy, root included */
	u64 splits, merges;
};

/* A view over nothing. Returns ERR_NOMEM if even the root cannot be had. */
int ept_view_init(struct ept_view *view, u64 features, u16 vm_id);

/* Gives back all tables. The caller has made sure that no CPU can enter with it. */
void ept_view_destroy(struct ept_view *view);

/*
 * Fills the reserve up to `tables` frames. ERR_NOMEM if the frames are not there (what could be had
 * is kept). Mapping one page takes at most 3 tables; protect and unmap of a range at most 4, two at
 * each edge; mapping a range one for each table that is not there yet.
 */
int ept_reserve(struct ept_view *view, u32 tables);

/*
 * Maps [from, from + bytes) to [to, to + bytes) (both 4 KiB aligned), replacing what was there,
 * with the largest leaves that alignment and features allow (a range that is mapped like this
 * already is left as it is). `perms` as EPT_*, 0 for a page that is there but refuses everything;
 * combinations the processor refuses (W without R, X-only without ept_xo) and XU without mbec are
 * ERR_INVAL. Bumps the generation only if something that was present changed (SDM 29.4.3: adding
 * rights or entries needs none, except that a guest may fault once more, which is retried).
 */
int ept_map(struct ept_view *view, gpa_t from, hpa_t to, u64 bytes, u64 perms,
	    enum ept_memtype type);

/*
 * For faults, in one short walk: maps one leaf of 4 KiB, 2 MiB or (with ept_1g) 1 GiB, to which
 * `at` and `to` are aligned, if there is nothing at all. ERR_EXIST: there is a leaf, or a table of
 * smaller ones; nothing has changed. Other errors as ept_map(). Makes no generation: holes are not
 * cached.
 */
int ept_fill(struct ept_view *view, gpa_t at, hpa_t to, u64 bytes, u64 perms,
	     enum ept_memtype type);

/*
 * Changes permissions of what is mapped in the range, splitting at its edges; holes stay holes.
 * Bumps the generation if a right was taken away.
 */
int ept_protect(struct ept_view *view, gpa_t from, u64 bytes, u64 perms);

/*
 * Removes the range and the tables that become empty. Bumps the generation if anything was there.
 * Splitting at the edges takes tables: ERR_NOMEM as for the others.
 */
int ept_unmap(struct ept_view *view, gpa_t from, u64 bytes);

/*
 * Joins the 2 MiB (and then the 1 GiB) around `at` back into one leaf where all entries are
 * contiguous with equal permissions and type. Returns the log2 of the leaf now in place, 0 if
 * unmapped. A and D are or-ed; with ept_ad a writable leaf comes back accessed and dirty, because a
 * CPU may set D in the old table until ept_sync(). Not for ranges whose writes PML is to log.
 */
unsigned int ept_merge(struct ept_view *view, gpa_t at);

struct ept_leaf {
	hpa_t frame;	    /* host address of `at` itself, not of the leaf's start */
	unsigned int shift; /* 12, 21, 30 */
	u64 perms;
	enum ept_memtype type;
	bool accessed, dirty;
};

/* Looks one address up. ERR_NOENT if not mapped. */
int ept_lookup(struct ept_view *view, gpa_t at, struct ept_leaf *out);

/*
 * Reads and clears the A and D flags of leaves in the range (ept_ad only: else ERR_NOSYS), calling
 * fn for each leaf with A or D set. A leaf that lies in the range only in part counts as a whole:
 * `at` and leaf->frame are its first addresses. Bumps the generation if it cleared anything. fn is
 * called under the lock and must not use the view.
 */
typedef void (*ept_harvest_fn)(void *ctx, gpa_t at, const struct ept_leaf *leaf);
int ept_harvest(struct ept_view *view, gpa_t from, u64 bytes, ept_harvest_fn fn, void *ctx);

/*
 * For paging, one leaf of 4 KiB each; nothing happens where there is none. `put` maps a page as
 * ept_fill() does, with rights that are known to be good, or says false: there is something, or no
 * table for it. `accessed`: has A been
 * set since the last call (ept_ad)? No new generation: a CPU that keeps its translation does not
 * set A again before it is invalidated. `take` removes the leaf and says whether D was set; the
 * table stays, even if it is empty. What CPUs may still do until ept_sync(): read, and write if D
 * was set, or without ept_ad.
 */
bool ept_page_put(struct ept_view *view, gpa_t at, hpa_t to, u64 perms);
bool ept_page_accessed(struct ept_view *view, gpa_t at);
bool ept_page_take(struct ept_view *view, gpa_t at);

/*
 * Invalidation by generation (architecture, mechanism 5).
 *
 * ept_enter() is the last thing before VM entry, ept_leave() the first after an exit; both on the
 * CPU that enters, interrupts off. ept_sync() returns when no CPU can use a translation that was
 * made before the latest generation: CPUs in root mode have acknowledged by being there; CPUs in
 * guest mode are kicked and waited for. The caller is in root mode (after ept_leave()) and holds
 * neither view->lock nor any lock that another CPU takes between ept_enter() and ept_leave().
 * Whoever calls ept_enter() calls ept_leave(), a failed VM entry included.
 *
 * A CPU is noted with one view. Where EPTP switching (VMFUNC) lets a guest change views by itself,
 * this is not enough: the one who sets up the list has to extend it to all views of the list.
 *
 * ept_enter() is inlined in the entry path: five instructions when nothing changed.
 */
extern struct ept_view *ept_running[EPT_MAX_CPUS]; /* atomic; view a CPU is in guest mode with */

/* Invalidates this CPU's translations of the view (INVEPT single-context) and notes `generation`.
 */
void ept_catch_up(struct ept_view *view, u32 cpu, u64 generation);

/* The first half of ept_enter(): false if this CPU has to catch up first. Calls nothing. */
static inline bool ept_announce(struct ept_view *view, u32 cpu)
{
	u64 generation;

	__atomic_store_n(&ept_running[cpu], view, __ATOMIC_SEQ_CST);
	generation = __atomic_load_n(&view->generation, __ATOMIC_SEQ_CST);
	return likely(__atomic_load_n(&view->seen[cpu], __ATOMIC_RELAXED) == generation);
}

static inline void ept_enter(struct ept_view *view, u32 cpu)
{
	if (!ept_announce(view, cpu))
		ept_catch_up(view, cpu, __atomic_load_n(&view->generation, __ATOMIC_SEQ_CST));
}

static inline void ept_leave(u32 cpu)
{
	__atomic_store_n(&ept_running[cpu], NULL, __ATOMIC_RELEASE);
}

void ept_sync(struct ept_view *view, u32 this_cpu, u32 cpu_count);

/*
 * Panics if `cpu`, between its ept_enter() and ept_leave(), could use what an ept_sync() that has
 * returned was to remove. For debugging, on the CPU itself, before the entry or after the exit.
 */
void ept_assert_fresh(const struct ept_view *view, u32 cpu);

/*
 * An overlay of a view: the view with some 4 KiB pages of one 2 MiB mapped otherwise, for one CPU
 * at a time. `init` takes its frames, `destroy` gives them back. `copy` makes it what the view is
 * now, without leaves larger than 4 KiB around `at` (ERR_EXIST); it does nothing while nothing has
 * been taken away from the view since, so that the user sets `generation` to 0 where something may
 * be missing. `map` changes a page of these 2 MiB, `no_code` makes all memory not executable, `use`
 * (on the CPU, before it enters with `eptp`) makes the CPU forget what the overlay was.
 *
 * The CPU enters with overlay->eptp under ept_enter(view), and only if the view's generation, as it
 * is after that, is still overlay->generation: then ept_sync() holds for it too. At the latest when
 * it is kicked, it goes back to the view.
 */
struct ept_overlay {
	hpa_t table[4]; /* from the root down */
	gpa_t base;
	u64 eptp, generation;
};
int ept_overlay_init(struct ept_view *view, struct ept_overlay *overlay);
void ept_overlay_destroy(struct ept_view *view, struct ept_overlay *overlay);
int ept_overlay_copy(struct ept_view *view, struct ept_overlay *overlay, gpa_t at);
void ept_overlay_map(struct ept_overlay *overlay, gpa_t at, hpa_t to, u64 perms,
		     enum ept_memtype type);
void ept_overlay_no_code(struct ept_overlay *overlay);
void ept_overlay_use(const struct ept_overlay *overlay);

/* What ept/ needs from above and below by link: kick a CPU out of guest mode (x86/apic). */
void ept_kick_cpu(u32 cpu);
