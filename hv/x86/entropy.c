#include "x86/entropy.h"

#include "lib/string.h"
#include "x86/asm.h"

#define CPUID_1_ECX_RDRAND BIT(30)
#define CPUID_7_EBX_RDSEED BIT(18)
#define TRIES		   100 /* SDM: ten are enough for RDRAND; RDSEED may run dry */

static bool rdseed(u64 *out)
{
	bool ok;

	asm volatile("rdseed %0" : "=r"(*out), "=@ccc"(ok));
	return ok;
}

static bool rdrand(u64 *out)
{
	bool ok;

	asm volatile("rdrand %0" : "=r"(*out), "=@ccc"(ok));
	return ok;
}

static bool persist(bool (*source)(u64 *), u64 *out)
{
	for (u32 i = 0; i < TRIES; i++) {
		if (source(out))
			return true;
		cpu_relax();
	}
	return false;
}

static bool hardware(u64 *out)
{
	if (cpuid(0, 0).eax >= 7 && (cpuid(7, 0).ebx & CPUID_7_EBX_RDSEED) && persist(rdseed, out))
		return true;
	if ((cpuid(1, 0).ecx & CPUID_1_ECX_RDRAND) && persist(rdrand, out))
		return true;
	*out = 0;
	return false;
}

/* The finalizer of splitmix64: a bijection, so nothing of its input is lost. */
static u64 stir(u64 z)
{
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

bool entropy_fill(void *to, size_t bytes)
{
	u8 *at = to;
	bool ok = true;

	while (bytes) {
		size_t n = MIN(bytes, sizeof(u64));
		u64 word;

		ok &= hardware(&word);
		word ^= stir(rdtsc());
		memcpy(at, &word, n);
		at += n;
		bytes -= n;
	}
	return ok;
}

u64 entropy_word(void)
{
	u64 word;

	entropy_fill(&word, sizeof(word));
	return word;
}
