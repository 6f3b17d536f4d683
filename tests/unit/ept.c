/*
 * hv/ept against the processor's view of the tables (ept_hw.c): literal entries, each operation,
 * and long random sequences compared with an array of pages.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <umbra/features.h>

#include "ept/ept.h"
#include "ept_hw.h"
#include "frames.h"

#define F_1G   BIT64(FEAT_EPT_1G)
#define F_XO   BIT64(FEAT_EPT_XO)
#define F_AD   BIT64(FEAT_EPT_AD)
#define F_MBEC BIT64(FEAT_MBEC)

#define VM_ID	   7
#define VIEW_OWNER (FRAME_EPT_BASE + VM_ID)

static struct ept_view view;
static u64 frames_free; /* before the view took any */
static u64 invept_eptp, invept_count;
static u32 kicks;

void vmx_invept_single(u64 eptp)
{
	invept_eptp = eptp;
	__atomic_fetch_add(&invept_count, 1, __ATOMIC_RELAXED);
}

void ept_kick_cpu(u32 cpu)
{
	__atomic_fetch_add(&kicks, 1, __ATOMIC_RELAXED);
}

static void start(u64 features, u32 reserve)
{
	frames_start(64 * MIB);
	frames_free = free_frames();
	assert_int_equal(ept_view_init(&view, features, VM_ID), 0);
	assert_int_equal(ept_reserve(&view, reserve), 0);
}

/* Every frame that left the allocator is in the hierarchy, in the reserve or in limbo. */
static void check_frames(void)
{
	bool mbec = view.features & F_MBEC, xo = view.features & F_XO;

	assert_int_equal(hw_check(view.eptp, mbec, xo), view.tables);
	assert_int_equal(frames_free - free_frames(),
			 view.tables + view.reserve_count + view.limbo_count);
}

static void finish(void)
{
	check_frames();
	ept_view_destroy(&view);
	assert_int_equal(free_frames(), frames_free);
}

static u64 entry_at(u64 at)
{
	return *hw_walk(view.eptp, at, view.features & F_MBEC, view.features & F_XO).entry;
}

static u64 *table_at(u64 at)
{
	return (u64 *)((uintptr_t)hw_walk(view.eptp, at, false, true).entry & ~4095ull);
}

static unsigned int shift_at(u64 at)
{
	struct ept_leaf leaf;

	return ept_lookup(&view, gpa(at), &leaf) ? 0 : leaf.shift;
}

static int map(u64 from, u64 to, u64 bytes, u64 perms)
{
	return ept_map(&view, gpa(from), hpa(to), bytes, perms, EPT_WB);
}

/* --- the bits, as the SDM prints them --------------------------------------------------------- */

/* In all leaves bit 11, ignored by the processor, is our mark of a leaf. */
static void test_entry_bits(void **state)
{
	u64 *pml4, *pdpt, *pd;

	start(F_1G | F_XO, 16);
	assert_int_equal(view.eptp, view.root.v | 0x1e); /* WB, 4 levels, no A/D */
	assert_int_equal(map(0x1000, 0xabcdef000, 0x1000, EPT_RWX), 0);
	/* Write-back leaves ignore the guest's PAT (bit 6). */
	assert_int_equal(entry_at(0x1000), 0xabcdef000 | 0x877);
	assert_int_equal(map(SIZE_2M, 0x12200000, SIZE_2M, EPT_R | EPT_W), 0);
	assert_int_equal(entry_at(SIZE_2M), 0x12200000 | 0x8f3);
	assert_int_equal(map(SIZE_1G, 0xfc0000000, SIZE_1G, EPT_R | EPT_X), 0);
	assert_int_equal(entry_at(SIZE_1G), 0xfc0000000 | 0x8f5);
	assert_int_equal(ept_map(&view, gpa(0xfee00000), hpa(0xfee00000), 0x1000, EPT_R, EPT_UC),
			 0);
	assert_int_equal(entry_at(0xfee00000), 0xfee00000 | 0x801);
	assert_int_equal(ept_map(&view, gpa(0xe0000000), hpa(0xe0000000), SIZE_2M, 7, EPT_WC), 0);
	assert_int_equal(entry_at(0xe0000000), 0xe0000000 | 0x88f);
	assert_int_equal(ept_map(&view, gpa(0xe0200000), hpa(0xe0200000), SIZE_2M, 4, EPT_WT), 0);
	assert_int_equal(entry_at(0xe0200000), 0xe0200000 | 0x8a4);
	assert_int_equal(ept_map(&view, gpa(0xe0400000), hpa(0xe0400000), SIZE_2M, 0, EPT_WP), 0);
	assert_int_equal(entry_at(0xe0400000), 0xe0400000 | 0x8a8);

	pml4 = phys_to_ptr(view.root);
	pdpt = phys_to_ptr(hpa(pml4[0] & ~0xfffull));
	pd = phys_to_ptr(hpa(pdpt[0] & ~0xfffull));
	assert_int_equal(pml4[0] & 0xfff, 7);
	assert_int_equal(pdpt[0] & 0xfff, 7);
	assert_int_equal(pd[0] & 0xfff, 7);
	assert_int_equal(pml4[1], 0);
	finish();

	start(F_AD | F_MBEC, 16);
	assert_int_equal(view.eptp, view.root.v | 0x5e);
	assert_int_equal(map(0, 0x4000, 0x1000, EPT_R | EPT_XU), 0);
	assert_int_equal(entry_at(0), 0x4000 | 0xc71);
	pml4 = phys_to_ptr(view.root);
	assert_int_equal(pml4[0] & 0xfff, 0x407);
	finish();
}

