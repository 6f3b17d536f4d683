/*
 * Forced into every file of the ept_gen test: each atomic operation, lock and pause becomes a step
 * of the model in ept_gen.c. Structures and inline functions that must stay real come first.
 */
#pragma once

#include "host.h"
#include "lib/spinlock.h"
#include "lib/types.h"

struct ept_view;

u64 model_load(const void *word);
void model_store(void *word, u64 value, int order);
u64 model_add(void *word, u64 n);
void model_lock(struct spinlock *lock);
void model_unlock(struct spinlock *lock);
void model_pause(void);

#define __atomic_load_n(p, order) \
	_Generic(*(p), u64 : model_load(p), default : (struct ept_view *)(uintptr_t)model_load(p))
#define __atomic_store_n(p, value, order) model_store(p, (u64)(uintptr_t)(value), order)
#define __atomic_fetch_add(p, n, order)	  model_add(p, n)
#define spin_lock(lock)			  model_lock(lock)
#define spin_unlock(lock)		  model_unlock(lock)
#define __builtin_ia32_pause()		  model_pause()
