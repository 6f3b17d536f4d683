/*
 * The ACPI tables: found, walked and summed as an operating system does it. With ACPI_TABLES_DIR in
 * the environment each table is also written to a file there, for iasl (tests/test_acpi.py).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "dev/acpi_tables.h"
#include "mem/frame.h"
#include "pmem/nfit.h"
#include "pmem/nfit_layout.h"
#include "pmem/vnfit.h"
#include "vm/space.h"

static u8 ram[0x100000], before[0x100000];
static int write_error;

void *heap_alloc(u64 bytes)
{
	return calloc(1, bytes);
}

void heap_free(void *p, u64 bytes)
{
	free(p);
}

int guest_write(struct vm *vm, gpa_t to, const void *from, size_t len)
{
	assert_in_range(to.v, ACPI_TABLES_BASE, ACPI_TABLES_BASE + ACPI_TABLES_BYTES - 1);
	assert_in_range(to.v + len, ACPI_TABLES_BASE, ACPI_TABLES_BASE + ACPI_TABLES_BYTES);
	memcpy(ram + to.v, from, len);
	return write_error;
}

static u64 get(u64 at, unsigned int bytes)
{
	u64 v = 0;

	assert_in_range(at, 0, sizeof(ram) - bytes);
	memcpy(&v, ram + at, bytes);
	return v;
}

static u8 sum(u64 at, u64 bytes)
{
	u8 total = 0;

	assert_in_range(at + bytes, ACPI_TABLES_BASE, ACPI_INFO_BASE);
	for (u64 i = 0; i < bytes; i++)
		total += ram[at + i];
	return total;
}

static void install(u32 vcpus, u32 virtio)
{
	struct acpi_config config = {.vcpus = vcpus, .virtio_mmio = virtio};

	memset(ram, 0xee, sizeof(ram));
	assert_int_equal(acpi_tables_install(NULL, &config), 0);
}

static int setup(void **state)
{
	write_error = 0;
	install(2, 0);
	return 0;
}

/* A table with a standard header (5.2.6), whole and of this kind; returns its length. */
static u32 check_table(u64 at, const char *signature, u8 revision)
{
	u32 length = (u32)get(at + 4, 4);

	assert_memory_equal(ram + at, signature, 4);
	assert_in_range(length, 36, 4096);
	assert_int_equal(get(at + 8, 1), revision);
	assert_int_equal(sum(at, length), 0);
	return length;
}

static u64 rsdt(void)
{
	return get(ACPI_TABLES_BASE + 16, 4);
}

static u64 xsdt(void)
{
	return get(ACPI_TABLES_BASE + 24, 8);
}

static u64 find(const char *signature)
{
	u32 length = check_table(xsdt(), "XSDT", 1);

	for (u32 at = 36; at < length; at += 8) {
		u64 table = get(xsdt() + at, 8);

		if (!memcmp(ram + table, signature, 4))
			return table;
	}
	fail_msg("no %s", signature);
	return 0;
}

static void root(void **state)
{
	u32 wide, narrow;

	assert_memory_equal(ram + ACPI_TABLES_BASE, "RSD PTR ", 8);
	assert_int_equal(sum(ACPI_TABLES_BASE, 20), 0);
	assert_int_equal(get(ACPI_TABLES_BASE + 15, 1), 2);
	assert_int_equal(get(ACPI_TABLES_BASE + 20, 4), 36);
	assert_int_equal(sum(ACPI_TABLES_BASE, 36), 0);
	wide = check_table(xsdt(), "XSDT", 1);
	narrow = check_table(rsdt(), "RSDT", 1);
	assert_int_equal(wide - 36, 2 * (narrow - 36));
	for (u32 i = 0; i < (narrow - 36) / 4; i++)
		assert_int_equal(get(xsdt() + 36 + i * 8, 8), get(rsdt() + 36 + i * 4, 4));
}

static void check_address(u64 at, u8 bits, u8 access, u64 port)
{
	assert_int_equal(get(at, 1), 1); /* I/O space */
	assert_int_equal(get(at + 1, 1), bits);
	assert_int_equal(get(at + 2, 1), 0);
	assert_int_equal(get(at + 3, 1), access);
	assert_int_equal(get(at + 4, 8), port);
}

