/*
 * The CPUID policy: what guests are told. A table of leaves computed once from the processor's own
 * answers and the masks below; every bit that is not listed is hidden. Bits that depend on the vCPU
 * or its registers are filled in at the exit. SDM 2A CPUID; hypervisor leaves: umbra/hypercall.h.
 */
#include <umbra/hypercall.h>

#include "vm/apf.h"
#include "vm/internal.h"
#include "x86/asm.h"
#include "x86/fpu.h"
#include "x86/regs.h"
#include "x86/tsc.h"

#define MAX_BASIC    0x16u
#define MAX_EXTENDED 0x80000008u

/* Leaf 1. */
#define L1C_SSE3     BIT(0)
#define L1C_PCLMUL   BIT(1)
#define L1C_SSSE3    BIT(9)
#define L1C_FMA	     BIT(12)
#define L1C_CX16     BIT(13)
#define L1C_PCID     BIT(17)
#define L1C_SSE41    BIT(19)
#define L1C_SSE42    BIT(20)
#define L1C_X2APIC   BIT(21)
#define L1C_MOVBE    BIT(22)
#define L1C_POPCNT   BIT(23)
#define L1C_DEADLINE BIT(24)
#define L1C_AES	     BIT(25)
#define L1C_XSAVE    BIT(26)
#define L1C_OSXSAVE  BIT(27)
#define L1C_AVX	     BIT(28)
#define L1C_F16C     BIT(29)
#define L1C_RDRAND   BIT(30)
#define L1C_HV	     BIT(31)
#define L1C_PASS                                                                         \
	(L1C_SSE3 | L1C_PCLMUL | L1C_SSSE3 | L1C_FMA | L1C_CX16 | L1C_PCID | L1C_SSE41 | \
	 L1C_SSE42 | L1C_MOVBE | L1C_POPCNT | L1C_AES | L1C_XSAVE | L1C_AVX | L1C_F16C | \
	 L1C_RDRAND)
#define L1D_MCE	 BIT(7)
#define L1D_APIC BIT(9)
#define L1D_MTRR BIT(12)
#define L1D_MCA	 BIT(14)
#define L1D_HTT	 BIT(28)
/* FPU VME DE PSE TSC MSR PAE CX8 SEP PGE CMOV PAT PSE36 CLFSH MMX FXSR SSE SSE2 SS */
#define L1D_PASS 0x0f8ba97fu

/* Leaf 7: FSGSBASE BMI1 AVX2 FDP_EXCPTN SMEP BMI2 ERMS FCS/FDS RDSEED ADX SMAP CLFLUSHOPT CLWB SHA
 */
#define L7B_TSC_ADJUST BIT(1)
#define L7B_INVPCID    BIT(10)
#define L7B_AVX512     0xdc230000u
#define L7B_PASS       0x219c23e9u
#define L7C_UMIP       BIT(2)
#define L7C_WAITPKG    BIT(5)
#define L7C_RDPID      BIT(22)
/* AVX512_VBMI UMIP VBMI2 GFNI VAES VPCLMULQDQ VNNI BITALG VPOPCNTDQ CLDEMOTE */
#define L7C_PASS   0x02005f46u
#define L7C_AVX512 0x00005842u /* VBMI VBMI2 VNNI BITALG VPOPCNTDQ */
#define L7D_AVX512 0x0000010cu /* 4VNNIW 4FMAPS VP2INTERSECT */
#define L7D_PASS   0x0000011cu /* AVX512_4VNNIW 4FMAPS FSRM VP2INTERSECT */

/* Leaf 0x80000001: LAHF LZCNT PREFETCHW; SYSCALL NX 1-GByte pages LM. */
#define E1C_PASS   0x121u
#define E1D_RDTSCP BIT(27)
#define E1D_PASS   0x24100800u

#define XCR0_PASS 0xe7ull /* x87 SSE AVX AVX-512 */

static struct cpuid_regs basic[MAX_BASIC + 1];
static struct cpuid_regs leaf7;
static struct cpuid_regs extended[9];
static u64 xcr0_allowed, cr4_allowed;
static u32 xsave_insns;

