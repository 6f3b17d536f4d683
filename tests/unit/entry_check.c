/*
 * The VM-entry checker: two valid VMCSs pass, and each rule, broken alone, names its field.
 *
 * Fields that a VMCS has only with certain controls are absent from the tables unless a case sets
 * them: reading an absent field fails the test.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "vmx/entry_check.h"
#include "vmx/vmcs.h"
#include "x86/regs.h"

#define MAX_FIELDS 256
#define MAX_SETS   5
#define HIGH	   (1ull << 60)
#define NONCANON   0x0001000000000000ull

struct set {
	u32 field;
	u64 value;
};

struct vmcs {
	unsigned int count;
	struct set field[MAX_FIELDS];
};

static const struct vmx_caps caps_all = {
	.has_vmx = true,
	.has_true = true,
	.basic = 0x12,
	.misc = 4ull << 16 | 7 << 6,
	.ept_vpid = EPT_CAP_WALK_4 | EPT_CAP_WB | EPT_CAP_2M,
	.vmfunc = 1,
	.pin = 0x16 | 0xffull << 32,
	.proc = 0x4006172 | 0xfff9fffeull << 32,
	.exit = 0x36dfb | 0x7fffffull << 32,
	.entry = 0x11fb | 0xffffull << 32,
	.proc2 = 0xffffffffull << 32,
	.cr0_fixed0 = 0x80000021,
	.cr0_fixed1 = 0xffffffff,
	.cr4_fixed0 = 0x2000,
	.cr4_fixed1 = 0xf7fff, /* without CET */
};

/* What both guests share: controls and host state. */
/* clang-format off */
static const struct set common[] = {
	{VMCS_PIN_CONTROLS, 0x16 | PIN_EXTERNAL_INTERRUPT | PIN_NMI | PIN_VIRTUAL_NMI |
	 PIN_PREEMPTION_TIMER},
	{VMCS_PROC_CONTROLS, 0x4006172 | PROC_SECONDARY | PROC_TPR_SHADOW | PROC_IO_BITMAPS |
	 PROC_MSR_BITMAPS | PROC_HLT},
	{VMCS_PROC2_CONTROLS, PROC2_EPT | PROC2_VPID | PROC2_UNRESTRICTED_GUEST},
	{VMCS_EXIT_CONTROLS, 0x36dfb | EXIT_HOST_64 | EXIT_ACK_INTERRUPT | EXIT_LOAD_PAT |
	 EXIT_LOAD_EFER | EXIT_SAVE_EFER},
	{VMCS_CR3_TARGET_COUNT, 0},
	{VMCS_IO_BITMAP_A, 0x1000},
	{VMCS_IO_BITMAP_B, 0x2000},
	{VMCS_MSR_BITMAP, 0x3000},
	{VMCS_VIRTUAL_APIC, 0x4000},
	{VMCS_TPR_THRESHOLD, 0},
	{VMCS_VPID, 1},
	{VMCS_EPTP, 0x5000 | 3 << 3 | 6},
	{VMCS_EXIT_MSR_STORE_COUNT, 0},
	{VMCS_EXIT_MSR_LOAD_COUNT, 0},
	{VMCS_ENTRY_MSR_LOAD_COUNT, 0},
	{VMCS_ENTRY_INTR_INFO, 0},
	{VMCS_HOST_CR0, 0x80000033},
	{VMCS_HOST_CR3, 0x6000},
	{VMCS_HOST_CR4, 0x2020},
	{VMCS_HOST_EFER, EFER_LME | EFER_LMA | EFER_NXE},
	{VMCS_HOST_PAT, 0x0007040600070406},
	{VMCS_HOST_ES, 0},
	{VMCS_HOST_CS, 8},
	{VMCS_HOST_SS, 0},
	{VMCS_HOST_DS, 0},
	{VMCS_HOST_FS, 0},
	{VMCS_HOST_GS, 0},
	{VMCS_HOST_TR, 0x20},
	{VMCS_HOST_FS_BASE, 0},
	{VMCS_HOST_GS_BASE, 0xffffffff80200000},
	{VMCS_HOST_TR_BASE, 0xffffffff80201000},
	{VMCS_HOST_GDTR_BASE, 0xffffffff80202000},
	{VMCS_HOST_IDTR_BASE, 0xffffffff80203000},
	{VMCS_HOST_SYSENTER_ESP, 0},
	{VMCS_HOST_SYSENTER_EIP, 0},
	{VMCS_HOST_RIP, 0xffffffff80100000},
	{VMCS_LINK_POINTER, ~0ull},
	{VMCS_GUEST_ACTIVITY, ACTIVITY_ACTIVE},
	{VMCS_GUEST_INTERRUPTIBILITY, 0},
	{VMCS_GUEST_PENDING_DEBUG, 0},
	{VMCS_GUEST_DEBUGCTL, 0},
	{VMCS_GUEST_DR7, 0x400},
	{VMCS_GUEST_SYSENTER_ESP, 0},
	{VMCS_GUEST_SYSENTER_EIP, 0},
	{VMCS_GUEST_PAT, 0x0007040600070406},
	{VMCS_GUEST_LDTR, 0},
	{VMCS_GUEST_LDTR_BASE, 0},
	{VMCS_GUEST_LDTR_LIMIT, 0},
	{VMCS_GUEST_LDTR_AR, 0x10000},
	{VMCS_GUEST_GDTR_LIMIT, 0xffff},
	{VMCS_GUEST_IDTR_LIMIT, 0xfff},
};

