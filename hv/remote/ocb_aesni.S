/*
 * AES-256 with AES-NI for OCB (remote/ocb.h), eight blocks at a time, so that their rounds overlap.
 *
 * Legacy SSE instructions, or AVX-512 for all but AES, which VEX gives to 128 bits: x86/simd.h tells
 * when. In assembly, so that nothing in the hypervisor needs a compiler that may use vector
 * registers: no stack, no calls, and System V's scratch registers.
 *
 *   void ocb_aesni_one_{encrypt,decrypt}(const u8 keys[15][16], u8 block[16]);
 *   void ocb_aesni_{encrypt,decrypt}(const u8 keys[15][16], const u8 l[][16],
 *                                    struct ocb_pass *pass, const u8 *from, u8 *to, u32 eights);
 *   void ocb_aesni_wide_{encrypt,decrypt}(..., const u8 steps[][4][16], ...);
 *
 * AES begins and ends with the exclusive-or of a key, and OCB has one with the offset before and
 * after it: IN and OUT are the offset with the first key and with the last.
 */
#define KEYS   %rdi
#define L      %rsi
#define PASS   %rdx
#define FROM   %rcx
#define TO     %r8
#define EIGHTS %r9d
#define COUNT  %eax /* blocks done */

/* Blocks are in %xmm0 to %xmm7. */
#define IN   %xmm8
#define OUT  %xmm9
#define SUM  %xmm10
#define L0   %xmm11
#define L1   %xmm12
#define L2   %xmm13
#define LAST %xmm14 /* L_ntz(i) of the eighth block */

#define ROUNDS 14

#define PASS_OFFSET 0
#define PASS_SUM    16
#define PASS_BLOCKS 32

.macro first i, l, encrypting
	pxor	\l, IN
	movdqu	\i * 16(FROM), %xmm\i
	.if \encrypting
	pxor	%xmm\i, SUM
	.endif
	pxor	IN, %xmm\i
.endm

.macro final i, l, aeslast, encrypting
	pxor	\l, OUT
	\aeslast OUT, %xmm\i
	.if !\encrypting
	pxor	%xmm\i, SUM
	.endif
	movdqu	%xmm\i, \i * 16(TO)
.endm

.macro eight name, aes, aeslast, encrypting
	.globl	\name
	.type	\name, @function
\name:
	movdqu	PASS_OFFSET(PASS), IN
	movdqa	IN, OUT
	pxor	(KEYS), IN
	pxor	ROUNDS * 16(KEYS), OUT
	movdqu	PASS_SUM(PASS), SUM
	mov	PASS_BLOCKS(PASS), COUNT
	movdqa	0 * 16(L), L0
	movdqa	1 * 16(L), L1
	movdqa	2 * 16(L), L2
	.balign	16
1:	add	$8, COUNT
	bsf	COUNT, %r10d
	shl	$4, %r10d
	movdqa	(L, %r10), LAST
	first	0, L0, \encrypting
	first	1, L1, \encrypting
	first	2, L0, \encrypting
	first	3, L2, \encrypting
	first	4, L0, \encrypting
	first	5, L1, \encrypting
	first	6, L0, \encrypting
	first	7, LAST, \encrypting
	.set	round, 1
	.rept	ROUNDS - 1
	.irp	i, 0, 1, 2, 3, 4, 5, 6, 7
	\aes	round * 16(KEYS), %xmm\i
	.endr
	.set	round, round + 1
	.endr
	final	0, L0, \aeslast, \encrypting
	final	1, L1, \aeslast, \encrypting
	final	2, L0, \aeslast, \encrypting
	final	3, L2, \aeslast, \encrypting
	final	4, L0, \aeslast, \encrypting
	final	5, L1, \aeslast, \encrypting
	final	6, L0, \aeslast, \encrypting
	final	7, LAST, \aeslast, \encrypting
	sub	$-128, FROM
	sub	$-128, TO
	dec	EIGHTS
	jnz	1b
	pxor	(KEYS), IN
	movdqu	IN, PASS_OFFSET(PASS)
	movdqu	SUM, PASS_SUM(PASS)
	mov	COUNT, PASS_BLOCKS(PASS)
	ret
	.size	\name, . - \name
.endm

.macro one name, aes, aeslast
	.globl	\name
	.type	\name, @function
\name:
	movdqu	(%rsi), %xmm0
	pxor	(KEYS), %xmm0
	.set	round, 1
	.rept	ROUNDS - 1
	\aes	round * 16(KEYS), %xmm0
	.set	round, round + 1
	.endr
	\aeslast ROUNDS * 16(KEYS), %xmm0
	movdqu	%xmm0, (%rsi)
	ret
	.size	\name, . - \name
.endm

