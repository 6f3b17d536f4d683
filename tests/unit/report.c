/* hv/vm/report.c: the lines are whole, checked and bounded, and hold everything that was counted.
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/crc32.h"
#include "lib/log.h"
#include "vm/profile.h"
#include "vm/report.h"
#include "vm/stats.h"
#include "vm/trace.h"
#include "vm/vm.h"
#include "vmx/entry_check.h"
#include "x86/tsc.h"

#define LINES 4000

u64 tsc_hz = 3000000000, tsc_start = 1000;

static struct boot_vm config = {.name = "one.-_9", .memory = 64 << 20};
static struct vm vm;
static struct vcpu vcpus[2];
static struct profile profiles[2];
static char *lines[LINES];
static u32 line_count;
static u32 recorded; /* entries in each trace */

void log_data(const char *line)
{
	assert_true(line_count < LINES);
	lines[line_count++] = strdup(line);
}

const char *exit_reason_name(u32 reason)
{
	return "a name of some words";
}

const char *trace_detail_name(u32 reason)
{
	return reason & 1 ? "port" : "";
}

u64 trace_count(const struct vcpu *vcpu)
{
	return recorded;
}

/* Some have been overwritten when they are read. */
bool trace_read(const struct vcpu *vcpu, u64 back, struct trace_entry *out)
{
	*out = (struct trace_entry){.tsc = 2000 - back,
				    .rip = ~0ull,
				    .qualification = ~0ull,
				    .detail = ~0ull,
				    .cost = ~0u,
				    .reason = 74};
	return back < 40;
}

void stats_vcpu(const struct vcpu *vcpu, struct stats *out)
{
	memset(out, 0, sizeof(*out));
	memcpy(out->exits, vcpu->exits, sizeof(out->exits));
	for (u32 r = 0; r < EXIT_COUNT; r++)
		out->total += out->exits[r];
}

/* A VM with remote memory has two lines of its own. */
bool remote_report(const struct vm *v, u32 item, char text[REPORT_TEXT])
{
	assert_non_null(v->remote);
	memset(text, 'x', REPORT_TEXT);
	text[item ? 7 : REPORT_TEXT - 1] = 0;
	return item < 2;
}

static int start(void **state)
{
	memset(&vm, 0, sizeof(vm));
	memset(vcpus, 0, sizeof(vcpus));
	memset(profiles, 0, sizeof(profiles));
	vm.config = &config;
	vm.id = 9;
	vm.vcpu_count = 2;
	for (u32 i = 0; i < 2; i++) {
		vm.vcpu[i] = &vcpus[i];
		vcpus[i].vm = &vm;
		vcpus[i].index = i;
		vcpus[i].profile = &profiles[i];
		profile_init(&profiles[i], 5000, 100);
	}
	recorded = 0;
	return 0;
}

static int stop(void **state)
{
	while (line_count)
		free(lines[--line_count]);
	return 0;
}

static void write_all(const char *why)
{
	struct report_cursor c = {0};
	u32 before;

	do {
		before = line_count;
	} while (report_step(&vm, &c, why));
	/* A piece is a line, or a few for a list. */
	assert_true(line_count - before <= 1);
	assert_int_equal(c.lines, line_count);
	assert_false(report_step(&vm, &c, why));
	assert_int_equal(c.lines, line_count);
}

/* The text of line i, after a look at what must hold for each. */
static char *text_of(u32 i)
{
	static char text[600];
	size_t len = strlen(lines[i]);
	char check[8];

	assert_true(len > 9 && len < 590); /* x86/uart.c cuts at 598 */
	assert_memory_equal(lines[i], "@R ", 3);
	memcpy(text, lines[i] + 3, len - 9);
	text[len - 9] = '\0';
	snprintf(check, sizeof(check), " *%04x", crc32(0, text, strlen(text)) & 0xffff);
	assert_string_equal(lines[i] + len - 6, check);
	return text;
}

static u32 count_lines(const char *kind)
{
	u32 n = 0;

	for (u32 i = 0; i < line_count; i++)
		n += !strncmp(text_of(i), kind, strlen(kind));
	return n;
}

/* Sum of the b in all a:b of a kind of line of a vCPU. */
static u64 sum_of(const char *kind, u32 n)
{
	char head[40];
	u64 sum = 0;

	snprintf(head, sizeof(head), "9 %s n=%u ", kind, n);
	for (u32 i = 0; i < line_count; i++) {
		char *text = text_of(i);

		if (strncmp(text, head, strlen(head)))
			continue;
		for (char *at = text; (at = strchr(at, ':')); at++)
			sum += strtoull(at + 1, NULL, 10);
	}
	return sum;
}

static void test_none(void **state)
{
	vcpus[0].profile = NULL;
	write_all("end");
	assert_int_equal(line_count, 0);
	vm.vcpu[0] = NULL;
	write_all("end");
	assert_int_equal(line_count, 0);
}

