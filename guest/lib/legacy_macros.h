/* For 32-bit code of legacy.S and tasks.S. */

/* EAX into the table. */
	.macro result index
	movl %eax, RESULTS + 4 * \index
	.endm

/* An exception in what follows continues at the next label 9. Keeps all registers. */
	.macro arm
	movl $-1, trap32_vector
	movl $9f, trap32_resume
	movl %esp, trap32_resume_esp
	.endm

/* The vector taken since arm (-1: none) into the table; changes EAX. */
	.macro trapped index
	movl trap32_vector, %eax
	result \index
	.endm
