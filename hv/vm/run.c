/*
 * The run loop: what happens between an exit and the next entry. SDM 3C chapters 27 and 28.
 */
#include <stdarg.h>

#include "lib/log.h"
#include "lib/panic.h"
#include "vm/apf.h"
#include "vm/away.h"
#include "vm/internal.h"
#include "vmx/entry_check.h"
#include "x86/apic.h"
#include "x86/asm.h"
#include "x86/cpu.h"
#include "x86/regs.h"

/*
 * The way in of a vCPU whose exits are watched: everybody's, and what it cost. A detour by way of a
 * request, so that those who are not watched pay nothing.
 */
static __noinline int prepare_watched(struct vcpu *vcpu, u32 requests)
{
	int result;

	watch_follow(vcpu);
	if (requests)
		__atomic_or_fetch(&vcpu->requests, requests, __ATOMIC_RELAXED);
	result = vcpu_prepare(vcpu);
	watch_done(vcpu);
	return result;
}

/* What it waits for has come, or it has to wait for something. */
static void look_for_page(struct vcpu *vcpu)
{
	bool waits;

	do {
		__atomic_and_fetch(&vcpu->requests, ~(u32)REQ_PAGE, __ATOMIC_SEQ_CST);
		waits = remote_waits(vcpu);
		if (waits && vcpu->state == VCPU_RUNNABLE)
			vcpu->state = VCPU_WAITING;
		else if (!waits && vcpu->state == VCPU_WAITING)
			vcpu->state = VCPU_RUNNABLE;
	} while (waits && vcpu->state == VCPU_WAITING && sched_await(vcpu));
}

/* Everything other CPUs and devices can ask for. */
static __noinline int serve_requests(struct vcpu *vcpu, u32 requests)
{
	if (unlikely(requests & (REQ_STOP | REQ_WATCH))) {
		if (requests & REQ_WATCH)
			return prepare_watched(vcpu, requests & ~REQ_WATCH);
		vcpu_request(vcpu, REQ_STOP);
		return RUN_LEAVE;
	}
	if (unlikely((requests & (REQ_PAUSE | REQ_LOOK)) || vm_is_paused(vcpu->vm))) {
		if (!control_serve(vcpu, requests)) {
			/* The rest waits. */
			vcpu_request(vcpu, requests & ~(REQ_PAUSE | REQ_LOOK));
			return RUN_LEAVE;
		}
	}
	if (requests & REQ_DEVICE)
		platform_work(vcpu);
	if (requests & REQ_INIT) {
		vcpu_state_reset(vcpu, true);
		platform_vcpu_init(vcpu);
		apf_reset(vcpu);
		if (vcpu->bsp)
			vcpu_state_bios(vcpu);
		vcpu->state = vcpu->bsp ? VCPU_RUNNABLE : VCPU_WAIT_SIPI;
	}
	/* After the devices, which may have missed something. One that sleeps goes on sleeping. */
	if (unlikely(__atomic_load_n(&vcpu->requests, __ATOMIC_RELAXED) & REQ_PAGE))
		requests |= REQ_PAGE;
	if (unlikely(requests & REQ_PAGE))
		look_for_page(vcpu);
	/* A SIPI counts only while it is waited for (SDM 3A 9.4.4). */
	if ((requests & REQ_SIPI) && vcpu->state == VCPU_WAIT_SIPI) {
		vcpu_state_sipi(vcpu, vcpu->sipi_vector);
		vcpu->state = VCPU_RUNNABLE;
	}
	if (vcpu->state == VCPU_WAIT_SIPI)
		return RUN_LEAVE;
	if (requests & REQ_TIMER) {
		u64 now = rdtsc();

		platform_timers(vcpu, now);
		sched_deadline(vcpu, now);
	}
	if (requests & REQ_EOI_MAP) {
		u64 map[4];

		platform_eoi_bitmap(vcpu, map);
		if (vcpu->proc2 & PROC2_VIRTUAL_INTERRUPT) {
			vmcs_write(VMCS_EOI_EXIT_BITMAP0, map[0]);
			vmcs_write(VMCS_EOI_EXIT_BITMAP1, map[1]);
			vmcs_write(VMCS_EOI_EXIT_BITMAP2, map[2]);
			vmcs_write(VMCS_EOI_EXIT_BITMAP3, map[3]);
		}
	}
	if (requests & REQ_VIEW)
		vmcs_write(VMCS_EPTP, vcpu->view->eptp);
	if (requests & REQ_NMI)
		vcpu->nmi_pending = true;
	if (vcpu->state == VCPU_WAITING)
		return RUN_LEAVE;
	if (vcpu->state == VCPU_HALTED) {
		if (!event_would_wake(vcpu))
			return RUN_LEAVE;
		vcpu->state = VCPU_RUNNABLE;
	}
	/* A yield comes before delivery, which happens at the latest moment. */
	if (requests & REQ_YIELD) {
		vcpu_request(vcpu, (requests & ~REQ_YIELD) | REQ_IRQ);
		return RUN_LEAVE;
	}
	if (requests != REQ_PAGE) /* which brings no event */
		event_deliver(vcpu);
	return RUN_AGAIN;
}

