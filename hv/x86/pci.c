#include "x86/pci.h"

#include "x86/asm.h"
#include "x86/tsc.h"

#define CONFIG_ADDRESS 0xcf8
#define CONFIG_DATA    0xcfc
#define ADDRESS_ENABLE BIT(31)

/* Type 0 and 1 headers: PCI 3.0, 6.1 and 6.2. */
#define REG_ID		 0x00
#define REG_COMMAND	 0x04
#define REG_CLASS	 0x08
#define REG_HEADER	 0x0c
#define REG_BAR(n)	 (0x10 + 4 * (n))
#define REG_CAPABILITIES 0x34

#define COMMAND_IO	     BIT(0)
#define COMMAND_MEMORY	     BIT(1)
#define COMMAND_MASTER	     BIT(2)
#define COMMAND_INTX_DISABLE BIT(10)
#define COMMAND_BITS	     0xffffu /* status, in the upper half, is cleared by ones */
#define STATUS_CAPABILITIES  BIT(20)

#define HEADER_MULTI BIT(23)
#define HEADER_TYPE  (0x7fu << 16)

#define BAR_IO		  BIT(0)
#define BAR_TYPE	  (3u << 1)
#define BAR_TYPE_64	  (2u << 1)
#define BAR_MASK_MEMORY	  (~0xfu)
#define BAR_MASK_IO	  (~0x3u)
#define BAR_IO_DECODE_MAX 0x10000ull

/* Power management interface 1.2, 3.2: capability, and its control register at +4. */
#define CAPABILITY_POWER 0x01
#define POWER_CONTROL	 4
#define POWER_STATE	 3u
/* PCI 3.0, 6.8.1: control in the upper half of the first register; data after the address. */
#define CAPABILITY_MSI	0x05
#define MSI_ADDRESS	4
#define MSI_DATA(wide)	((wide) ? 12 : 8)
#define MSI_ENABLE	BIT(16)
#define MSI_SEVERAL	(7u << 20)
#define MSI_WIDE	BIT(23)
#define MSI_TO_APIC(id) (0xfee00000u | (id) << 12) /* SDM 3A 11.11.1: physical, fixed, edge */
#define D3_TO_D0_PAUSE	(10 * 1000)		   /* microseconds */

static void select_register(const struct pci_function *f, u32 offset)
{
	outl(CONFIG_ADDRESS, ADDRESS_ENABLE | (u32)f->bus << 16 | (u32)f->device << 11 |
				     (u32)f->function << 8 | (offset & 0xfc));
}

u32 pci_config_read(const struct pci_function *f, u32 offset)
{
	select_register(f, offset);
	return inl(CONFIG_DATA);
}

void pci_config_write(const struct pci_function *f, u32 offset, u32 value)
{
	select_register(f, offset);
	outl(CONFIG_DATA, value);
}

static bool present(struct pci_function *f)
{
	u32 id = pci_config_read(f, REG_ID);

	if ((id & 0xffff) == 0xffff || !(id & 0xffff))
		return false;
	f->vendor = (u16)id;
	f->id = (u16)(id >> 16);
	f->class_code = pci_config_read(f, REG_CLASS) >> 8;
	return true;
}

/* The next place where a function may be; false behind the last one. */
static bool advance(struct pci_function *f)
{
	const struct pci_function first = {.bus = f->bus, .device = f->device};
	u32 number = (u32)f->bus << 8 | (u32)f->device << 3 | f->function;

	if (f->function == 0 && !(pci_config_read(&first, REG_HEADER) & HEADER_MULTI))
		number |= 7;
	if (number == 0xffff)
		return false;
	number++;
	*f = (struct pci_function){.bus = (u8)(number >> 8),
				   .device = (u8)(number >> 3 & 31),
				   .function = (u8)(number & 7)};
	return true;
}

bool pci_next(struct pci_function *f)
{
	if (!f->vendor && present(f))
		return true;
	while (advance(f))
		if (present(f))
			return true;
	return false;
}

/* Writes all ones to a BAR and gives back what it says then; the old value returns. */
static u32 probe(const struct pci_function *f, u32 offset, u32 old)
{
	u32 mask;

	pci_config_write(f, offset, ~0u);
	mask = pci_config_read(f, offset);
	pci_config_write(f, offset, old);
	return mask;
}

