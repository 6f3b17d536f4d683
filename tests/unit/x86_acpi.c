/* Looking up ACPI tables: good ones, and each way in which firmware can be wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "acpi_memory.h"
#include "x86/acpi.h"
#include "x86/paging.h"

#define MEMORY (4 * MIB)
#define RSDP   0x1000
#define XSDT   0x2000
#define RSDT   0x3000
#define FADT   0x4000
#define HPET   0x5000

void *paging_map_mmio(hpa_t base, u64 bytes, enum paging_type type)
{
	assert_int_equal(type, PAGING_WB);
	assert_true(base.v < MEMORY && bytes <= MEMORY - base.v);
	return phys_to_ptr(base);
}

static int setup(void **state)
{
	host_memory_init(MEMORY);
	put_table(FADT, "FACP", 244);
	put_table(HPET, "HPET", 56);
	put_pointer(XSDT + 36, FADT, 8);
	put_pointer(XSDT + 44, HPET, 8);
	put_table(XSDT, "XSDT", 52);
	put_pointer(RSDT + 36, FADT, 4);
	put_table(RSDT, "RSDT", 40);
	put_rsdp(RSDP, RSDT, XSDT);
	return 0;
}

static int teardown(void **state)
{
	host_memory_release();
	return 0;
}

static void test_found(void **state)
{
	assert_ptr_equal(acpi_find(hpa(RSDP), "FACP"), at(FADT));
	assert_ptr_equal(acpi_find(hpa(RSDP), "HPET"), at(HPET));
	assert_null(acpi_find(hpa(RSDP), "MCFG"));
	assert_null(acpi_find(hpa(0), "FACP"));
}

static void test_old_root(void **state)
{
	at(RSDP)[15] = 0;
	fix_sum(RSDP, 20, 8);
	assert_ptr_equal(acpi_find(hpa(RSDP), "FACP"), at(FADT));
	assert_null(acpi_find(hpa(RSDP), "HPET")); /* only the XSDT lists it */
}

static void test_bad_rsdp(void **state)
{
	at(RSDP)[9] ^= 1;
	assert_null(acpi_find(hpa(RSDP), "FACP"));
	at(RSDP)[9] ^= 1;
	at(RSDP)[0] = 'X';
	fix_sum(RSDP, 20, 8);
	assert_null(acpi_find(hpa(RSDP), "FACP"));
}

static void test_bad_tables(void **state)
{
	at(HPET)[50] ^= 4; /* checksum of the table itself */
	assert_null(acpi_find(hpa(RSDP), "HPET"));
	assert_non_null(acpi_find(hpa(RSDP), "FACP"));
	at(XSDT)[20] ^= 4; /* of the XSDT: the RSDT serves */
	assert_non_null(acpi_find(hpa(RSDP), "FACP"));
	at(RSDT)[20] ^= 4;
	assert_null(acpi_find(hpa(RSDP), "FACP"));
}

static void test_bad_lengths(void **state)
{
	static const u32 lengths[] = {0, 8, 35, 0x100001, 0xffffffff};

	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		put_pointer(HPET + 4, lengths[i], 4);
		assert_null(acpi_find(hpa(RSDP), "HPET"));
	}
	put_pointer(XSDT + 36, 0, 8);	     /* an empty entry is passed over */
	put_table(XSDT, "XSDT", 52 - 8 + 7); /* half an entry is not read */
	assert_null(acpi_find(hpa(RSDP), "HPET"));
	assert_null(acpi_find(hpa(RSDP), "FACP"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_found, setup, teardown),
		cmocka_unit_test_setup_teardown(test_old_root, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_rsdp, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_tables, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_lengths, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
