/* hv/remote/report.c: every counter is there, and lines are bounded whatever the numbers are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "lib/types.h"
#include "remote/remote.h"
#include "vm/report.h"
#include "vm/vm.h"

static struct remote_view view;
static struct boot_vm config = {.remote = {{.ip = 0x0a4d0002}, {.ip = ~0u}}};
static struct vm vm = {.config = &config};
static char all[20 * REPORT_TEXT];

bool remote_view(const struct vm *v, struct remote_view *out)
{
	*out = view;
	return true;
}

u32 pager_free(const struct pager *p)
{
	return 0;
}

u32 pager_away(const struct pager *p)
{
	return 0;
}

const struct pager_stats *pager_stats(const struct pager *p)
{
	return NULL;
}

static u32 write_all(void)
{
	char text[REPORT_TEXT];
	u32 item;

	all[0] = 0;
	for (item = 0; remote_report(&vm, item, text); item++) {
		assert_true(strnlen(text, REPORT_TEXT) < REPORT_TEXT - 1);
		strcat(strcat(all, text), "\n");
	}
	return item;
}

static void test_bounded(void **state)
{
	memset(&view, 0xff, sizeof(view));
	view.sealed = view.stalled = true;
	for (u32 i = 0; i < STORE_NODES; i++)
		view.node[i].up = true;
	view.nodes = 2;
	assert_int_equal(write_all(), 7);
	assert_non_null(strstr(all, "wasted=18446744073709551615\n"));
	assert_non_null(strstr(all, "zeroes=18446744073709551615\n"));
	assert_non_null(strstr(all, " 11:18446744073709551615\n"));
	assert_non_null(strstr(all, " 23:18446744073709551615\n"));
	assert_non_null(strstr(all, "node i=1 ip=4294967295 up=1 slots=4294967295 taken="));
}

static void test_values(void **state)
{
	u64 *counter = (u64 *)&view.pager;

	memset(&view, 0, sizeof(view));
	/* Every counter of the pager is a number of its own. */
	for (u32 i = 0; i < sizeof(view.pager) / sizeof(u64); i++)
		counter[i] = 1000 + i;
	view.nodes = 1;
	view.node[0] = (struct store_node_view){true, 300, 200};
	view.store.bytes_in = 8192;
	assert_int_equal(write_all(), 6);
	for (u32 i = 0; i < sizeof(view.pager) / sizeof(u64); i++) {
		char number[8];

		if (counter + i == &view.pager.batches)
			continue;
		snprintf(number, sizeof(number), "%u", 1000 + i);
		assert_non_null(strstr(all, number));
	}
	assert_non_null(strstr(all, "store in=8192 out=0 "));
	assert_non_null(strstr(all, "node i=0 ip=172818434 up=1 slots=300 taken=200\n"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bounded),
		cmocka_unit_test(test_values),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