/* Offsets of 5.2.9. */
static void fadt(void **state)
{
	u64 f = find("FACP"), facs = get(f + 36, 4), dsdt = get(f + 40, 4);

	assert_int_equal(check_table(f, "FACP", 6), 276);
	assert_int_equal(get(f + 131, 1), 5); /* minor version */
	assert_int_equal(get(f + 46, 2), 9);  /* SCI_INT */
	assert_int_equal(get(f + 48, 4), 0);  /* SMI_CMD: always in ACPI mode */
	assert_int_equal(get(f + 56, 4), 0x600);
	assert_int_equal(get(f + 64, 4), 0x604);
	assert_int_equal(get(f + 76, 4), 0x608);
	assert_int_equal(get(f + 88, 4), 0x04000204); /* lengths: PM1 event, control, PM2, timer */
	assert_int_equal(get(f + 92, 2), 0);	      /* no general-purpose events */
	assert_true(get(f + 96, 2) > 100 && get(f + 98, 2) > 1000); /* no C2, no C3 */
	assert_int_equal(get(f + 108, 1), 0x32);
	assert_int_equal(get(f + 109, 2), 0x1d); /* legacy devices; no VGA, MSI, ASPM */
	/* WBINVD, C1, no sleep button, 32-bit timer, reset, headless; what is not set: the power
	 * button is fixed hardware, so is the RTC's status, and the model is not reduced. */
	assert_int_equal(get(f + 112, 4), 0x1525);
	check_address(f + 116, 8, 1, 0xcf9);
	assert_int_equal(get(f + 128, 1), 6);
	check_address(f + 148, 32, 2, 0x600);
	check_address(f + 172, 16, 2, 0x604);
	check_address(f + 208, 32, 3, 0x608);
	assert_memory_equal(ram + f + 268, "Umbra\0\0", 8);
	/* FACS by the one that is for addresses below 4 GiB, DSDT by both. */
	assert_int_equal(get(f + 132, 8), 0);
	assert_int_equal(get(f + 140, 8), dsdt);
	assert_memory_equal(ram + facs, "FACS", 4);
	assert_int_equal(get(facs + 4, 4), 64);
	assert_int_equal(facs % 64, 0);
	assert_int_equal(get(facs + 32, 1), 2);
	assert_in_range(facs, ACPI_TABLES_BASE, ACPI_INFO_BASE - 64);
	check_table(dsdt, "DSDT", 2);
}

static void madt(void **state)
{
	for (u32 vcpus = 1; vcpus <= 16; vcpus++) {
		u32 length, seen = 0, ioapics = 0, overrides = 0, nmis = 0;
		u64 m;

		install(vcpus, 0);
		m = find("APIC");
		length = check_table(m, "APIC", 5);
		assert_int_equal(get(m + 36, 4), 0xfee00000);
		assert_int_equal(get(m + 40, 4), 1);
		for (u64 at = m + 44; at < m + length; at += get(at + 1, 1)) {
			switch (get(at, 1)) {
			case 0: /* local APIC: processor UID, APIC ID, enabled */
				assert_int_equal(get(at + 1, 1), 8);
				assert_int_equal(get(at + 2, 1), get(at + 3, 1));
				assert_int_equal(get(at + 4, 4), 1);
				assert_in_range(get(at + 3, 1), 0, vcpus - 1);
				seen |= BIT(get(at + 3, 1));
				break;
			case 1:
				assert_int_equal(get(at, 4), 0x00000c01);
				assert_int_equal(get(at + 4, 4), 0xfec00000);
				assert_int_equal(get(at + 8, 4), 0);
				ioapics++;
				break;
			case 2: /* IRQ 0 is GSI 2; IRQ 9 is level, active high */
				assert_int_equal(get(at + 1, 2), 0x000a);
				if (get(at + 3, 1) == 0) {
					assert_int_equal(get(at + 4, 4), 2);
					assert_int_equal(get(at + 8, 2), 0);
				} else {
					assert_int_equal(get(at + 3, 1), 9);
					assert_int_equal(get(at + 4, 4), 9);
					assert_int_equal(get(at + 8, 2), 0xd);
				}
				overrides |= 1 << get(at + 3, 1);
				break;
			case 4: /* LINT1 of all */
				assert_int_equal(get(at, 6), 0x010000ff0604);
				nmis++;
				break;
			default:
				fail_msg("type %llu", (unsigned long long)get(at, 1));
			}
		}
		assert_int_equal(seen, BIT(vcpus) - 1);
		assert_int_equal(overrides, 0x201);
		assert_int_equal(ioapics, 1);
		assert_int_equal(nmis, 1);
	}
}

/* What the AML goes by; nothing else differs between VMs but the MADT. */
static void info(void **state)
{
	install(3, 0xa5);
	assert_memory_equal(ram + ACPI_INFO_BASE, "UMBR", 4);
	assert_int_equal(get(ACPI_INFO_BASE + 4, 4), 3);
	assert_int_equal(get(ACPI_INFO_BASE + 8, 4), 0xa5);
	memcpy(before, ram, sizeof(ram));
	install(3, 0);
	memcpy(before + ACPI_INFO_BASE + 8, "\0\0\0", 4);
	assert_memory_equal(ram, before, sizeof(ram));
}

