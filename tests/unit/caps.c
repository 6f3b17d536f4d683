/*
 * The requirement table against capability MSRs of several processors, and against the same
 * processors with one capability taken away at a time. The floor, the options and the controls are
 * spelled out here a second time, from the SDM and docs/portability.md, not from the table.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "vmx/caps.h"
#include "vmx/vmcs.h"

#define MODEL_COMMON                                                                           \
	.has_vmx = true, .has_true = true, .cr0_fixed0 = 0x80000021, .cr0_fixed1 = 0xffffffff, \
	.cr4_fixed0 = 0x2000, .pin = 0x7f00000016, .vmfunc = 1, .cpuid_1_ecx = 0x77faf3bf,     \
	.cpuid_1_edx = 0xbfebfbff, .cpuid_80000001_edx = 0x2c100800

/* Read out under Bochs 2.7 by the loader (log_level = debug), models by their Bochs names. */
static const struct vmx_caps bochs_haswell = {
	MODEL_COMMON,
	.basic = 0xd810000000002b,
	.misc = 0x200401e0,
	.proc = 0xf7f9fffe04006172,
	.exit = 0x7fffff00036dfb,
	.entry = 0xffff000011fb,
	.proc2 = 0x47fff00000000,
	.ept_vpid = 0xf0106334141,
	.cr4_fixed1 = 0x1727ff,
	.cpuid_7_ebx = 0x27ab,
	.cpuid_d1_eax = 1,
};
static const struct vmx_caps bochs_skylake_x = {
	MODEL_COMMON,
	.basic = 0xd810000000002b,
	.misc = 0x600401e0,
	.proc = 0xf7f9fffe04006172,
	.exit = 0x7fffff00036dfb,
	.entry = 0xffff000011fb,
	.proc2 = 0x2177fff00000000,
	.ept_vpid = 0xf0106334141,
	.cr4_fixed1 = 0x3727ff,
	.cpuid_7_ebx = 0xd19f27eb,
	.cpuid_d1_eax = 0xf,
};
static const struct vmx_caps bochs_tigerlake = {
	MODEL_COMMON,
	.basic = 0xd8100000000004,
	.misc = 0x600401e0,
	.proc = 0xfff9fffe04006172,
	.exit = 0x7fffff00036dfb,
	.entry = 0xffff000011fb,
	.proc2 = 0x2977fff00000000,
	.ept_vpid = 0xf0106334141,
	.cr4_fixed1 = 0x772fff,
	.cpuid_7_ebx = 0xf0bf27eb,
	.cpuid_7_ecx = 0x405f4e,
	.cpuid_d1_eax = 0xf,
};
/* The same model under Bochs 3.0: posted interrupts, MBEC, advanced exit information, MTF. */
static const struct vmx_caps bochs3_skylake_x = {
	.has_vmx = true,
	.has_true = true,
	.basic = 0xd810000000002b,
	.misc = 0x600401e0,
	.pin = 0xff00000016,
	.proc = 0xfff9fffe04006172,
	.proc2 = 0x2577fff00000000,
	.exit = 0x407fffff00036dfb,
	.entry = 0xffff000011fb,
	.ept_vpid = 0xf0106734141,
	.vmfunc = 1,
	.cr0_fixed0 = 0x80000021,
	.cr0_fixed1 = 0xffffffff,
	.cr4_fixed0 = 0x2000,
	.cr4_fixed1 = 0x3727ff,
	.cpuid_1_ecx = 0x77faf3bf,
	.cpuid_1_edx = 0xbfebfbff,
	.cpuid_7_ebx = 0xd19f27eb,
	.cpuid_d1_eax = 0xf,
	.cpuid_80000001_edx = 0x2c100800,
};
/* A Skylake client part: firmware has locked FEATURE_CONTROL, no APIC virtualisation, no scaling.
 */
