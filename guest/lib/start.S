/*
 * Entry points. Multiboot 1 (address-header form, so that loaders need not understand ELF64) and
 * PVH (XEN_ELFNOTE_PHYS32_ENTRY) both arrive in 32-bit protected mode without paging, EBX pointing
 * to the boot information. Linux's 64-bit entry point, for kernels that are linked as bzImage, goes
 * back to that mode, with the address of boot_params. From there on all are one: EDI says which, ESI
 * is EBX.
 */
#include "segments.h"

#define MB_MAGIC 0x1badb002
#define MB_FLAGS 0x00010003 /* page-aligned modules, memory info, address fields */

	.section .text.boot, "ax"
	.balign 4
multiboot_header:
	.long MB_MAGIC
	.long MB_FLAGS
	.long -(MB_MAGIC + MB_FLAGS)
	.long multiboot_header
	.long guest_image_start
	.long guest_data_end
	.long guest_image_end
	.long multiboot_entry

/*
 * The 64-bit entry point, at 0x200 of the protected-mode code. Keeps the state that the loader made
 * for guest/linuxboot.c; what a loader leaves in .bss is any value.
 */
	.org 0x200
	.code64
	.globl linux_entry64
linux_entry64:
	movq %rsi, linux_entry + LE_RSI
	movq %rsp, linux_entry + LE_RSP
	movq $stacks + STACK_BYTES, %rsp
	pushfq
	popq linux_entry + LE_RFLAGS
	cli
	cld
	movq %cr0, %rax
	movq %rax, linux_entry + LE_CR0
	movq %cr3, %rax
	movq %rax, linux_entry + LE_CR3
	movq %cr4, %rax
	movq %rax, linux_entry + LE_CR4
	movl $0xc0000080, %ecx
	rdmsr
	movl %eax, linux_entry + LE_EFER
	movw %cs, linux_entry + LE_CS
	movw %ds, linux_entry + LE_DS
	movw %es, linux_entry + LE_ES
	movw %ss, linux_entry + LE_SS
	sgdt linux_entry + LE_GDTR
	movl $guest_data_end, %edi
	movl $guest_image_end, %ecx
	subl %edi, %ecx
	xorl %eax, %eax
	rep stosb
	lgdt gdt_pointer
	pushq $SEL_CODE32
	pushq $1f
	lretq
	.code32
1:	movl $SEL_DATA, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl %cr0, %eax
	andl $0x7fffffff, %eax /* paging off, which leaves long mode */
	movl %eax, %cr0
	movl $0xc0000080, %ecx
	rdmsr
	andl $~0x100, %eax
	wrmsr
	movl linux_entry + LE_RSI, %ebx
	movl $PROTO_LINUX, %edi
	jmp common_entry

/*
 * The setup part of a bzImage (see "The Linux/x86 Boot Protocol"): two sectors with the header. It
 * is in no segment; the Makefile puts it in front of the image. Not relocatable.
 */
	.section .linux_setup, "", @progbits
	.code16
	.fill 0x1f1, 1, 0
	.byte 1	/* setup_sects */
	.word 0
	.long guest_paragraphs /* syssize */
	.word 0, 0xffff, 0, 0xaa55
	jmp linux_setup16
	.ascii "HdrS"
	.word 0x20c /* version */
	.long 0
	.word 0, 0
	.byte 0, 1 /* loadflags: loaded high */
	.word 0
	.long guest_image_start, 0, 0, 0
	.word 0
	.byte 0, 0
	.long 0, 0x7fffffff, 0x1000 /* initrd_addr_max, kernel_alignment */
	.byte 0, 12 /* not relocatable */
	.word 1 /* xloadflags: 64-bit entry point */
	.long 255, 0 /* cmdline_size */
	.quad 0
	.long 0, 0 /* payload */
	.quad 0, guest_image_start
	.long guest_image_bytes, 0 /* init_size */
linux_setup16: /* no entry in real mode */
	cli
	hlt
	jmp linux_setup16
	.org 1024

	.section .note.pvh, "a", @note
	.balign 4
	.long 4, 4, 18 /* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.long pvh_entry

	.text
	.code32
	.globl pvh_entry
multiboot_entry:
	movl $PROTO_MULTIBOOT, %edi
	cmpl $0x2badb002, %eax
	je 1f
	movl $0, %edi /* not a Multiboot loader: main refuses */
	jmp 1f
pvh_entry:
	movl $PROTO_PVH, %edi
common_entry:
1:	cli
	cld
	movl %ebx, %esi
	movl $stacks + STACK_BYTES, %esp
	call build_boot_tables
	lgdtl gdt_pointer
	ljmpl $SEL_CODE32, $1f
