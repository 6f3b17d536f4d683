/*
 * The processor sets D between any load of an entry by hv/ept and what hv/ept does next: wherever
 * it happens, the flag is reported or still there afterwards. (ept_random.c does the same with a
 * real second thread, but the windows are a few nanoseconds wide.)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <umbra/features.h>

#include "ept/ept.h"
#include "ept_hw.h"
#include "frames.h"

#define PAGES 1024 /* two 2M */

static struct ept_view view;

static bool armed;
static unsigned int countdown;
static u64 *hit;

/* A leaf that a guest may write: R, W and hv/ept's mark of a leaf; in memory, not in struct view.
 */
u64 race_load(const u64 *word)
{
	u64 e = *word;

	if (!armed || (e & 0x803) != 0x803 || (u64)(uintptr_t)word - host_direct_map >= 64 * MIB)
		return e;
	if (countdown-- == 0) {
		armed = false;
		hit = phys_to_ptr(ptr_to_phys(word));
		*hit |= 0x300;
	}
	return e;
}

void vmx_invept_single(u64 eptp)
{
}

void ept_kick_cpu(u32 cpu)
{
}

static void start(bool large)
{
	frames_start(64 * MIB);
	assert_int_equal(ept_view_init(&view, BIT64(FEAT_EPT_AD), 3), 0);
	assert_int_equal(ept_reserve(&view, 16), 0);
	if (large)
		assert_int_equal(ept_map(&view, gpa(0), hpa(SIZE_1G), PAGES * PAGE_SIZE, 7, EPT_WB),
				 0);
	for (u64 i = 0; !large && i < PAGES; i++)
		assert_int_equal(ept_map(&view, gpa(i * PAGE_SIZE), hpa(SIZE_1G + i * PAGE_SIZE),
					 PAGE_SIZE, 7, EPT_WB),
				 0);
}

static bool reported[PAGES];

static void note(void *ctx, gpa_t at, const struct ept_leaf *leaf)
{
	if (leaf->dirty)
		memset(&reported[at.v / PAGE_SIZE], true, 1ull << (leaf->shift - 12));
}

static void op_split(void)
{
	assert_int_equal(ept_protect(&view, gpa(5 * PAGE_SIZE), 3 * PAGE_SIZE, EPT_R), 0);
}

static void op_protect(void)
{
	assert_int_equal(ept_protect(&view, gpa(0), PAGES * PAGE_SIZE, EPT_R | EPT_W), 0);
}

static void op_harvest(void)
{
	assert_int_equal(ept_harvest(&view, gpa(0), PAGES * PAGE_SIZE, note, NULL), 0);
}

static void op_merge(void)
{
	assert_int_equal(ept_merge(&view, gpa(0)), 21);
}

static void op_lookup(void)
{
	struct ept_leaf leaf;

	assert_int_equal(ept_lookup(&view, gpa(0x5000), &leaf), 0);
}

/* These pages have to be known as dirty. */
static void check_pages(u64 first, u64 pages)
{
	for (u64 i = first; i < first + pages; i++) {
		struct hw_page page = hw_walk(view.eptp, i * PAGE_SIZE, false, false);

		if (!reported[i] && !page.dirty)
			fail_msg("page %llu: D is lost", (unsigned long long)i);
	}
}

/* The operation again and again, the processor acting one load later each time. */
static void race(bool large, void (*op)(void))
{
	for (unsigned int n = 0;; n++) {
		u64 *entry[PAGES];

		start(large);
		for (u64 i = 0; i < PAGES; i++) {
			entry[i] = hw_walk(view.eptp, i * PAGE_SIZE, false, false).entry;
			*entry[i] |= 0x100; /* has been read */
		}
		memset(reported, 0, sizeof(reported));
		hit = NULL;
		countdown = n;
		armed = true;
		op();
		armed = false;
		if (!hit) {
			assert_true(n > 0); /* it was not for nothing */
			return;
		}
		for (u64 i = 0; i < PAGES; i++)
			if (entry[i] == hit)
				check_pages(i, 1);
	}
}

static void test_split(void **state)
{
	race(true, op_split);
}

static void test_protect(void **state)
{
	race(true, op_protect);
	race(false, op_protect);
}

static void test_harvest(void **state)
{
	race(true, op_harvest);
	race(false, op_harvest);
}

static void test_merge(void **state)
{
	race(false, op_merge);
}

static void test_lookup(void **state)
{
	race(true, op_lookup);
	race(false, op_lookup);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_split),	cmocka_unit_test(test_protect),
		cmocka_unit_test(test_harvest), cmocka_unit_test(test_merge),
		cmocka_unit_test(test_lookup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