static void install_nvdimms(u32 count, u32 caps)
{
	static const struct vnfit_region region[PMEM_REGIONS] = {
		{4 * GIB, 64 * MIB, true, PMEM_HINTS_BASE, 0, 0x100},
		{5 * GIB, 2 * MIB, false, PMEM_HINTS_BASE + 0x1000, 0, 0x101},
		{6 * GIB, 4 * GIB, true, PMEM_HINTS_BASE + 0x2000, 0, 0x102},
		{10 * GIB, 2 * MIB, true, PMEM_HINTS_BASE + 0x3000, 0, 0x103},
	};
	u8 parts[VNFIT_MAX];
	struct acpi_config config = {.vcpus = 2, .nvdimms = BIT(count) - 1, .nfit = parts};

	config.nfit_bytes = vnfit_build(region, count, caps, parts);
	assert_in_range(config.nfit_bytes, 1, VNFIT_MAX);
	memset(ram, 0xee, sizeof(ram));
	assert_int_equal(acpi_tables_install(NULL, &config), 0);
}

/* What a guest finds obeys all that is asked of the host's, read by the same parser. */
static void nfit(void **state)
{
	static struct nfit n;
	u16 dimm[NFIT_MAX_DIMMS];
	const char *why;
	u32 where, length;
	bool all;
	u64 t;

	for (u32 count = 1; count <= PMEM_REGIONS; count++) {
		install_nvdimms(count, ~0u);
		assert_int_equal(get(ACPI_INFO_BASE + 12, 4), BIT(count) - 1);
		t = find("NFIT");
		length = check_table(t, "NFIT", 1);
		assert_int_equal(nfit_parse(ram + t, length, &n, &why, &where), 0);
		assert_int_equal(n.ranges, count);
		assert_int_equal(n.controls, count - (count > 1));
		assert_int_equal(n.mappings, count - (count > 1));
		assert_int_equal(n.hints, (count - (count > 1)) * PMEM_HINTS);
		assert_int_equal(n.caps, NFIT_CAP_CACHE_FLUSH | NFIT_CAP_MEMORY_FLUSH);
		for (u32 i = 0; i < count; i++) {
			u32 d = i > 1 ? i - 1 : i; /* the second range has no NVDIMM */

			assert_int_equal(n.range[i].kind, i == 1 ? NFIT_VOLATILE : NFIT_PERSISTENT);
			if (i == 1) {
				assert_int_equal(nfit_range_dimms(&n, &n.range[i], dimm, &all), 0);
				continue;
			}
			assert_int_equal(n.mapping[d].bytes, n.range[i].bytes);
			assert_int_equal(n.mapping[d].ways, 1);
			assert_int_equal(n.control[d].serial, 0x55000100 + i);
			assert_int_equal(nfit_range_dimms(&n, &n.range[i], dimm, &all), 1);
			assert_true(all);
			assert_int_equal(n.dimm[dimm[0]].handle, i + 1);
			assert_int_equal(n.dimm[dimm[0]].count, PMEM_HINTS);
			assert_int_equal(n.hint[n.dimm[dimm[0]].first],
					 PMEM_HINTS_BASE + i * 0x1000);
		}
	}
	assert_int_equal(n.range[2].base, 6 * GIB);
	assert_int_equal(n.range[2].bytes, 4 * GIB);
	install_nvdimms(1, 0);
	t = find("NFIT");
	assert_int_equal(nfit_parse(ram + t, (u32)get(t + 4, 4), &n, &why, &where), 0);
	assert_true(n.has_caps);
	assert_int_equal(n.caps, 0);
	/* A VM without persistent memory has no NFIT. */
	install(2, 0);
	assert_int_equal(check_table(rsdt(), "RSDT", 1), 36 + 2 * 4);
}

static void errors(void **state)
{
	struct acpi_config config = {.vcpus = 1};

	write_error = ERR_FAULT;
	assert_int_equal(acpi_tables_install(NULL, &config), ERR_FAULT);
}

static void dump_table(const char *dir, const char *name, u64 at, u32 length)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s.dat", dir, name);
	f = fopen(path, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(ram + at, 1, length, f), length);
	assert_int_equal(fclose(f), 0);
}

static void dump(void **state)
{
	const char *dir = getenv("ACPI_TABLES_DIR");
	u64 f = find("FACP"), m;

	if (!dir)
		return;
	install(16, 0xff);
	m = find("APIC");
	install_nvdimms(PMEM_REGIONS, 3);
	dump_table(dir, "nfit", find("NFIT"), (u32)get(find("NFIT") + 4, 4));
	dump_table(dir, "rsdp", ACPI_TABLES_BASE, 36);
	dump_table(dir, "rsdt", rsdt(), (u32)get(rsdt() + 4, 4));
	dump_table(dir, "xsdt", xsdt(), (u32)get(xsdt() + 4, 4));
	dump_table(dir, "facp", f, (u32)get(f + 4, 4));
	dump_table(dir, "facs", get(f + 36, 4), 64);
	dump_table(dir, "apic", m, (u32)get(m + 4, 4));
	dump_table(dir, "dsdt", get(f + 40, 4), (u32)get(get(f + 40, 4) + 4, 4));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(root, setup), cmocka_unit_test_setup(fadt, setup),
		cmocka_unit_test_setup(madt, setup), cmocka_unit_test_setup(info, setup),
		cmocka_unit_test_setup(nfit, setup), cmocka_unit_test_setup(errors, setup),
		cmocka_unit_test_setup(dump, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
