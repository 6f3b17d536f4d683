/*
 * Which vCPU runs on a physical CPU. vCPUs never move; those that share a CPU take turns, a slice
 * at a time, and a halted one yields at once. The VMX preemption timer is tick, slice and the
 * guests' timers in one: vcpu->deadline is the earliest of them.
 *
 * The one that has used least time so far goes next. Turns alone would not be fair: whoever makes
 * its neighbours leave guest mode early, by timers that wake it or by IPIs to it, would leave them
 * with next to nothing. One that has slept is credited no more than a slice.
 */
#include "lib/log.h"
#include "net/net.h"
#include "vm/away.h"
#include "vm/console.h"
#include "vm/internal.h"
#include "x86/apic.h"
#include "x86/asm.h"
#include "x86/cpu.h"
#include "x86/tsc.h"

struct pcpu {
	struct spinlock lock; /* of the list; only its own CPU removes */
	struct vcpu *first;   /* linked by sched_next, new ones at the end */
	u32 count;
	u32 idle;	      /* atomic: asleep, or about to: send an interrupt */
	struct vcpu *current; /* whose VMCS and live state are loaded */
	u64 slice_end;
	u64 since;	/* TSC up to which the current one's time has been counted */
	u64 floor;	/* TSC ticks: nobody counts as having used less */
	u64 console_at; /* TSC: when the console is to be looked at */
	u64 spins;	/* TSC: since when it has polled for frames; 0: it does not */
};

static struct pcpu pcpus[MAX_CPUS];
static u64 tick_tsc, quantum_tsc, poll_tsc, spin_tsc, console_tsc;

/*
 * The console has no interrupt; an idle boot processor looks this often for input, or to refill the
 * UART's FIFO, which takes 1.4 ms to get empty.
 */
#define IDLE_POLL_US 10000
#define SEND_POLL_US 1500

/* While a neighbour waits for a page, a busy vCPU's CPU looks this often for it. */
#define PAGE_POLL_US 100

/*
 * Frames are expected: polling is the quickest way to them. If none has come for so long, a CPU
 * that the NIC can wake sleeps.
 */
#define SPIN_US 50

/* Who does not sleep looks at the console at least this often. */
#define CONSOLE_POLL_US 100

static struct pcpu *this_pcpu(void)
{
	return &pcpus[this_cpu()->index];
}

void sched_init(const struct boot_info *boot)
{
	tick_tsc = tsc_from_us(boot->options.tick_us);
	quantum_tsc = tsc_from_us(boot->options.quantum_us);
	poll_tsc = tsc_from_us(PAGE_POLL_US);
	spin_tsc = tsc_from_us(SPIN_US);
	console_tsc = tsc_from_us(CONSOLE_POLL_US);
}

struct vcpu *sched_current(void)
{
	return this_pcpu()->current;
}

bool sched_shared(const struct vcpu *vcpu)
{
	return pcpus[vcpu->cpu].count > 1;
}

static bool needs_kick(u32 cpu)
{
	return __atomic_load_n(&ept_running[cpu], __ATOMIC_SEQ_CST) ||
	       __atomic_load_n(&pcpus[cpu].idle, __ATOMIC_SEQ_CST);
}

/*
 * The CPU is in root mode for a neighbour of `vcpu`, into which it may go back without a look at
 * anybody else's requests. p->lock keeps the neighbour from being freed: see retire().
 */
static void call_back(struct pcpu *p, const struct vcpu *vcpu)
{
	spin_lock(&p->lock);
	if (p->current && p->current != vcpu)
		__atomic_or_fetch(&p->current->requests, REQ_YIELD, __ATOMIC_SEQ_CST);
	spin_unlock(&p->lock);
}

void sched_kick(struct vcpu *vcpu)
{
	bool kick = needs_kick(vcpu->cpu);

	if (!kick && sched_shared(vcpu)) {
		call_back(&pcpus[vcpu->cpu], vcpu);
		kick = needs_kick(vcpu->cpu);
	}
	if (kick)
		apic_send(vcpu->cpu, VECTOR_KICK);
}

