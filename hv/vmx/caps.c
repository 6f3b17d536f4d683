/*
 * The one table of what Umbra requires of VMX and what it makes use of. It serves three readers:
 * caps_check() walks the requirements, caps_features() the options, caps_controls() what is
 * switched on. SDM volume 3C, chapter 25 for the controls and appendix A for the MSRs.
 */
#include "vmx/caps.h"

#include "vmx/vmcs.h"
#include "x86/asm.h"
#include "x86/regs.h"

/* The words in which capabilities are looked up. */
enum word {
	PIN,
	PROC,
	PROC2,
	EXIT,
	ENTRY,
	EPT,
	VMFUNC,
	CPUID_7B,
	CPUID_7C,
	CPUID_D1,
	CPUID_EXT
};

static const struct {
	const char *name;      /* with VMX_BASIC[55] */
	const char *plain;     /* without it, where that differs */
	unsigned int allowed1; /* the bit of the word that says "bit 0 may be 1" */
} words[] = {
	[PIN] = {"IA32_VMX_TRUE_PINBASED_CTLS (MSR 0x48d)", "IA32_VMX_PINBASED_CTLS (MSR 0x481)",
		 32},
	[PROC] = {"IA32_VMX_TRUE_PROCBASED_CTLS (MSR 0x48e)", "IA32_VMX_PROCBASED_CTLS (MSR 0x482)",
		  32},
	[PROC2] = {"IA32_VMX_PROCBASED_CTLS2 (MSR 0x48b)", NULL, 32},
	[EXIT] = {"IA32_VMX_TRUE_EXIT_CTLS (MSR 0x48f)", "IA32_VMX_EXIT_CTLS (MSR 0x483)", 32},
	[ENTRY] = {"IA32_VMX_TRUE_ENTRY_CTLS (MSR 0x490)", "IA32_VMX_ENTRY_CTLS (MSR 0x484)", 32},
	[EPT] = {"IA32_VMX_EPT_VPID_CAP (MSR 0x48c)", NULL, 0},
	[VMFUNC] = {"IA32_VMX_VMFUNC (MSR 0x491)", NULL, 0},
	[CPUID_7B] = {"CPUID.(EAX=07H,ECX=0):EBX", NULL, 0},
	[CPUID_7C] = {"CPUID.(EAX=07H,ECX=0):ECX", NULL, 0},
	[CPUID_D1] = {"CPUID.(EAX=0DH,ECX=1):EAX", NULL, 0},
	[CPUID_EXT] = {"CPUID.80000001H:EDX", NULL, 0},
};

enum role {
	ON,	/* required, and switched on for every guest */
	NEED,	/* required; switched on when needed, or not a control */
	OFF,	/* required to be left off: the processor must allow 0 */
	PREFER, /* not required; switched on where offered */
	USE,	/* part of an optional feature; switched on with it */
	LATER,	/* part of an optional feature; switched on by who uses it */
};

#define NX_ADVICE "enable Execute Disable (XD, NX) in the firmware set-up"