static int size_bar(const struct pci_function *f, u32 number, struct pci_bar *out)
{
	u32 offset = REG_BAR(number), low = pci_config_read(f, offset), high = 0;
	u64 mask = probe(f, offset, low);

	*out = (struct pci_bar){.io = low & BAR_IO};
	if (!mask)
		return ERR_NOENT;
	if (out->io) {
		out->base = low & BAR_MASK_IO;
		out->bytes = -(mask & BAR_MASK_IO) & (BAR_IO_DECODE_MAX - 1);
	} else {
		out->wide = (low & BAR_TYPE) == BAR_TYPE_64;
		if (out->wide && number + 1 == PCI_BARS)
			return ERR_INVAL;
		if (out->wide)
			high = pci_config_read(f, offset + 4);
		mask = out->wide ? mask | (u64)probe(f, offset + 4, high) << 32
				 : mask | 0xffffffff00000000ull;
		out->base = (u64)high << 32 | (low & BAR_MASK_MEMORY);
		out->bytes = -(mask & ~0xfull);
	}
	if (!out->bytes || (out->bytes & (out->bytes - 1)))
		return ERR_INVAL;
	return out->base ? 0 : ERR_NODEV;
}

int pci_bar(const struct pci_function *f, u32 number, struct pci_bar *out)
{
	u32 command = pci_config_read(f, REG_COMMAND) & COMMAND_BITS;
	int err;

	if (number >= PCI_BARS)
		return ERR_NOENT;
	/* A BAR of ones decodes somewhere: nobody may be listening then. */
	pci_config_write(f, REG_COMMAND, command & ~(COMMAND_IO | COMMAND_MEMORY));
	err = size_bar(f, number, out);
	pci_config_write(f, REG_COMMAND, command);
	return err;
}

/* Offset of a capability (PCI 3.0, 6.7), 0: none. A chain of more than 48 entries is a circle. */
static u32 capability(const struct pci_function *f, u8 id)
{
	u32 at, i;

	if (!(pci_config_read(f, REG_COMMAND) & STATUS_CAPABILITIES))
		return 0;
	at = pci_config_read(f, REG_CAPABILITIES) & 0xfc;
	for (i = 0; at >= 0x40 && i < 48; i++) {
		u32 header = pci_config_read(f, at);

		if ((header & 0xff) == id)
			return at;
		at = header >> 8 & 0xfc;
	}
	return 0;
}

static void wake(const struct pci_function *f)
{
	u32 power = capability(f, CAPABILITY_POWER), state;
	u64 until;

	if (!power)
		return;
	state = pci_config_read(f, power + POWER_CONTROL);
	if (!(state & POWER_STATE))
		return;
	pci_config_write(f, power + POWER_CONTROL, state & ~POWER_STATE);
	for (until = rdtsc() + tsc_from_us(D3_TO_D0_PAUSE); rdtsc() < until;)
		cpu_relax();
}

void pci_enable(const struct pci_function *f)
{
	u32 command;

	wake(f);
	command = pci_config_read(f, REG_COMMAND) & COMMAND_BITS;
	pci_config_write(f, REG_COMMAND,
			 command | COMMAND_MEMORY | COMMAND_MASTER | COMMAND_INTX_DISABLE);
}

int pci_enable_msi(const struct pci_function *f, u32 apic_id, u8 vector)
{
	u32 msi = capability(f, CAPABILITY_MSI), control;
	bool wide;

	if (apic_id > 254)
		return ERR_RANGE;
	if (!msi)
		return ERR_NOENT;
	control = pci_config_read(f, msi);
	wide = control & MSI_WIDE;
	pci_config_write(f, msi + MSI_ADDRESS, MSI_TO_APIC(apic_id));
	if (wide)
		pci_config_write(f, msi + MSI_ADDRESS + 4, 0);
	pci_config_write(f, msi + MSI_DATA(wide), vector);
	pci_config_write(f, msi, (control & ~MSI_SEVERAL) | MSI_ENABLE);
	return 0;
}

void pci_disable_dma(const struct pci_function *f)
{
	u32 command = pci_config_read(f, REG_COMMAND) & COMMAND_BITS;

	pci_config_write(f, REG_COMMAND, command & ~COMMAND_MASTER);
}
