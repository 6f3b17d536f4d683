/*
 * Instruction sequences for guest/stepping.c.
 *
 * A sequence sets RFLAGS.TF, runs its instructions and clears TF. `step` marks where a single-step
 * #DB must report RIP: behind an instruction. The table NAME_rips to NAME_rips_end collects the
 * marks; it ends with the three instructions that clear TF (POPF samples TF before it loads it).
 * The argument (RDI) is in R12.
 */
	.macro step
9:
	.pushsection .rodata.steps, "a"
	.quad 9b
	.popsection
	.endm

	.macro sequence name
	.pushsection .rodata.steps, "a"
	.balign 8
	.globl \name\()_rips
\name\()_rips:
	.popsection
	.text
	.globl \name
\name:
	pushq %rbx
	pushq %r12
	movq %rdi, %r12
	pushfq
	orl $0x100, (%rsp)
	popfq
	.endm

	.macro end_sequence name
	step
	pushfq
	step
	andl $~0x100, (%rsp)
	step
	popfq
	step
	cld
	popq %r12
	popq %rbx
	ret
	.pushsection .rodata.steps, "a"
	.globl \name\()_rips_end
\name\()_rips_end:
	.popsection
	.endm

	sequence seq_nop
	nop
	step
	nop
	end_sequence seq_nop

	sequence seq_cpuid
	xorl %eax, %eax
	step
	cpuid
	step
	nop
	end_sequence seq_cpuid

	sequence seq_in
	inb $0x80, %al
	step
	inb $0x71, %al
	step
	nop
	end_sequence seq_in

	sequence seq_out
	outb %al, $0x80
	step
	outb %al, $0x80
	step
	nop
	end_sequence seq_out

/* PAT and APIC_BASE: a hypervisor must watch these. */
	sequence seq_msr
	movl $0x277, %ecx
	step
	rdmsr
	step
	wrmsr
	step
	movl $0x1b, %ecx
	step
	rdmsr
	step
	nop
	end_sequence seq_msr

	sequence seq_vmcall
	movl $1, %eax
	step
	vmcall
	step
	nop
	end_sequence seq_vmcall

/* Argument: the xAPIC. Version is read, task priority written and read. */
	sequence seq_mmio
	movl 0x30(%r12), %eax
	step
	movl $0, 0x80(%r12)
	step
	movl 0x80(%r12), %eax
	step
	nop
	end_sequence seq_mmio

	sequence seq_cr
	movq %cr0, %rax
	step
	movq %rax, %cr0
	step
	movq %cr4, %rax
	step
	movq %rax, %cr4
	step
	movq %cr3, %rax
	step
	movq %rax, %cr3
	step
	clts
	step
	wbinvd
	end_sequence seq_cr

/* CR4.PGE on and off; CR0.TS on and off by LMSW and CLTS. */
	sequence seq_cr_toggle
	movq %cr4, %rax
	step
	xorq $0x80, %rax
	step
	movq %rax, %cr4
	step
	xorq $0x80, %rax
	step
	movq %rax, %cr4
	step
	smsw %eax
	step
	orl $8, %eax
	step
	lmsw %ax
	step
	clts
	end_sequence seq_cr_toggle

/* REP OUTS traps behind each iteration, RIP at the instruction until the last. Argument: 3 bytes. */
	sequence seq_outs
	movq %r12, %rsi
	step
	movl $0x80, %edx
	step
	movl $3, %ecx
	step
	.pushsection .rodata.steps, "a"
	.quad 9f - 2, 9f - 2 /* 9: is behind the two bytes of REP OUTSB */
	.popsection
	rep outsb
	step
	nop
	end_sequence seq_outs

/* No trap between MOV SS and the instruction after it; one behind that one. */
	sequence seq_ss_nop
	movl %ss, %eax
	step
	movl %eax, %ss
	nop
	step
	nop
	end_sequence seq_ss_nop

	sequence seq_ss_cpuid
	movl %ss, %eax
	step
	movl %eax, %ss
	cpuid
	step
	nop
	end_sequence seq_ss_cpuid

	sequence seq_ss_in
	movl %ss, %edx
	step
	movl %edx, %ss
	inb $0x80, %al
	step
	nop
	end_sequence seq_ss_in

/* Argument: two pages never touched. An EPT violation within a sequence loses no trap. */
	sequence seq_fresh
	movq $1, (%r12)
	step
	movq $1, 4096(%r12)
	step
	nop
	end_sequence seq_fresh

/*
 * With an interrupt pending: STI and one instruction; returns where the interrupt must come, right
 * behind that instruction. The argument (RDI) is in R12.
 */
	.macro shadow name
	.globl \name
\name:
	pushq %rbx
	pushq %r12
	movq %rdi, %r12
	.endm
	.macro end_shadow
9:	nop
	nop
	nop
	nop
	cli
	leaq 9b(%rip), %rax
	popq %r12
	popq %rbx
	ret
	.endm

	shadow shadow_nop
	sti
	nop
	end_shadow

	shadow shadow_cpuid
	sti
	cpuid
	end_shadow

	shadow shadow_in
	sti
	inb $0x80, %al
	end_shadow

	shadow shadow_out
	sti
	outb %al, $0x80
	end_shadow

	shadow shadow_rdmsr
	movl $0x277, %ecx
	sti
	rdmsr
	end_shadow

	shadow shadow_mmio
	sti
	movl 0x30(%r12), %eax
	end_shadow

	shadow shadow_vmcall
	movl $1, %eax
	sti
	vmcall
	end_shadow

	shadow shadow_hlt
	sti
	hlt
	end_shadow

	shadow shadow_fresh
	sti
	movl $1, (%r12)
	end_shadow

	shadow shadow_cr
	movq %cr0, %rax
	sti
	movq %rax, %cr0
	end_shadow

/* POPF casts no shadow: the interrupt comes behind it. */
	shadow shadow_popf
	pushfq
	orl $0x200, (%rsp)
	popfq
	end_shadow

/* Two shadows do not add up: a second STI with IF already set has none. */
	shadow shadow_sti_sti
	sti
	sti
	end_shadow
