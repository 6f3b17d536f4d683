/* The guests' consoles: order, prefixes, back-pressure, focus and the keys that change it. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "mem/frame.h"
#include "vm/console_internal.h"
#include "vm/platform.h"
#include "lib/log.h"
#include "vm/vm.h"
#include "x86/uart.h"

struct vm *vms[BOOT_MAX_VMS];
u32 vm_count;

static char line[1 << 20];
static size_t sent, busy_every, calls, max_write;
static bool dead;
static const char *typed = "";
static struct vm *told;
static u32 told_count, monitor_polls, shut_down;

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
	/* Devices' locks come before the console's. */
	assert_true(spin_trylock(&console.lock));
	spin_unlock(&console.lock);
	told = vm;
	told_count++;
}

void monitor_poll(void)
{
	assert_true(spin_trylock(&console.lock));
	spin_unlock(&console.lock);
	monitor_polls++;
}

void vm_shut_down(const char *why)
{
	assert_true(spin_trylock(&console.lock));
	spin_unlock(&console.lock);
	shut_down++;
}

void log_print(enum log_level level, const char *fmt, ...)
{
}

static void *heap[1];

void *heap_alloc(u64 bytes)
{
	free(heap[0]);
	heap[0] = calloc(1, bytes);
	return heap[0];
}

#define VMS 3
static struct boot_vm config[VMS] = {{.name = "one"}, {.name = "two"}, {.name = "three"}};
static struct vm vm[VMS];

const struct boot_vm *vm_config(u32 id)
{
	assert_true(id < vm_count);
	return &config[id];
}

static void start_with(u32 n, u32 focus)
{
	for (u32 i = 0; i < VMS; i++) {
		vm[i] = (struct vm){.id = i, .state = VM_RUNNING, .config = &config[i]};
		vms[i] = i < n ? &vm[i] : NULL;
	}
	vm_count = n;
	sent = busy_every = calls = max_write = 0;
	told_count = monitor_polls = shut_down = 0;
	dead = false;
	typed = "";
	memset(line, 0, sizeof(line));
	memset(&console, 0, sizeof(console));
	console_init(0x3f8, n, focus);
}

static void start(u32 n)
{
	start_with(n, BOOT_FOCUS_DEFAULT);
}

/* What has come out since the last call. */
static const char *shown(void)
{
	static char text[1 << 20];

	console_flush();
	memcpy(text, line, sent);
	text[sent] = 0;
	sent = 0;
	memset(line, 0, sizeof(line));
	return text;
}

static void type(const char *keys)
{
	typed = keys;
	console_poll();
	assert_int_equal(*typed, 0);
}

static void assert_input(struct vm *v, const char *text)
{
	for (; *text; text++)
		assert_int_equal(console_get(v), (u8)*text);
	assert_int_equal(console_get(v), -1);
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
	console_flush();
	assert_string_equal(line, "a\r\nb\x01\xff\n");
	console_flush();
	assert_int_equal(sent, 7);
}

static void several_vms_take_lines(void **state)
{
	start(2);
	put(&vm[0], "hel");
	put(&vm[1], "wor");
	put(&vm[0], "lo\n");
	put(&vm[1], "ld\n\nrest");
	assert_string_equal(shown(), "one| hello\ntwo| world\ntwo| \n");
	console_close(&vm[0]);
	assert_string_equal(shown(), "");
	console_close(&vm[1]);
	assert_string_equal(shown(), "two| rest\n");
	console_close(&vm[1]);
	assert_string_equal(shown(), "");
}

static void endless_line(void **state)
{
	size_t lines = 0;

	start(2);
	for (int i = 0; i < 10000; i++)
		console_put(&vm[1], 'x');
	console_close(&vm[1]);
	console_flush();
	for (size_t i = 0; i < sent; i++)
		lines += line[i] == '\n';
	assert_int_equal(lines, (10000 + 255) / 256);
	assert_int_equal(sent, 10000 + lines * 6);
}

