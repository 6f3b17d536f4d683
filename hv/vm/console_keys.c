/*
 * Consoles: the focus, and what is typed. Ctrl-A, then
 *   1 to 9   the console of that VM (numbers as they are configured)
 *   n        that of the next one that runs
 *   a, m     the lines of all VMs; the monitor
 *   h, ?     these keys
 *   x        shut the machine down, at once and without a question, as in QEMU
 *   Ctrl-A   one Ctrl-A for whoever has the focus
 */
#include "lib/log.h"
#include "lib/string.h"
#include "vm/console_internal.h"
#include "vm/vm.h"
#include "x86/uart.h"

/* Colours off, ASCII: whatever a guest has left its terminal in. */
#define TERMINAL_RESET "\x1b[0m\x1b(B\x0f"

static bool runs(u32 id)
{
	return id < vm_count && vms[id] &&
	       __atomic_load_n(&vms[id]->state, __ATOMIC_ACQUIRE) == VM_RUNNING;
}

/* It has run, and does not any more. */
static bool has_ended(u32 id)
{
	return id < vm_count && vms[id] && vms[id]->config &&
	       __atomic_load_n(&vms[id]->state, __ATOMIC_ACQUIRE) == VM_FREE;
}

static const char *name_of(u32 id)
{
	return vm_config(id)->name;
}

static void __format(1, 2) say(const char *fmt, ...)
{
	char text[128];
	va_list ap;

	va_start(ap, fmt);
	str_vprint(text, sizeof(text), fmt, ap);
	va_end(ap);
	console_put_string("[umbra: ");
	console_put_string(text);
	console_put_string("]\r\n");
}

static void give(struct input *in, u8 byte)
{
	if (in->tail - in->head < IN_BYTES)
		in->byte[in->tail++ % IN_BYTES] = byte;
}

static void announce(u32 focus)
{
	if (focus == BOOT_FOCUS_MONITOR)
		say("monitor; Ctrl-A h: keys");
	else if (focus < BOOT_FOCUS_VM)
		say("all VMs; Ctrl-A h: keys");
	else
		say("console of %s%s; Ctrl-A h: keys", name_of(focus - BOOT_FOCUS_VM),
		    has_ended(focus - BOOT_FOCUS_VM) ? ", which has ended" : "");
}

void console_switch(u32 focus, const char *why)
{
	bool raw = console.focus >= BOOT_FOCUS_VM ||
		   (console.vms == 1 && console.focus != BOOT_FOCUS_MONITOR);

	/* Nobody waits for seconds; the newest of it is in the backlogs. */
	if (!why && console_unsent() > BACKLOG_BYTES)
		console_drop_output();
	console_drop_lines();
	if (focus == BOOT_FOCUS_MONITOR && console.focus != BOOT_FOCUS_MONITOR)
		console.previous = console.focus;
	console.focus = focus;
	console_put_string(raw ? TERMINAL_RESET "\r\n" : "\r\n");
	if (why)
		say("%s", why);
	announce(focus);
	/* Where a VM's end brings a switch, the ring may be full. */
	if (focus >= BOOT_FOCUS_VM && console_unsent() < OUT_BYTES / 2)
		console_replay(&console.channel[focus - BOOT_FOCUS_VM]);
	if (focus == BOOT_FOCUS_MONITOR)
		give(&console.monitor, 0);
}

/* The next VM after `id` that runs, or console.vms. */
static u32 next_running(u32 id)
{
	for (u32 i = 1; i <= console.vms; i++)
		if (runs((id + i) % console.vms))
			return (id + i) % console.vms;
	return console.vms;
}

void console_leave(const struct vm *vm)
{
	char why[64];
	u32 next;

	if (console.focus != BOOT_FOCUS_VM + vm->id)
		return;
	next = next_running(vm->id);
	str_print(why, sizeof(why), "%s has ended", vm->config->name);
	if (next == console.vms || next == vm->id)
		console_switch(BOOT_FOCUS_ALL, why);
	else
		console_switch(BOOT_FOCUS_VM + next, why);
}

static void next_console(void)
{
	u32 next = next_running(console.focus < BOOT_FOCUS_VM ? console.vms - 1
							      : console.focus - BOOT_FOCUS_VM);

	if (next == console.vms)
		say("no VM runs");
	else
		console_switch(BOOT_FOCUS_VM + next, NULL);
}

static void help(void)
{
	console_put_string("\r\n");
	say("Ctrl-A, then: 1-9 or n (next) a VM's console, a all VMs, m monitor");
	say("              x end everything, Ctrl-A a Ctrl-A for the guest, h this help");
	for (u32 i = 0; i < console.vms; i++)
		say("  %u %s%s%s", i + 1, name_of(i), runs(i) ? "" : ", does not run",
		    console.focus == BOOT_FOCUS_VM + i ? ", shown now" : "");
}

/* The key after Ctrl-A. True: x. */
static bool command(u8 key)
{
	switch (key) {
	case 'a':
		console_switch(BOOT_FOCUS_ALL, NULL);
		break;
	case 'm':
		console_switch(BOOT_FOCUS_MONITOR, NULL);
		break;
	case 'n':
		next_console();
		break;
	case 'h':
	case '?':
		help();
		break;
	case 'x':
		return true;
	default:
		if (key >= '1' && key <= '9' && key - '1' < (int)console.vms)
			console_switch(BOOT_FOCUS_VM + key - '1', NULL);
		else
			say("no such key or VM; Ctrl-A h: keys");
	}
	return false;
}

static struct input *target(void)
{
	if (console.focus == BOOT_FOCUS_MONITOR)
		return &console.monitor;
	if (console.focus >= BOOT_FOCUS_VM)
		return &console.channel[console.focus - BOOT_FOCUS_VM].in;
	return console.vms == 1 ? &console.channel[0].in : &console.first;
}

bool console_receive(void)
{
	int byte;
	bool stop = false;

	/* Bounded, should the UART never be empty. */
	for (u32 i = 0; i < IN_BYTES && (byte = uart_read(console.port)) >= 0; i++) {
		struct input *in = target();

		if (console.command && byte != CTRL('a')) {
			stop |= command((u8)byte);
			console.command = false;
		} else if (!console.command && byte == CTRL('a')) {
			console.command = true;
		} else {
			console.command = false;
			/* What it breaks off goes too. */
			if (in == &console.monitor && byte == CTRL('c'))
				in->head = in->tail;
			give(in, (u8)byte);
		}
	}
	return stop;
}

u32 console_focus(void)
{
	return console.focus;
}

u32 console_previous(void)
{
	return console.previous;
}

void console_set_focus(u32 focus)
{
	if (focus >= BOOT_FOCUS_VM + console.vms)
		return;
	spin_lock(&console.lock);
	console_switch(focus, NULL);
	spin_unlock(&console.lock);
}
