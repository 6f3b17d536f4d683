/* hv/vm/profile.c: samples over time, costs, and the heaviest keys, against a plain recount. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/types.h"
#include "vm/profile.h"

#define START	 1000000ull
#define INTERVAL 100ull

static u64 random_state = 88172645463325252ull;

static u64 random64(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static struct profile *fresh(void)
{
	static struct profile p;

	memset(&p, 0, sizeof(p));
	profile_init(&p, START, INTERVAL);
	return &p;
}

static void add(struct profile *p, u64 tsc, u16 reason, u64 rip, u64 cost)
{
	struct trace_entry e = {.tsc = tsc, .reason = reason, .rip = rip, .detail = 0x1234567};

	profile_add(p, &e, cost);
}

/* --- samples ------------------------------------------------------------------------------------
 */

#define EVENTS 20000

static void test_samples(void **state)
{
	static u64 when[EVENTS];
	static u16 reason[EVENTS];
	static u64 count[PROFILE_SAMPLES][EXIT_COUNT], root[PROFILE_SAMPLES];
	struct profile *p = fresh();
	u64 now = START;

	for (u32 i = 0; i < EVENTS; i++) {
		/* Bursts and gaps: the interval has to double many times. */
		now += random64() % (i % 1000 ? 50 : 300000);
		when[i] = now;
		reason[i] = (u16)(random64() % EXIT_COUNT);
		add(p, now, reason[i], i, i);
		assert_true((now - START) / p->interval < p->samples);
	}
	assert_true(p->interval > INTERVAL);
	for (u64 interval = INTERVAL; interval != p->interval; interval *= 2)
		assert_true(interval < p->interval);
	for (u32 i = 0; i < EVENTS; i++) {
		u64 at = (when[i] - START) / p->interval;

		assert_true(at < PROFILE_SAMPLES);
		count[at][reason[i]]++;
		root[at] += i;
	}
	assert_memory_equal(p->count, count, sizeof(count));
	assert_memory_equal(p->root, root, sizeof(root));
	assert_int_equal(p->samples, (now - START) / p->interval + 1);
	/* No coarser than need be. */
	assert_true((now - START) / (p->interval / 2) >= PROFILE_SAMPLES);
}

static void test_sample_edges(void **state)
{
	struct profile *p = fresh();

	add(p, START + INTERVAL - 1, EXIT_CPUID, 0, 1);
	assert_int_equal(p->samples, 1);
	add(p, START + INTERVAL, EXIT_CPUID, 0, 1);
	assert_int_equal(p->samples, 2);
	assert_int_equal(p->count[1][EXIT_CPUID], 1);
	add(p, START + PROFILE_SAMPLES * INTERVAL - 1, EXIT_CPUID, 0, 1);
	assert_int_equal(p->interval, INTERVAL);
	assert_int_equal(p->samples, PROFILE_SAMPLES);
	add(p, START + PROFILE_SAMPLES * INTERVAL, EXIT_CPUID, 0, 1);
	assert_int_equal(p->interval, 2 * INTERVAL);
	assert_int_equal(p->samples, PROFILE_SAMPLES / 2 + 1);
	assert_int_equal(p->count[0][EXIT_CPUID], 2);
	assert_int_equal(p->count[PROFILE_SAMPLES / 2 - 1][EXIT_CPUID], 1);
	assert_int_equal(p->count[PROFILE_SAMPLES / 2][EXIT_CPUID], 1);
	/* Another CPU's clock may be a little behind. */
	add(p, START - 5, EXIT_CPUID, 0, 1);
	assert_int_equal(p->count[0][EXIT_CPUID], 3);
	/* As late as can be. */
	add(p, ~0ull, EXIT_HLT, 0, 1);
	assert_true(p->samples <= PROFILE_SAMPLES);
	assert_int_equal(p->count[0][EXIT_CPUID], 5);
	assert_int_equal(p->count[p->samples - 1][EXIT_HLT], 1);
}

/* --- costs --------------------------------------------------------------------------------------
 */

/* The first values of each interval stay; of two that are merged, the earlier ones. */
static void test_gauges(void **state)
{
	static u64 first[20 * PROFILE_SAMPLES];
	struct profile *p = fresh();
	u64 *gauge;

	for (u64 at = 0; at < ARRAY_SIZE(first); at++) {
		u64 tsc = START + at * INTERVAL + random64() % INTERVAL;

		if (at / 7 % 3 == 0)
			continue; /* gaps */
		add(p, tsc, 1, 0, 0);
		for (u32 again = 0; again < 2; again++) {
			gauge = profile_gauge(p, tsc);
			if (gauge)
				gauge[PROFILE_GAUGES - 1] = at + 1;
		}
		assert_null(gauge);
		first[at] = at + 1;
	}
	for (u64 i = 0; i < p->samples; i++) {
		u64 expected = 0, width = p->interval / INTERVAL;

		for (u64 at = i * width; at < (i + 1) * width && !expected; at++)
			expected = at < ARRAY_SIZE(first) ? first[at] : 0;
		assert_int_equal(p->gauge[i][PROFILE_GAUGES - 1], expected);
	}
	assert_true(p->interval > 8 * INTERVAL);
}

