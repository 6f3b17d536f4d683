/*
 * Watched exits through the real run loop, on a processor made of arrays whose clock moves only
 * when a handler or the way in says so: what is recorded, what it cost, and that nothing is when it
 * is off.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/log.h"
#include "mem/frame.h"
#include "vm/internal.h"
#include "vm/profile.h"
#include "vm/stats.h"
#include "vm/trace.h"
#include "vmx/entry_check.h"
#include "x86/tsc.h"

u64 fake_vmcs[0x8000];
u64 fake_dr[8], fake_cr2, fake_xcr0, fake_tsc;
u64 tsc_hz = 1000000000, tsc_start;
struct cpu cpus[MAX_CPUS];
struct ept_view *ept_running[EPT_MAX_CPUS];
struct vmx_caps vmx_caps;
u8 vmx_timer_shift;

static struct boot_vm config = {.name = "test"};
static struct boot_info boot;
const struct boot_info *vm_boot = &boot;
static struct vm vm;
static struct vcpu vcpus[2];
static struct ept_view view;

static u64 handler_ticks, delivery_ticks, tick_ticks;
static u32 handler_requests;
static unsigned int handled, delivered, allocations_left;
static int tick_result;
static char logged[40][160];
static unsigned int log_lines;

/* --- the exits
 * ------------------------------------------------------------------------------------
 */

static void handler(struct vcpu *vcpu)
{
	handled++;
	fake_tsc += handler_ticks;
	if (handler_requests)
		vcpu_request(vcpu, handler_requests);
}

void remote_gauges(const struct vm *v, u64 value[])
{
	abort(); /* it has none */
}

static void handler_hlt(struct vcpu *vcpu)
{
	handler(vcpu);
	vcpu->state = VCPU_HALTED;
	vcpu_request(vcpu, REQ_IRQ);
}

const exit_handler_fn exit_handlers[EXIT_COUNT] = {
	[EXIT_EXCEPTION_NMI] = handler, [EXIT_EXTERNAL_INTERRUPT] = handler,
	[EXIT_CPUID] = handler,		[EXIT_HLT] = handler_hlt,
	[EXIT_VMCALL] = handler,	[EXIT_CR_ACCESS] = handler,
	[EXIT_MOV_DR] = handler,	[EXIT_IO] = handler,
	[EXIT_RDMSR] = handler,		[EXIT_WRMSR] = handler,
	[EXIT_APIC_ACCESS] = handler,	[EXIT_VIRTUALIZED_EOI] = handler,
	[EXIT_EPT_VIOLATION] = handler, [EXIT_PREEMPTION_TIMER] = handler,
	[EXIT_APIC_WRITE] = handler,	[EXIT_XSETBV] = handler,
};

/* --- what the files under test need ----------------------------------------------------------- */

void event_deliver(struct vcpu *v)
{
	delivered++;
	fake_tsc += delivery_ticks;
}

bool event_would_wake(struct vcpu *v)
{
	return false;
}

int sched_tick(struct vcpu *v, u64 now)
{
	fake_tsc += tick_ticks;
	v->deadline = fake_tsc + 1000000;
	return tick_result;
}

void sched_deadline(struct vcpu *v, u64 now)
{
}