static const struct set long_mode[] = {
	{VMCS_ENTRY_CONTROLS, 0x11fb | ENTRY_IA32E | ENTRY_LOAD_EFER | ENTRY_LOAD_PAT},
	{VMCS_GUEST_CR0, 0x80000031},
	{VMCS_GUEST_CR3, 0x1000},
	{VMCS_GUEST_CR4, 0x2020},
	{VMCS_GUEST_EFER, EFER_LME | EFER_LMA},
	{VMCS_GUEST_RIP, 0xffffffff81000000},
	{VMCS_GUEST_RFLAGS, 2},
	{VMCS_GUEST_GDTR_BASE, 0xffff888000000000},
	{VMCS_GUEST_IDTR_BASE, 0xffff888000001000},
	{VMCS_GUEST_CS, 0x10},
	{VMCS_GUEST_CS_BASE, 0},
	{VMCS_GUEST_CS_LIMIT, ~0u},
	{VMCS_GUEST_CS_AR, 0xa09b},
	{VMCS_GUEST_SS, 0x18},
	{VMCS_GUEST_SS_BASE, 0},
	{VMCS_GUEST_SS_LIMIT, ~0u},
	{VMCS_GUEST_SS_AR, 0xc093},
	{VMCS_GUEST_DS, 0},
	{VMCS_GUEST_DS_BASE, 0},
	{VMCS_GUEST_DS_LIMIT, ~0u},
	{VMCS_GUEST_DS_AR, 0xc093},
	{VMCS_GUEST_ES, 0},
	{VMCS_GUEST_ES_BASE, 0},
	{VMCS_GUEST_ES_LIMIT, ~0u},
	{VMCS_GUEST_ES_AR, 0x1c0f3},
	{VMCS_GUEST_FS, 0},
	{VMCS_GUEST_FS_BASE, 0},
	{VMCS_GUEST_FS_LIMIT, ~0u},
	{VMCS_GUEST_FS_AR, 0xc093},
	{VMCS_GUEST_GS, 0},
	{VMCS_GUEST_GS_BASE, 0xffff888000002000},
	{VMCS_GUEST_GS_LIMIT, ~0u},
	{VMCS_GUEST_GS_AR, 0xc093},
	{VMCS_GUEST_TR, 0x40},
	{VMCS_GUEST_TR_BASE, 0xfffffe0000003000},
	{VMCS_GUEST_TR_LIMIT, 0x67},
	{VMCS_GUEST_TR_AR, 0x8b},
};