/*
 * AVX-512: four blocks and their offsets in a register, but for AES itself. Each of the four parts of
 * IN and OUT is the offset before the eight blocks, with a key; steps[0] and one of those that follow
 * make eight offsets of it.
 */
#define STEPS	%rsi
#define AT	%rax /* bytes done */
#define END	%r9
#define STEP	%r10
#define WIDE_IN	%zmm16
#define WIDE_OUT %zmm17
#define WIDE_SUM %zmm18

#define A_XOR_B_XOR_C $0x96
#define LAST_STEPS    -6 * 64(STEPS, STEP) /* STEP: 64 * (4 + ntz(i)); i is a multiple of 8 */
#define LAST_STEP     -6 * 64 + 48(STEPS, STEP)

.macro apart four, a, b, c
	vextracti32x4 $1, %zmm\four, %xmm\a
	vextracti32x4 $2, %zmm\four, %xmm\b
	vextracti32x4 $3, %zmm\four, %xmm\c
.endm

.macro together four, a, b, c
	vinserti32x4 $1, %xmm\a, %zmm\four, %zmm\four
	vinserti32x4 $2, %xmm\b, %zmm\four, %zmm\four
	vinserti32x4 $3, %xmm\c, %zmm\four, %zmm\four
.endm

.macro add_offsets base
	vpternlogq A_XOR_B_XOR_C, (STEPS), \base, %zmm0
	vpternlogq A_XOR_B_XOR_C, LAST_STEPS, \base, %zmm4
.endm

.macro eight_wide name, aes, aeslast, encrypting
	.globl	\name
	.type	\name, @function
\name:
	vbroadcasti32x4 PASS_OFFSET(PASS), WIDE_OUT
	vbroadcasti32x4 (KEYS), WIDE_IN
	vpxorq	WIDE_OUT, WIDE_IN, WIDE_IN
	vmovdqu64 PASS_SUM(PASS), %xmm18
	mov	PASS_BLOCKS(PASS), %eax
	shl	$4, AT
	sub	AT, FROM
	sub	AT, TO
	shl	$7, END
	add	AT, END
	.balign	16
1:	sub	$-128, AT
	bsf	AT, STEP
	shl	$6, STEP
	vmovdqu64 -128(FROM, AT), %zmm0
	vmovdqu64 -64(FROM, AT), %zmm4
	.if \encrypting
	vpternlogq A_XOR_B_XOR_C, %zmm0, %zmm4, WIDE_SUM
	.endif
	add_offsets WIDE_IN
	apart	0, 1, 2, 3
	apart	4, 5, 6, 7
	.set	round, 1
	.rept	ROUNDS - 1
	.irp	i, 0, 1, 2, 3, 4, 5, 6, 7
	\aes	round * 16(KEYS), %xmm\i, %xmm\i
	.endr
	.set	round, round + 1
	.endr
	.irp	i, 0, 1, 2, 3, 4, 5, 6, 7
	\aeslast ROUNDS * 16(KEYS), %xmm\i, %xmm\i
	.endr
	together 0, 1, 2, 3
	together 4, 5, 6, 7
	add_offsets WIDE_OUT
	.if !\encrypting
	vpternlogq A_XOR_B_XOR_C, %zmm0, %zmm4, WIDE_SUM
	.endif
	vmovdqu64 %zmm0, -128(TO, AT)
	vmovdqu64 %zmm4, -64(TO, AT)
	vbroadcasti32x4 LAST_STEP, %zmm0
	vpxorq	%zmm0, WIDE_IN, WIDE_IN
	vpxorq	%zmm0, WIDE_OUT, WIDE_OUT
	cmp	END, AT
	jne	1b
	vextracti32x4 $1, WIDE_SUM, %xmm1
	vextracti32x4 $2, WIDE_SUM, %xmm2
	vextracti32x4 $3, WIDE_SUM, %xmm3
	vpternlogq A_XOR_B_XOR_C, %xmm1, %xmm2, %xmm3
	vpxorq	%xmm3, %xmm18, %xmm3
	vmovdqu	%xmm3, PASS_SUM(PASS)
	vmovdqu64 %xmm17, PASS_OFFSET(PASS)
	shr	$4, AT
	mov	COUNT, PASS_BLOCKS(PASS)
	ret
	.size	\name, . - \name
.endm

	.text
	eight	ocb_aesni_encrypt, aesenc, aesenclast, 1
	eight	ocb_aesni_decrypt, aesdec, aesdeclast, 0
	eight_wide ocb_aesni_wide_encrypt, vaesenc, vaesenclast, 1
	eight_wide ocb_aesni_wide_decrypt, vaesdec, vaesdeclast, 0
	one	ocb_aesni_one_encrypt, aesenc, aesenclast
	one	ocb_aesni_one_decrypt, aesdec, aesdeclast

	.section .note.GNU-stack, "", @progbits