static void test_arguments(void **state)
{
	static const enum ept_memtype bad_types[] = {2, 3, 7, 8};
	struct ept_leaf leaf;
	u64 limit = 1ull << 48;

	start(0, 16);
	assert_int_equal(map(1, 0, 0x1000, EPT_RWX), ERR_INVAL);
	assert_int_equal(map(0, 1, 0x1000, EPT_RWX), ERR_INVAL);
	assert_int_equal(map(0, 0, 0x1001, EPT_RWX), ERR_INVAL);
	assert_int_equal(map(limit, 0, 0x1000, EPT_RWX), ERR_INVAL);
	assert_int_equal(map(limit - 0x1000, 0, 0x2000, EPT_RWX), ERR_INVAL);
	assert_int_equal(map(0x1000, 0, 0 - 0x1000ull, EPT_RWX), ERR_INVAL);
	assert_int_equal(map(0 - 0x1000ull, 0, 0x2000, EPT_RWX), ERR_INVAL);
	assert_int_equal(map(0, 1ull << 52, 0x1000, EPT_RWX), ERR_INVAL);
	assert_int_equal(map(0, (1ull << 52) - 0x1000, 0x2000, EPT_RWX), ERR_INVAL);
	assert_int_equal(map(0, 0, 0x1000, EPT_W), ERR_INVAL);
	assert_int_equal(map(0, 0, 0x1000, EPT_W | EPT_X), ERR_INVAL);
	assert_int_equal(map(0, 0, 0x1000, EPT_X), ERR_INVAL);		/* without ept_xo */
	assert_int_equal(map(0, 0, 0x1000, EPT_R | EPT_XU), ERR_INVAL); /* without mbec */
	assert_int_equal(map(0, 0, 0x1000, EPT_R | BIT64(3)), ERR_INVAL);
	assert_int_equal(ept_protect(&view, gpa(0), 0x1000, EPT_W), ERR_INVAL);
	assert_int_equal(ept_protect(&view, gpa(0), 0x800, EPT_R), ERR_INVAL);
	assert_int_equal(ept_unmap(&view, gpa(5), 0x1000), ERR_INVAL);
	assert_int_equal(ept_harvest(&view, gpa(0), 0x1000, NULL, NULL), ERR_NOSYS);
	for (unsigned int i = 0; i < ARRAY_SIZE(bad_types); i++)
		assert_int_equal(ept_map(&view, gpa(0), hpa(0), 0x1000, EPT_R, bad_types[i]),
				 ERR_INVAL);
	assert_int_equal(ept_lookup(&view, gpa(limit), &leaf), ERR_NOENT);
	assert_int_equal(ept_lookup(&view, gpa(~0ull), &leaf), ERR_NOENT);
	assert_int_equal(ept_merge(&view, gpa(limit)), 0);
	assert_int_equal(view.tables, 1);
	assert_int_equal(view.generation, 1);

	/* The ends of what is allowed; empty ranges. */
	assert_int_equal(map(limit - 0x1000, (1ull << 52) - 0x1000, 0x1000, EPT_RWX), 0);
	assert_int_equal(ept_lookup(&view, gpa(limit - 1), &leaf), 0);
	assert_int_equal(leaf.frame.v, (1ull << 52) - 1);
	assert_int_equal(ept_unmap(&view, gpa(limit), 0), 0);
	assert_int_equal(ept_unmap(&view, gpa(0), limit), 0);
	assert_int_equal(view.tables, 1);
	finish();

	start(F_MBEC, 16);
	assert_int_equal(map(0, 0, 0x1000, EPT_XU), ERR_INVAL);
	assert_int_equal(map(0, 0, 0x1000, EPT_XU | EPT_R), 0);
	finish();
	start(F_MBEC | F_XO, 16);
	assert_int_equal(map(0, 0, 0x1000, EPT_XU), 0);
	assert_int_equal(map(0, 0, 0x1000, EPT_W | EPT_XU), ERR_INVAL);
	finish();
}

