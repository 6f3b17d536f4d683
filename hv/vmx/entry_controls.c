/* VM-entry checks on the control fields: SDM 3C 27.2.1. */
#include "vmx/entry_rules.h"

#define SECTION_EXECUTION "27.2.1.1"
#define SECTION_EXIT	  "27.2.1.2"
#define SECTION_ENTRY	  "27.2.1.3"

#define VTPR_OFFSET 0x80 /* of the TPR in the virtual-APIC page */

/* Controls against their capability MSR: allowed-0 settings in bits 31:0, allowed-1 in 63:32. */
static void check_allowed(struct entry_state *s, u32 field, u64 allowed, const char *section)
{
	entry_bits(s, field, (u32)allowed, 0,
		   "bits that this processor requires to be 1 (capability MSR bits 31:0)", section);
	entry_bits(s, field, 0, (u32) ~(allowed >> 32),
		   "bits that this processor does not allow to be 1 (capability MSR bits 63:32)",
		   section);
}

static void check_address(struct entry_state *s, u32 field, u64 low_bits, const char *rule)
{
	entry_bits(s, field, 0, low_bits | s->phys_reserved, rule, SECTION_EXECUTION);
}

static void check_bitmaps(struct entry_state *s)
{
	if (s->proc & PROC_IO_BITMAPS) {
		check_address(
			s, VMCS_IO_BITMAP_A, ~PAGE_MASK,
			"I/O bitmaps must be page-aligned and within the physical-address width");
		check_address(
			s, VMCS_IO_BITMAP_B, ~PAGE_MASK,
			"I/O bitmaps must be page-aligned and within the physical-address width");
	}
	if (s->proc & PROC_MSR_BITMAPS)
		check_address(s, VMCS_MSR_BITMAP, ~PAGE_MASK,
			      "the MSR bitmaps must be page-aligned and within the "
			      "physical-address width");
	if (s->proc2 & PROC2_VMCS_SHADOWING) {
		check_address(
			s, VMCS_VMREAD_BITMAP, ~PAGE_MASK,
			"with VMCS shadowing the VMREAD bitmap must be page-aligned and within the "
			"physical-address width");
		check_address(
			s, VMCS_VMWRITE_BITMAP, ~PAGE_MASK,
			"with VMCS shadowing the VMWRITE bitmap must be page-aligned and within "
			"the physical-address width");
	}
}

static void check_tpr_shadow(struct entry_state *s)
{
	u64 apic = entry_read(s, VMCS_VIRTUAL_APIC);
	u64 threshold;
	u8 vtpr;

	check_address(s, VMCS_VIRTUAL_APIC, ~PAGE_MASK,
		      "the virtual-APIC page must be page-aligned and within the physical-address "
		      "width");
	if (s->proc2 & PROC2_VIRTUAL_INTERRUPT)
		return;
	if (!entry_bits(
		    s, VMCS_TPR_THRESHOLD, 0, 0xfffffff0,
		    "without virtual-interrupt delivery, bits 31:4 of the TPR threshold must be 0",
		    SECTION_EXECUTION))
		return;
	if ((s->proc2 & PROC2_APIC_ACCESS) || !s->source->read_phys)
		return;
	threshold = entry_read(s, VMCS_TPR_THRESHOLD);
	if (s->source->read_phys(s->source->ctx, hpa(apic + VTPR_OFFSET), &vtpr, 1))
		entry_require(
			s, threshold <= vtpr >> 4, VMCS_TPR_THRESHOLD,
			"without virtualized APIC accesses, the TPR threshold must not be greater "
			"than bits 7:4 of the virtual TPR",
			SECTION_EXECUTION);
}