static void test_costs(void **state)
{
	struct profile *p = fresh();

	add(p, START, EXIT_CPUID, 0x10, 0);
	add(p, START, EXIT_CPUID, 0x11, 1);
	add(p, START, EXIT_CPUID, 0x12, 255);
	add(p, START, EXIT_CPUID, 0x13, 256);
	add(p, START, EXIT_CPUID, 0x14, 200);
	add(p, START, EXIT_IO, 0x20, ~0ull >> 1);
	assert_int_equal(p->cost[EXIT_CPUID].sum, 712);
	assert_int_equal(p->cost[EXIT_CPUID].max, 256);
	assert_int_equal(p->cost[EXIT_CPUID].max_rip, 0x13);
	assert_int_equal(p->cost[EXIT_CPUID].histogram[0], 1);
	assert_int_equal(p->cost[EXIT_CPUID].histogram[1], 1);
	assert_int_equal(p->cost[EXIT_CPUID].histogram[8], 2);
	assert_int_equal(p->cost[EXIT_CPUID].histogram[9], 1);
	assert_int_equal(p->cost[EXIT_IO].histogram[PROFILE_HISTOGRAM - 1], 1);
	assert_int_equal(p->cost[EXIT_IO].max_rip, 0x20);
	assert_int_equal(p->cost[EXIT_HLT].sum, 0);
}

static void test_addresses(void **state)
{
	struct profile *p = fresh();

	for (u32 i = 0; i < 10; i++)
		add(p, START, EXIT_CPUID, 0x1000, 10);
	add(p, START, EXIT_IO, 0x1000, 500);
	add(p, START, EXIT_EPT_VIOLATION, 0x2000, 30);
	/* From outside: no property of the address. */
	add(p, START, EXIT_PREEMPTION_TIMER, 0x3000, 9999);
	add(p, START, EXIT_EXTERNAL_INTERRUPT, 0x3000, 9999);
	add(p, START, EXIT_INTERRUPT_WINDOW, 0x3000, 9999);
	add(p, START, EXIT_NMI_WINDOW, 0x3000, 9999);
	assert_int_equal(p->by_exits.used, 3);
	assert_int_equal(p->by_exits.entry[0].key, 0x1000);
	assert_int_equal(p->by_exits.entry[0].tag, EXIT_CPUID);
	assert_int_equal(p->by_exits.entry[0].weight, 10);
	assert_int_equal(p->by_exits.entry[0].other, 100);
	assert_int_equal(p->by_ticks.used, 3);
	for (u32 i = 0; i < 3; i++) {
		const struct topk_entry *e = &p->by_ticks.entry[i];
		u64 ticks = e->tag == EXIT_CPUID ? 100 : e->tag == EXIT_IO ? 500 : 30;

		assert_int_equal(e->weight, ticks);
		assert_int_equal(e->other, e->tag == EXIT_CPUID ? 10 : 1);
	}
	assert_int_equal(p->pages.used, 1);
	assert_int_equal(p->pages.entry[0].key, 0x1234);
	assert_int_equal(p->pages.entry[0].other, 30);
	/* In the samples and costs they all count. */
	assert_int_equal(p->count[0][EXIT_PREEMPTION_TIMER], 1);
	assert_int_equal(p->cost[EXIT_NMI_WINDOW].sum, 9999);
}

/* --- the heaviest keys --------------------------------------------------------------------------
 */

#define KEYS 500

static void test_topk_exact(void **state)
{
	static struct topk t;
	u64 sum[TOPK_ENTRIES] = {0};

	memset(&t, 0, sizeof(t));
	for (u32 i = 0; i < 5000; i++) {
		u64 key = random64() % TOPK_ENTRIES, weight = random64() % 100;

		topk_add(&t, key, 7, weight, 1);
		sum[key] += weight;
	}
	assert_int_equal(t.used, TOPK_ENTRIES);
	for (u32 i = 0; i < TOPK_ENTRIES; i++) {
		assert_int_equal(t.entry[i].weight, sum[t.entry[i].key]);
		assert_int_equal(t.entry[i].error, 0);
	}
	/* The same key with another tag is another key. */
	topk_add(&t, t.entry[0].key, 8, 1, 1);
	assert_int_equal(t.used, TOPK_ENTRIES);
}

/* What "space-saving" promises, whatever comes in whatever order. */
static void check_promises(bool shuffled)
{
	static struct topk t;
	u64 truth[KEYS] = {0}, total = 0, held = 0;

	memset(&t, 0, sizeof(t));
	for (u32 i = 0; i < 50000; i++) {
		/* A few heavy ones, many light ones; or the light ones last, to drive them out. */
		u64 r = random64() % 1000, key, weight = 1 + random64() % 3;

		if (shuffled)
			key = r < 300 ? r % 5 : 5 + random64() % (KEYS - 5);
		else
			key = i < 20000 ? i % 5 : 5 + i % (KEYS - 5);
		topk_add(&t, key, 0, weight, 0);
		truth[key] += weight;
		total += weight;
	}
	for (u32 i = 0; i < t.used; i++) {
		const struct topk_entry *e = &t.entry[i];

		assert_true(e->weight >= truth[e->key]);
		assert_true(e->weight - e->error <= truth[e->key]);
		held += e->weight;
	}
	assert_int_equal(held, total);
	for (u32 key = 0; key < KEYS; key++) {
		bool found = false;

		for (u32 i = 0; i < t.used; i++)
			found = found || t.entry[i].key == key;
		if (truth[key] > total / TOPK_ENTRIES)
			assert_true(found);
	}
}

static void test_topk_promises(void **state)
{
	check_promises(true);
	check_promises(false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_samples),	      cmocka_unit_test(test_sample_edges),
		cmocka_unit_test(test_gauges),	      cmocka_unit_test(test_costs),
		cmocka_unit_test(test_addresses),     cmocka_unit_test(test_topk_exact),
		cmocka_unit_test(test_topk_promises),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
