/*
 * CRC-32 of many bytes by carry-less multiplication: 16 bytes (a block) are moved over those that
 * follow, modulo the polynomial P, and added to them, until one block is left.
 *
 *   u32 crc32_fold_{sse,short_sse}(const u8 *mask, const u8 *head, const u8 *data, size_t len,
 *                                  u32 crc);
 *   u32 crc32_fold_{avx512,short_avx512}(..., u32 in_use);
 *
 * lib/crc32_fold.h says what they do. The vector registers belong to a guest: those used are put
 * back. The SSE form uses legacy instructions only, which leave the upper parts alone; VEX and EVEX
 * clear these, so that the other form keeps whole ZMM registers.
 *
 * A block's first byte is its lowest, and bit i of the block is the coefficient of x^(127 - i). A
 * product of two 64-bit halves is short of one bit then: PCLMULQDQ gives x times what is to be had,
 * for which the factors make up.
 */
#define MASK %rdi
#define HEAD %rsi
#define DATA %rdx
#define LEN  %rcx
#define LEN4 %ecx
#define LEN1 %cl
#define CRC  %r8d
#define USED %r9b
#define AT   %rax

/* Blocks are in %xmm0 to %xmm3. */
#define T %xmm4
#define K %xmm5 /* SSE: the factors that are in use */

	.section .rodata
	.balign	16
/*
 * Factors that move a block over n bits: of its first half, x^(n + 64) mod P, and of its second,
 * x^n mod P; both by x^-33 and x^32, so that they take no more than 33 bits and the product is right.
 */
over_three: /* n = 512: one of four blocks, over the other three */
	.quad	0x154442bd4, 0x1c6e41596
over_none: /* n = 128 */
	.quad	0x1751997d0, 0x0ccaa009e
barrett: /* x^95 / P, P * x^31 */
	.quad	0xb4e5b025f7011641, 0x1db710641
/* PSHUFB by those from n on: a block's first n bytes, at its end; from 16 + n on: the others, at
 * its beginning. */
moved:
	.fill	16, 1, 0x80
	.byte	0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	.fill	16, 1, 0x80

	.text

.macro function name
	.globl	\name
	.type	\name, @function
\name:
.endm

.macro end name
	.size	\name, . - \name
.endm

/* --- SSE2 and PCLMULQDQ ----------------------------------------------------------------------- */

.macro save_sse regs:vararg
	sub	$6 * 16, %rsp
	.irp	n, \regs
	movups	%xmm\n, 16 * \n(%rsp)
	.endr
.endm

.macro restore_sse regs:vararg
	.irp	n, \regs
	movups	16 * \n(%rsp), %xmm\n
	.endr
	add	$6 * 16, %rsp
.endm

.macro masked_sse n
	movups	16 * \n(HEAD), %xmm\n
	por	16 * \n(MASK), %xmm\n
.endm

/* Three blocks under the mask, the CRC so far in the first. */
.macro begin_sse
	not	CRC
	masked_sse 0
	masked_sse 1
	masked_sse 2
	movd	CRC, T
	pxor	T, %xmm0
.endm

.macro times_k n
	movdqa	%xmm\n, T
	pclmulqdq $0x00, K, %xmm\n
	pclmulqdq $0x11, K, T
	pxor	T, %xmm\n
.endm

.macro fold_sse n, with:vararg
	times_k	\n
	pxor	\with, %xmm\n
.endm

.macro fold_unaligned n, with:vararg
	times_k	\n
	movups	\with, T
	pxor	T, %xmm\n
.endm

/*
 * The block in xmm0, times x^32, modulo P. Its first half becomes 32 bits longer and joins the
 * second: 96 bits. The quotient of these by P has 64, from their first 64 and x^95 / P (Barrett).
 */
.macro reduce_sse
	movdqa	%xmm0, T
	pclmulqdq $0x10, K, T
	psrldq	$8, %xmm0
	pxor	T, %xmm0
	movdqa	%xmm0, T
	pclmulqdq $0x00, barrett(%rip), T
	pclmulqdq $0x10, barrett(%rip), T
	pxor	T, %xmm0
	psrldq	$8, %xmm0
	movd	%xmm0, %eax
	not	%eax
.endm

.macro four_blocks_each_time fold
1:	.irp	n, 0, 1, 2, 3
	\fold	\n, 16 * \n(DATA, AT)
	.endr
	add	$64, AT
	jnz	1b
.endm

function crc32_fold_sse
	save_sse 0, 1, 2, 3, 4, 5
	begin_sse
	movups	48(HEAD), %xmm3
	movdqa	over_three(%rip), K
	mov	LEN, AT
	and	$~63, AT
	jz	3f
	add	AT, DATA
	neg	AT
	test	$15, %dl
	jnz	2f
	four_blocks_each_time fold_sse
	jmp	3f
2:	four_blocks_each_time fold_unaligned
3:	movdqa	over_none(%rip), K
	fold_sse 0, %xmm1
	fold_sse 0, %xmm2
	fold_sse 0, %xmm3
	and	$48, LEN4
	jz	5f
4:	fold_unaligned 0, (DATA)
	add	$16, DATA
	sub	$16, LEN4
	jnz	4b
5:	reduce_sse
	restore_sse 0, 1, 2, 3, 4, 5
	ret
end crc32_fold_sse

function crc32_fold_short_sse
	save_sse 0, 1, 2, 4, 5
	begin_sse
	movdqa	over_none(%rip), K
	fold_sse 0, %xmm1
	fold_sse 0, %xmm2
	test	$16, LEN1
	jz	1f
	fold_unaligned 0, (DATA)