/* ept/ kicks CPUs that it has seen in guest mode. */
void ept_kick_cpu(u32 cpu)
{
	apic_send(cpu, VECTOR_KICK);
}

void sched_notify(struct vcpu *vcpu)
{
	u32 cpu = vcpu->cpu;

	if (__atomic_load_n(&pcpus[cpu].current, __ATOMIC_RELAXED) == vcpu &&
	    __atomic_load_n(&ept_running[cpu], __ATOMIC_SEQ_CST))
		apic_send(cpu, VECTOR_POSTED);
	else
		sched_kick(vcpu);
}

void sched_add(struct vcpu *vcpu)
{
	struct pcpu *p = &pcpus[vcpu->cpu];
	struct vcpu **at = &p->first;

	spin_lock(&p->lock);
	/* No credit for newcomers, or a VM that restarts all the time would always go first. */
	for (vcpu->used = p->floor; *at; at = &(*at)->sched_next)
		vcpu->used = MAX(vcpu->used, (*at)->used);
	/* Its CPU walks the list without the lock. */
	__atomic_store_n(at, vcpu, __ATOMIC_RELEASE);
	p->count++;
	spin_unlock(&p->lock);
	if (vcpu->cpu != this_cpu()->index)
		sched_kick(vcpu);
}

static void sched_remove(struct pcpu *p, struct vcpu *vcpu)
{
	struct vcpu **at = &p->first;

	spin_lock(&p->lock);
	while (*at && *at != vcpu)
		at = &(*at)->sched_next;
	if (*at) {
		*at = vcpu->sched_next;
		p->count--;
	}
	spin_unlock(&p->lock);
}

static struct vcpu *first_of(const struct pcpu *p)
{
	return __atomic_load_n(&p->first, __ATOMIC_ACQUIRE);
}

static struct vcpu *next_of(const struct vcpu *vcpu)
{
	return __atomic_load_n(&vcpu->sched_next, __ATOMIC_ACQUIRE);
}

/* The earliest moment at which a sleeping vCPU of this CPU may have to be woken. */
static u64 earliest_timer(const struct pcpu *p)
{
	u64 first = ~0ull;

	for (const struct vcpu *v = first_of(p); v; v = next_of(v))
		if ((v->state == VCPU_HALTED || v->state == VCPU_WAITING) && !vm_is_paused(v->vm))
			first = MIN(first, v->timer_deadline);
	return first;
}

void sched_deadline(struct vcpu *vcpu, u64 now)
{
	const struct pcpu *p = &pcpus[vcpu->cpu];
	u64 deadline = MIN(vcpu->timer_deadline, now + tick_tsc);

	if (unlikely(remote_busy()))
		deadline = MIN(deadline, now + poll_tsc);
	if (p->count > 1)
		deadline = MIN(deadline, MIN(p->slice_end, earliest_timer(p)));
	vcpu->deadline = deadline;
}

static void account(struct pcpu *p, struct vcpu *vcpu, u64 now)
{
	vcpu->used += now - p->since;
	vcpu->run_tsc += now - p->since;
	if (vcpu->watch)
		vcpu->watched_tsc += now - p->since;
	p->since = now;
}

int sched_tick(struct vcpu *vcpu, u64 now)
{
	struct pcpu *p = &pcpus[vcpu->cpu];

	console_poll();
	if (unlikely(remote_busy()))
		remote_poll(now);
	else
		net_poll();
	account(p, vcpu, now);
	if (now >= vcpu->timer_deadline)
		platform_timers(vcpu, now);
	sched_deadline(vcpu, now);
	/* The tick alone ends no slice; who is woken is the scheduler's business. */
	if (sched_shared(vcpu) && (now >= p->slice_end || now >= earliest_timer(p)))
		return RUN_LEAVE;
	return RUN_AGAIN;
}

