/* From the entry code to guest_main(): boot information of all protocols into one form. */
#include "apic.h"
#include "cpu.h"
#include "mem.h"

void guest_start(u64 protocol, u64 info);
extern u8 guest_user_start[], guest_user_end[];

/* Multiboot 0.6.96 section 3.3 and 3.4.3. */
struct __packed mb_info {
	u32 flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr;
	u32 syms[4];
	u32 mmap_length, mmap_addr;
};

struct __packed mb_module {
	u32 start, end, string, reserved;
};

struct __packed mb_mmap {
	u32 size; /* of the rest */
	u64 base, bytes;
	u32 type;
};

#define MB_HAS_MEM     BIT(0)
#define MB_HAS_CMDLINE BIT(2)
#define MB_HAS_MODS    BIT(3)
#define MB_HAS_MMAP    BIT(6)

/* Xen's public/arch-x86/hvm/start_info.h, version 1. */
struct pvh_info {
	u32 magic, version, flags, nr_modules;
	u64 modlist, cmdline, rsdp, memmap;
	u32 memmap_entries, reserved;
};
#define PVH_MAGIC 0x336ec578

struct pvh_module {
	u64 base, bytes, cmdline, reserved;
};

struct pvh_memmap {
	u64 base, bytes;
	u32 type, reserved;
};

static const void *at(u64 address)
{
	return (const void *)(uintptr_t)address;
}

static void copy_string(char *dst, size_t size, u64 address)
{
	const char *s = at(address);
	size_t n = 0;

	for (; address && n + 1 < size && s[n]; n++)
		dst[n] = s[n];
	dst[n] = '\0';
}

static void add_range(u64 base, u64 bytes, u32 type)
{
	if (boot.range_count < BOOT_MAX_RANGES)
		boot.range[boot.range_count++] = (struct mem_range){base, bytes, type};
}

static void add_module(u64 base, u64 bytes, u64 cmdline)
{
	struct module *m = &boot.module[boot.module_count];

	if (boot.module_count == BOOT_MAX_MODULES)
		return;
	boot.module_count++;
	m->base = base;
	m->bytes = bytes;
	copy_string(m->cmdline, sizeof(m->cmdline), cmdline);
}

static void read_multiboot(u64 address)
{
	const struct mb_info *info = at(address);

	if (info->flags & MB_HAS_CMDLINE)
		copy_string(boot.cmdline, sizeof(boot.cmdline), info->cmdline);
	for (u32 i = 0; (info->flags & MB_HAS_MODS) && i < info->mods_count; i++) {
		const struct mb_module *m = at(info->mods_addr + i * sizeof(*m));

		add_module(m->start, m->end - m->start, m->string);
	}
	if (info->flags & MB_HAS_MMAP) {
		for (u32 off = 0; off < info->mmap_length;) {
			const struct mb_mmap *m = at(info->mmap_addr + off);

			add_range(m->base, m->bytes, m->type);
			off += m->size + 4;
		}
	} else if (info->flags & MB_HAS_MEM) {
		add_range(0, info->mem_lower * 1024ull, MEM_USABLE);
		add_range(0x100000, info->mem_upper * 1024ull, MEM_USABLE);
	}
}

static void read_pvh(u64 address)
{
	const struct pvh_info *info = at(address);

	if (info->magic != PVH_MAGIC)
		tap_bail("PVH start info has magic 0x%x", info->magic);
	copy_string(boot.cmdline, sizeof(boot.cmdline), info->cmdline);
	for (u32 i = 0; i < info->nr_modules; i++) {
		const struct pvh_module *m = at(info->modlist + i * sizeof(*m));

		add_module(m->base, m->bytes, m->cmdline);
	}
	for (u32 i = 0; info->version >= 1 && i < info->memmap_entries; i++) {
		const struct pvh_memmap *m = at(info->memmap + i * sizeof(*m));

		add_range(m->base, m->bytes, m->type);
	}
}

/* boot_params of the Linux boot protocol. */
#define LINUX_E820_ENTRIES 0x1e8
#define LINUX_E820_TABLE   0x2d0
#define LINUX_RAMDISK	   0x218 /* address, size */
#define LINUX_CMDLINE	   0x228

struct __packed linux_e820 {
	u64 base, bytes;
	u32 type;
};

static void read_linux(u64 address)
{
	const u8 *params = at(address);
	const u32 *ramdisk = at(address + LINUX_RAMDISK), *cmdline = at(address + LINUX_CMDLINE);

	copy_string(boot.cmdline, sizeof(boot.cmdline), *cmdline);
	if (ramdisk[1])
		add_module(ramdisk[0], ramdisk[1], 0);
	for (u32 i = 0; i < params[LINUX_E820_ENTRIES]; i++) {
		const struct linux_e820 *e = at(address + LINUX_E820_TABLE + i * sizeof(*e));

		add_range(e->base, e->bytes, e->type);
	}
}

void guest_start(u64 protocol, u64 info)
{
	uart_init();
	cpu_load_tables(0);
	boot.protocol = (u32)protocol;
	if (protocol == PROTO_MULTIBOOT)
		read_multiboot(info);
	else if (protocol == PROTO_PVH)
		read_pvh(info);
	else if (protocol == PROTO_LINUX)
		read_linux(info);
	else
		tap_bail("started by neither Multiboot nor PVH nor Linux's protocol");
	cpus[0].online = true;
	cpus[0].apic_id = lapic_id();
	pt_set_user((u64)(uintptr_t)guest_user_start,
		    (u64)(uintptr_t)guest_user_end - (u64)(uintptr_t)guest_user_start);
	pic_mask_all();
	trap_clear();
	guest_main();
	tap_end();
}
