/*
 * The core on a processor made of arrays: what a VMCS is set up with, how instructions are skipped,
 * the control-register, MSR and CPUID policies, what is switched between vCPUs, and the requests of
 * the run loop. Bits are written out as the SDM prints them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/log.h"
#include "mem/frame.h"
#include "vm/internal.h"
#include "vmx/entry_check.h"
#include "x86/fpu.h"
#include "x86/regs.h"
#include "x86/tsc.h"

#define REQUIRES_XSAVE 0x4000000u

u64 fake_vmcs[0x8000];
u64 fake_dr[8], fake_cr2, fake_xcr0, fake_tsc;
u64 tsc_hz = 2000000000, tsc_start;
struct cpu cpus[MAX_CPUS];
struct ept_view *ept_running[EPT_MAX_CPUS];
struct vmx_caps vmx_caps;
struct vmx_controls vmx_controls;
u64 vmx_features;
u8 vmx_timer_shift;
const char vmx_exit[1];
const exit_handler_fn exit_handlers[EXIT_COUNT];

static struct boot_vm config = {.name = "test", .x2apic = 1};
static struct boot_info boot;
const struct boot_info *vm_boot = &boot;
static struct vm vm;
static struct vcpu vcpu, other;
static u8 pages[4][4096] __aligned(4096);

/* What happened. */
static int injected; /* vector, -1: none */
static u32 injected_error;
static unsigned int flushed, delivered, ended, refused_log, pdpte_reads;
static u64 host_msr[0x100], high_msr[0x200];
static u64 saved_with, restored_with;
static const void *saved_to, *restored_from;
static bool would_wake;
static u32 basic_bits; /* set in CPUID leaf 1 ECX */

/* --- what the files under test need ----------------------------------------------------------- */

static u64 *msr_slot(u32 msr)
{
	return msr >= 0xc0000000 ? &high_msr[msr & 0x1ff] : &host_msr[msr & 0xff];
}

u64 fake_rdmsr(u32 msr)
{
	return *msr_slot(msr);
}

void fake_wrmsr(u32 msr, u64 value)
{
	*msr_slot(msr) = value;
}

/* Everything there is, but for what a test takes away. */
struct cpuid_regs fake_cpuid(u32 leaf, u32 subleaf)
{
	switch (leaf) {
	case 0:
		return (struct cpuid_regs){0x20, 0x756e6547, 0x6c65746e, 0x49656e69};
	case 1:
		return (struct cpuid_regs){0x806f8, 0x12345678, basic_bits, 0xffffffff};
	case 0xd:
		if (subleaf == 0)
			return (struct cpuid_regs){0x602e7, 0x240, 0x2b00, 0};
		return (struct cpuid_regs){0x1f, 0x240, 0, 0};
	case 0x80000000:
		return (struct cpuid_regs){0x80000008, 0, 0, 0};
	case 0x80000008:
		return (struct cpuid_regs){0x3934, 0xffffffff, 0, 0}; /* 52 and 57 bits */
	default:
		return (struct cpuid_regs){0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff};
	}
}

void vcpu_inject(struct vcpu *v, u8 vector)
{
	injected = vector;
}

void vcpu_inject_error(struct vcpu *v, u8 vector, u32 error_code)
{
	injected = vector;
	injected_error = error_code;
}

void event_deliver(struct vcpu *v)
{
	delivered++;
}

bool event_would_wake(struct vcpu *v)
{
	return would_wake;
}

void vm_end(struct vm *v, u32 status, const char *fmt, ...)
{
	ended++;
}

void vm_log_refusal(struct vcpu *v, const char *what, u64 key)
{
	refused_log++;
}

void vmx_invvpid_single(u16 vpid)
{
	assert_int_equal(vpid, fake_vmcs[VMCS_VPID]);
	flushed++;
}

int vmx_alloc_vmcs(hpa_t *out)
{
	return ERR_NOMEM;
}

