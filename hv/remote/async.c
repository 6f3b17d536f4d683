/* Asynchronous page faults: see async.h. */
#include "remote/async.h"

#include <umbra/hypercall.h>

#include "mem/frame.h"
#include "remote/internal.h"
#include "vm/apf.h"
#include "vm/platform.h"
#include "vmx/vmx.h"
#include "x86/asm.h"
#include "x86/regs.h"

/* KVM_MSR_ASYNC_PF_EN. Bit 2 is for nested guests, and not offered. */
#define EN_ENABLED     BIT64(0)
#define EN_SEND_ALWAYS BIT64(1) /* at other CPLs than 3 as well */
#define EN_BY_IRQ      BIT64(3) /* the only way to tell that a page is here */
#define EN_RESERVED    (BIT64(2) | BIT64(4) | BIT64(5))
#define EN_ADDRESS     (~63ull)

#define ACK_DONE BIT64(0)

struct area {
	u32 flags; /* AREA_NOT_PRESENT, until the guest has seen it */
	u32 token; /* of what is ready; 0: the guest has seen it */
};
_Static_assert(sizeof(struct area) == 8, "all that is used of the guest's 64 bytes");

#define AREA_NOT_PRESENT 1u
#define TOKEN_ALL	 (~0u)
#define FIRST_VECTOR	 16u /* of those that a local APIC delivers */

/*
 * A token:
 *
 *   bits    what
 *   0-11    vCPU
 *   12-17   slot
 *   18-31   serial number, not 0
 *
 * So two that are under way are never the same, and none is 0 or TOKEN_ALL.
 */
#define TOKEN_SLOT_SHIFT   12
#define TOKEN_SERIAL_SHIFT 18
#define TOKEN_SERIALS	   BIT(14)

_Static_assert(BOOT_MAX_VCPUS < BIT(TOKEN_SLOT_SHIFT), "vCPUs fit, and their bits are never all 1");
_Static_assert(ASYNC_FAULTS == BIT(TOKEN_SERIAL_SHIFT - TOKEN_SLOT_SHIFT), "slots fit");
_Static_assert(TOKEN_SERIALS == BIT(32 - TOKEN_SERIAL_SHIFT), "the rest is serial number");

/* Of a vCPU. */
struct async {
	u64 control; /* KVM_MSR_ASYNC_PF_EN as written */
	u32 page;    /* on: of the area; pinned */
	u32 offset;  /* on: of the area in its page */
	u32 serial;
	u32 last; /* token of the last #PF */
	u8 vector;
	bool on;
	bool told;     /* an interrupt that the guest has not acknowledged */
	bool wake_all; /* to be told */
	bool dropped;  /* somebody may still wait since it was disabled */
	u64 busy;      /* bit: slot in use */
	u64 waiting;   /* bit: its page is on its way; else it is in ready[] */
	u32 wanted[ASYNC_FAULTS];
	u32 token[ASYNC_FAULTS];
	u8 ready[ASYNC_FAULTS]; /* slots in order, a ring */
	u32 ready_first, ready_count;
	struct async_stats stats;
};

int async_create(struct vm_remote *r)
{
	if (!r->vm->config->async_pf)
		return 0;
	r->async = heap_alloc(BOOT_MAX_VCPUS * sizeof(r->async[0]));
	return r->async ? 0 : ERR_NOMEM;
}

void async_destroy(struct vm_remote *r)
{
	if (r->async)
		heap_free(r->async, BOOT_MAX_VCPUS * sizeof(r->async[0]));
	r->async = NULL;
}

void async_stats(const struct vm_remote *r, struct async_stats *out)
{
	*out = (struct async_stats){0};
	for (u32 i = 0; r->async && i < BOOT_MAX_VCPUS; i++) {
		out->faults += r->async[i].stats.faults;
		out->ready += r->async[i].stats.ready;
		out->waits += r->async[i].stats.waits;
	}
}

/* --- with the lock held ----------------------------------------------------------------------- */

/* As `on` has it, where it always is here; NULL: not so, which the guest cannot bring about. */
static struct area *open_area(struct vm_remote *r, const struct async *a)
{
	struct pager_access access = {.page = a->page, .write = true, .door = true};
	struct pager_place place;

	if (pager_state(r->pager, a->page) != PAGER_HERE ||
	    pager_access(r->pager, &access, &place) != PAGER_READY)
		return NULL;
	return (struct area *)(void *)((u8 *)phys_to_ptr(remote_frame(r, place.frame)) + a->offset);
}

