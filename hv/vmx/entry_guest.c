/* VM-entry checks on guest registers and non-register state: SDM 3C 27.3.1.1, .4, .5, .6. */
#include "vmx/entry_rules.h"

#define SECTION_REGISTERS   "27.3.1.1"
#define SECTION_RIP	    "27.3.1.4"
#define SECTION_NONREGISTER "27.3.1.5"
#define SECTION_PDPTE	    "27.3.1.6"

/* IA32_DEBUGCTL: LBR, BTF, bus-lock detection, TR to FREEZE_PERFMON, FREEZE_WHILE_SMM, RTM. */
#define DEBUGCTL_VALID (BIT64(0) | BIT64(1) | BIT64(2) | 0x1fc0 | BIT64(14) | BIT64(15))
#define DEBUGCTL_BTF   BIT64(1)

#define INTERRUPTIBILITY_ENCLAVE BIT(4)
#define INTERRUPTIBILITY_SHADOW	 (INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS)

/* Pending debug exceptions (SDM 3C table 25-4). */
#define PENDING_B3_B0	0xfull
#define PENDING_BLD	BIT64(11)
#define PENDING_ENABLED BIT64(12)
#define PENDING_BS	BIT64(14)
#define PENDING_RTM	BIT64(16)

#define RFLAGS_RESERVED (~(u64)0x3fffff | BIT64(15) | BIT64(5) | BIT64(3))

static void check_control_registers(struct entry_state *s)
{
	const struct vmx_caps *c = s->caps;
	u64 exempt = CR0_NW | CR0_CD; /* VM entry does not change them */
	u64 cr0 = entry_read(s, VMCS_GUEST_CR0), cr4 = entry_read(s, VMCS_GUEST_CR4);

	if (s->proc2 & PROC2_UNRESTRICTED_GUEST)
		exempt |= CR0_PE | CR0_PG;
	entry_bits(s, VMCS_GUEST_CR0, c->cr0_fixed0 & ~exempt, ~c->cr0_fixed1 & ~exempt,
		   "CR0 must be as IA32_VMX_CR0_FIXED0 and FIXED1 say", SECTION_REGISTERS);
	entry_require(s, !(cr0 & CR0_PG) || (cr0 & CR0_PE), VMCS_GUEST_CR0,
		      "CR0.PG requires CR0.PE", SECTION_REGISTERS);
	entry_bits(s, VMCS_GUEST_CR4, c->cr4_fixed0, ~c->cr4_fixed1,
		   "CR4 must be as IA32_VMX_CR4_FIXED0 and FIXED1 say", SECTION_REGISTERS);
	if (cr4 & CR4_CET)
		entry_bits(s, VMCS_GUEST_CR0, CR0_WP, 0, "CR4.CET requires CR0.WP",
			   SECTION_REGISTERS);
	if (s->entry & ENTRY_IA32E) {
		entry_bits(s, VMCS_GUEST_CR0, CR0_PG, 0,
			   "CR0.PG must be 1 if IA-32e mode guest is 1", SECTION_REGISTERS);
		entry_bits(s, VMCS_GUEST_CR4, CR4_PAE, 0,
			   "CR4.PAE must be 1 if IA-32e mode guest is 1", SECTION_REGISTERS);
	} else {
		entry_bits(s, VMCS_GUEST_CR4, 0, CR4_PCIDE,
			   "CR4.PCIDE must be 0 if IA-32e mode guest is 0", SECTION_REGISTERS);
	}
	entry_bits(s, VMCS_GUEST_CR3, 0, s->phys_reserved,
		   "CR3 must be within the physical-address width", SECTION_REGISTERS);
}