u32 xsave_instructions(void)
{
	return 0xf;
}

u64 xsave_features(void)
{
	return 0xe7;
}

u32 xsave_area_bytes(void)
{
	return 4096;
}

void xsave_init_area(void *area)
{
}

void xsave_save(void *area, u64 mask)
{
	saved_to = area;
	saved_with = fake_xcr0 & mask;
}

void xsave_restore(const void *area, u64 mask)
{
	restored_from = area;
	restored_with = fake_xcr0 & mask;
}

int guest_read(struct vm *v, gpa_t from, void *to, size_t len)
{
	pdpte_reads++;
	memset(to, 0, len);
	return 0;
}

struct vcpu *sched_current(void)
{
	return &vcpu;
}

void sched_kick(struct vcpu *v)
{
}

void sched_notify(struct vcpu *v)
{
}

bool control_serve(struct vcpu *v, u32 requests)
{
	return true;
}

void sched_deadline(struct vcpu *v, u64 now)
{
	v->deadline = now + 1000;
}

int sched_tick(struct vcpu *v, u64 now)
{
	return RUN_LEAVE;
}

enum apic_mode platform_apic_mode(struct vcpu *v)
{
	return APIC_MODE_XAPIC;
}

bool platform_apic_takes_fixed(struct vcpu *v)
{
	return true;
}

void platform_vcpu_init(struct vcpu *v)
{
}

void platform_timers(struct vcpu *v, u64 now)
{
}

void platform_eoi_bitmap(struct vcpu *v, u64 out[4])
{
	for (unsigned int i = 0; i < 4; i++)
		out[i] = 0x1111 * (i + 1);
}

bool platform_msr_read(struct vcpu *v, u32 msr, u64 *value)
{
	*value = 0xabc;
	return true;
}

bool platform_msr_write(struct vcpu *v, u32 msr, u64 value)
{
	return true;
}

void space_unmap_apic(struct vm *v)
{
}

void ept_catch_up(struct ept_view *view, u32 cpu, u64 generation)
{
	view->seen[cpu] = generation;
}

/* Must not happen. */
#define NEVER(declaration)                                \
	declaration                                       \
	{                                                 \
		print_error("%s was called\n", __func__); \
		abort();                                  \
	}
NEVER(void *heap_alloc(u64 bytes))
NEVER(void heap_free(void *p, u64 bytes))
NEVER(int frame_alloc_page(frame_owner_t owner, hpa_t *out))
NEVER(void frame_free(frame_owner_t owner, hpa_t frame, u64 bytes))
NEVER(int mmio_vcpu_create(struct vcpu *v))
NEVER(void mmio_vcpu_destroy(struct vcpu *v))
NEVER(int watch_create(struct vcpu *v))
NEVER(void watch_destroy(struct vcpu *v))
NEVER(void watch_exit(struct vcpu *v, u32 reason))
NEVER(void watch_follow(struct vcpu *v))
NEVER(void watch_done(struct vcpu *v))
NEVER(void trace_report(const struct vcpu *v))
NEVER(const char *vmcs_field_name(u32 field))
NEVER(const char *exit_reason_name(u32 reason))
NEVER(const char *instruction_error_name(u32 error))
NEVER(unsigned int entry_check(const struct entry_source *s, const struct vmx_caps *caps,
			       entry_report_fn report, void *ctx))

/* --- a vCPU in 64-bit mode ----------------------------------------------------------------------
 */

#define CS64 0xa09bull

