/* Guests' serial consoles on one physical UART: see console.h. */
#include "lib/spinlock.h"
#include "lib/string.h"
#include "vm/console.h"
#include "vm/platform.h"
#include "vm/vm.h"
#include "x86/asm.h"
#include "x86/uart.h"

#define OUT_BYTES  (64 * 1024) /* powers of two */
#define IN_BYTES   256
#define LINE_BYTES 256
#define UART_FIFO  16
/* A UART that does not take a byte in this many looks is not there: output is dropped. */
#define PATIENCE 10000000

/* With several VMs, what a VM has written of its current line. */
struct line {
	u32 len;
	char text[LINE_BYTES];
};

static struct {
	struct spinlock lock;
	u16 port;
	bool prefix;		/* several VMs */
	u32 out_head, out_tail; /* free-running; head: next to send */
	u32 in_head, in_tail;
	u8 out[OUT_BYTES];
	u8 in[IN_BYTES];
	struct line line[BOOT_MAX_VMS];
} console;

void console_init(u16 port, u32 vms_configured)
{
	console.port = port;
	console.prefix = vms_configured > 1;
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

static void put_text(const char *text, u32 len)
{
	for (u32 i = 0; i < len; i++)
		put_byte((u8)text[i]);
}

static void put_line(const struct vm *vm, struct line *line)
{
	put_text(vm->config->name, (u32)strlen(vm->config->name));
	put_text("| ", 2);
	put_text(line->text, line->len);
	put_text("\n", 1);
	line->len = 0;
}

void console_put(struct vm *vm, u8 byte)
{
	struct line *line = &console.line[vm->id];

	if (!console.port)
		return;
	spin_lock(&console.lock);
	if (!console.prefix) {
		/* Remembers only whether the last line has ended. */
		line->len = byte != '\n';
		put_byte(byte);
	} else if (byte == '\n') {
		put_line(vm, line);
	} else {
		if (line->len == LINE_BYTES)
			put_line(vm, line);
		line->text[line->len++] = (char)byte;
	}
	spin_unlock(&console.lock);
}

/* Input goes to the first VM that runs. */
static struct vm *focus(void)
{
	for (u32 i = 0; i < vm_count; i++)
		if (vms[i] && __atomic_load_n(&vms[i]->state, __ATOMIC_ACQUIRE) == VM_RUNNING)
			return vms[i];
	return NULL;
}

int console_get(struct vm *vm)
{
	int byte = -1;

	/* Without the lock: what is missed now comes with platform_console_input(). */
	if (__atomic_load_n(&console.in_head, __ATOMIC_RELAXED) ==
	    __atomic_load_n(&console.in_tail, __ATOMIC_RELAXED))
		return -1;
	if (vm != focus())
		return -1;
	spin_lock(&console.lock);
	if (console.in_head != console.in_tail)
		byte = console.in[console.in_head++ % IN_BYTES];
	spin_unlock(&console.lock);
	return byte;
}

/* Under the lock. A full ring leaves the bytes in the UART. */
static void receive(void)
{
	while (console.in_tail - console.in_head < IN_BYTES) {
		int byte = uart_read(console.port);

		if (byte < 0)
			break;
		console.in[console.in_tail++ % IN_BYTES] = (u8)byte;
	}
}

void console_poll(void)
{
	struct vm *vm = NULL;

	/* If another CPU is at it already, that will do. */
	if (!console.port || !spin_trylock(&console.lock))
		return;
	drain();
	receive();
	if (console.in_head != console.in_tail)
		vm = focus();
	spin_unlock(&console.lock);
	/* Devices' locks come before the console's: not under it. */
	if (vm)
		platform_console_input(vm);
}

/* Ends the VM's last line; returns up to where the ring is to be sent. */
static u32 close_line(struct vm *vm)
{
	struct line *line = vm ? &console.line[vm->id] : NULL;
	u32 end;

	spin_lock(&console.lock);
	if (line && line->len && console.prefix) {
		put_line(vm, line);
	} else if (line && line->len) {
		put_byte('\n');
		line->len = 0;
	}
	end = console.out_tail;
	spin_unlock(&console.lock);
	return end;
}

void console_close(struct vm *vm)
{
	if (console.port)
		close_line(vm);
}

void console_flush(struct vm *vm)
{
	u32 end, left, idle = 0;

	if (!console.port)
		return;
	end = close_line(vm);
	/* A full ring takes seconds: the lock is given back in between, other VMs go on writing. */
	do {
		spin_lock(&console.lock);
		idle = drain() ? 0 : idle + 1;
		left = end - console.out_head;
		if (idle > PATIENCE)
			console.out_head = console.out_tail;
		spin_unlock(&console.lock);
		cpu_relax();
	} while (left && left <= OUT_BYTES && idle <= PATIENCE);
}
