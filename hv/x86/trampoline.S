/*
 * Where an application processor starts: copied to a page below 640 KiB by smp.c, which patches the
 * data at its end. Real mode, protected mode, 64-bit mode on the loader's page tables (they map this
 * page identically and, unlike ours, lie below 4 GiB), then ap_start in the image.
 */
	.section .rodata
	.globl trampoline_start, trampoline_end
	.globl trampoline_gdtr, trampoline_far32, trampoline_far64
	.globl trampoline_cr3, trampoline_cr4
	.globl trampoline_to32, trampoline_to64, trampoline_gdt

#define OFF(label) (label - trampoline_start)

	.align	16
	.code16
trampoline_start:
	cli
	cld
	mov	%cs, %ax
	mov	%ax, %ds
	xor	%ebx, %ebx
	mov	%cs, %bx
	shl	$4, %ebx			/* EBX: where this page lies */
	lgdtl	OFF(trampoline_gdtr)
	mov	%cr0, %eax
	and	$0x1fffffff, %eax		/* PG, CD, NW off: caches on */
	or	$1, %eax			/* PE */
	mov	%eax, %cr0
	ljmpl	*OFF(trampoline_far32)

	.code32
trampoline_to32:
	mov	$16, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	OFF(trampoline_cr4)(%ebx), %eax
	mov	%eax, %cr4
	mov	OFF(trampoline_cr3)(%ebx), %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx		/* IA32_EFER: LME, NXE */
	rdmsr
	or	$0x900, %eax
	wrmsr
	mov	%cr0, %eax
	or	$0x80010000, %eax		/* PG, WP */
	mov	%eax, %cr0
	ljmpl	*OFF(trampoline_far64)(%ebx)

	.code64
trampoline_to64:
	mov	$ap_start, %rax
	jmp	*%rax

	.align	8
trampoline_gdt:
	.quad	0
	.quad	0x00cf9b000000ffff		/* 0x08: 32-bit code */
	.quad	0x00cf93000000ffff		/* 0x10: data */
	.quad	0x00af9b000000ffff		/* 0x18: 64-bit code */
trampoline_gdtr:
	.word	. - trampoline_gdt - 1
	.long	0				/* patched */
	.align	4
trampoline_far32:
	.long	0				/* patched */
	.word	0x08
	.align	4
trampoline_far64:
	.long	0				/* patched */
	.word	0x18
	.align	4
trampoline_cr3:
	.long	0				/* patched */
trampoline_cr4:
	.long	0				/* patched */
trampoline_end:

	.section .note.GNU-stack, "", @progbits