1:	reduce_sse
	restore_sse 0, 1, 2, 4, 5
	ret
end crc32_fold_short_sse

/* --- AVX-512 of 128 bits, and PCLMULQDQ ------------------------------------------------------- */

#define A_XOR_B_XOR_C	   $0x96
#define A_OR_C_THEN_XOR_B $0x36
#define XINUSE_UPPER	   (1 << 2 | 1 << 6) /* of YMM and of ZMM0 to 15 */

.macro save_zmm regs:vararg
	sub	$5 * 64, %rsp
	.irp	n, \regs
	vmovdqu64 %zmm\n, 64 * \n(%rsp)
	.endr
.endm

/*
 * As a load counts as use even if all it brings is 0, and legacy SSE code is slow while the upper
 * parts are in use (until VZEROUPPER: SDM 1 14.9.1), they are left as they were in that too.
 */
.macro restore_zmm_and_return regs:vararg
	test	$XINUSE_UPPER, USED
	jnz	8f
	vzeroupper
	.irp	n, \regs
	vmovdqu	64 * \n(%rsp), %xmm\n
	.endr
	add	$5 * 64, %rsp
	ret
8:	.irp	n, \regs
	vmovdqu64 64 * \n(%rsp), %zmm\n
	.endr
	add	$5 * 64, %rsp
	ret
.endm

.macro begin_avx512
	not	CRC
	vmovd	CRC, T
	vmovdqu	(HEAD), %xmm0
	vpternlogq A_OR_C_THEN_XOR_B, (MASK), T, %xmm0
	vmovdqu	16(HEAD), %xmm1
	vpor	16(MASK), %xmm1, %xmm1
	vmovdqu	32(HEAD), %xmm2
	vpor	32(MASK), %xmm2, %xmm2
.endm

.macro fold_avx512 over, n, with:vararg
	vpclmulqdq $0x00, \over(%rip), %xmm\n, T
	vpclmulqdq $0x11, \over(%rip), %xmm\n, %xmm\n
	vpternlogq A_XOR_B_XOR_C, \with, T, %xmm\n
.endm

.macro four_avx512 from, at:vararg
	.irp	n, 0, 1, 2, 3
	fold_avx512 over_three, \n, \from + 16 * \n(\at)
	.endr
.endm

/*
 * The last 1 to 15 bytes: the first of the block in xmm0 make room for them. Bytes that a mask
 * leaves out are not read (SDM 1 15.6.4), so that it does not matter what is before the data.
 */
.macro last_bytes
	lea	moved(%rip), %rax
	vpshufb	(%rax, LEN), %xmm0, %xmm1
	vpshufb	16(%rax, LEN), %xmm0, %xmm0
	kmovq	%k1, %r10
	mov	$0xffff0000, %eax
	shr	LEN1, %eax
	kmovd	%eax, %k1
	vmovdqu8 -16(DATA, LEN), %xmm0{%k1}
	kmovq	%r10, %k1
	vpclmulqdq $0x00, over_none(%rip), %xmm1, T
	vpclmulqdq $0x11, over_none(%rip), %xmm1, %xmm1
	vpternlogq A_XOR_B_XOR_C, %xmm1, T, %xmm0
.endm

/* reduce_sse's way. */
.macro reduce_avx512
	vpclmulqdq $0x10, over_none(%rip), %xmm0, T
	vpsrldq	$8, %xmm0, %xmm0
	vpxor	T, %xmm0, %xmm0
	vpclmulqdq $0x00, barrett(%rip), %xmm0, T
	vpclmulqdq $0x10, barrett(%rip), T, T
	vpxor	T, %xmm0, %xmm0
	vpextrd	$2, %xmm0, %eax
	not	%eax
.endm

function crc32_fold_avx512
	save_zmm 0, 1, 2, 3, 4
	begin_avx512
	vmovdqu	48(HEAD), %xmm3
	mov	LEN, AT
	and	$~255, AT
	jz	1f
	add	AT, DATA
	neg	AT
0:	.irp	from, 0, 64, 128, 192
	four_avx512 \from, DATA, AT
	.endr
	add	$256, AT
	jnz	0b
1:	test	$128, LEN1
	jz	2f
	four_avx512 0, DATA
	four_avx512 64, DATA
	sub	$-128, DATA
2:	test	$64, LEN1
	jz	3f
	four_avx512 0, DATA
	add	$64, DATA
3:	fold_avx512 over_none, 0, %xmm1
	fold_avx512 over_none, 0, %xmm2
	fold_avx512 over_none, 0, %xmm3
	test	$32, LEN1
	jz	4f
	fold_avx512 over_none, 0, (DATA)
	fold_avx512 over_none, 0, 16(DATA)
	add	$32, DATA
4:	test	$16, LEN1
	jz	5f
	fold_avx512 over_none, 0, (DATA)
	add	$16, DATA
5:	and	$15, LEN4
	jz	6f
	last_bytes
6:	reduce_avx512
	restore_zmm_and_return 0, 1, 2, 3, 4
end crc32_fold_avx512

function crc32_fold_short_avx512
	save_zmm 0, 1, 2, 4
	begin_avx512
	fold_avx512 over_none, 0, %xmm1
	fold_avx512 over_none, 0, %xmm2
	test	$16, LEN1
	jz	1f
	fold_avx512 over_none, 0, (DATA)
	add	$16, DATA
1:	and	$15, LEN4
	jz	2f
	last_bytes
2:	reduce_avx512
	restore_zmm_and_return 0, 1, 2, 4
end crc32_fold_short_avx512

	.section .note.GNU-stack, "", @progbits