static void start(void)
{
	memset(fake_vmcs, 0, sizeof(fake_vmcs));
	memset(fake_dr, 0, sizeof(fake_dr));
	memset(host_msr, 0, sizeof(host_msr));
	memset(high_msr, 0, sizeof(high_msr));
	memset(&vcpu, 0, sizeof(vcpu));
	memset(&vm, 0, sizeof(vm));
	host_direct_map = 0;
	vm.config = &config;
	vm.vcpu_count = 2;
	vcpu.vm = &vm;
	vcpu.index = 1;
	vcpu.vapic = pages[0];
	vcpu.posted = (struct posted *)(void *)pages[1];
	vcpu.msr_bitmap = hpa((u64)(uintptr_t)pages[2]);
	vcpu.xsave_area = pages[3];
	vcpu.view = &vm.space.view;
	vcpu.tsc_offset = 0x1234500000000;
	vmx_controls = (struct vmx_controls){.pin = 0x69, .proc = 0xb5986dfa, .proc2 = 0xaa};
	vmx_features = 0;
	basic_bits = 0xffffffff;
	fake_tsc = 1000000;
	fake_xcr0 = 1;
	injected = -1;
	flushed = delivered = ended = refused_log = pdpte_reads = 0;
	msr_reset(&vcpu);
	msr_bitmap_init(pages[2]);
	cpuid_policy_init();
	vmcs_setup(&vcpu);
	vcpu.requests = 0;
	flushed = 0;
	fake_vmcs[VMCS_GUEST_CS_AR] = CS64;
	fake_vmcs[VMCS_GUEST_EFER] = 0xd01;
	fake_vmcs[VMCS_GUEST_CR0] = 0x80050033;
	fake_vmcs[VMCS_CR0_SHADOW] = 0x80050033;
	fake_vmcs[VMCS_GUEST_CR4] = 0x2060;
	fake_vmcs[VMCS_CR4_SHADOW] = 0x20;
	fake_vmcs[VMCS_GUEST_RIP] = 0x1000;
	fake_vmcs[VMCS_EXIT_INSTR_LEN] = 3;
}

/* --- set-up -------------------------------------------------------------------------------------
 */

static void test_setup(void **state)
{
	start();
	assert_int_equal(fake_vmcs[VMCS_TSC_OFFSET], 0x1234500000000);
	assert_int_equal(fake_vmcs[VMCS_CR0_MASK], 0x60000020); /* CD, NW, NE */
	/* VMXE and MCE, and every bit but those that CPUID offers. */
	assert_int_equal(fake_vmcs[VMCS_CR4_MASK], ~0x370fbfull);
	assert_int_equal(fake_vmcs[VMCS_VPID], 2);
	/* #DB, #AC and #MC always exit: the first two could hang a processor. */
	assert_int_equal(fake_vmcs[VMCS_EXCEPTION_BITMAP], 0x60002);
	assert_int_equal(fake_vmcs[VMCS_LINK_POINTER], ~0ull);
	assert_int_equal(fake_vmcs[VMCS_HOST_RSP], (u64)(uintptr_t)&vcpu.gpr[16]);
	assert_int_equal(fake_vmcs[VMCS_HOST_CR4], 0x3027f0);
}

/* SDM table 9-1. */
static void test_init(void **state)
{
	start();
	vcpu.gpr[RBX] = 5;
	vcpu.event.info = 0x80000306;
	vcpu.nmi_pending = true;
	fake_dr[0] = fake_cr2 = 7;
	fake_vmcs[VMCS_GUEST_SYSENTER_EIP] = 0x77;
	fake_vmcs[VMCS_GUEST_INTERRUPTIBILITY] = 8;
	vcpu_state_reset(&vcpu, true);
	assert_int_equal(fake_vmcs[VMCS_GUEST_RIP], 0xfff0);
	assert_int_equal(fake_vmcs[VMCS_GUEST_CS_BASE], 0xffff0000);
	assert_int_equal(fake_vmcs[VMCS_CR0_SHADOW], 0x60000010);
	assert_int_equal(fake_vmcs[VMCS_GUEST_CR0], 0x30);
	assert_int_equal(fake_vmcs[VMCS_GUEST_RFLAGS], 2);
	assert_int_equal(fake_vmcs[VMCS_GUEST_EFER], 0);
	assert_int_equal(fake_vmcs[VMCS_GUEST_SYSENTER_EIP], 0x77);
	assert_int_equal(fake_vmcs[VMCS_GUEST_INTERRUPTIBILITY], 0);
	assert_int_equal(vcpu.gpr[RBX], 0);
	assert_int_equal(vcpu.gpr[RDX], 0x806f8);
	assert_int_equal(vcpu.event.info, 0);
	assert_false(vcpu.nmi_pending);
	assert_int_equal(fake_dr[0], 0);
	assert_int_equal(fake_cr2, 0);
	assert_int_equal(flushed, 1);
	vcpu_state_sipi(&vcpu, 0x9a);
	assert_int_equal(fake_vmcs[VMCS_GUEST_CS], 0x9a00);
	assert_int_equal(fake_vmcs[VMCS_GUEST_CS_BASE], 0x9a000);
	assert_int_equal(fake_vmcs[VMCS_GUEST_RIP], 0);
}

