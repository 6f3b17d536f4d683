/* Guest-physical address spaces: regions, their backing, faults on them, permissions. */
#include "vm/space.h"

#include "lib/log.h"
#include "lib/string.h"
#include "mem/frame.h"
#include "vm/away.h"
#include "vm/internal.h"
#include "vm/load.h"
#include "x86/cpu.h"

/* Tables kept ready so that a fault never allocates: enough to map a fresh 4 KiB page anywhere. */
#define FAULT_RESERVE 64

static u64 chunk_count(const struct region *region)
{
	return region->bytes / SIZE_2M;
}

static int insert_region(struct space *space, const struct region *region)
{
	u32 at = space->region_count;

	if (at == SPACE_MAX_REGIONS)
		return ERR_NOMEM;
	while (at > 0 && space->region[at - 1].base.v > region->base.v) {
		space->region[at] = space->region[at - 1];
		at--;
	}
	space->region[at] = *region;
	space->region_count++;
	return 0;
}

/* One chunk at a time below 1 GiB; whole gibibytes, so that 1 GiB leaves fit, as long as there are.
 */
static int back_region(struct vm *vm, struct region *region)
{
	frame_owner_t owner = (frame_owner_t)(FRAME_VM_BASE + vm->id);
	u64 count = chunk_count(region);
	bool try_1g = vmx_has(FEAT_EPT_1G);

	for (u64 i = 0; i < count;) {
		u64 address = region->base.v + i * SIZE_2M;
		hpa_t base;

		if (try_1g && IS_ALIGNED(address, SIZE_1G) && count - i >= SIZE_1G / SIZE_2M) {
			if (!frame_alloc(owner, SIZE_1G, SIZE_1G, &base)) {
				for (u64 j = 0; j < SIZE_1G / SIZE_2M; j++)
					region->chunks[i + j] = hpa_add(base, j * SIZE_2M);
				i += SIZE_1G / SIZE_2M;
				continue;
			}
			try_1g = false;
		}
		if (frame_alloc(owner, SIZE_2M, SIZE_2M, &base))
			return ERR_NOMEM;
		region->chunks[i++] = base;
	}
	for (u64 i = 0; i < count; i++)
		memset(phys_to_ptr(region->chunks[i]), 0, SIZE_2M);
	return 0;
}

static int add_ram(struct vm *vm, gpa_t base, u64 bytes)
{
	struct region region = {.base = base, .bytes = bytes, .kind = REGION_RAM};
	int err;

	if (!bytes)
		return 0;
	region.chunks = heap_alloc(chunk_count(&region) * sizeof(hpa_t));
	if (!region.chunks)
		return ERR_NOMEM;
	err = insert_region(&vm->space, &region);
	if (err) {
		heap_free(region.chunks, chunk_count(&region) * sizeof(hpa_t));
		return err;
	}
	return back_region(vm, &region);
}

/* RAM that remote/ has: a number for each page, and all tables of 4 KiB leaves that it can need. */
static int add_remote(struct vm *vm, gpa_t base, u64 bytes, u32 first_page)
{
	struct region region = {
		.base = base, .bytes = bytes, .kind = REGION_REMOTE, .first_page = first_page};
	int err;

	if (!bytes)
		return 0;
	err = insert_region(&vm->space, &region);
	/* One for each 2 MiB and each 1 GiB that it touches. */
	return err ? err
		   : ept_reserve(&vm->space.view, vm->space.view.reserve_count +
							  (u32)(bytes / SIZE_2M) +
							  (u32)(bytes / SIZE_1G) + 3);
}

static int add_all_remote(struct vm *vm, u64 low, u64 high)
{
	int err = add_remote(vm, gpa(0), low, 0);

	if (!err)
		err = add_remote(vm, gpa(LOAD_HIGH_BASE), high, (u32)(low / PAGE_SIZE));
	return err ? err : remote_create(vm);
}

int space_init(struct vm *vm, u64 ram_bytes)
{
	struct space *space = &vm->space;
	u64 low, high;
	int err;

	memset(space, 0, sizeof(*space));
	load_split_ram(ram_bytes, &low, &high);
	err = ept_view_init(&space->view, vmx_features, (u16)vm->id);
	if (!err)
		err = ept_reserve(&space->view, FAULT_RESERVE);
	if (!err && vm->config->remote_count)
		return add_all_remote(vm, low, high);
	if (!err)
		err = add_ram(vm, gpa(0), low);
	if (!err)
		err = add_ram(vm, gpa(LOAD_HIGH_BASE), high);
	return err;
}

