/* The guest page-table walker, against tables from the SDM and an independent bit-by-bit model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "vm/space.h"
#include "vm/walk.h"
#include "x86/regs.h"

#define RAM_BYTES (64 * 4096u)

static u8 ram[RAM_BYTES] __aligned(4096);
static unsigned int reads, exchanges;

/* Called before each compare-exchange: another CPU of the guest. */
static void (*race)(void);

int guest_read_word(struct vm *vm, gpa_t at, unsigned int size, u64 *value)
{
	reads++;
	assert_true(size == 4 || size == 8);
	assert_int_equal(at.v % size, 0);
	if (at.v > RAM_BYTES || RAM_BYTES - at.v < size)
		return ERR_FAULT;
	*value = 0;
	memcpy(value, ram + at.v, size);
	return 0;
}

int guest_cmpxchg(struct vm *vm, gpa_t at, unsigned int size, u64 old, u64 new)
{
	u64 value = 0;

	exchanges++;
	assert_true(size == 4 || size == 8);
	assert_int_equal(at.v % size, 0);
	if (at.v > RAM_BYTES || RAM_BYTES - at.v < size)
		return ERR_FAULT;
	if (race)
		race();
	memcpy(&value, ram + at.v, size);
	if (value != old)
		return ERR_BUSY;
	memcpy(ram + at.v, &new, size);
	return 0;
}

static void put8(u64 at, u64 value)
{
	memcpy(ram + at, &value, 8);
}

static void put4(u64 at, u32 value)
{
	memcpy(ram + at, &value, 4);
}

static u64 get8(u64 at)
{
	u64 value;

	memcpy(&value, ram + at, 8);
	return value;
}

static u32 get4(u64 at)
{
	u32 value;

	memcpy(&value, ram + at, 4);
	return value;
}

static int reset(void **state)
{
	memset(ram, 0, sizeof(ram));
	race = NULL;
	reads = exchanges = 0;
	return 0;
}

static const struct walk_state long_mode = {
	.cr0 = CR0_PE | CR0_PG | CR0_WP,
	.cr3 = 0x1000,
	.cr4 = CR4_PAE,
	.efer = EFER_LME | EFER_LMA | EFER_NXE,
	.phys_bits = 40,
};
static const struct walk_state pae_mode = {
	.cr0 = CR0_PE | CR0_PG | CR0_WP,
	.cr3 = 0x1000,
	.cr4 = CR4_PAE,
	.efer = EFER_NXE,
	.pdpte = {0x2001, 0, 0x3001, 0x2001},
	.phys_bits = 40,
};
static const struct walk_state mode_32 = {
	.cr0 = CR0_PE | CR0_PG | CR0_WP,
	.cr3 = 0x1018, /* PWT and PCD are no part of the address */
	.cr4 = CR4_PSE,
	.phys_bits = 40,
};

static void expect_addr(const struct walk_state *s, u64 linear, unsigned int access, u64 addr,
			u64 page_bytes)
{
	struct walk_result r;

	assert_int_equal(walk(NULL, s, gva(linear), access, &r), WALK_OK);
	assert_int_equal(r.addr.v, addr);
	assert_int_equal(r.page_bytes, page_bytes);
}

static void expect_fault(const struct walk_state *s, u64 linear, unsigned int access, u32 code)
{
	struct walk_result r;

	assert_int_equal(walk(NULL, s, gva(linear), access, &r), WALK_FAULT);
	assert_int_equal(r.error_code, code);
}

/* --- each mode by hand ---------------------------------------------------------------------------
 */

static void no_paging(void **state)
{
	struct walk_state s = {.cr0 = CR0_PE, .phys_bits = 40, .cpl = 3};

	expect_addr(&s, 0xfedcba98, WALK_WRITE, 0xfedcba98, 4096);
	expect_addr(&s, 0x1fedcba98, WALK_FETCH, 0xfedcba98, 4096);
	assert_int_equal(reads, 0);
}

