/* Hypercalls: a table, each entry with its argument checks beside it. ABI: umbra/hypercall.h. */
#include <umbra/hypercall.h>

#include "vm/internal.h"
#include "x86/regs.h"

/* Arguments in the order of the ABI: RBX, RCX, RDX. No call takes a fourth yet. */
typedef s64 (*hypercall_fn)(struct vcpu *vcpu, u64 a, u64 b, u64 c);

static s64 hc_version(struct vcpu *vcpu, u64 a, u64 b, u64 c)
{
	return UMBRA_HYPERCALL_VERSION;
}

static s64 hc_nop(struct vcpu *vcpu, u64 a, u64 b, u64 c)
{
	return 0;
}

static s64 hc_yield(struct vcpu *vcpu, u64 a, u64 b, u64 c)
{
	sched_give_way(vcpu);
	return 0;
}

#define ERROR_CODE_VECTORS                                                                   \
	(BIT(VEC_DF) | BIT(VEC_TS) | BIT(VEC_NP) | BIT(VEC_SS) | BIT(VEC_GP) | BIT(VEC_PF) | \
	 BIT(VEC_AC))

/* What VM entry would refuse (SDM 27.2.1.3) is refused here. */
static s64 hc_inject(struct vcpu *vcpu, u64 a, u64 b, u64 c)
{
	u64 info = a, error = b, length = c;
	u32 vector = info & INTR_INFO_VECTOR;
	u32 type = (u32)info & INTR_INFO_TYPE;
	bool has_error = info & INTR_INFO_ERROR_CODE;
	bool wants_error = vector < 32 && (ERROR_CODE_VECTORS >> vector & 1);
	bool software = type == INTR_TYPE_SW_INTERRUPT || type == INTR_TYPE_PRIV_SW_EXCEPTION ||
			type == INTR_TYPE_SW_EXCEPTION;

	if (info & ~(u64)(INTR_INFO_VECTOR | INTR_INFO_TYPE | INTR_INFO_ERROR_CODE))
		return HC_EINVAL;
	if (type == (1u << 8) || type == INTR_TYPE_OTHER)
		return HC_EINVAL;
	if (type == INTR_TYPE_NMI && vector != VEC_NMI)
		return HC_EINVAL;
	if (type == INTR_TYPE_HW_EXCEPTION && (vector > 31 || vector == VEC_NMI))
		return HC_EINVAL;
	/* Whether #CP has an error code depends on the processor; no guest has CET. */
	if (type == INTR_TYPE_HW_EXCEPTION && vector == VEC_CP)
		return HC_EINVAL;
	if (has_error != (type == INTR_TYPE_HW_EXCEPTION && wants_error))
		return HC_EINVAL;
	if (has_error && error > 0x7fff)
		return HC_EINVAL;
	/* Length 0 is a later addition that nested hypervisors refuse. */
	if (software && (length < 1 || length > 15))
		return HC_EINVAL;
	/* An external interrupt needs IF and no shadow (SDM 27.3.1.4); VMCALL has ended the shadow.
	 */
	if (type == INTR_TYPE_EXTERNAL && !(vmcs_read(VMCS_GUEST_RFLAGS) & RFLAGS_IF))
		return HC_EINVAL;
	if (type == INTR_TYPE_NMI) {
		vcpu_post_nmi(vcpu);
		return 0;
	}
	event_queue(vcpu, (u32)info, (u32)error, software ? (u32)length : 0);
	return 0;
}

static s64 hc_stat(struct vcpu *vcpu, u64 a, u64 b, u64 c)
{
	u64 total = 0;

	if (a >= HC_STAT_EXIT && a < HC_STAT_EXIT + EXIT_COUNT)
		return (s64)vcpu->exits[a - HC_STAT_EXIT];
	switch (a) {
	case HC_STAT_EXITS:
		for (u32 i = 0; i < EXIT_COUNT; i++)
			total += vcpu->exits[i];
		return (s64)total;
	case HC_STAT_INJECTIONS:
		return (s64)vcpu->injections;
	case HC_STAT_EPT_FAULTS:
		return (s64)vcpu->ept_faults;
	case HC_STAT_INVALIDATIONS:
		return (s64)__atomic_load_n(&vcpu->view->generation, __ATOMIC_RELAXED);
	case HC_STAT_REFUSALS:
		return (s64)vcpu->refusals;
	}
	return HC_EINVAL;
}

