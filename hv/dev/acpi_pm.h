/*
 * The fixed hardware of ACPI (ACPI specification 6.5, 4.8): power management timer, PM1a event and
 * control registers, at the ports that QEMU's PIIX4 has them at. There is no SMM and no legacy
 * mode, so SCI_EN is always 1. Plain data; the caller locks.
 *
 * Time comes in as clocks of 3.579545 MHz since power-on. The timer has 32 bits and starts about a
 * second before its highest bit changes: software that forgets the overflow is found out early.
 */
#pragma once

#include "dev/acpi_layout.h"
#include "lib/types.h"

#define ACPI_PM_HZ    3579545
#define ACPI_PM_NEVER (~0ull)

/* Offsets from ACPI_PM_BASE. */
#define ACPI_PM1_STATUS	 0 /* 16 bits, write 1 to clear */
#define ACPI_PM1_ENABLE	 2 /* 16 bits */
#define ACPI_PM1_CONTROL 4 /* 16 bits; 16 more read 0 */
#define ACPI_PM_TIMER	 8 /* 32 bits, read-only */

/* Status and enable. */
#define ACPI_PM1_TMR	BIT(0)
#define ACPI_PM1_GBL	BIT(5)
#define ACPI_PM1_PWRBTN BIT(8)
#define ACPI_PM1_RTC	BIT(10)
/* Control. */
#define ACPI_PM1_SCI_EN	       BIT(0)
#define ACPI_PM1_BM_RLD	       BIT(1)
#define ACPI_PM1_SLP_TYP_SHIFT 10
#define ACPI_PM1_SLP_TYP       (7u << ACPI_PM1_SLP_TYP_SHIFT)
#define ACPI_PM1_SLP_EN	       BIT(13)

struct acpi_pm {
	u16 status, enable, control;
	u64 halves; /* half periods of the timer that TMR_STS has taken notice of */
};

void acpi_pm_reset(struct acpi_pm *pm);
/* offset < ACPI_PM_BYTES, size 1, 2 or 4; bytes beyond the block read as ones. One moment's state.
 */
u32 acpi_pm_read(struct acpi_pm *pm, u32 offset, unsigned int size, u64 now);
/* Returns true if the write switches the machine off. Bytes beyond the block are ignored. */
bool acpi_pm_write(struct acpi_pm *pm, u32 offset, unsigned int size, u32 value, u64 now);
/* Somebody presses the power button (ACPI_PM1_PWRBTN), or the clock alarms (ACPI_PM1_RTC). */
void acpi_pm_event(struct acpi_pm *pm, u16 status);
/* Level of the SCI at this clock. */
bool acpi_pm_sci(struct acpi_pm *pm, u64 now);
/* Clock at which acpi_pm_sci() may change by itself, ACPI_PM_NEVER = not. */
u64 acpi_pm_deadline(const struct acpi_pm *pm);
