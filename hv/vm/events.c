/*
 * Events: exceptions, interrupts and NMIs on their way into a guest. SDM 3C 25.8.3, 27.6, 28.2;
 * 3A 6.9 (priorities), table 6-5 (double faults).
 *
 * At most one event is injected per entry. Order: an event that an exit cut short or that we
 * queued, then an NMI, then an interrupt; what has to wait gets a window exit.
 */
#include "vm/apf.h"
#include "vm/internal.h"
#include "x86/apic.h"
#include "x86/asm.h"
#include "x86/regs.h"

#define HAS_ERROR_CODE                                                                       \
	(BIT(VEC_DF) | BIT(VEC_TS) | BIT(VEC_NP) | BIT(VEC_SS) | BIT(VEC_GP) | BIT(VEC_PF) | \
	 BIT(VEC_AC) | BIT(VEC_CP))
#define CONTRIBUTORY \
	(BIT(VEC_DE) | BIT(VEC_TS) | BIT(VEC_NP) | BIT(VEC_SS) | BIT(VEC_GP) | BIT(VEC_CP))

#define BLOCKED_BY_SHADOW (INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS)

/*
 * Fault-class exceptions (SDM 3A table 6-1) but #DB, whose class depends on its cause: RF is set in
 * the RFLAGS that they push (3B 18.3.1.1), so that a breakpoint on the instruction, which has been
 * reported before, is not again.
 */
#define FAULTS                                                                               \
	(BIT(VEC_DE) | BIT(VEC_BR) | BIT(VEC_UD) | BIT(VEC_NM) | BIT(VEC_TS) | BIT(VEC_NP) | \
	 BIT(VEC_SS) | BIT(VEC_GP) | BIT(VEC_PF) | BIT(VEC_MF) | BIT(VEC_AC) | BIT(VEC_XM) | \
	 BIT(VEC_VE) | BIT(VEC_CP))

/*
 * Exit qualification of a debug exception (SDM table 28-1) and the DR6 bits it goes to. Only B0 to
 * B3 are ever cleared by the processor (3B 18.2.3).
 */
#define QUAL_DB_MASK 0x600fu
#define DR6_CLEARED  0xfu
#define DR6_FIXED    0xffff0ff0u
#define DR7_GD	     BIT64(13)
#define DEBUGCTL_BTF BIT64(1)

/* Pending debug exceptions (SDM table 25-4): an enabled breakpoint, a single step. */
#define PENDING_DEBUG (BIT64(12) | BIT64(14))

static bool is_exception(u32 info)
{
	return (info & INTR_INFO_VALID) && (info & INTR_INFO_TYPE) == INTR_TYPE_HW_EXCEPTION;
}

static bool bit_of(u32 set, u32 vector)
{
	return vector < 32 && (set >> vector & 1);
}

void event_queue(struct vcpu *vcpu, u32 info, u32 error_code, u32 instr_len)
{
	/* Real mode pushes no error codes, and VM entry insists on it (SDM 27.2.1.3). */
	if ((info & INTR_INFO_ERROR_CODE) && !(vmcs_read(VMCS_GUEST_CR0) & CR0_PE))
		info &= ~INTR_INFO_ERROR_CODE;
	vcpu->event = (struct event){info | INTR_INFO_VALID, error_code, instr_len};
	vcpu_request(vcpu, REQ_EVENT);
}

/* NMIs are blocked from now on: IRET ends that. */
static void restore_nmi_blocking(void)
{
	u64 state = vmcs_read(VMCS_GUEST_INTERRUPTIBILITY);

	vmcs_write(VMCS_GUEST_INTERRUPTIBILITY, state | INTERRUPTIBILITY_NMI);
}

/* What injected events do not, but delivery of one of this vector would do to the guest's state. */
static void deliver_side_effects(u32 vector)
{
	u64 debugctl;

	if (bit_of(FAULTS, vector)) {
		vmcs_write(VMCS_GUEST_RFLAGS, vmcs_read(VMCS_GUEST_RFLAGS) | RFLAGS_RF);
	} else if (vector == VEC_DB) {
		/* "The processor clears the BTF flag when it generates a debug exception." */
		debugctl = vmcs_read(VMCS_GUEST_DEBUGCTL);
		if (debugctl & DEBUGCTL_BTF)
			vmcs_write(VMCS_GUEST_DEBUGCTL, debugctl & ~DEBUGCTL_BTF);
	}
}