/* The guest would take a #PF now, and can do something else then. */
static bool can_schedule(const struct vcpu *vcpu, const struct async *a)
{
	u64 cpl = vmcs_read(VMCS_GUEST_SS_AR) >> 5 & 3;

	return !vcpu->event.info && (cpl == 3 || (a->control & EN_SEND_ALWAYS)) &&
	       (vmcs_read(VMCS_GUEST_RFLAGS) & RFLAGS_IF) &&
	       !vmcs_read(VMCS_GUEST_INTERRUPTIBILITY) && (vmcs_read(VMCS_GUEST_CR0) & CR0_PG);
}

static u32 new_token(struct async *a, u32 vcpu, u32 slot)
{
	a->serial = a->serial % (TOKEN_SERIALS - 1) + 1;
	return a->serial << TOKEN_SERIAL_SHIFT | slot << TOKEN_SLOT_SHIFT | vcpu;
}

bool async_begin(struct vm_remote *r, struct vcpu *vcpu, u32 page)
{
	struct async *a = &r->async[vcpu->index];
	struct area *area;
	u32 slot;

	if (!a->on)
		return false;
	a->stats.waits++;
	if (!~a->busy || a->vector < FIRST_VECTOR || !can_schedule(vcpu, a))
		return false;
	area = open_area(r, a);
	if (!area || __atomic_load_n(&area->flags, __ATOMIC_RELAXED))
		return false;
	a->stats.waits--;
	a->stats.faults++;
	slot = (u32)__builtin_ctzll(~a->busy);
	a->busy |= BIT64(slot);
	a->waiting |= BIT64(slot);
	a->wanted[slot] = page;
	a->token[slot] = a->last = new_token(a, vcpu->index, slot);
	__atomic_store_n(&area->flags, AREA_NOT_PRESENT, __ATOMIC_RELAXED);
	vcpu_inject_pf(vcpu, gva(a->token[slot]), 0);
	/* It runs on, with an eye on the network from now on. */
	vcpu_request(vcpu, REQ_TIMER);
	return true;
}

static u32 next_ready(struct async *a)
{
	u32 slot;

	if (a->wake_all) {
		a->wake_all = false;
		return TOKEN_ALL;
	}
	slot = a->ready[a->ready_first];
	a->ready_first = (a->ready_first + 1) % ASYNC_FAULTS;
	a->ready_count--;
	a->busy &= ~BIT64(slot);
	return a->token[slot];
}

/* The next thing that the guest can be told. */
static void tell(struct vm_remote *r, struct vcpu *vcpu)
{
	struct async *a = &r->async[vcpu->index];
	struct area *area;

	if (!a->on || a->told || !(a->ready_count || a->wake_all) || a->vector < FIRST_VECTOR ||
	    !platform_apic_takes_fixed(vcpu))
		return;
	area = open_area(r, a);
	if (!area || __atomic_load_n(&area->token, __ATOMIC_RELAXED))
		return;
	__atomic_store_n(&area->token, next_ready(a), __ATOMIC_RELEASE);
	a->told = true;
	a->stats.ready++;
	vcpu_post_irq(vcpu, a->vector);
}

void async_end(struct vm_remote *r, u32 page)
{
	for (u32 i = 0; i < r->vm->vcpu_count; i++) {
		struct async *a = &r->async[i];

		for (u64 left = a->waiting; left; left &= left - 1) {
			u32 slot = (u32)__builtin_ctzll(left);

			if (a->wanted[slot] != page)
				continue;
			a->waiting &= ~BIT64(slot);
			a->ready[(a->ready_first + a->ready_count++) % ASYNC_FAULTS] = (u8)slot;
		}
		if (a->ready_count)
			tell(r, r->vm->vcpu[i]);
	}
}

static void switch_off(struct vm_remote *r, struct async *a)
{
	if (!a->on)
		return;
	pager_unpin(r->pager, a->page);
	a->dropped = a->dropped || a->busy || a->told || a->wake_all;
	a->on = a->told = a->wake_all = false;
	a->busy = a->waiting = 0;
	a->ready_count = 0;
}

/* --- what vm/ calls --------------------------------------------------------------------------- */