static const struct set real_mode[] = {
	{VMCS_ENTRY_CONTROLS, 0x11fb | ENTRY_LOAD_EFER | ENTRY_LOAD_PAT},
	{VMCS_GUEST_CR0, 0x20},
	{VMCS_GUEST_CR3, 0},
	{VMCS_GUEST_CR4, 0x2000},
	{VMCS_GUEST_EFER, 0},
	{VMCS_GUEST_RIP, 0xfff0},
	{VMCS_GUEST_RFLAGS, 2},
	{VMCS_GUEST_GDTR_BASE, 0},
	{VMCS_GUEST_IDTR_BASE, 0},
	{VMCS_GUEST_CS, 0xf000},
	{VMCS_GUEST_CS_BASE, 0xffff0000},
	{VMCS_GUEST_CS_LIMIT, 0xffff},
	{VMCS_GUEST_CS_AR, 0x9b},
	{VMCS_GUEST_SS, 0},
	{VMCS_GUEST_SS_BASE, 0},
	{VMCS_GUEST_SS_LIMIT, 0xffff},
	{VMCS_GUEST_SS_AR, 0x93},
	{VMCS_GUEST_DS, 0},
	{VMCS_GUEST_DS_BASE, 0},
	{VMCS_GUEST_DS_LIMIT, 0xffff},
	{VMCS_GUEST_DS_AR, 0x93},
	{VMCS_GUEST_ES, 0},
	{VMCS_GUEST_ES_BASE, 0},
	{VMCS_GUEST_ES_LIMIT, 0xffff},
	{VMCS_GUEST_ES_AR, 0x93},
	{VMCS_GUEST_FS, 0},
	{VMCS_GUEST_FS_BASE, 0},
	{VMCS_GUEST_FS_LIMIT, 0xffff},
	{VMCS_GUEST_FS_AR, 0x93},
	{VMCS_GUEST_GS, 0},
	{VMCS_GUEST_GS_BASE, 0},
	{VMCS_GUEST_GS_LIMIT, 0xffff},
	{VMCS_GUEST_GS_AR, 0x93},
	{VMCS_GUEST_TR, 0},
	{VMCS_GUEST_TR_BASE, 0},
	{VMCS_GUEST_TR_LIMIT, 0xffff},
	{VMCS_GUEST_TR_AR, 0x8b},
};
/* clang-format on */

static u64 *find(struct vmcs *v, u32 field)
{
	for (unsigned int i = 0; i < v->count; i++)
		if (v->field[i].field == field)
			return &v->field[i].value;
	return NULL;
}

static void put(struct vmcs *v, u32 field, u64 value)
{
	u64 *p = find(v, field);

	if (p) {
		*p = value;
		return;
	}
	assert_true(v->count < MAX_FIELDS);
	v->field[v->count++] = (struct set){field, value};
}

static void put_all(struct vmcs *v, const struct set *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		put(v, s[i].field, s[i].value);
}

enum base {
	LONG,
	REAL,
	PAE,
	V86,
	RESTRICTED
};

