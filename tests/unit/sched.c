/*
 * hv/vm/sched.c in simulated time: vCPUs that compute all the time, that sleep by timers, and that
 * try to get more than their share of a CPU.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vm/console.h"
#include "vm/internal.h"
#include "x86/apic.h"
#include "x86/tsc.h"

#define US	1000ull /* the TSC runs at 1 GHz here */
#define MS	1000000ull
#define QUANTUM (4 * MS)
#define VCPUS	100

u64 fake_tsc;
u32 fake_cpu;
u64 tsc_hz = 1000000000, tsc_start;
struct cpu cpus[MAX_CPUS];
struct ept_view *ept_running[EPT_MAX_CPUS];
u64 vmx_features;

/* What a vCPU does: computes for `work`, sleeps for `sleep` after the timer was set; 0: never. */
struct behaviour {
	u64 work, sleep;
	u64 left;  /* of the work */
	bool irq;  /* pending */
	u64 moved; /* with REQ_TIMER: its timer is to be at this time now */
	bool yields;
	u32 last_words; /* turns of 1 ms that its end takes */
	u64 got, turns;
};

static struct vm vm;
static struct vcpu vcpus[VCPUS];
static struct behaviour behaviour[VCPUS];
static u64 end, armed;
static unsigned int kicks, polls, stopped;
static unsigned int looks, arms, disarms; /* for frames; the NIC's interrupt switched on and off */
static bool expected, nic_wakes;	  /* frames; their NIC has an interrupt */
static void (*between)(void);		  /* what happens while the CPU looks for something to do */
static jmp_buf out;

static struct behaviour *of(const struct vcpu *vcpu)
{
	return &behaviour[vcpu->index];
}

/* --- what the scheduler calls ----------------------------------------------------------------- */

void vmcs_clear(hpa_t vmcs)
{
}

void vmcs_load(hpa_t vmcs)
{
}

void vmcs_setup(struct vcpu *vcpu)
{
}

void vm_vcpu_start_state(struct vcpu *vcpu)
{
}

bool vm_vcpu_may_stop(const struct vcpu *vcpu)
{
	struct behaviour *b = of(vcpu);

	if (!b->last_words)
		return true;
	fake_tsc += MS;
	b->last_words--;
	if (fake_tsc >= end)
		longjmp(out, 1);
	return false;
}

void vm_vcpu_stopped(struct vcpu *vcpu)
{
	stopped++;
}

void vcpu_state_save(struct vcpu *vcpu)
{
}

void vcpu_state_load(struct vcpu *vcpu)
{
}

void vcpu_entry_failed(struct vcpu *vcpu, u32 reason)
{
	abort();
}

void vcpu_request(struct vcpu *vcpu, u32 requests)
{
	vcpu->requests |= requests;
}

void cpu_take_interrupts(void)
{
}

void apic_send(u32 cpu, u8 vector)
{
	kicks++;
}

void apic_timer_arm(u64 tsc)
{
	armed = tsc;
}

void apic_timer_stop(void)
{
}

void cpu_idle(void)
{
	if (armed == ~0ull || armed >= end)
		longjmp(out, 1);
	fake_tsc = MAX(fake_tsc + 1, armed);
}

u32 console_unsent(void)
{
	return 0;
}

bool net_poll(void)
{
	return false;
}

/* Frames are expected, and none comes; looking takes 1 us. */
bool remote_poll(u64 began)
{
	if (between)
		between();
	if (!expected)
		return false;
	looks++;
	fake_tsc += US;
	if (fake_tsc >= end)
		longjmp(out, 1);
	return true;
}

u64 net_deadline(void)
{
	return fake_tsc + 10 * MS;
}

bool net_arm(void)
{
	arms++;
	return nic_wakes;
}

void net_disarm(void)
{
	disarms++;
}

void console_poll(void)
{
	polls++;
}

void platform_timers(struct vcpu *vcpu, u64 now)
{
	if ((vcpu->requests & REQ_TIMER) && of(vcpu)->moved)
		vcpu->timer_deadline = of(vcpu)->moved;
	vcpu->requests &= ~REQ_TIMER;
	of(vcpu)->moved = 0;
	if (now < vcpu->timer_deadline)
		return;
	vcpu->timer_deadline = ~0ull;
	of(vcpu)->irq = true;
}

