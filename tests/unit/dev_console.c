/* The guests' consoles: order, prefixes, back-pressure, input focus. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "vm/console.h"
#include "vm/platform.h"
#include "vm/vm.h"
#include "x86/uart.h"

struct vm *vms[BOOT_MAX_VMS];
u32 vm_count;

static char line[1 << 20];
static size_t sent, busy_every, calls, max_write;
static bool dead;
static const char *typed = "";
static struct vm *told;

size_t uart_write_some(u16 port, const u8 *buf, size_t len)
{
	assert_int_equal(port, 0x3f8);
	assert_true(len <= 16 && len > 0);
	if (dead || (busy_every && ++calls % busy_every))
		return 0;
	len = max_write && len > max_write ? max_write : len;
	memcpy(line + sent, buf, len);
	sent += len;
	return len;
}

int uart_read(u16 port)
{
	return *typed ? (u8)*typed++ : -1;
}

void platform_console_input(struct vm *vm)
{
	told = vm;
}

static struct boot_vm config[2] = {{.name = "one"}, {.name = "two"}};
static struct vm vm[2];

static void start(u32 n)
{
	for (u32 i = 0; i < 2; i++) {
		vm[i] = (struct vm){.id = i, .state = VM_RUNNING, .config = &config[i]};
		vms[i] = i < n ? &vm[i] : NULL;
	}
	vm_count = n;
	sent = busy_every = calls = max_write = 0;
	dead = false;
	memset(line, 0, sizeof(line));
	console_init(0x3f8, n);
}

static void put(struct vm *v, const char *text)
{
	while (*text)
		console_put(v, (u8)*text++);
}

static void one_vm_is_transparent(void **state)
{
	start(1);
	put(&vm[0], "a\r\nb\x01\xff");
	assert_int_equal(sent, 0); /* writing does not touch the wire */
	console_poll();
	assert_string_equal(line, "a\r\nb\x01\xff");
	console_close(&vm[0]); /* the line had not ended; nothing waits for the UART */
	console_flush(NULL);
	assert_string_equal(line, "a\r\nb\x01\xff\n");
	console_flush(&vm[0]);
	assert_int_equal(sent, 7);
}

static void several_vms_take_lines(void **state)
{
	start(2);
	put(&vm[0], "hel");
	put(&vm[1], "wor");
	put(&vm[0], "lo\n");
	put(&vm[1], "ld\n\nrest");
	console_poll();
	assert_string_equal(line, "one| hello\ntwo| world\ntwo| \n");
	console_flush(&vm[0]);
	assert_string_equal(line, "one| hello\ntwo| world\ntwo| \n");
	console_flush(&vm[1]);
	assert_string_equal(line, "one| hello\ntwo| world\ntwo| \ntwo| rest\n");
}

static void endless_line(void **state)
{
	size_t lines = 0;

	start(2);
	for (int i = 0; i < 10000; i++)
		console_put(&vm[1], 'x');
	console_flush(&vm[1]);
	for (size_t i = 0; i < sent; i++)
		lines += line[i] == '\n';
	assert_int_equal(lines, (10000 + 255) / 256);
	assert_int_equal(sent, 10000 + lines * 6);
}

/* Half a megabyte on a slow line: nothing is lost or reordered. */
static void back_pressure(void **state)
{
	u32 seed = 1;

	start(1);
	busy_every = 3;
	max_write = 5;
	for (int i = 0; i < 500000; i++) {
		seed = seed * 1103515245 + 12345;
		console_put(&vm[0], (u8)('a' + (seed >> 16) % 20));
		if (i % 997 == 0)
			console_poll();
	}
	console_flush(NULL);
	assert_int_equal(sent, 500000);
	seed = 1;
	for (int i = 0; i < 500000; i++) {
		seed = seed * 1103515245 + 12345;
		assert_int_equal(line[i], 'a' + (seed >> 16) % 20);
	}
}

static void dead_uart_does_not_hang(void **state)
{
	start(1);
	console_flush(&vm[0]);
	dead = true;
	for (int i = 0; i < 70000; i++)
		console_put(&vm[0], 'x');
	console_flush(&vm[0]);
	dead = false;
	put(&vm[0], "back\n");
	console_flush(&vm[0]);
	assert_non_null(strstr(line, "back\n"));
}

static void input_goes_to_the_focus(void **state)
{
	start(2);
	told = NULL;
	typed = "xy";
	console_poll();
	assert_ptr_equal(told, &vm[0]);
	assert_int_equal(console_get(&vm[1]), -1);
	assert_int_equal(console_get(&vm[0]), 'x');
	vm[0].state = VM_ENDING; /* the next one inherits what is left */
	told = NULL;
	console_poll();
	assert_ptr_equal(told, &vm[1]);
	assert_int_equal(console_get(&vm[0]), -1);
	assert_int_equal(console_get(&vm[1]), 'y');
	assert_int_equal(console_get(&vm[1]), -1);
	told = NULL;
	console_poll();
	assert_null(told);
}

static void input_waits_in_the_uart(void **state)
{
	static char long_text[1001];
	size_t got = 0;

	start(1);
	memset(long_text, 'q', 1000);
	typed = long_text;
	for (int i = 0; i < 10; i++) {
		console_poll();
		while (console_get(&vm[0]) == 'q')
			got++;
	}
	assert_int_equal(got, 1000);
}

static void no_port(void **state)
{
	start(1);
	console_init(0, 1);
	put(&vm[0], "x\n");
	console_poll();
	console_flush(&vm[0]);
	assert_int_equal(sent, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_vm_is_transparent),
		cmocka_unit_test(several_vms_take_lines),
		cmocka_unit_test(endless_line),
		cmocka_unit_test(back_pressure),
		cmocka_unit_test(dead_uart_does_not_hang),
		cmocka_unit_test(input_goes_to_the_focus),
		cmocka_unit_test(input_waits_in_the_uart),
		cmocka_unit_test(no_port),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
