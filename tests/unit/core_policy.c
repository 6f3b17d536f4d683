/* The policies for control registers, MSRs and CPUID. Bits are written out as the SDM prints them.
 */
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "core_fake.h"

/* --- control registers --------------------------------------------------------------------------
 */

static int mov_to_cr(unsigned int cr, u64 value)
{
	fake_vmcs[VMCS_EXIT_QUALIFICATION] = cr | (u64)RBX << 8;
	fake_vmcs[VMCS_GUEST_RIP] = 0x1000;
	vcpu.gpr[RBX] = value;
	injected = -1;
	exit_cr_access(&vcpu);
	assert_int_equal(fake_vmcs[VMCS_GUEST_RIP], injected < 0 ? 0x1003 : 0x1000);
	return injected;
}

static void test_cr0(void **state)
{
	start();
	/* CD and NW are remembered, but never set. */
	assert_int_equal(mov_to_cr(0, 0xe0050033), -1);
	assert_int_equal(fake_vmcs[VMCS_GUEST_CR0], 0x80050033);
	assert_int_equal(fake_vmcs[VMCS_CR0_SHADOW], 0xe0050033);
	assert_int_equal(mov_to_cr(0, 0xa0050033), VEC_GP);  /* NW without CD */
	assert_int_equal(mov_to_cr(0, 0x180050033), VEC_GP); /* bit 32 */
	assert_int_equal(mov_to_cr(0, 0x80050032), VEC_GP);  /* PG without PE */
	assert_int_equal(mov_to_cr(0, 0x40050033), VEC_GP);  /* paging off in 64-bit mode */
	assert_int_equal(fake_vmcs[VMCS_CR0_SHADOW], 0xe0050033);
	/* NE is ours in the register, the guest's in what it reads; a change of WP flushes. */
	flushed = 0;
	assert_int_equal(mov_to_cr(0, 0xc0040013), -1);
	assert_int_equal(fake_vmcs[VMCS_GUEST_CR0], 0x80040033);
	assert_int_equal(fake_vmcs[VMCS_CR0_SHADOW], 0xc0040013);
	assert_int_equal(flushed, 1);
}

static void test_cr4(void **state)
{
	static const u64 hidden[] = {
		BIT64(12), BIT64(13), BIT64(14), BIT64(19), BIT64(22), BIT64(23),
		BIT64(24), BIT64(25), BIT64(31), BIT64(32), BIT64(63),
	};

	start();
	for (unsigned int i = 0; i < ARRAY_SIZE(hidden); i++)
		assert_int_equal(mov_to_cr(4, 0x20 | hidden[i]), VEC_GP);
	assert_int_equal(fake_vmcs[VMCS_CR4_SHADOW], 0x20);
	assert_int_equal(mov_to_cr(4, 0x60), -1);
	assert_int_equal(fake_vmcs[VMCS_CR4_SHADOW], 0x60);
	assert_int_equal(fake_vmcs[VMCS_GUEST_CR4], 0x2060); /* VMXE and MCE are set anyway */
	assert_int_equal(mov_to_cr(4, 0x40), VEC_GP);	     /* PAE off in IA-32e mode */
	/* PCIDE with a PCID in CR3, and without. */
	fake_vmcs[VMCS_GUEST_CR3] = 0x5007;
	assert_int_equal(mov_to_cr(4, 0x20060), VEC_GP);
	fake_vmcs[VMCS_GUEST_CR3] = 0x5000;
	flushed = 0;
	assert_int_equal(mov_to_cr(4, 0x20060), -1);
	assert_int_equal(flushed, 1);
	/* With PAE paging PDPTEs are loaded anew. */
	start();
	fake_vmcs[VMCS_GUEST_EFER] = 0;
	fake_vmcs[VMCS_GUEST_CS_AR] = 0xc09b;
	assert_int_equal(mov_to_cr(4, 0xffffffff000000e0), -1); /* 32 bits count */
	assert_int_equal(pdpte_reads, 1);
}

static int set_xcr0(u64 value)
{
	vcpu.gpr[RCX] = 0;
	vcpu.gpr[RAX] = (u32)value;
	vcpu.gpr[RDX] = value >> 32;
	injected = -1;
	exit_xsetbv(&vcpu);
	return injected;
}

static void test_xsetbv(void **state)
{
	static const u64 good[] = {1, 3, 7, 0xe7};
	static const u64 bad[] = {0, 2, 5, 0x27, 0x67, 0xe3, 0x1f, 0x207, 0x60007, 1ull << 32 | 1};

	start();
	for (unsigned int i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(set_xcr0(good[i]), -1);
		assert_int_equal(fake_xcr0, good[i]);
		assert_int_equal(vcpu.xcr0, good[i]);
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(set_xcr0(bad[i]), VEC_GP);
		assert_int_equal(fake_xcr0, 0xe7);
	}
}

/* --- MSRs ---------------------------------------------------------------------------------------
 */

