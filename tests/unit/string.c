/* hv/lib/string.c under other names than the C library's, and the formatter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/log.h"

#define memcpy	hv_memcpy
#define memmove hv_memmove
#define memset	hv_memset
#define memcmp	hv_memcmp
#define strlen	hv_strlen
#define strnlen hv_strnlen
#define strcmp	hv_strcmp
#include "lib/string.c"
#undef memcpy
#undef memmove
#undef memset
#undef memcmp
#undef strlen
#undef strnlen
#undef strcmp

static void fill(u8 *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (u8)(i * 7 + 3);
}

static void test_move(void **state)
{
	u8 got[64], want[64];

	for (size_t dst = 0; dst < 16; dst++)
		for (size_t src = 0; src < 16; src++)
			for (size_t n = 0; n < 48; n++) {
				fill(got, sizeof(got));
				fill(want, sizeof(want));
				assert_ptr_equal(hv_memmove(got + dst, got + src, n), got + dst);
				memmove(want + dst, want + src, n);
				assert_memory_equal(got, want, sizeof(got));
			}
}

/* From some size on by larger units. */
static void test_large(void **state)
{
	static u8 got[1100], want[1100], src[1100];

	fill(src, sizeof(src));
	for (size_t n = 490; n < 1040; n += 1 + n % 3) {
		memset(got, 0xaa, sizeof(got));
		memset(want, 0xaa, sizeof(want));
		assert_ptr_equal(hv_memcpy(got + 3, src + n % 16, n), got + 3);
		memcpy(want + 3, src + n % 16, n);
		assert_memory_equal(got, want, sizeof(got));
		for (size_t by = 1; by < 20; by += 6) {
			fill(got, sizeof(got));
			fill(want, sizeof(want));
			hv_memmove(got, got + by, n);
			memmove(want, want + by, n);
			hv_memmove(got + by, got, n);
			memmove(want + by, want, n);
			assert_memory_equal(got, want, sizeof(got));
		}
	}
}

static void test_copy_set(void **state)
{
	u8 got[64], want[64], src[64];

	fill(src, sizeof(src));
	for (size_t n = 0; n < 60; n++) {
		memset(want, 0xaa, sizeof(want));
		memset(got, 0xaa, sizeof(got));
		memcpy(want + 1, src + 2, n);
		assert_ptr_equal(hv_memcpy(got + 1, src + 2, n), got + 1);
		assert_memory_equal(got, want, sizeof(got));
		memset(want + 3, (int)n, n);
		assert_ptr_equal(hv_memset(got + 3, (int)n + 0x100, n), got + 3);
		assert_memory_equal(got, want, sizeof(got));
	}
}

static void test_compare(void **state)
{
	static const char a[] = "abc\x80", b[] = "abc\x01";

	assert_true(hv_memcmp(a, b, 4) > 0);
	assert_true(hv_memcmp(b, a, 4) < 0);
	assert_int_equal(hv_memcmp(a, b, 3), 0);
	assert_int_equal(hv_memcmp(a, b, 0), 0);
	assert_true(hv_strcmp(a, b) > 0);
	assert_true(hv_strcmp(b, a) < 0);
	assert_true(hv_strcmp("abc", "abcd") < 0);
	assert_true(hv_strcmp("abcd", "abc") > 0);
	assert_int_equal(hv_strcmp("", ""), 0);
}

static void test_length_and_copy(void **state)
{
	char buf[8];

	assert_int_equal(hv_strlen(""), 0);
	assert_int_equal(hv_strlen("umbra"), 5);
	assert_int_equal(hv_strnlen("umbra", 3), 3);
	assert_int_equal(hv_strnlen("umbra", 9), 5);
	assert_true(str_copy(buf, sizeof(buf), "1234567"));
	assert_string_equal(buf, "1234567");
	assert_false(str_copy(buf, sizeof(buf), "12345678"));
	assert_string_equal(buf, "1234567");
	assert_false(str_copy(buf, 1, "x"));
	assert_string_equal(buf, "");
	buf[0] = 'k';
	assert_false(str_copy(buf, 0, "x"));
	assert_int_equal(buf[0], 'k');
}

#define CHECK_PRINT(...)                                                          \
	do {                                                                      \
		char got_[128], want_[128];                                       \
		int w_ = snprintf(want_, sizeof(want_), __VA_ARGS__);             \
		assert_int_equal(str_print(got_, sizeof(got_), __VA_ARGS__), w_); \
		assert_string_equal(got_, want_);                                 \
	} while (0)

static void test_print(void **state)
{
	char small[6] = "zzzzz";

	CHECK_PRINT("%d %i %u %x %X %c %%", -5, INT_MIN + 1, UINT_MAX, 0xbeefu, 0xbeefu, 'q');
	CHECK_PRINT("%5d|%-5d|%05d|%+d", 42, 42, 42, 42);
	CHECK_PRINT("%016llx %llu %lld", 0x123456789abcdefull, ULLONG_MAX, LLONG_MIN + 1);
	CHECK_PRINT("%lx %lu %zu %hhx", ULONG_MAX, ULONG_MAX, (size_t)77, 0xab);
	CHECK_PRINT("%s|%10s|%-10s|%.3s", "text", "right", "left", "cut off");
	CHECK_PRINT("%*d", 7, 3);
	CHECK_PRINT("[%5llu.%06llu cpu%u] ", 0ull, 123456ull, 0);
	assert_int_equal(str_print(small, sizeof(small), "%s", "overlong"), 8);
	assert_string_equal(small, "overl");
	small[0] = 'k';
	assert_int_equal(str_print(small + 1, 0, "%d", 1234), 4);
	assert_int_equal(small[0], 'k');
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_move),
		cmocka_unit_test(test_large),
		cmocka_unit_test(test_copy_set),
		cmocka_unit_test(test_compare),
		cmocka_unit_test(test_length_and_copy),
		cmocka_unit_test(test_print),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
