/* What remote.c and fault.c share: see remote.h. */
#pragma once

#include "remote/remote.h"
#include "vm/away.h"
#include "vm/vm.h"

#define HELD_PAGES 16u

struct vm_remote {
	struct vm *vm;
	struct pager *pager; /* vm->space.lock */
	u64 pager_bytes;
	hpa_t *chunk; /* the VM's frames, in pieces of 2 MiB */
	u32 frames, pages;
	bool flags;	     /* the view keeps accessed and dirty flags */
	bool prefetch;	     /* config->prefetch */
	struct async *async; /* async.h; NULL: the guest is not offered it. vm->space.lock */
	/* Pages that each vCPU's exit relies on; by its own CPU, with the space's lock. */
	struct {
		u32 count;
		u32 page[HELD_PAGES];
	} held[BOOT_MAX_VCPUS];
	u32 missed; /* vCPUs for which Umbra itself has missed a page; the space's lock */
	/* With the network's lock. */
	struct store *store;
	u32 link[STORE_NODES]; /* of the fabric */
	u32 up, seen;	       /* bit i: node i answers; has answered */
	bool short_of_copies;  /* a node has been lost, and pages with it */
	u64 count_at;	       /* when to look whether all pages have their copies again */
	u64 store_bytes;
	u64 retry_at; /* a write has found no room: those who wait for frames try again; 0: none */
	u64 stalled;  /* since when an operation has waited for a node; 0: none does */
	bool paused, corrupt;
	bool uneasy; /* short_of_copies, retry_at, stalled, paused or corrupt, as last looked at */
	/* Counters. */
	u64 evictions;
	u64 work_tsc, evict_tsc;
};

/* vm->space.lock held: into the view, with the rights that the VM has left to it. 0 or ERR_NOMEM.
 */
int remote_map(struct vm_remote *r, u32 page, const struct pager_place *place);
/* vm->space.lock held: a page has come or gone, or AWAY_FRAME: whoever waits for it, or for a
 * frame, looks again. */
void remote_wake(struct vm_remote *r, u32 away);
/* No lock held: posts what the pager has queued, and lets it out. */
void remote_post(struct vm_remote *r, u64 now);
/* Likewise: posts the READ that the pager has given to the caller, PAGER_FETCH. */
void remote_fetch(struct vm_remote *r, u32 page, u32 frame, u64 now);
/* No lock held: evicts until there are frames, or all of them are on their way. */
void remote_evict(struct vm_remote *r);

/* A write fault on the first byte of a page that is away, no lock held: true: the instruction
 * writes all of it, and has been advanced so far (overwrite.c). */
bool remote_overwrite(struct vcpu *vcpu, const struct ept_fault *fault, struct pager_access a);

static inline struct spinlock *remote_lock(struct vm_remote *r)
{
	return &r->vm->space.lock;
}

static inline hpa_t remote_frame(const struct vm_remote *r, u32 frame)
{
	return hpa_add(r->chunk[frame / (SIZE_2M / PAGE_SIZE)],
		       frame % (SIZE_2M / PAGE_SIZE) * PAGE_SIZE);
}