static const struct row {
	enum word word;
	unsigned int bit;
	enum role role;
	enum feature feature; /* USE, LATER: the feature is there if all its rows are */
	const char *name;     /* as in the SDM */
	const char *advice;   /* NULL = a processor that has it */
} table[] = {
	{PIN, 0, ON, 0, "external-interrupt exiting", NULL},
	{PIN, 3, ON, 0, "NMI exiting", NULL},
	{PIN, 5, ON, 0, "virtual NMIs", NULL},
	{PIN, 6, ON, 0, "activate VMX-preemption timer", NULL},
	{PIN, 7, LATER, FEAT_POSTED, "process posted interrupts", NULL},

	{PROC, 2, NEED, 0, "interrupt-window exiting", NULL},
	{PROC, 3, ON, 0, "use TSC offsetting", NULL},
	{PROC, 7, ON, 0, "HLT exiting", NULL},
	{PROC, 9, OFF, 0, "INVLPG exiting", NULL},
	{PROC, 10, ON, 0, "MWAIT exiting", NULL},
	{PROC, 11, ON, 0, "RDPMC exiting", NULL},
	{PROC, 12, OFF, 0, "RDTSC exiting", NULL},
	{PROC, 15, OFF, 0, "CR3-load exiting", NULL},
	{PROC, 16, OFF, 0, "CR3-store exiting", NULL},
	{PROC, 19, OFF, 0, "CR8-load exiting", NULL},
	{PROC, 20, OFF, 0, "CR8-store exiting", NULL},
	{PROC, 21, ON, 0, "use TPR shadow", NULL},
	{PROC, 22, NEED, 0, "NMI-window exiting", NULL},
	{PROC, 23, ON, 0, "MOV-DR exiting", NULL},
	{PROC, 25, ON, 0, "use I/O bitmaps", NULL},
	{PROC, 27, LATER, FEAT_MTF, "monitor trap flag", NULL},
	{PROC, 28, ON, 0, "use MSR bitmaps", NULL},
	{PROC, 29, ON, 0, "MONITOR exiting", NULL},
	{PROC, 31, ON, 0, "activate secondary controls", NULL},

	{PROC2, 0, USE, FEAT_APIC_ACCESS, "virtualize APIC accesses", NULL},
	{PROC2, 1, ON, 0, "enable EPT", NULL},
	{PROC2, 3, USE, FEAT_RDTSCP, "enable RDTSCP", NULL},
	{PROC2, 4, LATER, FEAT_X2APIC_VIRT, "virtualize x2APIC mode", NULL},
	{PROC2, 5, ON, 0, "enable VPID", NULL},
	{PROC2, 6, PREFER, 0, "WBINVD exiting", NULL},
	{PROC2, 7, ON, 0, "unrestricted guest", NULL},
	{PROC2, 8, USE, FEAT_APIC_REG, "APIC-register virtualization", NULL},
	{PROC2, 9, USE, FEAT_VID, "virtual-interrupt delivery", NULL},
	{PROC2, 12, USE, FEAT_INVPCID, "enable INVPCID", NULL},
	{PROC2, 13, LATER, FEAT_VMFUNC, "enable VM functions", NULL},
	{PROC2, 14, LATER, FEAT_VMCS_SHADOW, "VMCS shadowing", NULL},
	{PROC2, 17, LATER, FEAT_PML, "enable PML", NULL},
	{PROC2, 18, LATER, FEAT_VE, "EPT-violation #VE", NULL},
	{PROC2, 20, USE, FEAT_XSAVES, "enable XSAVES/XRSTORS", NULL},
	{PROC2, 22, LATER, FEAT_MBEC, "mode-based execute control for EPT", NULL},
	{PROC2, 25, USE, FEAT_TSC_SCALING, "use TSC scaling", NULL},
	{PROC2, 26, USE, FEAT_WAITPKG, "enable user wait and pause", NULL},

	{EXIT, 2, ON, 0, "save debug controls", NULL},
	{EXIT, 9, ON, 0, "host address-space size", NULL},
	{EXIT, 15, ON, 0, "acknowledge interrupt on exit", NULL},
	{EXIT, 18, ON, 0, "save IA32_PAT", NULL},
	{EXIT, 19, ON, 0, "load IA32_PAT (exit)", NULL},
	{EXIT, 20, ON, 0, "save IA32_EFER", NULL},
	{EXIT, 21, ON, 0, "load IA32_EFER (exit)", NULL},

	{ENTRY, 2, ON, 0, "load debug controls", NULL},
	{ENTRY, 9, NEED, 0, "IA-32e mode guest", NULL},
	{ENTRY, 14, ON, 0, "load IA32_PAT (entry)", NULL},
	{ENTRY, 15, ON, 0, "load IA32_EFER (entry)", NULL},

	{EPT, 0, LATER, FEAT_EPT_XO, "execute-only EPT translations", NULL},
	{EPT, 6, NEED, 0, "EPT page-walk length 4", NULL},
	{EPT, 14, NEED, 0, "write-back EPT paging structures", NULL},
	{EPT, 16, NEED, 0, "2-MByte EPT pages", NULL},
	{EPT, 17, LATER, FEAT_EPT_1G, "1-GByte EPT pages", NULL},
	{EPT, 20, NEED, 0, "INVEPT", NULL},
	{EPT, 21, LATER, FEAT_EPT_AD, "accessed and dirty flags for EPT", NULL},
	{EPT, 22, LATER, FEAT_EPT_INFO, "advanced VM-exit information for EPT violations", NULL},
	{EPT, 25, NEED, 0, "single-context INVEPT", NULL},
	{EPT, 26, NEED, 0, "all-context INVEPT", NULL},
	{EPT, 32, NEED, 0, "INVVPID", NULL},
	{EPT, 41, NEED, 0, "single-context INVVPID", NULL},
	{EPT, 42, NEED, 0, "all-context INVVPID", NULL},

	{VMFUNC, 0, LATER, FEAT_VMFUNC, "EPTP switching", NULL},

	{CPUID_7B, 10, USE, FEAT_INVPCID, "INVPCID", NULL},
	{CPUID_7C, 5, USE, FEAT_WAITPKG, "WAITPKG", NULL},
	{CPUID_D1, 3, USE, FEAT_XSAVES, "XSAVES", NULL},
	{CPUID_EXT, 20, NEED, 0, "execute disable", NX_ADVICE},
	{CPUID_EXT, 27, USE, FEAT_RDTSCP, "RDTSCP", NULL},
	{CPUID_EXT, 29, NEED, 0, "Intel 64", NULL},
};

