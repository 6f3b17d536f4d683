/*
 * The exit table: one handler for each basic exit reason (SDM appendix C). Handlers that need more
 * than a few lines live in files of their own (internal.h).
 */
#include "lib/log.h"
#include "vm/internal.h"
#include "vmx/entry_check.h"
#include "x86/apic.h"
#include "x86/asm.h"
#include "x86/cpu.h"
#include "x86/regs.h"

static void exit_unexpected(struct vcpu *vcpu)
{
	u32 reason = (u32)vmcs_read(VMCS_EXIT_REASON);

	vcpu_fatal(vcpu, "exit that Umbra does not ask for: %u (%s)", reason,
		   exit_reason_name(reason));
}

static void exit_external_interrupt(struct vcpu *vcpu)
{
	/* Acknowledged on exit: the vector is ours to end. It only means "look at your requests".
	 */
	u32 vector = (u32)vmcs_read(VMCS_EXIT_INTR_INFO) & INTR_INFO_VECTOR;

	if (vector != VECTOR_SPURIOUS)
		apic_eoi();
	this_cpu()->kicks++;
	/* A device that the firmware has left on may send any number of them. */
	if (vector != VECTOR_KICK && vector != VECTOR_TIMER && vector != VECTOR_POSTED &&
	    vector != VECTOR_SPURIOUS && !this_cpu()->spurious++)
		log_warn("unexpected interrupt, vector %#x on CPU %u", vector, vcpu->cpu);
	/* It may have been meant for a neighbour on this CPU. */
	if (sched_shared(vcpu))
		vcpu_request(vcpu, REQ_YIELD);
}

static void exit_triple_fault(struct vcpu *vcpu)
{
	vcpu_fatal(vcpu, "triple fault on vCPU %u at RIP %#llx", vcpu->index,
		   (unsigned long long)vmcs_read(VMCS_GUEST_RIP));
}

static void exit_init(struct vcpu *vcpu)
{
	/* A physical INIT: nobody but broken firmware sends one while Umbra owns the machine. */
	log_error("INIT signal on CPU %u: ignored", vcpu->cpu);
}

static void exit_window(struct vcpu *vcpu)
{
	vcpu_request(vcpu, REQ_IRQ);
}

static void exit_hlt(struct vcpu *vcpu)
{
	u64 rflags = vmcs_read(VMCS_GUEST_RFLAGS);

	vcpu_skip(vcpu);
	/* The trap of single-stepping comes after HLT and ends it (SDM 2A HLT). */
	if (unlikely(rflags & RFLAGS_TF) && vmcs_read(VMCS_GUEST_PENDING_DEBUG))
		return;
	vcpu->wake_on_irq = rflags & RFLAGS_IF;
	vcpu->wake_on_nmi = !(vmcs_read(VMCS_GUEST_INTERRUPTIBILITY) & INTERRUPTIBILITY_NMI);
	vcpu->state = VCPU_HALTED;
	vcpu_request(vcpu, REQ_IRQ);
}

static void exit_invd(struct vcpu *vcpu)
{
	/*
	 * WBINVD too. Nobody can see whether a guest's lines are in the cache or in memory: its RAM
	 * is write-back (hv/ept), and it has no device that reads memory. Done for real it would
	 * drop others' lines (INVD) or stop the CPU for milliseconds, as often as the guest likes.
	 */
	vcpu_skip(vcpu);
}

static void exit_undefined(struct vcpu *vcpu)
{
	vcpu_inject(vcpu, VEC_UD);
}

static void exit_rdpmc(struct vcpu *vcpu)
{
	/* CPUID leaf 0xA shows no counter, so every index is invalid. */
	vcpu_inject_error(vcpu, VEC_GP, 0);
}

static __noinline void exit_port_in(struct vcpu *vcpu, u16 port, unsigned int size)
{
	u32 value = platform_port_in(vcpu, port, size);

	if (likely(size == 1))
		*(u8 *)&vcpu->gpr[RAX] = (u8)value;
	else if (size == 2)
		*(u16 *)&vcpu->gpr[RAX] = (u16)value;
	else
		vcpu->gpr[RAX] = value;
}