static void check_msrs(struct entry_state *s)
{
	u64 cr0 = entry_read(s, VMCS_GUEST_CR0), efer;

	if (s->entry & ENTRY_LOAD_DEBUG) {
		entry_bits(s, VMCS_GUEST_DEBUGCTL, 0, ~DEBUGCTL_VALID,
			   "reserved bits of IA32_DEBUGCTL must be 0", SECTION_REGISTERS);
		entry_bits(s, VMCS_GUEST_DR7, 0, ~(u64)0xffffffff, "bits 63:32 of DR7 must be 0",
			   SECTION_REGISTERS);
	}
	entry_require(s, entry_canonical(s, entry_read(s, VMCS_GUEST_SYSENTER_ESP)),
		      VMCS_GUEST_SYSENTER_ESP, "the address must be canonical", SECTION_REGISTERS);
	entry_require(s, entry_canonical(s, entry_read(s, VMCS_GUEST_SYSENTER_EIP)),
		      VMCS_GUEST_SYSENTER_EIP, "the address must be canonical", SECTION_REGISTERS);
	if (s->entry & ENTRY_LOAD_PAT)
		entry_require(s, entry_pat_valid(entry_read(s, VMCS_GUEST_PAT)), VMCS_GUEST_PAT,
			      "each byte must be a memory type: 0, 1, 4, 5, 6 or 7",
			      SECTION_REGISTERS);
	if (!(s->entry & ENTRY_LOAD_EFER))
		return;
	efer = entry_read(s, VMCS_GUEST_EFER);
	entry_bits(s, VMCS_GUEST_EFER, 0, ~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE),
		   "reserved bits of IA32_EFER must be 0", SECTION_REGISTERS);
	entry_require(s, !(efer & EFER_LMA) == !(s->entry & ENTRY_IA32E), VMCS_GUEST_EFER,
		      "IA32_EFER.LMA must equal IA-32e mode guest", SECTION_REGISTERS);
	entry_require(s, !(cr0 & CR0_PG) || !(efer & EFER_LMA) == !(efer & EFER_LME),
		      VMCS_GUEST_EFER, "IA32_EFER.LME must equal LMA if CR0.PG is 1",
		      SECTION_REGISTERS);
}

static void check_rip_rflags(struct entry_state *s)
{
	u64 rip = entry_read(s, VMCS_GUEST_RIP);
	u64 cr0 = entry_read(s, VMCS_GUEST_CR0);
	u64 above = rip >> s->source->linear_bits;
	bool code64 = (s->entry & ENTRY_IA32E) && (entry_read(s, VMCS_GUEST_CS_AR) & BIT64(13));

	if (code64)
		entry_require(
			s, !above || above == BIT64(64 - s->source->linear_bits) - 1,
			VMCS_GUEST_RIP,
			"bits above the linear-address width must be identical in 64-bit mode",
			SECTION_RIP);
	else
		entry_bits(s, VMCS_GUEST_RIP, 0, ~(u64)0xffffffff,
			   "bits 63:32 must be 0 outside 64-bit mode", SECTION_RIP);
	entry_bits(s, VMCS_GUEST_RFLAGS, RFLAGS_FIXED, RFLAGS_RESERVED,
		   "bit 1 must be 1 and reserved bits (63:22, 15, 5, 3) 0", SECTION_RIP);
	if ((s->entry & ENTRY_IA32E) || !(cr0 & CR0_PE))
		entry_bits(s, VMCS_GUEST_RFLAGS, 0, RFLAGS_VM,
			   "RFLAGS.VM must be 0 in IA-32e mode and if CR0.PE is 0", SECTION_RIP);
	if (s->intr_info && (s->intr_info & INTR_INFO_TYPE) == INTR_TYPE_EXTERNAL)
		entry_bits(s, VMCS_GUEST_RFLAGS, RFLAGS_IF, 0,
			   "RFLAGS.IF must be 1 if an external interrupt is injected", SECTION_RIP);
}

/* May the event be injected into that activity state? Only called with an event. */
static bool event_fits_activity(const struct entry_state *s, u64 activity)
{
	u32 type = s->intr_info & INTR_INFO_TYPE, vector = s->intr_info & INTR_INFO_VECTOR;

	switch (activity) {
	case ACTIVITY_ACTIVE:
		return true;
	case ACTIVITY_HLT:
		return type == INTR_TYPE_EXTERNAL || type == INTR_TYPE_NMI ||
		       (type == INTR_TYPE_HW_EXCEPTION && (vector == VEC_DB || vector == VEC_MC)) ||
		       (type == INTR_TYPE_OTHER && vector == 0);
	case ACTIVITY_SHUTDOWN:
		return type == INTR_TYPE_NMI ||
		       (type == INTR_TYPE_HW_EXCEPTION && vector == VEC_MC);
	default:
		return false;
	}
}

