/* Leaving 64-bit mode and coming back; 32-bit protected mode. See legacy.h. */
#include "segments.h"
#include "legacy.h"
#include "legacy_macros.inc"

	.text
/* void legacy_run(void (*fn)(void)): runs 32-bit code, paging off, flat segments, own GDT and IDT. */
	.code64
	.globl legacy_run
legacy_run:
	pushq %rbx
	pushq %rbp
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	subq $8, %rsp
	cli
	movq %rsp, legacy_rsp
	movl %edi, legacy_fn
	movq %cr0, %rax
	movl %eax, legacy_cr0
	movq %cr3, %rax
	movl %eax, legacy_cr3
	movq %cr4, %rax
	movl %eax, legacy_cr4
	pushq $SEL_CODE32
	pushq $1f
	lretq
	.code32
1:	movl $SEL_DATA, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl %cr0, %eax
	andl $0x7fffffff, %eax
	movl %eax, %cr0
	movl $0xc0000080, %ecx
	rdmsr
	andl $~0x100, %eax
	wrmsr
	movl %cr4, %eax
	andl $~0x20, %eax
	movl %eax, %cr4
	lgdtl legacy_gdtp
	lidtl legacy_idtp
	ljmpl $L_CODE32, $1f
1:	movl $L_DATA32, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl %eax, %fs
	movl %eax, %gs
	call *legacy_fn
	lgdtl gdt_pointer
	ljmpl $SEL_CODE32, $1f
1:	movl $SEL_DATA, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl %eax, %fs
	movl %eax, %gs
	movl legacy_cr4, %eax
	movl %eax, %cr4
	movl legacy_cr3, %eax
	movl %eax, %cr3
	movl $0xc0000080, %ecx
	rdmsr
	orl $0x100, %eax
	wrmsr
	movl legacy_cr0, %eax
	movl %eax, %cr0
	ljmpl $SEL_CODE, $1f
	.code64
1:	movq legacy_rsp, %rsp
	xorl %edi, %edi
	call cpu_load_tables
	addq $8, %rsp
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbp
	popq %rbx
	ret

/* 32-bit exception stubs, 16 bytes apart, vectors 0 to 0x7f. They end in a jump to trap32_resume. */
	.code32
	.globl trap32_stubs
	.balign 16
trap32_stubs:
	.set v, 0
	.rept 128
	.balign 16
	.if !(v == 8 || (v >= 10 && v <= 14) || v == 17)
	pushl $0
	.endif
	pushl $v
	jmp trap32_common
	.set v, v + 1
	.endr
trap32_common:
	movl $L_DATA32, %eax /* null after virtual-8086 mode */
	movl %eax, %ds
	movl %eax, %es
	popl trap32_vector
	popl trap32_error
	movl (%esp), %eax
	movl %eax, trap32_eip
	movl 4(%esp), %eax
	movl %eax, trap32_cs
	movl 8(%esp), %eax
	movl %eax, trap32_flags
	movl %cr2, %eax
	movl %eax, trap32_cr2
	movl trap32_resume_esp, %esp
	jmp *trap32_resume

	.globl pm32_tests
pm32_tests:
	pushl %ebx
	pushl %esi
	pushl %edi
	pushl %ebp
	movb $0x89, legacy_gdt + L_TSS + 5 /* not busy */
	movw $L_TSS, %ax
	ltr %ax
	movl %cr0, %eax
	result R_PM_CR0
	movl $0xc0000080, %ecx
	rdmsr
	result R_PM_EFER

	arm
	xorl %edx, %edx
	xorl %ecx, %ecx
	movl $1, %eax
	divl %ecx
9:	trapped R_PM_DE
	arm
	ud2
9:	trapped R_PM_UD
	arm
	movl $L_ABSENT, %eax
	movl %eax, %es
9:	trapped R_PM_NP
	movl trap32_error, %eax
	result R_PM_NP_ERROR
	arm
	int3
9:	trapped R_PM_BP
	arm
	movl $0x7fffffff, %eax
	addl $1, %eax
	into
9:	trapped R_PM_OF
	arm
	movl $11, %eax
	bound %eax, pm32_limits
9:	trapped R_PM_BR
	arm
	int $0x60
9:	trapped R_PM_INT
	xorl %eax, %eax
	cpuid
	movl %ebx, %eax
	result R_PM_CPUID
	movl $0x6660, %edx
	movl $3, %ecx
	movl $pm32_buffer, %edi
	cld
	rep insb
	movl pm32_buffer, %eax
	result R_PM_INS
	cmpl $0, legacy_umbra
	je 1f
	movl $0, %eax /* HC_VERSION */
	vmcall
	result R_PM_VMCALL
1:
	call paging32_tests
	call pae_tests
	call v86_tests
	call user32_tests
	popl %ebp
	popl %edi
	popl %esi
	popl %ebx
	ret

/* Paging with 4 MiB pages, identity; 0x40000000 is an alias of 0, then absent. */
paging32_tests:
	movl $0x83, %eax
	movl $0, %ecx
1:	movl %eax, legacy_pd(, %ecx, 4)
	addl $0x400000, %eax
	incl %ecx
	cmpl $1024, %ecx
	jne 1b
	movl $0x83, legacy_pd + 4 * 256
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
	result R_PG32_READ
	movl $0, legacy_pd + 4 * 256
	movl %cr3, %eax
	movl %eax, %cr3
	arm
	movl %eax, 0x40000000 + pm32_magic
9:	trapped R_PG32_PF
	movl trap32_error, %eax
	result R_PG32_ERROR
	movl trap32_cr2, %eax
	result R_PG32_CR2
	movl %cr0, %eax
	andl $0x7fffffff, %eax
	movl %eax, %cr0
	ret

