#include "x86/uart.h"

#include "lib/log.h"
#include "lib/spinlock.h"
#include "lib/string.h"
#include "x86/asm.h"

/* Registers of the 16550 (National Semiconductor PC16550D data sheet, table II). */
enum {
	RBR_THR = 0,
	IER = 1,
	FCR = 2,
	LCR = 3,
	MCR = 4,
	LSR = 5,
	SCR = 7
};
#define LCR_8N1		 0x03
#define LCR_DLAB	 0x80
#define FCR_ON		 0x07 /* enable, clear both FIFOs */
#define MCR_DTR_RTS_OUT2 0x0b
#define MCR_LOOP	 0x10
#define LSR_DR		 0x01
#define LSR_THRE	 0x20
#define LSR_TEMT	 0x40

#define FIFO_BYTES 16
#define MAX_PORTS  4
/* Reads of LSR before a UART counts as stuck: a full FIFO takes 1.4 ms at 115200 baud. */
#define PATIENCE 1000000u

struct uart {
	u16 port;
	bool stuck;	      /* never ready to send: bytes are dropped from then on */
	u32 busy;	      /* times in a row that it was not ready */
	struct spinlock lock; /* two CPUs must not both fill the FIFO they found empty */
};

static struct uart uarts[MAX_PORTS];
static unsigned int uart_count;
static u16 log_port;

static struct uart *find(u16 port)
{
	for (unsigned int i = 0; i < uart_count; i++)
		if (uarts[i].port == port)
			return &uarts[i];
	return NULL;
}

static bool wait_lsr(u16 port, u8 bits)
{
	for (u32 i = 0; i < PATIENCE; i++) {
		if ((inb(port + LSR) & bits) == bits)
			return true;
		cpu_relax();
	}
	return false;
}

static bool answers(u16 port)
{
	bool ok = true;

	for (unsigned int i = 0; i < 2; i++) {
		u8 pattern = i ? 0x55 : 0xaa;

		outb(port + SCR, pattern);
		ok = ok && inb(port + SCR) == pattern;
	}
	if (!ok)
		return false;
	outb(port + LCR, LCR_DLAB);
	outb(port + RBR_THR, 1); /* divisor 1: 115200 baud */
	outb(port + IER, 0);
	outb(port + LCR, LCR_8N1);
	outb(port + IER, 0);
	outb(port + FCR, FCR_ON);
	outb(port + MCR, MCR_LOOP);
	outb(port + RBR_THR, 0x5a);
	ok = wait_lsr(port, LSR_DR) && inb(port + RBR_THR) == 0x5a;
	outb(port + MCR, MCR_DTR_RTS_OUT2);
	outb(port + FCR, FCR_ON);
	return ok;
}

bool uart_init(u16 port)
{
	if (!port)
		return false;
	if (find(port))
		return true;
	if (uart_count == MAX_PORTS || !answers(port))
		return false;
	uarts[uart_count].port = port;
	__atomic_store_n(&uart_count, uart_count + 1, __ATOMIC_RELEASE);
	return true;
}

static size_t fill_fifo(u16 port, const u8 *buf, size_t len)
{
	len = MIN(len, FIFO_BYTES);
	for (size_t i = 0; i < len; i++)
		outb(port + RBR_THR, buf[i]);
	return len;
}

size_t uart_write_some(u16 port, const u8 *buf, size_t len)
{
	struct uart *u = find(port);
	size_t n = 0;

	if (!u || u->stuck)
		return len;
	if (!spin_trylock(&u->lock))
		return 0;
	if (inb(port + LSR) & LSR_THRE) {
		n = fill_fifo(port, buf, len);
		u->busy = 0;
	} else if (++u->busy == PATIENCE) {
		u->stuck = true;
	}
	spin_unlock(&u->lock);
	return n;
}

void uart_write(u16 port, const char *buf, size_t len)
{
	struct uart *u = find(port);

	if (!u || u->stuck)
		return;
	spin_lock(&u->lock);
	while (len && !u->stuck) {
		size_t n;

		if (!wait_lsr(port, LSR_THRE)) {
			u->stuck = true;
			break;
		}
		n = fill_fifo(port, (const u8 *)buf, len);
		buf += n;
		len -= n;
	}
	spin_unlock(&u->lock);
}

int uart_read(u16 port)
{
	if (!find(port) || !(inb(port + LSR) & LSR_DR))
		return -1;
	return inb(port + RBR_THR);
}

void uart_drain(void)
{
	for (unsigned int i = 0; i < uart_count; i++)
		if (!uarts[i].stuck)
			wait_lsr(uarts[i].port, LSR_THRE | LSR_TEMT);
}

void uart_break_locks(void)
{
	for (unsigned int i = 0; i < uart_count; i++)
		uarts[i].lock = (struct spinlock){0, 0};
}

static void log_sink(const char *line, size_t len)
{
	/* One write, so that a guest's console on the same port does not come between. */
	static char text[600];

	len = MIN(len, sizeof(text) - 2);
	memcpy(text, line, len);
	memcpy(text + len, "\r\n", 2);
	uart_write(log_port, text, len + 2);
}

bool uart_log(u16 port)
{
	if (!uart_init(port))
		return false;
	log_port = port;
	log_add_sink(log_sink);
	log_set_data_sink(log_sink);
	return true;
}
