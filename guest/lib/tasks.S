/* Hardware task switches in 32-bit protected mode. See legacy.h; SDM volume 3 chapter 8. */
#include "legacy.h"
#include "legacy_macros.inc"

/* Members of a 32-bit TSS. */
#define TSS_LINK   0
#define TSS_CR3	   28
#define TSS_EIP	   32
#define TSS_EFLAGS 36
#define TSS_EAX	   40
#define TSS_ESP	   56
#define TSS_ES	   72
#define TSS_DS	   84
#define TSS_DEBUG  100

	.macro task_a entry
	movl $\entry, %eax
	call init_task_a
	.endm

/* Type bytes of both TSS descriptors: 0x89 available, 0x8b busy. */
	.macro busy_bits index
	movzbl legacy_gdt + L_TSS + 5, %eax
	movb legacy_gdt + L_TSS_A + 5, %ah
	result \index
	.endm

	.macro task_register index
	strw %ax
	movzwl %ax, %eax
	result \index
	.endm

	.text
	.code32
/* EAX: where the other task starts. Its registers are 0xa1 to 0xa7. */
init_task_a:
	pushl %edi
	pushl %ecx
	pushl %eax
	movl $legacy_tss_a, %edi
	movl $26, %ecx
	xorl %eax, %eax
	cld
	rep stosl
	popl %eax
	movl %eax, legacy_tss_a + TSS_EIP
	movl $2, legacy_tss_a + TSS_EFLAGS
	movl $0xa1, legacy_tss_a + TSS_EAX
	movl $0xa2, legacy_tss_a + TSS_EAX + 4
	movl $0xa3, legacy_tss_a + TSS_EAX + 8
	movl $0xa4, legacy_tss_a + TSS_EAX + 12
	movl $task_stack + 1024, legacy_tss_a + TSS_ESP
	movl $0xa5, legacy_tss_a + TSS_ESP + 4
	movl $0xa6, legacy_tss_a + TSS_ESP + 8
	movl $0xa7, legacy_tss_a + TSS_ESP + 12
	movl $L_DATA32, legacy_tss_a + TSS_ES
	movl $L_CODE32, legacy_tss_a + TSS_ES + 4
	movl $L_DATA32, legacy_tss_a + TSS_ES + 8
	movl $L_DATA32, legacy_tss_a + TSS_ES + 12
	movl $L_DATA32, legacy_tss_a + TSS_ES + 16
	movl $L_DATA32, legacy_tss_a + TSS_ES + 20
	movl $104 << 16, legacy_tss_a + TSS_DEBUG
	movb $0x89, legacy_gdt + L_TSS_A + 5
	popl %ecx
	popl %edi
	ret

	.globl task_tests
task_tests:
	pushl %ebx
	pushl %esi
	pushl %edi
	pushl %ebp
	movb $0x89, legacy_gdt + L_TSS + 5 /* not busy */
	movw $L_TSS, %ax
	ltr %ax
	call test_jmp
	call test_call
	call test_int
	call test_exception
	call test_gate
	call test_errors
	call test_debug
	call test_bad_segment
	call test_cr3
	popl %ebp
	popl %edi
	popl %esi
	popl %ebx
	ret

test_jmp:
	task_a task_jmp
	clts
	movl $0xb1, %ebx
	movl $0xb2, %esi
	movl $0xb3, %edi
	movl $0xb4, %ebp
	ljmpl $L_TSS_A, $0
	leal (%ebx, %esi), %eax
	addl %edi, %eax
	addl %ebp, %eax
	result R_T_REGS_BACK
	task_register R_T_JMP_BACK
	busy_bits R_T_JMP_BUSY2
	ret

task_jmp:
	pushfl
	addl %ecx, %eax
	addl %edx, %eax
	addl %ebx, %eax
	addl %ebp, %eax
	addl %esi, %eax
	addl %edi, %eax
	result R_T_JMP_REGS
	popl %eax
	result R_T_JMP_FLAGS
	movl %cr0, %eax
	result R_T_JMP_CR0
	movl legacy_tss_a + TSS_LINK, %eax
	result R_T_JMP_LINK
	busy_bits R_T_JMP_BUSY
	task_register R_T_JMP_TR
	ljmpl $L_TSS, $0

test_call:
	task_a task_call
	lcall $L_TSS_A, $0
	task_register R_T_CALL_BACK
	busy_bits R_T_CALL_BUSY2
	movl legacy_tss_a + TSS_EFLAGS, %eax
	result R_T_CALL_NT_SAVED
	ret

task_call:
	pushfl
	popl %eax
	result R_T_CALL_FLAGS
	movl legacy_tss_a + TSS_LINK, %eax
	result R_T_CALL_LINK
	busy_bits R_T_CALL_BUSY
	iretl

/* Vector 0x70 is a task gate. */
test_int:
	task_a task_int
	int $0x70
after_int:
	task_register R_T_INT_BACK
	ret

