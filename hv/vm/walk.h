/*
 * The guest page-table walker: what the processor does to a linear address (SDM 3A chapter 4), with
 * accessed and dirty flags, in every paging mode a guest can have. The only one in the tree.
 *
 * Portable C: knows the paging registers and guest memory (guest_read_word, guest_cmpxchg of
 * vm/memory.h), nothing of VMCS. The vCPU conveniences are in vm/linear.h.
 *
 * Not here, because guests cannot have them: 5-level paging, protection keys and shadow stacks
 * (CPUID hides them; a walk with CR4.LA57, PKE, PKS or CET set is ERR_NOSYS).
 */
#pragma once

#include "lib/types.h"

struct vm;

struct walk_state {
	u64 cr0, cr3, cr4, efer, rflags; /* rflags: AC only */
	u64 pdpte[4]; /* PAE paging: the PDPTE registers (SDM 4.4.1), not memory */
	u8 cpl;
	u8 phys_bits; /* MAXPHYADDR of the guest's CPU, 32 to 52 */
	bool no_1g;   /* CPUID.80000001H:EDX[26] = 0: PS in a PDPTE is reserved */
};

/* What the access is. READ | WRITE for a read-modify-write. Values as EMU_* of emu/emu.h. */
#define WALK_READ     BIT(0)
#define WALK_WRITE    BIT(1)
#define WALK_FETCH    BIT(2)
#define WALK_IMPLICIT BIT(3) /* implicit supervisor access whatever CPL: GDT, LDT, IDT, TSS */
#define WALK_PROBE    BIT(4) /* set no accessed or dirty flag */

/* walk() and those built on it return one of these, or a negative error. */
enum walk_status {
	WALK_OK = 0,
	WALK_FAULT = 1, /* the guest gets an exception */
	WALK_RETRY = 2, /* the tables kept changing: enter the guest again, nothing has been done */
};

struct walk_result {
	gpa_t addr;	/* WALK_OK: of the byte at the linear address */
	u64 page_bytes; /* WALK_OK: 4 KiB to 1 GiB; without paging 4 KiB */
	u32 error_code; /* WALK_FAULT: of the #PF (SDM 4.7) */
};

/*
 * Translates one address for one access. The caller has made sure that it is canonical (4-level
 * paging); outside of IA-32e mode bits 63:32 are ignored. Each entry is read once; accessed and
 * dirty flags are set by compare-exchange with what was read, after all checks, and the walk starts
 * again if an entry has changed meanwhile (WALK_RETRY after WALK_MAX_RESTARTS times).
 *
 * An entry outside of guest RAM reads as all ones, like every hole of the guest's address space.
 */
#define WALK_MAX_RESTARTS 16
int walk(struct vm *vm, const struct walk_state *state, gva_t at, unsigned int access,
	 struct walk_result *out);

/* A paging-structure entry on the way down: where it lies, and what was read there. */
struct walk_step {
	gpa_t at;
	u64 value;
};
#define WALK_LEVELS 4

/*
 * For people: the entries that a supervisor read of this address goes through, top down, up to the
 * one that maps the page or refuses; *count of them (PAE paging: without the PDPTE, a register).
 * Changes nothing. WALK_OK, WALK_FAULT (*out has the error code) or ERR_NOSYS.
 */
int walk_explain(struct vm *vm, const struct walk_state *state, gva_t at,
		 struct walk_step step[WALK_LEVELS], unsigned int *count, struct walk_result *out);

/* PAE paging: the four PDPTEs that CR3 points to are all valid (SDM 4.4.1): no reserved bit set. */
bool walk_pdptes_valid(const u64 pdpte[4], u8 phys_bits);
