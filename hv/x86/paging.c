#include "x86/paging.h"

#include "lib/log.h"
#include "lib/panic.h"
#include "lib/spinlock.h"
#include "lib/string.h"
#include "x86/asm.h"
#include "x86/cpu.h"
#include "x86/regs.h"

/* Paging-structure entries (SDM 3A tables 4-15 to 4-20). */
#define PTE_P	 BIT64(0)
#define PTE_W	 BIT64(1)
#define PTE_PWT	 BIT64(3)
#define PTE_PCD	 BIT64(4)
#define PTE_A	 BIT64(5)
#define PTE_D	 BIT64(6)
#define PTE_PS	 BIT64(7)
#define PTE_NX	 BIT64(63)
#define PTE_ADDR 0x000ffffffffff000ull
/* Accessed and dirty are set from the start: the processor need never write to a table. */
#define PTE_LEAF  (PTE_P | PTE_A | PTE_D)
#define PTE_TABLE (PTE_P | PTE_W | PTE_A)

#define STACK_AREA  0xffffffffc0000000ull
#define STACK_SLOT  (64 * KIB)
#define STACK_PAGES (STACK_SLOT / PAGE_SIZE)

/* Where the stacks of a slot lie, in pages; every other page is a guard. */
static const struct {
	u8 first, pages;
} stack_layout[STACK_COUNT] = {
	{1, STACK_BYTES / PAGE_SIZE}, /* main */
	{6, 2},			      /* #DF */
	{9, 2},			      /* NMI */
	{12, 3},		      /* #MC, which reports much */
};

extern u8 __image_start[], __text_end[], __rodata_end[], __ro_after_init_end[], __image_end[];
extern u8 boot_stack[], boot_ist_top[];

static struct spinlock paging_lock;
static hpa_t top_table;
static u64 image_phys;
static bool has_1g;
static bool stacks_mapped[MAX_CPUS];

static u64 *table(u64 entry)
{
	return phys_to_ptr(hpa(entry & PTE_ADDR));
}

static u64 level_bytes(u32 level)
{
	return 1ull << (PAGE_SHIFT + 9 * (level - 1));
}

static u64 *entry_at(u64 *t, u64 virt, u32 level)
{
	return &t[virt >> (PAGE_SHIFT + 9 * (level - 1)) & 511];
}

/*
 * Maps [virt, virt + bytes) to phys with the largest pages that fit; leaves alone what is mapped.
 * flags are those of a 4 KiB leaf, memory type by PWT and PCD (PAT entries 0 to 3).
 */
static void map(u64 virt, u64 phys, u64 bytes, u64 flags)
{
	while (bytes) {
		u64 *t = table(top_table.v), *e, size;
		u32 level = 4; /* the loader refuses 5-level paging */

		for (;;) {
			size = level_bytes(level);
			e = entry_at(t, virt, level);
			if (level == 1 || (*e & (PTE_P | PTE_PS)) == (PTE_P | PTE_PS))
				break;
			if (!*e && (level == 2 || (level == 3 && has_1g)) &&
			    IS_ALIGNED(virt | phys, size) && bytes >= size)
				break;
			if (!*e)
				*e = paging_alloc_table().v | PTE_TABLE;
			t = table(*e);
			level--;
		}
		if (!*e)
			*e = phys | flags | (level > 1 ? PTE_PS : 0);
		/* A large page that is there already may reach beyond either end. */
		size -= virt & (size - 1);
		size = MIN(size, bytes);
		virt += size;
		phys += size;
		bytes -= size;
	}
}

static u64 type_bits(enum paging_type type)
{
	return type == PAGING_WB ? 0 : type == PAGING_WC ? PTE_PWT : PTE_PCD | PTE_PWT;
}

static void map_direct(u64 phys, u64 bytes, enum paging_type type)
{
	u64 end = ALIGN_UP(phys + bytes, PAGE_SIZE);

	phys = ALIGN_DOWN(phys, PAGE_SIZE);
	map(DIRECT_MAP_BASE + phys, phys, end - phys, PTE_LEAF | PTE_W | PTE_NX | type_bits(type));
}

static bool is_memory(u32 type)
{
	return type == BOOT_MEM_USABLE || type == BOOT_MEM_ACPI || type == BOOT_MEM_NVS ||
	       type == BOOT_MEM_PERSISTENT || type == BOOT_MEM_UMBRA;
}