static void check_activity(struct entry_state *s)
{
	u64 activity = entry_read(s, VMCS_GUEST_ACTIVITY);
	u64 blocking = entry_read(s, VMCS_GUEST_INTERRUPTIBILITY);

	/* VMX_MISC[8:6]: HLT, shutdown, wait-for-SIPI. */
	if (!entry_require(
		    s,
		    activity <= ACTIVITY_WAIT_SIPI &&
			    (activity == ACTIVITY_ACTIVE || (s->caps->misc >> (5 + activity) & 1)),
		    VMCS_GUEST_ACTIVITY, "the activity state must be one that IA32_VMX_MISC offers",
		    SECTION_NONREGISTER))
		return;
	entry_require(
		s, activity != ACTIVITY_HLT || (entry_read(s, VMCS_GUEST_SS_AR) >> 5 & 3) == 0,
		VMCS_GUEST_ACTIVITY, "the HLT state requires SS.DPL = 0", SECTION_NONREGISTER);
	entry_require(s, activity == ACTIVITY_ACTIVE || !(blocking & INTERRUPTIBILITY_SHADOW),
		      VMCS_GUEST_ACTIVITY,
		      "the state must be active with blocking by STI or by MOV SS",
		      SECTION_NONREGISTER);
	entry_require(s, !s->intr_info || event_fits_activity(s, activity), VMCS_GUEST_ACTIVITY,
		      "the injected event cannot be delivered in this activity state",
		      SECTION_NONREGISTER);
}

static void check_interruptibility(struct entry_state *s)
{
	u64 value = entry_read(s, VMCS_GUEST_INTERRUPTIBILITY);
	u32 type = s->intr_info & INTR_INFO_TYPE;
	bool external = s->intr_info && type == INTR_TYPE_EXTERNAL;
	bool nmi = s->intr_info && type == INTR_TYPE_NMI;
	u64 reserved = ~(u64)0x1f;

	if (!(s->caps->cpuid_7_ebx & BIT(2)))
		reserved |= INTERRUPTIBILITY_ENCLAVE; /* needs SGX */
	entry_bits(s, VMCS_GUEST_INTERRUPTIBILITY, 0, reserved,
		   "reserved bits (31:5, and 4 without SGX) must be 0", SECTION_NONREGISTER);
	entry_require(s, (value & INTERRUPTIBILITY_SHADOW) != INTERRUPTIBILITY_SHADOW,
		      VMCS_GUEST_INTERRUPTIBILITY,
		      "blocking by STI and blocking by MOV SS exclude each other",
		      SECTION_NONREGISTER);
	if (!(entry_read(s, VMCS_GUEST_RFLAGS) & RFLAGS_IF))
		entry_bits(s, VMCS_GUEST_INTERRUPTIBILITY, 0, INTERRUPTIBILITY_STI,
			   "blocking by STI requires RFLAGS.IF = 1", SECTION_NONREGISTER);
	if (external)
		entry_bits(s, VMCS_GUEST_INTERRUPTIBILITY, 0, INTERRUPTIBILITY_SHADOW,
			   "no blocking by STI or MOV SS if an external interrupt is injected",
			   SECTION_NONREGISTER);
	/* Some processors refuse blocking by STI too, so Umbra must not rely on it. */
	if (nmi)
		entry_bits(
			s, VMCS_GUEST_INTERRUPTIBILITY, 0, INTERRUPTIBILITY_SHADOW,
			"no blocking by MOV SS (on some processors: by STI) if an NMI is injected",
			SECTION_NONREGISTER);
	entry_bits(s, VMCS_GUEST_INTERRUPTIBILITY, 0, INTERRUPTIBILITY_SMI,
		   "blocking by SMI must be 0 outside SMM", SECTION_NONREGISTER);
	if (nmi && (s->pin & PIN_VIRTUAL_NMI))
		entry_bits(s, VMCS_GUEST_INTERRUPTIBILITY, 0, INTERRUPTIBILITY_NMI,
			   "no blocking by NMI if a virtual NMI is injected", SECTION_NONREGISTER);
	if (value & INTERRUPTIBILITY_ENCLAVE)
		entry_bits(s, VMCS_GUEST_INTERRUPTIBILITY, 0, INTERRUPTIBILITY_MOV_SS,
			   "enclave interruption excludes blocking by MOV SS", SECTION_NONREGISTER);
}

