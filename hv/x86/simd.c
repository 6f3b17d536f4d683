#include "x86/simd.h"

#include "lib/zmm.h"

#define EACH(op)                                                                                \
	op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12) op(13) \
		op(14) op(15)
#define STORE(n) "movups %%xmm" #n ", " #n "*16(%0)\n"
#define LOAD(n)	 "movups " #n "*16(%0), %%xmm" #n "\n"

/* ZMM0 to 7 have places 0 to 7, ZMM16 to 18 8 to 10. */
#define LOW(op)		  op(0, 0) op(1, 1) op(2, 2) op(3, 3) op(4, 4) op(5, 5) op(6, 6) op(7, 7)
#define HIGH(op)	  op(16, 8) op(17, 9) op(18, 10)
#define STORE_ZMM(n, at)  "vmovdqu64 %%zmm" #n ", " #at "*64(%0)\n"
#define LOAD_ZMM(n, at)	  "vmovdqu64 " #at "*64(%0), %%zmm" #n "\n"
#define LOAD_LOWER(n, at) "vmovdqu " #at "*64(%0), %%xmm" #n "\n"

#define XINUSE_UPPER (BIT(2) | BIT(6)) /* of YMM and of ZMM0 to 15 */

void simd_begin(struct simd_save *save)
{
	asm volatile(EACH(STORE) : : "r"(save) : "memory");
	save->wide = false;
}

void simd_begin_wide(struct simd_save *save)
{
	if (!zmm_usable()) {
		simd_begin(save);
		return;
	}
	asm volatile(LOW(STORE_ZMM) HIGH(STORE_ZMM) : : "r"(save) : "memory");
	save->wide = true;
	save->in_use = zmm_in_use();
}

/* No clobbers: for its caller nothing has changed. */
void simd_end(const struct simd_save *save)
{
	if (!save->wide)
		asm volatile(EACH(LOAD) : : "r"(save) : "memory");
	else if (save->in_use & XINUSE_UPPER)
		asm volatile(LOW(LOAD_ZMM) HIGH(LOAD_ZMM) : : "r"(save) : "memory");
	else /* a load counts as use, and a guest's legacy SSE code would be slow: SDM 1 14.9.1 */
		asm volatile("vzeroupper\n" LOW(LOAD_LOWER) HIGH(LOAD_ZMM)
			     :
			     : "r"(save)
			     : "memory");
}
