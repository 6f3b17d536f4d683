/* Page allocations and the memory map. */
#include "loader.h"
#include "memmap.h"

/* Hypervisor, its file, hand-over, trampoline, configuration, map; kernels, modules, disks. */
#define MAX_BLOCKS (16 + BOOT_MAX_VMS * (1 + BOOT_MAX_MODULES + BOOT_MAX_DISKS))

static struct block {
	u64 base, pages;
	enum lifetime lifetime;
} blocks[MAX_BLOCKS];
static u32 block_count;

static u64 pages_of(u64 bytes)
{
	return bytes / PAGE_SIZE + !IS_ALIGNED(bytes, PAGE_SIZE);
}

static void *adopt(u64 base, u64 pages, enum lifetime lifetime)
{
	blocks[block_count++] = (struct block){base, pages, lifetime};
	return (void *)(uintptr_t)base;
}

void *memory_alloc(u64 bytes, u64 limit, enum lifetime lifetime)
{
	EFI_PHYSICAL_ADDRESS base = limit;
	u64 pages = pages_of(bytes);

	if (block_count == MAX_BLOCKS)
		return NULL;
	if (EFI_ERROR(bs->AllocatePages(limit == ANYWHERE ? AllocateAnyPages : AllocateMaxAddress,
					EfiLoaderData, pages, &base)))
		return NULL;
	return adopt(base, pages, lifetime);
}

void *memory_alloc_2m(u64 bytes, enum lifetime lifetime)
{
	u64 pages = pages_of(bytes), spare = SIZE_2M / PAGE_SIZE - 1, aligned;
	EFI_PHYSICAL_ADDRESS base = BELOW_4G;

	if (block_count == MAX_BLOCKS)
		return NULL;
	if (EFI_ERROR(bs->AllocatePages(AllocateMaxAddress, EfiLoaderData, pages + spare, &base)))
		return NULL;
	aligned = ALIGN_UP(base, SIZE_2M);
	if (aligned != base)
		bs->FreePages(base, (aligned - base) >> PAGE_SHIFT);
	spare -= (aligned - base) >> PAGE_SHIFT;
	if (spare)
		bs->FreePages(aligned + (pages << PAGE_SHIFT), spare);
	return adopt(aligned, pages, lifetime);
}

void memory_release(void)
{
	while (block_count) {
		block_count--;
		bs->FreePages(blocks[block_count].base, blocks[block_count].pages);
	}
}

/* The firmware's own map; the buffer has room for what our allocations and its own may add. */
static EFI_STATUS firmware_map(void **map, UINTN *bytes, UINTN *key, UINTN *stride)
{
	static void *buffer;
	static UINTN room;
	EFI_STATUS status;
	UINT32 version;

	*bytes = 0;
	if (!buffer) {
		status = bs->GetMemoryMap(bytes, NULL, key, stride, &version);
		if (status != EFI_BUFFER_TOO_SMALL)
			return status;
		room = ALIGN_UP(*bytes + 64 * *stride, PAGE_SIZE);
		buffer = memory_alloc(room, ANYWHERE, TEMPORARY);
		if (!buffer)
			return EFI_OUT_OF_RESOURCES;
	}
	*bytes = room;
	*map = buffer;
	return bs->GetMemoryMap(bytes, buffer, key, stride, &version);
}

EFI_STATUS memory_map(struct boot_info *info, UINTN *key)
{
	struct memmap map = {.range = info->memory, .max = BOOT_MAX_MEMORY};
	UINTN bytes, stride;
	EFI_STATUS status;
	void *firmware;
	u32 i;

	status = firmware_map(&firmware, &bytes, key, &stride);
	if (EFI_ERROR(status))
		return status;
	if (memmap_add_firmware(&map, firmware, bytes, stride))
		return EFI_BUFFER_TOO_SMALL;
	for (i = 0; i < block_count; i++)
		if (blocks[i].lifetime == KEPT &&
		    memmap_add(&map, blocks[i].base, blocks[i].pages << PAGE_SHIFT, BOOT_MEM_UMBRA))
			return EFI_BUFFER_TOO_SMALL;
	info->memory_count = map.count;
	return EFI_SUCCESS;
}

/* What can still be allocated, as opposed to what will be usable after the hand-over. */
static u64 largest_free(void)
{
	UINTN bytes, key, stride, at;
	const EFI_MEMORY_DESCRIPTOR *d;
	u64 most = 0;
	void *map;

	if (EFI_ERROR(firmware_map(&map, &bytes, &key, &stride)))
		return 0;
	for (at = 0; at < bytes; at += stride) {
		d = (const void *)((const u8 *)map + at);
		if (d->Type == EfiConventionalMemory)
			most = MAX(most, d->NumberOfPages << PAGE_SHIFT);
	}
	return most;
}

void memory_short(const char *what, u64 bytes)
{
	problem("not enough memory for %s: %llu KiB are wanted, the largest free block has %llu "
		"KiB",
		what, (bytes + KIB - 1) / KIB, largest_free() / KIB);
}