static const struct vmx_caps skylake_client = {
	MODEL_COMMON,
	.feature_control = 5,
	.basic = 0xda040000000004,
	.misc = 0x7004c1e7,
	.proc = 0xfff9fffe04006172,
	.proc2 = 0x5ffcff00000000,
	.exit = 0x1ffffff00036dfb,
	.entry = 0x3ffff000011fb,
	.ept_vpid = 0xf0106734141,
	.cr4_fixed1 = 0x3727ff,
	.cpuid_7_ebx = 0x29c6fbf,
	.cpuid_d1_eax = 0xf,
};
/* What KVM gives a guest on it: no UC EPT, no #VE, no CR3 targets, no 1-setting it does not know.
 */
static const struct vmx_caps nested_kvm = {
	MODEL_COMMON,
	.feature_control = 5,
	.basic = 0xd8100011e57ed0,
	.misc = 0x20000165,
	.proc = 0xfff9fffe04006172,
	.entry = 0xffff000011fb,
	.proc2 = 0x1378ff00000000,
	.exit = 0x7fffff00036dfb,
	.ept_vpid = 0xf0106334041,
	.cr4_fixed1 = 0x3727ff,
	.cpuid_7_ebx = 0x9c6fbf,
	.cpuid_d1_eax = 0xf,
};

#define F(name)	   (1ull << FEAT_##name)
#define EVERYTHING (BIT64(FEAT_COUNT) - 1)

static const struct model {
	const char *name;
	const struct vmx_caps *caps;
	u64 features;
} models[] = {
	{"Bochs Haswell", &bochs_haswell,
	 F(EPT_1G) | F(EPT_XO) | F(EPT_AD) | F(VMFUNC) | F(VE) | F(APIC_ACCESS) | F(APIC_REG) |
		 F(X2APIC_VIRT) | F(VID) | F(RDTSCP) | F(INVPCID) | F(VMCS_SHADOW)},
	{"Bochs Skylake-X", &bochs_skylake_x,
	 F(EPT_1G) | F(EPT_XO) | F(EPT_AD) | F(PML) | F(VMFUNC) | F(VE) | F(APIC_ACCESS) |
		 F(APIC_REG) | F(X2APIC_VIRT) | F(VID) | F(TSC_SCALING) | F(XSAVES) | F(RDTSCP) |
		 F(INVPCID) | F(VMCS_SHADOW)},
	{"Bochs Tiger Lake", &bochs_tigerlake,
	 F(EPT_1G) | F(EPT_XO) | F(EPT_AD) | F(PML) | F(VMFUNC) | F(VE) | F(APIC_ACCESS) |
		 F(APIC_REG) | F(X2APIC_VIRT) | F(VID) | F(TSC_SCALING) | F(XSAVES) | F(RDTSCP) |
		 F(INVPCID) | F(VMCS_SHADOW) | F(MTF)},
	{"Bochs 3.0 Skylake-X", &bochs3_skylake_x, EVERYTHING & ~F(WAITPKG)},
	{"Skylake client", &skylake_client,
	 F(EPT_1G) | F(EPT_XO) | F(EPT_AD) | F(PML) | F(VMFUNC) | F(VE) | F(MBEC) | F(EPT_INFO) |
		 F(APIC_ACCESS) | F(X2APIC_VIRT) | F(XSAVES) | F(RDTSCP) | F(INVPCID) |
		 F(VMCS_SHADOW) | F(MTF)},
	{"nested KVM", &nested_kvm,
	 F(EPT_1G) | F(EPT_XO) | F(EPT_AD) | F(PML) | F(VMFUNC) | F(APIC_ACCESS) | F(X2APIC_VIRT) |
		 F(XSAVES) | F(RDTSCP) | F(INVPCID) | F(VMCS_SHADOW) | F(MTF)},
};

#define WORD(member) offsetof(struct vmx_caps, member)

