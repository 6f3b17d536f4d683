/*
 * The MSR policy: a list of what guests touch directly, a switch for what is emulated, #GP for all
 * the rest. SDM volume 4.
 */
#include "lib/string.h"
#include "vm/apf.h"
#include "vm/internal.h"
#include "x86/asm.h"
#include "x86/regs.h"

/* IA32_MTRRCAP: write-combining, no fixed and no variable ranges. */
#define MTRRCAP_VALUE 0x400ull
#define MTRR_ENABLE   BIT64(11)
#define MTRR_TYPE_WB  6
/* IA32_MISC_ENABLE: fast strings; BTS and PEBS unavailable. */
#define MISC_ENABLE_FAST_STRINGS BIT64(0)
#define MISC_ENABLE_FIXED	 (BIT64(11) | BIT64(12))
#define DEBUGCTL_LBR		 BIT64(0)
#define DEBUGCTL_BTF		 BIT64(1)

/* In VMCS fields, or switched with the vCPU (vcpu.c): no exit. */
static const struct {
	u32 msr;
	bool read, write;
} pass_through[] = {
	{MSR_FS_BASE, true, true},	  {MSR_GS_BASE, true, true},
	{MSR_KERNEL_GS_BASE, true, true}, {MSR_STAR, true, true},
	{MSR_LSTAR, true, true},	  {MSR_CSTAR, true, true},
	{MSR_FMASK, true, true},	  {MSR_SYSENTER_CS, true, true},
	{MSR_SYSENTER_ESP, true, true},	  {MSR_SYSENTER_EIP, true, true},
	{MSR_EFER, true, true},		  {MSR_PAT, true, true},
	{MSR_TSC, true, false},
};

/* The bitmap (SDM 25.6.9): reads of low and high MSRs, then writes; a set bit exits. */
static void bitmap_set(u8 *bitmap, u32 msr, bool write, bool value)
{
	u32 at = (write ? 2048 : 0) + (msr >= 0xc0000000 ? 1024 : 0);
	u32 bit = msr & 0x1fff;

	if (value)
		bitmap[at + bit / 8] |= (u8)BIT(bit % 8);
	else
		bitmap[at + bit / 8] &= (u8)~BIT(bit % 8);
}

void msr_bitmap_allow(u8 *bitmap, u32 msr, bool read, bool write)
{
	if (read)
		bitmap_set(bitmap, msr, false, false);
	if (write)
		bitmap_set(bitmap, msr, true, false);
}

void msr_bitmap_refuse(u8 *bitmap, u32 msr, bool read, bool write)
{
	if (read)
		bitmap_set(bitmap, msr, false, true);
	if (write)
		bitmap_set(bitmap, msr, true, true);
}

void msr_bitmap_init(u8 *bitmap)
{
	memset(bitmap, 0xff, PAGE_SIZE);
	for (u32 i = 0; i < ARRAY_SIZE(pass_through); i++)
		msr_bitmap_allow(bitmap, pass_through[i].msr, pass_through[i].read,
				 pass_through[i].write);
	if (vmx_has(FEAT_RDTSCP))
		msr_bitmap_allow(bitmap, MSR_TSC_AUX, true, false);
}

static bool is_platform_msr(u32 msr)
{
	return msr == MSR_TSC_DEADLINE || msr == MSR_APIC_BASE ||
	       (msr >= MSR_X2APIC_FIRST && msr <= MSR_X2APIC_LAST);
}

/* False: #GP. */
static bool read_msr(struct vcpu *vcpu, u32 msr, u64 *value)
{
	if (is_platform_msr(msr))
		return platform_msr_read(vcpu, msr, value);
	switch (msr) {
	case MSR_TSC_ADJUST:
		*value = vcpu->msr_tsc_adjust;
		return true;
	case MSR_PLATFORM_ID:
	case MSR_BIOS_SIGN_ID:
	case MSR_MCG_CAP:
	case MSR_MCG_STATUS:
		*value = 0;
		return true;
	case MSR_MTRRCAP:
		*value = MTRRCAP_VALUE;
		return true;
	case MSR_MTRR_DEF_TYPE:
		*value = vcpu->msr_mtrr_def_type;
		return true;
	case MSR_MISC_ENABLE:
		*value = vcpu->msr_misc_enable;
		return true;
	case MSR_DEBUGCTL:
		*value = vmcs_read(VMCS_GUEST_DEBUGCTL);
		return true;
	case MSR_XSS:
		*value = vcpu->xss;
		return vmx_has(FEAT_XSAVES);
	case MSR_UMWAIT_CONTROL:
		*value = vcpu->msr_umwait;
		return vmx_has(FEAT_WAITPKG);
	}
	return apf_msr_read(vcpu, msr, value);
}

