/* Majority vote on strides: see stride.h. */
#include "remote/stride.h"

#define FIRST_VOTE (STRIDE_HISTORY / 8)
#define RECENT	   64u /* touches */
#define IDLE	   BIT(30)

static s64 step_back(const struct stride *s, u32 i)
{
	return s->step[(s->next - 1 - i) % STRIDE_HISTORY];
}

void stride_note(struct stride *s, u64 page, bool hit)
{
	s->hits += hit;
	s->missed = !hit;
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

/* Twice as many once half of them have been of use; half as many, one at least, at a miss when none
 * has. */
static void adapt(struct stride *s)
{
	if (s->hits && 2 * s->hits >= s->window)
		s->window = MIN(MAX(2 * s->window, 2u), STRIDE_WINDOW);
	else if (s->missed && !s->hits)
		s->window = MAX(s->window / 2, 1u);
	else if (!s->missed)
		return;
	s->hits = 0;
}

/* How many pages are ahead of the last one touched. */
static u32 distance(const struct stride *s)
{
	s64 gap = (s64)(s->ahead - s->last);

	if (!s->along || gap % s->along || gap / s->along < 0 || gap / s->along > STRIDE_WINDOW)
		return 0;
	return (u32)(gap / s->along);
}

u32 stride_window(struct stride *s, u64 *first, s64 *stride)
{
	u32 ahead;

	*stride = stride_trend(s);
	if (*stride != s->along)
		s->ahead = s->last;
	s->along = *stride;
	if (!*stride) {
		s->window = s->hits = 0;
		return 0;
	}
	adapt(s);
	ahead = distance(s);
	if (!ahead)
		s->ahead = s->last;
	if (2 * ahead > s->window)
		return 0;
	*first = s->ahead + (u64)*stride;
	return s->window - ahead;
}

void stride_ahead(struct stride *s, u32 count)
{
	s->ahead += count * (u64)s->along;
}

static bool is_near(const struct stride *s, u64 page)
{
	return s->begun && page - s->last + STRIDE_NEAR <= 2 * STRIDE_NEAR;
}

/* Where nothing has been touched for the longest time; a walk that goes on is given up last. */
static u32 choose_place(const struct strides *s)
{
	u32 chosen = 0, longest = 0;

	for (u32 i = 0; i < STRIDE_PLACES; i++) {
		u32 since = s->clock - s->used[i];
		bool walks = s->place[i].along && since < RECENT;
		u32 rank = (since & (IDLE - 1)) + (walks ? 0 : IDLE);

		if (rank > longest) {
			longest = rank;
			chosen = i;
		}
	}
	return chosen;
}

struct stride *strides_note(struct strides *s, u64 page, bool hit)
{
	u32 i = 0;

	s->clock++;
	while (i < STRIDE_PLACES && !is_near(&s->place[i], page))
		i++;
	if (i < STRIDE_PLACES) {
		s->used[i] = s->clock;
		stride_note(&s->place[i], page, hit);
		return &s->place[i];
	}
	i = choose_place(s);
	s->used[i] = s->clock;
	s->place[i] = (struct stride){0};
	stride_note(&s->place[i], page, hit);
	stride_note(&s->far, page, hit);
	return &s->far;
}
