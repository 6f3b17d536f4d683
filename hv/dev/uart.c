/* A 16550A: see uart.h. Register and table numbers are of the PC16550D data sheet. */
#include "dev/uart.h"

#define IER_RDI	  BIT(0) /* received data available */
#define IER_THRI  BIT(1) /* transmitter holding register empty */
#define IER_RLSI  BIT(2) /* receiver line status */
#define IER_MSI	  BIT(3) /* modem status */
#define FCR_ON	  BIT(0)
#define FCR_RESET BIT(1) /* receive FIFO */
#define LCR_DLAB  BIT(7)
#define LCR_BREAK BIT(6)
#define MCR_DTR	  BIT(0)
#define MCR_RTS	  BIT(1)
#define MCR_OUT1  BIT(2)
#define MCR_OUT2  BIT(3)
#define MCR_LOOP  BIT(4)
#define LSR_DR	  BIT(0)
#define LSR_OE	  BIT(1)
#define LSR_BI	  BIT(4)
#define LSR_EMPTY (BIT(5) | BIT(6)) /* THRE and TEMT */
#define MSR_CTS	  BIT(4)
#define MSR_DSR	  BIT(5)
#define MSR_RI	  BIT(6)
#define MSR_DCD	  BIT(7)

/* Table IV: interrupt identification, highest priority first. */
enum {
	IIR_NONE = 1,
	IIR_STATUS = 6,
	IIR_DATA = 4,
	IIR_TIMEOUT = 12,
	IIR_THRE = 2,
	IIR_MODEM = 0
};

static const u8 triggers[4] = {1, 4, 8, 14};

static bool fifo_on(const struct vuart *u)
{
	return u->fcr & FCR_ON;
}

static unsigned int capacity(const struct vuart *u)
{
	return fifo_on(u) ? VUART_FIFO : 1;
}

static u8 source(const struct vuart *u)
{
	if ((u->ier & IER_RLSI) && u->errors)
		return IIR_STATUS;
	if ((u->ier & IER_RDI) && u->rx_count) {
		bool below = fifo_on(u) && u->rx_count < triggers[u->fcr >> 6];

		return below ? IIR_TIMEOUT : IIR_DATA;
	}
	if ((u->ier & IER_THRI) && u->thr_irq)
		return IIR_THRE;
	if ((u->ier & IER_MSI) && (u->msr & 0x0f))
		return IIR_MODEM;
	return IIR_NONE;
}

bool vuart_irq(struct vuart *u, bool *dropped)
{
	*dropped = u->irq_drop;
	u->irq_drop = false;
	return source(u) != IIR_NONE;
}

/* The modem inputs: a terminal that is always ready, or our own outputs in loopback. */
static void update_modem(struct vuart *u)
{
	u8 lines = MSR_CTS | MSR_DSR | MSR_DCD, changed;

	if (u->mcr & MCR_LOOP)
		lines = (u->mcr & MCR_RTS ? MSR_CTS : 0) | (u->mcr & MCR_DTR ? MSR_DSR : 0) |
			(u->mcr & MCR_OUT1 ? MSR_RI : 0) | (u->mcr & MCR_OUT2 ? MSR_DCD : 0);
	changed = (u->msr ^ lines) & 0xf0;
	if (lines & MSR_RI)
		changed &= (u8)~MSR_RI; /* TERI is the trailing edge only */
	u->msr = lines | (u->msr & 0x0f) | changed >> 4;
}

void vuart_reset(struct vuart *u)
{
	*u = (struct vuart){.thr_irq = true, .dll = 1};
	update_modem(u);
	u->msr &= 0xf0;
}

static void receive(struct vuart *u, u8 byte)
{
	unsigned int room = capacity(u);

	if (u->rx_count >= room) {
		u->errors |= LSR_OE;
		if (fifo_on(u))
			return;	 /* the shift register's byte is lost, the FIFO stays */
		u->rx_count = 0; /* the holding register is overwritten */
	}
	u->rx[(u->rx_head + u->rx_count++) % VUART_FIFO] = byte;
}

void vuart_rx(struct vuart *u, u8 byte)
{
	if (!(u->mcr & MCR_LOOP))
		receive(u, byte);
}

unsigned int vuart_rx_room(const struct vuart *u)
{
	return u->mcr & MCR_LOOP ? 0 : capacity(u) - u->rx_count;
}

static u8 read_rbr(struct vuart *u)
{
	u8 byte = u->rx[u->rx_head];

	if (u->rx_count) {
		u->rx_head = (u->rx_head + 1) % VUART_FIFO;
		u->rx_count--;
	}
	return byte;
}

u8 vuart_read(struct vuart *u, unsigned int reg)
{
	u8 v;

	switch (reg) {
	case 0:
		return u->lcr & LCR_DLAB ? u->dll : read_rbr(u);
	case 1:
		return u->lcr & LCR_DLAB ? u->dlm : u->ier;
	case 2:
		v = source(u);
		if (v == IIR_THRE) /* reading it as the source is what resets it */
			u->thr_irq = false;
		return v | (fifo_on(u) ? 0xc0 : 0);
	case 3:
		return u->lcr;
	case 4:
		return u->mcr;
	case 5:
		v = u->errors | LSR_EMPTY | (u->rx_count ? LSR_DR : 0);
		u->errors = 0;
		return v;
	case 6:
		v = u->msr;
		u->msr &= 0xf0;
		return v;
	default:
		return u->scr;
	}
}

static int write_thr(struct vuart *u, u8 byte)
{
	/* THR was full for a moment: the THRE interrupt goes away and comes back. */
	u->thr_irq = true;
	u->irq_drop = true;
	if (!(u->mcr & MCR_LOOP))
		return byte;
	receive(u, byte);
	return -1;
}

static void write_ier(struct vuart *u, u8 value)
{
	/* THR is empty: enabling its interrupt raises it. */
	if ((value & IER_THRI) && !(u->ier & IER_THRI))
		u->thr_irq = true;
	u->ier = value & 0x0f;
}

static void write_fcr(struct vuart *u, u8 value)
{
	/* Changing the FIFO mode resets the FIFOs; other bits count only with FCR0 set. */
	if (((value ^ u->fcr) & FCR_ON) || (value & (FCR_ON | FCR_RESET)) == (FCR_ON | FCR_RESET))
		u->rx_count = u->rx_head = 0;
	u->fcr = value & FCR_ON ? value & 0xc9 : 0;
}

static void write_lcr(struct vuart *u, u8 value)
{
	/* A break that comes back in loopback: one null character with BI. */
	if ((value & LCR_BREAK) && !(u->lcr & LCR_BREAK) && (u->mcr & MCR_LOOP)) {
		receive(u, 0);
		u->errors |= LSR_BI;
	}
	u->lcr = value;
}

int vuart_write(struct vuart *u, unsigned int reg, u8 value)
{
	switch (reg) {
	case 0:
		if (!(u->lcr & LCR_DLAB))
			return write_thr(u, value);
		u->dll = value;
		break;
	case 1:
		if (u->lcr & LCR_DLAB)
			u->dlm = value;
		else
			write_ier(u, value);
		break;
	case 2:
		write_fcr(u, value);
		break;
	case 3:
		write_lcr(u, value);
		break;
	case 4:
		u->mcr = value & 0x1f;
		update_modem(u);
		break;
	case 7:
		u->scr = value;
		break;
	default: /* LSR and MSR are read-only */
		break;
	}
	return -1;
}
