/* VM-entry checks on guest segment and descriptor-table registers: SDM 3C 27.3.1.2, 27.3.1.3. */
#include "vmx/entry_rules.h"

#define SECTION	       "27.3.1.2"
#define SECTION_TABLES "27.3.1.3"

/* Access rights (SDM 3C table 25-2). */
#define AR_TYPE	    0xfu
#define AR_S	    BIT(4)
#define AR_P	    BIT(7)
#define AR_RESERVED (0xf00u | 0xfffe0000u)
#define AR_L	    BIT(13)
#define AR_DB	    BIT(14)
#define AR_G	    BIT(15)
#define AR_UNUSABLE BIT(16)
#define AR_V86	    0xf3u

#define TYPE_ACCESSED 1u
#define TYPE_READABLE 2u /* of code segments */
#define TYPE_CODE     8u

enum {
	ES,
	CS,
	SS,
	DS,
	FS,
	GS,
	LDTR,
	TR,
	COUNT
};

/* In the VMCS the fields of one kind lie two apart, in the order of the list above. */
#define SELECTOR(i) (VMCS_GUEST_ES + 2u * (i))
#define LIMIT(i)    (VMCS_GUEST_ES_LIMIT + 2u * (i))
#define RIGHTS(i)   (VMCS_GUEST_ES_AR + 2u * (i))
#define BASE(i)	    (VMCS_GUEST_ES_BASE + 2u * (i))
_Static_assert(SELECTOR(TR) == VMCS_GUEST_TR && LIMIT(TR) == VMCS_GUEST_TR_LIMIT &&
		       RIGHTS(TR) == VMCS_GUEST_TR_AR && BASE(TR) == VMCS_GUEST_TR_BASE,
	       "order of the segment fields, SDM 3D appendix B");

struct segments {
	struct entry_state *s;
	bool unrestricted, ia32e, real;
	u32 selector[COUNT];
	u32 limit[COUNT];
	u32 ar[COUNT];
	u64 base[COUNT];
};

static u32 dpl(u32 ar)
{
	return ar >> 5 & 3;
}

static bool usable(const struct segments *g, unsigned int i)
{
	return !(g->ar[i] & AR_UNUSABLE);
}

static void require_ar(const struct segments *g, bool ok, unsigned int i, const char *rule)
{
	entry_require(g->s, ok, RIGHTS(i), rule, SECTION);
}

/* A limit with any of bits 11:0 clear cannot be in pages; one above 1 MiB cannot be in bytes. */
static bool granularity_fits(u32 limit, u32 ar)
{
	if ((limit & 0xfff) != 0xfff && (ar & AR_G))
		return false;
	return !(limit & 0xfff00000) || (ar & AR_G);
}

static void check_present(const struct segments *g, unsigned int i, bool system)
{
	require_ar(g, !(g->ar[i] & AR_S) == system, i,
		   system ? "S (bit 4) must be 0: a system segment"
			  : "S (bit 4) must be 1: a code or data segment");
	require_ar(g, g->ar[i] & AR_P, i, "P (bit 7) must be 1");
	require_ar(g, !(g->ar[i] & AR_RESERVED), i, "reserved bits 31:17 and 11:8 must be 0");
	require_ar(
		g, granularity_fits(g->limit[i], g->ar[i]), i,
		"G (bit 15) must be 0 if any of limit bits 11:0 is 0, and 1 if any of bits 31:20 "
		"is 1");
}

static void check_v86(const struct segments *g)
{
	for (unsigned int i = ES; i <= GS; i++) {
		entry_require(g->s, g->base[i] == (u64)g->selector[i] << 4, BASE(i),
			      "the base must be the selector times 16 in virtual-8086 mode",
			      SECTION);
		entry_require(g->s, g->limit[i] == 0xffff, LIMIT(i),
			      "the limit must be FFFFH in virtual-8086 mode", SECTION);
		require_ar(g, g->ar[i] == AR_V86, i, "must be F3H in virtual-8086 mode");
	}
}

static void check_code(const struct segments *g)
{
	u32 ar = g->ar[CS], type = ar & AR_TYPE, ss_dpl = dpl(g->ar[SS]);

	require_ar(
		g, (type & 9) == 9 || (type == 3 && g->unrestricted), CS,
		"the type must be accessed code: 9, 11, 13, 15 (or 3 for an unrestricted guest)");
	if (type == 3)
		require_ar(g, dpl(ar) == 0, CS, "DPL must be 0 for type 3");
	if (type == 9 || type == 11)
		require_ar(g, dpl(ar) == ss_dpl, CS,
			   "DPL must be that of SS for non-conforming code");
	if (type == 13 || type == 15)
		require_ar(g, dpl(ar) <= ss_dpl, CS,
			   "DPL must not be above that of SS for conforming code");
	if (g->ia32e && (ar & AR_L))
		require_ar(g, !(ar & AR_DB), CS, "D (bit 14) must be 0 with L (bit 13)");
	check_present(g, CS, false);
}