/* --- skipping -----------------------------------------------------------------------------------
 */

static void test_skip(void **state)
{
	start();
	vcpu_skip(&vcpu);
	assert_int_equal(fake_vmcs[VMCS_GUEST_RIP], 0x1003);
	assert_int_equal(fake_vmcs[VMCS_GUEST_PENDING_DEBUG], 0);
	/* The shadow of STI or MOV SS lasts for one instruction; NMI blocking does not care. */
	fake_vmcs[VMCS_GUEST_INTERRUPTIBILITY] = 0xb;
	vcpu.irq_window = true;
	vcpu_skip(&vcpu);
	assert_int_equal(fake_vmcs[VMCS_GUEST_INTERRUPTIBILITY], 8);
	assert_int_equal(vcpu.requests, REQ_IRQ);
	/* RIP has 64 bits in 64-bit mode only. */
	fake_vmcs[VMCS_GUEST_RIP] = 0xfffffffe;
	vcpu_skip(&vcpu);
	assert_int_equal(fake_vmcs[VMCS_GUEST_RIP], 0x100000001);
	fake_vmcs[VMCS_GUEST_CS_AR] = 0xc09b;
	fake_vmcs[VMCS_GUEST_RIP] = 0xfffffffe;
	vcpu_skip(&vcpu);
	assert_int_equal(fake_vmcs[VMCS_GUEST_RIP], 1);
}

/* SDM 3B 18.3.1.1 and 18.3.1.4. */
static void test_skip_flags(void **state)
{
	start();
	fake_vmcs[VMCS_GUEST_RFLAGS] = 2 | RFLAGS_RF;
	vcpu_skip(&vcpu);
	assert_int_equal(fake_vmcs[VMCS_GUEST_RFLAGS], 2);
	assert_false(vcpu.debug_pending);
	/* Between two iterations. */
	vcpu_skip_bytes(&vcpu, 0);
	assert_int_equal(fake_vmcs[VMCS_GUEST_RFLAGS], 2 | RFLAGS_RF);
	vcpu_skip_bytes(&vcpu, 0);
	assert_int_equal(fake_vmcs[VMCS_GUEST_RFLAGS], 2 | RFLAGS_RF);
	/* Single step: BS, unless only branches trap. */
	fake_vmcs[VMCS_GUEST_RFLAGS] = 2 | RFLAGS_TF;
	vcpu_skip(&vcpu);
	assert_int_equal(fake_vmcs[VMCS_GUEST_PENDING_DEBUG], 0x4000);
	assert_true(vcpu.debug_pending);
	fake_vmcs[VMCS_GUEST_PENDING_DEBUG] = 0;
	fake_vmcs[VMCS_GUEST_DEBUGCTL] = 2;
	vcpu_skip(&vcpu);
	assert_int_equal(fake_vmcs[VMCS_GUEST_PENDING_DEBUG], 0);
}

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
	/* Fast strings are as the machine has them; nothing else of the register is. */
	fake_wrmsr(MSR_MISC_ENABLE, ~0ull);
	msr_reset(&vcpu);
	assert_int_equal(vcpu.msr_misc_enable, 0x1801);
	fake_wrmsr(MSR_MISC_ENABLE, ~1ull);
	msr_reset(&vcpu);
	assert_int_equal(vcpu.msr_misc_enable, 0x1800);
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

