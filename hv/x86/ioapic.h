/*
 * The machine's I/O APICs (82093AA; found by the MADT, ACPI 6.5 5.2.12). Umbra uses none: what the
 * firmware left unmasked would come as interrupts that nobody expects.
 */
#pragma once

#include "lib/types.h"

/*
 * Masks every pin but those that raise SMIs, which are the firmware's. Without a MADT (rsdp may be
 * 0) nothing is touched.
 */
void ioapic_mask_all(hpa_t rsdp);