static void check_apic(struct entry_state *s)
{
	if (s->proc & PROC_TPR_SHADOW)
		check_tpr_shadow(s);
	else
		entry_require(s,
			      !(s->proc2 &
				(PROC2_X2APIC | PROC2_APIC_REGISTER | PROC2_VIRTUAL_INTERRUPT)),
			      VMCS_PROC2_CONTROLS,
			      "without use TPR shadow, virtualize x2APIC mode, APIC-register "
			      "virtualization and virtual-interrupt delivery must be 0",
			      SECTION_EXECUTION);
	if (s->proc2 & PROC2_APIC_ACCESS) {
		check_address(s, VMCS_APIC_ACCESS, ~PAGE_MASK,
			      "the APIC-access page must be page-aligned and within the "
			      "physical-address width");
		entry_bits(s, VMCS_PROC2_CONTROLS, 0, PROC2_X2APIC,
			   "virtualize x2APIC mode and virtualize APIC accesses exclude each other",
			   SECTION_EXECUTION);
	}
	if (s->proc2 & PROC2_VIRTUAL_INTERRUPT)
		entry_bits(s, VMCS_PIN_CONTROLS, PIN_EXTERNAL_INTERRUPT, 0,
			   "virtual-interrupt delivery requires external-interrupt exiting",
			   SECTION_EXECUTION);
}

static void check_events(struct entry_state *s)
{
	if (!(s->pin & PIN_NMI))
		entry_bits(s, VMCS_PIN_CONTROLS, 0, PIN_VIRTUAL_NMI,
			   "virtual NMIs requires NMI exiting", SECTION_EXECUTION);
	if (!(s->pin & PIN_VIRTUAL_NMI))
		entry_bits(s, VMCS_PROC_CONTROLS, 0, PROC_NMI_WINDOW,
			   "NMI-window exiting requires virtual NMIs", SECTION_EXECUTION);
	if (!(s->pin & PIN_POSTED_INTERRUPTS))
		return;
	entry_require(s, s->proc2 & PROC2_VIRTUAL_INTERRUPT, VMCS_PIN_CONTROLS,
		      "process posted interrupts requires virtual-interrupt delivery",
		      SECTION_EXECUTION);
	entry_bits(s, VMCS_EXIT_CONTROLS, EXIT_ACK_INTERRUPT, 0,
		   "process posted interrupts requires acknowledge interrupt on exit",
		   SECTION_EXECUTION);
	entry_bits(s, VMCS_POSTED_INT_VECTOR, 0, 0xff00,
		   "the posted-interrupt notification vector must be in the range 0 to 255",
		   SECTION_EXECUTION);
	check_address(s, VMCS_POSTED_INT_DESC, 0x3f,
		      "the posted-interrupt descriptor must be 64-byte aligned and within the "
		      "physical-address width");
}

static void check_eptp(struct entry_state *s)
{
	const u64 caps = s->caps->ept_vpid;
	u64 eptp = entry_read(s, VMCS_EPTP);
	u64 type = eptp & 7, walk = (eptp >> 3) & 7;
	u64 reserved = 0xf00 | s->phys_reserved;

	entry_require(
		s, (type == 0 && (caps & EPT_CAP_UC)) || (type == 6 && (caps & EPT_CAP_WB)),
		VMCS_EPTP,
		"the EPT memory type (bits 2:0) must be one that IA32_VMX_EPT_VPID_CAP offers",
		SECTION_EXECUTION);
	entry_require(
		s, (walk == 3 && (caps & EPT_CAP_WALK_4)) || (walk == 4 && (caps & BIT64(7))),
		VMCS_EPTP,
		"bits 5:3 must be the EPT page-walk length minus 1: 3, or 4 if 5-level EPT is "
		"offered",
		SECTION_EXECUTION);
	if (!(caps & EPT_CAP_AD))
		entry_bits(s, VMCS_EPTP, 0, BIT64(6),
			   "bit 6 (accessed and dirty flags) is not offered by this processor",
			   SECTION_EXECUTION);
	if (!(caps & BIT64(23)))
		reserved |= BIT64(7); /* supervisor shadow-stack control */
	entry_bits(s, VMCS_EPTP, 0, reserved,
		   "reserved bits and bits beyond the physical-address width must be 0",
		   SECTION_EXECUTION);
}

