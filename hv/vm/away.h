/*
 * Guest RAM that is not all here (REGION_REMOTE): what vm/ asks of remote/, which defines these
 * functions (bound at link time), and what remote/ asks of vm/.
 *
 * Pages are numbered: those below 3 GiB first, then those from 4 GiB on. A vCPU that touches one
 * that is not here is VCPU_WAITING until it has come, and then executes its instruction again.
 * Umbra's own accesses return ERR_AGAIN (memory.h): the page has been asked for, and whoever runs
 * for a vCPU lets it execute its instruction again, too; it waits by itself.
 */
#pragma once

#include "vm/space.h"

/* vcpu->away: what it waits for; 0: nothing, or it has come. Written with the space's lock held. */
#define AWAY_PAGE(n) ((n) + 1)
#define AWAY_FRAME   (~0u) /* any free frame */

/* A VM's pager and store, before it has vCPUs; 0, ERR_NOMEM or ERR_NODEV (logged). */
int remote_create(struct vm *vm);
/* First of all when a VM goes: nobody wakes its vCPUs any more. Its frames are given back. */
void remote_destroy(struct vm *vm);

enum fault_result remote_fault(struct vcpu *vcpu, const struct region *region,
			       const struct ept_fault *fault);

/*
 * Umbra's own access to the bytes from `at` to the end of the page: with the space's lock held if
 * it is here, until remote_close(). NULL, without the lock: ERR_AGAIN. `whole`: all of the page
 * will be written before remote_close().
 */
u8 *remote_open(struct vm *vm, const struct region *region, gpa_t at, bool write, bool whole);
void remote_close(struct vm *vm);

/* Takes whole pages out of the view, keeping what it knows of writes to them. The lock held. */
void remote_unmap(struct vm *vm, const struct region *region, gpa_t at, u64 bytes);

/* Zeroes whole pages: 0 or ERR_AGAIN (some of it may be done). */
int remote_zero(struct vm *vm, const struct region *region, gpa_t at, u64 bytes);

/*
 * The page stays here until the vCPU enters its guest again. False: it is not here. On the vCPU's
 * CPU.
 */
bool remote_hold(struct vcpu *vcpu, gpa_t at, bool write);

/* REQ_PAGE, on the vCPU's CPU: lets go of what it held. True: what it waits for is not here. */
bool remote_waits(struct vcpu *vcpu);

/*
 * Where nothing can be executed again (a VM's start, a task switch half done): accesses of this CPU
 * wait for their pages, polling the network.
 */
void remote_insist(bool on);

/* Operations queued or under way, roughly: whoever is idle is to poll the network. Atomic. */
extern u32 remote_ops;

static inline bool remote_busy(void)
{
	return __atomic_load_n(&remote_ops, __ATOMIC_RELAXED);
}

/*
 * Idle, or a tick while remote_busy(): serves the network. False: there is nothing to wait for.
 * `began`: TSC, now or a moment ago.
 */
bool remote_poll(u64 began);

/*
 * vm/: for the current vCPU of this CPU, which waits for a page: polls the network as long as
 * nobody else is to run here. True: REQ_PAGE has come. False: it is to leave the run loop.
 */
bool sched_await(struct vcpu *vcpu);
/* vm/: what runs on this CPU for a vCPU of this VM has to wait. The vCPU's bit; 0: nothing does. */
u32 vcpu_misses(struct vm *vm, u32 away);
/* gpa of a page: all ones if there is none of that number. */
static inline gpa_t away_address(const struct space *space, u32 page)
{
	const struct region *region = space->region;

	for (u32 left = space->region_count; left--; region++)
		if (region->kind == REGION_REMOTE &&
		    page - region->first_page < region->bytes / PAGE_SIZE)
			return gpa_add(region->base, (u64)(page - region->first_page) * PAGE_SIZE);
	return gpa(~0ull & PAGE_MASK);
}

static inline u32 away_page(const struct region *region, gpa_t at)
{
	return region->first_page + (u32)((at.v - region->base.v) / PAGE_SIZE);
}