/*
 * True if the guest can be entered now, with everything set. ept_announce() makes us visible to
 * vcpu_request() before the requests are looked at, so that one that comes later sends a kick.
 * Straight code that calls nothing: every exit goes through here.
 */
static inline bool ready(struct vcpu *vcpu)
{
	u64 now;

	if (unlikely(!ept_announce(vcpu->view, vcpu->cpu)))
		return false;
	if (unlikely(__atomic_load_n(&vcpu->requests, __ATOMIC_RELAXED)))
		return false;
	now = rdtsc();
	if (unlikely(now >= vcpu->deadline))
		return false;
	/* Rounded up: never early, or the tick would find nothing to do. */
	vmcs_write(VMCS_PREEMPTION_TIMER, ((vcpu->deadline - now) >> vmx_timer_shift) + 1);
	return true;
}

/*
 * TSC ticks that a guest gets between two looks at its timers, or one that programs them to the
 * limit would never run where ticks are as slow as instructions (emulators).
 */
#define LEAST_RUN 500

static __noinline int prepare_slowly(struct vcpu *vcpu)
{
	int result = RUN_AGAIN;

	do {
		u32 requests = 0;
		u64 now;

		/* Catches up if need be; then nobody has to wait for what is done here. */
		ept_enter(vcpu->view, vcpu->cpu);
		ept_leave(vcpu->cpu);
		/* First, for it may bring an interrupt. */
		now = rdtsc();
		if (now >= vcpu->deadline) {
			result = sched_tick(vcpu, now);
			vcpu->deadline = MAX(vcpu->deadline, rdtsc() + LEAST_RUN);
			if (result != RUN_AGAIN)
				return result;
		}
		if (vcpu->requests)
			requests = __atomic_exchange_n(&vcpu->requests, 0, __ATOMIC_ACQUIRE);
		if (unlikely(vcpu->watch & WATCH_STEP))
			vcpu_step_check(vcpu, requests);
		/* The usual request: an interrupt or an exception. */
		if (likely(!(requests & ~(REQ_IRQ | REQ_EVENT)) && vcpu->state == VCPU_RUNNABLE)) {
			if (requests)
				event_deliver(vcpu);
		} else {
			result = serve_requests(vcpu, requests);
		}
		if (result != RUN_AGAIN)
			return result;
	} while (!ready(vcpu));
	return RUN_AGAIN;
}

int vcpu_prepare(struct vcpu *vcpu)
{
	return likely(ready(vcpu)) ? RUN_AGAIN : prepare_slowly(vcpu);
}

/* Apart, so that vcpu_exit() stays straight code that ends in a jump. */
static __noinline void watched_exit(struct vcpu *vcpu, u32 reason)
{
	bool done = (vcpu->watch & WATCH_STEP) && vcpu_step_exit(vcpu, reason);

	if (vcpu->watch)
		watch_exit(vcpu, reason);
	if (!done)
		exit_handlers[reason](vcpu);
}

