/*
 * What Linux's 64-bit boot protocol promises a kernel at its entry point. This kernel runs as a
 * bzImage only; see guest/lib/start.S for the entry.
 */
#include "cpu.h"
#include "mem.h"

#define BOOT_CS 0x10
#define BOOT_DS 0x18

#define DESC_PRESENT BIT64(47)
#define DESC_S	     BIT64(44)
#define DESC_TYPE    (0xeull << 40) /* without the accessed bit */
#define DESC_DPL     (3ull << 45)
#define DESC_L	     BIT64(53)
#define DESC_D	     BIT64(54)
#define DESC_G	     BIT64(55)
#define DESC_LIMIT   0x000f00000000ffffull
#define DESC_BASE    0xff0000ffffff0000ull
#define TYPE_CODE    (0xaull << 40)
#define TYPE_DATA    (0x2ull << 40)

/* The files of guest/linuxboot/, which guest/default.conf names as modules. */
static const char first[] = "The first archive of two, 41 bytes long.\n";
static const char second[] = "And the second.\n";

extern u8 guest_image_start[], guest_image_end[];

static u64 field(u32 at, u32 bytes)
{
	u64 value = 0;

	memcpy(&value, (const void *)(uintptr_t)(linux_entry.rsi + at), bytes);
	return value;
}

static void check_state(void)
{
	const struct linux_entry *e = &linux_entry;

	tap_is(e->cs, BOOT_CS, "CS");
	tap_is(e->ds, BOOT_DS, "DS");
	tap_is(e->es, BOOT_DS, "ES");
	tap_is(e->ss, BOOT_DS, "SS");
	tap_ok(!(e->rflags & RFLAGS_IF), "interrupts are off");
	tap_is(e->cr0 & (CR0_PE | CR0_PG), CR0_PE | CR0_PG, "protection and paging are on");
	tap_ok(e->cr4 & CR4_PAE, "CR4.PAE");
	tap_ok(!(e->cr4 & CR4_LA57), "four levels of page tables");
	tap_is(e->efer & (EFER_LME | EFER_LMA), EFER_LME | EFER_LMA, "long mode is active");
}

static void check_gdt(void)
{
	const u64 *table = (const u64 *)(uintptr_t)linux_entry.gdt_base;
	u64 flat = DESC_PRESENT | DESC_S | DESC_G | DESC_LIMIT;
	u64 looked_at = flat | DESC_TYPE | DESC_DPL | DESC_BASE | DESC_L;

	if (!tap_ok(linux_entry.gdt_limit >= BOOT_DS + 7, "the GDT has the two descriptors"))
		return;
	tap_ok(ram_contains((u64)linux_entry.gdt_base & ~(PAGE_SIZE - 1), PAGE_SIZE),
	       "the GDT lies in RAM");
	tap_is(table[BOOT_CS / 8] & looked_at, flat | TYPE_CODE | DESC_L,
	       "__BOOT_CS is flat 64-bit code, readable");
	tap_is(table[BOOT_DS / 8] & (looked_at & ~DESC_L), flat | TYPE_DATA,
	       "__BOOT_DS is flat and writable");
}

/* By the loader's tables: physical address and writable, or ~0. */
static u64 translate(u64 va)
{
	u64 table = linux_entry.cr3 & PTE_ADDR;

	for (u32 shift = 39;; shift -= 9) {
		u64 entry = ((const u64 *)(uintptr_t)table)[va >> shift & 511];

		if ((entry & (PTE_P | PTE_W)) != (PTE_P | PTE_W))
			return ~0ull;
		if (shift == 12 || (shift < 39 && (entry & PTE_PS)))
			return (entry & PTE_ADDR & ~(BIT64(shift) - 1)) | (va & (BIT64(shift) - 1));
		table = entry & PTE_ADDR;
	}
}

static void check_tables(void)
{
	u64 top = MAX(ram_top(), 4 * SIZE_1G), bad = 0;

	for (u64 va = 0; va < top; va += SIZE_2M)
		bad += translate(va) != va || translate(va + SIZE_2M - 1) != va + SIZE_2M - 1;
	tap_is(bad, 0, "pages up to %lu GiB that are not mapped one to one", (u64)(top >> 30));
	tap_ok(ram_contains(linux_entry.cr3 & PTE_ADDR, PAGE_SIZE), "the page tables lie in RAM");
}

