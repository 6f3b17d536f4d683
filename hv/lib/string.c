#include "lib/string.h"

#define LARGE_COPY 512 /* from here on a second string instruction pays */

/*
 * The copies use string instructions: short, as fast as the processor's microcode knows how, and
 * the compiler cannot turn them into calls of themselves.
 */
void *memcpy(void *restrict dst, const void *restrict src, size_t n)
{
	void *d = dst;
	size_t words = n / 8;

	/* An emulator counts every iteration, which matters for files and disks. */
	if (n >= LARGE_COPY) {
		asm volatile("rep movsq" : "+D"(d), "+S"(src), "+c"(words) : : "memory");
		n %= 8;
	}
	asm volatile("rep movsb" : "+D"(d), "+S"(src), "+c"(n) : : "memory");
	return dst;
}

void *memmove(void *dst, const void *src, size_t n)
{
	const u8 *s = src;
	u8 *d = dst;

	if ((uintptr_t)d - (uintptr_t)s >= n)
		return memcpy(dst, src, n);
	s += n - 1;
	d += n - 1;
	asm volatile("std; rep movsb; cld" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
	return dst;
}

void *memset(void *dst, int c, size_t n)
{
	void *d = dst;
	size_t words = n / 8, rest = n % 8;

	/* Guest RAM is cleared with this: an emulator counts every iteration. */
	asm volatile("rep stosq"
		     : "+D"(d), "+c"(words)
		     : "a"((u8)c * 0x0101010101010101ull)
		     : "memory");
	asm volatile("rep stosb" : "+D"(d), "+c"(rest) : "a"(c) : "memory");
	return dst;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const u8 *x = a, *y = b;

	for (; n; n--, x++, y++)
		if (*x != *y)
			return *x < *y ? -1 : 1;
	return 0;
}

size_t strnlen(const char *s, size_t max)
{
	size_t n = 0;

	while (n < max && s[n])
		n++;
	return n;
}

size_t strlen(const char *s)
{
	return strnlen(s, SIZE_MAX);
}

int strcmp(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return (int)(u8)*a - (int)(u8)*b;
}

bool str_copy(char *dst, size_t size, const char *src)
{
	size_t n = strnlen(src, size);
	bool fits = n < size;

	if (!size)
		return false;
	if (!fits)
		n = size - 1;
	memcpy(dst, src, n);
	dst[n] = '\0';
	return fits;
}