static u64 *word(struct vmx_caps *caps, size_t offset)
{
	return (u64 *)(void *)((char *)caps + offset);
}

static char reports[16384];
static unsigned int report_count;

static void report(void *ctx, const char *text)
{
	assert_ptr_equal(ctx, reports);
	assert_true(strlen(text) > 40 && strlen(text) < 319);
	strcat(reports, text);
	strcat(reports, "\n");
	report_count++;
}

static unsigned int check(const struct vmx_caps *caps)
{
	unsigned int n;

	reports[0] = 0;
	report_count = 0;
	n = caps_check(caps, report, reports);
	assert_int_equal(n, report_count);
	return n;
}

static void test_models_pass(void **state)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(models); i++) {
		if (check(models[i].caps))
			fail_msg("%s: %s", models[i].name, reports);
		if (caps_features(models[i].caps, 0) != models[i].features)
			fail_msg("%s: features %llx, expected %llx", models[i].name,
				 (unsigned long long)caps_features(models[i].caps, 0),
				 (unsigned long long)models[i].features);
	}
}

/* Everything that must be there: docs/portability.md, "Floor". */
static const struct {
	size_t word;
	unsigned int bit; /* of the MSR: 32 and up in a control MSR is an allowed 1-setting */
	const char *name;
} floor_bits[] = {
	{WORD(pin), 32 + 0, "external-interrupt exiting"},
	{WORD(pin), 32 + 3, "NMI exiting"},
	{WORD(pin), 32 + 5, "virtual NMIs"},
	{WORD(pin), 32 + 6, "VMX-preemption timer"},
	{WORD(proc), 32 + 2, "interrupt-window exiting"},
	{WORD(proc), 32 + 3, "use TSC offsetting"},
	{WORD(proc), 32 + 7, "HLT exiting"},
	{WORD(proc), 32 + 10, "MWAIT exiting"},
	{WORD(proc), 32 + 11, "RDPMC exiting"},
	{WORD(proc), 32 + 21, "use TPR shadow"},
	{WORD(proc), 32 + 22, "NMI-window exiting"},
	{WORD(proc), 32 + 25, "use I/O bitmaps"},
	{WORD(proc), 32 + 28, "use MSR bitmaps"},
	{WORD(proc), 32 + 29, "MONITOR exiting"},
	{WORD(proc2), 32 + 5, "enable VPID"},
	{WORD(proc2), 32 + 7, "unrestricted guest"},
	{WORD(exit), 32 + 2, "save debug controls"},
	{WORD(exit), 32 + 9, "host address-space size"},
	{WORD(exit), 32 + 15, "acknowledge interrupt on exit"},
	{WORD(exit), 32 + 18, "save IA32_PAT"},
	{WORD(exit), 32 + 19, "load IA32_PAT"},
	{WORD(exit), 32 + 20, "save IA32_EFER"},
	{WORD(exit), 32 + 21, "load IA32_EFER"},
	{WORD(entry), 32 + 2, "load debug controls"},
	{WORD(entry), 32 + 9, "IA-32e mode guest"},
	{WORD(entry), 32 + 14, "load IA32_PAT"},
	{WORD(entry), 32 + 15, "load IA32_EFER"},
	{WORD(ept_vpid), 6, "page-walk length 4"},
	{WORD(ept_vpid), 14, "write-back"},
	{WORD(ept_vpid), 16, "2-MByte"},
	{WORD(ept_vpid), 20, "INVEPT"},
	{WORD(ept_vpid), 25, "single-context INVEPT"},
	{WORD(ept_vpid), 26, "all-context INVEPT"},
	{WORD(ept_vpid), 32, "INVVPID"},
	{WORD(ept_vpid), 41, "single-context INVVPID"},
	{WORD(ept_vpid), 42, "all-context INVVPID"},
};

