/* Majority vote on strides: see stride.h. */
#include "remote/stride.h"

#define FIRST_VOTE (STRIDE_HISTORY / 8)

static s64 step_back(const struct stride *s, u32 i)
{
	return s->step[(s->next - 1 - i) % STRIDE_HISTORY];
}

void stride_note(struct stride *s, u64 page, bool hit)
{
	s->hits += hit;
	if (s->begun && page == s->last)
		return;
	if (s->begun) {
		s->step[s->next++ % STRIDE_HISTORY] = (s64)(page - s->last);
		if (s->count < STRIDE_HISTORY)
			s->count++;
	}
	s->begun = true;
	s->last = page;
}

/* The candidate of Boyer and Moore among the last `n` steps, if it has the majority. */
static s64 vote(const struct stride *s, u32 n)
{
	s64 candidate = 0;
	u32 lead = 0, count = 0;

	for (u32 i = 0; i < n; i++) {
		if (!lead)
			candidate = step_back(s, i);
		if (step_back(s, i) == candidate)
			lead++;
		else
			lead--;
	}
	for (u32 i = 0; i < n; i++)
		count += step_back(s, i) == candidate;
	return count > n / 2 ? candidate : 0;
}

s64 stride_trend(const struct stride *s)
{
	s64 found = 0;

	for (u32 n = FIRST_VOTE; n <= s->count && !found; n *= 2)
		found = vote(s, n);
	return found;
}

static u32 power_above(u32 n)
{
	u32 power = 1;

	while (power < n)
		power *= 2;
	return power;
}

u32 stride_window(struct stride *s, s64 *stride)
{
	u32 window;

	*stride = stride_trend(s);
	/* Twice what was of use; without hits a probe of one page while there is a trend. */
	window = s->hits ? power_above(s->hits + 1) : *stride != 0;
	if (window < s->window / 2)
		window = s->window / 2;
	if (window > STRIDE_WINDOW)
		window = STRIDE_WINDOW;
	if (!*stride)
		window = 0;
	s->window = window;
	s->hits = 0;
	return window;
}
