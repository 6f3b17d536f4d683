/*
 * One instruction of the guest on other pages than the rest of the VM has: see vm/vcpu.h.
 *
 * The vCPU enters with an overlay of its view (ept.h) and with TF set, so that the processor comes
 * back by #DB after one instruction; any other exit ends it before. What could get hold of the TF
 * that is not the guest's, or let another instruction come first, is kept out: all exceptions exit,
 * IF is clear so that no interrupt is delivered, and if anything is to be injected, or the view has
 * changed, the step is called off before the entry: the guest comes to the same instruction again.
 *
 * The monitor trap flag would do, but Bochs (2.7) advertises it and never exits.
 *
 * An event that is delivered with the overlay needs no trap: nothing can be executed there, so that
 * the fetch of the handler's first instruction ends the step.
 */
#include "vm/internal.h"
#include "x86/regs.h"

#define PENDING_BS   BIT64(14)
#define STEP_FLAGS   (RFLAGS_IF | RFLAGS_TF)
#define SHADOW	     (INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS)
#define DEBUGCTL_BTF BIT64(1)
#define QUAL_FETCH   BIT64(2) /* of an EPT violation (SDM table 28-7) */

void vcpu_step_begin(struct vcpu *vcpu)
{
	struct vcpu_step *s = &vcpu->step;

	s->delivery = vcpu->event.info;
	if (s->delivery)
		ept_overlay_no_code(&s->overlay);
	ept_overlay_use(&s->overlay);
	vmcs_write(VMCS_EPTP, s->overlay.eptp);
	vcpu->watch |= WATCH_STEP;
	if (s->delivery)
		return;
	s->rip = vmcs_read(VMCS_GUEST_RIP);
	s->rflags = vmcs_read(VMCS_GUEST_RFLAGS);
	s->shadow = vmcs_read(VMCS_GUEST_INTERRUPTIBILITY);
	s->debugctl = vmcs_read(VMCS_GUEST_DEBUGCTL);
	/*
	 * A trap that is pending would come before the instruction. There is one only with blocking
	 * by MOV SS (SDM 28.3.4), and of what that holds back single-stepping has to come after the
	 * instruction. Bochs (2.7) saves BS whenever TF is set: the guest would be trapped for
	 * ever.
	 */
	s->pending = vmcs_read(VMCS_GUEST_PENDING_DEBUG);
	vmcs_write(VMCS_GUEST_PENDING_DEBUG,
		   s->shadow & INTERRUPTIBILITY_MOV_SS ? s->pending & ~PENDING_BS : 0);
	vmcs_write(VMCS_GUEST_RFLAGS, (s->rflags & ~(u64)RFLAGS_IF) | RFLAGS_TF);
	/* The instruction ends the shadow; with TF, entry wants BS pending in it (SDM 27.3.1.5). */
	vmcs_write(VMCS_GUEST_INTERRUPTIBILITY, s->shadow & ~(u64)SHADOW);
	vmcs_write(VMCS_GUEST_DEBUGCTL, s->debugctl & ~DEBUGCTL_BTF);
	vmcs_write(VMCS_EXCEPTION_BITMAP, ~0u);
}

void vcpu_step_end(struct vcpu *vcpu)
{
	struct vcpu_step *s = &vcpu->step;
	u64 rflags = vmcs_read(VMCS_GUEST_RFLAGS);

	vcpu->watch &= ~(u64)WATCH_STEP;
	vmcs_write(VMCS_EPTP, vcpu->view->eptp);
	if (s->delivery) {
		s->overlay.generation = 0; /* code may be executed on the next one */
		return;
	}
	vmcs_write(VMCS_GUEST_RFLAGS, (rflags & ~(u64)STEP_FLAGS) | (s->rflags & STEP_FLAGS));
	if ((s->shadow & SHADOW) && vmcs_read(VMCS_GUEST_RIP) == s->rip) {
		vmcs_write(VMCS_GUEST_INTERRUPTIBILITY, s->shadow);
		vmcs_write(VMCS_GUEST_PENDING_DEBUG, s->pending);
	}
	vmcs_write(VMCS_GUEST_DEBUGCTL, s->debugctl);
	vmcs_write(VMCS_EXCEPTION_BITMAP, vcpu->exception_bitmap);
}

bool vcpu_step_exit(struct vcpu *vcpu, u32 reason)
{
	u32 info = (u32)vmcs_read(VMCS_EXIT_INTR_INFO);

	vcpu_step_end(vcpu);
	if (vcpu->step.delivery)
		return reason == EXIT_EPT_VIOLATION &&
		       (vmcs_read(VMCS_EXIT_QUALIFICATION) & QUAL_FETCH) &&
		       !(vmcs_read(VMCS_IDT_VECTORING_INFO) & INTR_INFO_VALID);
	/* It may be for something that the view has and the overlay does not have yet. */
	if (reason == EXIT_EPT_VIOLATION)
		vcpu->step.overlay.generation = 0;
	/*
	 * Our own trap, with nothing of the guest's in it. (With a breakpoint of the guest's, it
	 * finds BS in DR6 too.)
	 */
	return reason == EXIT_EXCEPTION_NMI &&
	       (info & (INTR_INFO_TYPE | INTR_INFO_VECTOR)) == (INTR_TYPE_HW_EXCEPTION | VEC_DB) &&
	       !(vcpu->step.rflags & RFLAGS_TF) && !(vmcs_read(VMCS_EXIT_QUALIFICATION) & 0xf);
}

void vcpu_step_check(struct vcpu *vcpu, u32 requests)
{
	bool other = vcpu->nmi_pending || vcpu->event.info;

	/* Its event comes before all others. */
	if (vcpu->step.delivery) {
		requests &= ~(u32)REQ_EVENT;
		other = false;
	}
	/* Interrupts and timers can wait: with IF clear, looking at them injects nothing. */
	if ((requests & ~(REQ_WATCH | REQ_IRQ | REQ_TIMER | REQ_EOI_MAP)) || other ||
	    vcpu->step.overlay.generation !=
		    __atomic_load_n(&vcpu->view->generation, __ATOMIC_SEQ_CST))
		vcpu_step_end(vcpu);
}
