/*
 * What a person does to a VM from outside: pause it, look at its registers. The caller holds the
 * VMs (vms_hold()), and the VM is VM_RUNNING.
 */
#pragma once

#include "vm/walk.h"

struct vcpu;
struct vm;

/*
 * Every vCPU stops at its next exit, for which it is kicked; nobody waits for it. A paused VM takes
 * no CPU time; what is posted to it waits. Its time stands still: when it is resumed TSC, timers
 * and clocks go on from where they were when the last vCPU had stopped, so that the guest sees
 * nothing but a wall clock that is late. (A VM that is resumed before all its vCPUs have stopped
 * keeps its time: it sees a gap.) Ending and restarting end the pause.
 */
void vm_pause(struct vm *vm);
void vm_resume(struct vm *vm);
bool vm_paused(const struct vm *vm);

/* Segment registers in the order of the VMCS. */
enum vcpu_segment {
	SEGMENT_ES,
	SEGMENT_CS,
	SEGMENT_SS,
	SEGMENT_DS,
	SEGMENT_FS,
	SEGMENT_GS,
	SEGMENT_LDTR,
	SEGMENT_TR,
	SEGMENT_COUNT
};

struct vcpu_regs {
	u64 gpr[16]; /* enum gpr, with RSP */
	u64 rip, rflags;
	u64 cr2, dr7;
	struct {
		u64 base;
		u32 limit, ar; /* as in the VMCS (SDM table 25-2) */
		u16 selector;
	} segment[SEGMENT_COUNT];
	u64 gdt_base, idt_base;
	u32 gdt_limit, idt_limit;
	struct walk_state walk; /* control registers, EFER, CPL */
};

/*
 * A look at the registers, in two halves, since only the vCPU's own CPU can read them: the request
 * is served as soon as the CPU gets to it, of a vCPU that is halted or paused too. A new request
 * replaces the one before. `vcpu_look_result`: false if the answer to the last one is not there.
 */
void vcpu_look(struct vcpu *vcpu);
bool vcpu_look_result(struct vcpu_regs *out);