/* A hypercall runs to its end in root mode: bounded, so that nobody else on the CPU waits long. */
#define RANGE_MAX (64 * MIB)

static s64 hc_protect(struct vcpu *vcpu, u64 a, u64 b, u64 c)
{
	u64 perms = c;

	if ((perms & ~7ull) || b > RANGE_MAX)
		return HC_EINVAL;
	return space_protect(vcpu->vm, gpa(a), b, perms) ? HC_EINVAL : 0;
}

static s64 hc_page_size(struct vcpu *vcpu, u64 a, u64 b, u64 c)
{
	const struct region *region = space_find(&vcpu->vm->space, gpa(a));
	struct ept_leaf leaf;

	if (!region || !region_is_memory(region))
		return HC_EINVAL;
	if (ept_lookup(vcpu->view, gpa(a), &leaf))
		return 0;
	return leaf.shift;
}

static s64 hc_discard(struct vcpu *vcpu, u64 a, u64 b, u64 c)
{
	if (b > RANGE_MAX)
		return HC_EINVAL;
	return space_discard(vcpu->vm, gpa(a), b) ? HC_EINVAL : 0;
}

static s64 hc_features(struct vcpu *vcpu, u64 a, u64 b, u64 c)
{
	return (s64)vmx_features;
}

static s64 hc_pmem(struct vcpu *vcpu, u64 a, u64 b, u64 c)
{
	return pmem_hypercall(vcpu, a, b, c);
}

static const hypercall_fn hypercalls[HC_COUNT] = {
	[HC_VERSION] = hc_version,     [HC_NOP] = hc_nop,	  [HC_YIELD] = hc_yield,
	[HC_INJECT] = hc_inject,       [HC_STAT] = hc_stat,	  [HC_PROTECT] = hc_protect,
	[HC_PAGE_SIZE] = hc_page_size, [HC_DISCARD] = hc_discard, [HC_FEATURES] = hc_features,
	[HC_PMEM] = hc_pmem,
};

u32 hypercall_by_port(struct vcpu *vcpu)
{
	u32 number = (u32)vcpu->gpr[RAX];

	if (number != HC_STAT && number != HC_PMEM)
		return ~0u;
	return (u32)hypercalls[number](vcpu, vcpu->gpr[RBX], vcpu->gpr[RCX], vcpu->gpr[RSI]);
}

/* CS access rights: 64-bit code (L), DPL 0 and not conforming, which makes CPL 0 certain. */
#define CS_AR_MASK  (BIT(13) | BIT(6) | BIT(5) | BIT(2))
#define CS_AR_CPL0L BIT(13)

static __noinline void vmcall_rare(struct vcpu *vcpu, u64 cs_ar)
{
	u64 width = cs_ar & BIT(13) ? ~0ull : 0xffffffff;
	u64 number = vcpu->gpr[RAX] & width;
	s64 result = HC_ENOSYS;

	if (!vcpu_cpl0(vcpu)) {
		vcpu_inject(vcpu, VEC_UD);
		return;
	}
	vcpu_skip(vcpu);
	if (number < HC_COUNT)
		result = hypercalls[number](vcpu, vcpu->gpr[RBX] & width, vcpu->gpr[RCX] & width,
					    vcpu->gpr[RDX] & width);
	vcpu->gpr[RAX] = (u64)result & width;
}

void exit_vmcall(struct vcpu *vcpu)
{
	u64 cs_ar = vmcs_read(VMCS_GUEST_CS_AR);
	u64 number = vcpu->gpr[RAX];

	if (unlikely((cs_ar & CS_AR_MASK) != CS_AR_CPL0L || number >= HC_COUNT)) {
		vmcall_rare(vcpu, cs_ar);
		return;
	}
	vcpu_skip(vcpu);
	vcpu->gpr[RAX] =
		(u64)hypercalls[number](vcpu, vcpu->gpr[RBX], vcpu->gpr[RCX], vcpu->gpr[RDX]);
}