1:	movl $SEL_DATA, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl %eax, %fs
	movl %eax, %gs
	call enter_long_mode
	ljmpl $SEL_CODE, $start64

/* Identity map of the first 4 GiB: supervisor, writable, 2 MiB pages; uncached from 0xfec00000. */
build_boot_tables:
	movl $boot_pdpt + 7, boot_pml4
	movl $boot_pd, %eax
	movl $boot_pdpt, %edx
	movl $4, %ecx
1:	leal 7(%eax), %ebx
	movl %ebx, (%edx)
	addl $4096, %eax
	addl $8, %edx
	loop 1b
	movl $boot_pd, %edx
	movl $0x83, %eax
	movl $2048, %ecx
2:	cmpl $0xfec00083, %eax
	jne 3f
	orl $0x18, %eax
3:	movl %eax, (%edx)
	addl $0x200000, %eax
	addl $8, %edx
	loop 2b
	ret

/* Turns on PAE, SSE, long mode with NX and SYSCALL, and paging on boot_pml4. Changes EAX, ECX, EDX. */
	.globl enter_long_mode
enter_long_mode:
	movl $0x620, %eax /* PAE, OSFXSR, OSXMMEXCPT */
	movl %eax, %cr4
	movl $boot_pml4, %eax
	movl %eax, %cr3
	movl $0xc0000080, %ecx
	rdmsr
	orl $0x901, %eax /* SCE, LME, NXE */
	wrmsr
	movl $0x80010033, %eax /* PG, WP, NE, ET, MP, PE */
	movl %eax, %cr0
	ret

	.code64
start64:
	movl $stacks + STACK_BYTES, %esp
	xorl %ebp, %ebp
	movl %edi, %edi
	movl %esi, %esi
	call guest_start
1:	cli
	hlt
	jmp 1b

/* Application processors: 16-bit code, copied to TRAMPOLINE. */
	.section .rodata
	.globl trampoline_start, trampoline_end
	.code16
trampoline_start:
	cli
	cld
	xorw %ax, %ax
	movw %ax, %ds
	lgdtl TRAMPOLINE + trampoline_gdt - trampoline_start
	movl %cr0, %eax
	orb $1, %al
	andl $0x9fffffff, %eax /* INIT left caching off: CD and NW */
	movl %eax, %cr0
	ljmpl $SEL_CODE32, $ap_entry32
	.balign 4
trampoline_gdt:
	.word SEL_TSS + 16 * MAX_CPUS - 1
	.long gdt
trampoline_end:

	.text
	.code32
ap_entry32:
	movl $SEL_DATA, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl %eax, %fs
	movl %eax, %gs
	movl $1, %ebx
	lock xaddl %ebx, ap_next_index
	cmpl $MAX_CPUS, %ebx
	jae 2f
	leal 1(%ebx), %esp
	imull $STACK_BYTES, %esp, %esp
	addl $stacks, %esp
	/* CALL and the far jump need no more than this CPU's own stack. */
	call enter_long_mode
	ljmpl $SEL_CODE, $1f
2:	cli
	hlt
	jmp 2b
	.code64
1:	movl %esp, %esp
	xorl %ebp, %ebp
	movl %ebx, %edi
	call ap_start
1:	cli
	hlt
	jmp 1b

	.data
	.globl ap_next_index, gdt, gdt_pointer, linux_entry
	.balign 8
linux_entry:
	.fill LE_BYTES, 1, 0
	.balign 4
ap_next_index:
	.long 1
	.balign 8
gdt:
	.quad 0
	.quad 0x00af9b000000ffff /* SEL_CODE */
	.quad 0x00cf93000000ffff /* SEL_DATA */
	.quad 0x00cf9b000000ffff /* SEL_CODE32 */
	.quad 0x00009b000000ffff /* SEL_CODE16 */
	.quad 0x000093000000ffff /* SEL_DATA16 */
	.quad 0x00cffb000000ffff /* SEL_USER_CODE32 */
	.quad 0x00cff3000000ffff /* SEL_USER_DATA */
	.quad 0x00affb000000ffff /* SEL_USER_CODE */
	.fill (SEL_TSS - SEL_TEST) / 8, 8, 0
	.fill MAX_CPUS * 2, 8, 0
	.balign 8
	.word 0
gdt_pointer:
	.word SEL_TSS + 16 * MAX_CPUS - 1
	.quad gdt

	.bss
	.balign 4096
	.globl boot_pml4, boot_pdpt, boot_pd, stacks
boot_pml4:
	.skip 4096
boot_pdpt:
	.skip 4096
boot_pd:
	.skip 4 * 4096
stacks:
	.skip STACK_BYTES * MAX_CPUS