/*
 * A second exception while a first event is being delivered (SDM table 6-5). Interrupts, NMIs and
 * software events are benign: the exception takes their place, as in hardware.
 */
static void queue_exception(struct vcpu *vcpu, u8 vector, u32 error_code)
{
	u32 first = vcpu->event.info;
	u32 old = first & INTR_INFO_VECTOR;
	u32 info = INTR_TYPE_HW_EXCEPTION | vector;

	if (is_exception(first)) {
		bool second_bad = bit_of(CONTRIBUTORY, vector) || vector == VEC_PF;

		if (old == VEC_DF && second_bad) {
			vm_end(vcpu->vm, VM_STATUS_FAULT,
			       "triple fault: vector %u while delivering #DF on vCPU %u", vector,
			       vcpu->index);
			return;
		}
		if ((bit_of(CONTRIBUTORY, old) && bit_of(CONTRIBUTORY, vector)) ||
		    (old == VEC_PF && second_bad)) {
			info = INTR_TYPE_HW_EXCEPTION | VEC_DF;
			error_code = 0;
		}
	}
	/* Its delivery had begun, and blocks NMIs although it will not come. */
	if ((first & INTR_INFO_VALID) && (first & INTR_INFO_TYPE) == INTR_TYPE_NMI)
		restore_nmi_blocking();
	if (bit_of(HAS_ERROR_CODE, info & INTR_INFO_VECTOR))
		info |= INTR_INFO_ERROR_CODE;
	deliver_side_effects(info & INTR_INFO_VECTOR);
	event_queue(vcpu, info, error_code, 0);
}

void vcpu_inject(struct vcpu *vcpu, u8 vector)
{
	queue_exception(vcpu, vector, 0);
}

void vcpu_inject_error(struct vcpu *vcpu, u8 vector, u32 error_code)
{
	queue_exception(vcpu, vector, error_code);
}

void vcpu_inject_pf(struct vcpu *vcpu, gva_t addr, u32 error_code)
{
	write_cr2(addr.v);
	queue_exception(vcpu, VEC_PF, error_code);
}

/*
 * Bochs (2.7, 3.0): while it delivers a virtual interrupt, the IDT-vectoring information is that of
 * the event before (SDM 28.2.4: the interrupt's), which would be delivered twice and the interrupt
 * never. True if `info` cannot be of this moment by the SDM, so that no other processor gets here:
 * all but injected interrupts are virtual ones, and SVI is the last of them; software events have a
 * length; a fault's delivery saves RF set (28.3.3; not so telling on 3.0, which sets it always); a
 * guest that has seen Umbra's own #PF has got it.
 */
static bool is_stale(const struct vcpu *vcpu, u32 info, u32 svi, u64 rflags)
{
	u32 reason = (u32)vmcs_read(VMCS_EXIT_REASON);
	u32 injected = (u32)vmcs_read(VMCS_ENTRY_INTR_INFO);

	if (reason != EXIT_EPT_VIOLATION && reason != EXIT_APIC_ACCESS)
		return false;
	if ((info & INTR_INFO_TYPE) >= INTR_TYPE_SW_INTERRUPT)
		return !vmcs_read(VMCS_EXIT_INSTR_LEN);
	/* Vector 0 is that of no event at all: nobody's 8259 or local APIC gives it. */
	if (info == INTR_INFO_VALID)
		return true;
	if (is_exception(info) && (info & INTR_INFO_VECTOR) == VEC_PF && apf_seen(vcpu))
		return true;
	if (!((info ^ injected) & (INTR_INFO_VECTOR | INTR_INFO_TYPE)))
		return false;
	switch (info & INTR_INFO_TYPE) {
	case INTR_TYPE_EXTERNAL:
		return (info & INTR_INFO_VECTOR) != svi;
	case INTR_TYPE_NMI: /* always injected */
		return true;
	default:
		return bit_of(FAULTS, info & INTR_INFO_VECTOR) && !(rflags & RFLAGS_RF);
	}
}

