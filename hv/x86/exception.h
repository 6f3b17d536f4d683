/*
 * Exceptions and interrupts that reach the hypervisor itself, and MSR accesses that may fault.
 */
#pragma once

#include "lib/types.h"

/* What the stubs of entry.S leave on the stack. */
struct exception_frame {
	u64 r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
	u64 vector, error;
	u64 rip, cs, rflags, rsp, ss; /* pushed by the processor (SDM 3A 6.14.2) */
};
_Static_assert(sizeof(struct exception_frame) == 22 * 8, "exception frame layout");

/* Called by the stubs. Returns where execution goes on; panics where it cannot. */
void exception_handle(struct exception_frame *frame);

/*
 * What an NMI means. If the machine is being stopped it does not return; else it counts in
 * this_cpu()->nmi_pending. A VM exit because of an NMI comes here by INT 2, whose IRET also ends
 * the blocking of NMIs that the exit has left behind.
 */
void nmi_handle(void);

/* RDMSR and WRMSR for MSRs that a processor, or a hypervisor below us, may not have. False: #GP. */
bool rdmsr_safe(u32 msr, u64 *value);
bool wrmsr_safe(u32 msr, u64 value);
