/*
 * A processor made of arrays under the core of hv/vm: VMCS, MSRs, control and debug registers,
 * CPUID; what the core asks of others is noted. For one test file each; names are redirected by
 * core_hook.h.
 */
#pragma once

#include <stdlib.h>
#include <string.h>

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
static struct vcpu vcpu;
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

static inline u64 *msr_slot(u32 msr)
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

static inline void start(void)
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
