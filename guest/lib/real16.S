/*
 * 16-bit code: copied to REAL_BASE, entered at pm16_entry in 16-bit protected mode, goes to real
 * mode, and comes back to 32-bit protected mode. All addresses are offsets from real_start.
 */
#include "legacy.h"

#define OFF(label) (label - real_start)

	.macro result16 index
	movl %eax, REAL_RESULTS + 4 * \index
	.endm

	.macro vector16 number, handler
	movl $((REAL_BASE >> 4) << 16) + OFF(\handler), %fs:4 * \number
	.endm

/* The next fault continues at label 9. */
	.macro arm16
	movw $-1, OFF(fault_vector)
	movw $9f - real_start, OFF(fault_resume)
	.endm
	.macro faulted index
	movzwl OFF(fault_vector), %eax
	result16 \index
	.endm

	.section .rodata
	.globl real_start, real_end, real_big_address, real_native, real_umbra
	.code16
	.balign 16
real_start:
pm16_entry:
	movw $L_DATA16, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movl $REAL_STACK, %esp
	movl $0x16161616, %eax
	result16 R_PM16_STORE
	movw %sp, %bx
	pushw %ax
	call 1f
1:	popw %ax
	subw $OFF(1b), %ax /* 0 if the return address is right */
	subw %sp, %bx
	movzwl %bx, %ebx
	shll $16, %ebx
	movw %ax, %bx
	movl %ebx, %eax
	result16 R_PM16_STACK
	popw %ax
	movl %cr0, %eax
	andb $0xfe, %al
	movl %eax, %cr0
	ljmp $REAL_BASE >> 4, $OFF(real_entry)

real_entry:
	movw $REAL_BASE >> 4, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movl $REAL_STACK, %esp
	xorw %ax, %ax
	movw %ax, %fs
	movw %ax, %gs
	lidtw OFF(real_idtp)
	vector16 0, real_de
	vector16 1, real_db
	vector16 6, real_ud
	vector16 13, real_gp
	vector16 0x20, real_irq
	vector16 0x60, real_int60
	movl %cr0, %eax
	result16 R_RM_CR0

	/* INT n and IRET; flags are kept, IF is cleared in the handler. */
	xorl %eax, %eax
	stc
	int $0x60
real_after_int:
	setc %al
	movb %al, OFF(carry)
	movzwl OFF(int_count), %eax
	result16 R_RM_INT
	movzwl OFF(int_ip), %eax
	subw $OFF(real_after_int), %ax
	result16 R_RM_INT_IP
	movzbl OFF(carry), %eax
	result16 R_RM_FLAGS
	movzwl OFF(int_flags), %eax
	result16 R_RM_INT_FLAGS

	arm16
	xorw %dx, %dx
	xorw %cx, %cx
	divw %cx
9:	faulted R_RM_DE
	arm16
	ud2
9:	faulted R_RM_UD

	/* Traps behind NOP, CPUID, IN and four instructions that clear TF. */
	movw $0, OFF(db_count)
	pushfw
	movw %sp, %bp
	orw $0x100, (%bp)
	popfw
	nop
	cpuid
	inb $0x80, %al
	pushfw
	movw %sp, %bp
	andw $~0x100, (%bp)
	popfw
	movzwl OFF(db_count), %eax
	result16 R_RM_STEPS

	xorl %eax, %eax
	cpuid
	movl %ebx, %eax
	result16 R_RM_CPUID
	movl $0xc0000080, %ecx
	rdmsr
	result16 R_RM_MSR

	/* HLT until IRQ 0: channel 0 in mode 0. */
	movb $0x30, %al
	outb %al, $0x43
	movb $0x00, %al
	outb %al, $0x40
	movb $0x08, %al
	outb %al, $0x40
	movb $0xfe, %al
	outb %al, $0x21