struct vcpu *sched_current(void)
{
	return &vcpus[0];
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

void ept_catch_up(struct ept_view *v, u32 cpu, u64 generation)
{
	v->seen[cpu] = generation;
}

void platform_timers(struct vcpu *v, u64 now)
{
}

void platform_work(struct vcpu *v)
{
}

void platform_vcpu_init(struct vcpu *v)
{
}

void platform_eoi_bitmap(struct vcpu *v, u64 map[4])
{
}

void vcpu_state_reset(struct vcpu *v, bool init)
{
}

void vcpu_state_bios(struct vcpu *v)
{
}

void vcpu_state_sipi(struct vcpu *v, u8 vector)
{
}

void vm_end(struct vm *v, u32 status, const char *fmt, ...)
{
}

void *heap_alloc(u64 bytes)
{
	if (!allocations_left)
		return NULL;
	allocations_left--;
	return calloc(1, bytes);
}

void heap_free(void *p, u64 bytes)
{
	free(p);
}

void log_print(enum log_level level, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (log_lines < ARRAY_SIZE(logged))
		str_vprint(logged[log_lines++], sizeof(logged[0]), fmt, ap);
	va_end(ap);
}

const char *exit_reason_name(u32 reason)
{
	return "some reason";
}

const char *vmcs_field_name(u32 field)
{
	abort();
}

const char *instruction_error_name(u32 error)
{
	abort();
}

unsigned int entry_check(const struct entry_source *s, const struct vmx_caps *caps,
			 entry_report_fn report, void *ctx)
{
	abort();
}

u64 fake_rdmsr(u32 msr)
{
	abort();
}

void fake_wrmsr(u32 msr, u64 value)
{
	abort();
}

struct cpuid_regs fake_cpuid(u32 leaf, u32 subleaf)
{
	abort();
}

/* --- a vCPU -------------------------------------------------------------------------------------
 */

static int start(void **state)
{
	memset(fake_vmcs, 0, sizeof(fake_vmcs));
	memset(vcpus, 0, sizeof(vcpus));
	memset(&vm, 0, sizeof(vm));
	memset(&boot, 0, sizeof(boot));
	vm.config = &config;
	vm.vcpu_count = 2;
	for (u32 i = 0; i < 2; i++) {
		vcpus[i].vm = &vm;
		vcpus[i].index = i;
		vcpus[i].cpu = i;
		vcpus[i].view = &view;
		vcpus[i].deadline = ~0ull;
	}
	vm.vcpu[0] = &vcpus[0];
	vm.vcpu[1] = &vcpus[1];
	fake_tsc = 5000;
	handler_ticks = 100;
	delivery_ticks = tick_ticks = 0;
	handler_requests = 0;
	handled = delivered = log_lines = 0;
	tick_result = RUN_AGAIN;
	allocations_left = 100;
	return 0;
}

static int stop(void **state)
{
	watch_destroy(&vcpus[0]);
	watch_destroy(&vcpus[1]);
	return 0;
}

/* An exit and the way back in, as entry.S makes them; the guest takes 1000 ticks. */
static int exit_with(struct vcpu *vcpu, u32 reason, u64 rip)
{
	fake_tsc += 1000;
	fake_vmcs[VMCS_EXIT_REASON] = reason;
	fake_vmcs[VMCS_GUEST_RIP] = rip;
	vcpu_exit(vcpu);
	return vcpu_prepare(vcpu);
}

static void switch_on(struct vcpu *vcpu)
{
	assert_int_equal(trace_set(&vm, true), 0);
	assert_int_equal(vcpu_prepare(vcpu), RUN_AGAIN);
	assert_int_equal(vcpu->watch, WATCH_TRACE);
}

static void test_off(void **state)
{
	struct trace_entry e;

	assert_int_equal(watch_create(&vcpus[0]), 0);
	assert_int_equal(allocations_left, 100);
	assert_int_equal(exit_with(&vcpus[0], EXIT_CPUID, 0x1000), RUN_AGAIN);
	assert_int_equal(handled, 1);
	assert_int_equal(vcpus[0].exits[EXIT_CPUID], 1);
	assert_int_equal(vcpus[0].requests, 0);
	assert_int_equal(vcpus[0].root_tsc, 0);
	assert_int_equal(trace_count(&vcpus[0]), 0);
	assert_false(trace_read(&vcpus[0], 0, &e));
	assert_false(trace_is_on(&vm));
}

static void test_cost(void **state)
{
	struct trace_entry e;

	switch_on(&vcpus[0]);
	assert_true(trace_is_on(&vm));
	/* Handler and delivery, not the guest's time before nor after. */
	handler_requests = REQ_IRQ;
	delivery_ticks = 30;
	delivered = 0;
	assert_int_equal(exit_with(&vcpus[0], EXIT_CPUID, 0x1000), RUN_AGAIN);
	assert_int_equal(delivered, 1);
	assert_int_equal(vcpus[0].requests, 0);
	handler_requests = 0;
	handler_ticks = 7;
	assert_int_equal(exit_with(&vcpus[0], EXIT_WRMSR, 0x2000), RUN_AGAIN);
	assert_int_equal(delivered, 1); /* nothing is delivered for being watched */
	assert_int_equal(trace_count(&vcpus[0]), 2);
	assert_true(trace_read(&vcpus[0], 1, &e));
	assert_int_equal(e.reason, EXIT_CPUID);
	assert_int_equal(e.rip, 0x1000);
	assert_int_equal(e.tsc, 6000);
	assert_int_equal(e.cost, 130);
	assert_true(trace_read(&vcpus[0], 0, &e));
	assert_int_equal(e.reason, EXIT_WRMSR);
	assert_int_equal(e.cost, 7);
	assert_false(trace_read(&vcpus[0], 2, &e));
	assert_int_equal(vcpus[0].root_tsc, 137);
	/* Before the way in its cost is not known. */
	fake_vmcs[VMCS_EXIT_REASON] = EXIT_CPUID;
	vcpu_exit(&vcpus[0]);
	assert_true(trace_read(&vcpus[0], 0, &e));
	assert_int_equal(e.cost, 0);
	/* The work of the tick belongs to the exit that found it due. */
	tick_ticks = 400;
	vcpus[0].deadline = fake_tsc;
	assert_int_equal(vcpu_prepare(&vcpus[0]), RUN_AGAIN);
	assert_true(trace_read(&vcpus[0], 0, &e));
	assert_int_equal(e.cost, 407);
}

/* The scheduler takes over: the time of others and of sleep is nobody's cost. */
static void test_leave(void **state)
{
	struct trace_entry e;

	switch_on(&vcpus[0]);
	assert_int_equal(exit_with(&vcpus[0], EXIT_HLT, 0x1000), RUN_LEAVE);
	fake_tsc += 1000000;
	assert_true(trace_read(&vcpus[0], 0, &e));
	assert_int_equal(e.cost, 100);
	/* It is woken: what the way in takes is root mode, but no exit's cost. */
	vcpus[0].state = VCPU_RUNNABLE;
	vcpus[0].root_since = fake_tsc;
	delivery_ticks = 20;
	vcpu_request(&vcpus[0], REQ_WATCH | REQ_IRQ);
	assert_int_equal(vcpu_prepare(&vcpus[0]), RUN_AGAIN);
	assert_true(trace_read(&vcpus[0], 0, &e));
	assert_int_equal(e.cost, 100);
	assert_int_equal(vcpus[0].root_tsc, 120);
	/* Its slice is over; its VM ends. */
	tick_result = RUN_LEAVE;
	vcpus[0].deadline = fake_tsc;
	assert_int_equal(exit_with(&vcpus[0], EXIT_PREEMPTION_TIMER, 0x1000), RUN_LEAVE);
	handler_requests = REQ_STOP;
	assert_int_equal(exit_with(&vcpus[0], EXIT_IO, 0x1000), RUN_LEAVE);
	assert_true(vcpus[0].requests & REQ_STOP);
	assert_true(trace_read(&vcpus[0], 0, &e));
	assert_int_equal(e.cost, 100);
}

static void test_details(void **state)
{
	static const struct {
		u32 reason;
		u64 detail;
		const char *name;
	} cases[] = {
		{EXIT_CPUID, 0x40000000, "leaf"},
		{EXIT_VMCALL, 0x1140000000, "call"},
		{EXIT_RDMSR, 0xc0000080, "msr"},
		{EXIT_WRMSR, 0xc0000080, "msr"},
		{EXIT_IO, 0x3f8, "port"},
		{EXIT_EPT_VIOLATION, 0xfec00010, "gpa"},
		{EXIT_APIC_ACCESS, 0xfee00008, "gpa"},
		{EXIT_APIC_WRITE, 0xfee00008, "gpa"},
		{EXIT_EXCEPTION_NMI, 14, "vector"},
		{EXIT_EXTERNAL_INTERRUPT, 14, "vector"},
		{EXIT_VIRTUALIZED_EOI, 8, "vector"},
		{EXIT_CR_ACCESS, 8, "cr"},
		{EXIT_MOV_DR, 0, "dr"},
		{EXIT_XSETBV, 0, ""},
	};
	struct trace_entry e;

	switch_on(&vcpus[0]);
	vcpus[0].gpr[RAX] = 0x1140000000;
	vcpus[0].gpr[RCX] = 0x22c0000080;
	fake_vmcs[VMCS_EXIT_QUALIFICATION] = 0x3f80008;
	fake_vmcs[VMCS_EXIT_INTR_INFO] = 0x80000b0e;
	fake_vmcs[VMCS_GUEST_PHYSICAL_ADDRESS] = 0xfec00010;
	for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
		exit_with(&vcpus[0], cases[i].reason, i);
		assert_true(trace_read(&vcpus[0], 0, &e));
		assert_int_equal(e.reason, cases[i].reason);
		assert_int_equal(e.detail, cases[i].detail);
		assert_int_equal(e.qualification, 0x3f80008);
		assert_string_equal(trace_detail_name(e.reason), cases[i].name);
	}
}