void space_destroy(struct vm *vm)
{
	frame_owner_t owner = (frame_owner_t)(FRAME_VM_BASE + vm->id);
	struct space *space = &vm->space;

	for (u32 i = 0; i < space->region_count; i++) {
		struct region *region = &space->region[i];

		if (!region->chunks)
			continue;
		/* By chunk: a search through all frames would keep this CPU's other VMs waiting. */
		for (u64 c = 0; c < chunk_count(region); c++)
			if (region->chunks[c].v)
				frame_free(owner, region->chunks[c], SIZE_2M);
		heap_free(region->chunks, chunk_count(region) * sizeof(hpa_t));
	}
	if (space->view.eptp)
		ept_view_destroy(&space->view);
	memset(space, 0, sizeof(*space));
}

int space_add_mmio(struct vm *vm, gpa_t base, u64 bytes, u32 device)
{
	struct region region = {
		.base = base, .bytes = bytes, .kind = REGION_MMIO, .device = device};

	return insert_region(&vm->space, &region);
}

int space_add_pmem(struct vm *vm, gpa_t base, u64 bytes, hpa_t frame, u64 leaf, u32 number)
{
	struct region region = {.base = base,
				.bytes = bytes,
				.kind = REGION_PMEM,
				.device = number,
				.frame = frame,
				.leaf = leaf};
	int err = insert_region(&vm->space, &region);

	if (!err)
		vm->space.pmem_count++;
	return err;
}

int space_add_window(struct vm *vm, gpa_t base, u64 bytes, u32 number)
{
	struct region region = {
		.base = base, .bytes = bytes, .kind = REGION_WINDOW, .device = number};
	struct space *space = &vm->space;
	u64 end = MAX(base.v + bytes, space->windows.v + space->window_bytes);

	if (!space->window_bytes || base.v < space->windows.v)
		space->windows = base;
	space->window_bytes = end - space->windows.v;
	return insert_region(space, &region);
}

static struct region *region_at(struct space *space, gpa_t base)
{
	for (u32 i = 0; i < space->region_count; i++)
		if (space->region[i].base.v == base.v)
			return &space->region[i];
	return NULL;
}

void space_track_pmem(struct vm *vm, gpa_t base, struct marks *opened)
{
	region_at(&vm->space, base)->opened = opened;
}

void space_bound_pmem(struct vm *vm, gpa_t base)
{
	region_at(&vm->space, base)->bounded = true;
}

const struct region *space_find(const struct space *space, gpa_t at)
{
	return region_find(space, at);
}

u64 space_perms(const struct space *space, gpa_t at)
{
	u64 perms = EPT_RWX;

	for (u32 i = 0; i < space->override_count; i++)
		if (at.v - space->override[i].base.v < space->override[i].bytes)
			perms = space->override[i].perms;
	return perms;
}

/* Some override touches [base, base + bytes). */
static bool overridden(const struct space *space, u64 base, u64 bytes)
{
	for (u32 i = 0; i < space->override_count; i++)
		if (space->override[i].base.v < base + bytes &&
		    base < space->override[i].base.v + space->override[i].bytes)
			return true;
	return false;
}

/* The 1 GiB around `at` is RAM of this region on contiguous, aligned frames. */
static bool backed_by_1g(const struct region *region, u64 start)
{
	u64 first;

	if (start < region->base.v || start + SIZE_1G > region->base.v + region->bytes)
		return false;
	if (region->kind == REGION_PMEM)
		return true;
	first = (start - region->base.v) / SIZE_2M;
	if (!IS_ALIGNED(region->chunks[first].v, SIZE_1G))
		return false;
	for (u64 i = 1; i < SIZE_1G / SIZE_2M; i++)
		if (region->chunks[first + i].v != region->chunks[first].v + i * SIZE_2M)
			return false;
	return true;
}

/* A range of the host's may begin and end at any page. */
static bool pmem_leaf_fits(const struct region *region, u64 start, u64 size)
{
	return size <= region->leaf && start >= region->base.v &&
	       start + size <= region->base.v + region->bytes &&
	       IS_ALIGNED(region_frame(region, gpa(start)).v, size);
}

