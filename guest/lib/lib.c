/* Memory functions, console, TAP, options, random numbers. Contract in lib.h. */
#include "cpu.h"
#include "mem.h"
#include "sync.h"

#define STB_SPRINTF_IMPLEMENTATION
#define STB_SPRINTF_NOFLOAT
#define STB_SPRINTF_STATIC
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include <stb_sprintf.h>
#pragma GCC diagnostic pop

#define COM1	  0x3f8
#define UART_LSR  5
#define EXIT_PORT 0xf4

static struct spinlock console_lock;
static unsigned int points, failures, planned;

void *memcpy(void *dst, const void *src, size_t n)
{
	void *d = dst;

	asm volatile("rep movsb" : "+D"(d), "+S"(src), "+c"(n) : : "memory");
	return dst;
}

void *memmove(void *dst, const void *src, size_t n)
{
	if ((uintptr_t)dst - (uintptr_t)src >= n)
		return memcpy(dst, src, n);
	for (volatile u8 *d = dst; n--;)
		d[n] = ((const u8 *)src)[n];
	return dst;
}

void *memset(void *dst, int c, size_t n)
{
	void *d = dst;

	asm volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
	return dst;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const u8 *x = a, *y = b;

	for (size_t i = 0; i < n; i++) {
		if (x[i] != y[i])
			return x[i] - y[i];
	}
	return 0;
}

size_t strlen(const char *s)
{
	const volatile char *p = s; /* volatile: GCC would make this loop a call of strlen() */
	size_t n = 0;

	while (p[n])
		n++;
	return n;
}

int strncmp(const char *a, const char *b, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (a[i] != b[i] || !a[i])
			return (u8)a[i] - (u8)b[i];
	}
	return 0;
}

int strcmp(const char *a, const char *b)
{
	return strncmp(a, b, SIZE_MAX);
}

/* LCR first: without it Bochs' file output keeps only 5 bits of each byte. */
void uart_init(void)
{
	outb(COM1 + 3, 0x03);
	outb(COM1 + 1, 0x00);
	outb(COM1 + 2, 0x07);
	outb(COM1 + 4, 0x0b);
}

void uart_putc(char c)
{
	if (c == '\n')
		uart_putc('\r');
	for (int i = 0; i < 100000 && !(inb(COM1 + UART_LSR) & 0x20); i++)
		cpu_pause();
	outb(COM1, (u8)c);
}

static void put_string(const char *s)
{
	spin_lock(&console_lock);
	while (*s)
		uart_putc(*s++);
	spin_unlock(&console_lock);
}

int vsnprintf(char *buf, size_t size, const char *fmt, va_list args)
{
	return stbsp_vsnprintf(buf, (int)size, fmt, args);
}

int snprintf(char *buf, size_t size, const char *fmt, ...)
{
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(buf, size, fmt, args);
	va_end(args);
	return n;
}

void printf(const char *fmt, ...)
{
	char buf[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(buf, sizeof(buf), fmt, args);
	va_end(args);
	put_string(buf);
}

void tap_plan(unsigned int n)
{
	planned = n;
	printf("1..%u\n", n);
}

static bool point(bool cond, const char *fmt, va_list args)
{
	char text[256];

	vsnprintf(text, sizeof(text), fmt, args);
	points++;
	if (!cond)
		failures++;
	printf("%sok %u - %s\n", cond ? "" : "not ", points, text);
	return cond;
}

bool tap_ok(bool cond, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	point(cond, fmt, args);
	va_end(args);
	return cond;
}

bool tap_is(u64 got, u64 want, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	point(got == want, fmt, args);
	va_end(args);
	if (got != want)
		printf("# got 0x%lx, want 0x%lx\n", got, want);
	return got == want;
}

void tap_skip(const char *fmt, ...)
{
	char text[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	points++;
	printf("ok %u # SKIP %s\n", points, text);
}

void tap_note(const char *fmt, ...)
{
	char text[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	printf("# %s\n", text);
}

unsigned int tap_failures(void)
{
	return failures;
}

void guest_exit(u32 value)
{
	outl(EXIT_PORT, value);
	for (;;)
		asm volatile("cli; hlt");
}

void tap_summary(void)
{
	if (!planned) {
		printf("1..%u\n", points);
	} else if (planned != points) {
		printf("# planned %u points, ran %u\n", planned, points);
		failures++;
	}
	printf("# %u points, %u failed\n", points, failures);
}

void tap_end(void)
{
	tap_summary();
	guest_exit(failures ? 1 : 0);
}

void tap_bail(const char *fmt, ...)
{
	char text[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	printf("Bail out! %s\n", text);
	guest_exit(2);
}

/* The text behind `key` in the command line ('=' or the end of the word), or NULL. */
static const char *opt_find(const char *key)
{
	size_t n = strlen(key);

	for (const char *p = boot.cmdline; *p;) {
		if (!strncmp(p, key, n) && (p[n] == '=' || p[n] == ' ' || !p[n]))
			return p + n;
		while (*p && *p != ' ')
			p++;
		while (*p == ' ')
			p++;
	}
	return NULL;
}

bool opt_str(const char *key, char *buf, size_t size)
{
	const char *p = opt_find(key);
	size_t n = 0;

	if (!p || *p != '=')
		return false;
	for (p++; *p && *p != ' ' && n + 1 < size; p++)
		buf[n++] = *p;
	buf[n] = '\0';
	return true;
}

u64 opt_u64(const char *key, u64 fallback)
{
	char text[32];
	u64 value = 0, base = 10;
	const char *p = text;

	if (!opt_str(key, text, sizeof(text)))
		return fallback;
	if (p[0] == '0' && (p[1] == 'x' || p[1] == 'X')) {
		base = 16;
		p += 2;
	}
	for (; *p; p++) {
		u64 digit = *p <= '9' ? (u64)*p - '0' : (u64)(*p | 0x20) - 'a' + 10;

		if (digit >= base)
			tap_bail("option %s: '%s' is not a number", key, text);
		value = value * base + digit;
	}
	return value;
}

bool opt_flag(const char *key)
{
	const char *p = opt_find(key);

	return p && (*p != '=' || p[1] == '1' || p[1] == 'y');
}

void rng_seed(struct rng *r, u64 seed)
{
	u64 z = seed + 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	r->state = (z ^ (z >> 31)) | 1;
}

u64 rng_next(struct rng *r)
{
	u64 x = r->state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	r->state = x;
	return x * 0x2545f4914f6cdd1dull;
}

u64 rng_below(struct rng *r, u64 n)
{
	return (rng_next(r) >> 11) % n;
}
