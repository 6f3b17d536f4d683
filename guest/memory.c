/*
 * Guest-physical memory: first touches of every kind and size, accesses over boundaries, all of RAM
 * by an address pattern, accessed and dirty flags of the guest's own tables, and on Umbra the
 * view's permissions, discarded pages, the size of EPT leaves, and addresses where nothing is.
 */
#include <umbra/features.h>

#include "cpu.h"
#include "mem.h"
#include "umbra.h"

#define TEST_VA 0x4200000000ull
#define HIGH_VA 0x8000000000ull /* RAM above 4 GiB is mapped from here */

#define RAISE(insn, ...)                            \
	do {                                        \
		trap_clear();                       \
		asm volatile(EX(insn) __VA_ARGS__); \
	} while (0)

static u64 seed;

/* Untouched is not enough on Umbra: a neighbour's large EPT leaf may map it already. */
static u64 fresh(u64 pages)
{
	u64 base = (u64)(uintptr_t)mem_alloc(pages * PAGE_SIZE, PAGE_SIZE);

	if (!base)
		tap_bail("out of memory");
	if (umbra_present() && hypercall(HC_DISCARD, base, pages * PAGE_SIZE, 0, 0))
		tap_bail("HC_DISCARD refused");
	return base;
}

static volatile u8 *bytes_at(u64 address)
{
	return (volatile u8 *)(uintptr_t)address;
}

static volatile u64 *word_at(u64 address)
{
	return (volatile u64 *)(uintptr_t)address;
}

static u64 pattern(u64 address)
{
	u64 x = address ^ seed;

	x ^= x >> 31;
	x *= 0x9e3779b97f4a7c15ull;
	return x ^ x >> 29;
}

static void test_first_touch(void)
{
	u64 p;

	p = fresh(1);
	tap_is(*word_at(p), 0, "a fresh page reads as zero");
	p = fresh(1);
	*word_at(p + 8) = 5;
	tap_ok(*word_at(p + 8) == 5 && *word_at(p) == 0, "write to a fresh page");
	p = fresh(2);
	*word_at(p + PAGE_SIZE - 3) = 0x1122334455667788ull;
	tap_ok(*word_at(p + PAGE_SIZE - 3) == 0x1122334455667788ull &&
		       bytes_at(p)[PAGE_SIZE] == 0x55,
	       "write across two fresh pages");
	p = fresh(2);
	tap_is(*word_at(p + PAGE_SIZE - 5), 0, "read across two fresh pages");
	p = fresh(2);
	asm volatile("lock addq %1, %0" : "+m"(*word_at(p + PAGE_SIZE - 4)) : "r"(0x123456789abll));
	tap_is(*word_at(p + PAGE_SIZE - 4), 0x123456789abll, "locked add across two fresh pages");
	p = fresh(1) + PAGE_SIZE;
	asm volatile("xchgq %%rsp, %0; pushq $0x77; popq %%rax; pushq %%rax; xchgq %%rsp, %0"
		     : "+r"(p)
		     :
		     : "rax", "memory");
	tap_is(*word_at(p), 0x77, "a fresh stack");
	p = fresh(6);
	u64 from = p + 100, to = p + 3 * PAGE_SIZE + 50, count = 2 * PAGE_SIZE;

	*bytes_at(p + PAGE_SIZE + 7) = 9;
	asm volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(count) : : "memory");
	tap_ok(!count && *bytes_at(p + 4 * PAGE_SIZE + 7 - 50) == 9,
	       "REP MOVSB from fresh to fresh pages");
	p = fresh(2);
	asm volatile("fxsave64 (%0)" : : "r"(p + PAGE_SIZE - 256) : "memory");
	tap_is(*word_at(p + PAGE_SIZE - 256) & 0xffff, 0x37f, "FXSAVE across two fresh pages");
	p = fresh(1);
	asm volatile("lock cmpxchg16b (%0)"
		     :
		     : "r"(p), "a"(0ull), "d"(0ull), "b"(3ull), "c"(4ull)
		     : "memory", "cc");
	tap_ok(*word_at(p) == 3 && *word_at(p + 8) == 4, "CMPXCHG16B on a fresh page");
	p = fresh(2);
	asm volatile("pushq (%0); popq (%1)" : : "r"(p), "r"(p + PAGE_SIZE) : "memory");
	tap_is(*word_at(p + PAGE_SIZE), 0, "PUSH from and POP to fresh pages");
	asm volatile("sgdt (%0)" : : "r"(fresh(1)) : "memory");
	tap_ok(true, "SGDT to a fresh page");
}