/* The event that the exit cut short, or 0. */
static u32 vectoring_info(const struct vcpu *vcpu)
{
	u32 info = (u32)vmcs_read(VMCS_IDT_VECTORING_INFO), svi;
	u64 rflags;

	if (likely(!(info & INTR_INFO_VALID)))
		return 0;
	if (vcpu->proc2 & PROC2_VIRTUAL_INTERRUPT) {
		svi = (u32)vmcs_read(VMCS_GUEST_INTERRUPT_STATUS) >> 8;
		rflags = vmcs_read(VMCS_GUEST_RFLAGS);
		/* Bochs (2.7) again: with IF clear none is delivered, and entry refuses it. */
		if (!(rflags & RFLAGS_IF) && (info & INTR_INFO_TYPE) == INTR_TYPE_EXTERNAL)
			return 0;
		if (svi && (rflags & RFLAGS_IF) && is_stale(vcpu, info, svi, rflags))
			return INTR_INFO_VALID | INTR_TYPE_EXTERNAL | svi;
	}
	return info;
}

/* Apart, so that event_collect() stays short: there is rarely one. */
static __noinline void collect(struct vcpu *vcpu)
{
	u32 info = vectoring_info(vcpu);
	u32 type = info & INTR_INFO_TYPE;
	u32 error_code = 0, instr_len = 0;

	if (!info)
		return;
	if (info & INTR_INFO_ERROR_CODE)
		error_code = (u32)vmcs_read(VMCS_IDT_VECTORING_ERROR);
	if (type == INTR_TYPE_SW_INTERRUPT || type == INTR_TYPE_PRIV_SW_EXCEPTION ||
	    type == INTR_TYPE_SW_EXCEPTION)
		instr_len = (u32)vmcs_read(VMCS_EXIT_INSTR_LEN);
	if (type == INTR_TYPE_NMI) {
		/* Its delivery blocked NMIs already; injecting it again needs them open. */
		u64 state = vmcs_read(VMCS_GUEST_INTERRUPTIBILITY);

		vmcs_write(VMCS_GUEST_INTERRUPTIBILITY, state & ~(u64)INTERRUPTIBILITY_NMI);
	}
	/* Bit 12 is undefined in the vectoring field and must be 0 on entry. */
	event_queue(vcpu, info & ~INTR_INFO_NMI_UNBLOCK, error_code, instr_len);
}

void event_collect(struct vcpu *vcpu)
{
	if (unlikely(vmcs_read(VMCS_IDT_VECTORING_INFO) & INTR_INFO_VALID))
		collect(vcpu);
}

/*
 * A debug exception that exited has not touched DR6 and DR7 (SDM 28.1): do what delivery does.
 */
static void reflect_debug(struct vcpu *vcpu)
{
	u64 qualification = vmcs_read(VMCS_EXIT_QUALIFICATION);
	u64 dr7 = vmcs_read(VMCS_GUEST_DR7);
	u64 rflags = vmcs_read(VMCS_GUEST_RFLAGS);
	u64 shadow = vmcs_read(VMCS_GUEST_INTERRUPTIBILITY);

	write_dr6((read_dr6() & ~(u64)DR6_CLEARED) | DR6_FIXED | (qualification & QUAL_DB_MASK));
	if (dr7 & DR7_GD)
		vmcs_write(VMCS_GUEST_DR7, dr7 & ~DR7_GD);
	/* With TF and a shadow, entry insists on pending BS (SDM 27.3.1.5); delivery drops it. */
	if ((shadow & BLOCKED_BY_SHADOW) && (rflags & RFLAGS_TF))
		vmcs_write(VMCS_GUEST_PENDING_DEBUG, BIT64(14));
}

void exit_exception(struct vcpu *vcpu)
{
	u32 info = (u32)vmcs_read(VMCS_EXIT_INTR_INFO);
	u32 vector = info & INTR_INFO_VECTOR;
	u32 type = info & INTR_INFO_TYPE;
	u32 error_code = 0;

	event_collect(vcpu);
	if (type == INTR_TYPE_NMI) {
		/* A physical NMI: our handler notes it (panic of another CPU, or nobody's). Its
		 * IRET ends the blocking that the exit left (SDM 28.3.3 and 6.7.1). */
		asm volatile("int $2" : : : "memory");
		return;
	}
	if (vector == VEC_MC && type == INTR_TYPE_HW_EXCEPTION) {
		asm volatile("int $18" : : : "memory");
		return;
	}
	/* IRET had unblocked NMIs before it faulted: block them again (SDM 28.2.3). */
	if ((info & INTR_INFO_NMI_UNBLOCK) && vector != VEC_DF && !vcpu->event.info)
		restore_nmi_blocking();
	if (info & INTR_INFO_ERROR_CODE)
		error_code = (u32)vmcs_read(VMCS_EXIT_INTR_ERROR);
	if (type != INTR_TYPE_HW_EXCEPTION) {
		event_queue(vcpu, type | vector, 0, (u32)vmcs_read(VMCS_EXIT_INSTR_LEN));
		if (vector == VEC_DB) { /* ICEBP */
			reflect_debug(vcpu);
			deliver_side_effects(vector);
		}
		return;
	}
	if (vector == VEC_DB)
		reflect_debug(vcpu);
	if (vector == VEC_PF)
		write_cr2(vmcs_read(VMCS_EXIT_QUALIFICATION));
	queue_exception(vcpu, (u8)vector, error_code);
}