static int switch_on(struct vcpu *vcpu, u64 value)
{
	struct vm_remote *r = vcpu->vm->remote;
	struct async *a = &r->async[vcpu->index];
	gpa_t at = gpa(value & EN_ADDRESS);
	const struct region *region = space_find(&vcpu->vm->space, at);
	struct area *area;
	u32 page;

	if (!region || region->kind != REGION_REMOTE)
		return ERR_INVAL;
	area = (struct area *)(void *)remote_open(vcpu->vm, region, at, true, false);
	if (!area)
		return ERR_AGAIN;
	page = away_page(region, at);
	if (!pager_pin(r->pager, page)) {
		/* As many pins as it can have: those of other vCPUs' exits are gone soon. */
		remote_close(vcpu->vm);
		return ERR_AGAIN;
	}
	if (a->on) {
		pager_unpin(r->pager, a->page);
	} else {
		*area = (struct area){0};
		a->wake_all = a->dropped;
		a->dropped = false;
	}
	a->on = true;
	a->control = value;
	a->page = page;
	a->offset = (u32)(at.v % PAGE_SIZE);
	tell(r, vcpu);
	remote_close(vcpu->vm);
	return 0;
}

static int write_control(struct vcpu *vcpu, u64 value)
{
	struct vm_remote *r = vcpu->vm->remote;
	struct async *a = &r->async[vcpu->index];

	if (value & EN_RESERVED)
		return ERR_INVAL;
	if ((value & EN_ENABLED) && (value & EN_BY_IRQ))
		return switch_on(vcpu, value);
	spin_lock(remote_lock(r));
	switch_off(r, a);
	a->control = value;
	spin_unlock(remote_lock(r));
	return 0;
}

bool apf_offered(const struct vm *vm)
{
	return vm->remote && vm->remote->async;
}

bool apf_msr_read(struct vcpu *vcpu, u32 msr, u64 *value)
{
	const struct async *a;

	if (!apf_offered(vcpu->vm))
		return false;
	a = &vcpu->vm->remote->async[vcpu->index];
	switch (msr) {
	case KVM_MSR_ASYNC_PF_EN:
		*value = a->control;
		return true;
	case KVM_MSR_ASYNC_PF_INT:
		*value = a->vector;
		return true;
	case KVM_MSR_ASYNC_PF_ACK:
		*value = 0;
		return true;
	}
	return false;
}

int apf_msr_write(struct vcpu *vcpu, u32 msr, u64 value)
{
	struct vm_remote *r = vcpu->vm->remote;
	struct async *a;

	if (!apf_offered(vcpu->vm))
		return ERR_INVAL;
	if (msr == KVM_MSR_ASYNC_PF_EN)
		return write_control(vcpu, value);
	if (msr != KVM_MSR_ASYNC_PF_INT && msr != KVM_MSR_ASYNC_PF_ACK)
		return ERR_INVAL;
	if (msr == KVM_MSR_ASYNC_PF_INT && value > 0xff)
		return ERR_INVAL;
	a = &r->async[vcpu->index];
	spin_lock(remote_lock(r));
	if (msr == KVM_MSR_ASYNC_PF_INT)
		a->vector = (u8)value;
	else if (value & ACK_DONE)
		a->told = false;
	tell(r, vcpu);
	spin_unlock(remote_lock(r));
	return 0;
}

void apf_reset(struct vcpu *vcpu)
{
	struct vm_remote *r = vcpu->vm->remote;
	struct async *a;

	if (!apf_offered(vcpu->vm))
		return;
	a = &r->async[vcpu->index];
	spin_lock(remote_lock(r));
	switch_off(r, a);
	a->dropped = false;
	a->control = 0;
	a->vector = 0;
	spin_unlock(remote_lock(r));
}

bool apf_seen(const struct vcpu *vcpu)
{
	struct vm_remote *r = vcpu->vm->remote;
	const struct async *a;
	const struct area *area;
	bool seen = false;

	if (!apf_offered(vcpu->vm))
		return false;
	a = &r->async[vcpu->index];
	spin_lock(remote_lock(r));
	if (a->on && a->last && read_cr2() == a->last) {
		area = open_area(r, a);
		seen = area && !__atomic_load_n(&area->flags, __ATOMIC_RELAXED);
	}
	spin_unlock(remote_lock(r));
	return seen;
}

void apf_apic_changed(struct vcpu *vcpu)
{
	struct vm_remote *r = vcpu->vm->remote;

	if (!apf_offered(vcpu->vm))
		return;
	spin_lock(remote_lock(r));
	tell(r, vcpu);
	spin_unlock(remote_lock(r));
}
