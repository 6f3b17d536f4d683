/* Pausing: who is asked, when it counts as done, and that the guest's time stands still. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "dev/platform.h"
#include "vm/control.h"
#include "vm/linear.h"

#define VCPUS 3

u64 fake_vmcs[0x8000];
u64 fake_dr[8], fake_cr2, fake_xcr0, fake_tsc;
struct cpu cpus[MAX_CPUS];

static struct vm vm;
static struct vcpu vcpu[VCPUS];
static struct platform platform;
static u32 asked;

u64 fake_rdmsr(u32 msr)
{
	return 0;
}

void fake_wrmsr(u32 msr, u64 value)
{
}

struct cpuid_regs fake_cpuid(u32 leaf, u32 subleaf)
{
	return (struct cpuid_regs){0};
}

void vcpu_request(struct vcpu *v, u32 requests)
{
	v->requests |= requests;
	asked++;
}

void walk_state_load(struct vcpu *v, struct walk_state *out)
{
	out->cr3 = fake_vmcs[VMCS_GUEST_CR3];
}

static int setup(void **state)
{
	memset(&vm, 0, sizeof(vm));
	memset(vcpu, 0, sizeof(vcpu));
	memset(&platform, 0, sizeof(platform));
	memset(fake_vmcs, 0, sizeof(fake_vmcs));
	vm.vcpu_count = VCPUS;
	vm.platform = &platform;
	vm.state = VM_RUNNING;
	for (u32 i = 0; i < VCPUS; i++) {
		vm.vcpu[i] = &vcpu[i];
		vcpu[i] = (struct vcpu){
			.vm = &vm, .index = i, .tsc_offset = 7000 + i, .timer_deadline = 5000 + i};
		platform.lapic[i].expiry = 6000 + i;
		platform.lapic_deadline[i] = 5000 + i;
	}
	platform.epoch = 100;
	platform.last = 900;
	platform.earliest = 800;
	platform.deadline = 4000;
	fake_tsc = 1000;
	asked = 0;
	return 0;
}

/* Serves what the vCPU has been asked, as the run loop does. */
static bool serve(u32 i)
{
	u32 requests = vcpu[i].requests;

	vcpu[i].requests = 0;
	return control_serve(&vcpu[i], requests);
}

static void test_time_stands_still(void **state)
{
	vm_pause(&vm);
	assert_true(vm_paused(&vm));
	for (u32 i = 0; i < VCPUS; i++) {
		assert_int_equal(vcpu[i].requests, REQ_PAUSE);
		fake_tsc = 1100 + 100 * (i != 1); /* the others stop later than this one */
		assert_false(serve(i));
	}
	/* The guest has run until 1200. */
	fake_tsc = 51200;
	vm_resume(&vm);
	assert_false(vm_paused(&vm));
	for (u32 i = 0; i < VCPUS; i++) {
		assert_true(vcpu[i].tsc_offset == 7000ull + i - 50000);
		assert_int_equal(vcpu[i].timer_deadline, 55000 + i);
		assert_int_equal(platform.lapic[i].expiry, 56000 + i);
		assert_int_equal(platform.lapic_deadline[i], 55000 + i);
		assert_int_equal(vcpu[i].requests, REQ_PAUSE | REQ_TIMER | REQ_IRQ);
		assert_true(serve(i));
		assert_int_equal(fake_vmcs[VMCS_TSC_OFFSET], vcpu[i].tsc_offset);
	}
	assert_int_equal(platform.epoch, 50100);
	assert_int_equal(platform.last, 50900);
	assert_int_equal(platform.earliest, 50800);
	assert_int_equal(platform.deadline, 54000);
}

/* What is not armed stays so. */
static void test_no_timers(void **state)
{
	platform.deadline = LAPIC_NEVER;
	for (u32 i = 0; i < VCPUS; i++)
		vcpu[i].timer_deadline = platform.lapic[i].expiry = platform.lapic_deadline[i] =
			LAPIC_NEVER;
	vm_pause(&vm);
	for (u32 i = 0; i < VCPUS; i++)
		serve(i);
	fake_tsc += 5000;
	vm_resume(&vm);
	assert_true(platform.deadline == LAPIC_NEVER);
	assert_int_equal(platform.last, 5900);
	for (u32 i = 0; i < VCPUS; i++)
		assert_true(vcpu[i].timer_deadline == LAPIC_NEVER &&
			    platform.lapic[i].expiry == LAPIC_NEVER &&
			    platform.lapic_deadline[i] == LAPIC_NEVER &&
			    platform.lapic[i].last_fire == 0);
}