/* Maps the largest piece around `at` that has one permission and one backing. */
static int map_ram(struct vm *vm, const struct region *region, gpa_t at)
{
	struct space *space = &vm->space;
	static const u64 sizes[] = {SIZE_1G, SIZE_2M, PAGE_SIZE};
	struct ept_leaf leaf;
	hpa_t frame;
	u64 perms;
	int err;

	for (u32 i = 0; i < ARRAY_SIZE(sizes); i++) {
		u64 size = sizes[i];
		u64 start = ALIGN_DOWN(at.v, size);

		if (size == SIZE_1G && (!vmx_has(FEAT_EPT_1G) || !backed_by_1g(region, start)))
			continue;
		if (size != PAGE_SIZE && overridden(space, start, size))
			continue;
		if (region->kind == REGION_PMEM && !pmem_leaf_fits(region, start, size))
			continue;
		perms = space_perms(space, at);
		frame = region_frame(region, gpa(start));
		err = ept_fill(&space->view, gpa(start), frame, size, perms, EPT_WB);
		/* Another vCPU was faster, or there is a table with holes. A stale translation in
		 * this CPU ends with the exit. */
		if (err == ERR_EXIST)
			err = ept_lookup(&space->view, at, &leaf)
				      ? ept_map(&space->view, gpa(start), frame, size, perms,
						EPT_WB)
				      : 0;
		return err;
	}
	return ERR_INVAL;
}

static enum fault_result ram_fault(struct vcpu *vcpu, const struct region *region,
				   const struct ept_fault *fault)
{
	struct space *space = &vcpu->vm->space;
	u64 wanted = fault->access;
	u64 perms;
	int err = 0;

	spin_lock(&space->lock);
	perms = space_perms(space, fault->addr);
	if ((perms & wanted) == wanted)
		err = map_ram(vcpu->vm, region, fault->addr);
	if (space->view.reserve_count < FAULT_RESERVE / 2)
		ept_reserve(&space->view, FAULT_RESERVE);
	spin_unlock(&space->lock);
	if ((perms & wanted) != wanted)
		return FAULT_REFUSED;
	if (err) {
		vcpu_fatal(vcpu, "no memory for EPT tables (error %d)", err);
		return FAULT_FATAL;
	}
	return FAULT_RETRY;
}

static int map_page(struct space *space, const struct region *region, u64 number, bool write)
{
	gpa_t page = gpa_add(region->base, number * PAGE_SIZE);

	if (write)
		marks_add(region->opened, number);
	ept_reserve(&space->view, FAULT_RESERVE);
	return ept_map(&space->view, page, region_frame(region, page), PAGE_SIZE,
		       write ? EPT_RWX : EPT_R | EPT_X, EPT_WB);
}

int space_open_page(struct vm *vm, gpa_t base, u64 page)
{
	int err;

	spin_lock(&vm->space.lock);
	err = map_page(&vm->space, region_at(&vm->space, base), page, true);
	spin_unlock(&vm->space.lock);
	return err;
}

u64 space_close_page(struct vm *vm, gpa_t base, u64 from)
{
	struct space *space = &vm->space;
	u64 page;

	spin_lock(&space->lock);
	page = marks_take(region_at(space, base)->opened, from);
	if (page != MARKS_NONE)
		ept_protect(&space->view, gpa_add(base, page * PAGE_SIZE), PAGE_SIZE,
			    EPT_R | EPT_X);
	spin_unlock(&space->lock);
	if (page != MARKS_NONE)
		ept_sync(&space->view, this_cpu()->index, cpu_count);
	return page;
}

/* Writes are followed: writable only from the first of them on. */
static enum fault_result pmem_fault(struct vcpu *vcpu, const struct region *region,
				    const struct ept_fault *fault)
{
	struct space *space = &vcpu->vm->space;
	u64 number = (fault->addr.v - region->base.v) / PAGE_SIZE;
	int err;

	if (!region->opened)
		return ram_fault(vcpu, region, fault);
	if (fault->write && region->bounded) {
		err = pmem_open(vcpu->vm, region->device, number);
	} else {
		spin_lock(&space->lock);
		err = map_page(space, region, number, fault->write);
		spin_unlock(&space->lock);
	}
	if (err) {
		vcpu_fatal(vcpu, "no memory for EPT tables (error %d)", err);
		return FAULT_FATAL;
	}
	return FAULT_RETRY;
}

