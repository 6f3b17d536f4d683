/*
 * Control-register exits and XSETBV. Only the bits that Umbra owns exit: CR0.NE, CD, NW and, of
 * CR4, VMXE, MCE and what the CPUID policy hides. SDM 3A 2.5, 3C 26.3, 28.1.3.
 */
#include "vm/away.h"
#include "vm/internal.h"
#include "x86/asm.h"
#include "x86/regs.h"

#define CR0_OWNED   (CR0_NE | CR0_CD | CR0_NW)
#define CR0_DEFINED 0xe005003full
#define CR4_PAGING  (CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP)

#define PDPTE_RESERVED_LOW 0x1e6ull /* bits 8:5, 2:1 (SDM 4.4.1) */

static u64 guest_cr0(void)
{
	return (vmcs_read(VMCS_GUEST_CR0) & ~CR0_OWNED) | (vmcs_read(VMCS_CR0_SHADOW) & CR0_OWNED);
}

static u64 guest_cr4(void)
{
	u64 mask = CR4_VMXE | CR4_MCE | ~cpuid_cr4_allowed();

	return (vmcs_read(VMCS_GUEST_CR4) & ~mask) | (vmcs_read(VMCS_CR4_SHADOW) & mask);
}

static u64 read_gpr(struct vcpu *vcpu, unsigned int index)
{
	u64 value = index == RSP ? vmcs_read(VMCS_GUEST_RSP) : vcpu->gpr[index];

	/*
	 * Outside 64-bit mode MOV to CR uses 32 bits. EFER says which mode: the guest switches it
	 * without an exit, and vcpu->entry_controls does not follow.
	 */
	return (vmcs_read(VMCS_GUEST_EFER) & EFER_LMA) && (vmcs_read(VMCS_GUEST_CS_AR) & BIT(13))
		       ? value
		       : (u32)value;
}

bool vcpu_load_pdptes(struct vcpu *vcpu, u64 cr3)
{
	u64 pdpte[4];
	u64 reserved = ~(BIT64(cpuid(0x80000008, 0).eax & 0xff) - 1) | PDPTE_RESERVED_LOW;

	int err;

	while ((err = guest_read(vcpu->vm, gpa(cr3 & 0xffffffe0), pdpte, sizeof(pdpte))) ==
	       ERR_AGAIN)
		remote_poll(rdtsc());
	if (err)
		return false;
	for (unsigned int i = 0; i < 4; i++)
		if ((pdpte[i] & 1) && (pdpte[i] & reserved))
			return false;
	vmcs_write(VMCS_GUEST_PDPTE0, pdpte[0]);
	vmcs_write(VMCS_GUEST_PDPTE1, pdpte[1]);
	vmcs_write(VMCS_GUEST_PDPTE2, pdpte[2]);
	vmcs_write(VMCS_GUEST_PDPTE3, pdpte[3]);
	return true;
}

static void set_long_mode(struct vcpu *vcpu, u64 efer, bool on)
{
	vmcs_write(VMCS_GUEST_EFER, on ? efer | EFER_LMA : efer & ~EFER_LMA);
	if (on)
		vcpu->entry_controls |= ENTRY_IA32E;
	else
		vcpu->entry_controls &= ~ENTRY_IA32E;
	vmcs_write(VMCS_ENTRY_CONTROLS, vcpu->entry_controls);
}

/* Switching paging on or off: the checks of MOV to CR0 (SDM 3A 4.1.2, 9.8.5). False: #GP. */
static bool change_paging(struct vcpu *vcpu, u64 cr0)
{
	u64 efer = vmcs_read(VMCS_GUEST_EFER);
	u64 cr4 = guest_cr4();

	if (!(cr0 & CR0_PG)) {
		/* In 64-bit mode, or with PCIDs, paging cannot be left. */
		if ((efer & EFER_LMA) && (vmcs_read(VMCS_GUEST_CS_AR) & BIT(13)))
			return false;
		if (cr4 & CR4_PCIDE)
			return false;
		if (efer & EFER_LMA)
			set_long_mode(vcpu, efer, false);
		return true;
	}
	if (efer & EFER_LME) {
		if (!(cr4 & CR4_PAE) || (vmcs_read(VMCS_GUEST_CS_AR) & BIT(13)))
			return false;
		/* Long mode wants a 64-bit TSS type in VMCS terms: busy TSS (SDM 27.3.1.2). */
		if ((vmcs_read(VMCS_GUEST_TR_AR) & 0xf) == 3)
			return false;
		set_long_mode(vcpu, efer, true);
		return true;
	}
	return !(cr4 & CR4_PAE) || vcpu_load_pdptes(vcpu, vmcs_read(VMCS_GUEST_CR3));
}

