/*
 * Changing and reading views. All operations are visitors of one walk.
 *
 * An operation that may need tables is walked twice under the lock: first dry, counting the tables
 * it would take, so that it can refuse before it has changed anything; then for real.
 *
 * Every change of an entry is one atomic 64-bit store or compare-exchange, so that a CPU sees the
 * old or the new entry, never a mixture. What the CPU itself writes is A and D: entries that stay
 * in place are changed by compare-exchange, or D would be lost.
 *
 * Page sizes (SDM 3A 4.10.2.3 "Details of TLB use", 5.10.2.3 in later editions): after a change of
 * page size a CPU may hold translations of both sizes and use either one. Splitting and merging
 * therefore keep frame, rights and memory type as they are: either one is right. Where ept_map() or
 * ept_protect() changes these for a part of a large page, the page is split first, unchanged, and
 * then each small leaf is changed by its own store; ept_map() of a large page over smaller ones is
 * one store. Between these stores and the end of ept_sync() a CPU may use the old or the new
 * translation, which is what every change means before ept_sync(); the SDM's longer way (not
 * present, invalidate, new size) would only replace "old or new" by "old or a fault".
 */
#include <umbra/features.h>

#include "ept/ept_entry.h"
#include "lib/panic.h"

enum step {
	STEP_SKIP,
	STEP_SET,
	STEP_DOWN
};

struct walk;

/*
 * decide() says what to do with a slot of which the walk covers [at, end): leave it alone, set()
 * it, or go down into its table (splitting a leaf, filling a hole with an empty table). It must not
 * depend on A and D, which change between the dry and the real walk. set() changes the slot as a
 * whole. left() is called when a table below the slot has been walked.
 */
struct walk_ops {
	enum step (*decide)(const struct walk *w, u64 e, unsigned int level, u64 at, u64 end);
	void (*set)(struct walk *w, u64 *slot, unsigned int level, u64 at, u64 end);
	void (*left)(struct walk *w, u64 *slot, unsigned int level);
};

struct walk {
	struct ept_view *view;
	const struct walk_ops *ops;
	u64 from, end; /* guest-physical */
	u64 to;	       /* map: host-physical, of `from` */
	u64 attrs;     /* map, protect: EPTE_ATTRS */
	bool dry;
	u64 tables;   /* dry: how many it takes */
	bool stale;   /* something that a CPU may have cached has changed */
	void *result; /* lookup, merge */
	ept_harvest_fn fn;
	void *ctx;
};

static bool has(const struct ept_view *view, enum feature feature)
{
	return view->features & BIT64(feature);
}

/* Entry i of the table that a leaf or a hole at `level` would be split into. */
static u64 inherited(u64 e, unsigned int level, unsigned int i)
{
	if (!epte_is_leaf(e))
		return 0;
	if (level - 1 == 1)
		e &= ~EPTE_LARGE;
	return e + i * ept_span(level - 1);
}

/* Puts a table into the slot that translates just as the slot did. */
static u64 *split(struct ept_view *view, u64 *slot, unsigned int level)
{
	u64 perms = EPT_RWX | (has(view, FEAT_MBEC) ? EPT_XU : 0);
	u64 *table = ept_table_take(view);
	u64 e = epte_load(slot);

	if (epte_is_leaf(e))
		view->splits++;
	do {
		for (unsigned int i = 0; i < EPT_ENTRIES; i++)
			table[i] = inherited(e, level, i);
	} while (!epte_replace(slot, &e, ptr_to_phys(table).v | perms));
	return table;
}

/*
 * The walk. `table` is NULL below a slot that a dry walk would have split: its entries are those
 * inherited from `parent`. The slots of [at, end) lie in this table.
 */
static void walk(struct walk *w, u64 *table, u64 parent, unsigned int level, u64 at, u64 end)
{
	while (at < end) {
		unsigned int i = ept_index(at, level);
		u64 next = MIN(ALIGN_DOWN(at, ept_span(level)) + ept_span(level), end);
		u64 e = table ? epte_load(&table[i]) : inherited(parent, level + 1, i);
		enum step step = w->ops->decide(w, e, level, at, next);
		u64 *below = NULL;

		if (step == STEP_SET && !w->dry)
			w->ops->set(w, &table[i], level, at, next);
		if (step == STEP_DOWN) {
			ASSERT(level > 1);
			if (epte_is_table(e))
				below = epte_table(e);
			else if (w->dry)
				w->tables++;
			else
				below = split(w->view, &table[i], level);
			/* A dry walk has nothing to find in page tables: there are none below. */
			if (!(w->dry && level == 2))
				walk(w, below, e, level - 1, at, next);
			if (!w->dry && w->ops->left)
				w->ops->left(w, &table[i], level);
		}
		at = next;
	}
}