/* What falls away with what, in an order that lets one pass settle chains. */
static const struct {
	enum feature feature, needs;
} depends[] = {
	{FEAT_PML, FEAT_EPT_AD},
	/* Without the APIC-access page no guest access reaches the virtualised registers. */
	{FEAT_APIC_REG, FEAT_APIC_ACCESS},
	{FEAT_VID, FEAT_APIC_REG},
	{FEAT_POSTED, FEAT_VID},
};

#define BASIC_REVISION	    0x7fffffffull /* VMCS revision identifier */
#define BASIC_WIDTH_32	    BIT64(48)	  /* VMX structures must lie below 4 GiB */
#define BASIC_MEMORY_TYPE   (15ull << 50) /* of VMCS accesses */
#define BASIC_WRITE_BACK    (6ull << 50)
#define BASIC_TRUE	    BIT64(55)
#define MISC_TIMER_RATE	    31ull /* VMX-preemption timer: TSC bit that counts it down */
#define CPUID_1_ECX_VMX	    BIT(5)
#define CPUID_1_ECX_OSXSAVE BIT(27) /* these two mirror CR4 */
#define CPUID_7_ECX_OSPKE   BIT(4)

void caps_read(struct vmx_caps *caps)
{
	struct cpuid_regs r = cpuid(0, 0);
	u32 max = r.eax;

	*caps = (struct vmx_caps){0};
	r = cpuid(1, 0);
	caps->cpuid_1_ecx = r.ecx;
	caps->cpuid_1_edx = r.edx;
	if (max >= 7) {
		r = cpuid(7, 0);
		caps->cpuid_7_ebx = r.ebx;
		caps->cpuid_7_ecx = r.ecx;
	}
	if (max >= 0xd)
		caps->cpuid_d1_eax = cpuid(0xd, 1).eax;
	if (cpuid(0x80000000, 0).eax >= 0x80000001)
		caps->cpuid_80000001_edx = cpuid(0x80000001, 0).edx;
	caps->has_vmx = caps->cpuid_1_ecx & CPUID_1_ECX_VMX;
	if (!caps->has_vmx)
		return;

	caps->feature_control = rdmsr(MSR_FEATURE_CONTROL);
	caps->basic = rdmsr(MSR_VMX_BASIC);
	caps->has_true = caps->basic & BASIC_TRUE;
	caps->misc = rdmsr(MSR_VMX_MISC);
	caps->pin = rdmsr(caps->has_true ? MSR_VMX_TRUE_PINBASED : MSR_VMX_PINBASED);
	caps->proc = rdmsr(caps->has_true ? MSR_VMX_TRUE_PROCBASED : MSR_VMX_PROCBASED);
	caps->exit = rdmsr(caps->has_true ? MSR_VMX_TRUE_EXIT : MSR_VMX_EXIT);
	caps->entry = rdmsr(caps->has_true ? MSR_VMX_TRUE_ENTRY : MSR_VMX_ENTRY);
	caps->cr0_fixed0 = rdmsr(MSR_VMX_CR0_FIXED0);
	caps->cr0_fixed1 = rdmsr(MSR_VMX_CR0_FIXED1);
	caps->cr4_fixed0 = rdmsr(MSR_VMX_CR4_FIXED0);
	caps->cr4_fixed1 = rdmsr(MSR_VMX_CR4_FIXED1);
	/* The rest exists only where the control that it describes does (SDM A.3.3 to A.11). */
	if (caps->proc >> 32 & PROC_SECONDARY)
		caps->proc2 = rdmsr(MSR_VMX_PROCBASED2);
	if (caps->proc >> 32 & PROC_TERTIARY)
		caps->proc3 = rdmsr(MSR_VMX_PROCBASED3);
	if (caps->proc2 >> 32 & (PROC2_EPT | PROC2_VPID))
		caps->ept_vpid = rdmsr(MSR_VMX_EPT_VPID_CAP);
	if (caps->proc2 >> 32 & PROC2_VMFUNC)
		caps->vmfunc = rdmsr(MSR_VMX_VMFUNC);
}

