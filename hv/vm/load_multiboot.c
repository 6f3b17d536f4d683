/*
 * Multiboot 1 (specification 0.6.96).
 *
 * Where things lie, as under QEMU: the kernel where it wants to be; behind it, each at a page
 * boundary, the modules and then the strings; the information structure and the memory map at
 * INFO_BASE, or behind the strings if the kernel itself occupies that page. The one kernel that
 * does not lie where its file says is a position-independent one at address 0, see below.
 */
#include "lib/log.h"
#include "lib/string.h"
#include "vm/load_internal.h"

#define HEADER_MAGIC	 0x1badb002u
#define BOOTLOADER_MAGIC 0x2badb002u
#define SEARCH_BYTES	 8192u
#define INFO_BASE	 0x9000ull
#define MOVED_BASE	 0x10000ull

/* Header flags (3.1.2). Bits 15:0 are requirements, bits 31:16 hints. */
#define HEADER_PAGE_ALIGN BIT(0) /* modules at page boundaries: always done */
#define HEADER_MEMORY	  BIT(1) /* memory information: always given */
#define HEADER_VIDEO	  BIT(2) /* a video mode: ignored, as QEMU does; flags give none */
#define HEADER_ADDRESSES  BIT(16)
#define HEADER_UNKNOWN	  (0xffffu & ~(HEADER_PAGE_ALIGN | HEADER_MEMORY | HEADER_VIDEO))

struct header {
	u32 magic, flags, checksum;
	u32 header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr;
};
_Static_assert(sizeof(struct header) == 32, "Multiboot header without the video part");
#define HEADER_SHORT 12u /* magic, flags, checksum */

/* Information structure (3.3). */
#define INFO_MEMORY	 BIT(0)
#define INFO_BOOT_DEVICE BIT(1)
#define INFO_CMDLINE	 BIT(2)
#define INFO_MODULES	 BIT(3)
#define INFO_MMAP	 BIT(6)
#define INFO_LOADER_NAME BIT(9)
#define NO_BOOT_DEVICE	 0x8000ffffu /* first hard disk, no partition */

struct info {
	u32 flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr;
	u32 syms[4];
	u32 mmap_length, mmap_addr, drives_length, drives_addr, config_table, boot_loader_name;
	u32 apm_table;
	u32 vbe[4];
};
_Static_assert(sizeof(struct info) == 88, "Multiboot information");

struct module {
	u32 start, end, string, reserved;
};
_Static_assert(sizeof(struct module) == 16, "Multiboot module");

struct mmap {
	u32 size; /* of the rest */
	u64 base, bytes;
	u32 type;
} __packed;
_Static_assert(sizeof(struct mmap) == 24, "Multiboot memory-map entry");

/* All that goes into the page at INFO_BASE. */
struct info_page {
	struct info info;
	struct module module[BOOT_MAX_MODULES];
	struct mmap mmap[MAP_MAX];
};
_Static_assert(sizeof(struct info_page) <= PAGE_SIZE, "the information takes one page");

s64 multiboot_find(const struct guest_image *image)
{
	u64 end = MIN(image->bytes, (u64)SEARCH_BYTES);

	for (u64 at = 0; at + HEADER_SHORT <= end; at += 4) {
		u32 h[3];

		memcpy(h, image->data + at, sizeof(h));
		if (h[0] == HEADER_MAGIC && h[0] + h[1] + h[2] == 0)
			return (s64)at;
	}
	return -1;
}

/* The form with addresses in the header ("a.out kludge", 3.1.3). */
static int load_by_addresses(struct loader *l, const struct header *h, u64 offset, u64 *entry)
{
	const struct guest_image *k = &l->req->kernel;
	u64 before = (u64)h->header_addr - h->load_addr; /* file bytes in front of the header */
	u64 start, bytes, memory;
	int err;

	if (h->load_addr > h->header_addr)
		return load_refuse(l, ERR_INVAL, "Multiboot load_addr %#x is above header_addr %#x",
				   h->load_addr, h->header_addr);
	if (before > offset)
		return load_refuse(l, ERR_INVAL,
				   "Multiboot load_addr %#x would be before the start of the file",
				   h->load_addr);
	start = offset - before;
	bytes = k->bytes - start;
	if (h->load_end_addr) {
		if (h->load_end_addr < h->load_addr)
			return load_refuse(l, ERR_INVAL,
					   "Multiboot load_end_addr %#x is below load_addr %#x",
					   h->load_end_addr, h->load_addr);
		if (h->load_end_addr - h->load_addr > bytes)
			return load_refuse(l, ERR_INVAL,
					   "Multiboot load_end_addr %#x lies behind the end of the "
					   "file (truncated?)",
					   h->load_end_addr);
		bytes = h->load_end_addr - h->load_addr;
	}
	memory = bytes;
	if (h->bss_end_addr) {
		if (h->bss_end_addr < h->load_addr + bytes)
			return load_refuse(
				l, ERR_INVAL,
				"Multiboot bss_end_addr %#x is below the end of the data",
				h->bss_end_addr);
		memory = h->bss_end_addr - h->load_addr;
	}
	err = load_write(l, h->load_addr, k->data + start, bytes, "the kernel");
	if (!err)
		err = load_zero(l, h->load_addr + bytes, memory - bytes, "the kernel's bss");
	if (err)
		return err;
	load_occupy(l, h->load_addr, memory);
	*entry = h->entry_addr;
	return 0;
}

