/* Memory map, page allocator, page tables. Contract in mem.h. */
#include "cpu.h"
#include "mem.h"

extern u8 guest_image_end[];

struct boot boot;
static u64 next_free;

u64 ram_bytes(void)
{
	u64 n = 0;

	for (u32 i = 0; i < boot.range_count; i++) {
		if (boot.range[i].type == MEM_USABLE)
			n += boot.range[i].bytes;
	}
	return n;
}

u64 ram_top(void)
{
	u64 top = 0;

	for (u32 i = 0; i < boot.range_count; i++) {
		if (boot.range[i].type == MEM_USABLE)
			top = MAX(top, boot.range[i].base + boot.range[i].bytes);
	}
	return top;
}

bool ram_contains(u64 base, u64 bytes)
{
	for (u32 i = 0; i < boot.range_count; i++) {
		const struct mem_range *r = &boot.range[i];

		if (r->type == MEM_USABLE && base >= r->base && base - r->base < r->bytes &&
		    r->bytes - (base - r->base) >= bytes)
			return true;
	}
	return false;
}

/* By Linux's protocol the RAM disk is at the top of memory, else modules are behind the kernel. */
static bool modules_on_top(void)
{
	return boot.protocol == PROTO_LINUX && boot.module_count;
}

u64 mem_next(void)
{
	if (!next_free) {
		next_free = (u64)(uintptr_t)guest_image_end;
		for (u32 i = 0; i < boot.module_count && !modules_on_top(); i++)
			next_free = MAX(next_free, boot.module[i].base + boot.module[i].bytes);
		next_free = (next_free + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
	}
	return next_free;
}

void *mem_alloc(u64 bytes, u64 align)
{
	u64 base = (mem_next() + align - 1) & ~(align - 1);
	u64 end = modules_on_top() ? boot.module[0].base : 4 * SIZE_1G;

	if (base + bytes > end || !ram_contains(base, bytes))
		return NULL;
	next_free = (base + bytes + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
	return (void *)(uintptr_t)base;
}

void *page_alloc(void)
{
	void *p = mem_alloc(PAGE_SIZE, PAGE_SIZE);

	if (!p)
		tap_bail("out of memory");
	return memset(p, 0, PAGE_SIZE);
}

static unsigned int level_shift(unsigned int level)
{
	return 12 + 9 * (level - 1);
}

static u64 *slot(u64 *table, u64 va, unsigned int level)
{
	return &table[va >> level_shift(level) & 511];
}

static u64 *table_of(u64 entry)
{
	return (u64 *)(uintptr_t)(entry & PTE_ADDR);
}

u64 *pt_leaf(u64 va, unsigned int *level)
{
	u64 *table = table_of(read_cr3());

	for (*level = 4;; --*level) {
		u64 *e = slot(table, va, *level);

		if (*level == 1 || !(*e & PTE_P) || (*level < 4 && (*e & PTE_PS)))
			return e;
		table = table_of(*e);
	}
}

u64 *pt_entry(u64 va, unsigned int level)
{
	u64 *table = table_of(read_cr3());

	for (unsigned int l = 4;; l--) {
		u64 *e = slot(table, va, l);

		if (l == level)
			return e;
		if (!(*e & PTE_P) || (l < 4 && (*e & PTE_PS)))
			return NULL;
		table = table_of(*e);
	}
}

u64 *pt_split(u64 va, unsigned int level)
{
	u64 *table = table_of(read_cr3());

	for (unsigned int l = 4;; l--) {
		u64 *e = slot(table, va, l);

		if (l == level)
			return e;
		if (!(*e & PTE_P) || (l < 4 && (*e & PTE_PS))) {
			u64 *lower = page_alloc();

			for (u64 i = 0; (*e & PTE_P) && i < 512; i++) {
				lower[i] = *e + (i << level_shift(l - 1));
				if (l == 2)
					lower[i] &= ~PTE_PS;
			}
			*e = (u64)(uintptr_t)lower | PTE_P | PTE_W | PTE_U;
			invlpg(va);
		}
		table = table_of(*e);
	}
}

void pt_map(u64 va, u64 pa, u64 bytes, u64 flags, unsigned int level)
{
	u64 step = 1ull << level_shift(level);

	for (u64 off = 0; off < bytes; off += step) {
		*pt_split(va + off, level) = (pa + off) | flags | (level > 1 ? PTE_PS : 0);
		invlpg(va + off);
	}
}

void pt_unmap(u64 va, u64 bytes)
{
	u64 end = va + bytes;

	while (va < end) {
		unsigned int level;
		u64 *e = pt_leaf(va, &level);
		u64 step = 1ull << level_shift(level);

		*e &= ~PTE_P;
		invlpg(va);
		va = (va & ~(step - 1)) + step;
	}
}

void pt_protect(u64 va, u64 bytes, u64 flags)
{
	for (u64 off = 0; off < bytes; off += PAGE_SIZE) {
		u64 *e = pt_split(va + off, 1);

		*e = (*e & PTE_ADDR) | flags;
		invlpg(va + off);
	}
}

void pt_set_user(u64 va, u64 bytes)
{
	for (u64 off = 0; off < bytes; off += PAGE_SIZE) {
		*pt_split(va + off, 1) |= PTE_U;
		invlpg(va + off);
	}
}
