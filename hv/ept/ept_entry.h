/*
 * The bits of an EPT paging-structure entry and of an EPTP (SDM 3C 29.3.2, tables 29-1 to 29-7, and
 * 25.6.11). Private to ept/; users see EPT_R, EPT_W, EPT_X, EPT_XU and enum ept_memtype of ept.h.
 *
 *   bits    table entry              leaf (1G, 2M, 4K)
 *   0-2     read, write, execute     the same
 *   3-5     0                        memory type
 *   6       0                        ignore guest PAT
 *   7       0                        1 in 1G and 2M leaves; ignored, kept 0, in 4K leaves
 *   8       accessed                 accessed (both only with EPTP bit 6)
 *   9       -                        dirty
 *   10      user-mode execute (only with mode-based execute control)
 *   11      -                        ignored by the CPU. Ours: there is a leaf here
 *   12-51   next table               frame (bits below the leaf's size 0)
 *   52-63   0                        0 (suppress #VE, SPP, ...: not used yet)
 *
 * Bit 11 makes a leaf without any permission differ from a hole: the CPU sees neither as present,
 * but the leaf keeps its frame, so that ept_protect() can give rights back. A hole is 0.
 */
#pragma once

#include "ept/ept.h"

#define EPTE_TYPE_SHIFT 3
#define EPTE_TYPE	(7ull << EPTE_TYPE_SHIFT)
#define EPTE_IGNORE_PAT BIT64(6)
#define EPTE_LARGE	BIT64(7)
#define EPTE_A		BIT64(8)
#define EPTE_D		BIT64(9)
#define EPTE_MAPPED	BIT64(11)
#define EPTE_ADDR	0x000ffffffffff000ull
#define EPTE_PERMS	(EPT_RWX | EPT_XU)
/* What two neighbours must have in common to become one leaf, and a piece inherits from the whole.
 */
#define EPTE_ATTRS (EPTE_PERMS | EPTE_TYPE | EPTE_IGNORE_PAT | EPTE_MAPPED)

#define EPTP_WB	     6ull
#define EPTP_LEVELS4 (3ull << 3) /* page-walk length minus 1 */
#define EPTP_AD	     BIT64(6)

#define EPT_ENTRIES    512u
#define EPT_LEVELS     4u /* 4 = PML4 (root), 3 = PDPT, 2 = PD, 1 = PT */
#define EPT_GUEST_BITS 48

_Static_assert((EPTE_ATTRS & (EPTE_A | EPTE_D | EPTE_LARGE | EPTE_ADDR)) == 0, "fields overlap");
_Static_assert((EPTE_ATTRS | EPTE_A | EPTE_D | EPTE_LARGE) == 0xfff, "bits 11:0 are all named");
_Static_assert(EPT_RWX == 0x7 && EPT_XU == 0x400, "SDM table 29-7");
_Static_assert((EPTP_WB | EPTP_LEVELS4 | EPTP_AD) == 0x5e, "SDM table 25-9");
_Static_assert(PAGE_SHIFT + EPT_LEVELS * 9 == EPT_GUEST_BITS, "four levels of nine bits");

static inline unsigned int ept_shift(unsigned int level)
{
	return PAGE_SHIFT + 9 * (level - 1);
}

static inline u64 ept_span(unsigned int level)
{
	return BIT64(ept_shift(level));
}

static inline unsigned int ept_index(u64 at, unsigned int level)
{
	return at >> ept_shift(level) & (EPT_ENTRIES - 1);
}

/*
 * The attributes of a leaf. Write-back memory is that whatever the guest's PAT says: Umbra reaches
 * the same frames by write-back mappings, and processors without self-snoop would let an uncached
 * read pass by a dirty line, to what the frame's last owner left (SDM 12.12.4).
 */
static inline u64 epte_attrs(u64 perms, enum ept_memtype type)
{
	return perms | (u64)type << EPTE_TYPE_SHIFT | EPTE_MAPPED |
	       (type == EPT_WB ? EPTE_IGNORE_PAT : 0);
}

static inline bool epte_is_leaf(u64 e)
{
	return e & EPTE_MAPPED;
}

static inline bool epte_is_table(u64 e)
{
	return e != 0 && !(e & EPTE_MAPPED);
}

/* Present to the CPU: it may be cached. (Bit 10 is never set in views without MBEC.) */
static inline bool epte_is_present(u64 e)
{
	return e & EPTE_PERMS;
}

static inline u64 *epte_table(u64 e)
{
	return phys_to_ptr(hpa(e & EPTE_ADDR));
}

static inline u64 epte_load(const u64 *slot)
{
	return __atomic_load_n(slot, __ATOMIC_RELAXED);
}

/* Release: a table is filled before the entry that points to it can be seen. */
static inline void epte_store(u64 *slot, u64 e)
{
	__atomic_store_n(slot, e, __ATOMIC_RELEASE);
}

/* Fails, refreshing *old, where the CPU has set A or D in between (or spuriously). */
static inline bool epte_replace(u64 *slot, u64 *old, u64 e)
{
	return __atomic_compare_exchange_n(slot, old, e, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}

/* --- tables (ept_table.c); the caller holds view->lock ---------------------------------------- */

/* A zeroed table from the reserve, which the caller has checked to hold one. */
u64 *ept_table_take(struct ept_view *view);

/*
 * Takes a table, and every table below it, out of use; nothing points to it any more, but CPUs in
 * guest mode may walk it until they have acknowledged `generation`. Its frame goes to limbo.
 */
void ept_table_retire(struct ept_view *view, u64 *table, unsigned int level, u64 generation);

/* Moves what died in `acknowledged` or an earlier generation from limbo to the reserve. */
void ept_table_reclaim(struct ept_view *view, u64 acknowledged);
