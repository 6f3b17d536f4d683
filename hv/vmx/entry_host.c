/* VM-entry checks on the host-state area: SDM 3C 27.2.2 to 27.2.4. */
#include "vmx/entry_rules.h"

#define SECTION_REGISTERS "27.2.2"
#define SECTION_SEGMENTS  "27.2.3"
#define SECTION_MODE	  "27.2.4"

static void check_registers(struct entry_state *s)
{
	const struct vmx_caps *c = s->caps;
	u64 mode = s->exit & EXIT_HOST_64 ? EFER_LMA | EFER_LME : 0;

	/* NW and CD are not changed by VM exits and therefore not checked. */
	entry_bits(s, VMCS_HOST_CR0, c->cr0_fixed0 & ~(CR0_NW | CR0_CD),
		   ~c->cr0_fixed1 & ~(CR0_NW | CR0_CD),
		   "CR0 must be as IA32_VMX_CR0_FIXED0 and FIXED1 say", SECTION_REGISTERS);
	entry_bits(s, VMCS_HOST_CR4, c->cr4_fixed0, ~c->cr4_fixed1,
		   "CR4 must be as IA32_VMX_CR4_FIXED0 and FIXED1 say", SECTION_REGISTERS);
	if (entry_read(s, VMCS_HOST_CR4) & CR4_CET)
		entry_bits(s, VMCS_HOST_CR0, CR0_WP, 0, "CR0.WP must be 1 if CR4.CET is 1",
			   SECTION_REGISTERS);
	entry_bits(s, VMCS_HOST_CR3, 0, s->phys_reserved,
		   "CR3 must be within the physical-address width", SECTION_REGISTERS);
	entry_require(s, entry_canonical(s, entry_read(s, VMCS_HOST_SYSENTER_ESP)),
		      VMCS_HOST_SYSENTER_ESP, "the address must be canonical", SECTION_REGISTERS);
	entry_require(s, entry_canonical(s, entry_read(s, VMCS_HOST_SYSENTER_EIP)),
		      VMCS_HOST_SYSENTER_EIP, "the address must be canonical", SECTION_REGISTERS);
	if (s->exit & EXIT_LOAD_PAT)
		entry_require(s, entry_pat_valid(entry_read(s, VMCS_HOST_PAT)), VMCS_HOST_PAT,
			      "each byte must be a memory type: 0, 1, 4, 5, 6 or 7",
			      SECTION_REGISTERS);
	if (s->exit & EXIT_LOAD_EFER) {
		entry_bits(s, VMCS_HOST_EFER, 0, ~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE),
			   "reserved bits of IA32_EFER must be 0", SECTION_REGISTERS);
		entry_bits(s, VMCS_HOST_EFER, mode, (EFER_LMA | EFER_LME) & ~mode,
			   "LMA and LME must equal host address-space size", SECTION_REGISTERS);
	}
}

static void check_segments(struct entry_state *s)
{
	static const u32 selectors[] = {VMCS_HOST_ES, VMCS_HOST_CS, VMCS_HOST_SS, VMCS_HOST_DS,
					VMCS_HOST_FS, VMCS_HOST_GS, VMCS_HOST_TR};
	static const u32 bases[] = {VMCS_HOST_FS_BASE, VMCS_HOST_GS_BASE, VMCS_HOST_TR_BASE,
				    VMCS_HOST_GDTR_BASE, VMCS_HOST_IDTR_BASE};

	for (size_t i = 0; i < ARRAY_SIZE(selectors); i++)
		entry_bits(s, selectors[i], 0, 7, "RPL and TI (bits 2:0) must be 0",
			   SECTION_SEGMENTS);
	entry_require(s, entry_read(s, VMCS_HOST_CS) != 0, VMCS_HOST_CS,
		      "the selector must not be 0", SECTION_SEGMENTS);
	entry_require(s, entry_read(s, VMCS_HOST_TR) != 0, VMCS_HOST_TR,
		      "the selector must not be 0", SECTION_SEGMENTS);
	if (!(s->exit & EXIT_HOST_64))
		entry_require(s, entry_read(s, VMCS_HOST_SS) != 0, VMCS_HOST_SS,
			      "the selector must not be 0 for a host outside 64-bit mode",
			      SECTION_SEGMENTS);
	for (size_t i = 0; i < ARRAY_SIZE(bases); i++)
		entry_require(s, entry_canonical(s, entry_read(s, bases[i])), bases[i],
			      "the address must be canonical", SECTION_SEGMENTS);
}

/* Umbra is always in IA-32e mode when it enters a guest. */
void entry_check_host(struct entry_state *s)
{
	check_registers(s);
	check_segments(s);
	entry_bits(s, VMCS_EXIT_CONTROLS, EXIT_HOST_64, 0,
		   "host address-space size must be 1 if VM entry happens in IA-32e mode",
		   SECTION_MODE);
	entry_bits(s, VMCS_HOST_CR4, CR4_PAE, 0, "CR4.PAE must be 1 for a 64-bit host",
		   SECTION_MODE);
	entry_require(s, entry_canonical(s, entry_read(s, VMCS_HOST_RIP)), VMCS_HOST_RIP,
		      "the address must be canonical", SECTION_MODE);
}