/* --- switching ----------------------------------------------------------------------------------
 */

static void test_switch(void **state)
{
	static const u32 msrs[] = {MSR_STAR,  MSR_LSTAR,	  MSR_CSTAR,
				   MSR_FMASK, MSR_KERNEL_GS_BASE, MSR_TSC_AUX};

	start();
	vmx_features = BIT64(FEAT_RDTSCP);
	other = vcpu;
	other.xsave_area = pages[0];
	other.xcr0 = 3;
	other.dr[2] = 0x22;
	other.cr2 = 0xc2;
	other.lstar = 0x1157;
	vcpu.xcr0 = fake_xcr0 = 7;
	for (unsigned int i = 0; i < 4; i++)
		fake_dr[i] = 0xd0 + i;
	fake_dr[6] = 0xffff4ff0;
	fake_cr2 = 0x2222;
	for (unsigned int i = 0; i < ARRAY_SIZE(msrs); i++)
		fake_wrmsr(msrs[i], 0x5000 + i);
	vcpu_state_save(&vcpu);
	/* All components, whatever the guest had enabled. */
	assert_int_equal(saved_with, 0xe7);
	assert_ptr_equal(saved_to, pages[3]);
	vcpu_state_load(&other);
	assert_int_equal(restored_with, 0xe7);
	assert_ptr_equal(restored_from, pages[0]);
	assert_int_equal(fake_xcr0, 3);
	assert_int_equal(fake_dr[2], 0x22);
	assert_int_equal(fake_dr[0], 0);
	assert_int_equal(fake_cr2, 0xc2);
	assert_int_equal(fake_rdmsr(MSR_LSTAR), 0x1157);
	vcpu_state_load(&vcpu);
	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(fake_dr[i], 0xd0 + i);
	assert_int_equal(fake_dr[6], 0xffff4ff0);
	assert_int_equal(fake_cr2, 0x2222);
	for (unsigned int i = 0; i < ARRAY_SIZE(msrs); i++)
		assert_int_equal(fake_rdmsr(msrs[i]), 0x5000 + i);
	assert_int_equal(fake_xcr0, 7);
}

/* --- the run loop -------------------------------------------------------------------------------
 */

static void test_requests(void **state)
{
	start();
	vcpu.state = VCPU_RUNNABLE;
	vcpu.deadline = fake_tsc + 640;
	vmx_timer_shift = 5;
	assert_int_equal(vcpu_prepare(&vcpu), RUN_AGAIN);
	assert_int_equal(delivered, 0);
	assert_int_equal(fake_vmcs[VMCS_PREEMPTION_TIMER], 21); /* never early */
	assert_ptr_equal(ept_running[0], vcpu.view);
	/* A request is served, once. */
	vcpu.requests = REQ_IRQ;
	assert_int_equal(vcpu_prepare(&vcpu), RUN_AGAIN);
	assert_int_equal(delivered, 1);
	assert_int_equal(vcpu.requests, 0);
	/* The end of the VM: out, and it stays asked for. */
	vcpu.requests = REQ_STOP | REQ_IRQ;
	assert_int_equal(vcpu_prepare(&vcpu), RUN_LEAVE);
	assert_int_equal(vcpu.requests & REQ_STOP, REQ_STOP);
	assert_int_equal(delivered, 1);
	assert_null(ept_running[0]);
	/* A deadline that has passed. */
	vcpu.requests = 0;
	vcpu.deadline = fake_tsc;
	assert_int_equal(vcpu_prepare(&vcpu), RUN_LEAVE);
	/* A yield keeps the other requests. */
	vcpu.deadline = fake_tsc + 640;
	vcpu.requests = REQ_YIELD | REQ_NMI;
	assert_int_equal(vcpu_prepare(&vcpu), RUN_LEAVE);
	assert_int_equal(vcpu.requests & (REQ_YIELD | REQ_NMI | REQ_IRQ), REQ_NMI | REQ_IRQ);
	assert_int_equal(delivered, 1);
}

