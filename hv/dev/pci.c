/* A PCI bus with a host bridge on it: see pci.h. */
#include "dev/pci.h"

#include "lib/string.h"

#define CONFIG_ADDRESS 0xcf8
#define CONFIG_DATA    0xcfc
#define WRITABLE       0x80fffffcu /* enable, bus, device, function, register */
#define ENABLE	       BIT(31)
#define FUNCTION       0x00ffff00u
#define REGISTER       0x000000fcu

/* The header of the bridge; everything behind it reads 0 (3.0, 6.1). */
static const struct {
	u16 vendor, device, command, status;
	u8 revision, interface, subclass, class;
} bridge = {
	.vendor = 0x1b36, /* Red Hat's: a host bridge as QEMU has it, without any quirks */
	.device = 0x0008,
	.subclass = 0x00, /* host bridge */
	.class = 0x06,
};
_Static_assert(sizeof(bridge) == 12, "the first registers of a type 0 header");

static u32 config_read(u32 address)
{
	u32 at = address & REGISTER, value = 0;

	/* Nobody else answers (master abort), and no cycle is made with the enable bit clear. */
	if (!(address & ENABLE) || (address & FUNCTION))
		return ~0u;
	if (at < sizeof(bridge))
		memcpy(&value, (const u8 *)&bridge + at, sizeof(value));
	return value;
}

u32 pci_read(const struct pci *p, u16 port, unsigned int size)
{
	u32 value = ~0u;

	if (port >= CONFIG_DATA)
		value = config_read(p->address) >> (port - CONFIG_DATA) * 8;
	else if (port == CONFIG_ADDRESS && size == 4)
		value = p->address;
	/* An access that goes beyond the register finds nobody there. */
	if (port > CONFIG_DATA && port + size > CONFIG_DATA + 4)
		value |= ~0u << (CONFIG_DATA + 4 - port) * 8;
	return size == 4 ? value : value & (BIT(size * 8) - 1);
}

void pci_write(struct pci *p, u16 port, unsigned int size, u32 value)
{
	if (port == CONFIG_ADDRESS && size == 4)
		p->address = value & WRITABLE;
}
