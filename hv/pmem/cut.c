/*
 * Modelled failures of power. See pmem.h.
 *
 * One is armed for a moment of the host's TSC that chance picks, and comes as a timer of vCPU 0
 * does: the VMX preemption timer takes it out of guest mode wherever it is (to the timer's unit),
 * and the others are stopped at their next exit, which is asked for. A store to a hint that is
 * being passed on is not interrupted: a queue that drains by chance leaves all states which that
 * could leave. Then, with all vCPUs stopped, what is pending gets lost or not (medium_cut()), and
 * the VM starts again.
 *
 * Meanwhile queues drain a little at random moments, or a line would be found on the medium as it
 * was at the last flush or at the end, and never in between.
 */
#include "pmem/backing.h"
#include "pmem/internal.h"
#include "vm/internal.h"
#include "vm/platform.h"
#include "x86/asm.h"

/*
 * A moment that falls into root mode would always find the guest at the same few instructions,
 * those that exit: a little later, then, in guest mode if that can be had.
 */
#define LONGEST_DELAY 4096 /* ticks */
#define MOST_DELAYS   32

/* With no failure to come it does not matter much. */
#define TICKS_PER_DRAIN 64

/* How often queues drain before power fails, on the average. */
#define DRAINS_PER_WINDOW 8

static void seed(struct vm *vm, u64 number)
{
	vm->pmem->random = number * 2 + 1;
	for (u32 i = 0; i < vm->pmem->count; i++) {
		struct medium *m = &vm->pmem->region[i].medium;

		medium_lock(m);
		medium_seed(m, number + i);
		medium_unlock(m);
	}
}

void pmem_cut_init(struct vm *vm, const struct boot_options *options)
{
	vm->pmem->random = (options->pmem_seed + vm->id) * 2 + 1;
	vm->pmem->cuts_wanted = options->pmem_cuts;
	vm->pmem->wanted_within = options->pmem_cut_within;
}

/* 0 to below - 1, xorshift64* as in model.c. */
static u64 pick(struct vm_pmem *p, u64 below)
{
	u64 x = p->random;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	p->random = x;
	return x * 0x2545f4914f6cdd1dull % below;
}

/* Nothing may get lost that is not a model. */
static bool may_lose(const struct vm *vm)
{
	bool model = false;

	for (u32 i = 0; vm->pmem && i < vm->pmem->count; i++) {
		if (vm->pmem->region[i].medium.kind == MEDIUM_REAL)
			return false;
		model |= vm->pmem->region[i].medium.kind == MEDIUM_MODEL;
	}
	return model;
}

int pmem_cut(struct vm *vm)
{
	if (!may_lose(vm))
		return ERR_INVAL;
	__atomic_store_n(&vm->pmem->cut, 1, __ATOMIC_RELAXED);
	vm_restart(vm, "modelled power failure");
	return 0;
}

static u64 next_drain(struct vm_pmem *p, u64 now)
{
	return now + 1 + pick(p, 2 * p->cut_window / DRAINS_PER_WINDOW + 1);
}

int pmem_cut_within(struct vm *vm, u64 ticks, u64 number)
{
	struct vm_pmem *p = vm->pmem;
	u64 now = rdtsc();

	if (!may_lose(vm) || ticks > PMEM_CUT_MAX)
		return ERR_INVAL;
	if (number)
		seed(vm, number);
	p->cut_window = ticks;
	p->cut_delays = 0;
	__atomic_store_n(&p->drain_at, ticks ? next_drain(p, now) : PMEM_NEVER, __ATOMIC_RELAXED);
	__atomic_store_n(&p->cut_at, ticks ? now + 1 + pick(p, ticks) : PMEM_NEVER,
			 __ATOMIC_RELEASE);
	vcpu_request(vm->vcpu[0], REQ_TIMER);
	return 0;
}

void pmem_begin(struct vm *vm)
{
	struct vm_pmem *p = vm->pmem;

	if (__atomic_exchange_n(&p->begun, true, __ATOMIC_RELAXED) || p->cuts >= p->cuts_wanted)
		return;
	/* Unless the guest has asked for one of its own. */
	if (__atomic_load_n(&p->cut_at, __ATOMIC_RELAXED) == PMEM_NEVER)
		pmem_cut_within(vm, p->wanted_within, 0);
}

