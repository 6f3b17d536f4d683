/* Pausing VMs, and looking at their registers: see control.h. */
#include "vm/control.h"

#include "vm/internal.h"
#include "vm/linear.h"
#include "x86/asm.h"

static struct {
	struct spinlock lock;
	const struct vcpu *wanted; /* whose answer is missing */
	bool done;
	struct vcpu_regs regs;
} look;

bool vm_paused(const struct vm *vm)
{
	return vm_is_paused(vm);
}

static void request_all(struct vm *vm, u32 requests)
{
	for (u32 i = 0; i < vm->vcpu_count; i++)
		vcpu_request(vm->vcpu[i], requests);
}

void vm_pause(struct vm *vm)
{
	struct vm_pause *pause = &vm->pause;

	if (pause->on)
		return;
	pause->number++;
	pause->asked = vm->vcpu_count;
	pause->since = rdtsc();
	__atomic_store_n(&pause->on, 1, __ATOMIC_SEQ_CST);
	request_all(vm, REQ_PAUSE);
}

void vm_resume(struct vm *vm)
{
	struct vm_pause *pause = &vm->pause;
	u64 ticks, now = rdtsc();

	if (!pause->on)
		return;
	if (!__atomic_load_n(&pause->asked, __ATOMIC_ACQUIRE) && now > pause->since) {
		/* Nobody uses any of this while all vCPUs know that they are paused. */
		ticks = now - pause->since;
		for (u32 i = 0; i < vm->vcpu_count; i++)
			vm->vcpu[i]->tsc_offset -= ticks;
		platform_skip_time(vm, ticks);
	}
	__atomic_store_n(&pause->on, 0, __ATOMIC_SEQ_CST);
	request_all(vm, REQ_PAUSE | REQ_TIMER | REQ_IRQ);
}

static void note_stop(struct vcpu *vcpu)
{
	struct vm_pause *pause = &vcpu->vm->pause;
	u64 now = rdtsc(), since = __atomic_load_n(&pause->since, __ATOMIC_RELAXED);

	if (vcpu->pause_seen == pause->number)
		return;
	vcpu->pause_seen = pause->number;
	while (now > since && !__atomic_compare_exchange_n(&pause->since, &since, now, false,
							   __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
	__atomic_sub_fetch(&pause->asked, 1, __ATOMIC_RELEASE);
}

static void read_segments(struct vcpu_regs *r)
{
	for (u32 i = 0; i < SEGMENT_COUNT; i++) {
		r->segment[i].selector = (u16)vmcs_read((enum vmcs_field)(VMCS_GUEST_ES + 2 * i));
		r->segment[i].base = vmcs_read((enum vmcs_field)(VMCS_GUEST_ES_BASE + 2 * i));
		r->segment[i].limit =
			(u32)vmcs_read((enum vmcs_field)(VMCS_GUEST_ES_LIMIT + 2 * i));
		r->segment[i].ar = (u32)vmcs_read((enum vmcs_field)(VMCS_GUEST_ES_AR + 2 * i));
	}
	r->gdt_base = vmcs_read(VMCS_GUEST_GDTR_BASE);
	r->gdt_limit = (u32)vmcs_read(VMCS_GUEST_GDTR_LIMIT);
	r->idt_base = vmcs_read(VMCS_GUEST_IDTR_BASE);
	r->idt_limit = (u32)vmcs_read(VMCS_GUEST_IDTR_LIMIT);
}

static void read_registers(struct vcpu *vcpu)
{
	struct vcpu_regs *r = &look.regs;

	spin_lock(&look.lock);
	if (look.wanted == vcpu && !look.done) {
		for (u32 i = 0; i < 16; i++)
			r->gpr[i] = vcpu->gpr[i];
		r->gpr[RSP] = vmcs_read(VMCS_GUEST_RSP);
		r->rip = vmcs_read(VMCS_GUEST_RIP);
		r->rflags = vmcs_read(VMCS_GUEST_RFLAGS);
		r->cr2 = read_cr2();
		r->dr7 = vmcs_read(VMCS_GUEST_DR7);
		read_segments(r);
		walk_state_load(vcpu, &r->walk);
		look.done = true;
	}
	spin_unlock(&look.lock);
}

bool control_serve(struct vcpu *vcpu, u32 requests)
{
	if (requests & REQ_LOOK)
		read_registers(vcpu);
	if (vm_is_paused(vcpu->vm)) {
		note_stop(vcpu);
		return false;
	}
	if (requests & REQ_PAUSE)
		vmcs_write(VMCS_TSC_OFFSET, vcpu->tsc_offset);
	return true;
}

void vcpu_look(struct vcpu *vcpu)
{
	spin_lock(&look.lock);
	look.wanted = vcpu;
	look.done = false;
	spin_unlock(&look.lock);
	vcpu_request(vcpu, REQ_LOOK);
}

bool vcpu_look_result(struct vcpu_regs *out)
{
	bool done;

	spin_lock(&look.lock);
	done = look.done;
	if (done)
		*out = look.regs;
	spin_unlock(&look.lock);
	return done;
}