static void walk_view(struct walk *w)
{
	walk(w, phys_to_ptr(w->view->root), 0, EPT_LEVELS, w->from, w->end);
}

/* The generation that a change under way will make. */
static u64 next_generation(const struct ept_view *view)
{
	return __atomic_load_n(&view->generation, __ATOMIC_RELAXED) + 1;
}

/* Both walks of an operation that changes the view. The caller holds the lock. */
static int walk_change(struct walk *w)
{
	w->dry = true;
	walk_view(w);
	if (w->tables > w->view->reserve_count)
		return ERR_NOMEM;
	w->dry = false;
	walk_view(w);
	/* After all stores, and before the caller looks who is in guest mode: see ept_gen.c. */
	if (w->stale)
		__atomic_fetch_add(&w->view->generation, 1, __ATOMIC_SEQ_CST);
	return 0;
}

static int walk_change_locked(struct walk *w)
{
	int err;

	spin_lock(&w->view->lock);
	err = walk_change(w);
	spin_unlock(&w->view->lock);
	return err;
}

/* Whole pages within the guest-physical addresses that four levels reach. */
static bool range_ok(gpa_t from, u64 bytes)
{
	u64 limit = BIT64(EPT_GUEST_BITS);

	return IS_ALIGNED(from.v, PAGE_SIZE) && IS_ALIGNED(bytes, PAGE_SIZE) && from.v <= limit &&
	       bytes <= limit - from.v;
}

/* Would the CPU take a present entry with these rights (SDM 3C 29.3.3.1)? */
static bool perms_ok(const struct ept_view *view, u64 perms)
{
	if (perms & ~EPTE_PERMS)
		return false;
	if ((perms & EPT_XU) && !has(view, FEAT_MBEC))
		return false;
	if (perms & EPT_R)
		return true;
	return !(perms & EPT_W) && (!perms || has(view, FEAT_EPT_XO));
}

static bool type_ok(enum ept_memtype type)
{
	return type == EPT_UC || type == EPT_WC || type == EPT_WT || type == EPT_WP ||
	       type == EPT_WB;
}

/* Host address that a leaf translates `at` to. */
static u64 leaf_frame(u64 e, unsigned int level, u64 at)
{
	u64 mask = ept_span(level) - 1;

	return (e & EPTE_ADDR & ~mask) | (at & mask);
}

/* --- map -------------------------------------------------------------------------------------- */

static enum step map_decide(const struct walk *w, u64 e, unsigned int level, u64 at, u64 end)
{
	u64 to = w->to + (at - w->from);

	if (epte_is_leaf(e) && (e & EPTE_ATTRS) == w->attrs && leaf_frame(e, level, at) == to)
		return STEP_SKIP;
	if (end - at < ept_span(level) || !IS_ALIGNED(to, ept_span(level)) || level == EPT_LEVELS)
		return STEP_DOWN;
	if (level == 3 && !has(w->view, FEAT_EPT_1G))
		return STEP_DOWN;
	return STEP_SET;
}

static void map_set(struct walk *w, u64 *slot, unsigned int level, u64 at, u64 end)
{
	u64 e = (w->to + (at - w->from)) | w->attrs | (level > 1 ? EPTE_LARGE : 0);
	u64 old = __atomic_exchange_n(slot, e, __ATOMIC_RELEASE);
	u64 frame = EPTE_ADDR | EPTE_TYPE | EPTE_IGNORE_PAT;

	if (epte_is_table(old))
		ept_table_retire(w->view, epte_table(old), level - 1, next_generation(w->view));
	/*
	 * A cached translation may stay only if all that is wrong with it is that it has fewer
	 * rights. One made from a dirty entry would go on writing without setting D in the new one.
	 */
	if (epte_is_table(old) ||
	    (epte_is_present(old) &&
	     ((old & frame) != (e & frame) || (old & ~e & (EPTE_PERMS | EPTE_A | EPTE_D)))))
		w->stale = true;
}

int ept_map(struct ept_view *view, gpa_t from, hpa_t to, u64 bytes, u64 perms,
	    enum ept_memtype type)
{
	static const struct walk_ops ops = {.decide = map_decide, .set = map_set};
	struct walk w = {.view = view,
			 .ops = &ops,
			 .from = from.v,
			 .end = from.v + bytes,
			 .to = to.v,
			 .attrs = epte_attrs(perms, type)};

	if (!range_ok(from, bytes) || !perms_ok(view, perms) || !type_ok(type))
		return ERR_INVAL;
	if (!IS_ALIGNED(to.v, PAGE_SIZE) || to.v > EPTE_ADDR ||
	    bytes > EPTE_ADDR - to.v + PAGE_SIZE)
		return ERR_INVAL;
	return walk_change_locked(&w);
}