/* Called by entry.S on the hypervisor's stack, guest registers in vcpu->gpr. */
void vcpu_exit(struct vcpu *vcpu)
{
	u32 reason = (u32)vmcs_read(VMCS_EXIT_REASON);

	ept_leave(vcpu->cpu);
	if (unlikely(reason >= EXIT_COUNT)) {
		vcpu_entry_failed(vcpu, reason);
		return;
	}
	vcpu->exits[reason]++;
	if (unlikely(vcpu->watch))
		watched_exit(vcpu, reason);
	else
		exit_handlers[reason](vcpu);
}

void vcpu_request(struct vcpu *vcpu, u32 requests)
{
	u32 here = this_cpu()->index;

	__atomic_or_fetch(&vcpu->requests, requests, __ATOMIC_SEQ_CST);
	if (vcpu->cpu != here) {
		sched_kick(vcpu);
		return;
	}
	/* Somebody else's turn on this CPU: let the scheduler look soon. */
	struct vcpu *current = sched_current();

	if (current && current != vcpu)
		__atomic_or_fetch(&current->requests, REQ_YIELD, __ATOMIC_SEQ_CST);
}

void vcpu_post_irq(struct vcpu *vcpu, u8 vector)
{
	bool notify;

	__atomic_or_fetch(&vcpu->posted->pir[vector / 64], BIT64(vector % 64), __ATOMIC_SEQ_CST);
	if (!(vcpu->pin & PIN_POSTED_INTERRUPTS) || vcpu->cpu == this_cpu()->index) {
		vcpu_request(vcpu, REQ_IRQ);
		return;
	}
	/*
	 * Hardware that processes posted interrupts takes the vector without an exit if the vCPU is
	 * in guest mode; the request makes sure of it if it is not (or leaves just now). It comes
	 * after ON: whoever serves it must clear ON, or nobody would notify the next time.
	 */
	notify = !(__atomic_fetch_or(&vcpu->posted->control, 1, __ATOMIC_SEQ_CST) & 1);
	__atomic_or_fetch(&vcpu->requests, REQ_IRQ, __ATOMIC_SEQ_CST);
	if (notify)
		sched_notify(vcpu);
}

u64 vcpu_tsc(const struct vcpu *vcpu)
{
	return rdtsc() + vcpu->tsc_offset;
}

u64 vcpu_tsc_to_host(const struct vcpu *vcpu, u64 guest)
{
	return guest - vcpu->tsc_offset;
}

/* --- skipping an instruction ---------------------------------------------------------------------
 */

void vcpu_instruction_effects(struct vcpu *vcpu, u64 shadow, u64 rflags, bool resume)
{
	if (shadow & (INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS)) {
		vmcs_write(VMCS_GUEST_INTERRUPTIBILITY,
			   shadow & ~(u64)(INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS));
		/* MOV SS may have hit a data breakpoint, which is reported now. */
		vcpu->debug_pending = true;
		/* An interrupt that the shadow held back can be delivered now. */
		if (vcpu->irq_window || vcpu->nmi_window)
			vcpu_request(vcpu, REQ_IRQ);
	}
	/*
	 * RF is clear after an instruction, and set between the iterations of one (SDM 3B
	 * 18.3.1.1): its breakpoint has been reported. EPT violations save it set (28.3.3).
	 */
	if (!!(rflags & RFLAGS_RF) != resume)
		vmcs_write(VMCS_GUEST_RFLAGS, rflags ^ RFLAGS_RF);
	/* Single-stepping counts the emulated instruction too: BS becomes pending (SDM 25.4.2),
	 * unless DEBUGCTL.BTF asks for branches only. */
	if ((rflags & RFLAGS_TF) && !(vmcs_read(VMCS_GUEST_DEBUGCTL) & BIT(1))) {
		vmcs_write(VMCS_GUEST_PENDING_DEBUG,
			   vmcs_read(VMCS_GUEST_PENDING_DEBUG) | BIT64(14));
		vcpu->debug_pending = true;
	}
}

void vcpu_skip_bytes(struct vcpu *vcpu, u64 length)
{
	end_instruction(vcpu, length, !length);
}