/* RAM without the image's text and read-only data: those have no writable alias. */
static void map_ram(u64 base, u64 end)
{
	u64 hole = image_phys,
	    hole_end = image_phys + label_span(__image_start, __ro_after_init_end);

	if (base < hole_end && end > hole) {
		if (base < hole)
			map_direct(base, hole - base, PAGING_WB);
		if (end > hole_end)
			map_direct(hole_end, end - hole_end, PAGING_WB);
	} else {
		map_direct(base, end - base, PAGING_WB);
	}
}

static void map_memory(const struct boot_info *boot)
{
	for (u32 i = 0; i < boot->memory_count; i++) {
		u64 base = boot->memory[i].base, end = base + boot->memory[i].bytes;

		if (!is_memory(boot->memory[i].type))
			continue;
		/* Neighbours together, for large pages. */
		while (i + 1 < boot->memory_count && is_memory(boot->memory[i + 1].type) &&
		       boot->memory[i + 1].base == end)
			end += boot->memory[++i].bytes;
		map_ram(base, end);
	}
}

static void map_image(const u8 *from, const u8 *to, u64 flags)
{
	map((u64)(uintptr_t)from, image_to_phys(from).v, label_span(from, to), PTE_LEAF | flags);
}

void paging_init(const struct boot_info *boot)
{
	if (boot->image_virt != (u64)(uintptr_t)__image_start ||
	    boot->image_bytes < label_span(__image_start, __image_end))
		panic("boot_info describes another image: at 0x%lx, 0x%lx bytes", boot->image_virt,
		      boot->image_bytes);
	image_phys = boot->image_base;
	has_1g = cpuid(0x80000001, 0).edx & BIT(26);
	top_table = paging_alloc_table();
	map_image(__image_start, __text_end, 0);
	map_image(__text_end, __rodata_end, PTE_NX);
	map_image(__rodata_end, __ro_after_init_end, PTE_NX);
	map_image(__ro_after_init_end, __image_end, PTE_W | PTE_NX);
	map_memory(boot);
	paging_load();
}

void paging_load(void)
{
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
	write_cr0(read_cr0() | CR0_WP);
	wrmsr(MSR_PAT, PAGING_PAT);
	write_cr3(top_table.v);
	/* Global translations of the loader's tables survive a change of CR3. */
	write_cr4(read_cr4() & ~CR4_PGE);
	wbinvd();
}

u64 paging_cr3(void)
{
	return top_table.v;
}

void *paging_map_mmio(hpa_t base, u64 bytes, enum paging_type type)
{
	spin_lock(&paging_lock);
	map_direct(base.v, bytes, type);
	spin_unlock(&paging_lock);
	return phys_to_ptr(base);
}

void paging_map_stacks(u32 cpu, u8 *tops[STACK_COUNT])
{
	u64 slot = STACK_AREA + cpu * STACK_SLOT;

	spin_lock(&paging_lock);
	for (unsigned int i = 0; i < STACK_COUNT; i++) {
		u64 base = slot + stack_layout[i].first * PAGE_SIZE;

		for (u64 page = 0; page < stack_layout[i].pages && !stacks_mapped[cpu]; page++)
			map(base + page * PAGE_SIZE, paging_alloc_table().v, PAGE_SIZE,
			    PTE_LEAF | PTE_W | PTE_NX);
		tops[i] = (u8 *)(uintptr_t)(base + stack_layout[i].pages * PAGE_SIZE);
	}
	stacks_mapped[cpu] = true;
	spin_unlock(&paging_lock);
}

/* The page of its slot, if the address is in a slot that has stacks; else -1. */
static int slot_page(u64 addr)
{
	if (addr < STACK_AREA || addr >= STACK_AREA + MAX_CPUS * STACK_SLOT ||
	    !stacks_mapped[(addr - STACK_AREA) / STACK_SLOT])
		return -1;
	return (int)((addr - STACK_AREA) / PAGE_SIZE % STACK_PAGES);
}

bool paging_is_stack(u64 addr)
{
	int page = slot_page(addr);

	if (addr >= (u64)(uintptr_t)boot_stack && addr < (u64)(uintptr_t)boot_ist_top)
		return true;
	for (unsigned int i = 0; i < STACK_COUNT; i++)
		if (page >= stack_layout[i].first &&
		    page < stack_layout[i].first + stack_layout[i].pages)
			return true;
	return false;
}

bool paging_is_guard(u64 addr)
{
	return slot_page(addr) >= 0 && !paging_is_stack(addr);
}

hpa_t image_to_phys(const void *p)
{
	return hpa((u64)(uintptr_t)p - (u64)(uintptr_t)__image_start + image_phys);
}