static void four_level(void **state)
{
	struct walk_state s = long_mode;
	u64 linear = 0xffff800040201abc; /* indices 256, 1, 1, 1 */

	put8(0x1000 + 256 * 8, 0x2007);
	put8(0x2008, 0x3007);
	put8(0x3008, 0x4007);
	put8(0x4008, 0x12345007);
	expect_addr(&s, linear, WALK_READ, 0x12345abc, 4096);
	assert_int_equal(get8(0x1000 + 256 * 8), 0x2027);
	assert_int_equal(get8(0x2008), 0x3027);
	assert_int_equal(get8(0x3008), 0x4027);
	assert_int_equal(get8(0x4008), 0x12345027);
	expect_addr(&s, linear, WALK_READ | WALK_WRITE, 0x12345abc, 4096);
	assert_int_equal(get8(0x4008), 0x12345067);
	assert_int_equal(get8(0x3008), 0x4027);

	put8(0x3008, 0x40e00087 | PAGE_SIZE); /* 2 MiB; bit 12 is PAT */
	expect_addr(&s, linear, WALK_WRITE, 0x40e01abc, SIZE_2M);
	assert_int_equal(get8(0x3008), 0x40e010e7);
	put8(0x3008, 0x40e02087); /* bit 13 is reserved */
	expect_fault(&s, linear, WALK_READ, PF_P | PF_RSVD);

	put8(0x2008, 0x7fc0000087);
	expect_addr(&s, linear, WALK_READ, 0x7fc0201abc, SIZE_1G);
	s.no_1g = true;
	expect_fault(&s, linear, WALK_READ, PF_P | PF_RSVD);
	s.no_1g = false;
	s.phys_bits = 38;
	expect_fault(&s, linear, WALK_READ, PF_P | PF_RSVD);
	s.phys_bits = 40;
	put8(0x2008, 0x7fe0000087); /* bit 29 */
	expect_fault(&s, linear, WALK_READ, PF_P | PF_RSVD);

	put8(0x2008, 0x03f0000000003007); /* 61:52 are free to the guest */
	put8(0x3008, 0x7ff0000000004007);
	expect_addr(&s, linear, WALK_READ, 0x12345abc, 4096);
	put8(0x1000 + 256 * 8, 0x2087);
	expect_fault(&s, linear, WALK_READ, PF_P | PF_RSVD);
	put8(0x1000 + 256 * 8, 0x2006);
	expect_fault(&s, linear, WALK_READ, 0);
}

static void pae(void **state)
{
	struct walk_state s = pae_mode;

	put8(0x2000 + 5 * 8, 0x4007);
	put8(0x4000 + 6 * 8, 0xfffffff000 | 7);
	expect_addr(&s, 5 * SIZE_2M + 6 * 4096 + 9, WALK_WRITE, 0xfffffff009, 4096);
	assert_int_equal(get8(0x4030), 0xfffffff067);
	expect_addr(&s, 0xc0000000 + 5 * SIZE_2M + 6 * 4096, WALK_READ, 0xfffffff000, 4096);
	expect_addr(&s, 0x7c0000000 + 5 * SIZE_2M + 6 * 4096, WALK_READ, 0xfffffff000, 4096);
	expect_fault(&s, 0x40000000, WALK_WRITE, PF_W);

	put8(0x3000, 0x0600087);
	expect_addr(&s, 0x80012345, WALK_READ, 0x612345, SIZE_2M);
	put8(0x3000, 0x0600087 | BIT64(52)); /* in PAE paging 62:52 are reserved */
	expect_fault(&s, 0x80012345, WALK_READ, PF_P | PF_RSVD);
	put8(0x3000, 0x8000000000600087);
	expect_addr(&s, 0x80012345, WALK_READ, 0x612345, SIZE_2M);
	expect_fault(&s, 0x80012345, WALK_FETCH, PF_P | PF_I);
	s.efer = 0;
	expect_fault(&s, 0x80012345, WALK_READ, PF_P | PF_RSVD);
	expect_fault(&s, 0x80012345, WALK_FETCH, PF_P | PF_RSVD);
	s.cr4 |= CR4_SMEP;
	expect_fault(&s, 0x80012345, WALK_FETCH, PF_P | PF_RSVD | PF_I);
}

static void pdptes(void **state)
{
	u64 p[4] = {0x1000019, 0x0000fffffffffffe, 0, 0xe01};

	assert_true(walk_pdptes_valid(p, 40));
	p[3] = 0x3;
	assert_false(walk_pdptes_valid(p, 40));
	p[3] = 0x101;
	assert_false(walk_pdptes_valid(p, 40));
	p[3] = BIT64(40) | 1;
	assert_false(walk_pdptes_valid(p, 40));
	assert_true(walk_pdptes_valid(p, 41));
	p[3] = BIT64(63) | 1;
	assert_false(walk_pdptes_valid(p, 52));
}

