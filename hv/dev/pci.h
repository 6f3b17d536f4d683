/*
 * PCI configuration mechanism #1 (PCI Local Bus Specification 3.0, 3.2.2.3) in front of a bus with
 * a host bridge at 0:0.0 and nothing else: kernels that find nobody at all there take the mechanism
 * for broken and say so. CONFIG_ADDRESS reads back what a 32-bit access wrote; the bridge has no
 * registers that can be written. Plain data; the caller locks.
 */
#pragma once

#include "lib/types.h"

struct pci {
	u32 address;
};

/* port 0xcf8 to 0xcff (but 0xcf9 as a byte, which is the reset register), size 1, 2 or 4. */
u32 pci_read(const struct pci *p, u16 port, unsigned int size);
void pci_write(struct pci *p, u16 port, unsigned int size, u32 value);