static void test_floor(void **state)
{
	struct vmx_caps caps;
	unsigned int i, m;
	char where[20];

	for (m = 0; m < ARRAY_SIZE(models); m++) {
		for (i = 0; i < ARRAY_SIZE(floor_bits); i++) {
			caps = *models[m].caps;
			*word(&caps, floor_bits[i].word) &= ~BIT64(floor_bits[i].bit);
			snprintf(where, sizeof(where), " bit %u is 0; ", floor_bits[i].bit);
			if (check(&caps) != 1 || !strstr(reports, floor_bits[i].name) ||
			    !strstr(reports, where) || !strstr(reports, "MSR 0x4"))
				fail_msg("%s without %s: %s", models[m].name, floor_bits[i].name,
					 reports);
		}
	}
}

/* Without EPT or secondary controls nothing is said about what follows from that. */
static void test_floor_roots(void **state)
{
	struct vmx_caps caps = bochs_skylake_x;

	caps.proc2 &= ~BIT64(33);
	caps.ept_vpid = 0;
	assert_int_equal(check(&caps), 1);
	assert_non_null(strstr(reports,
			       "does not offer \"enable EPT\": IA32_VMX_PROCBASED_CTLS2 "
			       "(MSR 0x48b) bit 33 is 0; use an Intel processor with EPT"));
	caps.proc &= ~BIT64(63);
	caps.proc2 = 0;
	assert_int_equal(check(&caps), 1);
	assert_non_null(strstr(reports, "\"activate secondary controls\": "
					"IA32_VMX_TRUE_PROCBASED_CTLS (MSR 0x48e) bit 63 is 0"));
}

/* Controls that Umbra must be able to leave off: no allowed 0-setting is an error. */
static void test_forced_controls(void **state)
{
	static const struct {
		unsigned int bit;
		const char *name;
	} off[] = {{9, "INVLPG"},     {12, "RDTSC"},	{15, "CR3-load"},
		   {16, "CR3-store"}, {19, "CR8-load"}, {20, "CR8-store"}};
	struct vmx_caps caps;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(off); i++) {
		caps = skylake_client;
		caps.proc |= BIT64(off[i].bit);
		assert_int_equal(check(&caps), 1);
		assert_non_null(strstr(reports, "cannot switch off"));
		assert_non_null(strstr(reports, off[i].name));
	}
}

static void test_no_vmx(void **state)
{
	struct vmx_caps caps = {.cpuid_80000001_edx = 0x2c100800};

	assert_int_equal(check(&caps), 1);
	assert_non_null(
		strstr(reports, "this processor has no VT-x: CPUID.01H:ECX bit 5 (VMX) is 0"));
	caps.cpuid_80000001_edx &= ~BIT(20);
	assert_int_equal(check(&caps), 2);
	assert_non_null(strstr(reports,
			       "\"execute disable\": CPUID.80000001H:EDX bit 20 is 0; enable "
			       "Execute Disable"));
}

static void test_feature_control(void **state)
{
	/* Unlocked is ours to lock; locked needs bit 2; bit 1 (inside SMX) does not help. */
	static const struct {
		u64 value;
		bool ok;
	} values[] = {{0, true},	{5, true},  {4, true},	{7, true},
		      {0x100005, true}, {1, false}, {3, false}, {0xff01, false}};
	struct vmx_caps caps = skylake_client;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(values); i++) {
		caps.feature_control = values[i].value;
		assert_int_equal(check(&caps), !values[i].ok);
		if (!values[i].ok)
			assert_non_null(strstr(reports, "VT-x is locked off by the firmware: "
							"IA32_FEATURE_CONTROL (MSR 0x3a) bit 0"));
	}
}