/* The slot for a leaf of `level`, with the tables above it; NULL if one of these is a leaf. */
static u64 *slot_for(struct ept_view *view, u64 at, unsigned int level, int *err)
{
	u64 *table = phys_to_ptr(view->root);

	for (unsigned int l = EPT_LEVELS; l > level; l--) {
		u64 *slot = &table[ept_index(at, l)];
		u64 e = epte_load(slot);

		*err = epte_is_leaf(e) ? ERR_EXIST : ERR_NOMEM;
		/* From the first hole on, all tables are missing. */
		if (epte_is_leaf(e) || (!e && view->reserve_count < l - level))
			return NULL;
		table = e ? epte_table(e) : split(view, slot, l);
	}
	return &table[ept_index(at, level)];
}

int ept_fill(struct ept_view *view, gpa_t at, hpa_t to, u64 bytes, u64 perms, enum ept_memtype type)
{
	unsigned int level = bytes == PAGE_SIZE ? 1 : bytes == SIZE_2M ? 2 : 3;
	u64 attrs = epte_attrs(perms, type) | (level > 1 ? EPTE_LARGE : 0);
	u64 *slot;
	int err;

	if (bytes != ept_span(level) || (level == 3 && !has(view, FEAT_EPT_1G)) ||
	    !IS_ALIGNED(at.v | to.v, bytes) || !range_ok(at, bytes) || to.v > EPTE_ADDR ||
	    !perms_ok(view, perms) || !type_ok(type))
		return ERR_INVAL;
	spin_lock(&view->lock);
	slot = slot_for(view, at.v, level, &err);
	if (slot) {
		err = epte_load(slot) ? ERR_EXIST : 0;
		if (!err)
			epte_store(slot, to.v | attrs);
	}
	spin_unlock(&view->lock);
	return err;
}

/* --- protect ---------------------------------------------------------------------------------- */

static enum step protect_decide(const struct walk *w, u64 e, unsigned int level, u64 at, u64 end)
{
	if (epte_is_table(e))
		return STEP_DOWN;
	if (!epte_is_leaf(e) || (e & EPTE_PERMS) == w->attrs)
		return STEP_SKIP;
	return end - at == ept_span(level) ? STEP_SET : STEP_DOWN;
}

static void protect_set(struct walk *w, u64 *slot, unsigned int level, u64 at, u64 end)
{
	u64 e = epte_load(slot);

	while (!epte_replace(slot, &e, (e & ~EPTE_PERMS) | w->attrs))
		;
	if (e & ~w->attrs & EPTE_PERMS)
		w->stale = true;
}

int ept_protect(struct ept_view *view, gpa_t from, u64 bytes, u64 perms)
{
	static const struct walk_ops ops = {.decide = protect_decide, .set = protect_set};
	struct walk w = {
		.view = view, .ops = &ops, .from = from.v, .end = from.v + bytes, .attrs = perms};

	if (!range_ok(from, bytes) || !perms_ok(view, perms))
		return ERR_INVAL;
	return walk_change_locked(&w);
}

/* --- unmap ------------------------------------------------------------------------------------ */

static enum step unmap_decide(const struct walk *w, u64 e, unsigned int level, u64 at, u64 end)
{
	if (e == 0)
		return STEP_SKIP;
	return end - at == ept_span(level) ? STEP_SET : STEP_DOWN;
}

static void unmap_set(struct walk *w, u64 *slot, unsigned int level, u64 at, u64 end)
{
	u64 old = __atomic_exchange_n(slot, 0, __ATOMIC_RELEASE);

	if (epte_is_table(old))
		ept_table_retire(w->view, epte_table(old), level - 1, next_generation(w->view));
	if (epte_is_present(old))
		w->stale = true;
}

static void unmap_left(struct walk *w, u64 *slot, unsigned int level)
{
	const u64 *table = epte_table(epte_load(slot));

	for (unsigned int i = 0; i < EPT_ENTRIES; i++)
		if (epte_load(&table[i]) != 0)
			return;
	unmap_set(w, slot, level, 0, 0);
}

int ept_unmap(struct ept_view *view, gpa_t from, u64 bytes)
{
	static const struct walk_ops ops = {
		.decide = unmap_decide, .set = unmap_set, .left = unmap_left};
	struct walk w = {.view = view, .ops = &ops, .from = from.v, .end = from.v + bytes};

	if (!range_ok(from, bytes))
		return ERR_INVAL;
	return walk_change_locked(&w);
}

/* --- merge ------------------------------------------------------------------------------------ */

static enum step down_to_leaf(const struct walk *w, u64 e, unsigned int level, u64 at, u64 end)
{
	if (epte_is_leaf(e))
		return STEP_SET;
	return epte_is_table(e) ? STEP_DOWN : STEP_SKIP;
}

static void merge_note(struct walk *w, u64 *slot, unsigned int level, u64 at, u64 end)
{
	*(unsigned int *)w->result = ept_shift(level);
}

