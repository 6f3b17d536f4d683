/*
 * The little that our programs in a Linux guest need: a start without a C library, system calls
 * (x86-64 ABI: number in RAX, arguments in RDI, RSI, RDX, R10; RCX and R11 are lost), numbers as
 * text. Each program is one file that includes this and defines run().
 */
#ifndef GUEST_LINUX_SYS_H
#define GUEST_LINUX_SYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t u64;

enum {
	SYS_WRITE = 1,
	SYS_MMAP = 9,
	SYS_MUNMAP = 11,
	SYS_IOPERM = 173,
	SYS_CLOCK_GETTIME = 228,
	SYS_CLOCK_NANOSLEEP = 230,
	SYS_EXIT_GROUP = 231,
};

struct timespec64 {
	int64_t seconds, nanoseconds;
};

#define CLOCK_MONOTONIC 1

/* The program: returns its exit status. argv ends with NULL. */
int run(int argc, char **argv);

static inline long sys(long number, u64 a, u64 b, u64 c, u64 d)
{
	register u64 r10 asm("r10") = d;
	register u64 r8 asm("r8") = ~0ul; /* mmap: no file */
	register u64 r9 asm("r9") = 0;
	long result;

	asm volatile("syscall"
		     : "=a"(result)
		     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
		     : "rcx", "r11", "memory");
	return result;
}

/* Text goes out line by line, so that the lines of several programs do not mix. */
static inline void print(const char *text)
{
	static char line[256];
	static size_t len;

	for (; *text; text++) {
		line[len++] = *text;
		if (*text == '\n' || len == sizeof(line)) {
			sys(SYS_WRITE, 1, (u64)(uintptr_t)line, len, 0);
			len = 0;
		}
	}
}

static inline void print_u64(u64 value)
{
	char text[21];
	size_t at = sizeof(text) - 1;

	text[at] = 0;
	do {
		text[--at] = (char)('0' + value % 10);
		value /= 10;
	} while (value);
	print(text + at);
}

static inline u64 parse_u64(const char *text)
{
	u64 value = 0;

	while (*text >= '0' && *text <= '9')
		value = value * 10 + (u64)(*text++ - '0');
	return value;
}

/* Ordered behind what came before it (SDM volume 2, RDTSC). */
static inline u64 rdtsc(void)
{
	uint32_t low, high;

	asm volatile("mfence; lfence; rdtsc; lfence" : "=a"(low), "=d"(high) : : "memory");
	return low | (u64)high << 32;
}

/* Zeroed memory, or NULL. */
static inline void *pages(u64 bytes)
{
	long p = sys(SYS_MMAP, 0, bytes, 3 /* read, write */, 0x22 /* private, anonymous */);

	return p < 0 && p > -4096 ? NULL : (void *)(uintptr_t)p;
}

static inline u64 monotonic_ns(void)
{
	struct timespec64 now = {0, 0};

	sys(SYS_CLOCK_GETTIME, CLOCK_MONOTONIC, (u64)(uintptr_t)&now, 0, 0);
	return (u64)now.seconds * 1000000000 + (u64)now.nanoseconds;
}

/* The stack holds argc, then argv. */
asm(".globl _start\n"
    "_start:\n"
    "	xorl %ebp, %ebp\n"
    "	movq (%rsp), %rdi\n"
    "	leaq 8(%rsp), %rsi\n"
    "	andq $-16, %rsp\n"
    "	call run\n"
    "	movl %eax, %edi\n"
    "	movl $231, %eax\n"
    "	syscall\n");

/* The compiler may call these. */
void *memset(void *to, int value, size_t bytes);
void *memcpy(void *to, const void *from, size_t bytes);

void *memset(void *to, int value, size_t bytes)
{
	void *start = to;

	asm volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(value) : "memory");
	return start;
}

void *memcpy(void *to, const void *from, size_t bytes)
{
	void *start = to;

	asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
	return start;
}

#endif
