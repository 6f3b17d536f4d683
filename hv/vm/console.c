/* Consoles on one physical UART: output. See console.h; input is in console_keys.c. */
#include "lib/log.h"
#include "lib/string.h"
#include "mem/frame.h"
#include "vm/console_internal.h"
#include "vm/internal.h"
#include "x86/asm.h"
#include "x86/uart.h"

#define UART_FIFO 16
/* A UART that does not take a byte in this many looks is not there: output is dropped. */
#define PATIENCE 10000000

struct console console;

void console_init(u16 port, u32 vms_configured, u32 focus)
{
	console.vms = vms_configured;
	console.channel = heap_alloc(vms_configured * sizeof(struct channel));
	if (!console.channel) {
		log_warn("not enough memory for %u consoles: there is none", vms_configured);
		port = 0;
	}
	console.port = port;
	if (port && focus != BOOT_FOCUS_DEFAULT)
		console_set_focus(focus);
	else if (port)
		log_info("console: all VMs; Ctrl-A h shows how to switch");
}

/* Under the lock: hands bytes to the UART as long as it takes them. True if it took any. */
static bool drain(void)
{
	bool any = false;

	while (console.out_head != console.out_tail) {
		u32 at = console.out_head % OUT_BYTES;
		u32 n = MIN(console.out_tail - console.out_head, OUT_BYTES - at);
		size_t sent = uart_write_some(console.port, console.out + at, MIN(n, UART_FIFO));

		if (!sent)
			break;
		console.out_head += (u32)sent;
		any = true;
	}
	return any;
}

/* Under the lock: waits until at most `left` bytes are still to be sent. */
static __noinline void drain_to(u32 left)
{
	u32 idle = 0;

	while (console.out_tail - console.out_head > left) {
		if (drain()) {
			idle = 0;
		} else if (++idle > PATIENCE) {
			console.out_head = console.out_tail;
		} else {
			cpu_relax();
		}
	}
}

static inline void put_byte(u8 byte)
{
	/* A full ring makes the guest as slow as the line, as a real UART would. */
	if (unlikely(console.out_tail - console.out_head == OUT_BYTES))
		drain_to(OUT_BYTES - UART_FIFO);
	console.out[console.out_tail++ % OUT_BYTES] = byte;
}

void console_put_byte(u8 byte)
{
	put_byte(byte);
}

void console_put_string(const char *text)
{
	while (*text)
		put_byte((u8)*text++);
}

void console_drop_output(void)
{
	console.out_head = console.out_tail;
}

/*
 * What may be shown of a byte of guest output when the terminal must not obey the guest: text and
 * the controls that the callers handle, no escape sequences. A newline ends whatever it stands in.
 */
static bool is_text(u8 *state, u8 byte)
{
	if (byte == '\n') {
		*state = ESCAPE_NONE;
		return true;
	}
	if (byte == 0x1b) {
		*state = ESCAPE_START;
		return false;
	}
	switch (*state) {
	case ESCAPE_NONE:
		return (byte >= ' ' && byte != 0x7f) || byte == '\r' || byte == '\b' ||
		       byte == '\t';
	case ESCAPE_START:
		if (byte == '[')
			*state = ESCAPE_CSI;
		else if (byte == ']' || byte == 'P' || byte == 'X' || byte == '^' || byte == '_')
			*state = ESCAPE_STRING;
		else if (byte < ' ' || byte > '/') /* those are intermediate bytes */
			*state = ESCAPE_NONE;
		return false;
	case ESCAPE_CSI:
		if (byte >= '@' && byte <= '~')
			*state = ESCAPE_NONE;
		return false;
	default:
		if (byte == '\a')
			*state = ESCAPE_NONE;
		return false;
	}
}

void console_replay(struct channel *channel)
{
	u32 bytes = MIN(channel->backlog_tail, (u32)BACKLOG_BYTES);
	u32 at = channel->backlog_tail - bytes;
	u8 state = ESCAPE_NONE;

	/* Not from the middle of a line. */
	if (bytes == BACKLOG_BYTES)
		while (at != channel->backlog_tail &&
		       channel->backlog[at++ % BACKLOG_BYTES] != '\n')
			;
	for (; at != channel->backlog_tail; at++) {
		u8 byte = channel->backlog[at % BACKLOG_BYTES];

		if (is_text(&state, byte))
			put_byte(byte);
	}
}

void console_drop_lines(void)
{
	for (u32 i = 0; i < console.vms; i++) {
		console.channel[i].line_len = 0;
		console.channel[i].line_cr = false;
		console.channel[i].line_escape = ESCAPE_NONE;
	}
}

static void put_line(const struct vm *vm, struct channel *channel)
{
	console_put_string(vm->config->name);
	console_put_string("| ");
	for (u32 i = 0; i < channel->line_len; i++)
		put_byte((u8)channel->line[i]);
	if (channel->line_cr)
		put_byte('\r');
	put_byte('\n');
	channel->line_len = 0;
	channel->line_cr = false;
}

static void put_lined(const struct vm *vm, struct channel *channel, u8 byte)
{
	if (!is_text(&channel->line_escape, byte))
		return;
	if (byte == '\n') {
		put_line(vm, channel);
		return;
	}
	if (byte == '\r') {
		channel->line_cr = true;
		return;
	}
	/* Without a newline after it, the carriage return would have written over the name. */
	if (channel->line_cr && channel->line_len)
		put_line(vm, channel);
	channel->line_cr = false;
	if (byte == '\b') {
		channel->line_len -= channel->line_len > 0;
		return;
	}
	if (channel->line_len == LINE_BYTES)
		put_line(vm, channel);
	channel->line[channel->line_len++] = (char)byte;
}