u64 pmem_deadline(const struct vm *vm)
{
	u64 at = __atomic_load_n(&vm->pmem->cut_at, __ATOMIC_ACQUIRE);

	return at == PMEM_NEVER ? at
				: MIN(at, __atomic_load_n(&vm->pmem->drain_at, __ATOMIC_RELAXED));
}

int pmem_image_instead(struct vm *vm, u64 of, u64 in)
{
	struct pmem_region *from = pmem_region(vm, of), *to = pmem_region(vm, in);

	if (!from || !to || from->medium.kind != MEDIUM_MODEL || to->medium.kind != MEDIUM_MODEL ||
	    from->medium.bytes != to->medium.bytes)
		return ERR_INVAL;
	spin_lock(&vm->pmem->image_lock);
	vm->pmem->image_of = (u32)of;
	vm->pmem->image_in = (u32)in;
	spin_unlock(&vm->pmem->image_lock);
	return 0;
}

/*
 * What has been flushed is on the medium, and nothing can be while we hold its lock. So none of
 * what follows a flush in the guest's program gets into the image without what it has flushed.
 */
static bool make_image(struct vcpu *vcpu)
{
	struct vm_pmem *p = vcpu->vm->pmem;
	struct pmem_region *of, *in;
	bool wanted;

	/* Held throughout: two images at once would wait for each other's media. */
	spin_lock(&p->image_lock);
	of = &p->region[p->image_of];
	in = &p->region[p->image_in];
	wanted = of != in;
	if (wanted) {
		p->image_tsc[0] = vcpu_tsc(vcpu);
		pmem_collect(vcpu->vm, of);
		medium_lock(&in->medium);
		medium_image(&of->medium, &in->medium);
		medium_unlock(&in->medium);
		medium_unlock(&of->medium);
		p->image_tsc[1] = vcpu_tsc(vcpu);
		__atomic_add_fetch(&p->images, 1, __ATOMIC_RELEASE);
	}
	spin_unlock(&p->image_lock);
	return wanted;
}

static void drain(struct vm *vm)
{
	for (u32 i = 0; i < vm->pmem->count; i++) {
		struct pmem_region *r = &vm->pmem->region[i];

		pmem_collect(vm, r);
		medium_drain(&r->medium);
		medium_unlock(&r->medium);
	}
}

void pmem_tick(struct vcpu *vcpu, u64 now)
{
	struct vm *vm = vcpu->vm;
	struct vm_pmem *p = vm->pmem;
	u64 at = __atomic_load_n(&p->cut_at, __ATOMIC_ACQUIRE);
	const struct vcpu *current;

	for (u32 i = 0; i < p->count; i++)
		if (p->region[i].backing)
			backing_tick(vm, p->region[i].backing);
	if (at == PMEM_NEVER) {
		if (__atomic_add_fetch(&p->ticks, 1, __ATOMIC_RELAXED) % TICKS_PER_DRAIN == 0)
			drain(vm);
		return;
	}
	if (vcpu->index || now < pmem_deadline(vm))
		return;
	if (now < at) {
		__atomic_store_n(&p->drain_at, next_drain(p, now), __ATOMIC_RELAXED);
		drain(vm);
		return;
	}
	current = sched_current();
	if (current && current->vm != vm)
		current = NULL;
	if (current && p->cut_delays < MOST_DELAYS &&
	    (u32)vmcs_read(VMCS_EXIT_REASON) != EXIT_PREEMPTION_TIMER) {
		p->cut_delays++;
		__atomic_store_n(&p->cut_at, now + 1 + pick(p, LONGEST_DELAY), __ATOMIC_RELAXED);
		return;
	}
	__atomic_store_n(&p->cut_at, PMEM_NEVER, __ATOMIC_RELAXED);
	p->cut_rip = current ? vmcs_read(VMCS_GUEST_RIP) : 0;
	if (!make_image(vcpu))
		pmem_cut(vm);
}
