#include "x86/ioapic.h"

#include "lib/log.h"
#include "lib/string.h"
#include "x86/acpi.h"
#include "x86/asm.h"
#include "x86/paging.h"

#define MADT_FIRST     44 /* its first entry */
#define MADT_IOAPIC    1
#define IOAPIC_ADDRESS 4 /* in the entry, 4 bytes */
#define IOAPIC_LENGTH  12

#define WINDOW_BYTES 0x20
#define WINDOW_DATA  0x10
#define REG_VERSION  1 /* 23:16: the last pin's number */
#define REG_PIN(pin) (0x10 + 2 * (pin))

#define PIN_MASKED   BIT(16)
#define PIN_MODE     (7u << 8)
#define PIN_MODE_SMI (2u << 8)

static u32 read_register(u8 *window, u32 index)
{
	mmio_write32(window, index);
	return mmio_read32(window + WINDOW_DATA);
}

static void write_register(u8 *window, u32 index, u32 value)
{
	mmio_write32(window, index);
	mmio_write32(window + WINDOW_DATA, value);
}

static void mask_pins(u32 address)
{
	u8 *window = paging_map_mmio(hpa(address), WINDOW_BYTES, PAGING_UC);
	u32 version = read_register(window, REG_VERSION), open = 0;

	if (version == ~0u) /* nothing answers */
		return;
	for (u32 pin = 0; pin <= (version >> 16 & 0xff); pin++) {
		u32 entry = read_register(window, REG_PIN(pin));

		if ((entry & PIN_MASKED) || (entry & PIN_MODE) == PIN_MODE_SMI)
			continue;
		write_register(window, REG_PIN(pin), entry | PIN_MASKED);
		open++;
	}
	if (open)
		log_info("I/O APIC at %#x: %u pins masked that the firmware had left open", address,
			 open);
}

void ioapic_mask_all(hpa_t rsdp)
{
	const struct acpi_header *madt = acpi_find(rsdp, "APIC");
	const u8 *entries = (const u8 *)madt;

	if (!madt)
		return;
	for (u32 at = MADT_FIRST; at + 2 <= madt->length && entries[at + 1] >= 2;
	     at += entries[at + 1]) {
		u32 address;

		if (entries[at] != MADT_IOAPIC || entries[at + 1] < IOAPIC_LENGTH ||
		    madt->length - at < IOAPIC_LENGTH)
			continue;
		memcpy(&address, entries + at + IOAPIC_ADDRESS, sizeof(address));
		mask_pins(address);
	}
}