static void move_tsc(struct vcpu *vcpu, u64 delta)
{
	if (!delta)
		return;
	vcpu->tsc_offset += delta;
	vcpu->msr_tsc_adjust += delta;
	vmcs_write(VMCS_TSC_OFFSET, vcpu->tsc_offset);
	/* Deadlines are kept in host TSC. */
	vcpu_request(vcpu, REQ_TIMER);
}

static bool write_msr(struct vcpu *vcpu, u32 msr, u64 value)
{
	if (is_platform_msr(msr))
		return platform_msr_write(vcpu, msr, value);
	switch (msr) {
	case MSR_TSC:
		move_tsc(vcpu, value - vcpu_tsc(vcpu));
		return true;
	case MSR_TSC_ADJUST:
		move_tsc(vcpu, value - vcpu->msr_tsc_adjust);
		return true;
	case MSR_BIOS_SIGN_ID: /* written with 0 before CPUID reads the microcode's version */
		return true;
	case MSR_MCG_STATUS:
		return value == 0;
	case MSR_MTRR_DEF_TYPE:
		/* Types 0, 1, 4, 5, 6; enable bit; no fixed ranges to enable. EPT decides anyway.
		 */
		if ((value & ~(MTRR_ENABLE | 7)) || (value & 7) == 2 || (value & 7) == 3 ||
		    (value & 7) == 7)
			return false;
		vcpu->msr_mtrr_def_type = value;
		return true;
	case MSR_MISC_ENABLE:
		if ((value ^ vcpu->msr_misc_enable) & ~MISC_ENABLE_FAST_STRINGS)
			return false;
		vcpu->msr_misc_enable = value;
		return true;
	case MSR_DEBUGCTL:
		if (value & ~(DEBUGCTL_LBR | DEBUGCTL_BTF))
			return false;
		/* Branch records are not switched between vCPUs, so they stay off. */
		vmcs_write(VMCS_GUEST_DEBUGCTL, value & DEBUGCTL_BTF);
		return true;
	case MSR_XSS:
		return vmx_has(FEAT_XSAVES) && value == 0;
	case MSR_TSC_AUX:
		/* Not passed through: Bochs 2.7 takes bits 63:32 without #GP. */
		if (!vmx_has(FEAT_RDTSCP) || value >> 32)
			return false;
		wrmsr(MSR_TSC_AUX, value);
		return true;
	case MSR_UMWAIT_CONTROL:
		if (!vmx_has(FEAT_WAITPKG) || (value >> 32) || (value & 2))
			return false;
		vcpu->msr_umwait = value;
		wrmsr(MSR_UMWAIT_CONTROL, value);
		return true;
	}
	return false;
}

static void refuse(struct vcpu *vcpu, const char *what, u32 msr)
{
	vcpu->refusals++;
	vm_log_refusal(vcpu, what, msr);
	vcpu_inject_error(vcpu, VEC_GP, 0);
}

void exit_rdmsr(struct vcpu *vcpu)
{
	u32 msr = (u32)vcpu->gpr[RCX];
	u64 value;

	if (!read_msr(vcpu, msr, &value)) {
		refuse(vcpu, "RDMSR of", msr);
		return;
	}
	vcpu->gpr[RAX] = (u32)value;
	vcpu->gpr[RDX] = value >> 32;
	vcpu_skip(vcpu);
}

void exit_wrmsr(struct vcpu *vcpu)
{
	u32 msr = (u32)vcpu->gpr[RCX];
	u64 value = vcpu->gpr[RDX] << 32 | (u32)vcpu->gpr[RAX];
	int err = 0;

	if (!write_msr(vcpu, msr, value))
		err = apf_msr_write(vcpu, msr, value);
	if (!err)
		vcpu_skip(vcpu);
	else if (err != ERR_AGAIN)
		refuse(vcpu, "WRMSR of", msr);
}

void msr_reset(struct vcpu *vcpu)
{
	/*
	 * Kernels choose their loops for copying by it: the guest's strings are the machine's. If
	 * memory is elsewhere they are always fast, as a page that one of them overwrites is not
	 * read before (remote/overwrite.c): Bochs 2.7 and 3.0 say that they are not.
	 */
	vcpu->msr_misc_enable =
		(rdmsr(MSR_MISC_ENABLE) & MISC_ENABLE_FAST_STRINGS) | MISC_ENABLE_FIXED;
	if (vcpu->vm->config->remote_count)
		vcpu->msr_misc_enable |= MISC_ENABLE_FAST_STRINGS;
	vcpu->msr_mtrr_def_type = MTRR_ENABLE | MTRR_TYPE_WB;
	vcpu->msr_tsc_adjust = 0;
	vcpu->msr_umwait = 0;
}
