#include "lib/zmm.h"

#include "lib/string.h"

bool zmm_offered;

#define L1C_PCLMULQDQ BIT(1)
#define L1C_OSXSAVE   BIT(27)
#define L7B_AVX512F   BIT(16)
#define L7B_AVX512BW  BIT(30)
#define L7B_AVX512VL  BIT(31)

void zmm_init(void)
{
	const u32 one = L1C_PCLMULQDQ | L1C_OSXSAVE,
		  seven = L7B_AVX512F | L7B_AVX512BW | L7B_AVX512VL;
	u32 leaves, eax = 0, ebx, ecx = 0, edx, found;

	asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	leaves = eax;
	eax = 1;
	ecx = 0;
	asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	found = ecx;
	if (leaves < 7 || (found & one) != one)
		return;
	eax = 7;
	ecx = 0;
	asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	zmm_offered = (ebx & seven) == seven;
}

#define MOVE(n) "vmovdqu64 64*" #n "(%[from]), %%zmm0; vmovdqu64 %%zmm0, 64*" #n "(%[to])\n"

void zmm_copy(void *restrict to, const void *restrict from, size_t len)
{
	u8 save[64];

	if (unlikely(!len || len % 64 || !zmm_usable())) {
		memcpy(to, from, len);
		return;
	}
	asm volatile("vmovdqu64 %%zmm0, (%[save])\n"
		     "test $512 - 1, %k[len]\n"
		     "jnz 2f\n"
		     "1:\n" MOVE(0) MOVE(1) MOVE(2) MOVE(3) MOVE(4) MOVE(5) MOVE(6)
			     MOVE(7) "add $512, %[from]\n"
				     "add $512, %[to]\n"
				     "sub $512, %[len]\n"
				     "jnz 1b\n"
				     "jmp 3f\n"
				     "2:\n" MOVE(0) "add $64, %[from]\n"
						    "add $64, %[to]\n"
						    "sub $64, %[len]\n"
						    "jnz 2b\n"
						    "3: vmovdqu64 (%[save]), %%zmm0\n"
		     : [to] "+r"(to), [from] "+r"(from), [len] "+r"(len)
		     : [save] "r"(save)
		     : "memory", "cc");
}
