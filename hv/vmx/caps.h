/*
 * What this processor's VMX offers, what Umbra requires of it, and what Umbra makes of it.
 *
 * One table of requirements and options (caps.c) serves the loader, which must refuse before it
 * leaves boot services, and the hypervisor, which checks each CPU again and negotiates its controls
 * from the same table. SDM volume 3C appendix A; names are the SDM's.
 *
 * caps.c is compiled for the hypervisor, the loader (-fpic) and host tests: it includes nothing
 * but lib/types.h, x86/asm.h, x86/regs.h, vmx/vmcs.h and umbra/features.h and runs no privileged
 * instruction except in caps_read().
 */
#pragma once

#include <umbra/features.h>

#include "lib/types.h"

struct vmx_caps {
	bool has_vmx;	     /* CPUID.1:ECX[5] */
	bool has_true;	     /* VMX_BASIC[55] */
	u64 feature_control; /* IA32_FEATURE_CONTROL */
	u64 basic, misc, ept_vpid, vmfunc;
	u64 pin, proc, exit, entry; /* TRUE forms where has_true: allowed-0 low, allowed-1 high */
	u64 proc2;		    /* 0 if secondary controls are not offered */
	u64 proc3;		    /* allowed-1 only; 0 if tertiary controls are not offered */
	u64 cr0_fixed0, cr0_fixed1, cr4_fixed0, cr4_fixed1;
	u32 cpuid_1_ecx, cpuid_1_edx, cpuid_7_ebx, cpuid_7_ecx, cpuid_d1_eax;
	u32 cpuid_80000001_edx; /* RDTSCP, NX, 1-GByte pages, long mode */
};

/* The controls of a VMCS, as negotiated. */
struct vmx_controls {
	u32 pin, proc, proc2, exit, entry;
};

/* Reads the CPU. Safe on a CPU without VMX (then only has_vmx and CPUID leaves are set). */
void caps_read(struct vmx_caps *caps);

/*
 * Checks the floor. Calls report(ctx, text) once per requirement that is not met; text names the
 * feature by its SDM name, where it was looked up (MSR and bit), and what the user can do about it
 * ("enable Intel VT-x in the firmware set-up", "start QEMU with -cpu host", ...). Returns the
 * number of reports; 0 = Umbra can run. A FEATURE_CONTROL that is unlocked is fine (Umbra locks
 * it).
 */
typedef void (*caps_report_fn)(void *ctx, const char *text);
unsigned int caps_check(const struct vmx_caps *caps, caps_report_fn report, void *ctx);

/*
 * The optional features present and not hidden, as a bit set (1 << enum feature). Features that
 * depend on others fall away with them: pml without ept_ad, posted without vid, vid without
 * apic_reg, x2apic_virt or apic_access without tpr shadow (always there), ...
 */
u64 caps_features(const struct vmx_caps *caps, u64 hide);

/*
 * The controls that Umbra runs guests with: floor plus those the given features ask for, with
 * allowed-0 bits forced on. Only for caps that passed caps_check(). Features that are switched on
 * per VM later (VMFUNC, #VE, MBEC, PML, VMCS shadowing, MTF, virtualize x2APIC, posted) are left
 * off here; vmx/vmcs_setup.c adds them where they are used.
 */
void caps_controls(const struct vmx_caps *caps, u64 features, struct vmx_controls *out);

/* The CPU's differences from another one that would make a vCPU unfit to run on both; NULL if none.
 */
const char *caps_differ(const struct vmx_caps *a, const struct vmx_caps *b);
