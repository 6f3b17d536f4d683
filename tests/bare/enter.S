/*
 * void bare_enter(u32 entry, u32 info, u64 tsc): waits for that time stamp, leaves 64-bit mode and
 * starts a kernel as PVH demands it: 32-bit protected mode, no paging, EBX pointing to hvm_start_info,
 * every other register 0. Runs below 4 GiB, identity-mapped, interrupts off.
 */
	.text
	.globl bare_enter
	.type bare_enter, @function
bare_enter:
	movl %edi, %ebp
	movl %esi, %ebx
	movq %rdx, %rdi
	leaq gdt(%rip), %rax
	subq $16, %rsp
	movw $gdt_end - gdt - 1, (%rsp)
	movq %rax, 2(%rsp)
	lgdt (%rsp)
	movw $0, (%rsp) /* no IDT */
	lidt (%rsp)
	leaq 2f(%rip), %rcx
	pushq $0x10
	pushq %rcx
1:	rdtsc
	shlq $32, %rdx
	orq %rdx, %rax
	cmpq %rdi, %rax
	jb 1b
	lretq
	.code32
2:	movl $0x18, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %fs
	movl %eax, %gs
	movl %eax, %ss
	movl $0x11, %eax /* PE, ET; no paging: this leaves long mode */
	movl %eax, %cr0
	movl $0xc0000080, %ecx
	xorl %eax, %eax
	xorl %edx, %edx
	wrmsr
	movl %eax, %cr4
	xorl %ecx, %ecx
	xorl %esi, %esi
	movl %ebp, %edi
	xorl %ebp, %ebp
	xorl %esp, %esp
	jmp *%edi

	.data
	.balign 8
gdt:
	.quad 0, 0
	.quad 0x00cf9b000000ffff /* 0x10 */
	.quad 0x00cf93000000ffff /* 0x18 */
gdt_end:
	.section .note.GNU-stack, "", @progbits