static void check_header(void)
{
	tap_ok(linux_entry.rsi && ram_contains(linux_entry.rsi, PAGE_SIZE),
	       "RSI points to boot_params in RAM");
	tap_is(field(0x1fe, 2), 0xaa55, "boot_flag");
	tap_is(field(0x202, 4), 0x53726448, "header");
	tap_is(field(0x206, 2), 0x20c, "version, as in the image");
	tap_is(field(0x210, 1), 0xff, "type_of_loader: none that has a number");
	tap_ok(field(0x211, 1) & 1, "loadflags: loaded high");
	tap_is(field(0x236, 2), 1, "xloadflags, as in the image");
	tap_is(field(0x258, 8), (uintptr_t)guest_image_start, "pref_address, where this runs");
	tap_is(field(0x260, 4), (u64)(guest_image_end - guest_image_start), "init_size");
	tap_is(field(0x1ef, 1), 0, "sentinel: what is no header has been cleared");
	tap_is(field(0x250, 8), 0, "no setup_data");
	tap_ok(!strcmp(boot.cmdline, "expect-memory=64 \"two words\""), "command line: %s",
	       boot.cmdline);
}

static void check_rsdp(void)
{
	u64 at = field(0x70, 8);
	const u8 *rsdp = (const u8 *)(uintptr_t)at;
	u8 sum = 0;

	if (!tap_ok(at >= 0xe0000 && at < 0x100000, "acpi_rsdp_addr: 0x%lx", at))
		return;
	for (u32 i = 0; i < 20; i++)
		sum += rsdp[i];
	tap_ok(!memcmp(rsdp, "RSD PTR ", 8) && !sum, "there is an RSDP");
}

/* All of [base, end) has an entry of this type that covers it. */
static bool covered(u64 base, u64 end, u32 type)
{
	for (u32 i = 0; i < boot.range_count; i++)
		if (boot.range[i].type == type && boot.range[i].base <= base &&
		    boot.range[i].base + boot.range[i].bytes >= end)
			return true;
	return false;
}

static void check_memory(void)
{
	u64 mib = opt_u64("expect-memory", 64);

	tap_ok(covered(0x1000, 0x9f000, MEM_USABLE), "e820: low memory");
	tap_ok(covered(0xe0000, 0x100000, 2), "e820: ACPI tables and BIOS are reserved");
	tap_ok(covered(0x100000, mib << 20, MEM_USABLE), "e820: %lu MiB of RAM", mib);
	tap_is(ram_top(), mib << 20, "end of RAM");
	for (u32 i = 1; i < boot.range_count; i++)
		tap_ok(boot.range[i].base >= boot.range[i - 1].base + boot.range[i - 1].bytes,
		       "e820: entry %u lies behind the one before it", i);
}

static void check_initrd(void)
{
	u64 start = field(0x218, 4), bytes = field(0x21c, 4);
	u32 gap = -(sizeof(first) - 1) & 3;
	const char *data = (const char *)(uintptr_t)start;

	tap_is(bytes, sizeof(first) - 1 + gap + sizeof(second) - 1,
	       "bytes of the initial RAM disk: both modules, padding between them");
	tap_ok(start && !(start & (PAGE_SIZE - 1)), "it begins at a page");
	if (!tap_ok(ram_contains(start, bytes), "it lies in RAM"))
		return;
	tap_ok(start >= (uintptr_t)guest_image_end, "it is apart from the kernel");
	tap_is(start, (ram_top() - bytes) & ~(PAGE_SIZE - 1), "it is at the top of RAM");
	tap_ok(!memcmp(data, first, sizeof(first) - 1), "the first module");
	for (u32 i = 0; i < gap; i++)
		tap_is((u8)data[sizeof(first) - 1 + i], 0, "padding");
	tap_ok(!memcmp(data + sizeof(first) - 1 + gap, second, sizeof(second) - 1),
	       "the second module");
}

void guest_main(void)
{
	if (boot.protocol != PROTO_LINUX)
		tap_bail("this kernel is to be started as a bzImage");
	check_state();
	check_gdt();
	check_header();
	check_memory();
	check_tables();
	check_initrd();
	check_rsdp();
}