/* Returns true if this entry injects something, so that nothing else can be. */
static bool deliver_event(struct vcpu *vcpu)
{
	const struct event *e = &vcpu->event;

	/* One of an entry that was put off is still to come: an exit would have cleared the bit. */
	if (unlikely(vmcs_read(VMCS_ENTRY_INTR_INFO) & INTR_INFO_VALID))
		return true;
	if (!e->info)
		return false;
	if (e->info & INTR_INFO_ERROR_CODE)
		vmcs_write(VMCS_ENTRY_ERROR_CODE, e->error_code);
	if (e->instr_len)
		vmcs_write(VMCS_ENTRY_INSTR_LEN, e->instr_len);
	vmcs_write(VMCS_ENTRY_INTR_INFO, e->info);
	vcpu->event.info = 0;
	vcpu->injections++;
	return true;
}

/*
 * The trap after an emulated instruction comes before interrupts and NMIs (SDM 3A table 6-2), and
 * an entry that injects one of these would drop it (27.7.3).
 */
static bool debug_trap_first(struct vcpu *vcpu)
{
	if (likely(!vcpu->debug_pending))
		return false;
	vcpu->debug_pending = vmcs_read(VMCS_GUEST_PENDING_DEBUG) & PENDING_DEBUG;
	return vcpu->debug_pending;
}

static bool deliver_nmi(struct vcpu *vcpu, bool busy)
{
	u64 state;

	if (!vcpu->nmi_pending) {
		if (vcpu->nmi_window)
			vcpu_set_proc(vcpu, 0, PROC_NMI_WINDOW);
		vcpu->nmi_window = false;
		return false;
	}
	state = vmcs_read(VMCS_GUEST_INTERRUPTIBILITY);
	/* An NMI window may open while STI still blocks, but entry may refuse an NMI there
	 * (27.3.1.5): the interrupt window waits for the end of that shadow. */
	if (!busy && (state & INTERRUPTIBILITY_STI)) {
		vcpu->nmi_waits_for_sti = true;
		return true;
	}
	if (busy || (state & (INTERRUPTIBILITY_NMI | INTERRUPTIBILITY_MOV_SS))) {
		vcpu_set_proc(vcpu, PROC_NMI_WINDOW, 0);
		vcpu->nmi_window = true;
		return false;
	}
	vmcs_write(VMCS_ENTRY_INTR_INFO, INTR_INFO_VALID | INTR_TYPE_NMI | VEC_NMI);
	vcpu->nmi_pending = false;
	vcpu->nmi_window = false;
	vcpu_set_proc(vcpu, 0, PROC_NMI_WINDOW);
	vcpu->injections++;
	return true;
}

static void set_irq_window(struct vcpu *vcpu, bool on)
{
	if (vcpu->irq_window == on)
		return;
	vcpu->irq_window = on;
	vcpu_set_proc(vcpu, on ? PROC_INTERRUPT_WINDOW : 0, on ? 0 : PROC_INTERRUPT_WINDOW);
}

static bool irq_open(void)
{
	return (vmcs_read(VMCS_GUEST_RFLAGS) & RFLAGS_IF) &&
	       !(vmcs_read(VMCS_GUEST_INTERRUPTIBILITY) & BLOCKED_BY_SHADOW);
}

/* Without virtual-interrupt delivery: an exit when TPR falls below what it masks (SDM 25.6.8). */
static void set_tpr_threshold(struct vcpu *vcpu, u8 masked)
{
	u32 tpr = vcpu->vapic[0x80] >> 4;
	/* Entry refuses a threshold above TPR (SDM 27.2.1.1), and PPR may be what masks. */
	u32 threshold = MIN((u32)masked >> 4, tpr);

	if (threshold != vcpu->tpr_threshold) {
		vcpu->tpr_threshold = threshold;
		vmcs_write(VMCS_TPR_THRESHOLD, threshold);
	}
}

