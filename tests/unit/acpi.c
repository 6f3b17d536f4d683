/* Processors from an RSDP, RSDT or XSDT, and MADT built here; and from damaged ones, none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "acpi.h"

#define BASE 0x1000 /* of the arena that stands for physical memory */
#define RSDP 0x1010
#define RSDT 0x1100
#define XSDT 0x1203 /* nothing promises alignment */
#define FADT 0x1300
#define MADT 0x1401

static u8 memory[0x800];
static struct boot_cpu cpus[BOOT_MAX_CPUS];

static const void *map(u64 address, size_t bytes)
{
	if (address < BASE || bytes > sizeof(memory) || address - BASE > sizeof(memory) - bytes)
		return NULL;
	return memory + (address - BASE);
}

static void put(u64 address, u64 value, unsigned int bytes)
{
	u8 *p = memory + (address - BASE);

	while (bytes--) {
		*p++ = (u8)value;
		value >>= 8;
	}
}

/* Sets the byte at `at` so that `bytes` from `address` sum to zero. */
static void seal(u64 address, u64 bytes, u64 at)
{
	u8 sum = 0;
	u64 i;

	put(at, 0, 1);
	for (i = 0; i < bytes; i++)
		sum = (u8)(sum + memory[address - BASE + i]);
	put(at, (u8)-sum, 1);
}

static void table(u64 address, const char *signature, u64 bytes)
{
	memcpy(memory + (address - BASE), signature, 4);
	put(address + 4, bytes, 4);
	seal(address, bytes, address + 9);
}

static void madt_entry(u64 *end, u8 type, u8 len, u32 id, u32 flags)
{
	put(*end, type, 1);
	put(*end + 1, len, 1);
	if (type == 0) {
		put(*end + 2, 0x77, 1);
		put(*end + 3, id, 1);
		put(*end + 4, flags, 4);
	} else if (type == 9) {
		put(*end + 4, id, 4);
		put(*end + 8, flags, 4);
	}
	*end += len;
}

/* ACPI with a MADT of five entries, three of them enabled processors. */
static u64 build(u8 revision)
{
	u64 end = MADT + 44;

	memset(memory, 0, sizeof(memory));
	madt_entry(&end, 0, 8, 4, 1);
	madt_entry(&end, 1, 12, 0, 0); /* an I/O APIC */
	madt_entry(&end, 0, 8, 6, 0);  /* a processor that is not enabled */
	madt_entry(&end, 9, 16, 0x12345, 1);
	madt_entry(&end, 0, 8, 0xfe, 3);
	table(MADT, "APIC", end - MADT);
	table(FADT, "FACP", 36);
	put(RSDT + 36, FADT, 4);
	put(RSDT + 40, MADT, 4);
	table(RSDT, "RSDT", 44);
	put(XSDT + 36, FADT, 8);
	put(XSDT + 44, 0x123456789abc, 8); /* mapped nowhere */
	put(XSDT + 52, MADT, 8);
	table(XSDT, "XSDT", 60);
	memcpy(memory + (RSDP - BASE), "RSD PTR ", 8);
	put(RSDP + 15, revision, 1);
	put(RSDP + 16, RSDT, 4);
	put(RSDP + 24, XSDT, 8);
	seal(RSDP, 20, RSDP + 8);
	return end;
}

static void assert_three(void)
{
	memset(cpus, 0xff, sizeof(cpus));
	assert_int_equal(acpi_cpus(acpi_find(RSDP, "APIC", map), cpus, map), 3);
	assert_int_equal(cpus[0].apic_id, 4);
	assert_int_equal(cpus[1].apic_id, 0x12345);
	assert_int_equal(cpus[2].apic_id, 0xfe);
	assert_int_equal(cpus[0].flags | cpus[1].flags | cpus[2].flags, 0);
	assert_int_equal(cpus[3].apic_id, 0xffffffff);
}

static void test_find(void **state)
{
	build(0);
	assert_three();
	put(XSDT, 0, 4);
	assert_three();
	build(2);
	assert_three();
	put(RSDT, 0, 4);
	assert_three();
	build(2);
	put(XSDT, 0, 4); /* an unusable XSDT: the RSDT will do */
	assert_three();
	assert_true(acpi_find(RSDP, "FACP", map) == FADT);
	assert_true(acpi_find(RSDP, "HPET", map) == 0);
}

static void test_no_tables(void **state)
{
	build(2);
	assert_true(acpi_find(0, "APIC", map) == 0);
	assert_true(acpi_find(BASE + sizeof(memory) - 10, "APIC", map) == 0);
	assert_int_equal(acpi_cpus(0, cpus, map), 0);
	assert_int_equal(acpi_cpus(FADT, cpus, map), 0);
	memory[RSDP - BASE + 3] ^= 1;
	assert_true(acpi_find(RSDP, "APIC", map) == 0);
	build(2);
	memory[RSDP - BASE + 10] ^= 1; /* the checksum */
	assert_true(acpi_find(RSDP, "APIC", map) == 0);
	build(0);
	memory[RSDT - BASE + 41] ^= 1;
	assert_true(acpi_find(RSDP, "APIC", map) == 0);
	build(0);
	table(RSDT, "RSDT", 35);
	assert_true(acpi_find(RSDP, "APIC", map) == 0);
	table(RSDT, "RSDT", 36);
	assert_true(acpi_find(RSDP, "APIC", map) == 0);
	table(RSDT, "RSDT", 43); /* half an entry does not count */
	assert_true(acpi_find(RSDP, "APIC", map) == 0);
	put(RSDT + 4, 0xfffffff0, 4);
	assert_true(acpi_find(RSDP, "APIC", map) == 0);
}

static void test_bad_madt(void **state)
{
	u64 end = build(0);

	memory[MADT - BASE + 50] ^= 1;
	assert_int_equal(acpi_cpus(MADT, cpus, map), 0);
	build(0);
	put(MADT + 44 + 1, 0, 1); /* an entry of no length would never end */
	table(MADT, "APIC", end - MADT);
	assert_int_equal(acpi_cpus(MADT, cpus, map), 0);
	put(MADT + 44 + 1, 1, 1);
	table(MADT, "APIC", end - MADT);
	assert_int_equal(acpi_cpus(MADT, cpus, map), 0);
	build(0);
	table(MADT, "APIC", end - MADT - 1); /* the last entry is cut off */
	assert_int_equal(acpi_cpus(MADT, cpus, map), 0);
	build(0);
	put(MADT + 44 + 1, 7,
	    1); /* too short for its type: not a processor, and what follows shifts */
	table(MADT, "APIC", 44 + 7);
	assert_int_equal(acpi_cpus(MADT, cpus, map), 0);
	put(end - 8 + 1, 255, 1);
	table(MADT, "APIC", end - MADT);
	assert_int_equal(acpi_cpus(MADT, cpus, map), 0);
	table(MADT, "APIC", 44);
	assert_int_equal(acpi_cpus(MADT, cpus, map), 0);
}

static void test_many(void **state)
{
	u64 end = MADT + 44;
	u32 i;

	memset(memory, 0, sizeof(memory));
	for (i = 0; i < 70; i++)
		madt_entry(&end, 0, 8, i, 1);
	table(MADT, "APIC", end - MADT);
	assert_int_equal(acpi_cpus(MADT, cpus, map), 70);
	for (i = 0; i < BOOT_MAX_CPUS; i++)
		assert_int_equal(cpus[i].apic_id, i);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_find),
		cmocka_unit_test(test_no_tables),
		cmocka_unit_test(test_bad_madt),
		cmocka_unit_test(test_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