static void mode_32_bit(void **state)
{
	struct walk_state s = mode_32;

	put4(0x1000 + 0x3ff * 4, 0x2007);
	put4(0x2000 + 0x3fe * 4, 0xfffff007);
	expect_addr(&s, 0xffffe123, WALK_WRITE, 0xfffff123, 4096);
	assert_int_equal(get4(0x1000 + 0x3ff * 4), 0x2027);
	assert_int_equal(get4(0x2000 + 0x3fe * 4), 0xfffff067);
}

static void mode_32_large(void **state)
{
	struct walk_state s = mode_32;
	struct walk_result r;

	put4(0x1000 + 4, 0xabc00000 | 0x5a << 13 | 0x87);
	expect_addr(&s, 0x7fffff, WALK_READ, 0x5aabffffff, 2 * SIZE_2M);
	assert_int_equal(get4(0x1004), 0xabc00000 | 0x5a << 13 | 0xa7);
	s.phys_bits = 39;
	expect_addr(&s, 0x7fffff, WALK_READ, 0x5aabffffff, 2 * SIZE_2M);
	s.phys_bits = 38;
	expect_fault(&s, 0x7fffff, WALK_READ, PF_P | PF_RSVD);
	s.phys_bits = 46; /* PSE-36 ends at 40 bits */
	put4(0x1000 + 4, 0xabc00000 | 0xff << 13 | 0x87);
	expect_addr(&s, 0x7fffff, WALK_READ, 0xffabffffff, 2 * SIZE_2M);
	put4(0x1000 + 4, 0xabc00000 | BIT(21) | 0x87);
	expect_fault(&s, 0x7fffff, WALK_READ, PF_P | PF_RSVD);
	s.phys_bits = 32;
	put4(0x1000 + 4, 0xabc00000 | BIT(13) | 0x87);
	expect_fault(&s, 0x7fffff, WALK_READ, PF_P | PF_RSVD);
	/* Without PSE the bit means nothing: a page table at 0xabc02000, outside RAM, all ones. */
	s.cr4 = 0;
	assert_int_equal(walk(NULL, &s, gva(0x7fffff), WALK_READ, &r), WALK_OK);
	assert_int_equal(r.addr.v, 0xffffffff);
}

/* --- access rights -------------------------------------------------------------------------------
 */

/*
 * SDM 4.6.1 as a list of rules: for an entry with the given U, W and NX, which accesses go through.
 * Columns of `ok`: supervisor read, write, fetch; implicit read, write; user read, write, fetch.
 */
static const struct {
	bool u, w, nx;
	bool wp, smep, smap, ac;
	const char *ok;
} rights[] = {
	{0, 0, 0, .wp = 0, .ok = "rwx rw ---"},
	{0, 0, 0, .wp = 1, .ok = "r-x r- ---"},
	{0, 1, 0, .wp = 1, .ok = "rwx rw ---"},
	{0, 1, 1, .wp = 1, .ok = "rw- rw ---"},
	{1, 0, 0, .wp = 0, .ok = "rwx rw r-x"},
	{1, 0, 0, .wp = 1, .ok = "r-x r- r-x"},
	{1, 1, 0, .wp = 1, .ok = "rwx rw rwx"},
	{1, 1, 1, .wp = 1, .ok = "rw- rw rw-"},
	{1, 1, 0, .wp = 1, .smep = 1, .ok = "rw- rw rwx"},
	{1, 1, 0, .wp = 1, .smap = 1, .ok = "--x -- rwx"},
	{1, 0, 0, .wp = 0, .smap = 1, .ok = "--x -- r-x"},
	{1, 1, 0, .wp = 1, .smap = 1, .ac = 1, .ok = "rwx -- rwx"},
	{1, 0, 0, .wp = 1, .smap = 1, .ac = 1, .ok = "r-x -- r-x"},
	{1, 0, 0, .wp = 0, .smap = 1, .ac = 1, .ok = "rwx -- r-x"},
	{0, 1, 0, .wp = 1, .smap = 1, .smep = 1, .ok = "rwx rw ---"},
	{1, 1, 0, .wp = 1, .smap = 1, .smep = 1, .ac = 1, .ok = "rw- -- rwx"},
};