static void test_basic(void **state)
{
	struct vmx_caps caps = skylake_client;

	caps.basic &= ~(15ull << 50);
	assert_int_equal(check(&caps), 1);
	assert_non_null(strstr(reports, "(MSR 0x480) bits 53:50 are not 6"));
	caps = skylake_client;
	caps.basic |= BIT64(48);
	assert_int_equal(check(&caps), 1);
	assert_non_null(strstr(reports, "(MSR 0x480) bit 48 is 1"));
	/* Without TRUE capabilities, CR3 exiting is forced on (SDM A.3.2). */
	caps = skylake_client;
	caps.has_true = false;
	caps.basic &= ~BIT64(55);
	caps.proc = 0xfff9fffe0401e172;
	assert_int_equal(check(&caps), 3);
	assert_non_null(strstr(reports, "IA32_VMX_BASIC (MSR 0x480) bit 55 is 0"));
	assert_non_null(
		strstr(reports, "\"CR3-load exiting\": IA32_VMX_PROCBASED_CTLS (MSR 0x482)"));
}

/* Which bits make up each optional feature, and what it falls away with. */
static const struct {
	size_t word;
	unsigned int bit;
	u64 gone;
} option_bits[] = {
	{WORD(ept_vpid), 17, F(EPT_1G)},
	{WORD(ept_vpid), 0, F(EPT_XO)},
	{WORD(ept_vpid), 21, F(EPT_AD) | F(PML)},
	{WORD(proc2), 32 + 17, F(PML)},
	{WORD(proc2), 32 + 13, F(VMFUNC)},
	{WORD(vmfunc), 0, F(VMFUNC)},
	{WORD(proc2), 32 + 18, F(VE)},
	{WORD(proc2), 32 + 22, F(MBEC)},
	{WORD(ept_vpid), 22, F(EPT_INFO)},
	{WORD(proc2), 32 + 0, F(APIC_ACCESS) | F(APIC_REG) | F(VID) | F(POSTED)},
	{WORD(proc2), 32 + 8, F(APIC_REG) | F(VID) | F(POSTED)},
	{WORD(proc2), 32 + 4, F(X2APIC_VIRT)},
	{WORD(proc2), 32 + 9, F(VID) | F(POSTED)},
	{WORD(pin), 32 + 7, F(POSTED)},
	{WORD(proc2), 32 + 25, F(TSC_SCALING)},
	{WORD(proc2), 32 + 20, F(XSAVES)},
	{WORD(proc2), 32 + 3, F(RDTSCP)},
	{WORD(proc2), 32 + 12, F(INVPCID)},
	{WORD(proc2), 32 + 26, F(WAITPKG)},
	{WORD(proc2), 32 + 14, F(VMCS_SHADOW)},
	{WORD(proc), 32 + 27, F(MTF)},
};

/* A processor that has everything. */
static struct vmx_caps full(void)
{
	struct vmx_caps caps = bochs_tigerlake;

	caps.pin |= BIT64(39);
	caps.proc2 = 0xffffffff00000000;
	caps.ept_vpid |= BIT64(22);
	caps.cpuid_7_ecx |= BIT(5);
	return caps;
}

static void test_options(void **state)
{
	const struct vmx_caps all = full();
	struct vmx_caps caps;
	unsigned int i;

	assert_true(caps_features(&all, 0) == EVERYTHING);
	for (i = 0; i < ARRAY_SIZE(option_bits); i++) {
		caps = all;
		*word(&caps, option_bits[i].word) &= ~BIT64(option_bits[i].bit);
		assert_int_equal(check(&caps), 0);
		if (caps_features(&caps, 0) != (EVERYTHING & ~option_bits[i].gone))
			fail_msg("option %u: %llx", i, (unsigned long long)caps_features(&caps, 0));
	}
	caps = all;
	caps.cpuid_7_ebx &= ~BIT(10);
	assert_true(caps_features(&caps, 0) == (EVERYTHING & ~F(INVPCID)));
	caps = all;
	caps.cpuid_7_ecx &= ~BIT(5);
	assert_true(caps_features(&caps, 0) == (EVERYTHING & ~F(WAITPKG)));
	caps = all;
	caps.cpuid_d1_eax &= ~BIT(3);
	assert_true(caps_features(&caps, 0) == (EVERYTHING & ~F(XSAVES)));
	caps = all;
	caps.cpuid_80000001_edx &= ~BIT(27);
	assert_true(caps_features(&caps, 0) == (EVERYTHING & ~F(RDTSCP)));
}

