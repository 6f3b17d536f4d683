/*
 * The core: what a VMCS is set up with, how instructions are skipped, what is switched between
 * vCPUs, and the requests of the run loop. Bits are written out as the SDM prints them.
 */
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "core_fake.h"

static struct vcpu other;

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
		cmocka_unit_test(test_setup),  cmocka_unit_test(test_init),
		cmocka_unit_test(test_skip),   cmocka_unit_test(test_skip_flags),
		cmocka_unit_test(test_switch), cmocka_unit_test(test_requests),
		cmocka_unit_test(test_states), cmocka_unit_test(test_eoi_map),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