/*
 * An address of 0 in a position-independent file is no wish but the lack of one, and memory begins
 * with the interrupt vectors and the BIOS data area. QEMU and GRUB put such an image there all the
 * same, QEMU over its own information structure. Here it goes to 64 KiB, if it is so large that
 * QEMU could not start it and there is room; a smaller one lies where it does under QEMU.
 */
static u64 move_of(const struct loader *l, const struct elf_image *elf)
{
	struct map_entry map[MAP_MAX];
	u64 low, end;

	load_memory_map(l, map);
	if (!elf->anywhere || !elf_span(elf, &low, &end) || low || end <= INFO_BASE ||
	    end > map[0].bytes - MOVED_BASE)
		return 0;
	return MOVED_BASE;
}

static int load_kernel(struct loader *l)
{
	const struct guest_image *k = &l->req->kernel;
	s64 offset = multiboot_find(k);
	struct header h = {0};
	struct elf_image elf;
	u64 entry;
	int err;

	if (offset < 0)
		return load_refuse(l, ERR_INVAL, "no Multiboot header in the first 8 KiB");
	memcpy(&h, k->data + offset, HEADER_SHORT);
	if (h.flags & HEADER_UNKNOWN)
		return load_refuse(
			l, ERR_NOSYS,
			"the Multiboot header requires features that are not known (flags "
			"%#x)",
			h.flags);
	if (h.flags & HEADER_ADDRESSES) {
		if (k->bytes - (u64)offset < sizeof(h))
			return load_refuse(l, ERR_INVAL,
					   "the file ends within the Multiboot header");
		memcpy(&h, k->data + offset, sizeof(h));
		err = load_by_addresses(l, &h, (u64)offset, &entry);
	} else {
		err = elf_open(l, &elf);
		if (!err) {
			elf.move = move_of(l, &elf);
			err = elf_load(l, &elf, &entry);
		}
	}
	if (err)
		return err;
	if (entry < l->out->kernel_base || entry >= l->out->kernel_end || entry >> 32)
		return load_refuse(l, ERR_INVAL, "the entry point %#llx is not in the kernel",
				   (unsigned long long)entry);
	l->out->entry = (u32)entry;
	return 0;
}

static int place_string(struct loader *l, const char *text, u32 *at)
{
	u64 len = strlen(text) + 1;

	/* Strings follow each other without alignment; the first one begins a page. */
	if (len > l->target->ram_low - l->next)
		return load_refuse(l, ERR_NOMEM, "no room for the command lines in guest RAM");
	*at = (u32)l->next;
	l->next += len;
	return load_write(l, *at, text, len, "a command line");
}

static int place_strings(struct loader *l, struct info_page *page)
{
	char text[BOOT_PATH_LEN + BOOT_CMDLINE_LEN];
	u64 first;
	int err;

	err = load_place(l, 0, &first, "the command line");
	if (!err)
		err = load_join(l, text, sizeof(text), l->req->kernel.name, l->req->cmdline);
	if (!err)
		err = place_string(l, text, &page->info.cmdline);
	if (!err)
		err = place_string(l, "Umbra", &page->info.boot_loader_name);
	for (u32 i = 0; i < l->req->module_count && !err; i++) {
		const struct guest_image *m = &l->req->modules[i];

		err = load_join(l, text, sizeof(text), m->name, m->args);
		if (!err)
			err = place_string(l, text, &page->module[i].string);
	}
	return err;
}

static void fill_memory(struct loader *l, struct info_page *page, u64 base)
{
	struct map_entry map[MAP_MAX];
	u32 n = load_memory_map(l, map);

	for (u32 i = 0; i < n; i++)
		page->mmap[i] = (struct mmap){.size = sizeof(struct mmap) - 4,
					      .base = map[i].base,
					      .bytes = map[i].bytes,
					      .type = map[i].type};
	page->info.mmap_addr = (u32)(base + offsetof(struct info_page, mmap));
	page->info.mmap_length = n * sizeof(struct mmap);
	page->info.mem_lower = (u32)(map[0].bytes / KIB);
	page->info.mem_upper = (u32)((l->target->ram_low - MIB) / KIB);
}

int multiboot_load(struct loader *l)
{
	struct info_page page = {
		.info.flags = INFO_MEMORY | INFO_BOOT_DEVICE | INFO_CMDLINE | INFO_MODULES |
			      INFO_MMAP | INFO_LOADER_NAME,
		.info.boot_device = NO_BOOT_DEVICE,
		.info.mods_count = l->req->module_count,
	};
	u64 module[BOOT_MAX_MODULES] = {0};
	u64 base = INFO_BASE;
	int err;

	err = load_kernel(l);
	if (!err)
		err = load_modules(l, module);
	if (!err)
		err = place_strings(l, &page);
	if (!err && l->out->kernel_base < INFO_BASE + PAGE_SIZE && l->out->kernel_end > INFO_BASE)
		err = load_place(l, sizeof(page), &base, "the Multiboot information");
	if (err)
		return err;
	for (u32 i = 0; i < l->req->module_count; i++) {
		page.module[i].start = (u32)module[i];
		page.module[i].end = (u32)(module[i] + l->req->modules[i].bytes);
	}
	page.info.mods_addr = (u32)(base + offsetof(struct info_page, module));
	fill_memory(l, &page, base);
	l->out->protocol = BOOT_PROTO_MULTIBOOT;
	l->out->eax = BOOTLOADER_MAGIC;
	l->out->ebx = (u32)base;
	return load_write(l, base, &page, sizeof(page), "the Multiboot information");
}
