/* Exits over time, their cost, and where they come from: see profile.h. */
#include "vm/profile.h"

#include "lib/string.h"

void topk_add(struct topk *t, u64 key, u32 tag, u64 weight, u64 other)
{
	u32 lightest = 0;
	struct topk_entry *e;

	for (u32 i = 0; i < t->used; i++) {
		e = &t->entry[i];
		if (e->key == key && e->tag == tag) {
			e->weight += weight;
			e->other += other;
			/* Towards the front, where the heavy ones are found soonest. */
			if (i && e->weight > e[-1].weight) {
				struct topk_entry lighter = e[-1];

				e[-1] = *e;
				*e = lighter;
			}
			return;
		}
		if (e->weight < t->entry[lightest].weight)
			lightest = i;
	}
	if (t->used < TOPK_ENTRIES)
		lightest = t->used++;
	e = &t->entry[lightest];
	*e = (struct topk_entry){
		.key = key,
		.tag = tag,
		.weight = e->weight + weight, /* 0 before, in an entry that was free */
		.error = e->weight,
		.other = other,
	};
}

void profile_init(struct profile *p, u64 start, u64 interval)
{
	p->start = start;
	p->interval = interval;
}

static bool any(const u64 *value, u32 count)
{
	u64 all = 0;

	for (u32 i = 0; i < count; i++)
		all |= value[i];
	return all;
}

static void halve(struct profile *p)
{
	for (u32 i = 0; i < PROFILE_SAMPLES / 2; i++) {
		for (u32 r = 0; r < EXIT_COUNT; r++)
			p->count[i][r] = p->count[2 * i][r] + p->count[2 * i + 1][r];
		p->root[i] = p->root[2 * i] + p->root[2 * i + 1];
		memcpy(p->gauge[i], p->gauge[2 * i + !any(p->gauge[2 * i], PROFILE_GAUGES)],
		       sizeof(p->gauge[i]));
	}
	memset(p->count[PROFILE_SAMPLES / 2], 0, sizeof(p->count) / 2);
	memset(&p->root[PROFILE_SAMPLES / 2], 0, sizeof(p->root) / 2);
	memset(p->gauge[PROFILE_SAMPLES / 2], 0, sizeof(p->gauge) / 2);
	p->interval *= 2;
	p->samples = (p->samples + 1) / 2;
}

static u32 sample_at(struct profile *p, u64 tsc)
{
	/* The clocks of two CPUs may differ by a little. */
	u64 since = tsc > p->start ? tsc - p->start : 0;

	while (unlikely(since / PROFILE_SAMPLES >= p->interval))
		halve(p);
	return (u32)(since / p->interval);
}

static bool from_outside(u32 reason)
{
	return reason == EXIT_EXTERNAL_INTERRUPT || reason == EXIT_INIT ||
	       reason == EXIT_INTERRUPT_WINDOW || reason == EXIT_NMI_WINDOW ||
	       reason == EXIT_PREEMPTION_TIMER;
}

static bool about_memory(u32 reason)
{
	return reason == EXIT_EPT_VIOLATION || reason == EXIT_EPT_MISCONFIG ||
	       reason == EXIT_APIC_ACCESS || reason == EXIT_APIC_WRITE;
}

static u32 bits(u64 value)
{
	return value ? 64 - (u32)__builtin_clzll(value) : 0;
}

void profile_add(struct profile *p, const struct trace_entry *e, u64 cost)
{
	struct profile_cost *c = &p->cost[e->reason];
	u32 i = sample_at(p, e->tsc);

	p->samples = MAX(p->samples, i + 1);
	p->count[i][e->reason]++;
	p->root[i] += cost;
	c->sum += cost;
	if (cost >= c->max) {
		c->max = cost;
		c->max_rip = e->rip;
	}
	c->histogram[MIN(bits(cost), PROFILE_HISTOGRAM - 1)]++;
	if (!from_outside(e->reason)) {
		topk_add(&p->by_exits, e->rip, e->reason, 1, cost);
		topk_add(&p->by_ticks, e->rip, e->reason, cost, 1);
	}
	if (about_memory(e->reason))
		topk_add(&p->pages, e->detail >> PROFILE_PAGE_SHIFT, e->reason, 1, cost);
}

u64 *profile_gauge(struct profile *p, u64 tsc)
{
	u64 *gauge = p->gauge[sample_at(p, tsc)];

	return any(gauge, PROFILE_GAUGES) ? NULL : gauge;
}