static void make(struct vmcs *v, enum base base)
{
	static const u32 segs[] = {0, 2, 4, 6, 8, 10};

	v->count = 0;
	put_all(v, common, ARRAY_SIZE(common));
	if (base == LONG || base == RESTRICTED)
		put_all(v, long_mode, ARRAY_SIZE(long_mode));
	else
		put_all(v, real_mode, ARRAY_SIZE(real_mode));
	if (base == RESTRICTED)
		put(v, VMCS_PROC2_CONTROLS, PROC2_EPT | PROC2_VPID);
	if (base == PAE || base == V86) {
		put(v, VMCS_GUEST_CR0, 0x80000031);
		put(v, VMCS_GUEST_CR4, 0x2020);
		for (u32 i = 0; i < 4; i++)
			put(v, VMCS_GUEST_PDPTE0 + 2 * i, i == 3 ? 0x1e6 : 0x2001);
	}
	if (base == V86) {
		put(v, VMCS_GUEST_RFLAGS, 2 | RFLAGS_VM);
		for (size_t i = 0; i < ARRAY_SIZE(segs); i++) {
			put(v, VMCS_GUEST_ES + segs[i], 0x1000);
			put(v, VMCS_GUEST_ES_BASE + segs[i], 0x10000);
			put(v, VMCS_GUEST_ES_AR + segs[i], 0xf3);
		}
	}
}

/* "Physical memory": MSR areas at 0x10000, VMCS regions at 0x20000 and 0x21000, VTPR at 0x4080. */
static struct {
	u32 index, reserved;
	u64 value;
} msr_area[2];

static bool read_phys(void *ctx, hpa_t from, void *dst, u32 len)
{
	u32 revision = from.v == 0x20000 ? 0x12 : 0x13;
	u8 vtpr = 0x20;

	if (from.v >= 0x10000 && from.v + len <= 0x10000 + sizeof(msr_area))
		memcpy(dst, (u8 *)msr_area + (from.v - 0x10000), len);
	else if (from.v == 0x20000 || from.v == 0x21000)
		memcpy(dst, &revision, 4);
	else if (from.v == 0x4080)
		memcpy(dst, &vtpr, 1);
	else
		return false;
	return true;
}

static u64 read_field(void *ctx, u32 field)
{
	u64 *p = find(ctx, field);

	if (!p)
		fail_msg("read of field %#x (%s), which this VMCS does not have", field,
			 vmcs_field_name(field));
	return *p;
}

struct seen {
	unsigned int count;
	struct entry_fault fault[16];
};

static void collect(void *ctx, const struct entry_fault *f)
{
	struct seen *s = ctx;

	assert_non_null(f->rule);
	assert_true(strncmp(f->section, "27.", 3) == 0);
	if (s->count < ARRAY_SIZE(s->fault))
		s->fault[s->count] = *f;
	s->count++;
}

static void run(struct vmcs *v, const struct vmx_caps *caps, struct seen *seen)
{
	const struct entry_source source = {.ctx = v,
					    .read = read_field,
					    .read_phys = read_phys,
					    .phys_bits = 40,
					    .linear_bits = 48};

	seen->count = 0;
	unsigned int faults = entry_check(&source, caps, collect, seen);

	assert_int_equal(faults, seen->count);
}

static void valid_states_pass(void **state)
{
	static struct vmcs v;
	struct seen seen;

	for (enum base b = LONG; b <= RESTRICTED; b++) {
		make(&v, b);
		run(&v, &caps_all, &seen);
		if (seen.count)
			fail_msg("base %d: %s = %#llx: %s", b, vmcs_field_name(seen.fault[0].field),
				 (unsigned long long)seen.fault[0].value, seen.fault[0].rule);
	}
}

#include "entry_check_cases.h"

/* Breaks each rule alone: the right field with the right rule, and nothing else, is reported. */
static void check_table(const struct broken *table, size_t n)
{
	static struct vmcs v;
	struct seen seen;

	for (size_t i = 0; i < n; i++) {
		const struct broken *b = &table[i];
		bool found = false;

		make(&v, b->base);
		for (size_t j = 0; j < MAX_SETS && (!j || b->set[j].field); j++)
			put(&v, b->set[j].field, b->set[j].value);
		run(&v, &caps_all, &seen);
		for (unsigned int j = 0; j < seen.count && j < ARRAY_SIZE(seen.fault); j++)
			if (seen.fault[j].field == b->field &&
			    strstr(seen.fault[j].rule, b->rule) &&
			    seen.fault[j].value == *find(&v, b->field))
				found = true;
		if (found && seen.count == 1 + b->others)
			continue;
		for (unsigned int j = 0; j < seen.count && j < ARRAY_SIZE(seen.fault); j++)
			print_error("  reported: %s = %#llx: %s\n",
				    vmcs_field_name(seen.fault[j].field),
				    (unsigned long long)seen.fault[j].value, seen.fault[j].rule);
		fail_msg("case %zu (%s, \"%s\"): %s, %u reports", i, vmcs_field_name(b->field),
			 b->rule, found ? "found" : "not found", seen.count);
	}
}

