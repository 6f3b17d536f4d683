/*
 * Moves between memory and a vector register whose number is known at run time only: a table of one
 * instruction and RET per register, 16 bytes each. See vector.h.
 */
	.altmacro

	.macro vector_entry insn, reg, width, load
	.balign 16
	.if \load
	\insn (%rsi), %\width\()mm\reg
	.else
	\insn %\width\()mm\reg, (%rsi)
	.endif
	ret
	.endm

	.macro vector_table name, insn, width, load
	.globl \name
	.type \name, @function
	.balign 16
\name:
	and $15, %edi
	shl $4, %edi
	lea 1f(%rip), %rax
	add %rdi, %rax
	jmp *%rax
	.balign 16
1:
	n = 0
	.rept 16
	vector_entry \insn, %n, \width, \load
	n = n + 1
	.endr
	.size \name, . - \name
	.endm

	.text
	vector_table vector_store16, movdqu, x, 0
	vector_table vector_store32, vmovdqu, y, 0
	vector_table vector_load16, movdqu, x, 1
	vector_table vector_load_vex16, vmovdqu, x, 1
	vector_table vector_load32, vmovdqu, y, 1