/* --- page sizes ------------------------------------------------------------------------------- */

static int fill(u64 at, u64 to, u64 bytes, u64 perms)
{
	return ept_fill(&view, gpa(at), hpa(to), bytes, perms, EPT_WB);
}

/* ept_fill() is ept_map() of one leaf where there is a hole, and nothing elsewhere. */
static void test_fill(void **state)
{
	static const u64 sizes[] = {SIZE_1G, SIZE_2M, 0x1000};
	u64 before;

	start(F_1G, 16);
	for (unsigned int i = 0; i < ARRAY_SIZE(sizes); i++) {
		u64 at = (5 + i) * SIZE_1G, size = sizes[i];

		assert_int_equal(fill(at, 0xdc0000000, size, EPT_R | EPT_X), 0);
		before = entry_at(at);
		assert_int_equal(fill(at, 0xdc0000000, size, EPT_RWX), ERR_EXIST);
		assert_int_equal(entry_at(at), before);
		assert_int_equal(ept_unmap(&view, gpa(at), size), 0);
		assert_int_equal(map(at, 0xdc0000000, size, EPT_R | EPT_X), 0);
		assert_int_equal(entry_at(at), before);
	}
	/* Smaller than the leaf that is there, or larger. */
	before = entry_at(5 * SIZE_1G);
	assert_int_equal(fill(5 * SIZE_1G + SIZE_2M, 0, SIZE_2M, EPT_RWX), ERR_EXIST);
	assert_int_equal(fill(5 * SIZE_1G + 0x1000, 0, 0x1000, EPT_RWX), ERR_EXIST);
	assert_int_equal(entry_at(5 * SIZE_1G), before);
	before = entry_at(7 * SIZE_1G);
	assert_int_equal(fill(7 * SIZE_1G, 0, SIZE_2M, EPT_RWX), ERR_EXIST);
	assert_int_equal(fill(7 * SIZE_1G, 0, SIZE_1G, EPT_RWX), ERR_EXIST);
	assert_int_equal(entry_at(7 * SIZE_1G), before);
	/* A leaf that refuses everything is a leaf. */
	assert_int_equal(fill(0, SIZE_2M, SIZE_2M, 0), 0);
	assert_int_equal(fill(0, SIZE_2M, SIZE_2M, EPT_R), ERR_EXIST);
	before = view.generation;
	assert_int_equal(fill(SIZE_2M, 0, SIZE_2M, EPT_RWX), 0);
	assert_int_equal(view.generation, before);
	finish();

	start(0, 2);
	before = view.tables;
	assert_int_equal(fill(0, 0, 0x1000, EPT_RWX), ERR_NOMEM);
	assert_int_equal(view.tables, before);
	assert_int_equal(fill(0, 0, SIZE_2M, EPT_RWX), 0);
	assert_int_equal(fill(SIZE_2M, 0, SIZE_2M, EPT_RWX), 0); /* takes no table */
	assert_int_equal(fill(2 * SIZE_2M, 0, 0x1000, EPT_RWX), ERR_NOMEM);
	assert_int_equal(fill(SIZE_1G, 0, SIZE_1G, EPT_RWX), ERR_INVAL); /* without ept_1g */
	assert_int_equal(fill(0x1000, 0, SIZE_2M, EPT_RWX), ERR_INVAL);
	assert_int_equal(fill(SIZE_1G, 0x1000, SIZE_2M, EPT_RWX), ERR_INVAL);
	assert_int_equal(fill(SIZE_1G, 0, 0x2000, EPT_RWX), ERR_INVAL);
	assert_int_equal(fill(SIZE_1G, 0, 0, EPT_RWX), ERR_INVAL);
	assert_int_equal(fill(1ull << 48, 0, 0x1000, EPT_RWX), ERR_INVAL);
	assert_int_equal(fill(SIZE_1G, 1ull << 52, 0x1000, EPT_RWX), ERR_INVAL);
	assert_int_equal(fill(SIZE_1G, 0, 0x1000, EPT_W), ERR_INVAL);
	assert_int_equal(ept_fill(&view, gpa(SIZE_1G), hpa(0), SIZE_2M, EPT_R, 2), ERR_INVAL);
	finish();
}