static void test_ring(void **state)
{
	struct trace_entry e;

	switch_on(&vcpus[0]);
	for (u64 i = 0; i < TRACE_ENTRIES + 1000; i++) {
		handler_ticks = i % 50;
		exit_with(&vcpus[0], EXIT_CPUID, i);
	}
	assert_int_equal(trace_count(&vcpus[0]), TRACE_ENTRIES + 1000);
	for (u64 back = 0; back < TRACE_ENTRIES - 1; back++) {
		u64 i = TRACE_ENTRIES + 999 - back;

		assert_true(trace_read(&vcpus[0], back, &e));
		assert_int_equal(e.rip, i);
		assert_int_equal(e.cost, i % 50);
	}
	/* Its place is the next one's to write. */
	assert_false(trace_read(&vcpus[0], TRACE_ENTRIES - 1, &e));
	assert_false(trace_read(&vcpus[0], TRACE_ENTRIES, &e));
	assert_false(trace_read(&vcpus[0], ~0ull, &e));
	/* A long exit does not wrap around. */
	handler_ticks = 0x100000005;
	exit_with(&vcpus[0], EXIT_CPUID, 1);
	assert_true(trace_read(&vcpus[0], 0, &e));
	assert_int_equal(e.cost, 0xffffffff);
}

static void test_switching(void **state)
{
	struct trace_entry e;

	switch_on(&vcpus[0]);
	exit_with(&vcpus[0], EXIT_CPUID, 0x1000);
	assert_int_equal(trace_set(&vm, false), 0);
	assert_false(trace_is_on(&vm));
	/* The other one halts and hears of it when it runs again. */
	assert_true(vcpus[1].requests & REQ_WATCH);
	assert_int_equal(vcpu_prepare(&vcpus[0]), RUN_AGAIN);
	assert_int_equal(vcpus[0].watch, 0);
	exit_with(&vcpus[0], EXIT_CPUID, 0x2000);
	assert_int_equal(vcpus[0].requests, 0);
	assert_int_equal(trace_count(&vcpus[0]), 1);
	assert_true(trace_read(&vcpus[0], 0, &e));
	assert_int_equal(e.rip, 0x1000);
	/* Off between exit and entry: the cost stays unknown, also later. */
	switch_on(&vcpus[0]);
	fake_vmcs[VMCS_EXIT_REASON] = EXIT_CPUID;
	vcpu_exit(&vcpus[0]);
	trace_set(&vm, false);
	assert_int_equal(vcpu_prepare(&vcpus[0]), RUN_AGAIN);
	fake_tsc += 100000;
	switch_on(&vcpus[0]);
	assert_true(trace_read(&vcpus[0], 0, &e));
	assert_int_equal(e.cost, 0);
	assert_int_equal(vcpus[0].root_tsc, 100);
	/* On again needs no more memory. */
	assert_int_equal(allocations_left, 98);
}