task_int:
	pushfl
	popl %eax
	result R_T_INT_FLAGS
	movl legacy_tss_a + TSS_LINK, %eax
	result R_T_INT_LINK
	movl legacy_tss + TSS_EIP, %eax
	subl $after_int, %eax
	result R_T_INT_EIP
	iretl

/* #NP by a task gate: the error code is on the new task's stack, EIP is that of the instruction. */
test_exception:
	task_a task_exception
	pushl legacy_idt + 8 * 11
	pushl legacy_idt + 8 * 11 + 4
	movl $L_TSS_A << 16, legacy_idt + 8 * 11
	movl $0x8500, legacy_idt + 8 * 11 + 4
	movl $L_ABSENT, %ecx
faulting:
	movl %ecx, %es
after_fault:
	popl legacy_idt + 8 * 11 + 4
	popl legacy_idt + 8 * 11
	task_register R_T_EXC_BACK
	ret

task_exception:
	popl %eax
	result R_T_EXC_ERROR
	movl legacy_tss + TSS_EIP, %eax
	subl $faulting, %eax
	result R_T_EXC_EIP
	movl $after_fault, legacy_tss + TSS_EIP
	iretl

test_gate:
	task_a task_return
	lcall $L_GATE, $0
	task_register R_T_GATE_BACK
	ret

task_return:
	iretl

test_errors:
	arm
	ljmpl $L_TSS, $0 /* busy: it is the current one */
9:	trapped R_T_BUSY_VEC
	movl trap32_error, %eax
	result R_T_BUSY_ERR
	arm
	ljmpl $L_TSS_ABSENT, $0
9:	trapped R_T_NP_VEC
	movl trap32_error, %eax
	result R_T_NP_ERR
	arm
	ljmpl $L_TSS_SHORT, $0
9:	trapped R_T_TS_VEC
	movl trap32_error, %eax
	result R_T_TS_ERR
	/* IRET with NT, back link no TSS. */
	movl $L_DATA32, legacy_tss + TSS_LINK
	arm
	pushfl
	orl $0x4000, (%esp)
	popfl
	iretl
9:	pushl $2
	popfl
	trapped R_T_IRET_LINK_VEC
	movl trap32_error, %eax
	result R_T_IRET_LINK_ERR
	movl $0, legacy_tss + TSS_LINK
	ret

/* T flag in the TSS: #DB in the new task, before its first instruction. */
test_debug:
	task_a task_unreached
	orl $1, legacy_tss_a + TSS_DEBUG
	movl $0xffff0ff0, %eax
	movl %eax, %dr6
	arm
	ljmpl $L_TSS_A, $0
	ret
9:	trapped R_T_DBG_VEC /* in the other task, on this one's stack */
	movl %dr6, %eax
	result R_T_DBG_DR6
	movl $0xffff0ff0, %eax
	movl %eax, %dr6
	ljmpl $L_TSS, $0

task_unreached:
	movl $-2, trap32_vector
	jmp *trap32_resume

/* A data segment of the new task that is not present: the fault belongs to the new task. */
test_bad_segment:
	task_a task_unreached
	movl $L_ABSENT, legacy_tss_a + TSS_DS
	arm
	ljmpl $L_TSS_A, $0
	ret
9:	trapped R_T_BADDS_VEC
	movl trap32_error, %eax
	result R_T_BADDS_ERR
	task_register R_T_BADDS_TR
	ljmpl $L_TSS, $0

/* With paging: the new task's CR3 is loaded. 0x40000000 is 0 in one space, 4 MiB in the other. */
test_cr3:
	movl $0x22222222, pm32_magic + 0x400000
	movl $0x83, %eax
	xorl %ecx, %ecx
1:	movl %eax, legacy_pd(, %ecx, 4)
	movl %eax, legacy_pd2(, %ecx, 4)
	addl $0x400000, %eax
	incl %ecx
	cmpl $1024, %ecx
	jne 1b
	movl $0x83, legacy_pd + 4 * 256
	movl $0x400083, legacy_pd2 + 4 * 256
	task_a task_cr3
	movl $legacy_pd, legacy_tss + TSS_CR3
	movl $legacy_pd2, legacy_tss_a + TSS_CR3
	movl %cr4, %eax
	orl $0x10, %eax
	movl %eax, %cr4
	movl $legacy_pd, %eax
	movl %eax, %cr3
	movl %cr0, %eax
	orl $0x80000000, %eax
	movl %eax, %cr0
	jmp 1f
1:	movl 0x40000000 + pm32_magic, %eax
	result R_T_CR3_MAIN
	ljmpl $L_TSS_A, $0
	movl 0x40000000 + pm32_magic, %eax
	result R_T_CR3_BACK
	movl %cr0, %eax
	andl $0x7fffffff, %eax
	movl %eax, %cr0
	movl $0, legacy_tss + TSS_CR3
	clts
	ret

task_cr3:
	movl 0x40000000 + pm32_magic, %eax
	result R_T_CR3_OTHER
	ljmpl $L_TSS, $0

	.bss
	.balign 16
task_stack:
	.skip 1024
