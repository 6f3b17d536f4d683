/* Flush hints and what a store to them does, modes of the hint page, HC_PMEM. See pmem.h. */
#include "lib/string.h"
#include "pmem/backing.h"
#include "pmem/internal.h"
#include "vm/internal.h"
#include "vm/platform.h"

_Static_assert(PMEM_HINTS_STRIDE == PAGE_SIZE, "a page of hints for each region");

struct pmem_region *pmem_region(const struct vm *vm, u64 number)
{
	return vm->pmem && number < vm->pmem->count ? &vm->pmem->region[number] : NULL;
}

void pmem_map_hints(struct vm *vm, u32 number)
{
	struct pmem_region *r = &vm->pmem->region[number];
	gpa_t at = pmem_hints_at(number);

	if (r->mode == HC_PMEM_MODE_DIRECT)
		space_set_window(vm, at, r->medium.direct, EPT_R | EPT_W, EPT_UC);
	else if (r->mode == HC_PMEM_MODE_NONE)
		space_set_window(vm, at, r->hints, EPT_R | EPT_W, EPT_WB);
	else
		space_set_window(vm, at, r->hints, EPT_R, EPT_WB);
}

void pmem_collect(struct vm *vm, struct pmem_region *r)
{
	medium_lock(&r->medium);
	/* What is visible by now was written to a page that is marked by now. */
	if (r->medium.kind != MEDIUM_MODEL || marks_empty(&r->opened))
		return;
	/*
	 * The lock is held until everybody's writes are seen by the comparison that follows: were a
	 * page in `written` before the last CPU has stopped writing to it, another flush could take
	 * it out in between.
	 */
	space_close_pmem(vm, r->base, &r->medium.written);
}

static inline void flush(struct vm *vm, struct pmem_region *r)
{
	__atomic_add_fetch(&r->writes, 1, __ATOMIC_RELAXED);
	pmem_collect(vm, r);
	medium_flush(&r->medium);
	medium_unlock(&r->medium);
	if (unlikely(!__atomic_load_n(&vm->pmem->begun, __ATOMIC_RELAXED)))
		pmem_begin(vm);
}

/* A mode that changes just now: what is stored meanwhile comes before that or after it. */
static bool traps(const struct pmem_region *r)
{
	return r->hints.v && __atomic_load_n(&r->mode, __ATOMIC_RELAXED) == HC_PMEM_MODE_TRAP;
}

bool pmem_window_step(struct vcpu *vcpu, u32 number)
{
	struct vm *vm = vcpu->vm;
	struct pmem_region *r = pmem_region(vm, number);
	struct ept_overlay *overlay = &vcpu->step.overlay;

	if (!r || !r->hints.v || !overlay->eptp)
		return false;
	/* It may straddle the pages of two regions: a flush too many does no harm. Before the copy,
	 * as flushing a model changes the view. */
	for (u32 i = 0; i < vm->pmem->count; i++)
		if (traps(&vm->pmem->region[i]))
			flush(vm, &vm->pmem->region[i]);
	if (ept_overlay_copy(&vm->space.view, overlay, pmem_hints_at(0)))
		return false;
	for (u32 i = 0; i < vm->pmem->count; i++)
		if (traps(&vm->pmem->region[i]))
			ept_overlay_map(overlay, pmem_hints_at(i), vm->pmem->region[i].hints,
					EPT_R | EPT_W, EPT_WB);
	vcpu_step_begin(vcpu);
	return true;
}

bool pmem_window_store(struct vcpu *vcpu, gpa_t at, gva_t linear)
{
	struct pmem_region *r = pmem_region(vcpu->vm, (at.v - PMEM_HINTS_BASE) / PMEM_HINTS_STRIDE);
	const struct known_store *store;
	u8 *to;

	if (!r || !traps(r))
		return false;
	store = mmio_known_store(vcpu, linear);
	if (!store)
		return false;
	to = (u8 *)phys_to_ptr(r->hints) + at.v % PAGE_SIZE;
	if (store->size == 8)
		*(u64 *)(void *)to = *(const u64 *)store->from;
	else if (store->size == 4)
		*(u32 *)(void *)to = *(const u32 *)store->from;
	else
		memcpy(to, store->from, store->size);
	flush(vcpu->vm, r);
	end_instruction(vcpu, store->length, false);
	return true;
}

void pmem_window_write(struct vcpu *vcpu, u32 number, u64 offset, const void *from, size_t bytes)
{
	struct pmem_region *r = pmem_region(vcpu->vm, number);

	if (!r || !r->hints.v || offset >= PAGE_SIZE || bytes > PAGE_SIZE - offset)
		return;
	/* What was stored is seen by who reads the page, as with the page mapped. */
	memcpy((u8 *)phys_to_ptr(r->hints) + offset, from, bytes);
	flush(vcpu->vm, r);
}

void pmem_window_read(struct vcpu *vcpu, u32 number, u64 offset, void *to, size_t bytes)
{
	struct pmem_region *r = pmem_region(vcpu->vm, number);

	memset(to, 0xff, bytes);
	if (r && r->hints.v && offset < PAGE_SIZE && bytes <= PAGE_SIZE - offset)
		memcpy(to, (const u8 *)phys_to_ptr(r->hints) + offset, bytes);
}

void pmem_written(struct vm *vm, u32 number, u64 offset, u64 bytes)
{
	bool labels = number >= PMEM_REGIONS;
	struct pmem_region *r = pmem_region(vm, labels ? number - PMEM_REGIONS : number);

	if (r && r->backing)
		backing_written(vm, r->backing, labels, offset, bytes);
	else if (r && !labels)
		medium_written(&r->medium, offset, bytes);
}