/* The leaf that a table below `level` amounts to, or 0. */
static u64 joined(const struct ept_view *view, const u64 *table, unsigned int level)
{
	u64 first = epte_load(&table[0]), seen = 0;

	if (!epte_is_leaf(first) || !IS_ALIGNED(first & EPTE_ADDR, ept_span(level)))
		return 0;
	for (unsigned int i = 0; i < EPT_ENTRIES; i++) {
		u64 e = epte_load(&table[i]);

		if (((e ^ first) & EPTE_ATTRS) != 0 ||
		    (e & EPTE_ADDR) != (first & EPTE_ADDR) + i * ept_span(level - 1))
			return 0;
		seen |= e & (EPTE_A | EPTE_D);
	}
	/*
	 * Until it has acknowledged, a CPU may still set D in the old table, where nobody looks any
	 * more: what could be written meanwhile must count as written.
	 */
	if (has(view, FEAT_EPT_AD) && (first & EPT_W))
		seen |= EPTE_A | EPTE_D;
	return (first & (EPTE_ADDR | EPTE_ATTRS)) | EPTE_LARGE | seen;
}

static void merge_left(struct walk *w, u64 *slot, unsigned int level)
{
	u64 *table = epte_table(epte_load(slot));
	u64 e;

	if (level == EPT_LEVELS || (level == 3 && !has(w->view, FEAT_EPT_1G)))
		return;
	e = joined(w->view, table, level);
	if (!e)
		return;
	epte_store(slot, e);
	ept_table_retire(w->view, table, level - 1, next_generation(w->view));
	w->view->merges++;
	w->stale = true;
	merge_note(w, slot, level, 0, 0);
}

unsigned int ept_merge(struct ept_view *view, gpa_t at)
{
	static const struct walk_ops ops = {
		.decide = down_to_leaf, .set = merge_note, .left = merge_left};
	unsigned int shift = 0;
	u64 from = ALIGN_DOWN(at.v, PAGE_SIZE);
	struct walk w = {
		.view = view, .ops = &ops, .from = from, .end = from + PAGE_SIZE, .result = &shift};

	if (range_ok(gpa(from), PAGE_SIZE))
		walk_change_locked(&w);
	return shift;
}

/* --- look-up and harvest ---------------------------------------------------------------------- */

static struct ept_leaf describe(u64 e, unsigned int level, u64 at)
{
	return (struct ept_leaf){
		.frame = hpa(leaf_frame(e, level, at)),
		.shift = ept_shift(level),
		.perms = e & EPTE_PERMS,
		.type = (e & EPTE_TYPE) >> EPTE_TYPE_SHIFT,
		.accessed = e & EPTE_A,
		.dirty = e & EPTE_D,
	};
}

static void lookup_note(struct walk *w, u64 *slot, unsigned int level, u64 at, u64 end)
{
	*(struct ept_leaf *)w->result = describe(epte_load(slot), level, at);
}

int ept_lookup(struct ept_view *view, gpa_t at, struct ept_leaf *out)
{
	static const struct walk_ops ops = {.decide = down_to_leaf, .set = lookup_note};
	u64 from = ALIGN_DOWN(at.v, PAGE_SIZE);
	struct walk w = {
		.view = view, .ops = &ops, .from = from, .end = from + PAGE_SIZE, .result = out};

	if (!range_ok(gpa(from), PAGE_SIZE))
		return ERR_NOENT;
	out->shift = 0;
	spin_lock(&view->lock);
	walk_view(&w);
	spin_unlock(&view->lock);
	if (out->shift == 0)
		return ERR_NOENT;
	out->frame.v |= at.v & (PAGE_SIZE - 1);
	return 0;
}

static void harvest_set(struct walk *w, u64 *slot, unsigned int level, u64 at, u64 end)
{
	struct ept_leaf leaf;
	u64 e = epte_load(slot);

	if (!(e & (EPTE_A | EPTE_D)))
		return;
	e = __atomic_fetch_and(slot, ~(EPTE_A | EPTE_D), __ATOMIC_RELAXED);
	w->stale = true;
	at = ALIGN_DOWN(at, ept_span(level));
	leaf = describe(e, level, at);
	w->fn(w->ctx, gpa(at), &leaf);
}

int ept_harvest(struct ept_view *view, gpa_t from, u64 bytes, ept_harvest_fn fn, void *ctx)
{
	static const struct walk_ops ops = {.decide = down_to_leaf, .set = harvest_set};
	struct walk w = {.view = view,
			 .ops = &ops,
			 .from = from.v,
			 .end = from.v + bytes,
			 .fn = fn,
			 .ctx = ctx};

	if (!has(view, FEAT_EPT_AD))
		return ERR_NOSYS;
	if (!range_ok(from, bytes))
		return ERR_INVAL;
	return walk_change_locked(&w);
}