static void compute_cr4(void)
{
	const struct {
		u64 bit;
		bool offered;
	} table[] = {
		{CR4_VME | CR4_PVI, basic[1].edx & BIT(1)},
		{CR4_TSD | CR4_PCE, true},
		{CR4_DE, basic[1].edx & BIT(2)},
		{CR4_PSE, basic[1].edx & BIT(3)},
		{CR4_PAE, basic[1].edx & BIT(6)},
		{CR4_MCE, true},
		{CR4_PGE, basic[1].edx & BIT(13)},
		{CR4_OSFXSR, basic[1].edx & BIT(24)},
		{CR4_OSXMMEXCPT, basic[1].edx & BIT(25)},
		{CR4_UMIP, leaf7.ecx & L7C_UMIP},
		{CR4_FSGSBASE, leaf7.ebx & BIT(0)},
		{CR4_PCIDE, basic[1].ecx & L1C_PCID},
		{CR4_OSXSAVE, basic[1].ecx & L1C_XSAVE},
		{CR4_SMEP, leaf7.ebx & BIT(7)},
		{CR4_SMAP, leaf7.ebx & BIT(20)},
	};

	cr4_allowed = 0;
	for (u32 i = 0; i < ARRAY_SIZE(table); i++)
		if (table[i].offered)
			cr4_allowed |= table[i].bit;
}

static void compute_leaf1(void)
{
	struct cpuid_regs *r = &basic[1];

	*r = cpuid(1, 0);
	r->ebx &= 0x0000ffff;
	/* The TSC deadline is our own timer; every vCPU has it. */
	r->ecx = (r->ecx & L1C_PASS) | L1C_DEADLINE | L1C_HV;
	r->edx = (r->edx & (L1D_PASS)) | L1D_MCE | L1D_MCA | L1D_MTRR;
	if (!(r->ecx & L1C_XSAVE))
		r->ecx &= ~(L1C_AVX | L1C_F16C | L1C_FMA);
}

static void compute_leaf7(void)
{
	u32 ebx_pass = L7B_PASS;
	u32 ecx_pass = L7C_PASS;
	u32 edx_pass = L7D_PASS;

	if ((xcr0_allowed & 0xe0) == 0xe0) {
		ebx_pass |= L7B_AVX512;
	} else {
		ecx_pass &= ~L7C_AVX512;
		edx_pass &= ~L7D_AVX512;
	}
	if (vmx_has(FEAT_INVPCID))
		ebx_pass |= L7B_INVPCID;
	if (vmx_has(FEAT_RDTSCP))
		ecx_pass |= L7C_RDPID;
	if (vmx_has(FEAT_WAITPKG))
		ecx_pass |= L7C_WAITPKG;
	leaf7 = cpuid(7, 0);
	leaf7.eax = 0;
	leaf7.ebx = (leaf7.ebx & ebx_pass) | L7B_TSC_ADJUST;
	leaf7.ecx &= ecx_pass;
	leaf7.edx &= edx_pass;
}

static void compute_extended(void)
{
	u32 max = MIN(cpuid(0x80000000, 0).eax, MAX_EXTENDED);

	extended[0].eax = max;
	for (u32 leaf = 0x80000001; leaf <= max; leaf++)
		extended[leaf & 0xf] = cpuid(leaf, 0);
	extended[1].eax = extended[1].ebx = 0;
	extended[1].ecx &= E1C_PASS;
	extended[1].edx &= E1D_PASS | (vmx_has(FEAT_RDTSCP) ? E1D_RDTSCP : 0);
	extended[5] = (struct cpuid_regs){0};
	extended[7] = (struct cpuid_regs){.edx = extended[7].edx & BIT(8)}; /* invariant TSC */
	extended[8] = (struct cpuid_regs){.eax = extended[8].eax & 0xffff};
	/* 57 linear-address bits where there is 5-level paging, which guests do not get. */
	if (extended[8].eax >> 8 > 48)
		extended[8].eax = (extended[8].eax & 0xff) | 48 << 8;
}