static void switch_to(struct pcpu *p, struct vcpu *vcpu)
{
	if (p->current == vcpu)
		return;
	if (p->current)
		vcpu_state_save(p->current);
	__atomic_store_n(&p->current, vcpu, __ATOMIC_RELAXED);
	if (vcpu->fresh)
		vmcs_clear(vcpu->vmcs);
	vmcs_load(vcpu->vmcs);
	vcpu_state_load(vcpu);
	if (vcpu->fresh) {
		vmcs_setup(vcpu);
		vm_vcpu_start_state(vcpu);
		vcpu->fresh = false;
	}
}

/* The vCPU's VM has ended: drop it from this CPU for good. */
static void retire(struct pcpu *p, struct vcpu *vcpu)
{
	/*
	 * Its extended state is dead; whoever comes next loads all of its own. Before
	 * sched_remove(), which waits for those that have found it here.
	 */
	if (p->current == vcpu)
		__atomic_store_n(&p->current, NULL, __ATOMIC_RELEASE);
	sched_remove(p, vcpu);
	/* The processor may still cache it (SDM 25.11.1), and its frame is about to be reused. */
	vmcs_clear(vcpu->vmcs);
	vcpu->state = VCPU_STOPPED;
	vm_vcpu_stopped(vcpu);
}

/* Could this vCPU execute an instruction now? Looks at its requests without serving them all. */
static bool wants_cpu(struct vcpu *vcpu, u64 now)
{
	u32 requests = __atomic_load_n(&vcpu->requests, __ATOMIC_ACQUIRE);

	if (unlikely((requests & CONTROL_REQUESTS) || vm_is_paused(vcpu->vm)))
		return requests & CONTROL_REQUESTS;
	if (vcpu->state == VCPU_WAIT_SIPI)
		return requests & (REQ_SIPI | REQ_INIT);
	if (now >= vcpu->timer_deadline)
		platform_timers(vcpu, now);
	if (vcpu->state == VCPU_WAITING)
		return requests & (REQ_PAGE | REQ_INIT);
	if (vcpu->state == VCPU_RUNNABLE || (requests & (REQ_INIT | REQ_NMI | REQ_DEVICE)))
		return true;
	if (requests & REQ_TIMER)
		platform_timers(vcpu, now);
	return event_would_wake(vcpu);
}

static u64 charged(const struct pcpu *p, const struct vcpu *vcpu)
{
	return MAX(vcpu->used, p->floor);
}

/* Looks at every vCPU, so that afterwards all timers lie in the future. */
static struct vcpu *pick(struct pcpu *p)
{
	u64 now = rdtsc();
	struct vcpu *best = NULL;

	for (struct vcpu *v = first_of(p); v; v = next_of(v))
		if (wants_cpu(v, now) && (!best || charged(p, v) < charged(p, best)))
			best = v;
	if (best) {
		best->used = charged(p, best);
		if (best->used > quantum_tsc)
			p->floor = MAX(p->floor, best->used - quantum_tsc);
	}
	return best;
}

void sched_give_way(struct vcpu *vcpu)
{
	const struct pcpu *p = &pcpus[vcpu->cpu];

	for (const struct vcpu *v = first_of(p); v; v = next_of(v))
		if (v != vcpu && v->state == VCPU_RUNNABLE)
			vcpu->used = MAX(vcpu->used, v->used + 1);
	vcpu_request(vcpu, REQ_YIELD);
}

static void idle(struct pcpu *p, u64 wake)
{
	__atomic_store_n(&p->idle, 1, __ATOMIC_SEQ_CST);
	/* Whoever posts something from now on sends an interrupt; what was posted before shows
	 * here. */
	if (!pick(p)) {
		/* Not before: what has been posted may have changed a timer. */
		u64 timer = earliest_timer(p);

		wake = MIN(wake, timer);
		if (this_cpu()->index == 0)
			wake = MIN(wake, rdtsc() + tsc_from_us(console_unsent() ? SEND_POLL_US
										: IDLE_POLL_US));
		if (wake != ~0ull)
			apic_timer_arm(wake);
		cpu_idle();
		apic_timer_stop();
	}
	__atomic_store_n(&p->idle, 0, __ATOMIC_SEQ_CST);
}