static void access_rights(void **state)
{
	static const struct {
		unsigned int column, access;
		u8 cpl;
	} tries[] = {
		{0, WALK_READ, 0},
		{1, WALK_WRITE, 1},
		{2, WALK_FETCH, 2},
		{4, WALK_READ | WALK_IMPLICIT, 0},
		{5, WALK_WRITE | WALK_IMPLICIT, 0},
		{4, WALK_READ | WALK_IMPLICIT, 3},
		{5, WALK_WRITE | WALK_IMPLICIT, 3},
		{7, WALK_READ, 3},
		{8, WALK_WRITE, 3},
		{9, WALK_FETCH, 3},
		{1, WALK_READ | WALK_WRITE, 0},
		{8, WALK_READ | WALK_WRITE, 3},
	};

	for (unsigned int level = 1; level <= 4; level++) { /* the one entry with fewer rights */
		for (unsigned int i = 0; i < ARRAY_SIZE(rights); i++) {
			u64 flags =
				1 | rights[i].w << 1 | rights[i].u << 2 | (u64)rights[i].nx << 63;

			put8(0x1000, 0x2000 | (level == 4 ? flags : 7));
			put8(0x2000, 0x3000 | (level == 3 ? flags : 7));
			put8(0x3000, 0x4000 | (level == 2 ? flags : 7));
			put8(0x4000, 0x5000 | (level == 1 ? flags : 7));
			for (unsigned int t = 0; t < ARRAY_SIZE(tries); t++) {
				struct walk_state s = long_mode;
				struct walk_result r;
				bool user = tries[t].cpl == 3 && !(tries[t].access & WALK_IMPLICIT);
				u32 code = PF_P | (user ? PF_U : 0) |
					   (tries[t].access & WALK_WRITE ? PF_W : 0) |
					   (tries[t].access & WALK_FETCH ? PF_I : 0);

				s.cpl = tries[t].cpl;
				s.cr0 = CR0_PE | CR0_PG | (rights[i].wp ? CR0_WP : 0);
				s.cr4 |= (rights[i].smep ? CR4_SMEP : 0) |
					 (rights[i].smap ? CR4_SMAP : 0);
				s.rflags = rights[i].ac ? RFLAGS_AC : 0;
				if (rights[i].ok[tries[t].column] != '-') {
					expect_addr(&s, 0xabc, tries[t].access, 0x5abc, 4096);
					continue;
				}
				assert_int_equal(walk(NULL, &s, gva(0xabc), tries[t].access, &r),
						 WALK_FAULT);
				assert_int_equal(r.error_code, code);
			}
		}
	}
}

/* I/D of the error code (SDM 4.7): with SMEP, or with PAE and NXE. */
static void error_code_fetch(void **state)
{
	struct walk_state s = mode_32;

	expect_fault(&s, 0x5000, WALK_FETCH, 0);
	s.efer = EFER_NXE; /* means nothing without PAE */
	expect_fault(&s, 0x5000, WALK_FETCH, 0);
	s.cr4 |= CR4_SMEP;
	s.cpl = 3;
	expect_fault(&s, 0x5000, WALK_FETCH, PF_U | PF_I);
	expect_fault(&s, 0x5000, WALK_READ | WALK_IMPLICIT, 0);
	s = long_mode;
	expect_fault(&s, 0x5000, WALK_FETCH, PF_I);
	s.efer &= ~EFER_NXE;
	expect_fault(&s, 0x5000, WALK_FETCH, 0);
}

static void refused_features(void **state)
{
	static const u64 hidden[] = {CR4_LA57, CR4_PKE, CR4_PKS, CR4_CET};
	struct walk_result r;

	for (unsigned int i = 0; i < ARRAY_SIZE(hidden); i++) {
		struct walk_state s = long_mode;

		s.cr4 |= hidden[i];
		assert_int_equal(walk(NULL, &s, gva(0), WALK_READ, &r), ERR_NOSYS);
	}
}

/* --- accessed and dirty flags, races
 * ----------------------------------------------------------------- */