static inline void access_port(struct vcpu *vcpu, u64 q)
{
	unsigned int size = (q & 7) + 1;
	u16 port = (u16)(q >> 16);

	if (q & BIT(3))
		exit_port_in(vcpu, port, size);
	else
		platform_port_out(vcpu, port, size, (u32)vcpu->gpr[RAX]);
}

static __noinline void access_watched_port(struct vcpu *vcpu, u64 q)
{
	vcpu_match_io_breakpoints(vcpu, (u16)(q >> 16), (q & 7) + 1);
	access_port(vcpu, q);
}

static void exit_io(struct vcpu *vcpu)
{
	u64 q = vmcs_read(VMCS_EXIT_QUALIFICATION);

	if (unlikely(q & BIT(4))) {
		exit_string_io(vcpu, q);
		return;
	}
	/* First past the instruction: the access may end the VM or move the guest's world. */
	skip_instruction(vcpu);
	if (unlikely(vcpu->io_breakpoints))
		access_watched_port(vcpu, q);
	else
		access_port(vcpu, q);
}

static void exit_tpr_below_threshold(struct vcpu *vcpu)
{
	platform_tpr_changed(vcpu);
	vcpu_request(vcpu, REQ_IRQ);
}

/* --- guest memory --------------------------------------------------------------------------------
 */

/* What the processor stores by itself: an event's frame, flags of paging-structure entries. */
static __noinline bool step_in_window(struct vcpu *vcpu, const struct ept_fault *fault)
{
	const struct region *region = space_find(&vcpu->vm->space, fault->addr);

	return fault->write && region && region->kind == REGION_WINDOW &&
	       pmem_window_step(vcpu, region->device);
}

static void emulate_mmio(struct vcpu *vcpu, const struct ept_fault *fault)
{
	if (unlikely(vcpu->event.info || fault->walk) && step_in_window(vcpu, fault))
		return;
	if (vcpu->event.info) {
		/* An event delivered through a stack or table in device memory. */
		vcpu_fatal(vcpu, "event delivery touches device memory at %#llx",
			   (unsigned long long)fault->addr.v);
		return;
	}
	mmio_emulate(vcpu, fault);
}

static void exit_apic_access(struct vcpu *vcpu)
{
	u64 q = vmcs_read(VMCS_EXIT_QUALIFICATION);
	u64 type = q >> 12 & 0xf;
	struct ept_fault fault = {
		.addr = gpa(0xfee00000 + (q & 0xfff)),
		.access = type == 0   ? EPT_R
			  : type == 1 ? EPT_W
				      : EPT_X,
		.write = type == 1,
	};

	event_collect(vcpu);
	if (type == 0 || type == 1) {
		fault.linear = gva(vmcs_read(VMCS_GUEST_LINEAR_ADDRESS));
		fault.linear_valid = true;
	}
	emulate_mmio(vcpu, &fault);
}

static void exit_apic_write(struct vcpu *vcpu)
{
	/*
	 * The exit comes after the instruction; its single-step trap is pending then (SDM 28.1).
	 * Bochs (3.0) drops it; setting it once more does no harm elsewhere.
	 */
	if (unlikely(vmcs_read(VMCS_GUEST_RFLAGS) & RFLAGS_TF) &&
	    !(vmcs_read(VMCS_GUEST_DEBUGCTL) & BIT(1))) {
		vmcs_write(VMCS_GUEST_PENDING_DEBUG,
			   vmcs_read(VMCS_GUEST_PENDING_DEBUG) | BIT64(14));
		vcpu->debug_pending = true;
	}
	platform_apic_write(vcpu, (u32)vmcs_read(VMCS_EXIT_QUALIFICATION) & 0xfff);
}

static void exit_virtualized_eoi(struct vcpu *vcpu)
{
	platform_apic_eoi(vcpu, (u8)vmcs_read(VMCS_EXIT_QUALIFICATION));
}

