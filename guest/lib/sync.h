/* Spin locks and barriers. Locks do not touch RFLAGS.IF: hold none that a handler takes. */
#pragma once

#include "cpu.h"

struct spinlock {
	volatile u32 held;
};

static inline void spin_lock(struct spinlock *l)
{
	while (__atomic_exchange_n(&l->held, 1, __ATOMIC_ACQUIRE))
		cpu_pause();
}

static inline void spin_unlock(struct spinlock *l)
{
	__atomic_store_n(&l->held, 0, __ATOMIC_RELEASE);
}

/* For a fixed number of CPUs, any number of times; start with all zero. */
struct barrier {
	volatile u32 waiting, generation;
};

static inline void barrier_wait(struct barrier *b, u32 cpus_taking_part)
{
	u32 generation = b->generation;

	if (__atomic_add_fetch(&b->waiting, 1, __ATOMIC_ACQ_REL) == cpus_taking_part) {
		b->waiting = 0;
		__atomic_add_fetch(&b->generation, 1, __ATOMIC_RELEASE);
		return;
	}
	while (__atomic_load_n(&b->generation, __ATOMIC_ACQUIRE) == generation)
		cpu_pause();
}