static int write_msr(u32 msr, u64 value)
{
	vcpu.gpr[RCX] = msr | 0xffffffff00000000; /* the upper half does not count */
	vcpu.gpr[RAX] = (u32)value | 0xffffffff00000000;
	vcpu.gpr[RDX] = value >> 32;
	injected = -1;
	exit_wrmsr(&vcpu);
	return injected;
}

static int read_msr(u32 msr, u64 *value)
{
	vcpu.gpr[RCX] = msr;
	injected = -1;
	exit_rdmsr(&vcpu);
	*value = vcpu.gpr[RDX] << 32 | vcpu.gpr[RAX];
	return injected;
}

static bool passes(u32 msr, bool write)
{
	u32 at = (write ? 2048 : 0) + (msr >= 0xc0000000 ? 1024 : 0) + (msr & 0x1fff) / 8;

	return !(pages[2][at] >> (msr & 7) & 1);
}

static void test_msr_refusals(void **state)
{
	/* FEATURE_CONTROL, SPEC_CTRL, PRED_CMD, SMM, PERF, VMX, MC banks, microcode, unknown. */
	static const u32 none[] = {0x3a,  0x48,	 0x49,	0x79,	0x9b,  0xc1,	   0x10a,
				   0x186, 0x200, 0x38f, 0x400,	0x480, 0x570,	   0x6a2,
				   0x6e1, 0x983, 0xe1,	0x1a98, 0xda0, 0xc0000104, 0xc0010015};
	u64 value;

	start();
	for (unsigned int i = 0; i < ARRAY_SIZE(none); i++) {
		assert_int_equal(read_msr(none[i], &value), VEC_GP);
		assert_int_equal(write_msr(none[i], 0), VEC_GP);
		if (none[i] < 0x2000 || none[i] >= 0xc0000000) {
			assert_false(passes(none[i], false));
			assert_false(passes(none[i], true));
		}
	}
	assert_int_equal(refused_log, 2 * ARRAY_SIZE(none));
	assert_int_equal(vcpu.refusals, 2 * ARRAY_SIZE(none));
	/* Fast strings are as the machine has them, or always if memory is elsewhere. Nothing else
	 * of the register is. */
	fake_wrmsr(MSR_MISC_ENABLE, ~0ull);
	msr_reset(&vcpu);
	assert_int_equal(vcpu.msr_misc_enable, 0x1801);
	fake_wrmsr(MSR_MISC_ENABLE, ~1ull);
	msr_reset(&vcpu);
	assert_int_equal(vcpu.msr_misc_enable, 0x1800);
	config.remote_count = 1;
	msr_reset(&vcpu);
	assert_int_equal(vcpu.msr_misc_enable, 0x1801);
	config.remote_count = 0;
	msr_reset(&vcpu);
	/* Read only. */
	assert_int_equal(write_msr(MSR_MCG_CAP, 0), VEC_GP);
	assert_int_equal(write_msr(MSR_MTRRCAP, 0x400), VEC_GP);
	/* Bits that are refused. */
	assert_int_equal(write_msr(MSR_DEBUGCTL, 4), VEC_GP);
	assert_int_equal(write_msr(MSR_MTRR_DEF_TYPE, 0x802), VEC_GP);
	assert_int_equal(write_msr(MSR_MTRR_DEF_TYPE, 0xc06), VEC_GP);
	assert_int_equal(write_msr(MSR_MISC_ENABLE, vcpu.msr_misc_enable ^ BIT64(18)), VEC_GP);
	assert_int_equal(write_msr(MSR_MCG_STATUS, 1), VEC_GP);
	/* What passes is in the VMCS or switched; the TSC is read with its offset, but not written.
	 */
	assert_true(passes(MSR_EFER, true) && passes(MSR_KERNEL_GS_BASE, true));
	assert_true(passes(MSR_TSC, false) && !passes(MSR_TSC, true));
	assert_false(passes(MSR_TSC_AUX, false) || passes(MSR_APIC_BASE, false));
}

static void test_tsc(void **state)
{
	u64 value;

	start();
	assert_int_equal(vcpu_tsc(&vcpu), 0x1234500000000 + 1000000);
	assert_int_equal(vcpu_tsc_to_host(&vcpu, vcpu_tsc(&vcpu)), fake_tsc);
	assert_int_equal(write_msr(MSR_TSC, 5000), -1);
	assert_int_equal(vcpu_tsc(&vcpu), 5000);
	assert_int_equal(fake_vmcs[VMCS_TSC_OFFSET], 5000 - fake_tsc);
	assert_int_equal(vcpu.requests & REQ_TIMER, REQ_TIMER);
	assert_int_equal(read_msr(MSR_TSC_ADJUST, &value), -1);
	assert_int_equal(value, 5000 - 1000000 - 0x1234500000000);
	assert_int_equal(write_msr(MSR_TSC_ADJUST, value + 77), -1);
	assert_int_equal(vcpu_tsc(&vcpu), 5077);
}

/* --- CPUID --------------------------------------------------------------------------------------
 */

static void ask(u32 leaf, u32 subleaf)
{
	vcpu.gpr[RAX] = leaf;
	vcpu.gpr[RCX] = subleaf;
	exit_cpuid(&vcpu);
}