/*
 * With virtual-interrupt delivery the processor evaluates and updates RVI and SVI itself (SDM
 * 30.2): what has come to IRR from elsewhere only raises RVI.
 */
static void set_interrupt_status(struct vcpu *vcpu)
{
	int raised = platform_irq_raised(vcpu);
	u32 old, status;

	if (!raised)
		return;
	old = (u32)vmcs_read(VMCS_GUEST_INTERRUPT_STATUS);
	status = (old & 0xff00) | MAX(old & 0xff, (u32)raised);
	if (unlikely(raised < 0))
		status = platform_irr_highest(vcpu) | (u32)platform_isr_highest(vcpu) << 8;
	if (status != old)
		vmcs_write(VMCS_GUEST_INTERRUPT_STATUS, status);
}

static void inject_irq(struct vcpu *vcpu, int vector)
{
	vmcs_write(VMCS_ENTRY_INTR_INFO, INTR_INFO_VALID | INTR_TYPE_EXTERNAL | (u32)vector);
	vcpu->injections++;
}

/* Both return true if an interrupt has to wait for a window. */
static bool deliver_virtual(struct vcpu *vcpu, bool busy)
{
	set_interrupt_status(vcpu);
	if (likely(!platform_extint(vcpu)))
		return false;
	if (busy || !irq_open())
		return true;
	inject_irq(vcpu, platform_extint_accept(vcpu));
	return platform_extint(vcpu);
}

static bool deliver_irq(struct vcpu *vcpu, bool busy)
{
	bool waits = platform_irq_pending(vcpu) >= 0;

	if (waits && !busy && irq_open()) {
		int vector = platform_irq_accept(vcpu, &waits);

		if (vector >= 0)
			inject_irq(vcpu, vector);
	}
	/* A window exit looks at everything again, whatever TPR was. */
	set_tpr_threshold(vcpu, waits ? 0 : platform_irr_highest(vcpu));
	return waits;
}

/*
 * A notification whose interrupts have been merged already is of no use in guest mode. Bochs 3.0
 * then even sets RVI to 255 where nothing is pending: take it here.
 */
static bool notified(const struct vcpu *vcpu)
{
	return (vcpu->pin & PIN_POSTED_INTERRUPTS) &&
	       (__atomic_load_n(&vcpu->posted->control, __ATOMIC_RELAXED) & 1);
}

void event_deliver(struct vcpu *vcpu)
{
	bool late = notified(vcpu), busy = deliver_event(vcpu), waits;

	busy |= debug_trap_first(vcpu);
	if (unlikely(vcpu->nmi_pending || vcpu->nmi_window))
		busy |= deliver_nmi(vcpu, busy);
	waits = vcpu->proc2 & PROC2_VIRTUAL_INTERRUPT ? deliver_virtual(vcpu, busy)
						      : deliver_irq(vcpu, busy);
	set_irq_window(vcpu, waits || vcpu->nmi_waits_for_sti);
	vcpu->nmi_waits_for_sti = false;
	if (unlikely(late))
		cpu_take_interrupts();
}

bool event_would_wake(struct vcpu *vcpu)
{
	if (vcpu->event.info || (vcpu->nmi_pending && vcpu->wake_on_nmi))
		return true;
	return vcpu->wake_on_irq && platform_irq_pending(vcpu) >= 0;
}

/* --- posting, from any CPU ----------------------------------------------------------------------
 */

void vcpu_post_nmi(struct vcpu *vcpu)
{
	vcpu_request(vcpu, REQ_NMI);
}

/* An earlier SIPI that has not been looked at was not waited for. */
void vcpu_post_init(struct vcpu *vcpu)
{
	__atomic_and_fetch(&vcpu->requests, ~(u32)REQ_SIPI, __ATOMIC_SEQ_CST);
	vcpu_request(vcpu, REQ_INIT);
}

void vcpu_post_sipi(struct vcpu *vcpu, u8 vector)
{
	/* The first one starts it; another one that comes before it has begun is ignored. */
	if (__atomic_load_n(&vcpu->requests, __ATOMIC_ACQUIRE) & REQ_SIPI)
		return;
	__atomic_store_n(&vcpu->sipi_vector, vector, __ATOMIC_RELAXED);
	vcpu_request(vcpu, REQ_SIPI);
}
