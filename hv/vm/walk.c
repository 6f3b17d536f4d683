/*
 * The guest page-table walker. SDM 3A 4.3 (32-bit paging), 4.4 (PAE), 4.5 (4-level), 4.6 (access
 * rights), 4.7 (page faults), 4.8 (accessed and dirty flags).
 */
#include "vm/walk.h"

#include "vm/memory.h"
#include "x86/regs.h"

/* Bits of paging-structure entries that all modes share (SDM tables 4-4 to 4-20). */
#define PTE_P  BIT64(0)
#define PTE_W  BIT64(1)
#define PTE_U  BIT64(2)
#define PTE_A  BIT64(5)
#define PTE_D  BIT64(6)
#define PTE_PS BIT64(7)
#define PTE_NX BIT64(63)

#define PTE_ADDRESS 0x000ffffffffff000ull

#define CR4_REFUSED (CR4_LA57 | CR4_PKE | CR4_PKS | CR4_CET)

enum paging {
	PAGING_NONE,
	PAGING_32,
	PAGING_PAE,
	PAGING_4LEVEL
};

struct path {
	enum paging paging;
	unsigned int count; /* entries in memory, the last one maps the page */
	unsigned int shift; /* log2 of the page's size */
	struct walk_step step[WALK_LEVELS];
	u64 all, any; /* of the bits of all entries: and, or */
};

/* Bits lo to hi, both included. */
static u64 bits(unsigned int hi, unsigned int lo)
{
	return hi < lo ? 0 : (~0ull >> (63 - hi)) & (~0ull << lo);
}

static enum paging paging_of(const struct walk_state *state)
{
	if (!(state->cr0 & CR0_PG))
		return PAGING_NONE;
	if (!(state->cr4 & CR4_PAE))
		return PAGING_32;
	return state->efer & EFER_LMA ? PAGING_4LEVEL : PAGING_PAE;
}

/* What is reserved in every entry. */
static u64 reserved_always(const struct walk_state *state, enum paging paging)
{
	u64 mask = bits(51, state->phys_bits);

	if (paging == PAGING_32)
		return 0;
	if (paging == PAGING_PAE)
		mask |= bits(62, 52);
	if (!(state->efer & EFER_NXE))
		mask |= PTE_NX;
	return mask;
}

/* What is reserved besides in an entry above the page table (level 1) that has PS set. */
static u64 reserved_large(const struct walk_state *state, enum paging paging, unsigned int level)
{
	if (paging == PAGING_32) /* PSE-36 (SDM 4.3) */
		return bits(21, MIN(state->phys_bits, 40) - 19);
	if (level == 2)
		return bits(20, 13);
	return level == 3 && !state->no_1g ? bits(29, 13) : PTE_PS;
}

static int page_fault(const struct walk_state *state, unsigned int access, u32 why,
		      struct walk_result *out)
{
	out->error_code = why;
	if (access & WALK_WRITE)
		out->error_code |= PF_W;
	if (state->cpl == 3 && !(access & WALK_IMPLICIT))
		out->error_code |= PF_U;
	if ((access & WALK_FETCH) &&
	    ((state->cr4 & CR4_SMEP) || ((state->cr4 & CR4_PAE) && (state->efer & EFER_NXE))))
		out->error_code |= PF_I;
	return WALK_FAULT;
}

/* ERR_AGAIN: it is not here (vm/away.h). */
static inline int read_entry(struct vm *vm, gpa_t at, unsigned int bytes, u64 *value)
{
	int err = guest_read_word(vm, at, bytes, value);

	if (unlikely(err == ERR_AGAIN))
		return err;
	if (err)
		*value = ~0ull >> (64 - 8 * bytes);
	return 0;
}

static inline unsigned int entry_bytes(enum paging paging)
{
	return paging == PAGING_32 ? 4 : 8;
}

/*
 * Reads the entries down to the page. WALK_OK, WALK_FAULT if there is no translation, or WALK_RETRY
 * if a table is not here. Inlined
 * for each kind of paging, which is a constant then.
 */
static inline __attribute__((always_inline)) int descend(struct vm *vm,
							 const struct walk_state *state,
							 enum paging paging, u64 linear,
							 unsigned int access, struct path *path,
							 struct walk_result *out)
{
	bool wide = paging != PAGING_32;
	bool large_pages = wide || (state->cr4 & CR4_PSE);
	unsigned int index_bits = wide ? 9 : 10;
	unsigned int level = paging == PAGING_4LEVEL ? 4 : 2;
	u64 reserved = reserved_always(state, paging);
	unsigned int shift = PAGE_SHIFT + index_bits * level;
	u64 table = state->cr3 & (wide ? PTE_ADDRESS : 0xfffff000u);
	struct walk_step *step = path->step;
	u64 all = ~0ull, any = 0;

	if (paging == PAGING_PAE) {
		table = state->pdpte[linear >> 30 & 3];
		if (!(table & PTE_P))
			return page_fault(state, access, 0, out);
		table &= PTE_ADDRESS;
	}
	for (;; level--, step++) {
		u64 entry, index;
		bool large;

		shift -= index_bits;
		index = linear >> shift & ((1u << index_bits) - 1);
		step->at = gpa(table + index * entry_bytes(paging));
		if (unlikely(read_entry(vm, step->at, entry_bytes(paging), &entry)))
			return WALK_RETRY;
		step->value = entry;
		if (!(entry & PTE_P))
			return page_fault(state, access, 0, out);
		large = level > 1 && (entry & PTE_PS) && large_pages;
		if ((entry & reserved) || (large && (entry & reserved_large(state, paging, level))))
			return page_fault(state, access, PF_P | PF_RSVD, out);
		all &= entry;
		any |= entry;
		if (large || level == 1)
			break;
		table = entry & PTE_ADDRESS;
	}
	path->count = (unsigned int)(step - path->step) + 1;
	path->shift = shift;
	path->all = all;
	path->any = any;
	return WALK_OK;
}