static u64 called(u64 address)
{
	u64 rax = address & ~0xfffull, rbx = 5;

	/* RAX points to memory that ADD may change by zero: AL is its low byte, 0. */
	asm volatile("call *%2"
		     : "+a"(rax), "+b"(rbx)
		     : "r"(address)
		     : "memory", "cc", "rcx", "rdx");
	return rbx;
}

/* A fresh page holds 00 00: ADD %al, (%rax). Code around it leads back. */
static void test_fetch(void)
{
	u64 p = fresh(2);

	bytes_at(p)[PAGE_SIZE] = 0xc3;
	called(p + PAGE_SIZE - 2);
	tap_ok(true, "fetch from a fresh page");
	p = fresh(2);
	bytes_at(p)[PAGE_SIZE] = 0xc3; /* 00 c3: ADD %al, %bl, then RET */
	bytes_at(p)[PAGE_SIZE + 1] = 0xc3;
	tap_is(called(p + PAGE_SIZE - 1), 5, "fetch of an instruction from a fresh page onwards");
	p = fresh(3);
	bytes_at(p)[PAGE_SIZE - 1] = 0xbb; /* MOV $0, %ebx, four bytes of it on the fresh page */
	bytes_at(p)[2 * PAGE_SIZE] = 0xc3;
	tap_is(called(p + PAGE_SIZE - 1), 0, "fetch of an instruction onto a fresh page");
	p = fresh(1);
	bytes_at(p)[0] = 0xc3;
	called(p);
	bytes_at(p)[0] = 0x90; /* NOP; RET: the processor must see what was just written */
	bytes_at(p)[1] = 0xb3;
	bytes_at(p)[2] = 0x21;
	bytes_at(p)[3] = 0xc3;
	tap_is(called(p), 0x21, "code written over runs as written");
}

static void test_large_boundaries(void)
{
	u64 base = (u64)(uintptr_t)mem_alloc(4 * SIZE_2M, SIZE_2M), at;

	if (!base) {
		tap_skip("8 MiB aligned to 2 MiB are not there");
		return;
	}
	at = base + SIZE_2M - 4;
	*word_at(at) = 0x1122334455667788ull;
	tap_is(*word_at(at), 0x1122334455667788ull, "write across a 2 MiB boundary");
	at = base + 2 * SIZE_2M - 1;
	tap_is(*word_at(at), 0, "read across a fresh 2 MiB boundary");
	at = base + 3 * SIZE_2M;
	*bytes_at(at) = 0xc3;
	*bytes_at(at + 1) = 0xc3;
	tap_is(called(at - 1), 5, "fetch across a 2 MiB boundary");
	/* The same memory through the guest's three page sizes. */
	*word_at(base + 0x1238) = pattern(base);
	pt_map(TEST_VA, base, PAGE_SIZE * 2, PTE_P | PTE_W, 1);
	tap_is(*word_at(TEST_VA + 0x1238), pattern(base), "through a 4 KiB page");
	pt_map(TEST_VA + SIZE_1G, base, SIZE_2M, PTE_P | PTE_W, 2);
	tap_is(*word_at(TEST_VA + SIZE_1G + 0x1238), pattern(base), "through a 2 MiB page");
	if (cpuid(0x80000001, 0).edx & BIT(26)) {
		u64 gib = base & ~(SIZE_1G - 1);

		pt_map(TEST_VA + 2 * SIZE_1G, gib, SIZE_1G, PTE_P | PTE_W, 3);
		tap_is(*word_at(TEST_VA + 2 * SIZE_1G + base - gib + 0x1238), pattern(base),
		       "through a 1 GiB page");
	}
	/* A guest page table in memory that nothing touched: empty, so #PF. */
	*pt_split(TEST_VA + 3 * SIZE_1G, 2) = fresh(1) | PTE_P | PTE_W;
	RAISE("movl (%0), %%eax", : : "r"(TEST_VA + 3 * SIZE_1G) : "eax", "memory");
	tap_ok(trap_last()->vector == VEC_PF && trap_last()->error == 0,
	       "walk through a fresh page table: #PF, not present");
}