static void check_stack(const struct segments *g)
{
	u32 ar = g->ar[SS], type = ar & AR_TYPE;

	if (!g->unrestricted) {
		entry_require(g->s, (g->selector[SS] & 3) == (g->selector[CS] & 3), SELECTOR(SS),
			      "RPL must equal that of CS", SECTION);
		require_ar(g, dpl(ar) == (g->selector[SS] & 3), SS,
			   "DPL must equal the selector's RPL");
	}
	if ((g->ar[CS] & AR_TYPE) == 3 || g->real)
		require_ar(g, dpl(ar) == 0, SS, "DPL must be 0 if CR0.PE is 0 or CS has type 3");
	if (!usable(g, SS))
		return;
	require_ar(g, type == 3 || type == 7, SS,
		   "the type must be accessed read/write data: 3 or 7");
	check_present(g, SS, false);
}

static void check_data(const struct segments *g, unsigned int i)
{
	u32 ar = g->ar[i], type = ar & AR_TYPE;

	if (!usable(g, i))
		return;
	require_ar(g, type & TYPE_ACCESSED, i, "the type must be accessed (bit 0)");
	require_ar(g, !(type & TYPE_CODE) || (type & TYPE_READABLE), i,
		   "a code segment must be readable (bit 1)");
	if (!g->unrestricted && type <= 11)
		require_ar(g, dpl(ar) >= (g->selector[i] & 3), i,
			   "DPL must not be below the selector's RPL");
	check_present(g, i, false);
}

static void check_system(const struct segments *g)
{
	u32 type = g->ar[TR] & AR_TYPE;

	entry_require(g->s, !(g->selector[TR] & 4), SELECTOR(TR), "TI (bit 2) must be 0", SECTION);
	require_ar(g, usable(g, TR), TR, "TR must be usable (bit 16 = 0)");
	require_ar(g, type == 11 || (type == 3 && !g->ia32e), TR,
		   "the type must be a busy TSS: 11, or outside IA-32e mode 3");
	check_present(g, TR, true);
	if (!usable(g, LDTR))
		return;
	entry_require(g->s, !(g->selector[LDTR] & 4), SELECTOR(LDTR), "TI (bit 2) must be 0",
		      SECTION);
	require_ar(g, (g->ar[LDTR] & AR_TYPE) == 2, LDTR, "the type must be 2: LDT");
	check_present(g, LDTR, true);
}

static void check_bases(const struct segments *g)
{
	static const u8 canonical[] = {TR, FS, GS, LDTR};
	static const u8 low[] = {CS, SS, DS, ES};

	for (size_t i = 0; i < ARRAY_SIZE(canonical); i++)
		if (canonical[i] != LDTR || usable(g, LDTR))
			entry_require(g->s, entry_canonical(g->s, g->base[canonical[i]]),
				      BASE(canonical[i]), "the base must be canonical", SECTION);
	for (size_t i = 0; i < ARRAY_SIZE(low); i++)
		if (low[i] == CS || usable(g, low[i]))
			entry_bits(g->s, BASE(low[i]), 0, ~(u64)0xffffffff,
				   "bits 63:32 of the base must be 0", SECTION);
}

static void check_tables(struct entry_state *s)
{
	static const u32 bases[] = {VMCS_GUEST_GDTR_BASE, VMCS_GUEST_IDTR_BASE};
	static const u32 limits[] = {VMCS_GUEST_GDTR_LIMIT, VMCS_GUEST_IDTR_LIMIT};

	for (size_t i = 0; i < ARRAY_SIZE(bases); i++) {
		entry_require(s, entry_canonical(s, entry_read(s, bases[i])), bases[i],
			      "the base must be canonical", SECTION_TABLES);
		entry_bits(s, limits[i], 0, ~(u64)0xffff, "bits 31:16 of the limit must be 0",
			   SECTION_TABLES);
	}
}

void entry_check_segments(struct entry_state *s)
{
	struct segments g = {
		.s = s,
		.unrestricted = s->proc2 & PROC2_UNRESTRICTED_GUEST,
		.ia32e = s->entry & ENTRY_IA32E,
		.real = !(entry_read(s, VMCS_GUEST_CR0) & CR0_PE),
	};

	for (unsigned int i = 0; i < COUNT; i++) {
		g.selector[i] = entry_read(s, SELECTOR(i));
		g.limit[i] = entry_read(s, LIMIT(i));
		g.ar[i] = entry_read(s, RIGHTS(i));
		g.base[i] = entry_read(s, BASE(i));
	}
	if (entry_read(s, VMCS_GUEST_RFLAGS) & RFLAGS_VM) {
		check_v86(&g);
	} else {
		check_code(&g);
		check_stack(&g);
		check_data(&g, DS);
		check_data(&g, ES);
		check_data(&g, FS);
		check_data(&g, GS);
	}
	check_system(&g);
	check_bases(&g);
	check_tables(s);
}