static void flags_only_after_checks(void **state)
{
	struct walk_state s = long_mode;
	struct walk_result r;

	put8(0x1000, 0x2007);
	put8(0x2000, 0x3007);
	put8(0x3000, 0x4007);
	put8(0x4000, 0x5005);
	expect_fault(&s, 0, WALK_WRITE, PF_P | PF_W);
	assert_int_equal(walk(NULL, &s, gva(0), WALK_READ | WALK_PROBE, &r), WALK_OK);
	assert_int_equal(get8(0x1000), 0x2007);
	assert_int_equal(get8(0x4000), 0x5005);
	assert_int_equal(exchanges, 0);
	expect_addr(&s, 0, WALK_READ, 0x5000, 4096);
	assert_int_equal(exchanges, 4);
	expect_addr(&s, 0, WALK_READ, 0x5000, 4096);
	assert_int_equal(exchanges, 4); /* nothing to set: nothing written */
	s.cr0 &= ~CR0_WP;
	expect_addr(&s, 0, WALK_WRITE, 0x5000, 4096);
	assert_int_equal(get8(0x4000), 0x5065);
}

static void take_page_away(void)
{
	put8(0x4000, 0x9000); /* not present: a swapped-out page */
}

static void race_unmap(void **state)
{
	put8(0x1000, 0x2027);
	put8(0x2000, 0x3027);
	put8(0x3000, 0x4027);
	put8(0x4000, 0x5007);
	race = take_page_away;
	expect_fault(&long_mode, 0, WALK_WRITE, PF_W);
	assert_int_equal(get8(0x4000), 0x9000);
}

static unsigned int flips;

static void make_read_only_once(void)
{
	if (!flips++)
		put8(0x4000, 0x6005);
}

static void race_remap(void **state)
{
	struct walk_state s = long_mode;

	put8(0x1000, 0x2027);
	put8(0x2000, 0x3027);
	put8(0x3000, 0x4027);
	put8(0x4000, 0x5007);
	race = make_read_only_once;
	flips = 0;
	expect_fault(&s, 0, WALK_WRITE, PF_P | PF_W);
	put8(0x4000, 0x5007);
	flips = 0;
	expect_addr(&s, 0, WALK_READ, 0x6000, 4096);
	assert_int_equal(get8(0x4000), 0x6025);
}

static void flip_for_ever(void)
{
	put8(0x4000, flips++ & 1 ? 0x5007 : 0x6007);
}

static void race_endless(void **state)
{
	struct walk_result r;

	put8(0x1000, 0x2027);
	put8(0x2000, 0x3027);
	put8(0x3000, 0x4027);
	put8(0x4000, 0x5007);
	race = flip_for_ever;
	flips = 0;
	assert_int_equal(walk(NULL, &long_mode, gva(0), WALK_READ, &r), WALK_RETRY);
	assert_int_equal(flips, WALK_MAX_RESTARTS + 1);
}

static void self_mapped(void **state)
{
	/* The top table maps itself: slot 0 all the way down is the table itself. */
	put8(0x1000, 0x1007);
	expect_addr(&long_mode, 0x18, WALK_WRITE, 0x1018, 4096);
	assert_int_equal(get8(0x1000), 0x1067);
	put4(0x1000 + 4 * 7, 0x1003);
	expect_addr(&mode_32, 7 << 22 | 7 << 12 | 0x1c, WALK_WRITE, 0x101c, 4096);
	assert_int_equal(get4(0x101c), 0x1063);
}

/* Holes read as all ones: reserved bits, or in 32-bit paging the last page of 4 GiB. */
static void outside_ram(void **state)
{
	struct walk_state s = long_mode;

	s.cr3 = 0xff00000000;
	expect_fault(&s, 0, WALK_READ, PF_P | PF_RSVD);
	s.cr3 = 0x1000;
	put8(0x1000, 0x2007);
	put8(0x2000, 0x3007);
	put8(0x3000, 0x80000007);
	expect_fault(&s, 0, WALK_WRITE, PF_P | PF_RSVD | PF_W);
	s.phys_bits = 52; /* nothing reserved is left in a last-level entry */
	expect_addr(&s, 0x123, WALK_WRITE, 0xffffffffff123, 4096);
	s = mode_32;
	s.cr3 = 0xfffff000;
	expect_fault(&s, 0, WALK_READ, PF_P | PF_RSVD);
	s.cr4 = 0;
	expect_addr(&s, 0x123, WALK_WRITE, 0xfffff123, 4096);
}

