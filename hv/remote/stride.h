/*
 * In which direction a program walks through its memory: the majority vote on its last steps that
 * Leap (Al Maruf, Chowdhury: USENIX ATC 2020) uses, per vCPU and on the guest's linear addresses,
 * which keep an order that guest-physical ones have lost. A program that is in several places at a
 * time is told apart by where it touches; what is near none of them has a vote of its own.
 */
#pragma once

#include "lib/types.h"

#define STRIDE_HISTORY 32u /* steps that are remembered; the vote begins with the last eighth */
#define STRIDE_WINDOW  16u /* pages fetched ahead at most */
#define STRIDE_PLACES  4u  /* where a program may be at a time */
#define STRIDE_NEAR    32u /* pages: such a step stays at a place */

struct stride {
	s64 step[STRIDE_HISTORY];
	u32 next, count; /* of the ring */
	u64 last;	 /* page */
	u32 window;	 /* so many pages are to be ahead */
	u32 hits;	 /* touches of pages fetched ahead since it last changed */
	s64 along;	 /* the step in which some are, 0: none */
	u64 ahead;	 /* the farthest of them */
	bool begun, missed;
};

/* A page has been touched that was not mapped; `hit`: it had been fetched ahead, or was being. */
void stride_note(struct stride *s, u64 page, bool hit);

/* The step that more than half of the last ones have in common: 0 if there is none. */
s64 stride_trend(const struct stride *s);

/* How many pages to fetch now: *first, and further ones in steps of *stride. None as long as more
 * than half of the window is ahead. stride_ahead() says how many of them have been dealt with. */
u32 stride_window(struct stride *s, u64 *first, s64 *stride);
void stride_ahead(struct stride *s, u32 count);

/* Of one vCPU. All zero at first. */
struct strides {
	struct stride place[STRIDE_PLACES];
	u32 used[STRIDE_PLACES]; /* when, by `clock` */
	u32 clock;
	struct stride far; /* touches that are near none of the places */
};

/* stride_note() where the page belongs: who is to be asked for the window. */
struct stride *strides_note(struct strides *s, u64 page, bool hit);
