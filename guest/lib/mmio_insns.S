/*
 * One function per instruction that touches memory, for guest/mmio.c: RSI and RDI point there. The
 * table mmio_insns lists its name, the function, and the flags that the SDM leaves undefined, with
 * RARE added.
 */
#include "round_macros.inc"

#define RARE (1 << 63) /* nobody uses it on devices: Umbra does not emulate it, the VM would end */

	.macro insn name, undefined
	.pushsection .rodata.mmio_names, "a"
7:	.asciz "\name"
	.popsection
	.text
8:	load_registers
	.pushsection .rodata.mmio_insns, "a"
	.quad 7b, 8b, \undefined
	.popsection
	.endm

	.pushsection .rodata.mmio_insns, "a"
	.balign 8
	.globl mmio_insns, mmio_insns_end, mmio_buffer
mmio_insns:
	.popsection

	insn "MOV load, 8 bits", 0
	mov (%rsi), %al
	finish

	insn "MOV load, 16 bits", 0
	mov (%rsi), %ax
	finish

	insn "MOV load, 32 bits", 0
	mov (%rsi), %eax
	finish

	insn "MOV load, 64 bits", 0
	mov (%rsi), %rax
	finish

	insn "MOV load, 8, REX bits", 0
	mov (%rsi), %r9b
	finish

	insn "MOV load, 8, AH bits", 0
	mov (%rsi), %ah
	finish

	insn "MOV load, 32, REX bits", 0
	mov (%rsi), %r14d
	finish

	insn "MOVZBL load", 0
	movzbl (%rsi), %eax
	finish

	insn "MOVZWL load", 0
	movzwl (%rsi), %ecx
	finish

	insn "MOVZBQ load", 0
	movzbq (%rsi), %r8
	finish

	insn "MOVSBL load", 0
	movsbl (%rsi), %edx
	finish

	insn "MOVSWQ load", 0
	movswq (%rsi), %rbx
	finish

	insn "MOVSLQ load", 0
	movslq (%rsi), %rbp
	finish

	insn "MOVSBW load", 0
	movsbw (%rsi), %ax
	finish

	insn "MOV store, 8 bits", 0
	mov %al, (%rdi)
	finish

	insn "MOV store, 16 bits", 0
	mov %ax, (%rdi)
	finish

	insn "MOV store, 32 bits", 0
	mov %eax, (%rdi)
	finish

	insn "MOV store, 64 bits", 0
	mov %rax, (%rdi)
	finish

	insn "MOV store, 8, REX bits", 0
	mov %r10b, (%rdi)
	finish

	insn "MOV store, 8, CH bits", 0
	mov %ch, (%rdi)
	finish

	insn "MOV store, immediate 8", 0
	movb $0x5a, (%rdi)
	finish

	insn "MOV store, immediate 16", 0
	movw $0x1234, (%rdi)
	finish

	insn "MOV store, immediate 32", 0
	movl $0x12345678, (%rdi)
	finish

	insn "MOV store, immediate 64", 0
	movq $-5, (%rdi)
	finish

	insn "MOV load, displacement 8", 0
	mov 0x10(%rsi), %eax
	finish

	insn "MOV load, displacement 32", 0
	mov 0x1000(%rsi), %eax
	finish

	insn "MOV load, index", 0
	movl $4, %ecx
	mov 0x20(%rsi, %rcx, 8), %rax
	finish

	insn "MOV load, R13 base", 0
	mov %rsi, %r13
	mov (%r13), %eax
	finish

	insn "MOV load, R12 base", 0
	mov %rsi, %r12
	mov 8(%r12), %eax
	finish

	insn "MOV load, 32-bit address", 0
	mov (%esi), %eax
	finish

	insn "ADD from memory", 0
	add (%rsi), %rax
	finish

	insn "ADD to memory", 0
	add %ecx, (%rdi)
	finish

	insn "ADD immediate, 8 bits", 0
	addb $0x7f, (%rdi)
	finish

	insn "ADD immediate, 16 bits", 0
	addw $0x1234, (%rdi)
	finish

	insn "OR from memory", 0x10
	or (%rsi), %rax
	finish

	insn "OR to memory", 0x10
	or %ecx, (%rdi)
	finish

	insn "OR immediate, 8 bits", 0x10
	orb $0x7f, (%rdi)
	finish

	insn "OR immediate, 16 bits", 0x10
	orw $0x1234, (%rdi)
	finish

	insn "ADC from memory", 0
	adc (%rsi), %rax
	finish

	insn "ADC to memory", 0
	adc %ecx, (%rdi)
	finish

	insn "ADC immediate, 8 bits", 0
	adcb $0x7f, (%rdi)
	finish

	insn "ADC immediate, 16 bits", 0
	adcw $0x1234, (%rdi)
	finish

	insn "SBB from memory", 0
	sbb (%rsi), %rax
	finish

	insn "SBB to memory", 0
	sbb %ecx, (%rdi)
	finish

	insn "SBB immediate, 8 bits", 0
	sbbb $0x7f, (%rdi)
	finish

	insn "SBB immediate, 16 bits", 0
	sbbw $0x1234, (%rdi)
	finish

	insn "AND from memory", 0x10
	and (%rsi), %rax
	finish

	insn "AND to memory", 0x10
	and %ecx, (%rdi)
	finish

	insn "AND immediate, 8 bits", 0x10
	andb $0x7f, (%rdi)
	finish

	insn "AND immediate, 16 bits", 0x10
	andw $0x1234, (%rdi)
	finish

	insn "SUB from memory", 0
	sub (%rsi), %rax
	finish

	insn "SUB to memory", 0
	sub %ecx, (%rdi)
	finish

	insn "SUB immediate, 8 bits", 0
	subb $0x7f, (%rdi)
	finish

	insn "SUB immediate, 16 bits", 0
	subw $0x1234, (%rdi)
	finish

	insn "XOR from memory", 0x10
	xor (%rsi), %rax
	finish

	insn "XOR to memory", 0x10
	xor %ecx, (%rdi)
	finish

	insn "XOR immediate, 8 bits", 0x10
	xorb $0x7f, (%rdi)
	finish

	insn "XOR immediate, 16 bits", 0x10
	xorw $0x1234, (%rdi)
	finish

	insn "CMP from memory", 0
	cmp (%rsi), %rax
	finish

	insn "CMP to memory", 0
	cmp %ecx, (%rdi)
	finish

	insn "CMP immediate, 8 bits", 0
	cmpb $0x7f, (%rdi)
	finish

	insn "CMP immediate, 16 bits", 0
	cmpw $0x1234, (%rdi)
	finish

	insn "TEST register", 0x10
	test %rax, (%rsi)
	finish

	insn "TEST immediate", 0x10
	testb $0x81, (%rsi)
	finish

	insn "TEST immediate 32", 0x10
	testl $0x81, (%rsi)
	finish

	insn "INC", 0
	incl (%rdi)
	finish

	insn "DEC", 0
	decl (%rdi)
	finish

	insn "NEG", 0
	negl (%rdi)
	finish

	insn "NOT", 0
	notq (%rdi)
	finish

	insn "ADD", 0
	addl $1, (%rdi)
	finish

	insn "OR", 0x10
	orq %rax, (%rdi)
	finish

	insn "XADD", 0
	xaddl %eax, (%rdi)
	finish

	insn "CMPXCHG, different", 0
	cmpxchgl %ecx, (%rdi)
	finish

	insn "BTS", 0x894
	btsl $3, (%rdi)
	finish

	insn "LOCK ADD", 0
	lock addl $1, (%rdi)
	finish

	insn "LOCK OR", 0x10
	lock orq %rax, (%rdi)
	finish

	insn "LOCK XADD", 0
	lock xaddl %eax, (%rdi)
	finish

	insn "LOCK CMPXCHG, different", 0
	lock cmpxchgl %ecx, (%rdi)
	finish

	insn "LOCK BTS", 0x894
	lock btsl $3, (%rdi)
	finish

	insn "CMPXCHG, equal", 0
	mov (%rsi), %eax
	cmpxchgl %ecx, (%rdi)
	finish

	insn "CMPXCHG8B", 0
	cmpxchg8b (%rdi)
	finish

	insn "XCHG", 0
	xchgl %eax, (%rdi)
	finish

	insn "XCHG, 8 bits", 0
	xchgb %al, (%rdi)
	finish

	insn "XCHG, 64 bits", 0
	xchgq %rdx, (%rdi)
	finish

	insn "BT", 0x894
	btl $7, (%rdi)
	finish

	insn "BTR", 0x894
	btrl $7, (%rdi)
	finish

	insn "BTC", 0x894
	btcl $7, (%rdi)
	finish

	insn "BT, register", 0x894
	movl $70, %eax
	btl %eax, (%rdi)
	finish

	insn "SHL by 1", 0x10
	shll $1, (%rdi)
	finish

	insn "SHR by CL", 0x810
	movb $3, %cl
	shrl %cl, (%rdi)
	finish

	insn "SAR by 5", 0x810
	sarq $5, (%rdi)
	finish

	insn "ROL by 1", 0
	roll $1, (%rdi)
	finish

	insn "IMUL", RARE + 0xd4
	imul (%rsi), %rax
	finish

	insn "IMUL, three operands", RARE + 0xd4
	imul $3, (%rsi), %rax
	finish

	insn "MUL", RARE + 0xd4
	mulq (%rsi)
	finish

	insn "CMOVZ", 0
	cmovz (%rsi), %rax
	finish

	insn "CMOVNZ", 0
	cmovnz (%rsi), %eax
	finish

	insn "SETC", 0
	setc (%rdi)
	finish

	insn "PUSH", 0
	pushq (%rsi)
	popq %rax
	finish

	insn "POP", 0
	pushq %rax
	popq (%rdi)
	finish

	insn "LODSB", 0
	lodsb
	finish

	insn "STOSB", 0
	stosb
	finish

	insn "MOVSB", 0
	movsb
	finish

	insn "SCASB", 0
	scasb
	finish

	insn "CMPSB", 0
	cmpsb
	finish

	insn "LODSW", 0
	lodsw
	finish

	insn "STOSW", 0
	stosw
	finish

	insn "MOVSW", 0
	movsw
	finish

	insn "SCASW", 0
	scasw
	finish

	insn "CMPSW", 0
	cmpsw
	finish

	insn "LODSL", 0
	lodsl
	finish

	insn "STOSL", 0
	stosl
	finish

	insn "MOVSL", 0
	movsl
	finish

	insn "SCASL", 0
	scasl
	finish

	insn "CMPSL", 0
	cmpsl
	finish

	insn "LODSQ", 0
	lodsq
	finish

	insn "STOSQ", 0
	stosq
	finish

	insn "MOVSQ", 0
	movsq
	finish

	insn "SCASQ", 0
	scasq
	finish

	insn "CMPSQ", 0
	cmpsq
	finish

	insn "REP STOSL", 0
	movl $100, %ecx
	rep stosl
	finish

	insn "REP MOVSQ", 0
	movl $5, %ecx
	rep movsq
	finish

	insn "REP LODSB", 0
	movl $3, %ecx
	rep lodsb
	finish

	insn "REPE CMPSW", 0
	movl $4, %ecx
	repe cmpsw
	finish

	insn "REPNE SCASB", 0
	movl $4, %ecx
	movb $0x77, %al
	repne scasb
	finish

	insn "REP STOSB, none", 0
	movl $0, %ecx
	rep stosb
	finish

	insn "REP MOVSL to RAM", 0
	movl $5, %ecx
	movq $mmio_buffer, %rdi
	rep movsl
	movl mmio_buffer + 16, %eax
	finish

	insn "REP MOVSB from RAM", 0
	movl $70, %ecx
	movq $mmio_buffer, %rsi
	rep movsb
	finish

	insn "MOVS backwards", 0
	std
	movsl
	cld
	finish

	insn "MOVUPS load", 0
	movups (%rsi), %xmm0
	movq %xmm0, %rax
	movhlps %xmm0, %xmm1
	movq %xmm1, %rdx
	finish

	insn "MOVUPS store", 0
	movups %xmm0, (%rdi)
	finish

	insn "MOVDQA load", 0
	movdqa (%rsi), %xmm3
	movq %xmm3, %rax
	finish

	insn "MOVDQA store", 0
	movdqa %xmm3, (%rdi)
	finish

	insn "MOVQ load", 0
	movq (%rsi), %xmm2
	movq %xmm2, %rax
	finish

	insn "MOVQ store", 0
	movq %xmm2, (%rdi)
	finish

	insn "MOVD load", 0
	movd (%rsi), %xmm9
	movq %xmm9, %rax
	finish

	insn "MOVNTI", 0
	movnti %rax, (%rdi)
	finish

	insn "MOVNTDQ", 0
	movntdq %xmm0, (%rdi)
	finish

	insn "BSF", RARE + 0x895
	bsfl (%rsi), %eax
	finish

	insn "BSR", RARE + 0x895
	bsrl (%rsi), %eax
	finish

	insn "POPCNT", RARE + 0
	popcntq (%rsi), %rax
	finish

	insn "MOVBE load", 0
	movbe (%rsi), %eax
	finish

	insn "MOVBE store", 0
	movbe %eax, (%rdi)
	finish

	insn "CRC32", RARE + 0
	crc32b (%rsi), %eax
	finish

	insn "PREFETCHT0", 0
	prefetcht0 (%rsi)
	finish

	.pushsection .rodata.mmio_insns, "a"
mmio_insns_end:
	.popsection

	.bss
	.balign 16
mmio_buffer:
	.skip 128