/* PAE paging on the boot page directories: 0x40000000 is an alias of 0, then absent. */
pae_tests:
	movl $boot_pd + 1, legacy_pdpt
	movl $0, legacy_pdpt + 4
	movl $boot_pd + 1, legacy_pdpt + 8
	movl $0, legacy_pdpt + 12
	movl $boot_pd + 0x2001, legacy_pdpt + 16
	movl $0, legacy_pdpt + 20
	movl $boot_pd + 0x3001, legacy_pdpt + 24
	movl $0, legacy_pdpt + 28
	movl %cr4, %eax
	orl $0x20, %eax
	movl %eax, %cr4
	movl $legacy_pdpt, %eax
	movl %eax, %cr3
	movl %cr0, %eax
	orl $0x80000000, %eax
	movl %eax, %cr0
	jmp 1f
1:	movl 0x40000000 + pm32_magic, %eax
	result R_PAE_READ
	/* Changed in memory only: the processor goes on with the entry that it loaded. */
	movl $0, legacy_pdpt + 8
	invlpg 0x40000000 + pm32_magic
	arm
	movl 0x40000000 + pm32_magic, %eax
	movl %eax, pm32_buffer
9:	trapped R_PAE_STALE
	movl $legacy_pdpt, %eax
	movl %eax, %cr3
	arm
	movl 0x40000000 + pm32_magic, %eax
9:	trapped R_PAE_PF
	/* Reserved bits of an entry: refused by MOV to CR3, and when paging is turned on. */
	movl $boot_pd + 0x3, legacy_pdpt + 8
	movl $legacy_pdpt, %eax
	arm
	movl %eax, %cr3
9:	trapped R_PAE_GP
	movl %cr0, %eax
	andl $0x7fffffff, %eax
	movl %eax, %cr0
	orl $0x80000000, %eax
	cmpl $0, legacy_native
	je 1f /* it would succeed */
	arm
	movl %eax, %cr0
9:	trapped R_PAE_PG_GP
1:	movl %cr0, %eax
	andl $0x7fffffff, %eax
	movl %eax, %cr0
	movl %cr4, %eax
	andl $~0x20, %eax
	movl %eax, %cr4
	ret

/* Virtual-8086 mode at the 16-bit code; INT with IOPL 0 is #GP and brings us back. */
v86_tests:
	movl $L_DATA32, legacy_tss + 8 /* SS0; ESP0 below what this function still needs */
	arm
	pushl $0 /* GS */
	pushl $0 /* FS */
	pushl $REAL_BASE >> 4 /* DS */
	pushl $0 /* ES */
	pushl $REAL_BASE >> 4 /* SS */
	pushl $REAL_STACK
	pushl $0x20002 /* VM */
	pushl $REAL_BASE >> 4
	pushl $v86_entry_offset
	movl %esp, %eax
	subl $256, %eax
	movl %eax, legacy_tss + 4
	iretl
9:	trapped R_V86_TRAP
	movl trap32_error, %eax
	result R_V86_ERROR
	movl trap32_flags, %eax
	result R_V86_FLAGS
	movl trap32_cs, %eax
	result R_V86_CS
	ret

/* 32-bit code at CPL 3: HLT is #GP. */
user32_tests:
	arm
	movl %esp, %eax
	subl $256, %eax
	movl %eax, legacy_tss + 4
	pushl $L_UDATA + 3
	pushl $legacy_ustack + 1024
	pushl $2
	pushl $L_UCODE + 3
	pushl $1f
	iretl
1:	pushl $5
	popl %eax
	hlt
9:	trapped R_U32_TRAP
	movl trap32_error, %eax
	result R_U32_ERROR
	movl trap32_cs, %eax
	result R_U32_CS
	ret

	.data
	.balign 8
	.globl pm32_magic, legacy_native, legacy_umbra
pm32_magic:
	.long 0x600df00d
pm32_limits:
	.long 5, 10
	.long 0
pm32_buffer:
	.long 0
/* Set by C: 1 where the processor is not QEMU TCG; 1 on Umbra. */
legacy_native:
	.long 0
legacy_umbra:
	.long 0
	.globl legacy_gdtp, legacy_idtp
	.word 0
legacy_gdtp:
	.word 8 * L_COUNT - 1
	.long legacy_gdt
	.word 0
legacy_idtp:
	.word 8 * 128 - 1
	.long legacy_idt

	.bss
	.balign 4096
	.globl legacy_pd, legacy_pd2, legacy_pdpt, legacy_gdt, legacy_idt, legacy_tss, legacy_tss_a
	.globl trap32_vector, trap32_error, trap32_eip, trap32_cs, trap32_flags, trap32_cr2
	.globl trap32_resume, trap32_resume_esp
legacy_pd:
	.skip 4096
legacy_pd2:
	.skip 4096
legacy_pdpt:
	.skip 32
legacy_gdt:
	.skip 8 * L_COUNT
	.balign 8
legacy_idt:
	.skip 8 * 128
legacy_tss:
	.skip 104
	.balign 8
legacy_tss_a:
	.skip 104
	.balign 16
legacy_ustack:
	.skip 1024
legacy_rsp:
	.quad 0
legacy_fn:
	.long 0
legacy_cr0:
	.long 0
legacy_cr3:
	.long 0
legacy_cr4:
	.long 0
trap32_vector:
	.long 0
trap32_error:
	.long 0
trap32_eip:
	.long 0
trap32_cs:
	.long 0
trap32_flags:
	.long 0
trap32_cr2:
	.long 0
trap32_resume:
	.long 0
trap32_resume_esp:
	.long 0