static void test_states(void **state)
{
	start();
	vcpu.deadline = fake_tsc + 640;
	vcpu.state = VCPU_HALTED;
	vcpu.requests = REQ_IRQ;
	would_wake = false;
	assert_int_equal(vcpu_prepare(&vcpu), RUN_LEAVE);
	assert_int_equal(vcpu.state, VCPU_HALTED);
	vcpu.requests = REQ_IRQ;
	would_wake = true;
	assert_int_equal(vcpu_prepare(&vcpu), RUN_AGAIN);
	assert_int_equal(vcpu.state, VCPU_RUNNABLE);
	/* A SIPI that is not waited for is nothing; after INIT the first one counts. */
	vcpu.requests = REQ_SIPI;
	vcpu.sipi_vector = 0x12;
	assert_int_equal(vcpu_prepare(&vcpu), RUN_AGAIN);
	assert_int_equal(fake_vmcs[VMCS_GUEST_RIP], 0x1000);
	vcpu.requests = REQ_INIT;
	assert_int_equal(vcpu_prepare(&vcpu), RUN_LEAVE);
	assert_int_equal(vcpu.state, VCPU_WAIT_SIPI);
	vcpu.requests = REQ_NMI;
	assert_int_equal(vcpu_prepare(&vcpu), RUN_LEAVE);
	vcpu.requests = REQ_INIT | REQ_SIPI;
	assert_int_equal(vcpu_prepare(&vcpu), RUN_AGAIN);
	assert_int_equal(vcpu.state, VCPU_RUNNABLE);
	assert_int_equal(fake_vmcs[VMCS_GUEST_CS_BASE], 0x12000);
	/* The boot processor does not wait. */
	vcpu.bsp = true;
	vcpu.requests = REQ_INIT;
	assert_int_equal(vcpu_prepare(&vcpu), RUN_AGAIN);
	assert_int_equal(fake_vmcs[VMCS_GUEST_RIP], 0xfff0);
}

static void test_eoi_map(void **state)
{
	start();
	vcpu.deadline = fake_tsc + 640;
	vcpu.proc2 |= PROC2_VIRTUAL_INTERRUPT;
	vcpu.requests = REQ_EOI_MAP;
	assert_int_equal(vcpu_prepare(&vcpu), RUN_AGAIN);
	assert_int_equal(fake_vmcs[VMCS_EOI_EXIT_BITMAP0], 0x1111);
	assert_int_equal(fake_vmcs[VMCS_EOI_EXIT_BITMAP3], 0x4444);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_setup),
		cmocka_unit_test(test_init),
		cmocka_unit_test(test_skip),
		cmocka_unit_test(test_skip_flags),
		cmocka_unit_test(test_cr0),
		cmocka_unit_test(test_cr4),
		cmocka_unit_test(test_xsetbv),
		cmocka_unit_test(test_msr_refusals),
		cmocka_unit_test(test_tsc),
		cmocka_unit_test(test_cpuid),
		cmocka_unit_test(test_cpuid_hypervisor),
		cmocka_unit_test(test_cpuid_crystal),
		cmocka_unit_test(test_cpuid_without_xsave),
		cmocka_unit_test(test_switch),
		cmocka_unit_test(test_requests),
		cmocka_unit_test(test_states),
		cmocka_unit_test(test_eoi_map),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
