/*
 * The hypervisor's own address space (SDM 3A 4.5), the same on every CPU:
 *
 *   DIRECT_MAP_BASE + p   physical memory p: RAM, and the MMIO ranges asked for; read-write, no
 *execute; without the image's text and read-only pages
 *   __image_start ...     the image: text R-X, rodata R--, data RW-
 *   STACK_AREA ...        one slot per CPU: its stacks, each with a guard page below
 *
 * No page is writable and executable at once.
 */
#pragma once

#include <umbra/boot_info.h>

#include "lib/types.h"

enum paging_type {
	PAGING_WB,
	PAGING_WC,
	PAGING_UC
};

/*
 * IA32_PAT as Umbra sets it on every CPU (SDM 3A 11.12): entry 0 WB, 1 WC, 2 UC-, 3 UC, 4 WB, 5 WP,
 * 6 UC-, 7 WT. Entries 0, 2, 3 and 4 are what the reset value has there, so that mappings made
 * before keep their meaning.
 */
#define PAGING_PAT 0x0407050600070106ull

/* Defined above x86/ (main.c): one zeroed frame for a page table or a stack. Never fails. */
hpa_t paging_alloc_table(void);

/* Builds the tables and loads them on the calling CPU. */
void paging_init(const struct boot_info *boot);

/* Loads the tables on the calling CPU, with PAT, NX and write protection. */
void paging_load(void);

u64 paging_cr3(void);

/*
 * Makes physical memory that is not RAM (device registers, firmware tables) accessible in the
 * direct map; returns where. What is mapped already stays as it is. Any CPU; never unmapped.
 */
void *paging_map_mmio(hpa_t base, u64 bytes, enum paging_type type);

/*
 * Creates the stacks of a CPU: a main stack of STACK_BYTES, and one for each interrupt-stack-table
 * entry. tops[0] is the main stack's, the rest by enum ist (x86/desc.h).
 */
#define STACK_BYTES (16 * KIB)
#define STACK_COUNT 4
void paging_map_stacks(u32 cpu, u8 *tops[STACK_COUNT]);

/* Whether an address lies on a stack that is mapped; whether it lies in a guard page of one. */
bool paging_is_stack(u64 addr);
bool paging_is_guard(u64 addr);

/* The physical address of something in the image (not in the direct map, not on a stack). */
hpa_t image_to_phys(const void *p);

/* Bytes between two labels that the linker placed. */
static inline u64 label_span(const void *from, const void *to)
{
	return (u64)(uintptr_t)to - (u64)(uintptr_t)from;
}