static void test_largest_leaves(void **state)
{
	start(F_1G, 64);
	/* 4K, 2M, 1G, 2M, 4K: both addresses aligned alike. */
	assert_int_equal(map(SIZE_1G - SIZE_2M - 0x1000, 3 * SIZE_1G - SIZE_2M - 0x1000,
			     SIZE_1G + 2 * SIZE_2M + 0x2000, EPT_RWX),
			 0);
	assert_int_equal(shift_at(SIZE_1G - SIZE_2M - 0x2000), 0);
	assert_int_equal(shift_at(SIZE_1G - SIZE_2M - 0x1000), 12);
	assert_int_equal(shift_at(SIZE_1G - SIZE_2M), 21);
	assert_int_equal(shift_at(SIZE_1G), 30);
	assert_int_equal(shift_at(2 * SIZE_1G), 21);
	assert_int_equal(shift_at(2 * SIZE_1G + SIZE_2M), 12);
	assert_int_equal(shift_at(2 * SIZE_1G + SIZE_2M + 0x1000), 0);
	/* Host address aligned to 2M only, and to 4K only. */
	assert_int_equal(map(4 * SIZE_1G, 4 * SIZE_1G + SIZE_2M, SIZE_1G, EPT_RWX), 0);
	assert_int_equal(shift_at(4 * SIZE_1G), 21);
	assert_int_equal(map(5 * SIZE_1G, 0x1000, SIZE_2M, EPT_RWX), 0);
	assert_int_equal(shift_at(5 * SIZE_1G), 12);
	assert_int_equal(view.generation, 1); /* nothing of this was there before */
	assert_int_equal(view.splits, 0);
	finish();

	start(0, 64);
	assert_int_equal(map(0, 0, SIZE_1G, EPT_RWX), 0);
	assert_int_equal(shift_at(0), 21);
	for (u64 at = 0; at < SIZE_1G; at += SIZE_2M)
		ept_merge(&view, gpa(at));
	assert_int_equal(shift_at(0), 21);
	finish();
}

static void test_split(void **state)
{
	u64 e;

	start(F_1G | F_AD, 2);
	assert_int_equal(map(0, SIZE_1G, SIZE_1G, EPT_RWX), 0);
	*hw_walk(view.eptp, 0, false, false).entry |= 0x300; /* A, D */
	assert_int_equal(view.reserve_count, 1);
	assert_int_equal(ept_protect(&view, gpa(0x5000), 0x1000, EPT_R), ERR_NOMEM);
	assert_int_equal(shift_at(0x5000), 30);
	assert_int_equal(ept_reserve(&view, 2), 0);
	assert_int_equal(ept_protect(&view, gpa(0x5000), 0x1000, EPT_R), 0);
	assert_int_equal(view.splits, 2);
	assert_int_equal(view.generation, 2);
	e = entry_at(SIZE_1G - SIZE_2M);
	assert_int_equal(e, 2 * SIZE_1G - SIZE_2M + 0xbf7);	      /* 2M: everything copied */
	assert_int_equal(entry_at(0x6000), SIZE_1G + 0x6000 + 0xb77); /* 4K: bit 7 off */
	assert_int_equal(entry_at(0x5000), SIZE_1G + 0x5000 + 0xb71);
	assert_int_equal(entry_at(SIZE_2M - 0x1000), SIZE_1G + SIZE_2M - 0x1000 + 0xb77);
	finish();
}

