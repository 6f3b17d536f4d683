/* hv/lib/marks.h against a plain array, in random order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/marks.h"

static u64 seed = 1;

static u64 next(u64 below)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (seed >> 33) % below;
}

static void run(u64 count)
{
	u8 *model = calloc(1, count);
	void *memory = calloc(1, marks_bytes(count));
	struct marks m;
	u64 in = 0;

	marks_init(&m, memory, count);
	assert_true(marks_empty(&m));
	for (u32 i = 0; i < 20000; i++) {
		u64 n = next(count), want, got;

		if (next(3)) {
			marks_add(&m, n);
			in += !model[n];
			model[n] = 1;
			assert_false(marks_empty(&m));
			assert_true(marks_has(&m, n));
			continue;
		}
		for (want = n; want < count && !model[want]; want++)
			;
		got = marks_take(&m, n);
		assert_int_equal(got, want < count ? want : MARKS_NONE);
		if (want < count) {
			model[want] = 0;
			in--;
		}
		if (i % 64 == 0)
			assert_int_equal(marks_total(&m), in);
		/* All of it, now and then. */
		for (u64 at = 0; next(200) == 0 && (at = marks_take(&m, at)) != MARKS_NONE; at++) {
			assert_true(model[at]);
			model[at] = 0;
			in--;
		}
	}
	for (u64 at = 0; (at = marks_take(&m, at)) != MARKS_NONE; at++)
		in--;
	assert_int_equal(in, 0);
	assert_int_equal(marks_take(&m, 0), MARKS_NONE);
	assert_true(marks_empty(&m));
	free(model);
	free(memory);
}

static void test_random(void **state)
{
	static const u64 counts[] = {1, 63, 64, 65, 512, 4095, 4096, 4097, 20000};

	for (u32 i = 0; i < ARRAY_SIZE(counts); i++)
		run(counts[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_random)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
