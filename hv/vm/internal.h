/*
 * What the files of vm/ share among themselves and nobody else needs.
 */
#pragma once

#include "vm/platform.h"
#include "vm/vm.h"
#include "vmx/vmx.h"
#include "x86/regs.h"

/* --- vmcs_setup.c: a VMCS from nothing, and a vCPU's architectural states --------------------- */

/* Host state, controls and guest state that never changes; on the vCPU's CPU, VMCS current. */
void vmcs_setup(struct vcpu *vcpu);
/* Architectural state after power-up or INIT (SDM 3A table 9-1), and after a SIPI. */
void vcpu_state_reset(struct vcpu *vcpu, bool init);
void vcpu_state_sipi(struct vcpu *vcpu, u8 vector);
/* After a reset: to what bios.c has at the reset vector, by its address below 1 MiB, F000:FFF0. The
 * machine has no ROM at the top of 4 GiB.
 */
void vcpu_state_bios(struct vcpu *vcpu);
/* 32-bit flat protected mode, as the boot protocols start a kernel. */
void vcpu_state_flat32(struct vcpu *vcpu, u32 eip, u32 eax, u32 ebx);
/* 64-bit mode on page tables and a GDT that lie in guest memory, as Linux's 64-bit entry wants it.
 */
struct start64 {
	u64 rip, rsp, rsi, cr3, gdt_base;
	u16 gdt_limit;
};
void vcpu_state_long64(struct vcpu *vcpu, const struct start64 *start);
/* Control words, written only if they changed. */
void vcpu_set_proc(struct vcpu *vcpu, u32 set, u32 clear);
void vcpu_set_proc2(struct vcpu *vcpu, u32 set, u32 clear);
/* Processing of posted interrupts. Other CPUs may see the change late: they send requests as well.
 */
void vcpu_set_posted(struct vcpu *vcpu, bool on);

/* --- run.c: the way in and out -----------------------------------------------------------------
 */

/* Why vmx_run() returned. 0 means "enter again" inside run.c. */
enum run_result {
	RUN_AGAIN = 0,
	RUN_LEAVE = 1, /* yield, halt, stop, wait for SIPI: the scheduler looks at the vCPU */
	RUN_ENTRY_FAILED = 2, /* VMLAUNCH/VMRESUME failed; known to entry.S */
};

int vmx_run(struct vcpu *vcpu);	     /* entry.S */
void vcpu_exit(struct vcpu *vcpu);   /* called by entry.S */
int vcpu_prepare(struct vcpu *vcpu); /* everything that must hold before entry */
void vcpu_entry_failed(struct vcpu *vcpu, u32 reason);

/* --- exits.c -----------------------------------------------------------------------------------
 */

typedef void (*exit_handler_fn)(struct vcpu *vcpu);
extern const exit_handler_fn exit_handlers[EXIT_COUNT];

/* The instruction gets the exception and is not skipped. */
void exit_cr_access(struct vcpu *vcpu);			   /* cr.c */
void exit_mov_dr(struct vcpu *vcpu);			   /* dr.c */
void exit_xsetbv(struct vcpu *vcpu);			   /* cr.c */
void exit_cpuid(struct vcpu *vcpu);			   /* cpuid.c */
void exit_rdmsr(struct vcpu *vcpu);			   /* msr.c */
void exit_wrmsr(struct vcpu *vcpu);			   /* msr.c */
void exit_vmcall(struct vcpu *vcpu);			   /* hypercall.c */
void exit_string_io(struct vcpu *vcpu, u64 qualification); /* string_io.c */
void exit_task_switch(struct vcpu *vcpu);		   /* task_switch.c */

/* After an emulated I/O instruction, if vcpu->io_breakpoints: makes a matching #DB pending. */
void vcpu_match_io_breakpoints(struct vcpu *vcpu, u16 port, unsigned int size);

/* What the end of an instruction, or of an iteration of one (resume), does besides moving RIP. */
void vcpu_instruction_effects(struct vcpu *vcpu, u64 shadow, u64 rflags, bool resume);