static void test_merge(void **state)
{
	struct ept_leaf leaf;

	start(F_1G, 600);
	assert_int_equal(map(0, SIZE_1G, SIZE_1G, EPT_RWX), 0);
	assert_int_equal(ept_protect(&view, gpa(0x5000), 0x1000, EPT_R), 0);
	assert_int_equal(ept_merge(&view, gpa(0)), 12); /* rights differ */
	assert_int_equal(ept_merge(&view, gpa(SIZE_2M)), 21);
	assert_int_equal(ept_protect(&view, gpa(0x5000), 0x1000, EPT_RWX), 0);
	assert_int_equal(view.generation, 2); /* a right came back: no bump */
	assert_int_equal(ept_merge(&view, gpa(0x7123)), 30);
	assert_int_equal(view.merges, 2);
	assert_int_equal(view.generation, 3);
	assert_int_equal(view.limbo_count, 2);
	assert_int_equal(view.reserve_count, 597);
	assert_int_equal(entry_at(0), SIZE_1G + 0x8f7);
	ept_sync(&view, 0, 4);
	assert_int_equal(view.limbo_count, 0);
	assert_int_equal(view.reserve_count, 599);

	/* One frame, one type, one hole, or a misaligned start is enough to prevent it. */
	assert_int_equal(map(0x3000, SIZE_1G + 0x4000, 0x1000, EPT_RWX), 0);
	assert_int_equal(ept_merge(&view, gpa(0)), 12);
	assert_int_equal(ept_map(&view, gpa(0x3000), hpa(SIZE_1G + 0x3000), 0x1000, 7, EPT_WT), 0);
	assert_int_equal(ept_merge(&view, gpa(0)), 12);
	assert_int_equal(ept_unmap(&view, gpa(0x3000), 0x1000), 0);
	assert_int_equal(ept_merge(&view, gpa(0)), 12);
	assert_int_equal(ept_merge(&view, gpa(0x3000)), 0);
	assert_int_equal(map(0x3000, SIZE_1G + 0x3000, 0x1000, EPT_RWX), 0);
	assert_int_equal(ept_merge(&view, gpa(0x3000)), 30);
	assert_int_equal(map(SIZE_1G, 0x1000, SIZE_2M, EPT_RWX), 0);
	assert_int_equal(ept_merge(&view, gpa(SIZE_1G)), 12);
	assert_int_equal(ept_merge(&view, gpa(40 * SIZE_1G)), 0);
	/* 2M leaves that do not follow each other: the gigabyte stays apart. */
	assert_int_equal(map(2 * SIZE_1G, 0, SIZE_1G - SIZE_2M, EPT_RWX), 0);
	assert_int_equal(map(3 * SIZE_1G - SIZE_2M, SIZE_1G, SIZE_2M, EPT_RWX), 0);
	assert_int_equal(ept_merge(&view, gpa(2 * SIZE_1G)), 21);
	finish();

	/* A is or-ed; what could be written is dirty. */
	start(F_AD, 16);
	for (u64 at = 0; at < SIZE_2M; at += 0x1000)
		assert_int_equal(map(at, at, 0x1000, EPT_R), 0);
	assert_int_equal(map(SIZE_2M, SIZE_2M, SIZE_2M, EPT_R), 0);
	assert_int_equal(map(2 * SIZE_2M, 3 * SIZE_2M + 0x1000, 0x1000, EPT_RWX), 0);
	*hw_walk(view.eptp, 0x8000, false, false).entry |= 0x100;
	assert_int_equal(ept_merge(&view, gpa(0)), 21);
	assert_int_equal(ept_lookup(&view, gpa(0), &leaf), 0);
	assert_true(leaf.accessed);
	assert_false(leaf.dirty);
	assert_int_equal(ept_protect(&view, gpa(0), 0x1000, EPT_RWX), 0);
	assert_int_equal(ept_protect(&view, gpa(0x1000), SIZE_2M - 0x1000, EPT_RWX), 0);
	assert_int_equal(ept_merge(&view, gpa(0)), 21);
	assert_int_equal(ept_lookup(&view, gpa(0), &leaf), 0);
	assert_true(leaf.dirty);
	finish();
}

