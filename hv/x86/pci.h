/*
 * The machine's PCI functions by configuration mechanism #1 (PCI Local Bus Specification 3.0,
 * chapter 6 and 3.2.2.3.2), which PCI Express host bridges have too (first 256 bytes). Boot CPU
 * only, before VMs run: the two ports are one register pair for all.
 */
#pragma once

#include "lib/types.h"

struct pci_function {
	u8 bus, device, function;
	u16 vendor, id;
	u32 class_code; /* base class, subclass, programming interface: 24 bits */
};

/* Configuration space, by 32-bit registers; `offset` is a multiple of 4 below 256. */
u32 pci_config_read(const struct pci_function *f, u32 offset);
void pci_config_write(const struct pci_function *f, u32 offset, u32 value);

/*
 * The function that comes after *f in the order of bus, device and function number; the first if
 * `vendor` is 0 (as in a zeroed structure). Functions other than 0 only of devices that say they
 * have several. False: no more.
 */
bool pci_next(struct pci_function *f);

#define PCI_BARS	   6
#define PCI_CLASS_ETHERNET 0x0200 /* base class and subclass */

struct pci_bar {
	u64 base, bytes;
	bool io;   /* ports; otherwise memory */
	bool wide; /* 64 bits: it takes the next BAR's place too */
};

/*
 * Sizes BAR `number`; memory and port decoding of the function are off meanwhile. ERR_NOENT: there
 * is none; ERR_NODEV: the firmware has given it no address; ERR_INVAL: what it says is no BAR.
 */
int pci_bar(const struct pci_function *f, u32 number, struct pci_bar *out);

/*
 * Wakes the function (power state D0), switches memory decoding and bus mastering on and its INTx
 * off. The firmware's other settings stay.
 */
void pci_enable(const struct pci_function *f);
/*
 * One message-signalled interrupt (PCI 3.0, 6.8): a device's interrupt arrives as `vector` at the
 * CPU with this APIC ID. ERR_NOENT: the function cannot; ERR_RANGE: an APIC ID above 254.
 */
int pci_enable_msi(const struct pci_function *f, u32 apic_id, u8 vector);
/* No more bus mastering. */
void pci_disable_dma(const struct pci_function *f);