static void test_hide(void **state)
{
	static const struct {
		u64 hide, gone;
	} chains[] = {
		{F(EPT_AD), F(EPT_AD) | F(PML)},
		{F(APIC_ACCESS), F(APIC_ACCESS) | F(APIC_REG) | F(VID) | F(POSTED)},
		{F(APIC_REG), F(APIC_REG) | F(VID) | F(POSTED)},
		{F(VID), F(VID) | F(POSTED)},
	};
	const struct vmx_caps all = full();
	unsigned int f, i;

	for (f = 0; f < FEAT_COUNT; f++) {
		u64 gone = BIT64(f);

		for (i = 0; i < ARRAY_SIZE(chains); i++)
			if (chains[i].hide == BIT64(f))
				gone = chains[i].gone;
		assert_true(caps_features(&all, BIT64(f)) == (EVERYTHING & ~gone));
	}
	assert_true(caps_features(&all, EVERYTHING) == 0);
	assert_true(caps_features(&all, ~0ull) == 0);
}

/* Reserved default-1 settings included (SDM A.3 to A.5). */
static void test_controls(void **state)
{
	const u32 proc2_floor = PROC2_EPT | PROC2_VPID | PROC2_UNRESTRICTED_GUEST;
	const struct vmx_caps all = full();
	struct vmx_controls c;
	struct vmx_caps caps;

	caps_controls(&all, EVERYTHING, &c);
	assert_int_equal(c.pin, 0x16 | PIN_EXTERNAL_INTERRUPT | PIN_NMI | PIN_VIRTUAL_NMI |
					PIN_PREEMPTION_TIMER);
	assert_int_equal(c.proc, 0x04006172 | PROC_TSC_OFFSETTING | PROC_HLT | PROC_MWAIT |
					 PROC_RDPMC | PROC_TPR_SHADOW | PROC_IO_BITMAPS |
					 PROC_MSR_BITMAPS | PROC_MONITOR | PROC_MOV_DR |
					 PROC_SECONDARY);
	assert_int_equal(c.proc2, proc2_floor | PROC2_WBINVD | PROC2_APIC_ACCESS | PROC2_RDTSCP |
					  PROC2_APIC_REGISTER | PROC2_VIRTUAL_INTERRUPT |
					  PROC2_INVPCID | PROC2_XSAVES | PROC2_TSC_SCALING |
					  PROC2_WAITPKG);
	assert_int_equal(c.exit, 0x36dfb | EXIT_SAVE_DEBUG | EXIT_HOST_64 | EXIT_ACK_INTERRUPT |
					 EXIT_SAVE_PAT | EXIT_LOAD_PAT | EXIT_SAVE_EFER |
					 EXIT_LOAD_EFER);
	assert_int_equal(c.entry, 0x11fb | ENTRY_LOAD_DEBUG | ENTRY_LOAD_PAT | ENTRY_LOAD_EFER);
	caps_controls(&all, 0, &c);
	assert_int_equal(c.proc2, proc2_floor | PROC2_WBINVD);
	caps_controls(&all, F(VID), &c);
	assert_int_equal(c.proc2, proc2_floor | PROC2_WBINVD | PROC2_VIRTUAL_INTERRUPT);
	caps = all;
	caps.proc2 &= ~BIT64(32 + 6);
	caps_controls(&caps, 0, &c);
	assert_int_equal(c.proc2, proc2_floor);
}

static void assert_allowed(u64 msr, u32 control)
{
	assert_int_equal(control & ~(u32)(msr >> 32), 0);
	assert_int_equal(~control & (u32)msr, 0);
}

