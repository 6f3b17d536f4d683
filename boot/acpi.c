#include "acpi.h"

#define TABLE_HEADER	36 /* bytes of the common header */
#define TABLE_MAX	(1024 * 1024)
#define MADT_FIRST	44 /* its first entry */
#define MADT_LOCAL_APIC 0
#define MADT_X2APIC	9
#define MADT_ENABLED	1
#define RSDP_BYTES	20 /* of revision 0, and what its checksum covers */
#define RSDP_BYTES_2	36

/* Fields of tables have any alignment. */
static u64 field(const u8 *p, unsigned int bytes)
{
	u64 v = 0;

	while (bytes--)
		v = v << 8 | p[bytes];
	return v;
}

static bool sums_to_zero(const u8 *p, size_t bytes)
{
	u8 sum = 0;

	while (bytes--)
		sum = (u8)(sum + *p++);
	return !sum;
}

static bool same(const u8 *p, const char *s, size_t n)
{
	while (n--)
		if (p[n] != (u8)s[n])
			return false;
	return true;
}

/* A whole table with this signature and a right checksum, or NULL. */
static const u8 *table_at(u64 address, const char *signature, size_t *bytes, acpi_map_fn map)
{
	const u8 *p = address ? map(address, TABLE_HEADER) : NULL;

	if (!p || !same(p, signature, 4))
		return NULL;
	*bytes = field(p + 4, 4);
	if (*bytes < TABLE_HEADER || *bytes > TABLE_MAX)
		return NULL;
	p = map(address, *bytes);
	return p && sums_to_zero(p, *bytes) ? p : NULL;
}

u64 acpi_find(u64 rsdp, const char *signature, acpi_map_fn map)
{
	const u8 *p = rsdp ? map(rsdp, RSDP_BYTES) : NULL, *root = NULL, *t;
	unsigned int width = 4;
	size_t bytes, i;
	u64 address;

	if (!p || !same(p, "RSD PTR ", 8) || !sums_to_zero(p, RSDP_BYTES))
		return 0;
	if (p[15] >= 2) {
		t = map(rsdp, RSDP_BYTES_2);
		root = t ? table_at(field(t + 24, 8), "XSDT", &bytes, map) : NULL;
		width = 8;
	}
	if (!root) {
		root = table_at(field(p + 16, 4), "RSDT", &bytes, map);
		width = 4;
	}
	if (!root)
		return 0;
	for (i = TABLE_HEADER; i + width <= bytes; i += width) {
		address = field(root + i, width);
		t = address ? map(address, TABLE_HEADER) : NULL;
		if (t && same(t, signature, 4))
			return address;
	}
	return 0;
}

u32 acpi_cpus(u64 madt, struct boot_cpu *cpus, acpi_map_fn map)
{
	size_t bytes, i;
	const u8 *p = table_at(madt, "APIC", &bytes, map);
	u32 count = 0;

	if (!p)
		return 0;
	for (i = MADT_FIRST; i + 2 <= bytes; i += p[i + 1]) {
		u8 type = p[i], len = p[i + 1];
		u32 id, flags;

		if (len < 2 || len > bytes - i)
			return 0;
		if (type == MADT_LOCAL_APIC && len >= 8) {
			id = p[i + 3];
			flags = (u32)field(p + i + 4, 4);
		} else if (type == MADT_X2APIC && len >= 16) {
			id = (u32)field(p + i + 4, 4);
			flags = (u32)field(p + i + 8, 4);
		} else {
			continue;
		}
		if (!(flags & MADT_ENABLED))
			continue;
		if (count < BOOT_MAX_CPUS)
			cpus[count] = (struct boot_cpu){.apic_id = id};
		count++;
	}
	return count;
}
