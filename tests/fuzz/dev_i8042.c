/* The keyboard controller and the PCI configuration ports under random accesses. */
#include <stddef.h>
#include <stdint.h>

#include "dev/i8042.h"
#include "dev/pci.h"
#include "lib/panic.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const u16 ports[4] = {0x60, 0x64, 0x92, 0xcf9};
	static const unsigned int sizes[4] = {1, 2, 4, 4};
	struct pci pci = {0};
	struct i8042 k;

	i8042_reset(&k);
	for (size_t i = 0; i + 1 < size; i += 2) {
		u16 port = ports[data[i] & 3];

		if (data[i] & 0x80)
			i8042_write(&k, port, data[i + 1]);
		else
			i8042_read(&k, port);
		ASSERT(!i8042_irq(&k) || (i8042_read(&k, 0x64) & 1));
		ASSERT((k.status & 0x14) == 0x14); /* SYS and the key lock never change */
		if (data[i] & 0x40)
			pci_write(&pci, 0xcf8 + (data[i] >> 2 & 7), sizes[data[i] & 3],
				  data[i + 1] * 0x01010101u);
		else if (data[i] & 4)
			ASSERT(pci_read(&pci, 0xcfc + (data[i] & 3), 1) == 0xff);
		ASSERT(!(pci.address & 0x7f000003));
	}
	return 0;
}
