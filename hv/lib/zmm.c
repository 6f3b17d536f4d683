#include "lib/zmm.h"

#include "lib/string.h"

bool zmm_offered;

#define L1C_PCLMULQDQ BIT(1)
#define L1C_OSXSAVE   BIT(27)
#define L7B_AVX512F   BIT(16)
#define L7B_AVX512BW  BIT(30)
#define L7B_AVX512VL  BIT(31)
#define LDA_XGETBV_1  BIT(2) /* of subleaf 1 */

struct leaf {
	u32 eax, ebx, ecx, edx;
};

static struct leaf cpuid(u32 leaf, u32 subleaf)
{
	struct leaf r;

	asm volatile("cpuid"
		     : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
		     : "a"(leaf), "c"(subleaf));
	return r;
}

void zmm_init(void)
{
	const u32 one = L1C_PCLMULQDQ | L1C_OSXSAVE;
	const u32 seven = L7B_AVX512F | L7B_AVX512BW | L7B_AVX512VL;

	zmm_offered = cpuid(0, 0).eax >= 0xd && (cpuid(1, 0).ecx & one) == one &&
		      (cpuid(7, 0).ebx & seven) == seven && cpuid(0xd, 1).eax & LDA_XGETBV_1;
}

void zmm_copy(void *restrict to, const void *restrict from, size_t len)
{
	u8 save[64];
	size_t at = -len;

	if (unlikely(!len || len % 64 || !zmm_usable())) {
		memcpy(to, from, len);
		return;
	}
	/* Not ZMM0 to 15: while their upper parts are in use, a guest's legacy SSE code is slow. */
	asm volatile("vmovdqu64 %%zmm16, %[save]\n"
		     "test $1024 - 1, %k[at]\n"
		     "jz 2f\n"
		     "1: vmovdqu64 (%[from],%[at]), %%zmm16\n"
		     "vmovdqu64 %%zmm16, (%[to],%[at])\n"
		     "add $64, %[at]\n"
		     "jnz 1b\n"
		     "jmp 3f\n"
		     "2:\n"
		     ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n"
		     "vmovdqu64 64*\\n(%[from],%[at]), %%zmm16\n"
		     "vmovdqu64 %%zmm16, 64*\\n(%[to],%[at])\n"
		     ".endr\n"
		     "add $1024, %[at]\n"
		     "jnz 2b\n"
		     "3: vmovdqu64 %[save], %%zmm16\n"
		     : [at] "+r"(at), [save] "=m"(save)
		     : [from] "r"((const u8 *)from + len), [to] "r"((u8 *)to + len)
		     : "memory", "cc");
}
