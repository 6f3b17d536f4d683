/* Names of the optional CPU features, as the configuration's `hide` spells them. */
#include <umbra/features.h>

#include "lib/types.h"

static const char *const names[] = {
	[FEAT_EPT_1G] = "ept_1g",
	[FEAT_EPT_XO] = "ept_xo",
	[FEAT_EPT_AD] = "ept_ad",
	[FEAT_PML] = "pml",
	[FEAT_VMFUNC] = "vmfunc",
	[FEAT_VE] = "ve",
	[FEAT_MBEC] = "mbec",
	[FEAT_EPT_INFO] = "ept_info",
	[FEAT_APIC_ACCESS] = "apic_access",
	[FEAT_APIC_REG] = "apic_reg",
	[FEAT_X2APIC_VIRT] = "x2apic_virt",
	[FEAT_VID] = "vid",
	[FEAT_POSTED] = "posted",
	[FEAT_TSC_SCALING] = "tsc_scaling",
	[FEAT_XSAVES] = "xsaves",
	[FEAT_RDTSCP] = "rdtscp",
	[FEAT_INVPCID] = "invpcid",
	[FEAT_WAITPKG] = "waitpkg",
	[FEAT_VMCS_SHADOW] = "vmcs_shadow",
	[FEAT_MTF] = "mtf",
};

_Static_assert(ARRAY_SIZE(names) == FEAT_COUNT, "every feature has a name");

const char *feature_name(unsigned int feature)
{
	return feature < FEAT_COUNT ? names[feature] : NULL;
}

int feature_find(const char *name, unsigned int len)
{
	unsigned int i, n;

	for (i = 0; i < FEAT_COUNT; i++) {
		for (n = 0; n < len && names[i][n] == name[n] && name[n]; n++)
			;
		if (n == len && !names[i][n])
			return (int)i;
	}
	return -1;
}