/* --- rights ----------------------------------------------------------------------------------- */

static void test_protect(void **state)
{
	struct ept_leaf leaf;
	u64 generation;

	start(F_XO, 16);
	assert_int_equal(map(0, 0x40000000, 4 * SIZE_2M, EPT_RWX), 0);
	assert_int_equal(ept_unmap(&view, gpa(SIZE_2M), SIZE_2M), 0);
	generation = view.generation;
	/* No right at all: the frame is remembered, the processor sees nothing. */
	assert_int_equal(ept_protect(&view, gpa(SIZE_2M - 0x1000), SIZE_2M + 0x2000, 0), 0);
	assert_int_equal(view.generation, generation + 1);
	assert_int_equal(ept_lookup(&view, gpa(SIZE_2M - 1), &leaf), 0);
	assert_int_equal(leaf.perms, 0);
	assert_int_equal(leaf.frame.v, 0x40000000 + SIZE_2M - 1);
	assert_false(hw_walk(view.eptp, SIZE_2M - 0x1000, false, true).present);
	assert_false(hw_walk(view.eptp, SIZE_2M, false, true).present);
	assert_int_equal(shift_at(SIZE_2M), 0); /* a hole stays one */
	assert_int_equal(shift_at(2 * SIZE_2M), 12);
	assert_int_equal(shift_at(3 * SIZE_2M), 21);
	assert_true(hw_walk(view.eptp, SIZE_2M - 0x2000, false, true).present);
	assert_true(hw_walk(view.eptp, 2 * SIZE_2M + 0x1000, false, true).present);
	/* The same again, and more rights: no generation. */
	generation = view.generation;
	assert_int_equal(ept_protect(&view, gpa(SIZE_2M - 0x1000), 0x1000, 0), 0);
	assert_int_equal(ept_protect(&view, gpa(SIZE_2M - 0x1000), 0x1000, EPT_X), 0);
	assert_int_equal(ept_protect(&view, gpa(SIZE_2M - 0x1000), 0x1000, EPT_RWX), 0);
	assert_int_equal(map(SIZE_2M, 0x40000000 + SIZE_2M, 0x1000, EPT_R), 0);
	assert_int_equal(map(SIZE_2M, 0x40000000 + SIZE_2M, 0x1000, EPT_R | EPT_W), 0);
	assert_int_equal(view.generation, generation);
	/* Fewer, others, another frame, another type: one each. */
	assert_int_equal(ept_protect(&view, gpa(SIZE_2M), 0x1000, EPT_R | EPT_X), 0);
	assert_int_equal(view.generation, ++generation);
	assert_int_equal(map(SIZE_2M, 0x40000000 + SIZE_2M, 0x1000, EPT_R), 0);
	assert_int_equal(view.generation, ++generation);
	assert_int_equal(map(SIZE_2M, 0x40000000, 0x1000, EPT_R), 0);
	assert_int_equal(view.generation, ++generation);
	assert_int_equal(ept_map(&view, gpa(SIZE_2M), hpa(0x40000000), 0x1000, EPT_R, EPT_UC), 0);
	assert_int_equal(view.generation, ++generation);
	assert_int_equal(ept_unmap(&view, gpa(SIZE_2M), 0x1000), 0);
	assert_int_equal(view.generation, ++generation);
	assert_int_equal(ept_unmap(&view, gpa(SIZE_2M), 0x1000), 0); /* nothing there */
	assert_int_equal(view.generation, generation);
	/* The same mapping as before as part of a large one: nothing to do. */
	assert_int_equal(map(3 * SIZE_2M + 0x3000, 0x40000000 + 3 * SIZE_2M + 0x3000, 0x2000, 7),
			 0);
	assert_int_equal(shift_at(3 * SIZE_2M + 0x3000), 21);
	finish();
}

/* A frame that gains a right by ept_map() loses its D: a processor with the old entry cached would
 * not set it again, so that this is a change like others. */