1:	sti
	hlt
	cli
	cmpw $0, OFF(irq_count)
	je 1b
	movb $0xff, %al
	outb %al, $0x21
	movzwl OFF(irq_count), %eax
	result16 R_RM_IRQ

	/* Segment limits stay what protected mode loaded: FS reaches 4 GiB. */
	movl %cr0, %eax
	orb $1, %al
	movl %eax, %cr0
	movw $L_DATA32, %bx
	movw %bx, %fs
	andb $0xfe, %al
	movl %eax, %cr0
	movl OFF(real_big_address), %ebx
	movl %fs:(%ebx), %eax
	result16 R_RM_BIG
	xorw %ax, %ax
	movw %ax, %fs /* base 0, limit as before */

	/* ffff:0010 is 0x100000 with A20 open. */
	movw $0xffff, %ax
	movw %ax, %es
	movl %es:0x10, %eax
	result16 R_RM_WRAP
	movw $REAL_BASE >> 4, %ax
	movw %ax, %es

	/* String I/O with real-mode segments. */
	movw $0x2000, %ax
	movw %ax, %es
	movw $0x6660, %dx
	movw $5, %cx
	movw $0x0ffd, %di /* over a page boundary */
	cld
	rep insb
	xorl %eax, %eax
	cmpl $0xffffffff, %es:0x0ffd
	sete %al
	cmpw $0x00ff, %es:0x1001
	sete %ah
	shll $16, %eax
	movw %di, %ax
	result16 R_RM_INS
	movw $REAL_BASE >> 4, %ax
	movw %ax, %es
	movw $7, %cx
	movw $0x200, %si
	rep outsb
	movzwl %si, %eax
	result16 R_RM_OUTS

	/* A stack that nothing touched. */
	movw $0, OFF(int_count)
	movw $0x5000, %ax
	movw %ax, %ss
	movw $0x1002, %sp
	int $0x60
	movzwl %sp, %ecx
	movw $REAL_BASE >> 4, %ax
	movw %ax, %ss
	movl $REAL_STACK, %esp
	movzwl OFF(int_count), %eax
	result16 R_RM_FRESH
	movl %ecx, %eax
	result16 R_RM_SP

	lcall $REAL_BASE >> 4, $OFF(real_far)
	movzwl %ax, %eax
	result16 R_RM_FARCALL
	smsww %ax
	movzwl %ax, %eax
	andl $1, %eax
	result16 R_RM_LMSW

	cmpb $0, OFF(real_native)
	je 1f
	/* Limits: a word at 0xffff; a byte at 0x10000 by 32-bit address. */
	arm16
	movw 0xffff, %ax
9:	faulted R_RM_LIMIT
	arm16
	movl $0x10000, %ebx
	movb (%ebx), %al
9:	faulted R_RM_LIMIT32
1:	cmpb $0, OFF(real_umbra)
	je 1f
	xorl %eax, %eax
	vmcall
	result16 R_RM_VMCALL
1:	movl $0x1234abcd, %eax
	result16 R_RM_DONE

	cli
	movl %cr0, %eax
	orb $1, %al
	movl %eax, %cr0
	ljmpl $L_CODE32, $real_back

real_far:
	movw $0x5a5a, %ax
	lretw

real_int60:
	pushw %bp
	movw %sp, %bp
	incw OFF(int_count)
	movw 2(%bp), %ax
	movw %ax, OFF(int_ip)
	pushfw
	popw OFF(int_flags)
	popw %bp
	iretw
real_de:
	movw $0, OFF(fault_vector)
	jmp real_fault
real_ud:
	movw $6, OFF(fault_vector)
	jmp real_fault
real_gp:
	movw $13, OFF(fault_vector)
real_fault:
	movw %sp, %bp
	movw OFF(fault_resume), %ax
	movw %ax, (%bp)
	iretw
real_db:
	incw OFF(db_count)
	iretw
real_irq:
	pushw %ax
	incw OFF(irq_count)
	movb $0x20, %al
	outb %al, $0x20
	popw %ax
	iretw

/* Virtual-8086 mode: CPUID is allowed, INT is not. DS is this segment. */
v86_entry:
	xorl %eax, %eax
	cpuid
	movl %ebx, REAL_RESULTS + 4 * R_V86_CPUID
	movw %ds, %ax
	movzwl %ax, %eax
	result16 R_V86_SEGMENT
	int $0x60
	.globl v86_entry_offset
	.set v86_entry_offset, v86_entry - real_start

	.balign 4
real_idtp:
	.word 0x3ff
	.long 0
	.balign 4
real_big_address:
	.long 0
int_count:
	.word 0
int_ip:
	.word 0
int_flags:
	.word 0
db_count:
	.word 0
irq_count:
	.word 0
fault_vector:
	.word 0
fault_resume:
	.word 0
carry:
	.byte 0
real_native:
	.byte 0
real_umbra:
	.byte 0
	.balign 4
real_end:

	.text
	.code32
/* void real_tests(void), 32-bit: runs the copy at REAL_BASE. */
	.globl real_tests
real_tests:
	pushl %ebx
	pushl %esi
	pushl %edi
	pushl %ebp
	movl %esp, real_esp
	ljmpl $L_CODE16, $OFF(pm16_entry)
real_back:
	movl $L_DATA32, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl %eax, %fs
	movl %eax, %gs
	movl real_esp, %esp
	lidtl legacy_idtp
	popl %ebp
	popl %edi
	popl %esi
	popl %ebx
	ret

	.bss
	.balign 4
real_esp:
	.long 0