static void test_empty(void **state)
{
	char text[80];

	write_all("end");
	assert_non_null(
		strstr(text_of(0), "9 begin version=1 vm=one.-_9 run=0 why=end status=0 vcpus=2 "));
	assert_int_equal(line_count, 8);
	snprintf(text, sizeof(text), "9 end vm=one.-_9 lines=%u", line_count);
	assert_string_equal(text_of(line_count - 1), text);
}

static void test_full(void **state)
{
	char text[80];

	for (u32 i = 0; i < 2; i++) {
		struct profile *p = &profiles[i];

		recorded = 5000;
		p->samples = PROFILE_SAMPLES;
		for (u32 r = 0; r < EXIT_COUNT; r++) {
			vcpus[i].exits[r] = 1000000000000 + r;
			p->cost[r] =
				(struct profile_cost){.sum = ~0ull, .max = ~0ull, .max_rip = ~0ull};
			for (u32 s = 0; s < PROFILE_SAMPLES; s++)
				p->count[s][r] = s == 3 ? 0 : 100000000 + s;
			for (u32 b = 0; b < PROFILE_HISTOGRAM; b++)
				p->cost[r].histogram[b] = 1000000000000 + b;
		}
		for (u32 k = 0; k < 2 * TOPK_ENTRIES; k++) {
			topk_add(&p->by_exits, ~(u64)k, 74, 1000 + k, ~0ull);
			topk_add(&p->by_ticks, ~(u64)k, 74, ~0ull >> 8, ~0ull);
			topk_add(&p->pages, ~(u64)k, 74, 1, ~0ull);
		}
	}
	write_all("request");
	for (u32 i = 0; i < 2; i++) {
		u64 exits = 0, sampled = 0, costs = 0;

		for (u32 r = 0; r < EXIT_COUNT; r++) {
			exits += vcpus[i].exits[r];
			for (u32 s = 0; s < PROFILE_SAMPLES; s++)
				sampled += profiles[i].count[s][r];
			for (u32 b = 0; b < PROFILE_HISTOGRAM; b++)
				costs += profiles[i].cost[r].histogram[b];
		}
		assert_int_equal(sum_of("exits", i), exits);
		assert_int_equal(sum_of("sample", i), sampled);
		assert_int_equal(sum_of("cost", i), costs);
	}
	assert_int_equal(count_lines("9 reason "), EXIT_COUNT);
	assert_int_equal(count_lines("9 sample n=0 i=3 "), 0);
	assert_int_equal(count_lines("9 hot n=0 by=exits "), 16);
	assert_int_equal(count_lines("9 hot n=1 by=page "), 16);
	assert_int_equal(count_lines("9 last n=0 "), 40);
	snprintf(text, sizeof(text), "9 end vm=one.-_9 lines=%u", line_count);
	assert_string_equal(text_of(line_count - 1), text);
}

static void test_remote(void **state)
{
	char expected[80];

	profiles[0].samples = 5;
	for (u32 i = 0; i < PROFILE_GAUGES; i++)
		profiles[0].gauge[0][i] = profiles[0].gauge[3][i] = ~0ull - i;
	write_all("end");
	assert_int_equal(count_lines("9 gauge "), 0);
	stop(NULL);
	vm.remote = (struct vm_remote *)&vm;
	write_all("end");
	assert_int_equal(count_lines("9 xxx"), 2);
	assert_string_equal(text_of(2), "9 xxxxxxx");
	assert_int_equal(count_lines("9 gauge i=0 "), 1);
	assert_int_equal(count_lines("9 gauge "), 2);
	snprintf(expected, sizeof(expected), " %u:%llu", PROFILE_GAUGES - 1,
		 ~0ull - (PROFILE_GAUGES - 1));
	assert_non_null(strstr(text_of(4), expected));
}

/* The heaviest come first. */
static void test_order(void **state)
{
	u64 last = ~0ull;
	u32 seen = 0;

	for (u32 k = 0; k < 40; k++)
		topk_add(&profiles[0].by_exits, k, 1, k * 7 % 40, 0);
	write_all("end");
	for (u32 i = 0; i < line_count; i++) {
		const char *at = strstr(text_of(i), "weight=");

		if (!at)
			continue;
		assert_int_equal(strtoull(at + 7, NULL, 10), 39 - seen);
		assert_true(strtoull(at + 7, NULL, 10) < last);
		last = strtoull(at + 7, NULL, 10);
		seen++;
	}
	assert_int_equal(seen, 16);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_none, start, stop),
		cmocka_unit_test_setup_teardown(test_empty, start, stop),
		cmocka_unit_test_setup_teardown(test_full, start, stop),
		cmocka_unit_test_setup_teardown(test_remote, start, stop),
		cmocka_unit_test_setup_teardown(test_order, start, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
