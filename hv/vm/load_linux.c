/*
 * Linux bzImage by the 64-bit entry point of the Linux/x86 boot protocol, version 2.12 or later.
 *
 * Where things lie (see load.h): GDT, boot_params, command line and page tables in low memory, the
 * kernel at its preferred address, the initial RAM disk at the top of RAM below 3 GiB. Low memory
 * for the tables, because kernels that choose their own address may run on them while they unpack
 * themselves to anywhere above 1 MiB.
 */
#include "lib/log.h"
#include "lib/string.h"
#include "vm/load_internal.h"

#define GDT_BASE       0x6000ull /* its page ends with a small stack */
#define PARAMS_BASE    0x7000ull
#define CMDLINE_BASE   0x8000ull
#define CMDLINE_ROOM   0x1000u
#define TABLES_BASE    0x10000ull
#define TABLES_LOW_END 0x80000ull /* up to 107 GiB; larger tables go to the top of low RAM */
#define LOWEST_KERNEL  0x100000ull
#define ALIGNMENT_MAX  GIB
#define SECTOR	       512u
#define ENTRY_64       0x200u
#define TABLE_ENTRIES  512u
#define TABLE_FLAGS    0x63ull /* present, writable, accessed, dirty (ignored above leaves) */
#define LEAF_FLAGS     0xe3ull
#define INITRD_ALIGN   4u
#define E820_MAX       128u

#define VERSION_MIN	    0x20c
#define BOOT_FLAG	    0xaa55
#define JUMP_SHORT	    0xeb
#define LOADED_HIGH	    BIT(0) /* loadflags */
#define XLF_KERNEL_64	    BIT(0)
#define LOADER_UNDEFINED    0xff
#define SETUP_SECTS_DEFAULT 4u

