#include "x86/acpi.h"

#include "lib/string.h"
#include "x86/paging.h"

struct rsdp { /* ACPI 6.5 table 5.3 */
	char signature[8];
	u8 checksum;
	char oem_id[6];
	u8 revision;
	u32 rsdt;
	u32 length;
	u64 xsdt;
	u8 extended_checksum, reserved[3];
} __packed;
_Static_assert(sizeof(struct rsdp) == 36, "RSDP layout");
#define RSDP_V1_BYTES 20

#define TABLE_BYTES_MAX (1 * MIB)

static bool sums_to_zero(const void *p, size_t len)
{
	const u8 *b = p;
	u8 sum = 0;

	for (size_t i = 0; i < len; i++)
		sum = (u8)(sum + b[i]);
	return sum == 0;
}

static const struct acpi_header *map_table(u64 addr)
{
	const struct acpi_header *h;

	if (!addr)
		return NULL;
	h = paging_map_mmio(hpa(addr), sizeof(*h), PAGING_WB);
	if (h->length < sizeof(*h) || h->length > TABLE_BYTES_MAX)
		return NULL;
	paging_map_mmio(hpa(addr), h->length, PAGING_WB);
	return sums_to_zero(h, h->length) ? h : NULL;
}

const struct acpi_header *acpi_find(hpa_t rsdp, const char *signature)
{
	const struct acpi_header *root = NULL;
	const struct rsdp *r;
	size_t entry = 8;

	if (!rsdp.v)
		return NULL;
	r = paging_map_mmio(rsdp, sizeof(*r), PAGING_WB);
	if (memcmp(r->signature, "RSD PTR ", 8) != 0 || !sums_to_zero(r, RSDP_V1_BYTES))
		return NULL;
	if (r->revision >= 2 && sums_to_zero(r, sizeof(*r)))
		root = map_table(r->xsdt);
	if (!root) {
		root = map_table(r->rsdt);
		entry = 4;
	}
	if (!root)
		return NULL;
	for (size_t at = sizeof(*root); at + entry <= root->length; at += entry) {
		const struct acpi_header *h;
		u64 addr = 0;

		memcpy(&addr, (const u8 *)root + at, entry);
		h = map_table(addr);
		if (h && memcmp(h->signature, signature, 4) == 0)
			return h;
	}
	return NULL;
}
