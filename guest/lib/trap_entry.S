/*
 * The 256 entry points of the IDT, the way back from an expected exception, and CPL 3.
 * Stubs are 16 bytes apart. `trap_stubs` expects an error code where the SDM says that the
 * exception has one; `trap_stubs_plain` never does (INT n, injected forms without a code).
 */
#include "segments.h"

	.macro stub vector, has_code
	.balign 16
	.if !\has_code
	pushq $0
	.endif
	pushq $\vector
	jmp trap_common
	.endm

	.text
	.globl trap_stubs, trap_stubs_plain
	.balign 16
trap_stubs:
	.set v, 0
	.rept 256
	.if v == 8 || (v >= 10 && v <= 14) || v == 17 || v == 21 || v == 29 || v == 30
	stub v, 1
	.else
	stub v, 0
	.endif
	.set v, v + 1
	.endr

	.balign 16
trap_stubs_plain:
	.set v, 0
	.rept 256
	stub v, 0
	.set v, v + 1
	.endr

/* The frame built here is struct frame (trap.h). */
trap_common:
	pushq %rax
	pushq %rcx
	pushq %rdx
	pushq %rbx
	pushq %rbp
	pushq %rsi
	pushq %rdi
	pushq %r8
	pushq %r9
	pushq %r10
	pushq %r11
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	cld
	movq %rsp, %rdi
	call trap_dispatch
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %r11
	popq %r10
	popq %r9
	popq %r8
	popq %rdi
	popq %rsi
	popq %rbp
	popq %rbx
	popq %rdx
	popq %rcx
	popq %rax
	addq $16, %rsp
	iretq

	.macro push_callee_saved
	pushq %rbx
	pushq %rbp
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	.endm
	.macro pop_callee_saved
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbp
	popq %rbx
	.endm

/* int trap_call(u64 *save_rsp, void (*fn)(void *), void *arg): 0, or 1 by way of trap_unwind. */
	.globl trap_call, trap_unwind
trap_call:
	push_callee_saved
	subq $8, %rsp
	movq %rsp, (%rdi)
	movq %rdx, %rdi
	call *%rsi
	xorl %eax, %eax
	addq $8, %rsp
	pop_callee_saved
	ret
trap_unwind:
	movl $1, %eax
	addq $8, %rsp
	pop_callee_saved
	ret

/*
 * u64 user_enter(u64 *save_rsp, u64 fn, u64 arg, u64 stack_top, u64 rflags, u64 cs): runs fn(arg)
 * at CPL 3; trap_dispatch comes back at user_return with *save_rsp as stack.
 */
	.globl user_enter, user_return
user_enter:
	push_callee_saved
	subq $8, %rsp
	movq %rsp, (%rdi)
	pushq $SEL_USER_DATA + 3
	pushq %rcx
	pushq %r8
	pushq %r9
	leaq user_thunk(%rip), %rax
	pushq %rax
	movq %rdx, %rdi
	iretq
user_return:
	addq $8, %rsp
	pop_callee_saved
	ret

/* void compat_call(void (*fn)(void)): calls 32-bit code at CPL 0, which returns by LRET. */
	.globl compat_call
compat_call:
	push_callee_saved
	movq %rsp, %rbp /* its lower half survives 32-bit code; the rest is zero below 4 GiB */
	movl $SEL_DATA, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	subq $16, %rsp
	movl %edi, (%rsp)
	movl $SEL_CODE32, 4(%rsp)
	lcall *(%rsp)
	movl %ebp, %esp
	pop_callee_saved
	ret

	.section .user.text, "ax"
	.balign 16
user_thunk:
	call *%rsi
	int $VEC_USER_EXIT
	ud2
