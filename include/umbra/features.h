/*
 * Optional CPU features: used where the CPU has them, hidden by `hide = NAME[,NAME]` in the
 * configuration. The loader and the hypervisor share this list; hv/vmx/caps.c holds the table that
 * says which capability bit each one stands for. Everything not listed here is either required
 * (the floor, docs/portability.md) or not used.
 */
#pragma once

enum feature {
	FEAT_EPT_1G,	  /* ept_1g: 1 GiB EPT leaves */
	FEAT_EPT_XO,	  /* ept_xo: execute-only EPT translations */
	FEAT_EPT_AD,	  /* ept_ad: accessed and dirty flags in EPT entries */
	FEAT_PML,	  /* pml: page-modification logging (needs ept_ad) */
	FEAT_VMFUNC,	  /* vmfunc: EPTP switching */
	FEAT_VE,	  /* ve: EPT-violation #VE */
	FEAT_MBEC,	  /* mbec: mode-based execute control for EPT */
	FEAT_EPT_INFO,	  /* ept_info: advanced VM-exit information for EPT violations */
	FEAT_APIC_ACCESS, /* apic_access: virtualize APIC accesses */
	FEAT_APIC_REG,	  /* apic_reg: APIC-register virtualization */
	FEAT_X2APIC_VIRT, /* x2apic_virt: virtualize x2APIC mode */
	FEAT_VID,	  /* vid: virtual-interrupt delivery */
	FEAT_POSTED,	  /* posted: process posted interrupts (needs vid) */
	FEAT_TSC_SCALING, /* tsc_scaling: use TSC scaling */
	FEAT_XSAVES,	  /* xsaves: XSAVES/XRSTORS for the guest */
	FEAT_RDTSCP,	  /* rdtscp: RDTSCP/RDPID for the guest */
	FEAT_INVPCID,	  /* invpcid: INVPCID for the guest */
	FEAT_WAITPKG,	  /* waitpkg: UMONITOR/UMWAIT/TPAUSE for the guest */
	FEAT_VMCS_SHADOW, /* vmcs_shadow: VMCS shadowing */
	FEAT_MTF,	  /* mtf: monitor trap flag, after a self-test */
	FEAT_COUNT
};

/* Name of a feature as the configuration spells it; NULL for a value out of range. */
const char *feature_name(unsigned int feature);

/* The feature called `name` (len bytes, not terminated), or -1. */
int feature_find(const char *name, unsigned int len);
