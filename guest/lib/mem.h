/*
 * Memory: the loader's map, a page allocator that never takes pages back, and page tables.
 * All page tables lie in identity-mapped memory below 4 GiB.
 */
#pragma once

#include "lib.h"

#define MEM_USABLE 1 /* as in Multiboot and E820; all else is reserved */

struct mem_range {
	u64 base, bytes;
	u32 type;
};

struct module {
	u64 base, bytes;
	char cmdline[128];
};

#define BOOT_MAX_RANGES	 32
#define BOOT_MAX_MODULES 8

/* Copied from the loader before low memory is used for anything. */
struct boot {
	u32 protocol; /* PROTO_* */
	u32 range_count;
	u32 module_count;
	char cmdline[1024];
	struct mem_range range[BOOT_MAX_RANGES];
	struct module module[BOOT_MAX_MODULES];
};
extern struct boot boot;

/* What Linux's 64-bit entry point found; zeroes if the kernel was started otherwise. */
struct linux_entry {
	u64 rsi, rsp, rflags, cr0, cr3, cr4, efer;
	u16 cs, ds, es, ss;
	u16 gdt_limit;
	u64 gdt_base __attribute__((packed));
	u8 unused[6];
};
extern struct linux_entry linux_entry;
_Static_assert(offsetof(struct linux_entry, cs) == LE_CS, "LE_CS");
_Static_assert(offsetof(struct linux_entry, gdt_limit) == LE_GDTR, "LE_GDTR");
_Static_assert(sizeof(struct linux_entry) == LE_BYTES, "LE_BYTES");

/* Usable bytes in all; and the end of the highest usable range. */
u64 ram_bytes(void);
u64 ram_top(void);
/* True if all of [base, base + bytes) is usable RAM. */
bool ram_contains(u64 base, u64 bytes);

/*
 * Memory above kernel and modules and below 4 GiB, handed out upwards, aligned to `align` (power of
 * two), not zeroed and never touched before (a test of fresh pages may count on that); NULL when
 * used up. page_alloc() returns one zeroed page. mem_next() is where the next one would begin.
 */
void *mem_alloc(u64 bytes, u64 align);
void *page_alloc(void);
u64 mem_next(void);

#define PTE_P	 BIT64(0)
#define PTE_W	 BIT64(1)
#define PTE_U	 BIT64(2)
#define PTE_PWT	 BIT64(3)
#define PTE_PCD	 BIT64(4)
#define PTE_A	 BIT64(5)
#define PTE_D	 BIT64(6)
#define PTE_PS	 BIT64(7)
#define PTE_G	 BIT64(8)
#define PTE_NX	 BIT64(63)
#define PTE_ADDR 0x000ffffffffff000ull

/*
 * All of these work on the tables that CR3 points to (4 levels). `level` is 1 for 4 KiB, 2 for
 * 2 MiB, 3 for 1 GiB entries, 4 for the root's. They invalidate on the calling CPU only.
 *
 * pt_entry(): the entry of `va` at a level, or NULL if the walk ends above it.
 * pt_map(): maps [va, va + bytes) with leaves of `level`, splitting larger ones in the way; upper
 * entries get P, W and U, so the leaf's flags decide. Aborts when memory runs out.
 * pt_unmap(): makes the leaves of the range not present, whatever their size.
 * pt_split(): makes sure that the page of `va` is mapped by an entry of `level`; returns it.
 */
u64 *pt_entry(u64 va, unsigned int level);
u64 *pt_leaf(u64 va, unsigned int *level);
u64 *pt_split(u64 va, unsigned int level);
void pt_map(u64 va, u64 pa, u64 bytes, u64 flags, unsigned int level);
void pt_unmap(u64 va, u64 bytes);
/* Adds the U flag to 4 KiB pages that are mapped; changes them to `flags` (and the address kept).
 */
void pt_set_user(u64 va, u64 bytes);
void pt_protect(u64 va, u64 bytes, u64 flags);