/* Whatever a guest writes, in lines it stands behind its name and moves no cursor. */
static void lines_cannot_be_faked(void **state)
{
	start(2);
	put(&vm[0], "good\r\n");
	assert_string_equal(shown(), "one| good\r\n");
	put(&vm[0], "x\rtwo| fake\n");
	assert_string_equal(shown(), "one| x\r\none| two| fake\n");
	put(&vm[0], "\r\rtwo| fake\r\r\n");
	assert_string_equal(shown(), "one| two| fake\r\n");
	put(&vm[0], "ab\b\b\b\b\bc\n");
	assert_string_equal(shown(), "one| c\n");
	put(&vm[0], "\x1b[2J\x1b[1;1Htwo| \x1b[31mred\x1b[0m\x1b(B\a\v\f\x7f\n");
	assert_string_equal(shown(), "one| two| red\n");
	put(&vm[0], "\x1b]0;title\atext\x1bP1$r\x1b\\more\x1b[5\nnext\n");
	assert_string_equal(shown(), "one| textmore\none| next\n");
	put(&vm[0], "\xc3\xa4 \t.\n");
	assert_string_equal(shown(), "one| \xc3\xa4 \t.\n");
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
	console_flush();
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
	console_flush();
	dead = true;
	for (int i = 0; i < 70000; i++)
		console_put(&vm[0], 'x');
	console_flush();
	dead = false;
	put(&vm[0], "back\n");
	console_flush();
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

/* A guest that does not read loses what is typed, and nobody loses the keys. */
static void input_overruns(void **state)
{
	static char long_text[IN_BYTES + 500];
	size_t got = 0;

	start(1);
	memset(long_text, 'q', sizeof(long_text) - 1);
	typed = long_text;
	for (int i = 0; i < 10; i++) {
		console_poll();
		while (console_get(&vm[0]) == 'q')
			got++;
	}
	assert_int_equal(got, sizeof(long_text) - 1);
	for (int i = 0; i < 3; i++) {
		typed = long_text;
		while (*typed)
			console_poll();
	}
	assert_int_equal(shut_down, 0);
	type("\x01x");
	assert_int_equal(shut_down, 1);
	for (got = 0; console_get(&vm[0]) == 'q'; got++)
		;
	assert_int_equal(got, IN_BYTES);
}

/* The terminal belongs to the VM in focus; the others' output waits in their backlogs. */
static void focus_on_one(void **state)
{
	const char *text;

	start_with(3, BOOT_FOCUS_VM + 1);
	assert_non_null(strstr(shown(), "[umbra: console of two; Ctrl-A h: keys]\r\n"));
	put(&vm[0], "first\n\x1b[31msec\x1b[0mond");
	put(&vm[1], "\x1b[31mraw\r\x01");
	put(&vm[2], "third\n");
	assert_string_equal(shown(), "\x1b[31mraw\r\x01");
	type("typed\x01\x01.");
	assert_int_equal(told_count, 1);
	assert_ptr_equal(told, &vm[1]);
	assert_input(&vm[0], "");
	assert_input(&vm[1], "typed\x01.");
	type("late\x01"
	     "1now");
	text = shown();
	/* The terminal is taken back from the guest first. */
	assert_ptr_equal(strstr(text, "\x1b[0m"), text);
	assert_non_null(strstr(text, "[umbra: console of one; Ctrl-A h: keys]\r\nfirst\nsecond"));
	assert_null(strstr(text, "third"));
	/* What was typed before the switch stays with whom it was for. */
	assert_input(&vm[1], "late");
	assert_input(&vm[0], "now");
	put(&vm[0], "X");
	assert_string_equal(shown(), "X");
	type("\x01"
	     "a");
	text = shown();
	assert_non_null(strstr(text, "[umbra: all VMs; Ctrl-A h: keys]\r\n"));
	put(&vm[2], "a line\n");
	assert_string_equal(shown(), "three| a line\n");
}

static void next_and_numbers(void **state)
{
	start_with(3, BOOT_FOCUS_ALL);
	assert_int_equal(console_focus(), BOOT_FOCUS_ALL);
	type("\x01n");
	assert_int_equal(console_focus(), BOOT_FOCUS_VM);
	vm[1].state = VM_FREE;
	type("\x01n");
	assert_int_equal(console_focus(), BOOT_FOCUS_VM + 2);
	type("\x01n");
	assert_int_equal(console_focus(), BOOT_FOCUS_VM);
	shown();
	/* One that has ended can still be read. */
	put(&vm[1], "last words\n");
	type("\x01"
	     "2");
	assert_non_null(strstr(shown(), "console of two, which has ended; Ctrl-A h: keys]\r\n"
					"last words\n"));
	type("\x01"
	     "4\x01z\x01"
	     "0");
	assert_int_equal(console_focus(), BOOT_FOCUS_VM + 1);
	assert_non_null(strstr(shown(), "no such key or VM"));
	type("\x01h");
	assert_non_null(strstr(shown(), "  2 two, does not run, shown now]"));
	vm[0].state = vm[2].state = VM_FREE;
	type("\x01n");
	assert_int_equal(console_focus(), BOOT_FOCUS_VM + 1);
	assert_non_null(strstr(shown(), "no VM runs"));
	assert_input(&vm[1], "");
}

/* A paused VM gets its input when it goes on. */
static void paused(void **state)
{
	start_with(2, BOOT_FOCUS_VM);
	vm[0].pause.on = 1;
	type("x");
	assert_int_equal(told_count, 0);
	vm[0].pause.on = 0;
	console_poll();
	assert_int_equal(told_count, 1);
	assert_input(&vm[0], "x");
}

static void long_backlog(void **state)
{
	char *text;
	int n;

	start_with(2, BOOT_FOCUS_VM + 1);
	for (int i = 0; i < 2000; i++) {
		char number[16];

		snprintf(number, sizeof(number), "%d\n", i);
		put(&vm[0], number);
	}
	shown();
	type("\x01"
	     "1");
	text = strstr(shown(), "keys]\r\n");
	assert_non_null(text);
	text += 7;
	/* As much as fits, from the start of a line, without a gap up to the end. */
	assert_in_range(strlen(text), BACKLOG_BYTES - 8, BACKLOG_BYTES);
	for (n = 2000 - (int)strlen(text) / 5; n < 2000; n++)
		assert_int_equal(strtol(text, &text, 10), n);
	assert_string_equal(text, "\n");
}

/* The focus moves on when its VM ends, but not when that restarts. */
static void end_of_the_focus(void **state)
{
	start_with(3, BOOT_FOCUS_VM + 1);
	put(&vm[0], "prompt> ");
	put(&vm[1], "bye");
	vm[1].restart = true;
	vm[1].state = VM_ENDING;
	console_close(&vm[1]);
	assert_int_equal(console_focus(), BOOT_FOCUS_VM + 1);
	vm[1].state = VM_RUNNING;
	vm[1].restart = false;
	vm[2].state = VM_ENDING;
	console_close(&vm[2]);
	assert_int_equal(console_focus(), BOOT_FOCUS_VM + 1);
	shown();
	put(&vm[1], "last words");
	vm[1].state = VM_ENDING;
	console_close(&vm[1]);
	assert_int_equal(console_focus(), BOOT_FOCUS_VM);
	assert_non_null(strstr(shown(), "last words\n\x1b[0m\x1b(B\x0f\r\n[umbra: two has "
					"ended]\r\n[umbra: console of one; "
					"Ctrl-A h: keys]\r\nprompt> "));
	vm[0].state = VM_ENDING;
	console_close(&vm[0]);
	assert_int_equal(console_focus(), BOOT_FOCUS_ALL);
	assert_non_null(strstr(shown(), "[umbra: one has ended]\r\n[umbra: all VMs"));
}

/* Unfocused, not even a dead line holds a VM up; focused, it does not wait for ever. */
static void nobody_waits_unseen(void **state)
{
	start_with(2, BOOT_FOCUS_VM);
	shown();
	dead = true;
	for (int i = 0; i < 200000; i++)
		console_put(&vm[1], 'x');
	assert_int_equal(console_unsent(), 0);
	for (int i = 0; i < 60000; i++)
		console_put(&vm[0], 'x');
	assert_int_equal(console_unsent(), 60000);
	/* A switch does not wait for what the line has not taken. */
	type("\x01m");
	assert_in_range(console_unsent(), 1, 200);
	/* Unless it is little. */
	type("\x01"
	     "1");
	dead = false;
	shown();
	dead = true;
	put(&vm[0], "a few words");
	type("\x01"
	     "2");
	dead = false;
	assert_non_null(strstr(shown(), "a few words\x1b[0m"));
}

/* Somebody holds the lock whenever there is a poll: once in a while it is waited for. */
static void *let_go(void *arg)
{
	while (!__atomic_load_n(&console.lock.next, __ATOMIC_RELAXED) ||
	       console.lock.next - console.lock.serving < 2)
		;
	spin_unlock(&console.lock);
	return NULL;
}

static void polls_are_fair(void **state)
{
	pthread_t thread;

	start(1);
	typed = "x";
	spin_lock(&console.lock);
	for (int i = 0; i < 15; i++)
		console_poll();
	assert_string_equal(typed, "x");
	assert_int_equal(pthread_create(&thread, NULL, let_go, NULL), 0);
	console_poll();
	pthread_join(thread, NULL);
	assert_string_equal(typed, "");
	assert_input(&vm[0], "x");
}

static void monitor_has_its_input(void **state)
{
	start_with(2, BOOT_FOCUS_MONITOR);
	shown();
	assert_int_equal(console_monitor_get(), 0); /* it is told that it has got the focus */
	put(&vm[0], "unseen\n");
	console_print("seen");
	assert_string_equal(shown(), "seen");
	monitor_polls = 0;
	type("help\r");
	assert_int_equal(monitor_polls, 1);
	assert_int_equal(told_count, 0);
	assert_false(console_monitor_break());
	for (const char *s = "help\r"; *s; s++)
		assert_int_equal(console_monitor_get(), *s);
	assert_int_equal(console_monitor_get(), -1);
	/* Ctrl-C overtakes. */
	type("long\x03");
	assert_true(console_monitor_break());
	assert_int_equal(console_monitor_get(), 3);
	assert_int_equal(console_monitor_get(), -1);
	console_set_focus(BOOT_FOCUS_VM + 1);
	type("\x01m");
	assert_int_equal(console_previous(), BOOT_FOCUS_VM + 1);
	type("\x01m");
	assert_int_equal(console_previous(), BOOT_FOCUS_VM + 1);
	type("\x01"
	     "1");
	shown();
	console_print("unseen");
	assert_string_equal(shown(), "");
	monitor_polls = 0;
	console_poll();
	assert_int_equal(monitor_polls, 0);
	console_set_focus(BOOT_FOCUS_VM + 2); /* there is none */
	assert_int_equal(console_focus(), BOOT_FOCUS_VM);
}

/* With one VM the terminal is its own from the start, and Ctrl-A works all the same. */
static void keys_with_one_vm(void **state)
{
	start(1);
	put(&vm[0], "\x1b[1mraw");
	assert_string_equal(shown(), "\x1b[1mraw");
	type("a\x01\x01\x01mhelp\x01"
	     "1b");
	assert_input(&vm[0], "a\x01"
			     "b");
	assert_non_null(strstr(shown(), "console of one; Ctrl-A h: keys]\r\nraw"));
	vm[0].state = VM_ENDING;
	console_close(&vm[0]);
	assert_non_null(strstr(shown(), "[umbra: one has ended]\r\n"));
}

static void hint_only_if_asked(void **state)
{
	start(2);
	assert_string_equal(shown(), "");
	start_with(2, BOOT_FOCUS_ALL);
	assert_non_null(strstr(shown(), "[umbra: all VMs; Ctrl-A h: keys]"));
}

static void no_port(void **state)
{
	start(1);
	console_init(0, 1, BOOT_FOCUS_MONITOR);
	put(&vm[0], "x\n");
	console_poll();
	console_flush();
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
		cmocka_unit_test(input_overruns),
		cmocka_unit_test(lines_cannot_be_faked),
		cmocka_unit_test(focus_on_one),
		cmocka_unit_test(next_and_numbers),
		cmocka_unit_test(paused),
		cmocka_unit_test(long_backlog),
		cmocka_unit_test(end_of_the_focus),
		cmocka_unit_test(nobody_waits_unseen),
		cmocka_unit_test(polls_are_fair),
		cmocka_unit_test(monitor_has_its_input),
		cmocka_unit_test(keys_with_one_vm),
		cmocka_unit_test(hint_only_if_asked),
		cmocka_unit_test(no_port),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