/* The view refuses what the region would allow: the guest sees a page fault of our own kind. */
static void reflect_refusal(struct vcpu *vcpu, const struct ept_fault *fault)
{
	u32 error = 0x8000 | PF_P | (fault->write ? PF_W : 0) | (fault->access & EPT_X ? PF_I : 0) |
		    (vcpu_cpl0(vcpu) ? 0 : PF_U);

	if (!fault->linear_valid) {
		vcpu_fatal(vcpu, "access to %#llx refused, with no linear address to report",
			   (unsigned long long)fault->addr.v);
		return;
	}
	vcpu_inject_pf(vcpu, fault->linear, error);
}

static __noinline void map_or_emulate(struct vcpu *vcpu, gpa_t at, u64 q)
{
	struct ept_fault fault = {
		.addr = at,
		.access = q & EPT_RWX,
		.write = q & EPT_W,
		.linear_valid = q & BIT(7),
		.walk = (q & BIT(7)) && !(q & BIT(8)),
	};

	if (fault.linear_valid)
		fault.linear = gva(vmcs_read(VMCS_GUEST_LINEAR_ADDRESS));
	event_collect(vcpu);
	if ((q & BIT(12)) && !vcpu->event.info)
		vmcs_write(VMCS_GUEST_INTERRUPTIBILITY,
			   vmcs_read(VMCS_GUEST_INTERRUPTIBILITY) | INTERRUPTIBILITY_NMI);
	switch (space_fault(vcpu, &fault)) {
	case FAULT_RETRY:
	case FAULT_DONE:
	case FAULT_FATAL:
		break;
	case FAULT_EMULATE:
		emulate_mmio(vcpu, &fault);
		break;
	case FAULT_REFUSED:
		reflect_refusal(vcpu, &fault);
		break;
	}
}

/*
 * Bits of the exit qualification (SDM table 28-7): what an instruction does to data when it only
 * writes it, with no IRET and no walk of page tables in it.
 */
#define EPT_STORE      (BIT(1) | BIT(7) | BIT(8))
#define EPT_STORE_MASK (EPT_STORE | BIT(0) | BIT(2) | BIT(12))

/* A short way for flush hints that trap, as guests write them. */
static __noinline void exit_near_window(struct vcpu *vcpu, gpa_t at, u64 q)
{
	if ((q & EPT_STORE_MASK) != EPT_STORE ||
	    (vmcs_read(VMCS_IDT_VECTORING_INFO) & INTR_INFO_VALID) ||
	    !pmem_window_store(vcpu, at, gva(vmcs_read(VMCS_GUEST_LINEAR_ADDRESS))))
		map_or_emulate(vcpu, at, q);
}

static void exit_ept_violation(struct vcpu *vcpu)
{
	u64 q = vmcs_read(VMCS_EXIT_QUALIFICATION);
	gpa_t at = gpa(vmcs_read(VMCS_GUEST_PHYSICAL_ADDRESS));

	vcpu->ept_faults++;
	if (unlikely(space_near_window(&vcpu->vm->space, at)))
		exit_near_window(vcpu, at, q);
	else
		map_or_emulate(vcpu, at, q);
}

static void exit_ept_misconfig(struct vcpu *vcpu)
{
	/* Only our own tables can be wrong here; the other VMs may go on. */
	log_error("EPT misconfiguration at guest-physical %#llx",
		  (unsigned long long)vmcs_read(VMCS_GUEST_PHYSICAL_ADDRESS));
	vcpu_fatal(vcpu, "EPT misconfiguration");
}

static void exit_preemption_timer(struct vcpu *vcpu)
{
	/* vcpu_prepare() finds the deadline passed. */
}

static void exit_xsaves(struct vcpu *vcpu)
{
	/* Only for components in IA32_XSS, which CPUID shows empty: cannot come. */
	exit_undefined(vcpu);
}