void space_close_pmem(struct vm *vm, gpa_t base, struct marks *written)
{
	struct space *space = &vm->space;
	const struct region *region = region_at(space, base);
	bool closed = false;

	spin_lock(&space->lock);
	for (u64 page = 0; (page = marks_take(region->opened, page)) != MARKS_NONE; page++) {
		/* A leaf of 4 KiB: it takes no table. */
		ept_protect(&space->view, gpa_add(base, page * PAGE_SIZE), PAGE_SIZE,
			    EPT_R | EPT_X);
		marks_add(written, page);
		closed = true;
	}
	spin_unlock(&space->lock);
	if (closed)
		ept_sync(&space->view, this_cpu()->index, cpu_count);
}

#define APIC_PAGE 0xfee00000

static bool all_in_xapic_mode(const struct vm *vm)
{
	for (u32 i = 0; i < vm->vcpu_count; i++)
		if (platform_apic_mode(vm->vcpu[i]) != APIC_MODE_XAPIC)
			return false;
	return true;
}

/* An APIC-access page has to be mapped to be virtualized by the processor (SDM 30.4.1). */
static bool map_apic(struct vm *vm)
{
	struct space *space = &vm->space;
	struct ept_leaf leaf;
	bool mapped = false;

	spin_lock(&space->lock);
	if (all_in_xapic_mode(vm) && ept_lookup(&space->view, gpa(APIC_PAGE), &leaf)) {
		ept_reserve(&space->view, FAULT_RESERVE);
		mapped = !ept_map(&space->view, gpa(APIC_PAGE), vm->apic_access, PAGE_SIZE,
				  EPT_R | EPT_W, EPT_WB);
	}
	spin_unlock(&space->lock);
	return mapped;
}

void space_unmap_apic(struct vm *vm)
{
	struct space *space = &vm->space;
	struct ept_leaf leaf;

	if (!vm->apic_access.v)
		return;
	spin_lock(&space->lock);
	if (!ept_lookup(&space->view, gpa(APIC_PAGE), &leaf))
		ept_unmap(&space->view, gpa(APIC_PAGE), PAGE_SIZE);
	spin_unlock(&space->lock);
	ept_sync(&space->view, this_cpu()->index, cpu_count);
}

static enum fault_result mmio_fault(struct vcpu *vcpu, const struct region *region,
				    const struct ept_fault *fault)
{
	if (region->base.v == APIC_PAGE && vcpu->vm->apic_access.v && map_apic(vcpu->vm))
		return FAULT_RETRY;
	return FAULT_EMULATE;
}

/* What the window is not mapped for is emulated: reads by a copy, writes by pmem/, fetches by #UD.
 */
static enum fault_result window_fault(struct vcpu *vcpu, const struct region *region,
				      const struct ept_fault *fault)
{
	struct space *space = &vcpu->vm->space;
	u64 wanted = fault->access;
	gpa_t page = gpa(fault->addr.v & PAGE_MASK);
	int err = ERR_PERM;

	spin_lock(&space->lock);
	if (region->perms && (region->perms & wanted) == wanted) {
		ept_reserve(&space->view, FAULT_RESERVE);
		err = ept_map(&space->view, page, hpa_add(region->frame, page.v - region->base.v),
			      PAGE_SIZE, region->perms, region->type);
	}
	spin_unlock(&space->lock);
	return err ? FAULT_EMULATE : FAULT_RETRY;
}

void space_set_window(struct vm *vm, gpa_t base, hpa_t frame, u64 perms, enum ept_memtype type)
{
	struct space *space = &vm->space;

	spin_lock(&space->lock);
	for (u32 i = 0; i < space->region_count; i++) {
		struct region *region = &space->region[i];

		if (region->kind != REGION_WINDOW || region->base.v != base.v)
			continue;
		region->frame = frame;
		region->perms = perms;
		region->type = type;
		/* Whole 4 KiB leaves, so that this takes no table and cannot fail. */
		ept_unmap(&space->view, base, region->bytes);
	}
	spin_unlock(&space->lock);
	ept_sync(&space->view, this_cpu()->index, cpu_count);
}

typedef enum fault_result (*region_fault_fn)(struct vcpu *, const struct region *,
					     const struct ept_fault *);