void cpuid_policy_init(void)
{
	u32 max = cpuid(0, 0).eax;

	basic[0] = cpuid(0, 0);
	basic[0].eax = MAX_BASIC;
	compute_leaf1();
	for (u32 leaf = 2; leaf <= 3; leaf++)
		basic[leaf] = cpuid(leaf, 0);
	xcr0_allowed = 0;
	if (max >= 0xd && (basic[1].ecx & L1C_XSAVE)) {
		struct cpuid_regs d = cpuid(0xd, 0);

		xcr0_allowed = (((u64)d.edx << 32) | d.eax) & XCR0_PASS;
		if ((xcr0_allowed & 0xe0) != 0xe0)
			xcr0_allowed &= ~0xe0ull;
		/* XSAVEOPT XSAVEC XGETBV(1) XSAVES */
		xsave_insns = xsave_instructions() & (vmx_has(FEAT_XSAVES) ? 0xf : 0x7);
	}
	if (max >= 7)
		compute_leaf7();
	basic[6].eax = BIT(2); /* ARAT: the APIC timer never stops */
	basic[0x15] = (struct cpuid_regs){.eax = 1,
					  .ebx = BIT(tsc_crystal_shift()),
					  .ecx = (u32)(tsc_hz >> tsc_crystal_shift())};
	basic[0x16] = (struct cpuid_regs){
		.eax = (u32)(tsc_hz / 1000000), .ebx = (u32)(tsc_hz / 1000000), .ecx = 0};
	compute_extended();
	compute_cr4();
}

u64 cpuid_cr4_allowed(void)
{
	return cr4_allowed;
}

u64 cpuid_xcr0_allowed(void)
{
	return xcr0_allowed;
}

/* Bits of the vCPU index in an APIC ID: cores are consecutive, one thread each. */
static u32 core_bits(const struct vcpu *vcpu)
{
	u32 n = vcpu->vm->vcpu_count, bits = 0;

	while (BIT(bits) < n)
		bits++;
	return bits;
}

static __noinline struct cpuid_regs leaf_1(struct vcpu *vcpu)
{
	struct cpuid_regs r = basic[1];
	u32 n = vcpu->vm->vcpu_count;

	r.ebx |= n << 16 | vcpu->index << 24;
	if (n > 1)
		r.edx |= L1D_HTT;
	if (vcpu->vm->config->x2apic)
		r.ecx |= L1C_X2APIC;
	if (platform_apic_mode(vcpu) != APIC_MODE_OFF)
		r.edx |= L1D_APIC;
	if (vmcs_read(VMCS_GUEST_CR4) & CR4_OSXSAVE)
		r.ecx |= L1C_OSXSAVE;
	return r;
}

/* Deterministic cache parameters: levels 1 and 2 private, level 3 shared by all vCPUs. */
static __noinline struct cpuid_regs leaf_4(struct vcpu *vcpu, u32 subleaf)
{
	struct cpuid_regs r = cpuid(4, subleaf);
	u32 cores = (BIT(core_bits(vcpu)) - 1) & 0x3f;
	u32 level = r.eax >> 5 & 7;

	if (!(r.eax & 0x1f))
		return (struct cpuid_regs){0};
	r.eax = (r.eax & 0x3fff) | cores << 26 | (level >= 3 ? cores << 14 : 0);
	return r;
}

static __noinline struct cpuid_regs leaf_b(struct vcpu *vcpu, u32 subleaf)
{
	struct cpuid_regs r = {.ecx = subleaf & 0xff, .edx = vcpu->index};

	if (subleaf == 0) { /* SMT level: one thread */
		r.ebx = 1;
		r.ecx |= 1 << 8;
	} else if (subleaf == 1) { /* core level */
		r.eax = core_bits(vcpu);
		r.ebx = vcpu->vm->vcpu_count;
		r.ecx |= 2 << 8;
	}
	return r;
}

/* Bytes of an XSAVE area in compacted form (SDM 1 13.4.3). */
static u32 compacted_size(u64 states)
{
	u32 size = 576;

	for (u32 i = 2; i < 63; i++) {
		struct cpuid_regs c;

		if (!(states >> i & 1))
			continue;
		c = cpuid(0xd, i);
		if (c.ecx & BIT(1)) /* aligned */
			size = ALIGN_UP(size, 64u);
		size += c.eax;
	}
	return size;
}