const exit_handler_fn exit_handlers[EXIT_COUNT] = {
	[EXIT_EXCEPTION_NMI] = exit_exception,
	[EXIT_EXTERNAL_INTERRUPT] = exit_external_interrupt,
	[EXIT_TRIPLE_FAULT] = exit_triple_fault,
	[EXIT_INIT] = exit_init,
	[EXIT_INTERRUPT_WINDOW] = exit_window,
	[EXIT_NMI_WINDOW] = exit_window,
	[EXIT_TASK_SWITCH] = exit_task_switch,
	[EXIT_CPUID] = exit_cpuid,
	[EXIT_GETSEC] = exit_undefined,
	[EXIT_HLT] = exit_hlt,
	[EXIT_INVD] = exit_invd,
	[EXIT_RDPMC] = exit_rdpmc,
	[EXIT_RSM] = exit_undefined,
	[EXIT_VMCALL] = exit_vmcall,
	[EXIT_VMCLEAR] = exit_undefined,
	[EXIT_VMLAUNCH] = exit_undefined,
	[EXIT_VMPTRLD] = exit_undefined,
	[EXIT_VMPTRST] = exit_undefined,
	[EXIT_VMREAD] = exit_undefined,
	[EXIT_VMRESUME] = exit_undefined,
	[EXIT_VMWRITE] = exit_undefined,
	[EXIT_VMXOFF] = exit_undefined,
	[EXIT_VMXON] = exit_undefined,
	[EXIT_CR_ACCESS] = exit_cr_access,
	[EXIT_MOV_DR] = exit_mov_dr,
	[EXIT_IO] = exit_io,
	[EXIT_RDMSR] = exit_rdmsr,
	[EXIT_WRMSR] = exit_wrmsr,
	[EXIT_MWAIT] = exit_undefined,
	[EXIT_MONITOR] = exit_undefined,
	[EXIT_TPR_BELOW_THRESHOLD] = exit_tpr_below_threshold,
	[EXIT_APIC_ACCESS] = exit_apic_access,
	[EXIT_VIRTUALIZED_EOI] = exit_virtualized_eoi,
	[EXIT_EPT_VIOLATION] = exit_ept_violation,
	[EXIT_EPT_MISCONFIG] = exit_ept_misconfig,
	[EXIT_INVEPT] = exit_undefined,
	[EXIT_PREEMPTION_TIMER] = exit_preemption_timer,
	[EXIT_INVVPID] = exit_undefined,
	[EXIT_WBINVD] = exit_invd,
	[EXIT_XSETBV] = exit_xsetbv,
	[EXIT_APIC_WRITE] = exit_apic_write,
	[EXIT_INVPCID] = exit_undefined,
	[EXIT_ENCLS] = exit_undefined,
	[EXIT_XSAVES] = exit_xsaves,
	[EXIT_XRSTORS] = exit_xsaves,
	/* Not asked for, or not defined: our bug if one comes, and the end of that VM. */
	[EXIT_SIPI] = exit_unexpected,
	[EXIT_IO_SMI] = exit_unexpected,
	[EXIT_OTHER_SMI] = exit_unexpected,
	[EXIT_INVLPG] = exit_unexpected,
	[EXIT_RDTSC] = exit_unexpected,
	[EXIT_ENTRY_GUEST_STATE] = exit_unexpected,
	[EXIT_ENTRY_MSR_LOAD] = exit_unexpected,
	[EXIT_MTF] = exit_unexpected,
	[EXIT_PAUSE] = exit_unexpected,
	[EXIT_ENTRY_MACHINE_CHECK] = exit_unexpected,
	[EXIT_GDTR_IDTR] = exit_unexpected,
	[EXIT_LDTR_TR] = exit_unexpected,
	[EXIT_RDTSCP] = exit_unexpected,
	[EXIT_RDRAND] = exit_unexpected,
	[EXIT_VMFUNC] = exit_unexpected,
	[EXIT_RDSEED] = exit_unexpected,
	[EXIT_PML_FULL] = exit_unexpected,
	[EXIT_UMWAIT] = exit_unexpected,
	[EXIT_TPAUSE] = exit_unexpected,
	[EXIT_LOADIWKEY] = exit_unexpected,
	[35] = exit_unexpected,
	[38] = exit_unexpected,
	[42] = exit_unexpected,
	[65] = exit_unexpected,
	[66] = exit_unexpected,
	[70] = exit_unexpected,
	[71] = exit_unexpected,
	[72] = exit_unexpected,
	[73] = exit_unexpected,
	[74] = exit_unexpected,
};