static void flags_of(u64 va, u64 flags[4])
{
	for (unsigned int level = 1; level <= 4; level++)
		flags[level - 1] = *pt_entry(va, level) & (PTE_A | PTE_D);
}

static void test_accessed_dirty(void)
{
	u64 va = TEST_VA + 4 * SIZE_1G, p = fresh(1), f[4];

	*word_at(p) = 0xc3;
	pt_map(va, p, PAGE_SIZE, PTE_P | PTE_W, 1);
	for (unsigned int level = 1; level <= 3; level++)
		*pt_entry(va, level) &= ~(PTE_A | PTE_D);
	invlpg(va);
	(void)*word_at(va);
	flags_of(va, f);
	tap_ok(f[0] == PTE_A && f[1] & PTE_A && f[2] & PTE_A && f[3] & PTE_A,
	       "a read sets A at every level, not D");
	*word_at(va + 8) = 1;
	flags_of(va, f);
	tap_is(f[0], PTE_A | PTE_D, "a write sets D");
	*pt_entry(va, 1) &= ~(PTE_A | PTE_D);
	invlpg(va);
	called(va);
	flags_of(va, f);
	tap_is(f[0], PTE_A, "a fetch sets A");
	*pt_entry(va, 1) &= ~(PTE_A | PTE_D | PTE_W);
	invlpg(va);
	RAISE("movb $1, (%0)", : : "r"(va) : "memory");
	flags_of(va, f);
	tap_ok(trap_last()->vector == VEC_PF && !(f[0] & PTE_D), "a refused write does not set D");
}

/* Calls fn for each page of usable RAM that is free; maps RAM above 4 GiB first. */
static u64 each_page(u64 (*fn)(u64 page, volatile u64 *where))
{
	u64 result = 0;

	for (u32 i = 0; i < boot.range_count; i++) {
		const struct mem_range *r = &boot.range[i];
		u64 end = (r->base + r->bytes) & ~(PAGE_SIZE - 1);

		if (r->type != MEM_USABLE)
			continue;
		for (u64 p = MAX((r->base + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1), mem_next()); p < end;
		     p += PAGE_SIZE) {
			u64 va = p < 4 * SIZE_1G ? p : HIGH_VA + p;

			if (va != p && !(p & (SIZE_2M - 1)))
				pt_map(va, p, SIZE_2M, PTE_P | PTE_W, 2);
			result += fn(p, word_at(va));
		}
	}
	return result;
}

static u64 fill(u64 page, volatile u64 *where)
{
	/* A different place in each page, and the last word. */
	where[pattern(page) & 255] = pattern(page);
	where[511] = ~pattern(page);
	return 1;
}

static u64 verify(u64 page, volatile u64 *where)
{
	return where[pattern(page) & 255] != pattern(page) || where[511] != ~pattern(page);
}

static void test_all_ram(void)
{
	u64 tables = ram_top() > 4 * SIZE_1G ? (ram_top() - 4 * SIZE_1G) / SIZE_1G + 3 : 0, pages;

	/* Page tables are taken first, so that filling does not overwrite them. */
	for (u64 i = 0; i < tables; i++)
		pt_split(HIGH_VA + 4 * SIZE_1G + i * SIZE_1G, 2);
	pages = each_page(fill);
	tap_is(each_page(verify), 0, "%lu pages of RAM each keep their own value", pages);
}

