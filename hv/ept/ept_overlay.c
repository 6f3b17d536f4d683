/*
 * Overlays: a view with a few pages of one 2 MiB that are mapped otherwise, for one CPU and for a
 * moment. See ept.h.
 *
 * An overlay has tables of its own along the path to these pages, copied from the view's each time;
 * everything else it shares with the view. So it is right as long as the view's tables on that path
 * are what they were, which the generation tells: whoever takes something away bumps it, and waits
 * for the CPU as for any that runs with the view.
 */
#include <umbra/features.h>

#include "ept/ept_entry.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mem/frame.h"
#include "vmx/vmx.h"

int ept_overlay_init(struct ept_view *view, struct ept_overlay *overlay)
{
	frame_owner_t owner = (frame_owner_t)(FRAME_EPT_BASE + view->vm_id);

	memset(overlay, 0, sizeof(*overlay));
	for (u32 i = 0; i < EPT_LEVELS; i++) {
		if (frame_alloc_page(owner, &overlay->table[i])) {
			ept_overlay_destroy(view, overlay);
			return ERR_NOMEM;
		}
	}
	overlay->eptp = overlay->table[0].v | (view->eptp & ~PAGE_MASK);
	return 0;
}

void ept_overlay_destroy(struct ept_view *view, struct ept_overlay *overlay)
{
	frame_owner_t owner = (frame_owner_t)(FRAME_EPT_BASE + view->vm_id);

	for (u32 i = 0; i < EPT_LEVELS; i++)
		if (overlay->table[i].v)
			frame_free(owner, overlay->table[i], PAGE_SIZE);
	memset(overlay, 0, sizeof(*overlay));
}

int ept_overlay_copy(struct ept_view *view, struct ept_overlay *overlay, gpa_t at)
{
	u64 perms = EPT_RWX | (view->features & BIT64(FEAT_MBEC) ? EPT_XU : 0);
	const u64 *from = phys_to_ptr(view->root);
	u64 generation;
	int err = 0;

	spin_lock(&view->lock);
	generation = __atomic_load_n(&view->generation, __ATOMIC_RELAXED);
	if (overlay->generation == generation && overlay->base.v == ALIGN_DOWN(at.v, SIZE_2M)) {
		spin_unlock(&view->lock);
		return 0;
	}
	overlay->generation = generation;
	for (unsigned int level = EPT_LEVELS; level; level--) {
		u64 *to = phys_to_ptr(overlay->table[EPT_LEVELS - level]);
		u64 e;

		for (u32 i = 0; i < EPT_ENTRIES; i++)
			to[i] = from ? epte_load(&from[i]) : 0;
		if (level == 1)
			break;
		e = to[ept_index(at.v, level)];
		if (epte_is_leaf(e)) {
			err = ERR_EXIST;
			break;
		}
		to[ept_index(at.v, level)] = overlay->table[EPT_LEVELS - level + 1].v | perms;
		from = e ? epte_table(e) : NULL;
	}
	spin_unlock(&view->lock);
	overlay->base = gpa(ALIGN_DOWN(at.v, SIZE_2M));
	return err;
}

void ept_overlay_map(struct ept_overlay *overlay, gpa_t at, hpa_t to, u64 perms,
		     enum ept_memtype type)
{
	u64 *table = phys_to_ptr(overlay->table[EPT_LEVELS - 1]);

	ASSERT(at.v - overlay->base.v < SIZE_2M);
	table[ept_index(at.v, 1)] = to.v | epte_attrs(perms, type);
}

void ept_overlay_no_code(struct ept_overlay *overlay)
{
	u64 *root = phys_to_ptr(overlay->table[0]);

	/* The permissions of all levels count together (SDM 29.3.3.1). */
	for (u32 i = 0; i < EPT_ENTRIES; i++)
		root[i] &= ~(u64)(EPT_X | EPT_XU);
}

void ept_overlay_use(const struct ept_overlay *overlay)
{
	vmx_invept_single(overlay->eptp);
}