static __noinline void doze(struct pcpu *p)
{
	if (net_arm())
		idle(p, net_deadline());
	net_disarm();
	p->spins = 0;
}

/* Frames are expected, and nothing has come. */
static void spin(struct pcpu *p, u64 now)
{
	if (!p->spins)
		p->spins = now;
	if (unlikely(now - p->spins >= spin_tsc))
		doze(p);
}

/* While frames come and go the boot processor stays awake for them. */
static bool idle_net_poll(void)
{
	return net_poll() && this_cpu()->index == 0;
}

/* It has the CPU from now on, be it asleep before or not. */
static void begin_turn(struct vcpu *vcpu, u64 now)
{
	if (vcpu->halted_since) {
		vcpu->halted_tsc += now - vcpu->halted_since;
		vcpu->halted_since = 0;
	}
	if (vcpu->watch) {
		vcpu->root_since = now;
		__atomic_or_fetch(&vcpu->requests, REQ_WATCH, __ATOMIC_RELAXED);
	}
}

static void run(struct pcpu *p, struct vcpu *vcpu)
{
	u64 now;
	int result;

	if (__atomic_load_n(&vcpu->requests, __ATOMIC_ACQUIRE) & REQ_STOP) {
		now = rdtsc();
		if (vm_vcpu_may_stop(vcpu))
			retire(p, vcpu);
		else
			vcpu->used += rdtsc() - now; /* others have their turns meanwhile */
		return;
	}
	switch_to(p, vcpu);
	if (vmx_has(FEAT_POSTED))
		cpu_take_interrupts(); /* a late notification: see event_deliver() */
	p->since = now = rdtsc();
	p->slice_end = now + quantum_tsc;
	sched_deadline(vcpu, now);
	begin_turn(vcpu, now);
	/* What stopped it from running may have gone: the requests are looked at afresh. */
	__atomic_or_fetch(&vcpu->requests, REQ_IRQ, __ATOMIC_RELAXED);
	result = vcpu_prepare(vcpu);
	if (result == RUN_AGAIN)
		result = vmx_run(vcpu);
	if (result == RUN_ENTRY_FAILED) {
		ept_leave(vcpu->cpu);
		vcpu->launched = 0;
		vcpu_entry_failed(vcpu, 0);
	}
	now = rdtsc();
	account(p, vcpu, now);
	if (vcpu->state == VCPU_HALTED)
		vcpu->halted_since = now;
}

static void look_at_console(struct pcpu *p, u64 now)
{
	if (now < p->console_at)
		return;
	p->console_at = now + console_tsc;
	console_poll();
}

bool sched_await(struct vcpu *vcpu)
{
	struct pcpu *p = this_pcpu();
	u32 state = vcpu->state, requests = 0;
	u64 now;

	p->spins = 0;
	vcpu->state = VCPU_WAITING;
	while (p->count == 1 && !vcpu->watch && !vm_is_paused(vcpu->vm)) {
		requests = __atomic_load_n(&vcpu->requests, __ATOMIC_ACQUIRE);
		if (requests & (REQ_PAGE | REQ_INIT | CONTROL_REQUESTS))
			break;
		now = rdtsc();
		if (!remote_poll(now))
			break;
		look_at_console(p, now);
		spin(p, now);
	}
	vcpu->state = state;
	now = rdtsc();
	p->since = now; /* it has not used the CPU */
	sched_deadline(vcpu, now);
	return requests & REQ_PAGE;
}

__noreturn void sched_loop(void)
{
	struct pcpu *p = this_pcpu();

	for (;;) {
		struct vcpu *vcpu = pick(p);
		u64 now = rdtsc();

		look_at_console(p, now);
		if (vcpu) {
			p->spins = 0;
			run(p, vcpu);
		} else if (remote_poll(now) || idle_net_poll()) {
			spin(p, now);
		} else {
			idle(p, ~0ull);
		}
	}
}