static u64 word_of(const struct vmx_caps *caps, enum word word)
{
	switch (word) {
	case PIN:
		return caps->pin;
	case PROC:
		return caps->proc;
	case PROC2:
		return caps->proc2;
	case EXIT:
		return caps->exit;
	case ENTRY:
		return caps->entry;
	case EPT:
		return caps->ept_vpid;
	case VMFUNC:
		return caps->vmfunc;
	case CPUID_7B:
		return caps->cpuid_7_ebx;
	case CPUID_7C:
		return caps->cpuid_7_ecx;
	case CPUID_D1:
		return caps->cpuid_d1_eax;
	case CPUID_EXT:
	default:
		return caps->cpuid_80000001_edx;
	}
}

static bool offered(const struct vmx_caps *caps, const struct row *row)
{
	return word_of(caps, row->word) >> (row->bit + words[row->word].allowed1) & 1;
}

/* Whether the row's question makes sense: no message for what follows from one already given. */
static bool applies(const struct vmx_caps *caps, const struct row *row)
{
	if (row->word >= CPUID_7B)
		return true;
	if (!caps->has_vmx)
		return false;
	if (row->word == PROC2)
		return caps->proc >> 32 & PROC_SECONDARY;
	if (row->word == EPT)
		return caps->proc2 >> 32 & PROC2_EPT;
	return true;
}

struct text {
	char buf[320];
	unsigned int len;
};

static void put(struct text *t, const char *s)
{
	while (*s && t->len < sizeof(t->buf) - 1)
		t->buf[t->len++] = *s++;
	t->buf[t->len] = 0;
}

static void put_bit(struct text *t, unsigned int bit)
{
	char s[3] = {(char)('0' + bit / 10), (char)('0' + bit % 10), 0};

	put(t, bit < 10 ? s + 1 : s);
}

static void report_row(const struct vmx_caps *caps, const struct row *row, caps_report_fn report,
		       void *ctx)
{
	const char *word = words[row->word].name;
	struct text t = {.len = 0};

	if (!caps->has_true && words[row->word].plain)
		word = words[row->word].plain;
	put(&t, "the processor ");
	put(&t, row->role == OFF ? "cannot switch off \"" : "does not offer \"");
	put(&t, row->name);
	put(&t, "\": ");
	put(&t, word);
	put(&t, " bit ");
	put_bit(&t, row->bit + (row->role == OFF ? 0 : words[row->word].allowed1));
	put(&t, row->role == OFF ? " is 1; " : " is 0; ");
	put(&t, row->advice
			? row->advice
			: "use an Intel processor with EPT and unrestricted guest, or if this is a "
			  "virtual machine give it the host's CPU (QEMU: -cpu host)");
	report(ctx, t.buf);
}

static unsigned int check_basics(const struct vmx_caps *caps, caps_report_fn report, void *ctx)
{
	unsigned int n = 0;

	if (!caps->has_vmx) {
		report(ctx,
		       "this processor has no VT-x: CPUID.01H:ECX bit 5 (VMX) is 0; use an Intel "
		       "processor with VT-x, or if this is a virtual machine switch nested "
		       "virtualization on (QEMU: -accel kvm -cpu host; kvm_intel nested=1)");
		return 1;
	}
	if ((caps->feature_control & FEATURE_CONTROL_LOCKED) &&
	    !(caps->feature_control & FEATURE_CONTROL_VMX_NON_SMX)) {
		report(ctx,
		       "VT-x is locked off by the firmware: IA32_FEATURE_CONTROL (MSR 0x3a) bit 0 "
		       "(lock) is 1 and bit 2 (VMX outside SMX operation) is 0; enable Intel VT-x "
		       "(Virtualization Technology) in the firmware set-up, then switch the "
		       "machine "
		       "off and on");
		n++;
	}
	if (!caps->has_true) {
		report(ctx,
		       "the processor does not offer \"TRUE\" control capabilities: IA32_VMX_BASIC "
		       "(MSR 0x480) bit 55 is 0; use a newer Intel processor");
		n++;
	}
	if ((caps->basic & BASIC_MEMORY_TYPE) != BASIC_WRITE_BACK) {
		report(ctx,
		       "the processor does not offer \"write-back\" VMCS accesses: IA32_VMX_BASIC "
		       "(MSR 0x480) bits 53:50 are not 6; use a newer Intel processor");
		n++;
	}
	if (caps->basic & BASIC_WIDTH_32) {
		report(ctx,
		       "the processor limits VMX structures to 32-bit addresses: IA32_VMX_BASIC "
		       "(MSR 0x480) bit 48 is 1; use an Intel 64 processor");
		n++;
	}
	return n;
}