bool event_would_wake(struct vcpu *vcpu)
{
	return of(vcpu)->irq;
}

int vcpu_prepare(struct vcpu *vcpu)
{
	vcpu->requests = 0;
	if (fake_tsc >= vcpu->deadline)
		return sched_tick(vcpu, fake_tsc);
	return RUN_AGAIN;
}

/* In guest mode until it sleeps or the scheduler wants the CPU. */
int vmx_run(struct vcpu *vcpu)
{
	struct behaviour *b = of(vcpu);

	b->turns++;
	vcpu->state = VCPU_RUNNABLE;
	b->irq = false;
	for (;;) {
		u64 until = MIN(vcpu->deadline, end), used;

		assert_true(vcpu->deadline > fake_tsc);
		used = until - fake_tsc;
		if (b->work)
			used = MIN(used, b->left);
		fake_tsc += used;
		b->got += used;
		b->left -= b->work ? used : 0;
		if (fake_tsc >= end)
			longjmp(out, 1);
		if (b->work && !b->left) {
			b->left = b->work;
			if (b->yields) {
				sched_give_way(vcpu);
				return RUN_LEAVE;
			}
			vcpu->state = VCPU_HALTED;
			vcpu->timer_deadline = fake_tsc + b->sleep;
			return RUN_LEAVE;
		}
		if (sched_tick(vcpu, fake_tsc) == RUN_LEAVE)
			return RUN_LEAVE;
	}
}

/* --- tests --------------------------------------------------------------------------------------
 */

static struct vcpu *add(u32 index, u32 cpu, u64 work, u64 sleep)
{
	struct vcpu *vcpu = &vcpus[index];

	vcpu->vm = &vm;
	vcpu->index = index;
	vcpu->cpu = cpu;
	vcpu->timer_deadline = ~0ull;
	behaviour[index].work = behaviour[index].left = work;
	behaviour[index].sleep = sleep;
	sched_add(vcpu);
	return vcpu;
}

/* Each test has a CPU of its own: the scheduler's state is not reset. */
static void start(u32 cpu)
{
	static const struct boot_info boot = {
		.options = {.tick_us = 1000, .quantum_us = QUANTUM / US},
	};

	for (u32 i = 0; i < MAX_CPUS; i++)
		cpus[i].index = i;
	memset(vcpus, 0, sizeof(vcpus));
	memset(behaviour, 0, sizeof(behaviour));
	fake_cpu = cpu;
	fake_tsc = 1000 * MS;
	armed = ~0ull;
	between = NULL;
	kicks = stopped = looks = arms = disarms = 0;
	expected = nic_wakes = false;
	sched_init(&boot);
}

static void run_for(u64 ticks)
{
	end = fake_tsc + ticks;
	if (!setjmp(out))
		sched_loop();
}

static u64 percent(u32 index, u64 of_ticks)
{
	return behaviour[index].got * 100 / of_ticks;
}

static void test_equal_shares(void **state)
{
	start(1);
	for (u32 i = 0; i < 3; i++)
		add(i, 1, 0, 0);
	run_for(300 * MS);
	for (u32 i = 0; i < 3; i++)
		assert_in_range(percent(i, 300 * MS), 31, 35);
	/* Whole slices, not slivers. */
	assert_in_range(behaviour[0].turns, 20, 30);
}

/* A neighbour that wakes often takes what it needs at once, and from all others alike. */
static void test_sleeper(void **state)
{
	start(2);
	add(0, 2, 0, 0);
	add(1, 2, 50 * US, 950 * US);
	add(2, 2, 0, 0);
	run_for(300 * MS);
	assert_in_range(percent(0, 300 * MS), 44, 50);
	assert_in_range(percent(2, 300 * MS), 44, 50);
	/* Never late: it ran in every millisecond. */
	assert_in_range(behaviour[1].turns, 295, 305);
}

/* One that sleeps for an instant at the end of each slice, so that it wakes in its neighbour's. */
static void test_greedy(void **state)
{
	start(3);
	add(0, 3, 0, 0);
	add(1, 3, QUANTUM - 10 * US, 20 * US);
	run_for(300 * MS);
	assert_in_range(percent(0, 300 * MS), 45, 55);
}

