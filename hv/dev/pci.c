/* An empty PCI bus: see pci.h. */
#include "dev/pci.h"

#define CONFIG_ADDRESS 0xcf8
#define WRITABLE       0x80fffffcu /* enable, bus, device, function, register */

u32 pci_read(const struct pci *p, u16 port, unsigned int size)
{
	if (port == CONFIG_ADDRESS && size == 4)
		return p->address;
	/* Nobody answers, be it a configuration cycle (master abort) or a plain I/O cycle. */
	return size == 4 ? ~0u : BIT(size * 8) - 1;
}

void pci_write(struct pci *p, u16 port, unsigned int size, u32 value)
{
	if (port == CONFIG_ADDRESS && size == 4)
		p->address = value & WRITABLE;
}
