/*
 * Ticket spin locks. The hypervisor runs with interrupts off, so a lock is never taken by an
 * interrupt handler of the same CPU. Lock order, outermost first: life of VMs, VM devices, address
 * space, EPT view, frames, console, scheduler, log. Nothing is held across a wait for another CPU.
 */
#pragma once

#include "lib/types.h"

struct spinlock {
	u32 next, serving;
};

static inline void spin_lock(struct spinlock *l)
{
	u32 ticket = __atomic_fetch_add(&l->next, 1, __ATOMIC_RELAXED);

	while (unlikely(__atomic_load_n(&l->serving, __ATOMIC_ACQUIRE) != ticket))
		__builtin_ia32_pause();
}

static inline bool spin_trylock(struct spinlock *l)
{
	u32 serving = __atomic_load_n(&l->serving, __ATOMIC_ACQUIRE);
	u32 expected = serving;

	return __atomic_compare_exchange_n(&l->next, &expected, serving + 1, false,
					   __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

static inline void spin_unlock(struct spinlock *l)
{
	__atomic_store_n(&l->serving, l->serving + 1, __ATOMIC_RELEASE);
}