/* Sleep is not saved up: one that has slept for long gets a slice, not all it did not use. */
static void test_no_hoarding(void **state)
{
	start(4);
	add(0, 4, 0, 0);
	add(1, 4, 100 * MS, 100 * MS);
	run_for(100 * MS); /* starts in parallel: both have used 50 ms by now */
	behaviour[1].left = 1;
	run_for(5 * MS);
	assert_int_equal(vcpus[1].state, VCPU_HALTED);
	vcpus[1].timer_deadline = fake_tsc + 200 * MS;
	run_for(202 * MS);
	behaviour[0].got = behaviour[1].got = 0;
	run_for(40 * MS);
	assert_in_range(percent(0, 40 * MS), 40, 60);
}

static void test_yield(void **state)
{
	start(5);
	add(0, 5, 10 * US, 0);
	behaviour[0].yields = true;
	add(1, 5, 0, 0);
	run_for(100 * MS);
	/* After each 10 us the other one gets a whole slice. */
	assert_in_range(behaviour[0].turns, 20, 30);
	assert_in_range(percent(1, 100 * MS), 98, 100);
}

/* A VM that restarts again and again is a newcomer each time: that is worth nothing. */
static void test_newcomer(void **state)
{
	start(10);
	add(0, 10, 0, 0);
	run_for(100 * MS);
	add(1, 10, 0, 0);
	assert_in_range(vcpus[1].used, 90 * MS, 100 * MS);
	behaviour[0].got = 0;
	run_for(40 * MS);
	assert_in_range(percent(1, 40 * MS), 40, 60);
	/* What it cost to start it is charged to it. */
	vcpus[1].used += 30 * MS;
	behaviour[0].got = 0;
	run_for(40 * MS);
	assert_in_range(percent(0, 40 * MS), 80, 95);
}

static struct vcpu *late;

static void post_timer(void)
{
	late->requests |= REQ_TIMER;
	of(late)->moved = fake_tsc + 50 * US;
	between = NULL;
}

/* A device is programmed from elsewhere just when the CPU has found nothing to do. */
static void test_timer_before_sleep(void **state)
{
	start(6);
	late = add(0, 6, 10 * US, 500 * MS);
	run_for(5 * MS);
	assert_int_equal(late->state, VCPU_HALTED);
	between = post_timer;
	armed = ~0ull;
	run_for(1 * MS);
	assert_int_equal(behaviour[0].turns, 2);
}

static void test_idle_boot_cpu_polls(void **state)
{
	start(0);
	add(0, 0, 10 * US, 500 * MS);
	polls = 0;
	run_for(100 * MS);
	assert_in_range(polls, 10, 40);
	/* It looks for frames that are expected, but sleeps between if the NIC wakes it. */
	expected = true;
	run_for(100 * MS);
	assert_in_range(looks, 90000, 100000);
	looks = arms = disarms = 0;
	nic_wakes = true;
	run_for(100 * MS);
	assert_in_range(arms, 9, 11);
	assert_in_range(looks, 50 * 9, 52 * 11);
	assert_in_range(disarms, arms - 1, arms);
}

/* A CPU takes any number of vCPUs, and loses them again. */
static void test_many(void **state)
{
	start(7);
	for (u32 i = 0; i < VCPUS; i++)
		add(i, 7, 0, 0);
	run_for(VCPUS * QUANTUM);
	for (u32 i = 0; i < VCPUS; i++)
		assert_int_equal(behaviour[i].turns, 1);
	for (u32 i = 0; i < VCPUS; i++)
		if (i != 50)
			vcpus[i].requests |= REQ_STOP;
	/* The one that is left first gets what the others had before it, and then everything. */
	behaviour[50].got = 0;
	run_for(10 * MS);
	assert_int_equal(stopped, VCPUS - 1);
	assert_true(percent(50, 10 * MS) == 100);
	assert_false(sched_shared(&vcpus[50]));
}

