/* Single pages of the EPT, as paging takes and gives them: flags, and what the processor sees. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include <umbra/features.h>

#include "ept/ept.h"
#include "ept_hw.h"
#include "frames.h"

#define AT gpa(5 * GIB + 7 * PAGE_SIZE)

static struct ept_view view;

static bool armed, hit;
static unsigned int countdown;

/* See ept_race_hook.h: a load of a leaf, behind which the guest writes if its page is still there.
 */
u64 race_load(const u64 *word)
{
	u64 e = *word;

	if (armed && (e & 0x803) == 0x803 && countdown-- == 0) {
		armed = false;
		hit = hw_write(view.eptp, AT.v);
	}
	return e;
}

void vmx_invept_single(u64 eptp)
{
}

void ept_kick_cpu(u32 cpu)
{
}

static void start(void)
{
	frames_start(64 * MIB);
	assert_int_equal(ept_view_init(&view, BIT64(FEAT_EPT_AD), 3), 0);
	assert_int_equal(ept_reserve(&view, 16), 0);
}

static void end(void)
{
	ept_view_destroy(&view);
	host_memory_release();
}

static struct hw_page seen(gpa_t at)
{
	return hw_walk(view.eptp, at.v, false, false);
}

static void test_accessed(void **state)
{
	u64 generation;

	start();
	assert_int_equal(ept_fill(&view, AT, hpa(0x5000), PAGE_SIZE, EPT_RWX, EPT_WB), 0);
	assert_false(ept_page_accessed(&view, AT));
	assert_true(hw_write(view.eptp, AT.v + 8));
	generation = view.generation;
	assert_true(ept_page_accessed(&view, AT));
	assert_false(ept_page_accessed(&view, AT));
	/* D stays, and nobody is disturbed. */
	assert_true(seen(AT).dirty);
	assert_int_equal(view.generation, generation);
	assert_false(ept_page_accessed(&view, gpa_add(AT, PAGE_SIZE)));
	assert_false(ept_page_accessed(&view, gpa(0)));
	end();
}

static void test_take(void **state)
{
	u64 tables, generation;

	start();
	for (u64 i = 0; i < 2; i++)
		assert_int_equal(ept_fill(&view, gpa_add(AT, i * PAGE_SIZE),
					  hpa(0x5000 + i * PAGE_SIZE), PAGE_SIZE, EPT_RWX, EPT_WB),
				 0);
	tables = view.tables;
	assert_true(hw_write(view.eptp, AT.v));
	generation = view.generation;
	assert_true(ept_page_take(&view, AT));
	assert_true(view.generation > generation);
	assert_false(seen(AT).present);
	assert_true(seen(gpa_add(AT, PAGE_SIZE)).present);
	/* Read only, never written to. */
	assert_false(ept_page_take(&view, gpa_add(AT, PAGE_SIZE)));
	assert_false(ept_page_take(&view, AT));
	assert_int_equal(view.tables, tables);
	/* It comes back elsewhere, clean, without a table. */
	assert_int_equal(ept_fill(&view, AT, hpa(0x9000), PAGE_SIZE, EPT_R, EPT_WB), 0);
	assert_int_equal(seen(AT).frame, 0x9000);
	assert_false(seen(AT).dirty);
	assert_int_equal(view.tables, tables);
	end();
}

/* As ept_fill() would, where there is a table and nothing in it; never over anything else. */
static void test_put(void **state)
{
	struct ept_leaf leaf;
	u64 generation;

	start();
	assert_false(ept_page_put(&view, AT, hpa(0x5000), EPT_RWX)); /* no table */
	assert_false(seen(AT).present);
	assert_int_equal(
		ept_fill(&view, gpa_add(AT, PAGE_SIZE), hpa(0x6000), PAGE_SIZE, EPT_RWX, EPT_WB),
		0);
	generation = view.generation;
	assert_true(ept_page_put(&view, AT, hpa(0x5000), EPT_R | EPT_X));
	assert_int_equal(view.generation, generation);
	assert_int_equal(seen(AT).frame, 0x5000);
	assert_int_equal(ept_lookup(&view, AT, &leaf), 0);
	assert_int_equal(leaf.perms, EPT_R | EPT_X);
	assert_int_equal(leaf.type, EPT_WB);
	assert_false(ept_page_put(&view, AT, hpa(0x7000), EPT_RWX));
	assert_int_equal(seen(AT).frame, 0x5000);
	assert_int_equal(seen(gpa_add(AT, PAGE_SIZE)).frame, 0x6000);
	end();
}

/* A large leaf is none of theirs. */
static void test_large(void **state)
{
	start();
	assert_int_equal(ept_map(&view, gpa(0), hpa(SIZE_2M), SIZE_2M, EPT_RWX, EPT_WB), 0);
	assert_true(hw_write(view.eptp, 0x3000));
	assert_false(ept_page_accessed(&view, gpa(0x3000)));
	assert_false(ept_page_take(&view, gpa(0x3000)));
	assert_false(ept_page_put(&view, gpa(0x3000), hpa(0x5000), EPT_RWX));
	assert_true(seen(gpa(0x3000)).present);
	end();
}

/* The processor writes right after each time that hv/ept has looked at the entry. */
static void test_race(void **state)
{
	for (unsigned int n = 0; n < 8; n++) {
		bool dirty;

		start();
		assert_int_equal(ept_fill(&view, AT, hpa(0x5000), PAGE_SIZE, EPT_RWX, EPT_WB), 0);
		countdown = n;
		armed = true;
		hit = false;
		dirty = ept_page_take(&view, AT);
		armed = false;
		/* The flag is reported, or the processor has found no page. */
		assert_int_equal(dirty, hit);
		end();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accessed), cmocka_unit_test(test_take),
		cmocka_unit_test(test_put),	 cmocka_unit_test(test_large),
		cmocka_unit_test(test_race),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