static void test_page_size(void)
{
	u64 base, size, p = fresh(1);
	s64 n = hypercall(HC_PAGE_SIZE, p, 0, 0, 0);

	tap_ok(n == 0 || n == 12 || n == 21 || n == 30, "HC_PAGE_SIZE of a fresh page: %ld", n);
	*word_at(p) = 1;
	n = hypercall(HC_PAGE_SIZE, p, 0, 0, 0);
	tap_ok(n == 12 || n == 21 || n == 30, "HC_PAGE_SIZE after a touch: %ld", n);
	tap_is((u64)hypercall(HC_PAGE_SIZE, 0xd0000000, 0, 0, 0), (u64)HC_EINVAL,
	       "HC_PAGE_SIZE where no RAM is");
	base = (u64)(uintptr_t)mem_alloc(SIZE_2M, SIZE_2M);
	if (!base)
		return;
	for (u64 i = 0; i < SIZE_2M; i += PAGE_SIZE)
		*word_at(base + i) = pattern(base + i);
	size = (u64)hypercall(HC_PAGE_SIZE, base, 0, 0, 0);
	if (size < 21) {
		tap_skip("RAM is not mapped by large EPT leaves: split and merge");
		return;
	}
	hypercall(HC_PROTECT, base + 5 * PAGE_SIZE, PAGE_SIZE, HC_PERM_R | HC_PERM_X, 0);
	tap_is((u64)hypercall(HC_PAGE_SIZE, base + 5 * PAGE_SIZE, 0, 0, 0), 12,
	       "protecting one page splits the leaf");
	tap_is((u64)hypercall(HC_PAGE_SIZE, base + 6 * PAGE_SIZE, 0, 0, 0), 12,
	       "also for its neighbour");
	hypercall(HC_PROTECT, base + 5 * PAGE_SIZE, PAGE_SIZE, HC_PERM_R | HC_PERM_W | HC_PERM_X,
		  0);
	*word_at(base + 5 * PAGE_SIZE + 8) = 1;
	n = hypercall(HC_PAGE_SIZE, base + 5 * PAGE_SIZE, 0, 0, 0);
	tap_ok(n >= 21, "equal permissions merge it again: %ld", n);
	size = 0;
	for (u64 i = 0; i < SIZE_2M; i += PAGE_SIZE)
		size += *word_at(base + i) != pattern(base + i);
	tap_is(size, 0, "contents survive split and merge");
}

static bool refused(u64 code, u64 cr2)
{
	const struct trap *t = trap_last();
	bool good = t->vector == VEC_PF && (t->error & HC_PF_EPT) &&
		    (t->error & (PF_W | PF_I)) == code && t->cr2 == cr2 && t->rip == t->insn;

	if (!good)
		tap_note("got vector %d error 0x%lx CR2 0x%lx", t->vector, t->error, t->cr2);
	return good;
}

static s64 protect(u64 page, u64 n, u64 perms)
{
	return hypercall(HC_PROTECT, page, n * PAGE_SIZE, perms, 0);
}

#define RWX (HC_PERM_R | HC_PERM_W | HC_PERM_X)

