/*
 * Life of a view and of its tables: frame allocator -> reserve -> hierarchy -> limbo -> reserve.
 *
 * Limbo: a CPU in guest mode may hold a pointer to a table in its paging-structure caches for as
 * long as it has not acknowledged the generation in which the table was unlinked, and it may walk
 * the table all that time. The frame must neither be reused nor filled with anything that could
 * pass for a present entry. The list lives in the dead tables themselves, in two words whose bits
 * 11:0 are 0 and which are therefore not present in any EPT format: word 0 is the frame of the next
 * table, word 1 the generation shifted left by 12. A CPU that walks into them takes an EPT
 * violation, finds the page mapped and tries again. Generations fall along the list.
 */
#include <umbra/features.h>

#include "ept/ept_entry.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mem/frame.h"

#define LIMBO_NEXT	 0
#define LIMBO_GENERATION 1

static frame_owner_t owner_of(const struct ept_view *view)
{
	return FRAME_EPT_BASE + view->vm_id;
}

static u64 *table_at(hpa_t frame)
{
	return phys_to_ptr(frame);
}

int ept_view_init(struct ept_view *view, u64 features, u16 vm_id)
{
	int err;

	memset(view, 0, sizeof(*view));
	view->features = features;
	view->vm_id = vm_id;
	view->generation = 1;
	err = frame_alloc_page(owner_of(view), &view->root);
	if (err)
		return err;
	view->tables = 1;
	view->eptp = view->root.v | EPTP_WB | EPTP_LEVELS4;
	if (features & BIT64(FEAT_EPT_AD))
		view->eptp |= EPTP_AD;
	return 0;
}

static void free_hierarchy(struct ept_view *view, hpa_t frame, unsigned int level)
{
	const u64 *table = table_at(frame);

	for (unsigned int i = 0; level > 1 && i < EPT_ENTRIES; i++) {
		u64 e = epte_load(&table[i]);

		if (epte_is_table(e))
			free_hierarchy(view, hpa(e & EPTE_ADDR), level - 1);
	}
	frame_free(owner_of(view), frame, PAGE_SIZE);
}

static void free_list(struct ept_view *view, hpa_t list)
{
	while (list.v) {
		hpa_t next = hpa(table_at(list)[0]);

		frame_free(owner_of(view), list, PAGE_SIZE);
		list = next;
	}
}

void ept_view_destroy(struct ept_view *view)
{
	spin_lock(&view->lock);
	if (view->root.v)
		free_hierarchy(view, view->root, EPT_LEVELS);
	free_list(view, view->reserve);
	free_list(view, view->limbo);
	view->root = view->reserve = view->limbo = hpa(0);
	view->reserve_count = view->limbo_count = 0;
	view->tables = 0;
	view->eptp = 0;
	spin_unlock(&view->lock);
}

/* The frame is zero but for the link. */
static void reserve_push(struct ept_view *view, hpa_t frame)
{
	table_at(frame)[0] = view->reserve.v;
	view->reserve = frame;
	view->reserve_count++;
}

int ept_reserve(struct ept_view *view, u32 tables)
{
	int err = 0;

	spin_lock(&view->lock);
	while (err == 0 && view->reserve_count < tables) {
		hpa_t frame;

		err = frame_alloc_page(owner_of(view), &frame);
		if (err == 0)
			reserve_push(view, frame);
	}
	spin_unlock(&view->lock);
	return err;
}

u64 *ept_table_take(struct ept_view *view)
{
	u64 *table;

	ASSERT(view->reserve_count > 0);
	table = table_at(view->reserve);
	view->reserve = hpa(table[0]);
	view->reserve_count--;
	view->tables++;
	table[0] = 0;
	return table;
}

void ept_table_retire(struct ept_view *view, u64 *table, unsigned int level, u64 generation)
{
	for (unsigned int i = 0; level > 1 && i < EPT_ENTRIES; i++) {
		u64 e = epte_load(&table[i]);

		if (epte_is_table(e))
			ept_table_retire(view, epte_table(e), level - 1, generation);
	}
	epte_store(&table[LIMBO_NEXT], view->limbo.v);
	epte_store(&table[LIMBO_GENERATION], generation << PAGE_SHIFT);
	view->limbo = ptr_to_phys(table);
	view->limbo_count++;
	view->tables--;
}

void ept_table_reclaim(struct ept_view *view, u64 acknowledged)
{
	u64 *last = NULL;
	hpa_t dead = view->limbo;

	/* Skip those that died later than what has been acknowledged, and cut the list there. */
	while (dead.v && table_at(dead)[LIMBO_GENERATION] >> PAGE_SHIFT > acknowledged) {
		last = table_at(dead);
		dead = hpa(last[LIMBO_NEXT]);
	}
	if (last)
		epte_store(&last[LIMBO_NEXT], 0);
	else
		view->limbo = hpa(0);

	while (dead.v) {
		u64 *table = table_at(dead);
		hpa_t next = hpa(table[LIMBO_NEXT]);

		memset(table, 0, PAGE_SIZE);
		reserve_push(view, dead);
		view->limbo_count--;
		dead = next;
	}
}