static const region_fault_fn region_fault[REGION_KINDS] = {
	[REGION_RAM] = ram_fault,	[REGION_MMIO] = mmio_fault,	[REGION_PMEM] = pmem_fault,
	[REGION_REMOTE] = remote_fault, [REGION_WINDOW] = window_fault,
};

enum fault_result space_fault(struct vcpu *vcpu, const struct ept_fault *fault)
{
	const struct region *region = space_find(&vcpu->vm->space, fault->addr);

	return region ? region_fault[region->kind](vcpu, region, fault) : FAULT_EMULATE;
}

/* --- permissions and discarding ------------------------------------------------------------------
 */

static const struct region *whole_ram(const struct space *space, gpa_t base, u64 bytes)
{
	const struct region *region = space_find(space, base);

	if (!IS_ALIGNED(base.v, PAGE_SIZE) || !IS_ALIGNED(bytes, PAGE_SIZE) || !bytes)
		return NULL;
	if (!region || (region->kind != REGION_RAM && region->kind != REGION_REMOTE))
		return NULL;
	return bytes <= region->bytes - (base.v - region->base.v) ? region : NULL;
}

static bool perms_offered(u64 perms)
{
	if (perms & ~EPT_RWX)
		return false;
	if ((perms & EPT_W) && !(perms & EPT_R))
		return false;
	return perms != EPT_X || vmx_has(FEAT_EPT_XO);
}

/* Later entries win; whatever the new range covers whole goes away. */
static int add_override(struct space *space, gpa_t base, u64 bytes, u64 perms)
{
	u32 kept = 0;

	for (u32 i = 0; i < space->override_count; i++) {
		const struct override *o = &space->override[i];

		if (o->base.v >= base.v && o->base.v + o->bytes <= base.v + bytes)
			continue;
		space->override[kept++] = *o;
	}
	space->override_count = kept;
	if (perms == EPT_RWX && !overridden(space, base.v, bytes))
		return 0;
	if (kept == SPACE_MAX_OVERRIDES)
		return ERR_NOMEM;
	space->override[kept] = (struct override){base, bytes, perms};
	space->override_count++;
	return 0;
}

/* Joins what has one permission again; only 2 MiB pieces that the range touches can have changed.
 */
static void merge_range(struct space *space, gpa_t base, u64 bytes)
{
	for (u64 at = ALIGN_DOWN(base.v, SIZE_2M); at < base.v + bytes; at += SIZE_2M)
		if (!overridden(space, at, SIZE_2M))
			ept_merge(&space->view, gpa(at));
}

int space_protect(struct vm *vm, gpa_t base, u64 bytes, u64 perms)
{
	struct space *space = &vm->space;
	const struct region *region = whole_ram(space, base, bytes);
	int err;

	if (!region || !perms_offered(perms))
		return ERR_INVAL;
	spin_lock(&space->lock);
	/* Splits at both ends take four tables at most: with these, nothing below can fail
	 * half-way. */
	err = ept_reserve(&space->view, FAULT_RESERVE);
	if (!err)
		err = add_override(space, base, bytes, perms);
	/* Remote pages are mapped one by one, and not all with the rights that they may have. */
	if (!err && region->kind == REGION_REMOTE)
		remote_unmap(vm, region, base, bytes);
	else if (!err)
		err = ept_protect(&space->view, base, bytes, perms);
	if (!err && region->kind != REGION_REMOTE)
		merge_range(space, base, bytes);
	spin_unlock(&space->lock);
	ept_sync(&space->view, this_cpu()->index, cpu_count);
	return err;
}

int space_discard(struct vm *vm, gpa_t base, u64 bytes)
{
	struct space *space = &vm->space;
	const struct region *region = whole_ram(space, base, bytes);
	int err;

	if (!region)
		return ERR_INVAL;
	spin_lock(&space->lock);
	ept_reserve(&space->view, FAULT_RESERVE);
	err = ept_unmap(&space->view, base, bytes);
	spin_unlock(&space->lock);
	/* Nobody may write through an old translation while, or after, the pages are cleared. */
	ept_sync(&space->view, this_cpu()->index, cpu_count);
	if (!err) {
		remote_insist(true);
		err = guest_zero(vm, base, bytes);
		remote_insist(false);
	}
	return err;
}