static void test_map_over_dirty(void **state)
{
	start(F_AD, 16);
	assert_int_equal(map(0, 0x4000, 0x1000, EPT_R | EPT_W), 0);
	assert_true(hw_write(view.eptp, 0));
	assert_int_equal(map(0, 0x4000, 0x1000, EPT_R | EPT_W), 0); /* no change: D stays */
	assert_int_equal(entry_at(0), 0x4000 | 0xb73);
	assert_int_equal(view.generation, 1);
	assert_int_equal(map(0, 0x4000, 0x1000, EPT_RWX), 0);
	assert_int_equal(entry_at(0), 0x4000 | 0x877);
	assert_int_equal(view.generation, 2);
	assert_int_equal(ept_protect(&view, gpa(0), 0x1000, EPT_RWX), 0);
	assert_true(hw_write(view.eptp, 0));
	assert_int_equal(ept_protect(&view, gpa(0), 0x1000, EPT_R), 0);
	assert_int_equal(entry_at(0), 0x4000 | 0xb71); /* protect keeps A and D */
	finish();
}

/* --- tables that die -------------------------------------------------------------------------- */

static void test_limbo(void **state)
{
	u64 *table, copy[512];

	start(0, 8);
	assert_int_equal(map(0, 0x40000000, 2 * SIZE_2M - 0x1000, EPT_RWX), 0);
	assert_int_equal(map(0x1000, 0x50000000, 0x1000, EPT_RWX), 0);
	table = table_at(0x1000);
	memcpy(copy, table, sizeof(copy));
	assert_int_equal(view.tables, 5);
	assert_int_equal(ept_unmap(&view, gpa(0), 2 * SIZE_2M), 0);
	assert_int_equal(view.tables, 1); /* PD and PDPT became empty as well */
	assert_int_equal(view.limbo_count, 4);
	assert_int_equal(view.reserve_count, 4);
	/* A processor may still walk it: old entries or nothing that looks present, in any format.
	 */
	for (int i = 0; i < 512; i++)
		assert_true(table[i] == copy[i] || (table[i] & 0xfff) == 0);
	/* Tables in limbo are no reserve. */
	assert_int_equal(map(0, 0x1000, 3 * SIZE_2M, EPT_RWX), ERR_NOMEM);
	check_frames();
	ept_sync(&view, 0, 4);
	assert_int_equal(view.limbo_count, 0);
	assert_int_equal(view.reserve_count, 8);
	assert_int_equal(view.settled, view.generation);
	for (int i = 1; i < 512; i++)
		assert_int_equal(table[i], 0);
	assert_int_equal(map(0, 0x1000, 3 * SIZE_2M, EPT_RWX), 0);

	/* A large leaf over tables: these die too; so do all below a range that goes as a whole. */
	assert_int_equal(map(0, 0, SIZE_2M, EPT_RWX), 0);
	assert_int_equal(view.limbo_count, 1);
	assert_int_equal(ept_unmap(&view, gpa(0), 512 * SIZE_1G), 0);
	assert_int_equal(view.tables, 1);
	assert_int_equal(view.limbo_count, 5);
	finish(); /* with tables in limbo and in the reserve */
}

/* Only what died in a generation that is acknowledged comes back. */
static void test_limbo_order(void **state)
{
	extern void ept_table_reclaim(struct ept_view * v, u64 acknowledged);

	start(0, 30);
	for (u64 i = 0; i < 6; i++)
		assert_int_equal(map(i * SIZE_2M, 0x1000, SIZE_2M, EPT_RWX), 0);
	for (u64 i = 0; i < 5; i++)
		assert_int_equal(ept_unmap(&view, gpa(i * SIZE_2M), SIZE_2M), 0);
	assert_int_equal(view.generation, 6);
	assert_int_equal(view.limbo_count, 5);
	ept_table_reclaim(&view, 1);
	assert_int_equal(view.limbo_count, 5);
	ept_table_reclaim(&view, 3);
	assert_int_equal(view.limbo_count, 3);
	check_frames();
	ept_table_reclaim(&view, 3);
	assert_int_equal(view.limbo_count, 3);
	ept_table_reclaim(&view, 6);
	assert_int_equal(view.limbo_count, 0);
	finish();
}