static void execution_rules(void **state)
{
	check_table(execution, ARRAY_SIZE(execution));
}

static void exit_and_entry_rules(void **state)
{
	check_table(exit_entry, ARRAY_SIZE(exit_entry));
}

static void host_rules(void **state)
{
	check_table(host, ARRAY_SIZE(host));
}

static void guest_rules(void **state)
{
	check_table(guest, ARRAY_SIZE(guest));
}

static void segment_rules(void **state)
{
	check_table(segments, ARRAY_SIZE(segments));
}

static void msr_area_rules(void **state)
{
	static const struct {
		u32 index, reserved;
		u64 value;
		bool load_only;
		const char *rule;
	} bad[] = {
		{MSR_STAR, 1, 0, false, "63:32"},	{MSR_FS_BASE, 0, 0, true, "FS_BASE"},
		{MSR_GS_BASE, 0, 0, true, "GS_BASE"},	{0x9b, 0, 0, true, "SMM"},
		{0x79, 0, 0, true, "microcode"},	{0x808, 0, 0, false, "x2APIC"},
		{MSR_PAT, 0, 0x0200, true, "IA32_PAT"}, {MSR_EFER, 0, 2, true, "IA32_EFER"},
	};
	static const struct {
		u32 address, count;
		bool load;
	} areas[] = {
		{VMCS_EXIT_MSR_STORE, VMCS_EXIT_MSR_STORE_COUNT, false},
		{VMCS_EXIT_MSR_LOAD, VMCS_EXIT_MSR_LOAD_COUNT, true},
		{VMCS_ENTRY_MSR_LOAD, VMCS_ENTRY_MSR_LOAD_COUNT, true},
	};
	static struct vmcs v;
	struct seen seen;

	for (size_t a = 0; a < ARRAY_SIZE(areas); a++) {
		make(&v, LONG);
		put(&v, areas[a].address, 0x10000);
		put(&v, areas[a].count, 2);
		for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
			bool wrong = areas[a].load || !bad[i].load_only;

			memset(msr_area, 0, sizeof(msr_area));
			msr_area[0].index = MSR_KERNEL_GS_BASE;
			msr_area[1].index = bad[i].index;
			msr_area[1].reserved = bad[i].reserved;
			msr_area[1].value = bad[i].value;
			run(&v, &caps_all, &seen);
			assert_int_equal(seen.count, wrong);
			if (!wrong)
				continue;
			assert_int_equal(seen.fault[0].field, areas[a].address);
			assert_non_null(strstr(seen.fault[0].rule, bad[i].rule));
			assert_string_equal(seen.fault[0].section, "27.4");
		}
	}
}