/* vcpu_skip_bytes(), for inlining: hardly ever there is more to it than the new RIP. */
static inline void end_instruction(struct vcpu *vcpu, u64 length, bool resume)
{
	u64 rip = vmcs_read(VMCS_GUEST_RIP), next = rip + length;
	u64 shadow = vmcs_read(VMCS_GUEST_INTERRUPTIBILITY);
	u64 rflags = vmcs_read(VMCS_GUEST_RFLAGS);

	/* RIP wraps at 4 GiB outside 64-bit mode; look only when it could have crossed. */
	if (unlikely((rip ^ next) >> 32) && !(vmcs_read(VMCS_GUEST_CS_AR) & BIT(13)))
		next = (u32)next;
	vmcs_write(VMCS_GUEST_RIP, next);
	if (unlikely((shadow & (INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS)) |
		     (rflags & RFLAGS_TF)) ||
	    resume)
		vcpu_instruction_effects(vcpu, shadow, rflags, resume);
	else if (rflags & RFLAGS_RF) /* after EPT violations */
		vmcs_write(VMCS_GUEST_RFLAGS, rflags & ~(u64)RFLAGS_RF);
}

/* vcpu_skip(), for handlers that stay short without a call. */
static inline void skip_instruction(struct vcpu *vcpu)
{
	end_instruction(vcpu, vmcs_read(VMCS_EXIT_INSTR_LEN), false);
}

/* The guest is at CPL 0 (SS.DPL). */
bool vcpu_cpl0(const struct vcpu *vcpu);

/* Loads the four PDPTEs of PAE paging from CR3. False: reserved bits set or not RAM (#GP). */
bool vcpu_load_pdptes(struct vcpu *vcpu, u64 cr3);

/* --- step.c ------------------------------------------------------------------------------------
 */

/* An exit in a step, which ends it. True: it was by the step's own trap, there is nothing to do. */
bool vcpu_step_exit(struct vcpu *vcpu, u32 reason);
/* Before an entry: calls the step off unless nothing else has to be done first. */
void vcpu_step_check(struct vcpu *vcpu, u32 requests);
void vcpu_step_end(struct vcpu *vcpu);

/* --- events.c ----------------------------------------------------------------------------------
 */

/* After an exit that may have cut an event delivery short: takes the event back (SDM 28.2.4). */
void event_collect(struct vcpu *vcpu);
/* Fills the VM-entry fields and window controls from what is pending. */
void event_deliver(struct vcpu *vcpu);
/* Something could be delivered to a halted vCPU now. */
bool event_would_wake(struct vcpu *vcpu);
/* Puts back into the instruction stream what an intercepted exception took out. */
void exit_exception(struct vcpu *vcpu);
/* Queue an event given as interruption information. */
void event_queue(struct vcpu *vcpu, u32 info, u32 error_code, u32 instr_len);

/* --- sched.c -----------------------------------------------------------------------------------
 */

/* Adds a vCPU to its CPU's list; any CPU. */
void sched_add(struct vcpu *vcpu);
/* The vCPU whose VMCS is loaded on the calling CPU, or NULL. */
struct vcpu *sched_current(void);
/* Others share the calling CPU with `vcpu`. */
bool sched_shared(const struct vcpu *vcpu);
/* Called from the run loop when vcpu->deadline has passed: RUN_AGAIN or RUN_LEAVE. */
int sched_tick(struct vcpu *vcpu, u64 now);
/* Recomputes vcpu->deadline after timer_deadline changed. */
void sched_deadline(struct vcpu *vcpu, u64 now);
__noreturn void sched_loop(void);
/* The guest gives up its turn: every other vCPU of the CPU that can run goes first. */
void sched_give_way(struct vcpu *vcpu);
/* Any CPU: makes the vCPU's CPU look at its requests, which have been made. */
void sched_kick(struct vcpu *vcpu);
/* Tells the processor that runs `vcpu` about a posted interrupt. */
void sched_notify(struct vcpu *vcpu);
void sched_init(const struct boot_info *boot);