static void check_pending_debug(struct entry_state *s)
{
	u64 pending = entry_read(s, VMCS_GUEST_PENDING_DEBUG);
	u64 blocking = entry_read(s, VMCS_GUEST_INTERRUPTIBILITY);
	bool step = (entry_read(s, VMCS_GUEST_RFLAGS) & RFLAGS_TF) &&
		    !(entry_read(s, VMCS_GUEST_DEBUGCTL) & DEBUGCTL_BTF);

	entry_bits(s, VMCS_GUEST_PENDING_DEBUG, 0,
		   ~(PENDING_B3_B0 | PENDING_BLD | PENDING_ENABLED | PENDING_BS | PENDING_RTM),
		   "reserved bits of the pending debug exceptions must be 0", SECTION_NONREGISTER);
	if ((blocking & INTERRUPTIBILITY_SHADOW) ||
	    entry_read(s, VMCS_GUEST_ACTIVITY) == ACTIVITY_HLT)
		entry_require(
			s, !(pending & PENDING_BS) == !step, VMCS_GUEST_PENDING_DEBUG,
			"with blocking by STI or MOV SS, or in the HLT state, BS (bit 14) must be "
			"RFLAGS.TF and not IA32_DEBUGCTL.BTF",
			SECTION_NONREGISTER);
	if (!(pending & PENDING_RTM))
		return;
	entry_require(s, (pending & ~PENDING_RTM) == PENDING_ENABLED, VMCS_GUEST_PENDING_DEBUG,
		      "with RTM (bit 16), bit 12 must be 1 and all others 0", SECTION_NONREGISTER);
	entry_require(s, s->caps->cpuid_7_ebx & BIT(11), VMCS_GUEST_PENDING_DEBUG,
		      "RTM (bit 16) requires a processor with RTM", SECTION_NONREGISTER);
	entry_require(s, !(blocking & INTERRUPTIBILITY_MOV_SS), VMCS_GUEST_PENDING_DEBUG,
		      "RTM (bit 16) excludes blocking by MOV SS", SECTION_NONREGISTER);
}

static void check_link_pointer(struct entry_state *s)
{
	u64 link = entry_read(s, VMCS_LINK_POINTER);
	u32 wanted = (u32)s->caps->basic & 0x7fffffff;
	u32 revision;

	if (link == ~(u64)0)
		return;
	if (!entry_bits(s, VMCS_LINK_POINTER, 0, ~PAGE_MASK | s->phys_reserved,
			"the VMCS link pointer must be all ones, or page-aligned and within the "
			"physical-address width",
			SECTION_NONREGISTER))
		return;
	if (s->proc2 & PROC2_VMCS_SHADOWING)
		wanted |= BIT(31);
	if (s->source->read_phys && s->source->read_phys(s->source->ctx, hpa(link), &revision, 4))
		entry_require(
			s, revision == wanted, VMCS_LINK_POINTER,
			"the VMCS linked to must hold the revision identifier, bit 31 set only "
			"with VMCS shadowing",
			SECTION_NONREGISTER);
}

static void check_pdptes(struct entry_state *s)
{
	static const u32 fields[] = {VMCS_GUEST_PDPTE0, VMCS_GUEST_PDPTE1, VMCS_GUEST_PDPTE2,
				     VMCS_GUEST_PDPTE3};

	if (!(entry_read(s, VMCS_GUEST_CR0) & CR0_PG) ||
	    !(entry_read(s, VMCS_GUEST_CR4) & CR4_PAE) || (s->entry & ENTRY_IA32E) ||
	    !(s->proc2 & PROC2_EPT))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		if (entry_read(s, fields[i]) & 1)
			entry_bits(s, fields[i], 0, 0x1e6 | s->phys_reserved,
				   "reserved bits of a present PDPTE must be 0", SECTION_PDPTE);
}

void entry_check_guest(struct entry_state *s)
{
	check_control_registers(s);
	check_msrs(s);
	check_rip_rflags(s);
	check_activity(s);
	check_interruptibility(s);
	check_pending_debug(s);
	check_link_pointer(s);
	check_pdptes(s);
}
