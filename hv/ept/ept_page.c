/* Single pages of 4 KiB, for those who page: see ept.h. */
#include "ept/ept_entry.h"

/* The slot of the page in its table; NULL: there is no table. view->lock held. */
static inline u64 *page_slot(const struct ept_view *view, gpa_t at)
{
	u64 *table = phys_to_ptr(view->root);

#pragma GCC unroll 3
	for (unsigned int level = EPT_LEVELS; level > 1; level--) {
		u64 e = epte_load(&table[ept_index(at.v, level)]);

		if (!epte_is_table(e))
			return NULL;
		table = epte_table(e);
	}
	return table + ept_index(at.v, 1);
}

/* The slot of the page's 4 KiB leaf, or NULL. */
static inline u64 *leaf_slot(const struct ept_view *view, gpa_t at)
{
	u64 *slot = page_slot(view, at);

	return slot && epte_is_leaf(epte_load(slot)) ? slot : NULL;
}

bool ept_page_put(struct ept_view *view, gpa_t at, hpa_t to, u64 perms)
{
	bool done = false;
	u64 *slot;

	spin_lock(&view->lock);
	slot = page_slot(view, at);
	if (slot && !epte_load(slot)) {
		epte_store(slot, to.v | epte_attrs(perms, EPT_WB));
		done = true;
	}
	spin_unlock(&view->lock);
	return done;
}

bool ept_page_accessed(struct ept_view *view, gpa_t at)
{
	bool accessed = false;
	u64 *slot;

	spin_lock(&view->lock);
	slot = leaf_slot(view, at);
	if (slot)
		accessed = __atomic_fetch_and(slot, ~EPTE_A, __ATOMIC_RELAXED) & EPTE_A;
	spin_unlock(&view->lock);
	return accessed;
}

bool ept_page_take(struct ept_view *view, gpa_t at)
{
	u64 *slot, old = 0;

	spin_lock(&view->lock);
	slot = leaf_slot(view, at);
	if (slot) {
		/* One step, or a CPU could set D in between. */
		old = __atomic_exchange_n(slot, 0, __ATOMIC_SEQ_CST);
		__atomic_fetch_add(&view->generation, 1, __ATOMIC_SEQ_CST);
	}
	spin_unlock(&view->lock);
	return old & EPTE_D;
}