/* Rules that depend on what the processor offers. */
static void capabilities_matter(void **state)
{
	static struct vmcs v;
	struct vmx_caps caps = caps_all;
	struct seen seen;

	caps.ept_vpid |= EPT_CAP_AD | EPT_CAP_UC | BIT64(7);
	make(&v, LONG);
	put(&v, VMCS_EPTP, 0x5000 | BIT(6) | 4 << 3);
	run(&v, &caps, &seen);
	assert_int_equal(seen.count, 0);

	caps = caps_all; /* no HLT state */
	caps.misc &= ~(u64)BIT(6);
	make(&v, LONG);
	put(&v, VMCS_GUEST_ACTIVITY, ACTIVITY_HLT);
	run(&v, &caps, &seen);
	assert_int_equal(seen.count, 1);
	assert_int_equal(seen.fault[0].field, VMCS_GUEST_ACTIVITY);

	caps = caps_all; /* any error code with any vector; length 0 */
	caps.basic |= BIT64(56);
	caps.misc |= BIT64(30);
	make(&v, LONG);
	put(&v, VMCS_ENTRY_INTR_INFO, VALID | HWEXC | 13);
	run(&v, &caps, &seen);
	assert_int_equal(seen.count, 0);
	put(&v, VMCS_ENTRY_INTR_INFO, VALID | INTR_TYPE_SW_INTERRUPT | 13);
	put(&v, VMCS_ENTRY_INSTR_LEN, 0);
	run(&v, &caps, &seen);
	assert_int_equal(seen.count, 0);

	caps = caps_all; /* no monitor trap flag: no type 7 */
	caps.proc &= ~((u64)PROC_MTF << 32);
	put(&v, VMCS_ENTRY_INTR_INFO, VALID | INTR_TYPE_OTHER);
	run(&v, &caps, &seen);
	assert_int_equal(seen.count, 1);
	run(&v, &caps_all, &seen);
	assert_int_equal(seen.count, 0);

	caps = caps_all; /* secondary controls */
	caps.proc2 &= ~((u64)PROC2_VPID << 32);
	make(&v, LONG);
	run(&v, &caps, &seen);
	assert_int_equal(seen.count, 1);
	assert_int_equal(seen.fault[0].field, VMCS_PROC2_CONTROLS);
	assert_int_equal(seen.fault[0].bits, PROC2_VPID);
}

/* CET is the one feature that ties CR0.WP to CR4. */
static void cet_needs_wp(void **state)
{
	static struct vmcs v;
	struct vmx_caps caps = caps_all;
	struct seen seen;

	caps.cr4_fixed1 |= CR4_CET;
	make(&v, LONG);
	put(&v, VMCS_GUEST_CR4, 0x2020 | CR4_CET);
	put(&v, VMCS_HOST_CR4, 0x2020 | CR4_CET);
	run(&v, &caps, &seen);
	assert_int_equal(seen.count, 2);
	assert_int_equal(seen.fault[0].field, VMCS_HOST_CR0);
	assert_int_equal(seen.fault[1].field, VMCS_GUEST_CR0);
	put(&v, VMCS_ENTRY_INTR_INFO, VALID | HWEXC | 21);
	run(&v, &caps, &seen);
	assert_int_equal(seen.count, 3);
	assert_int_equal(seen.fault[0].field, VMCS_ENTRY_INTR_INFO);
}

static void names(void **state)
{
	assert_string_equal(vmcs_field_name(VMCS_GUEST_CS_AR), "guest CS access rights");
	assert_string_equal(vmcs_field_name(0x7ffe), "unknown field");
	assert_string_equal(exit_reason_name(EXIT_EPT_VIOLATION), "EPT violation");
	assert_string_equal(exit_reason_name(EXIT_REASON_ENTRY_FAILED | 33),
			    "VM-entry failure due to invalid guest state");
	assert_string_equal(exit_reason_name(35), "unknown exit reason");
	assert_string_equal(exit_reason_name(0xfff), "unknown exit reason");
	assert_string_equal(instruction_error_name(7), "VM entry with invalid control field(s)");
	assert_string_equal(instruction_error_name(14), "unknown error");
	assert_string_equal(instruction_error_name(99), "unknown error");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(valid_states_pass),	cmocka_unit_test(execution_rules),
		cmocka_unit_test(exit_and_entry_rules), cmocka_unit_test(host_rules),
		cmocka_unit_test(guest_rules),		cmocka_unit_test(segment_rules),
		cmocka_unit_test(msr_area_rules),	cmocka_unit_test(capabilities_matter),
		cmocka_unit_test(cet_needs_wp),		cmocka_unit_test(names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
