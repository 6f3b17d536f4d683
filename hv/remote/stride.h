/*
 * In which direction a program walks through its memory: the majority vote on its last steps that
 * Leap (Al Maruf, Chowdhury: USENIX ATC 2020) uses, per vCPU and on the guest's linear addresses,
 * which keep an order that guest-physical ones have lost.
 */
#pragma once

#include "lib/types.h"

#define STRIDE_HISTORY 32u /* steps that are remembered; the vote begins with the last eighth */
#define STRIDE_WINDOW  8u  /* pages fetched ahead at most */

struct stride {
	s64 step[STRIDE_HISTORY];
	u32 next, count; /* of the ring */
	u64 last;	 /* page */
	u32 window;	 /* last one used */
	u32 hits;	 /* touches of prefetched pages since */
	bool begun;
};

/* A page has been touched that was not mapped; `hit`: because it had been fetched ahead. */
void stride_note(struct stride *s, u64 page, bool hit);

/* The step that more than half of the last ones have in common: 0 if there is none. */
s64 stride_trend(const struct stride *s);

/* How many pages to fetch ahead now, in steps of *stride. */
u32 stride_window(struct stride *s, s64 *stride);
