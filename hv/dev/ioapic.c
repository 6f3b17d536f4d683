/* The I/O APIC: see ioapic.h. */
#include "dev/ioapic.h"
#include "dev/lapic.h"

#define VERSION	     (0x20 | (IOAPIC_PINS - 1) << 16)
#define REG_ID	     0x00
#define REG_VERSION  0x01
#define REG_ARB	     0x02
#define REG_REDIR    0x10
#define SELECT	     0x00
#define WINDOW	     0x10
#define EOI	     0x40
#define WRITABLE_LOW 0x1afffull /* all but delivery status and Remote IRR */

static unsigned int mode(u64 entry)
{
	return entry >> IOAPIC_MODE_SHIFT & 7;
}

/* Only fixed and lowest-priority messages can be level-triggered. */
static bool is_level(u64 entry)
{
	return (entry & IOAPIC_LEVEL) && mode(entry) <= LAPIC_DM_LOWEST;
}

static void deliver(struct ioapic *io, unsigned int pin)
{
	u64 *entry = &io->redir[pin];

	if (*entry & IOAPIC_MASKED)
		return;
	if (!is_level(*entry)) {
		ioapic_bus_send(io, *entry);
		return;
	}
	if (*entry & IOAPIC_REMOTE_IRR)
		return;
	/* Set first: the EOI may come from another CPU as soon as the message is out. */
	*entry |= IOAPIC_REMOTE_IRR;
	if (!ioapic_bus_send(io, *entry))
		*entry &= ~IOAPIC_REMOTE_IRR;
}

/* Which vectors' EOIs concern us; virtual-interrupt delivery must exit for them. */
static void update_level_vectors(struct ioapic *io)
{
	u64 now[4] = {0};
	bool changed = false;

	for (unsigned int i = 0; i < IOAPIC_PINS; i++) {
		u64 e = io->redir[i];

		if (is_level(e) && (!(e & IOAPIC_MASKED) || (e & IOAPIC_REMOTE_IRR)))
			now[(e & IOAPIC_VECTOR) / 64] |= BIT64(e % 64);
	}
	for (unsigned int i = 0; i < 4; i++) {
		changed |= now[i] != io->level_vectors[i];
		__atomic_store_n(&io->level_vectors[i], now[i], __ATOMIC_RELAXED);
	}
	if (changed)
		ioapic_level_changed(io);
}

void ioapic_reset(struct ioapic *io)
{
	*io = (struct ioapic){0};
	for (unsigned int i = 0; i < IOAPIC_PINS; i++)
		io->redir[i] = IOAPIC_MASKED;
}

static void write_redir(struct ioapic *io, unsigned int index, u32 value)
{
	unsigned int pin = index / 2;
	u64 *entry = &io->redir[pin];

	if (index & 1) {
		*entry = (*entry & 0xffffffff) | (u64)(value & 0xff000000) << 32;
		return;
	}
	*entry = (*entry & ~WRITABLE_LOW) | (value & WRITABLE_LOW);
	if (!is_level(*entry))
		*entry &= ~IOAPIC_REMOTE_IRR;
	update_level_vectors(io);
	if (is_level(*entry) && (io->lines & BIT(pin)))
		deliver(io, pin);
}

static u32 read_window(const struct ioapic *io)
{
	unsigned int index = io->select - REG_REDIR;

	switch (io->select) {
	case REG_ID:
	case REG_ARB:
		return io->id;
	case REG_VERSION:
		return VERSION;
	default:
		if (io->select < REG_REDIR || index >= 2 * IOAPIC_PINS)
			return 0;
		return (u32)(io->redir[index / 2] >> (index & 1 ? 32 : 0));
	}
}

static void write_window(struct ioapic *io, u32 value)
{
	unsigned int index = io->select - REG_REDIR;

	if (io->select == REG_ID)
		io->id = value & 0x0f000000;
	else if (io->select >= REG_REDIR && index < 2 * IOAPIC_PINS)
		write_redir(io, index, value);
}

u32 ioapic_read(struct ioapic *io, u32 offset)
{
	switch (offset) {
	case SELECT:
		return io->select;
	case WINDOW:
		return read_window(io);
	default:
		return 0;
	}
}

void ioapic_write(struct ioapic *io, u32 offset, u32 value)
{
	switch (offset) {
	case SELECT:
		io->select = (u8)value;
		break;
	case WINDOW:
		write_window(io, value);
		break;
	case EOI:
		ioapic_eoi(io, (u8)value);
		break;
	default:
		break;
	}
}

void ioapic_set_line(struct ioapic *io, unsigned int pin, bool level)
{
	u32 bit = BIT(pin);
	bool rises = level && !(io->lines & bit);

	io->lines = level ? io->lines | bit : io->lines & ~bit;
	if (level && (rises || is_level(io->redir[pin])))
		deliver(io, pin);
}

void ioapic_eoi(struct ioapic *io, u8 vector)
{
	for (unsigned int i = 0; i < IOAPIC_PINS; i++) {
		u64 *entry = &io->redir[i];

		if ((u8)*entry != vector || !(*entry & IOAPIC_REMOTE_IRR))
			continue;
		*entry &= ~IOAPIC_REMOTE_IRR;
		if (io->lines & BIT(i))
			deliver(io, i);
	}
	update_level_vectors(io);
}
