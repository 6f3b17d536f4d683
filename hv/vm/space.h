/*
 * A guest's physical address space: a sorted list of regions, each with a kind. An EPT violation
 * looks its region up and calls the fault function of the kind: nobody else decodes violations.
 *
 * RAM is backed by host-physical chunks of 2 MiB (2 MiB aligned on both sides), allocated when the
 * VM is created and mapped on first touch with the largest leaves that fit.
 */
#pragma once

#include "ept/ept.h"
#include "lib/marks.h"
#include "lib/types.h"

struct vcpu;
struct vm;

enum region_kind {
	REGION_RAM,
	REGION_MMIO,   /* `device` tells the platform which one */
	REGION_PMEM,   /* memory like RAM on frames that pmem/ owns */
	REGION_REMOTE, /* RAM of which some is in frames: away.h */
	REGION_WINDOW, /* a few pages, mapped for what `perms` says: pmem/ has the rest */
	REGION_KINDS
};

struct region {
	gpa_t base;
	u64 bytes;
	enum region_kind kind;
	u32 device;	      /* REGION_MMIO: platform's number; PMEM, WINDOW: pmem's */
	hpa_t *chunks;	      /* REGION_RAM: one per 2 MiB; heap memory owned by the space */
	hpa_t frame;	      /* PMEM, WINDOW: what it is mapped to, contiguous */
	u64 leaf;	      /* PMEM: largest EPT leaf: 4 KiB where writes have to be told apart */
	u32 first_page;	      /* REMOTE: number of its first page */
	struct marks *opened; /* PMEM: pages that are mapped writable; NULL: nobody wants to know */
	bool bounded;	      /* PMEM: pmem/ opens pages */
	u64 perms;	      /* WINDOW: EPT_* */
	u32 type;	      /* WINDOW: enum ept_memtype */
};

/* Bytes that are just memory, which guest_read() and its kin (memory.h) reach. */
static inline bool region_is_memory(const struct region *region)
{
	return region->kind == REGION_RAM || region->kind == REGION_PMEM ||
	       region->kind == REGION_REMOTE;
}

/* The frame of a byte of REGION_RAM or REGION_PMEM. */
static inline hpa_t region_frame(const struct region *region, gpa_t at)
{
	u64 offset = at.v - region->base.v;

	if (unlikely(region->kind == REGION_PMEM))
		return hpa_add(region->frame, offset);
	return hpa_add(region->chunks[offset / SIZE_2M], offset % SIZE_2M);
}

/* What an override allows less than the region does (hypercall HC_PROTECT, later guards). */
struct override {
	gpa_t base;
	u64 bytes;
	u64 perms;
};

#define SPACE_MAX_REGIONS   16
#define SPACE_MAX_OVERRIDES 64

struct space {
	struct spinlock lock;
	u32 region_count;
	u32 override_count;
	u32 pmem_count; /* regions of REGION_PMEM */
	gpa_t windows;	/* all of REGION_WINDOW lie in so many bytes from here */
	u64 window_bytes;
	struct region region[SPACE_MAX_REGIONS];
	struct override override[SPACE_MAX_OVERRIDES];
	struct ept_view view; /* the default view; capabilities bring their own */
};

/* An EPT violation, decoded once (SDM table 28-7). */
struct ept_fault {
	gpa_t addr;
	gva_t linear;
	u8 access; /* EPT_R, EPT_W, EPT_X */
	bool write;
	bool linear_valid;
	bool walk; /* the access was to a guest paging structure, not the final address */
};

enum fault_result {
	FAULT_RETRY,   /* mapped: run the instruction again */
	FAULT_DONE,    /* emulated: RIP has been advanced or an event is pending */
	FAULT_EMULATE, /* device memory or a hole: the instruction has to be emulated */
	FAULT_REFUSED, /* the view's policy refuses: the caller reflects it to the guest */
	FAULT_FATAL,   /* the VM has been ended */
};

int space_init(struct vm *vm, u64 ram_bytes);
void space_destroy(struct vm *vm);

int space_add_mmio(struct vm *vm, gpa_t base, u64 bytes, u32 device);

/* Memory of pmem/, whole pages, mapped with the largest leaves up to `leaf` that fit. */
int space_add_pmem(struct vm *vm, gpa_t base, u64 bytes, hpa_t frame, u64 leaf, u32 number);

/*
 * The guest's writes to a region of space_add_pmem() with leaves of 4 KiB are followed from now on,
 * before the VM runs: a page is mapped writable at the first write to it, and goes into `opened`
 * (of the caller, for as long as the space lives; now empty). space_close_pmem() makes those pages
 * read-only, moves them to `written`, and returns when no CPU writes to them unnoticed any more.
 * One caller at a time for each region; in root mode. It needs dirty flags of no processor, and
 * takes time only for pages that have been written to.
 */
void space_track_pmem(struct vm *vm, gpa_t base, struct marks *opened);
void space_close_pmem(struct vm *vm, gpa_t base, struct marks *written);

/*
 * The same for one page at a time, where pmem/ wants a say in which are writable: the first write
 * to a page of a region that is followed calls pmem_open() (vm/platform.h). space_open_page() maps
 * it writable: 0 or ERR_NOMEM. space_close_page() closes the first open one from `from` on, numbers
 * of pages of the region, and returns it, or MARKS_NONE. For both: one caller at a time.
 */
void space_bound_pmem(struct vm *vm, gpa_t base);
int space_open_page(struct vm *vm, gpa_t base, u64 page);
u64 space_close_page(struct vm *vm, gpa_t base, u64 from);

/*
 * A window: perms that the processor offers, without W if writes are to be emulated (vm/platform.h,
 * pmem_window_write()); nothing is ever executed there. `set` changes what one is mapped to while
 * the VM runs; when it returns nobody uses the old mapping.
 */
int space_add_window(struct vm *vm, gpa_t base, u64 bytes, u32 number);
void space_set_window(struct vm *vm, gpa_t base, hpa_t frame, u64 perms, enum ept_memtype type);

/* False: `at` is in no window. */
static inline bool space_near_window(const struct space *space, gpa_t at)
{
	return at.v - space->windows.v < space->window_bytes;
}

/* The region that holds `at`, or NULL for a hole (reads all ones, writes are ignored). The same in
 * line, for paths that have to be short. */
const struct region *space_find(const struct space *space, gpa_t at);

static inline const struct region *region_find(const struct space *space, gpa_t at)
{
	for (u32 i = 0; i < space->region_count; i++) {
		const struct region *region = &space->region[i];

		if (at.v - region->base.v < region->bytes)
			return region;
	}
	return NULL;
}

/* The one place that says what a page may be accessed for in the default view. The same in line. */
u64 space_perms(const struct space *space, gpa_t at);

static inline u64 region_perms(const struct space *space, gpa_t at)
{
	return likely(!space->override_count) ? EPT_RWX : space_perms(space, at);
}

enum fault_result space_fault(struct vcpu *vcpu, const struct ept_fault *fault);

/*
 * The APIC-access page is in the way of nobody only while all vCPUs are in xAPIC mode: one that
 * leaves it takes the page out of the view.
 */
void space_unmap_apic(struct vm *vm);

/* HC_PROTECT, HC_DISCARD: 0 or ERR_INVAL/ERR_NOMEM; invalidated everywhere when they return. */
int space_protect(struct vm *vm, gpa_t base, u64 bytes, u64 perms);
int space_discard(struct vm *vm, gpa_t base, u64 bytes);