/* --- an independent model, setting flags in a copy of memory --- */

/* What one bit of an entry is: the SDM's format tables 4-4 to 4-20, one question at a time. */
static bool bit_is_reserved(const struct walk_state *s, unsigned int levels, unsigned int level,
			    bool large, unsigned int bit)
{
	if (levels == 2 && !(s->cr4 & CR4_PAE)) {
		if (!large)
			return false;
		if (bit == 21)
			return true;
		return bit >= 13 && bit <= 20 && 32 + (bit - 13) >= s->phys_bits;
	}
	if (bit == 63)
		return !(s->efer & EFER_NXE);
	if (bit >= 52)
		return levels == 2;
	if (bit >= s->phys_bits)
		return true;
	if (level == 4)
		return bit == 7;
	if (level == 3)
		return large &&
		       (s->no_1g ? bit == 7 || (bit >= 13 && bit < 30) : bit >= 13 && bit < 30);
	return level == 2 && large && bit >= 13 && bit < 21;
}

static int model(const struct walk_state *s, u64 linear, unsigned int access, u64 *addr, u32 *code,
		 u8 *memory)
{
	bool pae = s->cr4 & CR4_PAE, lma = pae && (s->efer & EFER_LMA);
	unsigned int size = pae ? 8 : 4, levels = lma ? 4 : 2, level, shift = 0;
	u64 entry = 0, at[5] = {0}, table = pae ? s->cr3 & 0xffffffffff000 : s->cr3 & 0xfffff000;
	bool user = s->cpl == 3 && !(access & WALK_IMPLICIT), u = true, w = true, x = true, ok;

	*code = (access & WALK_WRITE ? 2 : 0) | (user ? 4 : 0);
	if ((access & WALK_FETCH) && ((s->cr4 & CR4_SMEP) || (pae && (s->efer & EFER_NXE))))
		*code |= 16;
	if (!lma)
		linear &= 0xffffffff;
	if (pae && !lma) {
		u64 p = s->pdpte[linear / GIB];

		if (p % 2 == 0)
			return 1;
		table = p & 0xffffffffff000;
	}
	for (level = levels;; level--) {
		bool large;

		shift = pae ? 12 + 9 * (level - 1) : 12 + 10 * (level - 1);
		at[level] = table + linear / (1ull << shift) % (4096 / size) * size;
		entry = 0;
		if (at[level] + size <= RAM_BYTES)
			memcpy(&entry, memory + at[level], size);
		else
			memset(&entry, 0xff, size);
		if (entry % 2 == 0)
			return 1;
		large = (entry & 0x80) &&
			((level == 2 && (pae || (s->cr4 & CR4_PSE))) || level == 3);
		for (unsigned int bit = 0; bit < size * 8; bit++) {
			if ((entry >> bit & 1) && bit_is_reserved(s, levels, level, large, bit)) {
				*code |= 9;
				return 1;
			}
		}
		u = u && (entry & 4);
		w = w && (entry & 2);
		x = x && !(entry >> 63);
		if (level == 1 || large)
			break;
		table = entry & 0xffffffffff000;
	}
	ok = true;
	if (user) {
		ok = u && (w || !(access & WALK_WRITE)) && (x || !(access & WALK_FETCH));
	} else if (access & WALK_FETCH) {
		ok = x && !(u && (s->cr4 & CR4_SMEP));
	}
	if (!user && (access & (WALK_READ | WALK_WRITE))) {
		if (u && (s->cr4 & CR4_SMAP) &&
		    ((access & WALK_IMPLICIT) || !(s->rflags & RFLAGS_AC)))
			ok = false;
		if ((access & WALK_WRITE) && !w && (s->cr0 & CR0_WP))
			ok = false;
	}
	if (!ok) {
		*code |= 1;
		return 1;
	}
	*addr = (entry & 0xffffffffff000) >> shift << shift;
	if (!pae && level == 2)
		*addr += (entry >> 13 & 0xff) << 32;
	*addr += linear % (1ull << shift);
	for (unsigned int i = levels; i >= level; i--) {
		if (at[i] + size <= RAM_BYTES)
			memory[at[i]] |= i == level && (access & WALK_WRITE) ? 0x60 : 0x20;
	}
	return 0;
}

