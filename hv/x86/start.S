/*
 * Entry of the boot processor (contract: include/umbra/boot_info.h) and of the others (smp.c).
 */
	.section .text.start, "ax"
	.globl _start
	.type _start, @function
_start:
	cli
	cld
	mov	$boot_stack_top, %rsp
	xor	%ebp, %ebp
	call	start_bsp		/* RDI: boot_info */
	ud2
	.size _start, . - _start

	/*
	 * An application processor comes from trampoline.S in 64-bit mode, on the loader's page
	 * tables. ap_cpu is its struct cpu, ap_cr3 the hypervisor's page tables.
	 */
	.globl ap_start
	.type ap_start, @function
ap_start:
	mov	ap_cr3, %rax
	mov	%rax, %cr3
	mov	ap_cpu, %rdi
	mov	ap_stack, %rsp
	xor	%ebp, %ebp
	call	ap_main
	ud2
	.size ap_start, . - ap_start

	/* void stack_switch(void *top, void (*to)(void)): leaves the present stack for good. */
	.globl stack_switch
	.type stack_switch, @function
stack_switch:
	mov	%rdi, %rsp
	xor	%ebp, %ebp
	call	*%rsi
	ud2
	.size stack_switch, . - stack_switch

	/* Used until the guarded stacks exist. */
	.bss
	.globl boot_stack, boot_stack_top, boot_ist_top
	.align	16
boot_stack:
	.skip	16384
boot_stack_top:
	.skip	8192
boot_ist_top:

	.section .note.GNU-stack, "", @progbits