static void check_memory(struct entry_state *s)
{
	static const struct {
		u32 control;
		const char *rule;
	} needs_ept[] = {
		{PROC2_UNRESTRICTED_GUEST, "unrestricted guest requires enable EPT"},
		{PROC2_PML, "enable PML requires enable EPT"},
		{PROC2_MBEC, "mode-based execute control for EPT requires enable EPT"},
		{PROC2_SPP, "sub-page write permissions for EPT requires enable EPT"},
	};

	if (s->proc2 & PROC2_VPID)
		entry_require(s, entry_read(s, VMCS_VPID) != 0, VMCS_VPID,
			      "with enable VPID, the VPID must not be 0", SECTION_EXECUTION);
	if (s->proc2 & PROC2_EPT)
		check_eptp(s);
	for (size_t i = 0; i < ARRAY_SIZE(needs_ept); i++)
		if ((s->proc2 & needs_ept[i].control) && !(s->proc2 & PROC2_EPT))
			entry_bits(s, VMCS_PROC2_CONTROLS, 0, needs_ept[i].control,
				   needs_ept[i].rule, SECTION_EXECUTION);
	if (s->proc2 & PROC2_PML)
		check_address(
			s, VMCS_PML_ADDRESS, ~PAGE_MASK,
			"the PML address must be page-aligned and within the physical-address "
			"width");
	if (s->proc2 & PROC2_SPP)
		check_address(s, VMCS_SPPTP, ~PAGE_MASK,
			      "the sub-page-permission table must be page-aligned and within the "
			      "physical-address width");
	if (s->proc2 & PROC2_VE)
		check_address(
			s, VMCS_VE_INFO, ~PAGE_MASK,
			"the virtualization-exception information area must be page-aligned and "
			"within the physical-address width");
	if (!(s->proc2 & PROC2_VMFUNC))
		return;
	entry_bits(s, VMCS_VMFUNC_CONTROLS, 0, ~s->caps->vmfunc,
		   "VM-function controls that IA32_VMX_VMFUNC does not offer must be 0",
		   SECTION_EXECUTION);
	if (entry_read(s, VMCS_VMFUNC_CONTROLS) & BIT64(0)) {
		entry_require(s, s->proc2 & PROC2_EPT, VMCS_VMFUNC_CONTROLS,
			      "EPTP switching requires enable EPT", SECTION_EXECUTION);
		check_address(
			s, VMCS_EPTP_LIST, ~PAGE_MASK,
			"the EPTP list must be page-aligned and within the physical-address width");
	}
}

void entry_check_execution(struct entry_state *s)
{
	check_allowed(s, VMCS_PIN_CONTROLS, s->caps->pin, SECTION_EXECUTION);
	check_allowed(s, VMCS_PROC_CONTROLS, s->caps->proc, SECTION_EXECUTION);
	if (s->proc & PROC_SECONDARY)
		check_allowed(s, VMCS_PROC2_CONTROLS, s->caps->proc2, SECTION_EXECUTION);
	entry_require(s, entry_read(s, VMCS_CR3_TARGET_COUNT) <= ((s->caps->misc >> 16) & 0x1ff),
		      VMCS_CR3_TARGET_COUNT,
		      "the CR3-target count must not exceed IA32_VMX_MISC bits 24:16",
		      SECTION_EXECUTION);
	check_bitmaps(s);
	check_apic(s);
	check_events(s);
	check_memory(s);
}

void entry_check_exit(struct entry_state *s)
{
	check_allowed(s, VMCS_EXIT_CONTROLS, s->caps->exit, SECTION_EXIT);
	if (!(s->pin & PIN_PREEMPTION_TIMER))
		entry_bits(s, VMCS_EXIT_CONTROLS, 0, EXIT_SAVE_PREEMPTION,
			   "save VMX-preemption timer value requires activate VMX-preemption timer",
			   SECTION_EXIT);
	entry_check_msr_area(s, VMCS_EXIT_MSR_STORE, VMCS_EXIT_MSR_STORE_COUNT, false,
			     SECTION_EXIT);
	entry_check_msr_area(s, VMCS_EXIT_MSR_LOAD, VMCS_EXIT_MSR_LOAD_COUNT, true, SECTION_EXIT);
}

/* The vectors of hardware exceptions that push an error code (SDM 3A 6.13; #CP with CET). */
static bool has_error_code(const struct entry_state *s, u32 vector)
{
	if (vector == VEC_CP)
		return s->caps->cr4_fixed1 & CR4_CET;
	return vector == VEC_DF || (vector >= VEC_TS && vector <= VEC_PF) || vector == VEC_AC;
}