static void test_protect(void)
{
	u64 p = fresh(4);
	struct trap t;

	for (u64 i = 0; i < 4; i++)
		*word_at(p + i * PAGE_SIZE) = 0xc3;
	tap_is((u64)protect(p + PAGE_SIZE, 1, HC_PERM_R | HC_PERM_X), 0, "HC_PROTECT read-execute");
	RAISE("movl $1, 16(%0)", : : "r"(p + PAGE_SIZE) : "memory");
	tap_ok(refused(PF_W, p + PAGE_SIZE + 16), "a write is refused");
	tap_is(*word_at(p + PAGE_SIZE + 16), 0, "and not done");
	RAISE("movl (%0), %%eax", : : "r"(p + PAGE_SIZE) : "eax", "memory");
	tap_is((u64)trap_last()->vector, (u64)TRAP_NONE, "a read is allowed");
	called(p + PAGE_SIZE);
	tap_ok(true, "a fetch is allowed");
	RAISE("movq %%rax, (%0)", : : "r"(p + PAGE_SIZE - 4), "a"(~0ull) : "memory");
	tap_ok(refused(PF_W, p + PAGE_SIZE), "a write across into it is refused");
	tap_ok(*word_at(p + PAGE_SIZE - 8) == 0, "and its first half not done");
	RAISE("lock addl $1, (%0)", : : "r"(p + PAGE_SIZE) : "memory", "cc");
	tap_ok(refused(PF_W, p + PAGE_SIZE), "a locked add is refused");
	*word_at(p) = 1;
	*word_at(p + 2 * PAGE_SIZE) = 1;
	tap_ok(true, "neighbours stay writable");

	tap_is((u64)protect(p + PAGE_SIZE, 1, HC_PERM_R | HC_PERM_W), 0, "HC_PROTECT read-write");
	*word_at(p + PAGE_SIZE + 16) = 7;
	tap_is(*word_at(p + PAGE_SIZE + 16), 7, "a write is allowed");
	tap_ok(trap_run(&t, (void (*)(void *))(uintptr_t)(p + PAGE_SIZE), NULL) &&
		       t.vector == VEC_PF && (t.error & (HC_PF_EPT | PF_I)) == (HC_PF_EPT | PF_I) &&
		       t.cr2 == p + PAGE_SIZE && t.rip == p + PAGE_SIZE,
	       "a fetch is refused");

	tap_is((u64)protect(p + PAGE_SIZE, 1, 0), 0, "HC_PROTECT nothing");
	RAISE("movl 8(%0), %%eax", : : "r"(p + PAGE_SIZE) : "eax", "memory");
	tap_ok(refused(0, p + PAGE_SIZE + 8), "a read is refused");
	tap_is((u64)protect(p + PAGE_SIZE, 1, RWX), 0, "HC_PROTECT everything");
	tap_ok(*word_at(p + PAGE_SIZE + 16) == 7 && *word_at(p + PAGE_SIZE) == 0xc3,
	       "contents are as before");
	called(p + PAGE_SIZE);
	tap_is((u64)protect(p, 1, HC_PERM_W), (u64)HC_EINVAL, "write-only is EINVAL");
	tap_is((u64)protect(p, 1, 8), (u64)HC_EINVAL, "an unknown permission is EINVAL");
	tap_is((u64)protect(p + 8, 1, RWX), (u64)HC_EINVAL, "an unaligned address is EINVAL");
	tap_is((u64)hypercall(HC_PROTECT, p, 100, RWX, 0), (u64)HC_EINVAL, "unaligned size");
	tap_is((u64)protect(0xd0000000, 1, RWX), (u64)HC_EINVAL, "no RAM there");
	tap_is((u64)hypercall(HC_PROTECT, p, ~0xfffull, RWX, 0), (u64)HC_EINVAL, "end wraps");
}

