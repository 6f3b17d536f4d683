/*
 * Which vCPU runs on a physical CPU. vCPUs never move; those that share a CPU take turns, a slice
 * at a time, and a halted one yields at once. The VMX preemption timer is tick, slice and the
 * guests' timers in one: vcpu->deadline is the earliest of them.
 */
#include "lib/log.h"
#include "lib/panic.h"
#include "vm/console.h"
#include "vm/internal.h"
#include "x86/apic.h"
#include "x86/asm.h"
#include "x86/cpu.h"
#include "x86/tsc.h"

#define CPU_MAX_VCPUS (BOOT_MAX_VMS * 2)

struct pcpu {
	struct spinlock lock; /* of the list; only its own CPU removes */
	struct vcpu *vcpu[CPU_MAX_VCPUS];
	u32 count;
	u32 turn;	      /* index of the one that ran last */
	u32 idle;	      /* atomic: asleep, or about to: send an interrupt */
	struct vcpu *current; /* whose VMCS and live state are loaded */
	u64 slice_end;
};

static struct pcpu pcpus[MAX_CPUS];
static u64 tick_tsc, quantum_tsc;

/* Input on the console has no interrupt; an idle boot processor looks this often. */
#define IDLE_POLL_US 10000

static struct pcpu *this_pcpu(void)
{
	return &pcpus[this_cpu()->index];
}

void sched_init(const struct boot_info *boot)
{
	tick_tsc = tsc_from_us(boot->options.tick_us);
	quantum_tsc = tsc_from_us(boot->options.quantum_us);
}

struct vcpu *sched_current(void)
{
	return this_pcpu()->current;
}

bool sched_shared(const struct vcpu *vcpu)
{
	return pcpus[vcpu->cpu].count > 1;
}

void sched_kick(u32 cpu)
{
	if (__atomic_load_n(&ept_running[cpu], __ATOMIC_SEQ_CST) ||
	    __atomic_load_n(&pcpus[cpu].idle, __ATOMIC_SEQ_CST))
		apic_send(cpu, VECTOR_KICK);
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
		sched_kick(cpu);
}

void sched_add(struct vcpu *vcpu)
{
	struct pcpu *p = &pcpus[vcpu->cpu];

	spin_lock(&p->lock);
	if (p->count == CPU_MAX_VCPUS)
		panic("more than %u vCPUs on CPU %u", CPU_MAX_VCPUS, vcpu->cpu);
	p->vcpu[p->count] = vcpu;
	__atomic_store_n(&p->count, p->count + 1, __ATOMIC_RELEASE);
	spin_unlock(&p->lock);
	if (vcpu->cpu != this_cpu()->index)
		sched_kick(vcpu->cpu);
}

static void sched_remove(struct pcpu *p, struct vcpu *vcpu)
{
	spin_lock(&p->lock);
	for (u32 i = 0; i < p->count; i++) {
		if (p->vcpu[i] != vcpu)
			continue;
		p->vcpu[i] = p->vcpu[p->count - 1];
		__atomic_store_n(&p->count, p->count - 1, __ATOMIC_RELEASE);
		break;
	}
	spin_unlock(&p->lock);
}

/* The earliest moment at which any vCPU of this CPU wants to be looked at. */
static u64 earliest_timer(const struct pcpu *p)
{
	u64 first = ~0ull;

	for (u32 i = 0; i < p->count; i++)
		if (p->vcpu[i]->state != VCPU_WAIT_SIPI)
			first = MIN(first, p->vcpu[i]->timer_deadline);
	return first;
}

void sched_deadline(struct vcpu *vcpu, u64 now)
{
	const struct pcpu *p = &pcpus[vcpu->cpu];
	u64 deadline = MIN(vcpu->timer_deadline, now + tick_tsc);

	if (p->count > 1)
		deadline = MIN(deadline, MIN(p->slice_end, earliest_timer(p)));
	vcpu->deadline = deadline;
}

int sched_tick(struct vcpu *vcpu, u64 now)
{
	console_poll();
	if (now >= vcpu->timer_deadline)
		platform_timers(vcpu, now);
	sched_deadline(vcpu, now);
	/* With company the scheduler decides; it comes back here if nobody else wants the CPU. */
	return sched_shared(vcpu) ? RUN_LEAVE : RUN_AGAIN;
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
	sched_remove(p, vcpu);
	/* Its extended state is dead; whoever comes next loads all of its own. */
	if (p->current == vcpu)
		__atomic_store_n(&p->current, NULL, __ATOMIC_RELAXED);
	/* The processor may still cache it (SDM 25.11.1), and its frame is about to be reused. */
	vmcs_clear(vcpu->vmcs);
	vcpu->state = VCPU_STOPPED;
	vm_vcpu_stopped(vcpu);
}

/* Could this vCPU execute an instruction now? Looks at its requests without serving them all. */
static bool wants_cpu(struct vcpu *vcpu, u64 now)
{
	u32 requests = __atomic_load_n(&vcpu->requests, __ATOMIC_ACQUIRE);

	if (vcpu->state == VCPU_WAIT_SIPI)
		return requests & (REQ_SIPI | REQ_INIT | REQ_STOP);
	if (now >= vcpu->timer_deadline)
		platform_timers(vcpu, now);
	if (vcpu->state == VCPU_RUNNABLE || (requests & (REQ_STOP | REQ_INIT | REQ_NMI)))
		return true;
	if (requests & REQ_TIMER)
		platform_timers(vcpu, now);
	return event_would_wake(vcpu);
}

static struct vcpu *pick(struct pcpu *p)
{
	u64 now = rdtsc();

	for (u32 i = 1; i <= p->count; i++) {
		u32 at = (p->turn + i) % p->count;

		if (wants_cpu(p->vcpu[at], now)) {
			p->turn = at;
			return p->vcpu[at];
		}
	}
	return NULL;
}

static void idle(struct pcpu *p)
{
	u64 wake = earliest_timer(p);
	bool boot_cpu = this_cpu()->index == 0;

	if (boot_cpu)
		wake = MIN(wake, rdtsc() + tsc_from_us(IDLE_POLL_US));
	__atomic_store_n(&p->idle, 1, __ATOMIC_SEQ_CST);
	/* Whoever posts something from now on sends an interrupt; what was posted before shows
	 * here. */
	if (!pick(p)) {
		if (wake != ~0ull)
			apic_timer_arm(wake);
		cpu_idle();
		apic_timer_stop();
	}
	__atomic_store_n(&p->idle, 0, __ATOMIC_SEQ_CST);
}

static void run(struct pcpu *p, struct vcpu *vcpu)
{
	u64 now;
	int result;

	if (__atomic_load_n(&vcpu->requests, __ATOMIC_ACQUIRE) & REQ_STOP) {
		retire(p, vcpu);
		return;
	}
	switch_to(p, vcpu);
	if (vmx_has(FEAT_POSTED))
		cpu_take_interrupts(); /* a late notification: see event_deliver() */
	now = rdtsc();
	p->slice_end = now + quantum_tsc;
	sched_deadline(vcpu, now);
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
}

__noreturn void sched_loop(void)
{
	struct pcpu *p = this_pcpu();

	for (;;) {
		struct vcpu *vcpu = pick(p);

		console_poll();
		if (vcpu)
			run(p, vcpu);
		else
			idle(p);
	}
}
