/*
 * PVH: the Xen HVM direct boot ABI. The kernel is an ELF file whose note gives a 32-bit physical
 * entry point; EBX points to hvm_start_info version 1 with modules, command line and memory map.
 */
#include "lib/log.h"
#include "lib/string.h"
#include "vm/load_internal.h"

#define NOTE_NAME	  "Xen"
#define NOTE_PHYS32_ENTRY 18
#define START_MAGIC	  0x336ec578u
#define START_VERSION	  1

struct start_info {
	u32 magic, version, flags, nr_modules;
	u64 modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr;
	u32 memmap_entries, reserved;
};
_Static_assert(sizeof(struct start_info) == 56, "hvm_start_info version 1");

struct modlist_entry {
	u64 paddr, size, cmdline_paddr, reserved;
};
_Static_assert(sizeof(struct modlist_entry) == 32, "hvm_modlist_entry");

struct memmap_entry {
	u64 addr, size;
	u32 type, reserved;
};
_Static_assert(sizeof(struct memmap_entry) == 24, "hvm_memmap_table_entry");

struct start_page {
	struct start_info info;
	struct modlist_entry module[BOOT_MAX_MODULES];
	struct memmap_entry map[MAP_MAX];
};

static int load_kernel(struct loader *l)
{
	struct elf_image elf;
	u64 entry = 0, ignored;
	int found;
	int err = elf_open(l, &elf);

	if (err)
		return err;
	found = elf_find_note(l, &elf, NOTE_NAME, NOTE_PHYS32_ENTRY, &entry);
	if (found < 0)
		return found;
	if (!found)
		return load_refuse(
			l, ERR_INVAL,
			"the ELF file has neither a Multiboot header nor a PVH entry point "
			"(XEN_ELFNOTE_PHYS32_ENTRY)");
	err = elf_load(l, &elf, &ignored);
	if (err)
		return err;
	if (entry < l->out->kernel_base || entry >= l->out->kernel_end || entry >> 32)
		return load_refuse(l, ERR_INVAL, "the PVH entry point %#llx is not in the kernel",
				   (unsigned long long)entry);
	l->out->entry = (u32)entry;
	return 0;
}

static int place_string(struct loader *l, const char *text, u64 *at)
{
	return load_place_data(l, text, strlen(text) + 1, at, "a command line");
}

int pvh_load(struct loader *l)
{
	struct start_page page = {
		.info = {.magic = START_MAGIC,
			 .version = START_VERSION,
			 .nr_modules = l->req->module_count,
			 .rsdp_paddr = l->req->rsdp},
	};
	struct map_entry map[MAP_MAX];
	u64 module[BOOT_MAX_MODULES] = {0};
	u64 base;
	int err;

	err = load_kernel(l);
	if (!err)
		err = load_modules(l, module);
	if (!err)
		err = place_string(l, l->req->cmdline ? l->req->cmdline : "",
				   &page.info.cmdline_paddr);
	for (u32 i = 0; i < l->req->module_count && !err; i++) {
		const struct guest_image *m = &l->req->modules[i];

		page.module[i] = (struct modlist_entry){.paddr = module[i], .size = m->bytes};
		if (m->args && *m->args)
			err = place_string(l, m->args, &page.module[i].cmdline_paddr);
	}
	if (!err)
		err = load_place(l, sizeof(page), &base, "the PVH start information");
	if (err)
		return err;
	page.info.memmap_entries = load_memory_map(l, map);
	for (u32 i = 0; i < page.info.memmap_entries; i++)
		page.map[i] = (struct memmap_entry){
			.addr = map[i].base, .size = map[i].bytes, .type = map[i].type};
	page.info.memmap_paddr = base + offsetof(struct start_page, map);
	if (l->req->module_count)
		page.info.modlist_paddr = base + offsetof(struct start_page, module);
	l->out->protocol = BOOT_PROTO_PVH;
	l->out->ebx = (u32)base;
	return load_write(l, base, &page, sizeof(page), "the PVH start information");
}
