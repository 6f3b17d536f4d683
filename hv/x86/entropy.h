/*
 * Random numbers from the processor: RDSEED or RDRAND (SDM volume 1, 7.3.17), stirred with the time
 * that each took.
 */
#pragma once

#include "lib/types.h"

/*
 * Fills `to`. False: the processor has no generator, or it does not deliver; what is there then
 * comes from the TSC alone, differs from start to start on real machines, and is no secret.
 */
bool entropy_fill(void *to, size_t bytes);

/* The same for identifiers and the like, where nothing depends on its being secret. */
u64 entropy_word(void);
