/* For guest/isolation.c: registers are loaded, something leaves the guest, registers are stored. */
#include "round_macros.inc"

	.macro begin name
	.text
	.globl round_\name
round_\name:
	load_registers
	.endm

	.text
	.globl round_store
round_store:
	pushfq
	pushq %rdi
	movq 16(%rsp), %rdi
	movq %rax, 0(%rdi)
	movq %rcx, 8(%rdi)
	movq %rdx, 16(%rdi)
	movq %rbx, 24(%rdi)
	movq %rbp, 40(%rdi)
	movq %rsi, 48(%rdi)
	movq %r8, 64(%rdi)
	movq %r9, 72(%rdi)
	movq %r10, 80(%rdi)
	movq %r11, 88(%rdi)
	movq %r12, 96(%rdi)
	movq %r13, 104(%rdi)
	movq %r14, 112(%rdi)
	movq %r15, 120(%rdi)
	popq 56(%rdi)
	popq 128(%rdi)
	popq %rsi
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbp
	popq %rbx
	cld
	pushq $2
	popfq
	ret

	begin nop
	nop
	finish

	begin cpuid
	cpuid
	finish

	begin in
	inb $0x80, %al
	finish

	begin out
	outb %al, $0x80
	finish

	begin rdmsr
	movl $0x277, %ecx
	rdmsr
	finish

	begin wrmsr /* PAT, unchanged */
	movl $0x277, %ecx
	rdmsr
	wrmsr
	finish

	begin vmcall
	movl $1, %eax /* HC_NOP */
	vmcall
	finish

	begin yield
	movl $2, %eax /* HC_YIELD */
	vmcall
	finish

	begin mmio_read
	movabsl 0xfee00030, %eax
	finish

	begin mmio_write
	movl $0, %eax
	movabsl %eax, 0xfee00080
	finish

	begin cr0
	movq %cr0, %rax
	movq %rax, %cr0
	finish

	begin cr4
	movq %cr4, %rax
	btcq $7, %rax
	movq %rax, %cr4
	btcq $7, %rax
	movq %rax, %cr4
	finish

	begin cr3
	movq %cr3, %rax
	movq %rax, %cr3
	finish

	begin wbinvd
	wbinvd
	finish

	begin int3
	int3
	finish

	begin irq /* one is pending */
	sti
	nop
	cli
	finish

	begin hlt /* one is pending */
	sti
	hlt
	cli
	finish

	begin touch
	movq round_page, %rax
	movb $1, (%rax)
	finish

	begin insb
	movq round_page, %rdi
	movl $0x6660, %edx
	movl $4, %ecx
	rep insb
	finish

	begin spin
	movl $20000, %ecx
1:	leaq -1(%rcx), %rcx
	jrcxz 2f
	jmp 1b
2:	finish

	begin xsetbv /* XCR0, unchanged */
	movl $0, %ecx
	xgetbv
	xsetbv
	finish

	begin ud
	ud2
	finish

	.bss
	.balign 8
	.globl round_page
round_page:
	.quad 0