/* From byte 0x1f1 of the file and of boot_params ("The Real-Mode Kernel Header"). */
struct setup_header {
	u8 setup_sects;
	u16 root_flags;
	u32 syssize; /* protected-mode code in units of 16 bytes */
	u16 ram_size, vid_mode, root_dev, boot_flag;
	u8 jump, jump_length; /* over the header: says where it ends */
	u32 magic;
	u16 version;
	u32 realmode_swtch;
	u16 start_sys_seg, kernel_version;
	u8 type_of_loader, loadflags;
	u16 setup_move_size;
	u32 code32_start, ramdisk_image, ramdisk_size, bootsect_kludge;
	u16 heap_end_ptr;
	u8 ext_loader_ver, ext_loader_type;
	u32 cmd_line_ptr, initrd_addr_max, kernel_alignment;
	u8 relocatable_kernel, min_alignment;
	u16 xloadflags;
	u32 cmdline_size, hardware_subarch;
	u64 hardware_subarch_data;
	u32 payload_offset, payload_length; /* within the protected-mode code */
	u64 setup_data, pref_address;
	u32 init_size;
} __packed;
#define HEADER_AT 0x1f1u
#define IN_HEADER(field, at) \
	_Static_assert(HEADER_AT + offsetof(struct setup_header, field) == (at), #field)
IN_HEADER(boot_flag, 0x1fe);
IN_HEADER(magic, 0x202);
IN_HEADER(code32_start, 0x214);
IN_HEADER(cmd_line_ptr, 0x228);
IN_HEADER(xloadflags, 0x236);
IN_HEADER(payload_offset, 0x248);
IN_HEADER(init_size, 0x260);
#define HEADER_END_MIN 0x264u /* with init_size, which 2.10 brought */
#define HEADER_END_MAX 0x290u /* where boot_params has something else */

/* boot_params ("zero page"): the parts that are not 0, besides the header. */
#define PARAMS_RSDP	    0x070u /* u64 acpi_rsdp_addr */
#define PARAMS_E820_ENTRIES 0x1e8u /* u8 */
#define PARAMS_E820_TABLE   0x2d0u

struct e820_entry {
	u64 base, bytes;
	u32 type;
} __packed;
_Static_assert(sizeof(struct e820_entry) == 20, "boot_e820_entry");
_Static_assert(MAP_MAX <= E820_MAX, "all entries go into boot_params");

struct bzimage {
	struct setup_header header;
	u32 header_end; /* offset of its last byte + 1, as in the file */
	u64 setup_bytes;
	u64 code_bytes;
	u64 base; /* where the protected-mode code is loaded and the kernel runs */
	u64 initrd_bytes;
};

static u64 initrd_bytes(const struct loader *l)
{
	u64 sum = 0;

	for (u32 i = 0; i < l->req->module_count; i++)
		sum = ALIGN_UP(sum, INITRD_ALIGN) + l->req->modules[i].bytes;
	return sum;
}

bool linux_magic(const struct guest_image *k)
{
	return k->bytes >= HEADER_END_MIN && memcmp(k->data + 0x202, "HdrS", 4) == 0;
}

/* Where the parts of the file are. */
static int open_file(struct loader *l, struct bzimage *b)
{
	const struct guest_image *k = &l->req->kernel;
	const struct setup_header *h = &b->header;
	u32 sectors;

	if (!linux_magic(k))
		return load_refuse(l, ERR_INVAL, "not a Linux bzImage (no \"HdrS\" at 0x202)");
	memcpy(&b->header, k->data + HEADER_AT, sizeof(b->header));
	if (h->boot_flag != BOOT_FLAG)
		return load_refuse(l, ERR_INVAL, "the bzImage has boot flag %#x instead of %#x",
				   h->boot_flag, BOOT_FLAG);
	if (h->version < VERSION_MIN)
		return load_refuse(l, ERR_NOSYS,
				   "the kernel has Linux boot protocol %u.%02u; 2.12 (Linux 3.8) "
				   "or later is needed",
				   h->version >> 8, h->version & 0xff);
	b->header_end = 0x202u + h->jump_length;
	if (h->jump != JUMP_SHORT || h->jump_length > 127 || b->header_end < HEADER_END_MIN ||
	    b->header_end > HEADER_END_MAX || b->header_end > k->bytes)
		return load_refuse(l, ERR_INVAL,
				   "the bzImage's setup header does not end between %#x and %#x "
				   "(jump %#x %#x)",
				   HEADER_END_MIN, HEADER_END_MAX, h->jump, h->jump_length);
	sectors = h->setup_sects ? h->setup_sects : SETUP_SECTS_DEFAULT;
	b->setup_bytes = (u64)(sectors + 1) * SECTOR;
	b->code_bytes = (u64)h->syssize * 16;
	if (b->code_bytes <= ENTRY_64)
		return load_refuse(l, ERR_INVAL,
				   "the bzImage's protected-mode code has only %llu bytes",
				   (unsigned long long)b->code_bytes);
	/* The last 16 bytes may be there in part (memtest86+). */
	if (b->setup_bytes > k->bytes || b->code_bytes - 15 > k->bytes - b->setup_bytes)
		return load_refuse(l, ERR_INVAL,
				   "the bzImage should have %llu bytes, but has %llu (truncated?)",
				   (unsigned long long)(b->setup_bytes + b->code_bytes),
				   (unsigned long long)k->bytes);
	b->code_bytes = MIN(b->code_bytes, k->bytes - b->setup_bytes);
	if (h->payload_offset > b->code_bytes ||
	    h->payload_length > b->code_bytes - h->payload_offset)
		return load_refuse(l, ERR_INVAL,
				   "the bzImage's payload (%#x bytes at %#x) lies outside of its "
				   "code",
				   h->payload_length, h->payload_offset);
	return 0;
}

/* What the kernel demands of its place, and the kind of kernel. */
static int check_header(struct loader *l, struct bzimage *b)
{
	const struct setup_header *h = &b->header;

	if (!(h->loadflags & LOADED_HIGH))
		return load_refuse(l, ERR_NOSYS,
				   "the kernel is a zImage, which is loaded below 1 MiB");
	if (!(h->xloadflags & XLF_KERNEL_64))
		return load_refuse(l, ERR_NOSYS,
				   "the kernel has no 64-bit entry point (xloadflags %#x): it is a "
				   "32-bit kernel",
				   h->xloadflags);
	if (h->init_size < b->code_bytes)
		return load_refuse(l, ERR_INVAL,
				   "the bzImage's init_size %#x is less than its code (%#llx "
				   "bytes)",
				   h->init_size, (unsigned long long)b->code_bytes);
	if (h->relocatable_kernel &&
	    (!h->kernel_alignment || h->kernel_alignment & (h->kernel_alignment - 1) ||
	     h->kernel_alignment > ALIGNMENT_MAX))
		return load_refuse(l, ERR_INVAL,
				   "the bzImage's kernel_alignment %#x is no power of two up to "
				   "1 GiB",
				   h->kernel_alignment);
	if (h->pref_address >= LOAD_LOW_MAX)
		return load_refuse(l, ERR_NOSYS,
				   "the kernel wants to run at %#llx; below 3 GiB is possible",
				   (unsigned long long)h->pref_address);
	b->base = h->pref_address;
	/* A relocatable kernel's runtime start is never below its preferred address. */
	if (h->relocatable_kernel)
		b->base = ALIGN_UP(MAX(b->base, LOWEST_KERNEL), (u64)h->kernel_alignment);
	else if (b->base < LOWEST_KERNEL)
		return load_refuse(l, ERR_NOSYS,
				   "the kernel can only run at %#llx, in the first MiB",
				   (unsigned long long)b->base);
	return 0;
}

static int place_kernel(struct loader *l, const struct bzimage *b)
{
	const struct guest_image *k = &l->req->kernel;
	u64 need = b->base + b->header.init_size;
	int err;

	if (need > l->target->ram_low)
		return load_refuse(l, ERR_NOMEM,
				   "the kernel needs %llu MiB at %#llx, the guest has %llu MiB of "
				   "RAM; set \"memory\" to at least %lluM",
				   (unsigned long long)(b->header.init_size + MIB - 1) / MIB,
				   (unsigned long long)b->base,
				   (unsigned long long)(l->target->ram_low / MIB),
				   (unsigned long long)(ALIGN_UP(need, SIZE_2M) / MIB));
	err = load_write(l, b->base, k->data + b->setup_bytes, b->code_bytes, "the kernel");
	load_occupy(l, b->base, b->header.init_size);
	l->out->entry = (u32)(b->base + ENTRY_64);
	return err;
}

/* Takes `bytes` from below *top, page-aligned, and not from what is occupied already. */
static int take_top(struct loader *l, u64 *top, u64 bytes, const char *what)
{
	if (bytes > *top || ALIGN_DOWN(*top - bytes, PAGE_SIZE) < l->next)
		return load_refuse(l, ERR_NOMEM,
				   "%s (%llu KiB) does not fit between the kernel's end at %#llx "
				   "and %#llx",
				   what, (unsigned long long)(bytes + KIB - 1) / KIB,
				   (unsigned long long)l->next, (unsigned long long)*top);
	*top = ALIGN_DOWN(*top - bytes, PAGE_SIZE);
	return 0;
}

/*
 * All modules, one after the other, as Linux takes concatenated archives. It skips zeroes between
 * them and wants each to begin at a multiple of 4.
 */
static int place_initrd(struct loader *l, const struct bzimage *b, u64 at)
{
	u64 end = at;

	for (u32 i = 0; i < l->req->module_count; i++) {
		const struct guest_image *m = &l->req->modules[i];
		u64 start = at + ALIGN_UP(end - at, INITRD_ALIGN);
		int err = load_zero(l, end, start - end, "the initial RAM disk");

		if (!err)
			err = load_write(l, start, m->data, m->bytes, "the initial RAM disk");
		if (err)
			return err;
		end = start + m->bytes;
	}
	return 0;
}

/* `count` page-table entries from `at` on, for addresses `first`, `first` + `step`, ... */
static int write_entries(struct loader *l, u64 at, u64 count, u64 first, u64 step)
{
	u64 chunk[64];

	while (count) {
		u64 n = MIN(count, (u64)ARRAY_SIZE(chunk));
		int err;

		for (u64 i = 0; i < n; i++)
			chunk[i] = first + i * step;
		err = load_write(l, at, chunk, n * 8, "a page table");
		if (err)
			return err;
		at += n * 8;
		first += n * step;
		count -= n;
	}
	return 0;
}

/* Identity map of 4 GiB and of all RAM beyond, by 2 MiB pages: a root, directory pointers,
 * directories. */
static int build_tables(struct loader *l, u64 *top)
{
	u64 gibs = 4 + (l->target->ram_high + GIB - 1) / GIB;
	u64 pointers = (gibs + TABLE_ENTRIES - 1) / TABLE_ENTRIES;
	u64 bytes = (1 + pointers + gibs) * PAGE_SIZE;
	u64 root = TABLES_BASE;
	int err;

	if (bytes > TABLES_LOW_END - TABLES_BASE) {
		err = take_top(l, top, bytes, "the page tables");
		if (err)
			return err;
		root = *top;
	}
	l->out->cr3 = root;
	err = load_zero(l, root, (1 + pointers) * PAGE_SIZE, "a page table");
	if (!err)
		err = write_entries(l, root, pointers, (root + PAGE_SIZE) | TABLE_FLAGS, PAGE_SIZE);
	root += PAGE_SIZE;
	if (!err)
		err = write_entries(l, root, gibs, (root + pointers * PAGE_SIZE) | TABLE_FLAGS,
				    PAGE_SIZE);
	root += pointers * PAGE_SIZE;
	if (!err)
		err = write_entries(l, root, gibs * TABLE_ENTRIES, LEAF_FLAGS, SIZE_2M);
	return err;
}

static int write_gdt(struct loader *l)
{
	/* __BOOT_CS is selector 0x10, __BOOT_DS 0x18. */
	static const u64 gdt[] = {0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff};

	l->out->gdt_base = GDT_BASE;
	l->out->gdt_limit = sizeof(gdt) - 1;
	l->out->stack = GDT_BASE + PAGE_SIZE;
	return load_write(l, GDT_BASE, gdt, sizeof(gdt), "the GDT");
}

static int write_cmdline(struct loader *l, const struct bzimage *b)
{
	const char *text = l->req->cmdline ? l->req->cmdline : "";
	u64 len = strlen(text), limit = MIN(b->header.cmdline_size, CMDLINE_ROOM - 1);

	if (len > limit)
		return load_refuse(l, ERR_INVAL,
				   "the command line has %llu bytes, this kernel takes %llu",
				   (unsigned long long)len, (unsigned long long)limit);
	return load_write(l, CMDLINE_BASE, text, len + 1, "the command line");
}

static int write_params(struct loader *l, const struct bzimage *b, u64 initrd)
{
	struct e820_entry e820[MAP_MAX];
	struct map_entry map[MAP_MAX];
	struct setup_header h = b->header;
	u32 known = HEADER_AT + sizeof(h), n = load_memory_map(l, map);
	u8 count = (u8)n;
	int err;

	h.type_of_loader = LOADER_UNDEFINED;
	h.code32_start = (u32)b->base;
	h.ramdisk_image = b->initrd_bytes ? (u32)initrd : 0;
	h.ramdisk_size = (u32)b->initrd_bytes;
	h.cmd_line_ptr = (u32)CMDLINE_BASE;
	h.setup_data = 0;
	for (u32 i = 0; i < n; i++)
		e820[i] = (struct e820_entry){map[i].base, map[i].bytes, map[i].type};
	err = load_zero(l, PARAMS_BASE, PAGE_SIZE, "boot_params");
	if (!err)
		err = load_write(l, PARAMS_BASE + HEADER_AT, &h, sizeof(h), "boot_params");
	/* What later protocols have added is taken over as it is. */
	if (!err)
		err = load_write(l, PARAMS_BASE + known, l->req->kernel.data + known,
				 b->header_end - known, "boot_params");
	if (!err)
		err = load_write(l, PARAMS_BASE + PARAMS_RSDP, &l->req->rsdp, sizeof(l->req->rsdp),
				 "boot_params");
	if (!err)
		err = load_write(l, PARAMS_BASE + PARAMS_E820_ENTRIES, &count, sizeof(count),
				 "boot_params");
	if (!err)
		err = load_write(l, PARAMS_BASE + PARAMS_E820_TABLE, e820, n * sizeof(e820[0]),
				 "boot_params");
	return err;
}

int linux_load(struct loader *l)
{
	struct bzimage b = {0};
	u64 top = l->target->ram_low;
	int err;

	err = open_file(l, &b);
	if (!err)
		err = check_header(l, &b);
	if (!err)
		err = place_kernel(l, &b);
	if (!err)
		err = build_tables(l, &top);
	if (err)
		return err;
	top = MIN(top, (u64)b.header.initrd_addr_max + 1);
	b.initrd_bytes = initrd_bytes(l);
	err = b.initrd_bytes ? take_top(l, &top, b.initrd_bytes, "the initial RAM disk") : 0;
	if (!err)
		err = place_initrd(l, &b, top);
	if (!err)
		err = write_gdt(l);
	if (!err)
		err = write_cmdline(l, &b);
	if (!err)
		err = write_params(l, &b, top);
	if (err)
		return err;
	if (b.initrd_bytes)
		l->next = top + b.initrd_bytes;
	l->out->protocol = BOOT_PROTO_LINUX;
	l->out->long64 = true;
	l->out->rsi = PARAMS_BASE;
	return 0;
}