static void test_no_memory(void **state)
{
	allocations_left = 1;
	assert_int_equal(trace_set(&vm, true), ERR_NOMEM);
	assert_false(trace_is_on(&vm));
	assert_int_equal(vcpus[0].requests | vcpus[1].requests, 0);
	allocations_left = 1;
	boot.options.report = 1;
	vcpus[1].trace = NULL;
	assert_int_equal(watch_create(&vcpus[1]), ERR_NOMEM);
}

static void test_report(void **state)
{
	struct profile *p;

	boot.options.report = 1;
	assert_int_equal(watch_create(&vcpus[0]), 0);
	fake_tsc += 123456;
	assert_int_equal(watch_create(&vcpus[1]), 0);
	/* One time axis for all. */
	assert_int_equal(vcpus[1].profile->start, vcpus[0].profile->start);
	p = vcpus[0].profile;
	fake_vmcs[VMCS_GUEST_PHYSICAL_ADDRESS] = 0xfec00010;
	for (u32 i = 0; i < 3; i++)
		exit_with(&vcpus[0], EXIT_CPUID, 0x1000);
	handler_ticks = 5000;
	exit_with(&vcpus[0], EXIT_EPT_VIOLATION, 0x2000);
	assert_int_equal(p->cost[EXIT_CPUID].sum, 300);
	assert_int_equal(p->cost[EXIT_EPT_VIOLATION].sum, 5000);
	assert_int_equal(p->cost[EXIT_EPT_VIOLATION].max_rip, 0x2000);
	assert_int_equal(p->pages.entry[0].key, 0xfec00);
	/* Its exits are watched whether or not somebody looks at the trace. */
	assert_false(trace_is_on(&vm));
	trace_set(&vm, true);
	trace_set(&vm, false);
	assert_int_equal(vcpu_prepare(&vcpus[0]), RUN_AGAIN);
	exit_with(&vcpus[0], EXIT_CPUID, 0x1000);
	assert_int_equal(p->cost[EXIT_CPUID].histogram[7], 3);
	assert_int_equal(p->cost[EXIT_CPUID].histogram[13], 1);
	assert_int_equal(vcpus[0].root_tsc, 10300);
}