static u64 random64(void)
{
	return (u64)(u32)mrand48() << 32 | (u32)mrand48();
}

/* Mostly sensible entries, so that walks get deep; then a few bits wrong. */
static u64 random_entry(const struct walk_state *s, bool wide)
{
	u64 e = random64() % 64 * 4096 | 7 | (random64() & 0xe78);

	if (random64() % 4 == 0)
		e |= 0x80;
	if (random64() % 4 == 0)
		e ^= 1ull << random64() % 64;
	if (random64() % 8 == 0)
		e &= ~(random64() & 7);
	if (random64() % 16 == 0)
		e = random64();
	if ((e & 0x80) && random64() % 2)
		e &= ~(wide ? 0x1fe000ull : 0x3fe000ull);
	return wide ? e : (u32)e;
}

static void against_model(void **state)
{
	static u8 want[RAM_BYTES];
	unsigned int found = 0, faults = 0;

	srand48(20240229);
	for (unsigned int round = 0; round < 400; round++) {
		struct walk_state s = {.cr0 = CR0_PE | CR0_PG, .phys_bits = 32 + random64() % 21};
		bool wide;

		s.cr0 |= random64() & CR0_WP;
		s.cr4 = random64() & (CR4_PAE | CR4_PSE | CR4_SMEP | CR4_SMAP);
		s.efer = random64() & EFER_NXE;
		s.no_1g = random64() % 4 == 0;
		wide = s.cr4 & CR4_PAE;
		if (wide && random64() % 3)
			s.efer |= EFER_LMA;
		s.cr3 = random64() % 64 * 4096 | (random64() & 0xfff);
		for (unsigned int i = 0; i < 4; i++)
			s.pdpte[i] = random64() % 65 * 4096 | (random64() % 8 ? 1 : 0);
		for (u64 at = 0; at < RAM_BYTES; at += 8)
			put8(at, wide ? random_entry(&s, true)
				      : random_entry(&s, false) | random_entry(&s, false) << 32);
		memcpy(want, ram, sizeof(ram));
		for (unsigned int i = 0; i < 400; i++) {
			static const unsigned int accesses[] = {WALK_READ,
								WALK_WRITE,
								WALK_READ | WALK_WRITE,
								WALK_FETCH,
								WALK_READ | WALK_IMPLICIT,
								WALK_WRITE | WALK_IMPLICIT};
			unsigned int access = accesses[random64() % ARRAY_SIZE(accesses)];
			u64 linear = (s64)(random64() << 16) >> 16, addr = 0;
			struct walk_result r;
			u32 code = 0;

			s.cpl = random64() % 4;
			s.rflags = random64() & RFLAGS_AC;
			if (model(&s, linear, access, &addr, &code, want)) {
				assert_int_equal(walk(NULL, &s, gva(linear), access, &r),
						 WALK_FAULT);
				assert_int_equal(r.error_code, code);
				faults++;
			} else {
				assert_int_equal(walk(NULL, &s, gva(linear), access, &r), WALK_OK);
				assert_int_equal(r.addr.v, addr);
				found++;
			}
		}
		assert_memory_equal(ram, want, sizeof(ram));
	}
	/* Both outcomes have to be common, or this has shown nothing. */
	assert_true(found > 20000 && faults > 20000);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(no_paging, reset),
		cmocka_unit_test_setup(four_level, reset),
		cmocka_unit_test_setup(pae, reset),
		cmocka_unit_test_setup(pdptes, reset),
		cmocka_unit_test_setup(mode_32_bit, reset),
		cmocka_unit_test_setup(mode_32_large, reset),
		cmocka_unit_test_setup(access_rights, reset),
		cmocka_unit_test_setup(error_code_fetch, reset),
		cmocka_unit_test_setup(refused_features, reset),
		cmocka_unit_test_setup(flags_only_after_checks, reset),
		cmocka_unit_test_setup(race_unmap, reset),
		cmocka_unit_test_setup(race_remap, reset),
		cmocka_unit_test_setup(race_endless, reset),
		cmocka_unit_test_setup(self_mapped, reset),
		cmocka_unit_test_setup(outside_ram, reset),
		cmocka_unit_test_setup(against_model, reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
