/*
 * VM entry and exit.
 *
 * int vmx_run(struct vcpu *vcpu)
 *	Runs the vCPU, whose VMCS is current, until vcpu_prepare() asks to leave. Returns its
 *	value, or VMX_RUN_ENTRY_FAILED when VMLAUNCH or VMRESUME itself failed.
 *
 * While the guest runs, HOST_RSP points just past vcpu->gpr, so the exit path stores the registers
 * by pushing; vcpu->host_stack keeps the real stack. The hypervisor's exceptions that can come in
 * between (NMI, #DF, #MC) have stacks of their own (IST).
 */
#include "asm_offsets.h"

	.text
	.globl vmx_run
	.type vmx_run, @function
vmx_run:
	push	%rbp
	push	%rbx
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	sub	$8, %rsp		/* calls below find the stack as the ABI wants it */
	mov	%rdi, %rbx
	mov	%rsp, VCPU_HOST_STACK(%rbx)
.Lenter:
	cmpl	$0, VCPU_LAUNCHED(%rbx)
	mov	%rbx, %rsp
	pop	%rax
	pop	%rcx
	pop	%rdx
	pop	%rbx
	lea	8(%rsp), %rsp
	pop	%rbp
	pop	%rsi
	pop	%rdi
	pop	%r8
	pop	%r9
	pop	%r10
	pop	%r11
	pop	%r12
	pop	%r13
	pop	%r14
	pop	%r15
	je	.Llaunch
	vmresume
	jmp	.Lfailed
.Llaunch:
	/* Before the fact, as registers are the guest's after it; vcpu.c takes it back on failure. */
	movl	$1, VCPU_LAUNCHED-VCPU_GPR_END(%rsp)
	vmlaunch
.Lfailed:
	/* RSP is just past vcpu->gpr: the structure is VCPU_GPR_END bytes below. */
	lea	-VCPU_GPR_END(%rsp), %rbx
	mov	VCPU_HOST_STACK(%rbx), %rsp
	mov	$VMX_RUN_ENTRY_FAILED, %eax
	jmp	.Lleave

	.globl vmx_exit
	.type vmx_exit, @function
vmx_exit:
	push	%r15
	push	%r14
	push	%r13
	push	%r12
	push	%r11
	push	%r10
	push	%r9
	push	%r8
	push	%rdi
	push	%rsi
	push	%rbp
	lea	-8(%rsp), %rsp
	push	%rbx
	push	%rdx
	push	%rcx
	push	%rax
	mov	%rsp, %rbx
	mov	%rsp, %rdi
	mov	VCPU_HOST_STACK(%rbx), %rsp
	xor	%ebp, %ebp		/* end of the frame chain for backtraces */
	call	vcpu_exit
	mov	%rbx, %rdi
	call	vcpu_prepare
	test	%eax, %eax
	je	.Lenter
.Lleave:
	add	$8, %rsp
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbx
	pop	%rbp
	ret
	.size vmx_run, . - vmx_run

	.section .note.GNU-stack, "", @progbits