static void test_out_of_frames(void **state)
{
	struct ept_view other;
	hpa_t a;

	start(0, 0);
	while (frame_alloc(FRAME_HV, SIZE_2M, PAGE_SIZE, &a) == 0)
		;
	while (free_frames() > 3)
		assert_int_equal(frame_alloc_page(FRAME_HV, &a), 0);
	assert_int_equal(ept_reserve(&view, 4), ERR_NOMEM);
	assert_int_equal(view.reserve_count, 3);
	assert_int_equal(ept_reserve(&view, 2), 0);
	assert_int_equal(ept_view_init(&other, 0, VM_ID), ERR_NOMEM);
	assert_int_equal(map(0, 0, 0x1000, EPT_RWX), 0);
	assert_int_equal(map(SIZE_2M, 0, 0x1000, EPT_RWX), ERR_NOMEM);
	frame_free_all(FRAME_HV);
	host_memory_release();
}

/* --- generations ------------------------------------------------------------------------------ */

static void test_enter_and_sync(void **state)
{
	start(0, 8);
	assert_int_equal(map(0, 0, 0x1000, EPT_RWX), 0);
	invept_count = 0;
	kicks = 0;
	ept_enter(&view, 2); /* the first entry of a CPU always invalidates */
	assert_int_equal(invept_count, 1);
	assert_int_equal(invept_eptp, view.eptp);
	assert_int_equal(view.seen[2], 1);
	assert_ptr_equal(ept_running[2], &view);
	ept_assert_fresh(&view, 2);
	ept_sync(&view, 0, 4); /* nothing new: nobody is disturbed */
	assert_int_equal(kicks, 0);
	ept_leave(2);
	assert_null(ept_running[2]);
	ept_enter(&view, 2);
	assert_int_equal(invept_count, 1);
	ept_leave(2);
	assert_int_equal(ept_unmap(&view, gpa(0), 0x1000), 0);
	ept_sync(&view, 0, 4); /* CPU 2 is in root mode: no kick, no wait */
	assert_int_equal(kicks, 0);
	ept_enter(&view, 2);
	assert_int_equal(invept_count, 2);
	assert_int_equal(view.seen[2], 2);
	ept_leave(2);
	finish();
}

static u32 sync_done;

static void *sync_thread(void *arg)
{
	ept_sync(&view, 0, 4);
	__atomic_store_n(&sync_done, 1, __ATOMIC_RELEASE);
	return NULL;
}

/* CPU 2 stays in guest mode with what has been removed: it is kicked, once, and waited for. */
static void test_sync_waits(void **state)
{
	struct timespec moment = {.tv_nsec = 20000000};
	pthread_t thread;

	start(0, 8);
	assert_int_equal(map(0, 0, 0x1000, EPT_RWX), 0);
	ept_enter(&view, 1);
	ept_enter(&view, 2);
	assert_int_equal(ept_unmap(&view, gpa(0), 0x1000), 0);
	ept_enter(&view, 1); /* CPU 1 has been out and in again */
	kicks = sync_done = 0;
	alarm(20);
	assert_int_equal(pthread_create(&thread, NULL, sync_thread, NULL), 0);
	while (__atomic_load_n(&kicks, __ATOMIC_RELAXED) == 0)
		sched_yield();
	nanosleep(&moment, NULL);
	assert_int_equal(__atomic_load_n(&sync_done, __ATOMIC_ACQUIRE), 0);
	assert_int_equal(view.limbo_count, 3);
	ept_leave(2);
	pthread_join(thread, NULL);
	alarm(0);
	assert_int_equal(kicks, 1);
	assert_int_equal(view.limbo_count, 0);
	ept_leave(1);
	finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_entry_bits),    cmocka_unit_test(test_arguments),
		cmocka_unit_test(test_fill),	      cmocka_unit_test(test_largest_leaves),
		cmocka_unit_test(test_split),	      cmocka_unit_test(test_merge),
		cmocka_unit_test(test_protect),	      cmocka_unit_test(test_map_over_dirty),
		cmocka_unit_test(test_limbo),	      cmocka_unit_test(test_limbo_order),
		cmocka_unit_test(test_out_of_frames), cmocka_unit_test(test_enter_and_sync),
		cmocka_unit_test(test_sync_waits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
