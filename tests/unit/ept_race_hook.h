/*
 * Forced into every file of the ept_race test: each atomic load of a 64-bit word goes through the
 * test, where the processor may act after it.
 */
#pragma once

#include "host.h"
#include "lib/types.h"

u64 race_load(const u64 *word);

#define __atomic_load_n(p, order) _Generic(*(p), u64 : race_load((const void *)(p)), default : *(p))