int pmem_open(struct vm *vm, u32 number, u64 page)
{
	bool labels = number >= PMEM_REGIONS;
	struct pmem_region *r = pmem_region(vm, labels ? number - PMEM_REGIONS : number);

	return r && r->backing ? backing_open(vm, r->backing, labels, page) : ERR_INVAL;
}

int pmem_set_mode(struct vm *vm, u32 number, u32 mode)
{
	struct pmem_region *r = pmem_region(vm, number);

	if (!r || !r->hints.v || mode > HC_PMEM_MODE_TRAP)
		return ERR_INVAL;
	if (mode == HC_PMEM_MODE_DIRECT && !r->medium.direct.v)
		return ERR_INVAL;
	if (mode == HC_PMEM_MODE_NONE && r->medium.controllers && r->medium.kind != MEDIUM_MODEL)
		return ERR_INVAL;
	spin_lock(&r->mode_lock);
	__atomic_store_n(&r->mode, mode, __ATOMIC_RELAXED);
	pmem_map_hints(vm, number);
	pmem_collect(vm, r);
	medium_set_direct(&r->medium, mode == HC_PMEM_MODE_DIRECT);
	medium_unlock(&r->medium);
	spin_unlock(&r->mode_lock);
	return 0;
}

/* --- HC_PMEM ------------------------------------------------------------------------------------
 */

static s64 of_backing(const struct backing *b, u64 what)
{
	switch (what) {
	case HC_PMEM_DIRTY:
		return (s64)__atomic_load_n(&b->dirty, __ATOMIC_RELAXED);
	case HC_PMEM_BUDGET:
		return (s64)b->budget;
	case HC_PMEM_MOST_DIRTY:
		return (s64)b->most;
	case HC_PMEM_GENERATION:
		return (s64)b->save.generation;
	case HC_PMEM_SAVE_STATE:
		return backing_state(b);
	case HC_PMEM_SAVED_SECTORS:
		return (s64)b->last_sectors;
	}
	return HC_EINVAL;
}

static s64 of_region(struct vm *vm, u64 what, u64 number, u64 argument)
{
	struct pmem_region *r = pmem_region(vm, number);
	s64 lines;

	if (!r)
		return HC_EINVAL;
	switch (what) {
	case HC_PMEM_MODE:
		return __atomic_load_n(&r->mode, __ATOMIC_RELAXED);
	case HC_PMEM_SET_MODE:
		return argument <= HC_PMEM_MODE_TRAP &&
				       !pmem_set_mode(vm, (u32)number, (u32)argument)
			       ? 0
			       : HC_EINVAL;
	case HC_PMEM_CONTROLLERS:
		return r->medium.controllers;
	case HC_PMEM_FLUSHES:
		return argument < r->medium.controllers
			       ? (s64)__atomic_load_n(&r->medium.flushes[argument],
						      __ATOMIC_RELAXED)
			       : HC_EINVAL;
	case HC_PMEM_WRITES:
		return (s64)__atomic_load_n(&r->writes, __ATOMIC_RELAXED);
	case HC_PMEM_PENDING:
		pmem_collect(vm, r);
		lines = (s64)medium_pending(&r->medium);
		medium_unlock(&r->medium);
		return lines;
	case HC_PMEM_DRAIN:
		pmem_collect(vm, r);
		medium_drain(&r->medium);
		medium_unlock(&r->medium);
		return 0;
	case HC_PMEM_KIND:
		return r->medium.kind;
	}
	return r->backing ? of_backing(r->backing, what) : HC_EINVAL;
}

static u32 image_tsc(struct vm_pmem *p, u32 part)
{
	return (u32)(__atomic_load_n(&p->image_tsc[part / 2], __ATOMIC_RELAXED) >> part % 2 * 32);
}

s64 pmem_hypercall(struct vcpu *vcpu, u64 what, u64 number, u64 argument)
{
	struct vm *vm = vcpu->vm;

	switch (what) {
	case HC_PMEM_REGIONS:
		return vm->pmem ? vm->pmem->count : 0;
	case HC_PMEM_CUT:
		return pmem_cut(vm) ? HC_EINVAL : 0;
	case HC_PMEM_POWER_LOSS:
		return pmem_power_loss(vm) ? HC_EINVAL : 0;
	case HC_PMEM_CUT_WITHIN:
		return pmem_cut_within(vm, argument, number) ? HC_EINVAL : 0;
	case HC_PMEM_IMAGE:
		return pmem_image_instead(vm, number, argument) ? HC_EINVAL : 0;
	case HC_PMEM_IMAGES:
		return vm->pmem ? (s64)__atomic_load_n(&vm->pmem->images, __ATOMIC_ACQUIRE)
				: HC_EINVAL;
	case HC_PMEM_IMAGE_TSC:
		return vm->pmem && argument < 4 ? (s64)image_tsc(vm->pmem, (u32)argument)
						: HC_EINVAL;
	case HC_PMEM_CUTS:
		return vm->pmem ? (s64)vm->pmem->cuts : HC_EINVAL;
	case HC_PMEM_CUT_RIP:
		return vm->pmem ? (s64)vm->pmem->cut_rip : HC_EINVAL;
	}
	return of_region(vm, what, number, argument);
}

_Static_assert((int)MEDIUM_REAL == HC_PMEM_KIND_HOST && (int)MEDIUM_RAM == HC_PMEM_KIND_RAM &&
		       (int)MEDIUM_MODEL == HC_PMEM_KIND_MODEL,
	       "kinds are told as they are");