/* False: #GP. */
static bool write_guest_cr0(struct vcpu *vcpu, u64 value)
{
	u64 old = guest_cr0();

	if (value >> 32)
		return false;
	value = (value & CR0_DEFINED) | CR0_ET;
	if ((value & CR0_PG) && !(value & CR0_PE))
		return false;
	if ((value & CR0_NW) && !(value & CR0_CD))
		return false;
	if (((value ^ old) & CR0_PG) && !change_paging(vcpu, value))
		return false;
	vmcs_write(VMCS_GUEST_CR0, (value | CR0_NE) & ~(CR0_CD | CR0_NW));
	vmcs_write(VMCS_CR0_SHADOW, value);
	if ((value ^ old) & (CR0_PG | CR0_WP))
		vmx_invvpid_single((u16)vmcs_read(VMCS_VPID));
	return true;
}

static bool write_guest_cr4(struct vcpu *vcpu, u64 value)
{
	u64 old = guest_cr4();
	u64 efer = vmcs_read(VMCS_GUEST_EFER);

	if (value & ~cpuid_cr4_allowed())
		return false;
	if ((efer & EFER_LMA) && !(value & CR4_PAE))
		return false;
	/* PCIDs can be switched on only in IA-32e mode with PCID 0 current (SDM 4.10.1). */
	if ((value & ~old & CR4_PCIDE) &&
	    (!(efer & EFER_LMA) || (vmcs_read(VMCS_GUEST_CR3) & 0xfff)))
		return false;
	if ((guest_cr0() & CR0_PG) && !(efer & EFER_LMA) && (value & CR4_PAE) &&
	    ((value ^ old) & (CR4_PAE | CR4_PSE | CR4_PGE | CR4_SMEP)) &&
	    !vcpu_load_pdptes(vcpu, vmcs_read(VMCS_GUEST_CR3)))
		return false;
	vmcs_write(VMCS_GUEST_CR4, value | CR4_VMXE | CR4_MCE);
	vmcs_write(VMCS_CR4_SHADOW, value);
	if ((value ^ old) & CR4_PAGING)
		vmx_invvpid_single((u16)vmcs_read(VMCS_VPID));
	return true;
}

void exit_cr_access(struct vcpu *vcpu)
{
	/* Exit qualification for control-register accesses (SDM table 28-3). */
	u64 q = vmcs_read(VMCS_EXIT_QUALIFICATION);
	unsigned int cr = q & 0xf;
	unsigned int type = q >> 4 & 3;
	bool ok;

	enum {
		MOV_TO,
		MOV_FROM,
		CLTS,
		LMSW
	};
	if (type == MOV_TO && cr == 0) {
		ok = write_guest_cr0(vcpu, read_gpr(vcpu, q >> 8 & 0xf));
	} else if (type == MOV_TO && cr == 4) {
		ok = write_guest_cr4(vcpu, read_gpr(vcpu, q >> 8 & 0xf));
	} else if (type == CLTS) {
		ok = write_guest_cr0(vcpu, guest_cr0() & ~CR0_TS);
	} else if (type == LMSW) {
		/* LMSW sets PE, MP, EM, TS and cannot clear PE. */
		u64 source = q >> 16 & 0xf;
		u64 old = guest_cr0();

		ok = write_guest_cr0(vcpu, (old & ~0xeull) | source);
	} else {
		vcpu_fatal(vcpu,
			   "control-register access that Umbra does not ask for: CR%u type %u", cr,
			   type);
		return;
	}
	if (ok)
		vcpu_skip(vcpu);
	else
		vcpu_inject_error(vcpu, VEC_GP, 0);
}

/* SDM 2B XSETBV, 1 13.3: which XCR0 values are legal. */
static bool xcr0_valid(u64 value)
{
	u64 allowed = cpuid_xcr0_allowed();
	u64 avx512 = value & 0xe0;

	if (!(value & 1) || (value & ~allowed))
		return false;
	if ((value & 4) && !(value & 2))
		return false;
	if (avx512 && (avx512 != 0xe0 || (value & 6) != 6))
		return false;
	return true;
}

void exit_xsetbv(struct vcpu *vcpu)
{
	u64 value = (u32)vcpu->gpr[RDX];

	value = value << 32 | (u32)vcpu->gpr[RAX];
	/* CPL and CR4.OSXSAVE have been checked by the processor before the exit (SDM 26.1.1). */
	if ((u32)vcpu->gpr[RCX] != 0 || !xcr0_valid(value) || !vcpu_cpl0(vcpu)) {
		vcpu_inject_error(vcpu, VEC_GP, 0);
		return;
	}
	vcpu->xcr0 = value;
	xsetbv(0, value);
	vcpu_skip(vcpu);
}
