/* ACPI tables as firmware leaves them in memory (ACPI 6.5, 5.2), for tests of those who read them.
 */
#pragma once

#include <string.h>

#include "host.h"
#include "lib/types.h"

static inline u8 *at(u64 addr)
{
	return phys_to_ptr(hpa(addr));
}

/* Sets the byte at `field` so that all `len` add up to 0. */
static inline void fix_sum(u64 addr, size_t len, size_t field)
{
	u8 sum = 0;

	at(addr)[field] = 0;
	for (size_t i = 0; i < len; i++)
		sum = (u8)(sum + at(addr)[i]);
	at(addr)[field] = (u8)-sum;
}

/* The header, once the body is there. */
static inline void put_table(u64 addr, const char *signature, u32 len)
{
	memcpy(at(addr), signature, 4);
	memcpy(at(addr) + 4, &len, 4);
	fix_sum(addr, len, 9);
}

static inline void put_pointer(u64 addr, u64 value, size_t size)
{
	memcpy(at(addr), &value, size);
}

/* rsdt: 0 for none. */
static inline void put_rsdp(u64 addr, u64 rsdt, u64 xsdt)
{
	memcpy(at(addr), "RSD PTR ", 8);
	at(addr)[15] = 2;
	put_pointer(addr + 16, rsdt, 4);
	put_pointer(addr + 20, 36, 4);
	put_pointer(addr + 24, xsdt, 8);
	fix_sum(addr, 20, 8);
	fix_sum(addr, 36, 32);
}
