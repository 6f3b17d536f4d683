/* ACPI's fixed hardware: see acpi_pm.h. */
#include "dev/acpi_pm.h"

#define TIMER_START 0x7fc00000ull
#define HALF_SHIFT  31 /* TMR_STS is set when the highest bit changes (4.8.2.1) */

#define ENABLE_MASK  (ACPI_PM1_TMR | ACPI_PM1_GBL | ACPI_PM1_PWRBTN | ACPI_PM1_RTC)
#define CONTROL_MASK (ACPI_PM1_BM_RLD | ACPI_PM1_SLP_TYP)

static u64 count(u64 now)
{
	return now + TIMER_START;
}

static void catch_up(struct acpi_pm *pm, u64 now)
{
	u64 halves = count(now) >> HALF_SHIFT;

	if (halves == pm->halves)
		return;
	pm->halves = halves;
	pm->status |= ACPI_PM1_TMR;
}

void acpi_pm_reset(struct acpi_pm *pm)
{
	*pm = (struct acpi_pm){.halves = count(0) >> HALF_SHIFT};
}

u32 acpi_pm_read(struct acpi_pm *pm, u32 offset, unsigned int size, u64 now)
{
	u32 timer = (u32)count(now), value = 0;
	u8 bytes[ACPI_PM_BYTES];

	catch_up(pm, now);
	for (unsigned int i = 0; i < 2; i++) {
		bytes[ACPI_PM1_STATUS + i] = (u8)(pm->status >> i * 8);
		bytes[ACPI_PM1_ENABLE + i] = (u8)(pm->enable >> i * 8);
		bytes[ACPI_PM1_CONTROL + i] = (u8)((pm->control | ACPI_PM1_SCI_EN) >> i * 8);
		bytes[ACPI_PM1_CONTROL + 2 + i] = 0;
	}
	for (unsigned int i = 0; i < 4; i++)
		bytes[ACPI_PM_TIMER + i] = (u8)(timer >> i * 8);
	for (unsigned int i = 0; i < size; i++)
		value |= (u32)(offset + i < ACPI_PM_BYTES ? bytes[offset + i] : 0xff) << i * 8;
	return value;
}

/* The 16-bit register with one of its bytes replaced. */
static u16 with_byte(u16 reg, u32 offset, u8 v)
{
	unsigned int shift = (offset & 1) * 8;

	return (u16)((reg & ~(0xffu << shift)) | (u32)v << shift);
}

static bool write_byte(struct acpi_pm *pm, u32 offset, u8 v)
{
	u16 control;

	switch (offset & ~1u) {
	case ACPI_PM1_STATUS:
		pm->status &= (u16)~with_byte(0, offset, v);
		return false;
	case ACPI_PM1_ENABLE:
		pm->enable = with_byte(pm->enable, offset, v) & ENABLE_MASK;
		return false;
	case ACPI_PM1_CONTROL:
		control = with_byte(pm->control, offset, v);
		pm->control = control & CONTROL_MASK;
		/* SLP_EN is not kept: it is there only if this byte has it. */
		return (control & ACPI_PM1_SLP_EN) &&
		       (control & ACPI_PM1_SLP_TYP) == ACPI_SLP_TYP_S5 << ACPI_PM1_SLP_TYP_SHIFT;
	default: /* the timer is read-only */
		return false;
	}
}

bool acpi_pm_write(struct acpi_pm *pm, u32 offset, unsigned int size, u32 value, u64 now)
{
	bool off = false;

	catch_up(pm, now); /* what is cleared is what has happened until now */
	for (unsigned int i = 0; i < size && offset + i < ACPI_PM_BYTES; i++)
		off |= write_byte(pm, offset + i, (u8)(value >> i * 8));
	return off;
}

void acpi_pm_event(struct acpi_pm *pm, u16 status)
{
	pm->status |= status;
}

bool acpi_pm_sci(struct acpi_pm *pm, u64 now)
{
	catch_up(pm, now);
	return pm->status & pm->enable;
}

u64 acpi_pm_deadline(const struct acpi_pm *pm)
{
	if (!(pm->enable & ACPI_PM1_TMR) || (pm->status & ACPI_PM1_TMR))
		return ACPI_PM_NEVER;
	return ((pm->halves + 1) << HALF_SHIFT) - TIMER_START;
}
