#include "x86/simd.h"

#define EACH(op)                                                                                \
	op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12) op(13) \
		op(14) op(15)
#define STORE(n) "movups %%xmm" #n ", " #n "*16(%0)\n"
#define LOAD(n)	 "movups " #n "*16(%0), %%xmm" #n "\n"

void simd_begin(struct simd_save *save)
{
	asm volatile(EACH(STORE) : : "r"(save) : "memory");
}

/* No clobbers: for its caller nothing has changed. */
void simd_end(const struct simd_save *save)
{
	asm volatile(EACH(LOAD) : : "r"(save) : "memory");
}
