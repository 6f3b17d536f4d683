/* ACPI's fixed hardware under random register accesses, presses of the button and time steps. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "dev/acpi_pm.h"
#include "lib/panic.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct acpi_pm pm;
	u64 now = 0;

	acpi_pm_reset(&pm);
	for (size_t i = 0; i + 5 < size; i += 6) {
		u32 offset = data[i + 1] % ACPI_PM_BYTES, value;
		unsigned int width = 1u << (data[i] >> 4) % 3;
		u64 deadline;
		bool off;

		memcpy(&value, data + i + 2, 4);
		switch (data[i] & 7) {
		case 0:
		case 1:
		case 2:
			off = acpi_pm_write(&pm, offset, width, value, now);
			/* Only by the byte of the control register that holds SLP_EN. */
			ASSERT(!off || (offset <= 5 && offset + width > 5 &&
					value >> (5 - offset) * 8 & 0x20));
			break;
		case 3:
		case 4:
			value = acpi_pm_read(&pm, offset, width, now);
			ASSERT(width == 4 || !(value >> width * 8));
			if (offset == ACPI_PM1_CONTROL)
				ASSERT(value & ACPI_PM1_SCI_EN);
			break;
		case 5:
			acpi_pm_event(&pm, ACPI_PM1_PWRBTN);
			ASSERT(acpi_pm_read(&pm, 0, 2, now) & ACPI_PM1_PWRBTN);
			break;
		default:
			now += (u64)value << (data[i] >> 4);
			break;
		}
		acpi_pm_sci(&pm, now);
		deadline = acpi_pm_deadline(&pm);
		ASSERT(deadline > now);
		/* Up to the deadline the line does not change by itself, then it does. */
		if (deadline != ACPI_PM_NEVER) {
			struct acpi_pm copy = pm;
			bool level = acpi_pm_sci(&copy, now);

			ASSERT(acpi_pm_sci(&copy, deadline - 1) == level);
			ASSERT(acpi_pm_sci(&copy, deadline));
		}
	}
	return 0;
}
