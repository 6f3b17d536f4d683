/*
 * What the report knows about a vCPU's exits besides its counters: how many there were when, what
 * they cost, and where they came from. In bounded memory however long the vCPU lives. Plain data;
 * only the vCPU's own CPU writes, anybody may read a slightly uneven state.
 */
#pragma once

#include "lib/types.h"
#include "vm/trace.h"
#include "vmx/vmcs.h"

/*
 * The keys with the largest weights out of any number ("space-saving", Metwally et al. 2005). Once
 * all entries are in use a new key takes the place of the lightest one and inherits its weight as
 * `error`. Thus weight - error <= true weight <= weight, and a key whose true weight exceeds
 * total / TOPK_ENTRIES is always among them.
 */
#define TOPK_ENTRIES 64u

struct topk_entry {
	u64 key;
	u32 tag; /* part of the key */
	u32 reserved;
	u64 weight, error;
	u64 other; /* a second sum, since the key came in */
};

struct topk {
	u32 used;
	struct topk_entry entry[TOPK_ENTRIES]; /* in no order */
};

void topk_add(struct topk *t, u64 key, u32 tag, u64 weight, u64 other);

/*
 * Exits over time: sample i covers [start + i * interval, start + (i + 1) * interval). When time
 * runs past the last sample, neighbours are merged and the interval doubles.
 */
#define PROFILE_SAMPLES	   128u /* even */
#define PROFILE_START_US   1000 /* the first interval */
#define PROFILE_HISTOGRAM  33u	/* bucket n: costs of n bits, that is 2^(n-1) to 2^n - 1; 0: none */
#define PROFILE_PAGE_SHIFT 12
#define PROFILE_GAUGES	   6u /* docs/report-format.md: `gauge` */

struct profile_cost {
	u64 sum, max;
	u64 max_rip; /* where the dearest one was */
	u64 histogram[PROFILE_HISTOGRAM];
};

struct profile {
	u64 start, interval; /* TSC ticks */
	u32 samples;	     /* in use: up to the one that the last exit fell into */
	u64 count[PROFILE_SAMPLES][EXIT_COUNT];
	u64 root[PROFILE_SAMPLES]; /* ticks in root mode */
	/* Of a VM with remote memory, its first vCPU's: values when a sample began, or soon after;
	 * all zero: there was no exit in it. */
	u64 gauge[PROFILE_SAMPLES][PROFILE_GAUGES];
	struct profile_cost cost[EXIT_COUNT]; /* by reason */
	struct topk by_exits;		      /* RIP, reason: weight exits, other ticks */
	struct topk by_ticks;		      /* RIP, reason: weight ticks, other exits */
	struct topk pages; /* guest-physical page that exits were about: exits, ticks */
};

/* `p` zeroed. interval: > 0. */
void profile_init(struct profile *p, u64 start, u64 interval);

/*
 * One exit, complete with its cost. Exits that come from outside (interrupts, windows, timer) are
 * no property of the instruction they hit: they are left out of by_exits and by_ticks.
 */
void profile_add(struct profile *p, const struct trace_entry *e, u64 cost);

/* The sample's values, if they have not been recorded; else NULL. */
u64 *profile_gauge(struct profile *p, u64 tsc);
