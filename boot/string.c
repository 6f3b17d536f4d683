/*
 * The functions that the compiler calls by itself. GNU-EFI's go byte by byte, which is a good part
 * of the time that loading takes.
 */
#include "lib/types.h"

void *memcpy(void *restrict to, const void *restrict from, size_t n);
void *memset(void *to, int c, size_t n);

void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
	size_t words = n / 8, bytes = n % 8;
	void *p = to;

	asm volatile("rep movsq" : "+D"(p), "+S"(from), "+c"(words) : : "memory");
	asm volatile("rep movsb" : "+D"(p), "+S"(from), "+c"(bytes) : : "memory");
	return to;
}

void *memset(void *to, int c, size_t n)
{
	size_t words = n / 8, bytes = n % 8;
	u64 pattern = (u8)c * 0x0101010101010101ull;
	void *p = to;

	asm volatile("rep stosq" : "+D"(p), "+c"(words) : "a"(pattern) : "memory");
	asm volatile("rep stosb" : "+D"(p), "+c"(bytes) : "a"(pattern) : "memory");
	return to;
}