static void test_cpuid(void **state)
{
	start();
	ask(1, 0);
	assert_int_equal(vcpu.gpr[RBX], 0x01025678); /* APIC ID 1, of two */
	/* Not MONITOR, VMX, SMX, performance or debug; the hypervisor bit; OSXSAVE as CR4 has it.
	 */
	assert_int_equal(vcpu.gpr[RCX] & 0x0f0082fcu, 0x07000200);
	assert_int_equal(vcpu.gpr[RCX] >> 31, 1);
	fake_vmcs[VMCS_GUEST_CR4] |= CR4_OSXSAVE;
	ask(1, 0);
	assert_int_equal(vcpu.gpr[RCX] >> 27 & 1, 1);
	ask(7, 0);
	/* SGX, HLE, RTM, MPX and PT are hidden, TSC_ADJUST is there. */
	assert_int_equal(vcpu.gpr[RBX] & 0x02004816, 2);
	/* PKU, OSPKE, CET, LA57, KL. */
	assert_int_equal(vcpu.gpr[RCX] & 0x00810098, 0);
	/* No feature without its MSR: SPEC_CTRL, STIBP, L1D_FLUSH, ARCH_CAPABILITIES, SSBD. */
	assert_int_equal(vcpu.gpr[RDX] & 0xfc000000, 0);
	ask(7, 1);
	assert_int_equal(vcpu.gpr[RAX] | vcpu.gpr[RBX] | vcpu.gpr[RCX] | vcpu.gpr[RDX], 0);
	ask(0xd, 0);
	assert_int_equal(vcpu.gpr[RAX], 0xe7); /* not PKRU, not AMX */
	ask(0x80000008, 0);
	assert_int_equal(vcpu.gpr[RAX], 0x3034); /* no 5-level paging: 48 bits */
	ask(0xa, 0);
	assert_int_equal(vcpu.gpr[RAX], 0);
	/* Out of range: the highest basic leaf. */
	ask(0x16, 0);
	assert_int_equal(vcpu.gpr[RAX], 2000);
	ask(0x12345, 0);
	assert_int_equal(vcpu.gpr[RAX], 2000);
	ask(0x80000009, 0);
	assert_int_equal(vcpu.gpr[RAX], 2000);
}

static void assert_leaf(u32 leaf, u32 eax, u32 ebx, u32 ecx, u32 edx)
{
	ask(leaf, 0);
	assert_int_equal(vcpu.gpr[RAX], eax);
	assert_int_equal(vcpu.gpr[RBX], ebx);
	assert_int_equal(vcpu.gpr[RCX], ecx);
	assert_int_equal(vcpu.gpr[RDX], edx);
}

static void test_cpuid_hypervisor(void **state)
{
	start();
	/* "KVMKVMKVM", and of its features only that an I/O delay is needless (bit 1). */
	assert_leaf(0x40000000, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d);
	assert_leaf(0x40000001, 2, 0, 0, 0);
	assert_leaf(0x40000010, 0, 0, 0, 0);
	/* "UmbraUmbraHV" */
	assert_leaf(0x40000100, 0x40000110, 0x72626d55, 0x626d5561, 0x56486172);
	assert_leaf(0x40000101, 1, 0, 1, 2); /* VM 0, vCPU 1 of two */
	assert_leaf(0x40000200, 0, 0, 0, 0);
}

/* Crystal and ratio (leaf 0x15): ECX has 32 bits, the TSC may be faster. */
static void test_cpuid_crystal(void **state)
{
	start();
	assert_leaf(0x15, 1, 1, 2000000000, 0);
	tsc_hz = 5000000000ull;
	cpuid_policy_init();
	assert_leaf(0x15, 1, 2, 2500000000u, 0);
	assert_leaf(0x16, 5000, 5000, 0, 0);
	tsc_hz = 2000000000;
}

static void test_cpuid_without_xsave(void **state)
{
	start();
	basic_bits &= ~REQUIRES_XSAVE;
	cpuid_policy_init();
	assert_int_equal(cpuid_xcr0_allowed(), 0);
	assert_int_equal(cpuid_cr4_allowed() & CR4_OSXSAVE, 0);
	ask(1, 0);
	assert_int_equal(vcpu.gpr[RCX] & 0x30001000, 0); /* AVX, F16C, FMA */
	ask(7, 0);
	/* Nothing of AVX-512. */
	assert_int_equal(vcpu.gpr[RBX] & 0xdc230000, 0);
	assert_int_equal(vcpu.gpr[RCX] & 0x5842, 0);
	assert_int_equal(vcpu.gpr[RDX] & 0x10c, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cr0),
		cmocka_unit_test(test_cr4),
		cmocka_unit_test(test_xsetbv),
		cmocka_unit_test(test_msr_refusals),
		cmocka_unit_test(test_tsc),
		cmocka_unit_test(test_cpuid),
		cmocka_unit_test(test_cpuid_hypervisor),
		cmocka_unit_test(test_cpuid_crystal),
		cmocka_unit_test(test_cpuid_without_xsave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