void vcpu_skip(struct vcpu *vcpu)
{
	skip_instruction(vcpu);
}

bool vcpu_cpl0(const struct vcpu *vcpu)
{
	return !(vmcs_read(VMCS_GUEST_SS_AR) >> 5 & 3);
}

/* --- reports -------------------------------------------------------------------------------------
 */

static void report_registers(struct vcpu *vcpu)
{
	static const char names[16][4] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					  "r8",	 "r9",	"r10", "r11", "r12", "r13", "r14", "r15"};
	unsigned long long g[16];

	for (unsigned int i = 0; i < 16; i++)
		g[i] = i == RSP ? vmcs_read(VMCS_GUEST_RSP) : vcpu->gpr[i];
	for (unsigned int i = 0; i < 16; i += 4)
		log_warn("  %-3s %016llx  %-3s %016llx  %-3s %016llx  %-3s %016llx", names[i], g[i],
			 names[i + 1], g[i + 1], names[i + 2], g[i + 2], names[i + 3], g[i + 3]);
	log_warn("  rip %04llx:%016llx  rflags %08llx  cr0 %llx cr2 %llx cr3 %llx cr4 %llx efer "
		 "%llx",
		 (unsigned long long)vmcs_read(VMCS_GUEST_CS),
		 (unsigned long long)vmcs_read(VMCS_GUEST_RIP),
		 (unsigned long long)vmcs_read(VMCS_GUEST_RFLAGS),
		 (unsigned long long)vmcs_read(VMCS_GUEST_CR0), (unsigned long long)read_cr2(),
		 (unsigned long long)vmcs_read(VMCS_GUEST_CR3),
		 (unsigned long long)vmcs_read(VMCS_GUEST_CR4),
		 (unsigned long long)vmcs_read(VMCS_GUEST_EFER));
}

void vcpu_fatal(struct vcpu *vcpu, const char *fmt, ...)
{
	char text[128];
	va_list ap;

	va_start(ap, fmt);
	str_vprint(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_warn("vm %s vCPU %u: %s; its registers:", vcpu->vm->config->name, vcpu->index, text);
	report_registers(vcpu);
	trace_report(vcpu);
	vm_end(vcpu->vm, VM_STATUS_FAULT, "%s", text);
}

static u64 read_field(void *ctx, u32 field)
{
	return vmcs_read((enum vmcs_field)field);
}

static bool read_physical(void *ctx, hpa_t from, void *dst, u32 len)
{
	__builtin_memcpy(dst, phys_to_ptr(from), len);
	return true;
}

static void report_rule(void *ctx, const struct entry_fault *fault)
{
	log_error("  %s = %#llx: %s (SDM %s)", vmcs_field_name(fault->field),
		  (unsigned long long)fault->value, fault->rule, fault->section);
}

/*
 * An entry that the processor refused: names field and rule. Guest state that a guest brought about
 * itself ends that VM; it is our bug all the same, since we let it come so far.
 */
void vcpu_entry_failed(struct vcpu *vcpu, u32 reason)
{
	struct entry_source source = {
		.read = read_field,
		.read_phys = read_physical,
		.phys_bits = (u8)cpuid(0x80000008, 0).eax,
		.linear_bits = (u8)(cpuid(0x80000008, 0).eax >> 8),
	};
	unsigned int found;

	if (reason) {
		log_error("vm %s vCPU %u: VM entry failed: exit reason %#x (%s)",
			  vcpu->vm->config->name, vcpu->index, reason, exit_reason_name(reason));
	} else {
		u32 error = (u32)vmcs_read(VMCS_INSTRUCTION_ERROR);

		log_error("vm %s vCPU %u: VM entry failed: error %u (%s)", vcpu->vm->config->name,
			  vcpu->index, error, instruction_error_name(error));
	}
	found = entry_check(&source, &vmx_caps, report_rule, NULL);
	if (!found)
		log_error("  no rule of the SDM is broken as far as Umbra can tell");
	vcpu_fatal(vcpu, "VM entry failed");
}