static void test_kick(void **state)
{
	start(9);
	add(0, 9, 0, 0);
	add(1, 9, 10 * US, 500 * MS);
	run_for(5 * MS);
	/* Seen from another CPU: in root mode for the first one, which it may enter again at once.
	 */
	fake_cpu = 8;
	vcpus[0].requests = vcpus[1].requests = 0;
	sched_kick(&vcpus[0]);
	assert_int_equal(vcpus[0].requests, 0);
	sched_kick(&vcpus[1]);
	assert_int_equal(vcpus[0].requests, REQ_YIELD);
	assert_int_equal(kicks, 0);
	/* In guest mode. */
	vcpus[0].requests = 0;
	ept_running[9] = (struct ept_view *)(uintptr_t)64;
	sched_kick(&vcpus[1]);
	assert_int_equal(kicks, 1);
	assert_int_equal(vcpus[0].requests, 0);
	ept_running[9] = NULL;
}

/* A paused VM takes no time and no wake-ups, but does what control.c asks of it. */
static void test_paused(void **state)
{
	static struct vm other;

	start(12);
	add(0, 12, 0, 0);
	add(1, 12, 50 * US, 950 * US)->vm = &other;
	run_for(10 * MS);
	other.pause.on = 1;
	behaviour[0].turns = behaviour[1].turns = 0;
	run_for(100 * MS);
	assert_int_equal(behaviour[1].turns, 0);
	/* Its timers are overdue: they neither wake it nor cut its neighbour's slices. */
	assert_in_range(behaviour[0].turns, 20, 30);
	vcpus[1].requests |= REQ_IRQ | REQ_NMI | REQ_INIT | REQ_TIMER;
	run_for(20 * MS);
	assert_int_equal(behaviour[1].turns, 0);
	vcpus[1].requests = REQ_LOOK;
	run_for(20 * MS);
	assert_int_equal(vcpus[1].requests, 0);
	other.pause.on = 0;
	run_for(20 * MS);
	assert_true(behaviour[1].turns > 5);
	other.pause.on = 1;
	vcpus[1].requests = REQ_STOP;
	run_for(20 * MS);
	assert_int_equal(stopped, 1);
}

/* What has to be done at a VM's end is done in its turns: others go on. */
static void test_last_words(void **state)
{
	start(13);
	add(0, 13, 0, 0);
	add(1, 13, 0, 0);
	run_for(20 * MS);
	behaviour[1].last_words = 50;
	vcpus[1].requests |= REQ_STOP;
	behaviour[0].got = 0;
	run_for(60 * MS);
	assert_int_equal(stopped, 0);
	assert_in_range(percent(0, 60 * MS), 45, 55);
	run_for(60 * MS);
	assert_int_equal(stopped, 1);
	assert_int_equal(behaviour[1].last_words, 0);
}

/* The times that stats.h promises. */
static void test_times(void **state)
{
	start(11);
	add(0, 11, 0, 0);
	add(1, 11, 50 * US, 950 * US)->watch = WATCH_TRACE;
	run_for(300 * MS);
	/* Up to the last tick: what it got, and the rest of the time asleep or waiting. */
	assert_in_range(vcpus[0].run_tsc, behaviour[0].got - 5 * MS, behaviour[0].got);
	assert_in_range(vcpus[1].run_tsc, behaviour[1].got - MS, behaviour[1].got);
	assert_int_equal(vcpus[0].halted_tsc, 0);
	assert_in_range(vcpus[1].halted_tsc, 270 * MS, 290 * MS);
	assert_int_equal(vcpus[0].watched_tsc, 0);
	assert_int_equal(vcpus[1].watched_tsc, vcpus[1].run_tsc);
	/* Each turn is measured from its beginning. */
	assert_int_equal(vcpus[0].root_since, 0);
	assert_true(vcpus[1].root_since != 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_equal_shares),
		cmocka_unit_test(test_sleeper),
		cmocka_unit_test(test_greedy),
		cmocka_unit_test(test_no_hoarding),
		cmocka_unit_test(test_newcomer),
		cmocka_unit_test(test_yield),
		cmocka_unit_test(test_timer_before_sleep),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_idle_boot_cpu_polls),
		cmocka_unit_test(test_kick),
		cmocka_unit_test(test_paused),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_last_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
