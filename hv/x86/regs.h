/* Architectural register and MSR numbers and their bits (Intel SDM volumes 3 and 4 names). */
#pragma once

#include "lib/types.h"

/* Control registers (SDM 3A 2.5). */
#define CR0_PE BIT64(0)
#define CR0_MP BIT64(1)
#define CR0_EM BIT64(2)
#define CR0_TS BIT64(3)
#define CR0_ET BIT64(4)
#define CR0_NE BIT64(5)
#define CR0_WP BIT64(16)
#define CR0_AM BIT64(18)
#define CR0_NW BIT64(29)
#define CR0_CD BIT64(30)
#define CR0_PG BIT64(31)

#define CR4_VME	       BIT64(0)
#define CR4_PVI	       BIT64(1)
#define CR4_TSD	       BIT64(2)
#define CR4_DE	       BIT64(3)
#define CR4_PSE	       BIT64(4)
#define CR4_PAE	       BIT64(5)
#define CR4_MCE	       BIT64(6)
#define CR4_PGE	       BIT64(7)
#define CR4_PCE	       BIT64(8)
#define CR4_OSFXSR     BIT64(9)
#define CR4_OSXMMEXCPT BIT64(10)
#define CR4_UMIP       BIT64(11)
#define CR4_LA57       BIT64(12)
#define CR4_VMXE       BIT64(13)
#define CR4_SMXE       BIT64(14)
#define CR4_FSGSBASE   BIT64(16)
#define CR4_PCIDE      BIT64(17)
#define CR4_OSXSAVE    BIT64(18)
#define CR4_KL	       BIT64(19)
#define CR4_SMEP       BIT64(20)
#define CR4_SMAP       BIT64(21)
#define CR4_PKE	       BIT64(22)
#define CR4_CET	       BIT64(23)
#define CR4_PKS	       BIT64(24)

#define RFLAGS_CF    BIT64(0)
#define RFLAGS_FIXED BIT64(1)
#define RFLAGS_TF    BIT64(8)
#define RFLAGS_IF    BIT64(9)
#define RFLAGS_DF    BIT64(10)
#define RFLAGS_IOPL  (3ull << 12)
#define RFLAGS_NT    BIT64(14)
#define RFLAGS_RF    BIT64(16)
#define RFLAGS_VM    BIT64(17)
#define RFLAGS_AC    BIT64(18)

#define EFER_SCE BIT64(0)
#define EFER_LME BIT64(8)
#define EFER_LMA BIT64(10)
#define EFER_NXE BIT64(11)

/* Exception vectors (SDM 3A 6.3.1). */
enum vector {
	VEC_DE = 0,
	VEC_DB = 1,
	VEC_NMI = 2,
	VEC_BP = 3,
	VEC_OF = 4,
	VEC_BR = 5,
	VEC_UD = 6,
	VEC_NM = 7,
	VEC_DF = 8,
	VEC_TS = 10,
	VEC_NP = 11,
	VEC_SS = 12,
	VEC_GP = 13,
	VEC_PF = 14,
	VEC_MF = 16,
	VEC_AC = 17,
	VEC_MC = 18,
	VEC_XM = 19,
	VEC_VE = 20,
	VEC_CP = 21,
};

/* Page-fault error code (SDM 3A 4.7). */
#define PF_P	BIT(0)
#define PF_W	BIT(1)
#define PF_U	BIT(2)
#define PF_RSVD BIT(3)
#define PF_I	BIT(4)

/* MSRs (SDM volume 4). */
#define MSR_PLATFORM_ID	       0x17
#define MSR_APIC_BASE	       0x1b
#define MSR_FEATURE_CONTROL    0x3a
#define MSR_TSC		       0x10
#define MSR_TSC_ADJUST	       0x3b
#define MSR_SPEC_CTRL	       0x48
#define MSR_PRED_CMD	       0x49
#define MSR_BIOS_SIGN_ID       0x8b
#define MSR_MTRRCAP	       0xfe
#define MSR_ARCH_CAPABILITIES  0x10a
#define MSR_FLUSH_CMD	       0x10b
#define MSR_SYSENTER_CS	       0x174
#define MSR_SYSENTER_ESP       0x175
#define MSR_SYSENTER_EIP       0x176
#define MSR_MCG_CAP	       0x179
#define MSR_MCG_STATUS	       0x17a
#define MSR_MISC_ENABLE	       0x1a0
#define MSR_DEBUGCTL	       0x1d9
#define MSR_MTRR_PHYSBASE0     0x200
#define MSR_MTRR_FIX64K	       0x250
#define MSR_PAT		       0x277
#define MSR_MTRR_DEF_TYPE      0x2ff
#define MSR_PERF_GLOBAL_CTRL   0x38f
#define MSR_VMX_BASIC	       0x480
#define MSR_VMX_PINBASED       0x481
#define MSR_VMX_PROCBASED      0x482
#define MSR_VMX_EXIT	       0x483
#define MSR_VMX_ENTRY	       0x484
#define MSR_VMX_MISC	       0x485
#define MSR_VMX_CR0_FIXED0     0x486
#define MSR_VMX_CR0_FIXED1     0x487
#define MSR_VMX_CR4_FIXED0     0x488
#define MSR_VMX_CR4_FIXED1     0x489
#define MSR_VMX_VMCS_ENUM      0x48a
#define MSR_VMX_PROCBASED2     0x48b
#define MSR_VMX_EPT_VPID_CAP   0x48c
#define MSR_VMX_TRUE_PINBASED  0x48d
#define MSR_VMX_TRUE_PROCBASED 0x48e
#define MSR_VMX_TRUE_EXIT      0x48f
#define MSR_VMX_TRUE_ENTRY     0x490
#define MSR_VMX_VMFUNC	       0x491
#define MSR_VMX_PROCBASED3     0x492
#define MSR_TSC_DEADLINE       0x6e0
#define MSR_X2APIC_FIRST       0x800
#define MSR_X2APIC_LAST	       0x8ff
#define MSR_XSS		       0xda0
#define MSR_EFER	       0xc0000080
#define MSR_STAR	       0xc0000081
#define MSR_LSTAR	       0xc0000082
#define MSR_CSTAR	       0xc0000083
#define MSR_FMASK	       0xc0000084
#define MSR_FS_BASE	       0xc0000100
#define MSR_GS_BASE	       0xc0000101
#define MSR_KERNEL_GS_BASE     0xc0000102
#define MSR_TSC_AUX	       0xc0000103
#define MSR_UMWAIT_CONTROL     0xe1

#define FEATURE_CONTROL_LOCKED	    BIT64(0)
#define FEATURE_CONTROL_VMX_NON_SMX BIT64(2)

#define APIC_BASE_BSP	 BIT64(8)
#define APIC_BASE_X2APIC BIT64(10)
#define APIC_BASE_ENABLE BIT64(11)