/* The guest's XCR0 is in force while the hypervisor runs, so sizes come out right by themselves. */
static __noinline struct cpuid_regs leaf_d(u32 subleaf)
{
	struct cpuid_regs r;

	if (!xcr0_allowed || (subleaf > 1 && (subleaf > 62 || !(xcr0_allowed >> subleaf & 1))))
		return (struct cpuid_regs){0};
	r = cpuid(0xd, subleaf);
	if (subleaf == 0) {
		u32 size = 576;

		for (u32 i = 2; i < 32; i++) {
			struct cpuid_regs c;

			if (!(xcr0_allowed >> i & 1))
				continue;
			c = cpuid(0xd, i);
			size = MAX(size, c.eax + c.ebx);
		}
		r.eax = (u32)xcr0_allowed;
		r.ecx = size;
		r.edx = 0;
	} else if (subleaf == 1) {
		r.eax = xsave_insns;
		/* Not the processor's own answer: Bochs 2.7 gives the size of the standard format.
		 */
		r.ebx = xsave_insns & (BIT(1) | BIT(3)) ? compacted_size(xgetbv(0)) : 0;
		r.ecx = r.edx = 0;
	}
	return r;
}

static u32 kvm_features(const struct vm *vm)
{
	u32 async = apf_offered(vm) ? KVM_FEATURE_ASYNC_PF | KVM_FEATURE_ASYNC_PF_INT : 0;

	return KVM_FEATURE_NO_DELAYS | async;
}

static __noinline struct cpuid_regs leaf_hypervisor(struct vcpu *vcpu, u32 leaf)
{
	switch (leaf) {
	case KVM_CPUID_BASE:
		return (struct cpuid_regs){KVM_CPUID_FEATURES, KVM_CPUID_EBX, KVM_CPUID_ECX,
					   KVM_CPUID_EDX};
	case KVM_CPUID_FEATURES:
		return (struct cpuid_regs){.eax = kvm_features(vcpu->vm)};
	case UMBRA_CPUID_BASE:
		return (struct cpuid_regs){UMBRA_CPUID_TIMING, UMBRA_CPUID_EBX, UMBRA_CPUID_ECX,
					   UMBRA_CPUID_EDX};
	case UMBRA_CPUID_INFO:
		return (struct cpuid_regs){UMBRA_HYPERCALL_VERSION, vcpu->vm->id, vcpu->index,
					   vcpu->vm->vcpu_count};
	case UMBRA_CPUID_TIMING:
		return (struct cpuid_regs){(u32)(tsc_hz / 1000), (u32)(tsc_hz / 1000), 0, 0};
	}
	return (struct cpuid_regs){0};
}

/* Leaves that depend on the vCPU, the subleaf or a register. */
static __noinline void answer_computed(struct vcpu *vcpu, u32 leaf, u32 subleaf,
				       struct cpuid_regs *out)
{
	switch (leaf) {
	case 1:
		*out = leaf_1(vcpu);
		break;
	case 4:
		*out = leaf_4(vcpu, subleaf);
		break;
	case 7:
		*out = subleaf ? (struct cpuid_regs){0} : leaf7;
		break;
	case 0xb:
		*out = leaf_b(vcpu, subleaf);
		break;
	case 0xd:
		*out = leaf_d(subleaf);
		break;
	default:
		*out = leaf_hypervisor(vcpu, leaf);
		break;
	}
}

static void set_registers(struct vcpu *vcpu, const struct cpuid_regs *r)
{
	vcpu->gpr[RAX] = r->eax;
	vcpu->gpr[RBX] = r->ebx;
	vcpu->gpr[RCX] = r->ecx;
	vcpu->gpr[RDX] = r->edx;
	vcpu_skip(vcpu);
}

static __noinline void computed(struct vcpu *vcpu, u32 leaf)
{
	struct cpuid_regs r;

	answer_computed(vcpu, leaf, (u32)vcpu->gpr[RCX], &r);
	set_registers(vcpu, &r);
}

#define COMPUTED (BIT(1) | BIT(4) | BIT(7) | BIT(0xb) | BIT(0xd))

void exit_cpuid(struct vcpu *vcpu)
{
	u32 leaf = (u32)vcpu->gpr[RAX];

	if (leaf >= 0x80000000 && leaf <= extended[0].eax) {
		set_registers(vcpu, &extended[leaf & 0xf]);
		return;
	}
	if (leaf >= KVM_CPUID_BASE && leaf < KVM_CPUID_BASE + 0x10000) {
		computed(vcpu, leaf);
		return;
	}
	if (leaf > MAX_BASIC) {
		/* As Intel's processors do: out of range means the highest basic leaf. */
		vcpu->refusals++;
		leaf = MAX_BASIC;
	}
	if (COMPUTED >> leaf & 1)
		computed(vcpu, leaf);
	else
		set_registers(vcpu, &basic[leaf]);
}