void console_put(struct vm *vm, u8 byte)
{
	struct channel *channel = &console.channel[vm->id];

	if (!console.port)
		return;
	spin_lock(&console.lock);
	channel->backlog[channel->backlog_tail++ % BACKLOG_BYTES] = byte;
	/* The count wraps after 4 GiB: then it says again that the backlog is full. */
	if (unlikely(!channel->backlog_tail))
		channel->backlog_tail = BACKLOG_BYTES;
	channel->open = byte != '\n';
	if (console_raw(vm->id))
		put_byte(byte);
	else if (console_lines())
		put_lined(vm, channel, byte);
	spin_unlock(&console.lock);
}

/* Under the lock. */
static void end_line(struct vm *vm)
{
	struct channel *channel = &console.channel[vm->id];

	if (console_raw(vm->id) && channel->open)
		put_byte('\n');
	else if (console_lines() && channel->line_len)
		put_line(vm, channel);
	channel->open = false;
}

void console_close(struct vm *vm)
{
	if (!console.port)
		return;
	spin_lock(&console.lock);
	end_line(vm);
	if (!vm->restart)
		console_leave(vm);
	spin_unlock(&console.lock);
}

void console_flush(void)
{
	u32 end, left, idle = 0;

	if (!console.port)
		return;
	spin_lock(&console.lock);
	end = console.out_tail;
	spin_unlock(&console.lock);
	/* A full ring takes seconds: the lock is given back in between, other VMs go on writing. */
	do {
		spin_lock(&console.lock);
		idle = drain() ? 0 : idle + 1;
		left = end - console.out_head;
		if (idle > PATIENCE)
			console_drop_output();
		spin_unlock(&console.lock);
		cpu_relax();
	} while (left && left <= OUT_BYTES && idle <= PATIENCE);
}

/* The first VM that runs gets what is typed for no one in particular. */
static struct vm *first_running(void)
{
	for (u32 i = 0; i < vm_count; i++)
		if (vms[i] && __atomic_load_n(&vms[i]->state, __ATOMIC_ACQUIRE) == VM_RUNNING)
			return vms[i];
	return NULL;
}

static inline bool is_empty(const struct input *in)
{
	return __atomic_load_n(&in->head, __ATOMIC_RELAXED) ==
	       __atomic_load_n(&in->tail, __ATOMIC_RELAXED);
}

static int take(struct input *in)
{
	return is_empty(in) ? -1 : in->byte[in->head++ % IN_BYTES];
}

int console_get(struct vm *vm)
{
	struct input *own;
	int byte;

	if (!console.port)
		return -1;
	/* Without the lock: what is missed now comes with platform_console_input(). */
	own = &console.channel[vm->id].in;
	if (is_empty(own) && (is_empty(&console.first) || vm != first_running()))
		return -1;
	spin_lock(&console.lock);
	byte = take(own);
	if (byte < 0 && vm == first_running())
		byte = take(&console.first);
	spin_unlock(&console.lock);
	return byte;
}

/*
 * If another CPU is at it already, that will do; but guests on several CPUs that write all the time
 * could hold the lock whenever somebody looks.
 */
#define POLLS_MISSED 16

static bool poll_lock(void)
{
	bool taken = spin_trylock(&console.lock);

	if (!taken && __atomic_add_fetch(&console.missed, 1, __ATOMIC_RELAXED) < POLLS_MISSED)
		return false;
	if (!taken)
		spin_lock(&console.lock);
	__atomic_store_n(&console.missed, 0, __ATOMIC_RELAXED);
	return true;
}

void console_poll(void)
{
	struct vm *first = NULL;
	bool stop, monitor;
	u32 waiting = 0;

	if (!console.port || !poll_lock())
		return;
	drain();
	stop = console_receive();
	if (!is_empty(&console.first))
		first = first_running();
	for (u32 i = 0; i < console.vms; i++) {
		bool some = !is_empty(&console.channel[i].in) || (first && vms[i] == first);

		/* Nothing happens to a paused VM. */
		if (some && !vm_is_paused(vms[i]))
			waiting |= BIT(i);
	}
	monitor = console.focus == BOOT_FOCUS_MONITOR;
	spin_unlock(&console.lock);
	/* Others' locks come before the console's: not under it. */
	for (u32 i = 0; waiting && i < console.vms; i++)
		if (waiting & BIT(i))
			platform_console_input(vms[i]);
	if (stop)
		vm_shut_down("shut down from the console");
	if (monitor)
		monitor_poll();
}

int console_monitor_get(void)
{
	int byte;

	spin_lock(&console.lock);
	byte = take(&console.monitor);
	spin_unlock(&console.lock);
	return byte;
}

bool console_monitor_break(void)
{
	bool found;

	spin_lock(&console.lock);
	found = !is_empty(&console.monitor) &&
		console.monitor.byte[console.monitor.head % IN_BYTES] == CTRL('c');
	spin_unlock(&console.lock);
	return found;
}

u32 console_unsent(void)
{
	return __atomic_load_n(&console.out_tail, __ATOMIC_RELAXED) -
	       __atomic_load_n(&console.out_head, __ATOMIC_RELAXED);
}

void console_print(const char *text)
{
	spin_lock(&console.lock);
	if (console.focus == BOOT_FOCUS_MONITOR)
		console_put_string(text);
	spin_unlock(&console.lock);
}
