/*
 * Exception and interrupt stubs: 256 entries of 16 bytes, each pushes an error code where the
 * processor has not (SDM 3A table 6-1) and its vector.
 */
	.text
	.globl exception_stubs
	.type exception_stubs, @function
	.align	16
exception_stubs:
	vector = 0
	.rept	256
	.align	16
	.if	!(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21)
	push	$0
	.endif
	push	$vector
	jmp	exception_common
	vector = vector + 1
	.endr
	.align	16
	.size exception_stubs, . - exception_stubs

	.type exception_common, @function
exception_common:
	cld
	push	%rax
	push	%rbx
	push	%rcx
	push	%rdx
	push	%rsi
	push	%rdi
	push	%rbp
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	%rsp, %rdi
	call	exception_handle
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rbp
	pop	%rdi
	pop	%rsi
	pop	%rdx
	pop	%rcx
	pop	%rbx
	pop	%rax
	add	$16, %rsp		/* vector, error code */
	iretq
	.size exception_common, . - exception_common

	.section .note.GNU-stack, "", @progbits
