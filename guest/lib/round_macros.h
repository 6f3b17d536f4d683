/*
 * For rounds.S and mmio_insns.S: functions void f(const u64 in[17], u64 out[17]) that load RAX, RCX,
 * RDX, RBX, RBP, RSI, RDI, R8 to R15 and RFLAGS from `in` ([4], RSP's place, is left out), do
 * something, and store them to `out`.
 */
	.macro load_registers
	pushq %rbx
	pushq %rbp
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	pushq %rsi
	pushq 128(%rdi)
	popfq
	movq 0(%rdi), %rax
	movq 8(%rdi), %rcx
	movq 16(%rdi), %rdx
	movq 24(%rdi), %rbx
	movq 40(%rdi), %rbp
	movq 48(%rdi), %rsi
	movq 64(%rdi), %r8
	movq 72(%rdi), %r9
	movq 80(%rdi), %r10
	movq 88(%rdi), %r11
	movq 96(%rdi), %r12
	movq 104(%rdi), %r13
	movq 112(%rdi), %r14
	movq 120(%rdi), %r15
	movq 56(%rdi), %rdi
	.endm

	.macro finish
	jmp round_store
	.endm
