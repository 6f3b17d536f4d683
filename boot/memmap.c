#include "memmap.h"

/* EFI_MEMORY_TYPE (UEFI table 7.10) and attributes. */
enum efi_type {
	EFI_TYPE_RESERVED,
	EFI_TYPE_LOADER_CODE,
	EFI_TYPE_LOADER_DATA,
	EFI_TYPE_BOOT_CODE,
	EFI_TYPE_BOOT_DATA,
	EFI_TYPE_RUNTIME_CODE,
	EFI_TYPE_RUNTIME_DATA,
	EFI_TYPE_CONVENTIONAL,
	EFI_TYPE_UNUSABLE,
	EFI_TYPE_ACPI_RECLAIM,
	EFI_TYPE_ACPI_NVS,
	EFI_TYPE_MMIO,
	EFI_TYPE_MMIO_PORTS,
	EFI_TYPE_PAL,
	EFI_TYPE_PERSISTENT,
};
#define EFI_ATTR_WB BIT64(3)  /* may be cached write-back */
#define EFI_ATTR_SP BIT64(18) /* specific-purpose: set aside for somebody's use */

static u32 type_of(const struct memmap_descriptor *d)
{
	switch (d->type) {
	case EFI_TYPE_LOADER_CODE:
	case EFI_TYPE_LOADER_DATA:
	case EFI_TYPE_BOOT_CODE:
	case EFI_TYPE_BOOT_DATA:
	case EFI_TYPE_CONVENTIONAL:
		if (!(d->attribute & EFI_ATTR_WB) || (d->attribute & EFI_ATTR_SP))
			return BOOT_MEM_RESERVED;
		return BOOT_MEM_USABLE;
	case EFI_TYPE_UNUSABLE:
		return BOOT_MEM_UNUSABLE;
	case EFI_TYPE_ACPI_RECLAIM:
		return BOOT_MEM_ACPI;
	case EFI_TYPE_ACPI_NVS:
		return BOOT_MEM_NVS;
	case EFI_TYPE_MMIO:
	case EFI_TYPE_MMIO_PORTS:
		return BOOT_MEM_MMIO;
	case EFI_TYPE_PERSISTENT:
		return BOOT_MEM_PERSISTENT;
	default:
		return BOOT_MEM_RESERVED;
	}
}

/* Who wins where two claims overlap: the higher. */
static unsigned int rank(u32 type)
{
	static const u8 order[] = {
		[BOOT_MEM_USABLE] = 0,	 [BOOT_MEM_ACPI] = 1,	  [BOOT_MEM_PERSISTENT] = 2,
		[BOOT_MEM_NVS] = 3,	 [BOOT_MEM_RESERVED] = 4, [BOOT_MEM_MMIO] = 5,
		[BOOT_MEM_UNUSABLE] = 6, [BOOT_MEM_UMBRA] = 7,
	};

	return order[type];
}

static u64 end_of(const struct boot_range *r)
{
	return r->base + r->bytes;
}

/* The pieces of one overlay, in order, appended to a fresh list and merged as they come. */
struct list {
	struct boot_range *range;
	u32 count, max;
	bool full;
};

static void append(struct list *l, u64 base, u64 end, u32 type)
{
	struct boot_range *last = l->count ? &l->range[l->count - 1] : NULL;

	if (base >= end)
		return;
	if (last && last->type == type && end_of(last) == base) {
		last->bytes += end - base;
	} else if (l->count == l->max) {
		l->full = true;
	} else {
		l->range[l->count++] = (struct boot_range){base, end - base, type, 0};
	}
}

static int overlay(struct memmap *map, u64 base, u64 end, u32 type)
{
	static struct boot_range scratch[BOOT_MAX_MEMORY];
	struct list out = {.range = scratch, .max = MIN(map->max, (u32)BOOT_MAX_MEMORY)};
	u64 done = base; /* of the new range, what lies below is placed */
	u32 i;

	for (i = 0; i < map->count; i++) {
		const struct boot_range *r = &map->range[i];

		if (end_of(r) <= base || r->base >= end) {
			if (r->base >= end) {
				append(&out, done, end, type);
				done = end;
			}
			append(&out, r->base, end_of(r), r->type);
			continue;
		}
		append(&out, r->base, base, r->type);
		append(&out, done, r->base, type);
		append(&out, MAX(base, r->base), MIN(end, end_of(r)),
		       rank(type) > rank(r->type) ? type : r->type);
		append(&out, end, end_of(r), r->type);
		done = MIN(end, end_of(r));
	}
	append(&out, done, end, type);
	if (out.full)
		return ERR_NOMEM;
	for (i = 0; i < out.count; i++)
		map->range[i] = scratch[i];
	map->count = out.count;
	return 0;
}

int memmap_add(struct memmap *map, u64 base, u64 bytes, u32 type)
{
	struct list tail = {.range = map->range, .count = map->count, .max = map->max};
	u64 end = base + bytes;

	if (end < base || end > ALIGN_DOWN(~0ull, PAGE_SIZE))
		return ERR_INVAL;
	if (type == BOOT_MEM_USABLE) {
		base = ALIGN_UP(base, PAGE_SIZE);
		end = ALIGN_DOWN(end, PAGE_SIZE);
	} else {
		base = ALIGN_DOWN(base, PAGE_SIZE);
		end = ALIGN_UP(end, PAGE_SIZE);
	}
	if (base >= end)
		return 0;
	if (map->count && base < end_of(&map->range[map->count - 1]))
		return overlay(map, base, end, type);
	/* The firmware's maps are nearly always sorted. */
	append(&tail, base, end, type);
	map->count = tail.count;
	return tail.full ? ERR_NOMEM : 0;
}

int memmap_add_firmware(struct memmap *map, const void *descriptors, size_t bytes, size_t stride)
{
	size_t at;
	int err;

	if (stride < sizeof(struct memmap_descriptor))
		return ERR_INVAL;
	for (at = 0; at + sizeof(struct memmap_descriptor) <= bytes; at += stride) {
		const void *p = (const u8 *)descriptors + at;
		const struct memmap_descriptor *d = p;

		if (d->pages > ~0ull >> PAGE_SHIFT)
			return ERR_INVAL;
		err = memmap_add(map, d->physical, d->pages << PAGE_SHIFT, type_of(d));
		if (err)
			return err;
	}
	return 0;
}

u64 memmap_sum(const struct memmap *map, u32 type)
{
	u64 sum = 0;
	u32 i;

	for (i = 0; i < map->count; i++)
		if (map->range[i].type == type)
			sum += map->range[i].bytes;
	return sum;
}

u64 memmap_largest(const struct memmap *map, u32 type)
{
	u64 most = 0;
	u32 i;

	for (i = 0; i < map->count; i++)
		if (map->range[i].type == type)
			most = MAX(most, map->range[i].bytes);
	return most;
}

u64 memmap_top(const struct memmap *map)
{
	u64 top = 0;
	u32 i;

	for (i = 0; i < map->count; i++)
		if (map->range[i].type != BOOT_MEM_MMIO && map->range[i].type != BOOT_MEM_RESERVED)
			top = MAX(top, end_of(&map->range[i]));
	return top;
}