unsigned int caps_check(const struct vmx_caps *caps, caps_report_fn report, void *ctx)
{
	unsigned int n = check_basics(caps, report, ctx);
	const struct row *row;

	for (row = table; row < table + ARRAY_SIZE(table); row++) {
		bool ok = true;

		if (!applies(caps, row))
			continue;
		if (row->role == ON || row->role == NEED)
			ok = offered(caps, row);
		else if (row->role == OFF)
			ok = !(word_of(caps, row->word) >> row->bit & 1);
		if (!ok) {
			report_row(caps, row, report, ctx);
			n++;
		}
	}
	return n;
}

u64 caps_features(const struct vmx_caps *caps, u64 hide)
{
	u64 features = BIT64(FEAT_COUNT) - 1;
	const struct row *row;
	size_t i;

	for (row = table; row < table + ARRAY_SIZE(table); row++)
		if ((row->role == USE || row->role == LATER) && !offered(caps, row))
			features &= ~BIT64(row->feature);
	features &= ~hide;
	for (i = 0; i < ARRAY_SIZE(depends); i++)
		if (!(features & BIT64(depends[i].needs)))
			features &= ~BIT64(depends[i].feature);
	return features;
}

/* The control word for `word`: what the table asks for, with the processor's 1-settings forced. */
static u32 control(const struct vmx_caps *caps, enum word word, u64 features)
{
	u32 value = (u32)word_of(caps, word);
	const struct row *row;

	for (row = table; row < table + ARRAY_SIZE(table); row++) {
		if (row->word != word)
			continue;
		if (row->role == ON || (row->role == PREFER && offered(caps, row)) ||
		    (row->role == USE && (features & BIT64(row->feature))))
			value |= BIT(row->bit);
	}
	return value;
}

void caps_controls(const struct vmx_caps *caps, u64 features, struct vmx_controls *out)
{
	out->pin = control(caps, PIN, features);
	out->proc = control(caps, PROC, features);
	out->proc2 = control(caps, PROC2, features);
	out->exit = control(caps, EXIT, features);
	out->entry = control(caps, ENTRY, features);
}

const char *caps_differ(const struct vmx_caps *a, const struct vmx_caps *b)
{
	struct vmx_controls ca, cb;
	u64 features = caps_features(a, 0);
	size_t i;

	if (a->has_vmx != b->has_vmx)
		return "VMX";
	if ((a->basic ^ b->basic) & BASIC_REVISION)
		return "VMCS revision identifier";
	if (features != caps_features(b, 0)) {
		features ^= caps_features(b, 0);
		for (i = 0; !(features >> i & 1); i++)
			;
		return feature_name((unsigned int)i);
	}
	caps_controls(a, features, &ca);
	caps_controls(b, features, &cb);
	if (ca.pin != cb.pin)
		return "pin-based controls";
	if (ca.proc != cb.proc || ca.proc2 != cb.proc2)
		return "processor-based controls";
	if (ca.exit != cb.exit)
		return "VM-exit controls";
	if (ca.entry != cb.entry)
		return "VM-entry controls";
	if (a->cr0_fixed0 != b->cr0_fixed0 || a->cr0_fixed1 != b->cr0_fixed1)
		return "fixed bits of CR0";
	if (a->cr4_fixed0 != b->cr4_fixed0 || a->cr4_fixed1 != b->cr4_fixed1)
		return "fixed bits of CR4";
	if ((a->misc ^ b->misc) & MISC_TIMER_RATE)
		return "rate of the VMX-preemption timer";
	if (((a->cpuid_1_ecx ^ b->cpuid_1_ecx) & ~CPUID_1_ECX_OSXSAVE) ||
	    a->cpuid_1_edx != b->cpuid_1_edx || a->cpuid_7_ebx != b->cpuid_7_ebx ||
	    ((a->cpuid_7_ecx ^ b->cpuid_7_ecx) & ~CPUID_7_ECX_OSPKE) ||
	    a->cpuid_d1_eax != b->cpuid_d1_eax || a->cpuid_80000001_edx != b->cpuid_80000001_edx)
		return "CPUID features";
	return NULL;
}