/* The processor's own accesses: page walks and event delivery. */
static void test_protect_implicit(void)
{
	u64 va = TEST_VA + 5 * SIZE_1G, p = fresh(1), table;
	struct desc_ptr unused;

	pt_map(va, p, PAGE_SIZE, PTE_P | PTE_W, 1);
	table = *pt_entry(va, 2) & PTE_ADDR;
	protect(table, 1, HC_PERM_R);
	*word_at(p) = 3;
	invlpg(va);
	RAISE("movl (%0), %%eax", : : "r"(va) : "eax", "memory");
	/* Without EPT A/D, Bochs (2.7, 3.0) sets A without asking the EPT for write permission. */
	if (hypercall(HC_FEATURES, 0, 0, 0, 0) & BIT(FEAT_EPT_AD))
		tap_ok(trap_last()->vector == VEC_PF && trap_last()->error & HC_PF_EPT &&
			       trap_last()->cr2 == va,
		       "a walk that must set A in a read-only table is refused");
	else
		tap_skip("a walk that must set A in a read-only table is refused: needs ept_ad");
	protect(table, 1, RWX);
	tap_is(*word_at(va), 3, "and works when the table is writable again");
	protect(table, 1, 0);
	invlpg(va);
	RAISE("movl (%0), %%eax", : : "r"(va) : "eax", "memory");
	tap_ok(trap_last()->vector == VEC_PF && trap_last()->error & HC_PF_EPT &&
		       trap_last()->cr2 == va,
	       "a walk through an unreadable table is refused");
	protect(table, 1, RWX);
	p = fresh(1);
	protect(p, 1, HC_PERM_R);
	cpus[0].tss.ist[6] = p + PAGE_SIZE;
	idt_set_ist(0x77, 7);
	RAISE("int $0x77", : : : "memory");
	idt_reset(0x77, false);
	tap_ok(refused(PF_W, p + PAGE_SIZE - 8), "INT n to a read-only stack");
	asm volatile("sidt %0" : "=m"(unused));
	RAISE("sidt (%0)", : : "r"(p) : "memory");
	tap_ok(refused(PF_W, p), "SIDT to a read-only page");
	protect(p, 1, RWX);
}

static void test_discard(void)
{
	u64 p = fresh(3), base, bad = 0;

	for (u64 i = 0; i < 3; i++)
		*word_at(p + i * PAGE_SIZE) = pattern(i);
	tap_is((u64)hypercall(HC_DISCARD, p + PAGE_SIZE, PAGE_SIZE, 0, 0), 0, "HC_DISCARD");
	tap_is(*word_at(p + PAGE_SIZE), 0, "a discarded page reads as zero");
	tap_ok(*word_at(p) == pattern(0) && *word_at(p + 2 * PAGE_SIZE) == pattern(2),
	       "its neighbours do not");
	*word_at(p + PAGE_SIZE) = 4;
	tap_is(*word_at(p + PAGE_SIZE), 4, "it can be written again");
	for (u32 i = 0; i < 100; i++) {
		*word_at(p + PAGE_SIZE) = i + 1;
		hypercall(HC_DISCARD, p + PAGE_SIZE, PAGE_SIZE, 0, 0);
		bad += *word_at(p + PAGE_SIZE) != 0;
	}
	tap_is(bad, 0, "a hundred times over");
	tap_is((u64)hypercall(HC_DISCARD, p + 1, PAGE_SIZE, 0, 0), (u64)HC_EINVAL, "unaligned");
	tap_is((u64)hypercall(HC_DISCARD, p, 5, 0, 0), (u64)HC_EINVAL, "unaligned size");
	tap_is((u64)hypercall(HC_DISCARD, 0xd0000000, PAGE_SIZE, 0, 0), (u64)HC_EINVAL, "no RAM");
	base = (u64)(uintptr_t)mem_alloc(SIZE_2M, SIZE_2M);
	if (!base)
		return;
	for (u64 i = 0; i < SIZE_2M; i += PAGE_SIZE)
		*word_at(base + i) = pattern(i);
	tap_is((u64)hypercall(HC_DISCARD, base, SIZE_2M, 0, 0), 0, "HC_DISCARD of 2 MiB");
	bad = 0;
	for (u64 i = 0; i < SIZE_2M; i += PAGE_SIZE)
		bad += *word_at(base + i) != 0;
	tap_is(bad, 0, "all of it reads as zero");
}

void guest_main(void)
{
	seed = opt_u64("seed", 1);
	test_first_touch();
	test_fetch();
	test_large_boundaries();
	test_accessed_dirty();
	if (umbra_present()) {
		test_page_size();
		test_protect();
		test_protect_implicit();
		test_discard();
	} else {
		tap_skip("HC_PROTECT, HC_DISCARD and HC_PAGE_SIZE need Umbra");
	}
	test_all_ram();
}