/* Access rights (SDM 4.6.1). */
static bool allowed(const struct walk_state *state, const struct path *path, unsigned int access)
{
	bool implicit = access & WALK_IMPLICIT;
	bool user = path->all & PTE_U, write = path->all & PTE_W;
	bool no_execute = path->any & PTE_NX;

	if (state->cpl == 3 && !implicit) {
		if (!user || ((access & WALK_WRITE) && !write))
			return false;
		return !(access & WALK_FETCH) || !no_execute;
	}
	if (access & WALK_FETCH) {
		if (no_execute || (user && (state->cr4 & CR4_SMEP)))
			return false;
	}
	if (access & (WALK_READ | WALK_WRITE)) {
		if (user && (state->cr4 & CR4_SMAP) && (implicit || !(state->rflags & RFLAGS_AC)))
			return false;
	}
	return !(access & WALK_WRITE) || write || !(state->cr0 & CR0_WP);
}

/* Top down, as the processor does. False: an entry is not what it was when it was read. */
static bool set_flags(struct vm *vm, const struct path *path, unsigned int access)
{
	if ((path->all & PTE_A) && !(access & WALK_WRITE))
		return true;
	for (unsigned int i = 0; i < path->count; i++) {
		const struct walk_step *step = &path->step[i];
		u64 flags = PTE_A;

		if (i == path->count - 1 && (access & WALK_WRITE))
			flags |= PTE_D;
		if ((step->value & flags) == flags)
			continue;
		/* ERR_FAULT cannot be: all-ones entries have both flags, and RAM stays RAM. */
		if (guest_cmpxchg(vm, step->at, entry_bytes(path->paging), step->value,
				  step->value | flags))
			return false;
	}
	return true;
}

static u64 page_address(const struct path *path)
{
	u64 entry = path->step[path->count - 1].value;
	u64 address = entry & PTE_ADDRESS & (~0ull << path->shift);

	/* PSE-36 (SDM 4.3): bits 39:32 of a 4-MByte page are in bits 20:13 of its entry. */
	if (path->paging == PAGING_32 && path->shift > PAGE_SHIFT)
		address |= (entry >> 13 & 0xff) << 32;
	return address;
}

static int read_path(struct vm *vm, const struct walk_state *state, u64 linear, unsigned int access,
		     struct path *path, struct walk_result *out)
{
	if (likely(path->paging == PAGING_4LEVEL))
		return descend(vm, state, PAGING_4LEVEL, linear, access, path, out);
	if (path->paging == PAGING_PAE)
		return descend(vm, state, PAGING_PAE, linear, access, path, out);
	return descend(vm, state, PAGING_32, linear, access, path, out);
}

int walk(struct vm *vm, const struct walk_state *state, gva_t at, unsigned int access,
	 struct walk_result *out)
{
	struct path path;
	u64 linear;

	path.paging = paging_of(state);
	linear = path.paging == PAGING_4LEVEL ? at.v : (u32)at.v;
	if (path.paging == PAGING_NONE) {
		out->addr = gpa(linear);
		out->page_bytes = PAGE_SIZE;
		return WALK_OK;
	}
	if (state->cr4 & CR4_REFUSED)
		return ERR_NOSYS;
	for (unsigned int i = 0; i <= WALK_MAX_RESTARTS; i++) {
		int result = read_path(vm, state, linear, access, &path, out);

		if (result)
			return result;
		if (!allowed(state, &path, access))
			return page_fault(state, access, PF_P, out);
		if ((access & WALK_PROBE) || set_flags(vm, &path, access)) {
			out->addr = gpa(page_address(&path) | (linear & (BIT64(path.shift) - 1)));
			out->page_bytes = BIT64(path.shift);
			return WALK_OK;
		}
	}
	return WALK_RETRY;
}

int walk_explain(struct vm *vm, const struct walk_state *state, gva_t at,
		 struct walk_step step[WALK_LEVELS], unsigned int *count, struct walk_result *out)
{
	struct walk_state supervisor = *state;
	struct path path = {.paging = paging_of(state)};
	int result;

	supervisor.cpl = 0;
	supervisor.rflags |= RFLAGS_AC; /* SMAP is no concern here */
	*count = 0;
	if (path.paging == PAGING_NONE || (state->cr4 & CR4_REFUSED))
		return walk(vm, &supervisor, at, WALK_READ | WALK_PROBE, out);
	/* Marks entries that are never read. */
	for (unsigned int i = 0; i < WALK_LEVELS; i++)
		path.step[i].at = gpa(~0ull);
	result = read_path(vm, &supervisor, path.paging == PAGING_4LEVEL ? at.v : (u64)(u32)at.v,
			   WALK_READ, &path, out);
	for (; *count < WALK_LEVELS && path.step[*count].at.v != ~0ull; ++*count)
		step[*count] = path.step[*count];
	if (result)
		return result;
	out->addr = gpa(page_address(&path) | (at.v & (BIT64(path.shift) - 1)));
	out->page_bytes = BIT64(path.shift);
	return WALK_OK;
}

bool walk_pdptes_valid(const u64 pdpte[4], u8 phys_bits)
{
	u64 reserved = bits(2, 1) | bits(8, 5) | bits(63, phys_bits);

	for (unsigned int i = 0; i < 4; i++) {
		if ((pdpte[i] & PTE_P) && (pdpte[i] & reserved))
			return false;
	}
	return true;
}