static void test_stats(void **state)
{
	struct stats s;

	exit_with(&vcpus[0], EXIT_CPUID, 0);
	exit_with(&vcpus[0], EXIT_CPUID, 0);
	exit_with(&vcpus[1], EXIT_IO, 0);
	vcpus[0].injections = 3;
	vcpus[1].ept_faults = 4;
	vcpus[1].refusals = 5;
	vcpus[0].run_tsc = 1000;
	vcpus[1].run_tsc = 500;
	vcpus[0].halted_tsc = 70;
	vcpus[1].halted_tsc = 10;
	vcpus[1].halted_since = fake_tsc;
	vcpus[0].root_tsc = 9;
	vcpus[0].watched_tsc = 90;
	fake_tsc += 2000;
	stats_vcpu(&vcpus[1], &s);
	assert_int_equal(s.total, 1);
	assert_int_equal(s.halted_tsc, 2010); /* it sleeps still */
	stats_vm(&vm, &s);
	assert_int_equal(s.total, 3);
	assert_int_equal(s.exits[EXIT_CPUID], 2);
	assert_int_equal(s.exits[EXIT_IO], 1);
	assert_int_equal(s.injections, 3);
	assert_int_equal(s.ept_faults, 4);
	assert_int_equal(s.refusals, 5);
	assert_int_equal(s.run_tsc, 1500);
	assert_int_equal(s.halted_tsc, 2080);
	assert_int_equal(s.root_tsc, 9);
	assert_int_equal(s.watched_tsc, 90);
}

static void test_fatal_report(void **state)
{
	trace_report(&vcpus[0]);
	assert_int_equal(log_lines, 0);
	switch_on(&vcpus[0]);
	fake_vmcs[VMCS_EXIT_QUALIFICATION] = 0x3f80008;
	for (u32 i = 0; i < 20; i++)
		exit_with(&vcpus[0], EXIT_IO, 0x1000 + i);
	trace_report(&vcpus[0]);
	assert_int_equal(log_lines, 17);
	assert_non_null(strstr(logged[1], "0000000000001004"));
	assert_non_null(strstr(logged[16], "0000000000001013"));
	assert_non_null(strstr(logged[16], "some reason, port 0x3f8"));
	assert_non_null(strstr(logged[16], " 100 "));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_off, start, stop),
		cmocka_unit_test_setup_teardown(test_cost, start, stop),
		cmocka_unit_test_setup_teardown(test_leave, start, stop),
		cmocka_unit_test_setup_teardown(test_details, start, stop),
		cmocka_unit_test_setup_teardown(test_ring, start, stop),
		cmocka_unit_test_setup_teardown(test_switching, start, stop),
		cmocka_unit_test_setup_teardown(test_no_memory, start, stop),
		cmocka_unit_test_setup_teardown(test_report, start, stop),
		cmocka_unit_test_setup_teardown(test_stats, start, stop),
		cmocka_unit_test_setup_teardown(test_fatal_report, start, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
