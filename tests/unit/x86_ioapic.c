/* Masking the machine's I/O APICs: which pins of which chips, and malformed MADTs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "acpi_memory.h"
#include "lib/log.h"
#include "x86/ioapic.h"
#include "x86/paging.h"

#define MEMORY (4 * MIB)
#define RSDP   0x1000
#define XSDT   0x2000
#define MADT   0x3000
#define FIRST  0x100000 /* where the I/O APICs are */
#define SECOND 0x101000

#define MASKED 0x10000u

/* Two chips: index register, version, redirection entries. */
static struct {
	u32 select, last_pin, writes;
	u32 low[240];
	bool absent;
} chips[2];
static unsigned int maps;

void *paging_map_mmio(hpa_t base, u64 bytes, enum paging_type type)
{
	assert_true(base.v < MEMORY && bytes <= MEMORY - base.v);
	if (type == PAGING_UC)
		maps++;
	return phys_to_ptr(base);
}

void log_print(enum log_level level, const char *fmt, ...)
{
}

static u32 offset_of(const void *at, unsigned int *chip)
{
	u64 address = ptr_to_phys(at).v;

	*chip = address >= SECOND;
	address -= *chip ? SECOND : FIRST;
	assert_true(address == 0 || address == 0x10);
	return (u32)address;
}

u32 fake_read(const void *at)
{
	unsigned int chip;
	u32 index;

	assert_int_equal(offset_of(at, &chip), 0x10);
	index = chips[chip].select;
	if (chips[chip].absent)
		return ~0u;
	if (index == 1)
		return chips[chip].last_pin << 16 | 0x20;
	assert_true(index >= 0x10 && !(index & 1));
	assert_true((index - 0x10) / 2 <= chips[chip].last_pin);
	return chips[chip].low[(index - 0x10) / 2];
}

void fake_write(void *at, u32 value)
{
	unsigned int chip;

	if (offset_of(at, &chip) == 0) {
		chips[chip].select = value;
		return;
	}
	assert_true(chips[chip].select >= 0x10 && !(chips[chip].select & 1));
	chips[chip].low[(chips[chip].select - 0x10) / 2] = value;
	chips[chip].writes++;
}

static u32 put_ioapic(u32 offset, u8 length, u32 address)
{
	u8 *entry = at(MADT) + offset;

	memset(entry, 0, 12);
	entry[0] = 1;
	entry[1] = length;
	memcpy(entry + 4, &address, 4);
	return offset + length;
}

static int setup(void **state)
{
	static const u8 local[8] = {0, 8, 0, 0, 1};
	u32 end;

	host_memory_init(MEMORY);
	memset(chips, 0, sizeof(chips));
	maps = 0;
	chips[0].last_pin = 23;
	chips[1].last_pin = 119;
	memcpy(at(MADT) + 44, local, 8);
	end = put_ioapic(52, 12, FIRST);
	end = put_ioapic(end, 12, SECOND);
	put_table(MADT, "APIC", end);
	put_pointer(XSDT + 36, MADT, 8);
	put_table(XSDT, "XSDT", 44);
	put_rsdp(RSDP, 0, XSDT);
	return 0;
}

static int teardown(void **state)
{
	host_memory_release();
	return 0;
}

static void test_pins(void **state)
{
	for (u32 i = 0; i < 24; i++)
		chips[0].low[i] = i | (i % 3 ? 0 : MASKED);
	chips[0].low[5] = 0x0f00 | 5;	/* ExtINT, low active, level */
	chips[0].low[7] = 0x0200;	/* SMI */
	chips[1].low[119] = 0x8000 | 9; /* the last pin */
	ioapic_mask_all(hpa(RSDP));
	for (u32 i = 0; i < 24; i++) {
		u32 want = i == 5 ? 0x0f05 | MASKED : i == 7 ? 0x0200 : i | MASKED;

		assert_int_equal(chips[0].low[i], want);
	}
	assert_int_equal(chips[0].writes, 24 - 8 - 1);
	assert_int_equal(chips[1].low[119], 0x8009 | MASKED);
	assert_int_equal(chips[1].writes, 120);
}

static void test_absent(void **state)
{
	chips[0].absent = true;
	ioapic_mask_all(hpa(RSDP));
	assert_int_equal(chips[0].writes, 0);
	assert_int_equal(chips[1].writes, 120);
}

/* No tables, no MADT: nothing is looked for at the usual address. */
static void test_no_madt(void **state)
{
	ioapic_mask_all(hpa(0));
	put_table(MADT, "FACP", 76);
	ioapic_mask_all(hpa(RSDP));
	assert_int_equal(maps, 0);
}

static void test_malformed(void **state)
{
	/* Shorter than an I/O APIC entry is; one that the table cuts off; an entry of no length. */
	put_ioapic(52, 8, FIRST);
	put_table(MADT, "APIC", 60);
	ioapic_mask_all(hpa(RSDP));
	assert_int_equal(maps, 0);
	put_ioapic(52, 12, FIRST);
	put_table(MADT, "APIC", 62);
	ioapic_mask_all(hpa(RSDP));
	assert_int_equal(maps, 0);
	put_ioapic(52, 0, FIRST);
	put_table(MADT, "APIC", 76);
	ioapic_mask_all(hpa(RSDP));
	assert_int_equal(maps, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_pins, setup, teardown),
		cmocka_unit_test_setup_teardown(test_absent, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_madt, setup, teardown),
		cmocka_unit_test_setup_teardown(test_malformed, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
