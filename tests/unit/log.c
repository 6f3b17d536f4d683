/* The log: line format, levels, ring, sinks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "lib/log.h"

static u64 now_us;
static char sunk[4][600];
static unsigned int sink_calls, late_calls;
static char late_last[600];

u64 log_clock_us(void)
{
	return now_us;
}

unsigned int log_cpu(void)
{
	return 3;
}

static void sink(const char *line, size_t len)
{
	memcpy(sunk[sink_calls % 4], line, len);
	sunk[sink_calls % 4][len] = '\0';
	sink_calls++;
}

static void late_sink(const char *line, size_t len)
{
	memcpy(late_last, line, len);
	late_last[len] = '\0';
	late_calls++;
}

static void test_lines(void **state)
{
	char tail[200];
	size_t n;

	now_us = 123456;
	log_info("before %s", "any sink");
	log_add_sink(sink);
	assert_int_equal(sink_calls, 1);
	assert_string_equal(sunk[0], "[    0.123456 cpu3] before any sink");
	now_us = 98765000001;
	log_warn("value %d", -7);
	assert_string_equal(sunk[1], "[98765.000001 cpu3] warning: value -7");
	log_error("bad\nworse\x1b[2J");
	assert_string_equal(sunk[2], "[98765.000001 cpu3] error: bad?worse?[2J");
	log_debug("hidden");
	assert_int_equal(sink_calls, 3);
	log_set_level(LOG_DEBUG);
	log_debug("shown");
	assert_int_equal(sink_calls, 4);
	assert_string_equal(sunk[3], "[98765.000001 cpu3] debug: shown");
	log_set_level(LOG_ERROR);
	log_warn("hidden");
	log_info("hidden");
	assert_int_equal(sink_calls, 4);
	log_set_level(LOG_INFO);
	log_plain("umbra: end 0");
	assert_string_equal(sunk[0], "umbra: end 0");
	n = log_ring_tail(tail, 19);
	assert_int_equal(n, 19);
	assert_memory_equal(tail, " shown\numbra: end 0\n" + 1, 19);
}

/* Data is for one sink, whatever the level, and for nothing that remembers. */
static void test_data(void **state)
{
	char tail[40], before[40];

	log_data("nobody takes it yet");
	log_info("known");
	log_ring_tail(before, sizeof(before));
	sink_calls = late_calls = 0;
	log_set_data_sink(late_sink);
	log_set_level(LOG_ERROR);
	log_data("@R data");
	log_set_level(LOG_INFO);
	assert_int_equal(sink_calls, 0);
	assert_int_equal(late_calls, 1);
	assert_string_equal(late_last, "@R data");
	log_ring_tail(tail, sizeof(tail));
	assert_memory_equal(tail, before, sizeof(tail));
}

static void test_long_line(void **state)
{
	char text[1000];

	memset(text, 'a', sizeof(text));
	text[999] = '\0';
	sink_calls = 0;
	log_info("%s", text);
	assert_int_equal(sink_calls, 1);
	assert_int_equal(strlen(sunk[0]), 511);
}

static void test_wrap(void **state)
{
	static char tail[LOG_RING_BYTES + 10];
	size_t n;

	for (unsigned int i = 0; i < 5000; i++)
		log_info("line %u", i);
	n = log_ring_tail(tail, sizeof(tail));
	assert_int_equal(n, LOG_RING_BYTES);
	assert_memory_equal(tail + n - 10, "line 4999\n", 10);
	log_break_lock();
	log_add_sink(late_sink);
	assert_true(late_calls > 1000);
	assert_string_equal(late_last + strlen(late_last) - 9, "line 4999");
	log_info("after");
	assert_string_equal(late_last + strlen(late_last) - 5, "after");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_data),
		cmocka_unit_test(test_long_line),
		cmocka_unit_test(test_wrap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