/* One vCPU may still be in guest mode: no clock goes back under it. */
static void test_resumed_too_early(void **state)
{
	vm_pause(&vm);
	assert_false(serve(0));
	assert_false(serve(2));
	fake_tsc = 50000;
	vm_resume(&vm);
	for (u32 i = 0; i < VCPUS; i++) {
		assert_int_equal(vcpu[i].tsc_offset, 7000 + i);
		assert_true(serve(i));
	}
	assert_int_equal(platform.epoch, 100);
}

/* Each pause counts its own vCPUs, also if some have not noticed that there was a resume. */
static void test_again(void **state)
{
	vm_pause(&vm);
	for (u32 i = 0; i < VCPUS; i++)
		serve(i);
	vm_resume(&vm);
	serve(0);
	fake_tsc = 2000;
	vm_pause(&vm);
	asked = 0;
	vm_pause(&vm); /* does nothing */
	assert_int_equal(asked, 0);
	for (u32 i = 0; i < VCPUS; i++) {
		assert_false(serve(i));
		assert_false(serve(i)); /* looked at twice, counted once */
	}
	assert_int_equal(vm.pause.asked, 0);
	fake_tsc = 3000;
	vm_resume(&vm);
	assert_int_equal(vcpu[0].tsc_offset, 7000 - 1000);
	asked = 0;
	vm_resume(&vm); /* nor does this */
	assert_int_equal(asked, 0);
}

static void test_look(void **state)
{
	struct vcpu_regs regs;

	fake_vmcs[VMCS_GUEST_RIP] = 0x1234;
	fake_vmcs[VMCS_GUEST_RSP] = 0x5678;
	fake_vmcs[VMCS_GUEST_CS] = 0x10;
	fake_vmcs[VMCS_GUEST_TR_BASE] = 0x9000;
	fake_vmcs[VMCS_GUEST_IDTR_LIMIT] = 0xfff;
	fake_vmcs[VMCS_GUEST_CR3] = 0x3000;
	fake_cr2 = 0xdead;
	vcpu[1].gpr[RBX] = 0xbb;
	vcpu[1].gpr[RSP] = 0xbad;
	vcpu_look(&vcpu[1]);
	assert_int_equal(vcpu[1].requests, REQ_LOOK);
	assert_false(vcpu_look_result(&regs));
	/* Another one that happens to be asked. */
	control_serve(&vcpu[0], REQ_LOOK);
	assert_false(vcpu_look_result(&regs));
	assert_true(serve(1));
	assert_true(vcpu_look_result(&regs));
	assert_int_equal(regs.rip, 0x1234);
	assert_int_equal(regs.gpr[RBX], 0xbb);
	assert_int_equal(regs.gpr[RSP], 0x5678);
	assert_int_equal(regs.segment[SEGMENT_CS].selector, 0x10);
	assert_int_equal(regs.segment[SEGMENT_TR].base, 0x9000);
	assert_int_equal(regs.idt_limit, 0xfff);
	assert_int_equal(regs.walk.cr3, 0x3000);
	assert_int_equal(regs.cr2, 0xdead);
	/* A paused one can be looked at too, and the answer to an old request is none. */
	vm_pause(&vm);
	serve(1);
	fake_vmcs[VMCS_GUEST_RIP] = 0x1235;
	vcpu_look(&vcpu[1]);
	assert_false(vcpu_look_result(&regs));
	assert_false(serve(1));
	assert_true(vcpu_look_result(&regs));
	assert_int_equal(regs.rip, 0x1235);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_time_stands_still, setup),
		cmocka_unit_test_setup(test_no_timers, setup),
		cmocka_unit_test_setup(test_resumed_too_early, setup),
		cmocka_unit_test_setup(test_again, setup),
		cmocka_unit_test_setup(test_look, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