static void test_controls_allowed(void **state)
{
	struct vmx_controls c;
	unsigned int i, f;

	for (i = 0; i < ARRAY_SIZE(models); i++) {
		for (f = 0; f <= FEAT_COUNT; f++) {
			const struct vmx_caps *caps = models[i].caps;

			caps_controls(caps, caps_features(caps, f < FEAT_COUNT ? BIT64(f) : 0), &c);
			assert_allowed(caps->pin, c.pin);
			assert_allowed(caps->proc, c.proc);
			assert_allowed(caps->proc2, c.proc2);
			assert_allowed(caps->exit, c.exit);
			assert_allowed(caps->entry, c.entry);
		}
	}
}

static void test_differ(void **state)
{
	struct vmx_caps a = bochs_skylake_x, b;

	b = a;
	assert_null(caps_differ(&a, &b));
	/* What changes with CR4, with the lock, or has no influence on guests, is no difference. */
	b.cpuid_1_ecx ^= BIT(27);
	b.cpuid_7_ecx ^= BIT(4);
	b.feature_control = 5;
	assert_null(caps_differ(&a, &b));
	b = a;
	b.basic ^= 1;
	assert_string_equal(caps_differ(&a, &b), "VMCS revision identifier");
	b = a;
	b.proc2 &= ~BIT64(32 + 17);
	assert_string_equal(caps_differ(&a, &b), "pml");
	assert_string_equal(caps_differ(&b, &a), "pml");
	b = a;
	b.proc2 &= ~BIT64(32 + 6);
	assert_string_equal(caps_differ(&a, &b), "processor-based controls");
	b = a;
	b.pin |= BIT64(7);
	assert_string_equal(caps_differ(&a, &b), "pin-based controls");
	b = a;
	b.exit |= BIT64(12);
	assert_string_equal(caps_differ(&a, &b), "VM-exit controls");
	b = a;
	b.entry |= BIT64(13);
	assert_string_equal(caps_differ(&a, &b), "VM-entry controls");
	b = a;
	b.cr0_fixed0 |= BIT64(1);
	assert_string_equal(caps_differ(&a, &b), "fixed bits of CR0");
	b = a;
	b.cr4_fixed1 ^= BIT64(22);
	assert_string_equal(caps_differ(&a, &b), "fixed bits of CR4");
	b = a;
	b.misc ^= 5;
	assert_string_equal(caps_differ(&a, &b), "rate of the VMX-preemption timer");
	b = a;
	b.cpuid_7_ebx ^= BIT(9);
	assert_string_equal(caps_differ(&a, &b), "CPUID features");
	b = (struct vmx_caps){0};
	assert_string_equal(caps_differ(&a, &b), "VMX");
}

static void test_names(void **state)
{
	unsigned int f;

	for (f = 0; f < FEAT_COUNT; f++) {
		const char *name = feature_name(f);

		assert_int_equal(feature_find(name, (unsigned int)strlen(name)), f);
		assert_int_equal(feature_find(name, (unsigned int)strlen(name) - 1), -1);
		assert_int_equal(feature_find(name, (unsigned int)strlen(name) + 1), -1);
	}
	assert_null(feature_name(FEAT_COUNT));
	assert_int_equal(feature_find("", 0), -1);
	assert_int_equal(feature_find("pml,", 3), FEAT_PML);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_models_pass),
		cmocka_unit_test(test_floor),
		cmocka_unit_test(test_floor_roots),
		cmocka_unit_test(test_forced_controls),
		cmocka_unit_test(test_no_vmx),
		cmocka_unit_test(test_feature_control),
		cmocka_unit_test(test_basic),
		cmocka_unit_test(test_options),
		cmocka_unit_test(test_hide),
		cmocka_unit_test(test_controls),
		cmocka_unit_test(test_controls_allowed),
		cmocka_unit_test(test_differ),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