static void check_error_code(struct entry_state *s, u32 type, u32 vector)
{
	bool delivers = s->intr_info & INTR_INFO_ERROR_CODE;
	bool any_vector = s->caps->basic & BIT64(56);
	bool hw = type == INTR_TYPE_HW_EXCEPTION;
	bool protected_mode = entry_read(s, VMCS_GUEST_CR0) & CR0_PE;

	if (!hw)
		entry_require(s, !delivers, VMCS_ENTRY_INTR_INFO,
			      "deliver-error-code (bit 11) is for hardware exceptions only",
			      SECTION_ENTRY);
	else if (!protected_mode)
		entry_require(s, !delivers, VMCS_ENTRY_INTR_INFO,
			      "deliver-error-code (bit 11) must be 0 if guest CR0.PE is 0",
			      SECTION_ENTRY);
	else if (!any_vector)
		entry_require(
			s, delivers == has_error_code(s, vector), VMCS_ENTRY_INTR_INFO,
			"deliver-error-code (bit 11) must be 1 for #DF, #TS, #NP, #SS, #GP, #PF, "
			"#AC (and #CP), and 0 for other exceptions",
			SECTION_ENTRY);
	if (delivers)
		entry_bits(s, VMCS_ENTRY_ERROR_CODE, 0, 0xffff0000,
			   "bits 31:16 of the exception error code must be 0", SECTION_ENTRY);
}

static void check_injection(struct entry_state *s)
{
	u32 type = s->intr_info & INTR_INFO_TYPE;
	u32 vector = s->intr_info & INTR_INFO_VECTOR;
	bool mtf_offered = (s->caps->proc >> 32) & PROC_MTF;
	u64 length;

	if (!s->intr_info)
		return;
	entry_require(s, type != 1u << 8 && (type != INTR_TYPE_OTHER || mtf_offered),
		      VMCS_ENTRY_INTR_INFO,
		      "the interruption type must not be 1, nor 7 without the monitor trap flag",
		      SECTION_ENTRY);
	if (type == INTR_TYPE_NMI)
		entry_require(s, vector == VEC_NMI, VMCS_ENTRY_INTR_INFO,
			      "the vector of an NMI must be 2", SECTION_ENTRY);
	if (type == INTR_TYPE_HW_EXCEPTION)
		entry_require(s, vector <= 31, VMCS_ENTRY_INTR_INFO,
			      "the vector of a hardware exception must be at most 31",
			      SECTION_ENTRY);
	if (type == INTR_TYPE_OTHER)
		entry_require(s, vector == 0, VMCS_ENTRY_INTR_INFO,
			      "the vector of type 7 (other event) must be 0, pending MTF",
			      SECTION_ENTRY);
	entry_bits(s, VMCS_ENTRY_INTR_INFO, 0, 0x7ffff000,
		   "reserved bits 30:12 of the interruption information must be 0", SECTION_ENTRY);
	check_error_code(s, type, vector);
	if (type == INTR_TYPE_SW_INTERRUPT || type == INTR_TYPE_PRIV_SW_EXCEPTION ||
	    type == INTR_TYPE_SW_EXCEPTION) {
		length = entry_read(s, VMCS_ENTRY_INSTR_LEN);
		entry_require(
			s, length <= 15 && (length || (s->caps->misc & BIT64(30))),
			VMCS_ENTRY_INSTR_LEN,
			"the instruction length of a software event must be 1 to 15 (0 only with "
			"IA32_VMX_MISC bit 30)",
			SECTION_ENTRY);
	}
}

void entry_check_entry(struct entry_state *s)
{
	check_allowed(s, VMCS_ENTRY_CONTROLS, s->caps->entry, SECTION_ENTRY);
	check_injection(s);
	entry_check_msr_area(s, VMCS_ENTRY_MSR_LOAD, VMCS_ENTRY_MSR_LOAD_COUNT, true,
			     SECTION_ENTRY);
	entry_bits(s, VMCS_ENTRY_CONTROLS, 0, ENTRY_SMM | ENTRY_DEACTIVATE_DUAL,
		   "outside SMM, entry to SMM and deactivate dual-monitor treatment must be 0",
		   SECTION_ENTRY);
}
