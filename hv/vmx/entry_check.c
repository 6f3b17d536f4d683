/* VM-entry checks: the driver and the rules that several fields share. See entry_check.h. */
#include "vmx/entry_rules.h"

/* Where the guest may not be entered with an MSR in its load area (SDM 3C 27.4). */
#define MSR_BIOS_UPDT_TRIG  0x79
#define MSR_SMM_MONITOR_CTL 0x9b
#define MSR_AREA_MAX	    512 /* recommended maximum never exceeds 512 * 8 (VMX_MISC[27:25]) */

struct msr_entry {
	u32 index;
	u32 reserved;
	u64 value;
};
_Static_assert(sizeof(struct msr_entry) == 16, "MSR entry layout, SDM table 25-16");

static void fault(struct entry_state *s, u32 field, u64 value, u64 bits, const char *rule,
		  const char *section)
{
	const struct entry_fault f = {
		.field = field, .value = value, .bits = bits, .rule = rule, .section = section};

	s->faults++;
	s->report(s->report_ctx, &f);
}

bool entry_require(struct entry_state *s, bool ok, u32 field, const char *rule, const char *section)
{
	if (!ok)
		fault(s, field, entry_read(s, field), 0, rule, section);
	return ok;
}

bool entry_bits(struct entry_state *s, u32 field, u64 required, u64 forbidden, const char *rule,
		const char *section)
{
	u64 value = entry_read(s, field);
	u64 wrong = (~value & required) | (value & forbidden);

	if (wrong)
		fault(s, field, value, wrong, rule, section);
	return !wrong;
}

bool entry_canonical(const struct entry_state *s, u64 address)
{
	unsigned int shift = 64 - s->source->linear_bits;

	return (u64)((int64_t)(address << shift) >> shift) == address;
}

bool entry_pat_valid(u64 pat)
{
	for (unsigned int i = 0; i < 8; i++, pat >>= 8) {
		u8 type = pat & 0xff;

		if (type > 7 || type == 2 || type == 3)
			return false;
	}
	return true;
}

/* The rules about one entry; NULL if it may be loaded or stored. */
static const char *msr_entry_rule(const struct msr_entry *e, bool load)
{
	if (e->reserved)
		return "bits 63:32 of an MSR-area entry must be 0 (value shown: first half of the "
		       "entry)";
	if (load && (e->index == MSR_FS_BASE || e->index == MSR_GS_BASE))
		return "IA32_FS_BASE and IA32_GS_BASE must not be in an MSR-load area";
	if (load && e->index == MSR_SMM_MONITOR_CTL)
		return "IA32_SMM_MONITOR_CTL can be loaded in SMM only";
	if (load && (e->index == MSR_BIOS_UPDT_TRIG || e->index == MSR_BIOS_SIGN_ID))
		return "microcode-update MSRs must not be in an MSR-load area";
	if (e->index >= MSR_X2APIC_FIRST && e->index <= MSR_X2APIC_LAST)
		return "x2APIC MSRs (800H to 8FFH) must not be in an MSR area";
	if (load && e->index == MSR_PAT && !entry_pat_valid(e->value))
		return "the value of IA32_PAT in an MSR-load area would fault in WRMSR";
	if (load && e->index == MSR_EFER &&
	    (e->value & ~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE)))
		return "the value of IA32_EFER in an MSR-load area would fault in WRMSR";
	return NULL;
}

void entry_check_msr_area(struct entry_state *s, u32 address_field, u32 count_field, bool load,
			  const char *section)
{
	u64 count = entry_read(s, count_field), address;
	bool ok;

	if (!count)
		return;
	address = entry_read(s, address_field);
	ok = entry_bits(s, address_field, 0, 0xf | s->phys_reserved,
			"an MSR area must be 16-byte aligned and within the physical-address width",
			section);
	if (ok)
		ok = entry_require(
			s, !((address + count * sizeof(struct msr_entry) - 1) & s->phys_reserved),
			address_field,
			"the last byte of an MSR area must be within the physical-address width",
			section);
	if (!ok || !s->source->read_phys)
		return;
	for (u64 i = 0; i < count && i < MSR_AREA_MAX; i++) {
		struct msr_entry e;
		const char *rule;

		if (!s->source->read_phys(s->source->ctx, hpa(address + i * sizeof(e)), &e,
					  sizeof(e)))
			return;
		rule = msr_entry_rule(&e, load);
		if (rule)
			fault(s, address_field, e.index | (u64)e.reserved << 32, 0, rule, "27.4");
	}
}

unsigned int entry_check(const struct entry_source *source, const struct vmx_caps *caps,
			 entry_report_fn report, void *report_ctx)
{
	struct entry_state s = {
		.source = source, .caps = caps, .report = report, .report_ctx = report_ctx};

	s.pin = entry_read(&s, VMCS_PIN_CONTROLS);
	s.proc = entry_read(&s, VMCS_PROC_CONTROLS);
	s.proc2 = s.proc & PROC_SECONDARY ? entry_read(&s, VMCS_PROC2_CONTROLS) : 0;
	s.exit = entry_read(&s, VMCS_EXIT_CONTROLS);
	s.entry = entry_read(&s, VMCS_ENTRY_CONTROLS);
	s.intr_info = entry_read(&s, VMCS_ENTRY_INTR_INFO);
	if (!(s.intr_info & INTR_INFO_VALID))
		s.intr_info = 0;
	s.phys_reserved = ~(BIT64(source->phys_bits) - 1);

	entry_check_execution(&s);
	entry_check_exit(&s);
	entry_check_entry(&s);
	entry_check_host(&s);
	entry_check_guest(&s);
	entry_check_segments(&s);
	return s.faults;
}