/* --- vm.c --------------------------------------------------------------------------------------
 */

extern const struct boot_info *vm_boot;

/* The state in which the vCPU starts: what the image's boot protocol says, or wait-for-SIPI. */
void vm_vcpu_start_state(struct vcpu *vcpu);

/*
 * A vCPU whose VM ends has its turn: true if it is to stop now; false: something of the VM's end
 * has been done, and it is to be asked again in its next turn.
 */
bool vm_vcpu_may_stop(const struct vcpu *vcpu);
/* One vCPU has stopped for good; the last one of the VM cleans up (and may end the machine). */
void vm_vcpu_stopped(struct vcpu *vcpu);

/* --- vcpu.c ------------------------------------------------------------------------------------
 */

/* Memory of a vCPU; its VMCS is set up later, on its CPU. NULL if there is not enough. */
struct vcpu *vcpu_create(struct vm *vm, u32 index, u32 cpu);
void vcpu_destroy(struct vcpu *vcpu);
/* Extended state, debug registers and MSRs that stay in the CPU: out and in. */
void vcpu_state_save(struct vcpu *vcpu);
void vcpu_state_load(struct vcpu *vcpu);

/* --- control.c ---------------------------------------------------------------------------------
 */

/*
 * REQ_PAUSE and REQ_LOOK, on the vCPU's CPU, VMCS current. False: its VM is paused, it must not be
 * entered.
 */
bool control_serve(struct vcpu *vcpu, u32 requests);
/* A paused VM's vCPU is run for these requests only. */
#define CONTROL_REQUESTS (REQ_STOP | REQ_PAUSE | REQ_LOOK)

static inline bool vm_is_paused(const struct vm *vm)
{
	return __atomic_load_n(&vm->pause.on, __ATOMIC_ACQUIRE);
}

/* --- away.c ------------------------------------------------------------------------------------
 */

/* guest_read(), guest_write() and guest_zero() of a range within a REGION_REMOTE: 0 or ERR_AGAIN.
 */
int away_read(struct vm *vm, const struct region *region, gpa_t from, void *to, size_t len);
int away_write(struct vm *vm, const struct region *region, gpa_t to, const void *from, size_t len);
int away_zero(struct vm *vm, const struct region *region, gpa_t to, size_t len);

/* --- bios.c ------------------------------------------------------------------------------------
 */

/* Writes interrupt vectors, BIOS data area and stubs into a fresh VM's low memory. 0 or ERR_FAULT.
 */
int bios_install(struct vm *vm);

/* --- trace.c -----------------------------------------------------------------------------------
 */

/* Nothing without `trace = yes` or `report = yes`. 0 or ERR_NOMEM. */
int watch_create(struct vcpu *vcpu);
void watch_destroy(struct vcpu *vcpu);
/* Records the exit that has just happened, before its handler; only if vcpu->watch. */
void watch_exit(struct vcpu *vcpu, u32 reason);
/* Serves REQ_WATCH: vcpu->watch becomes what is wanted. */
void watch_follow(struct vcpu *vcpu);
/* The guest is about to be entered, or the scheduler to take over: what it has cost. */
void watch_done(struct vcpu *vcpu);
/* The last exits to the log, at level warn. */
void trace_report(const struct vcpu *vcpu);

/* --- cpuid.c -----------------------------------------------------------------------------------
 */

void cpuid_policy_init(void);
/* CR4 bits and XCR0 components that the policy lets a guest set. */
u64 cpuid_cr4_allowed(void);
u64 cpuid_xcr0_allowed(void);

/* --- msr.c -------------------------------------------------------------------------------------
 */

/* The bitmap of a fresh vCPU: everything exits but the pass-through list. */
void msr_bitmap_init(u8 *bitmap);
void msr_bitmap_allow(u8 *bitmap, u32 msr, bool read, bool write);
void msr_bitmap_refuse(u8 *bitmap, u32 msr, bool read, bool write);
/* Emulated MSRs after power-up. */
void msr_reset(struct vcpu *vcpu);
