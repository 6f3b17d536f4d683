/*
 * Base of the guest test kernels: types, memory functions, console, TAP, options, random numbers.
 * A kernel defines `void guest_main(void)`; everything is set up when it is called: 64-bit mode,
 * identity map of the first 4 GiB, IDT, interrupts off, bootstrap processor only. Returning from
 * guest_main() is the same as tap_end().
 */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "segments.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t s32;
typedef int64_t s64;

#define BIT(n)	      (1u << (n))
#define BIT64(n)      (1ull << (n))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)     ((a) < (b) ? (a) : (b))
#define MAX(a, b)     ((a) > (b) ? (a) : (b))

#define PAGE_SIZE 4096ull
#define SIZE_2M	  0x200000ull
#define SIZE_1G	  0x40000000ull

#define __packed	__attribute__((packed))
#define __aligned(n)	__attribute__((aligned(n)))
#define __noreturn	__attribute__((noreturn))
#define __format(a, b)	__attribute__((format(printf, a, b)))
#define __noinline	__attribute__((noinline))
#define __always_inline inline __attribute__((always_inline))

void guest_main(void);

void *memcpy(void *dst, const void *src, size_t n);
void *memmove(void *dst, const void *src, size_t n);
void *memset(void *dst, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t n);

/* Console: COM1, polled; a whole call is atomic among CPUs. No floating point in formats. */
void uart_init(void);
void uart_putc(char c);
void printf(const char *fmt, ...) __format(1, 2);
int snprintf(char *buf, size_t size, const char *fmt, ...) __format(3, 4);
int vsnprintf(char *buf, size_t size, const char *fmt, va_list args);

/*
 * TAP. tap_plan() is optional: without it the plan is printed at the end. tap_ok() returns its
 * condition. tap_end() writes 0 to port 0xf4 if every point passed, else 1 (QEMU's status is
 * (v << 1) | 1), and never returns. tap_bail() is for what makes going on senseless: value 2.
 */
void tap_plan(unsigned int points);
bool tap_ok(bool cond, const char *fmt, ...) __format(2, 3);
/* As tap_ok(got == want), showing both when they differ. */
bool tap_is(u64 got, u64 want, const char *fmt, ...) __format(3, 4);
void tap_skip(const char *fmt, ...) __format(1, 2);
void tap_note(const char *fmt, ...) __format(1, 2);
unsigned int tap_failures(void);
/* The plan and a line of totals, for kernels that end by guest_exit() instead of tap_end(). */
void tap_summary(void);
void tap_end(void) __noreturn;
void tap_bail(const char *fmt, ...) __noreturn __format(1, 2);
/* Ends the VM with a value in isa-debug-exit; halts if there is no such device. */
void guest_exit(u32 value) __noreturn;

/*
 * Options: `key=value` words of the command line (decimal or 0x hexadecimal numbers). opt_flag()
 * is true for a bare `key` or for key=1/yes.
 */
u64 opt_u64(const char *key, u64 fallback);
bool opt_str(const char *key, char *buf, size_t size);
bool opt_flag(const char *key);

/* xorshift64* with a seed that a splitmix step spreads; every seed is allowed, also 0. */
struct rng {
	u64 state;
};
void rng_seed(struct rng *r, u64 seed);
u64 rng_next(struct rng *r);
/* Uniform enough for tests: 0 to n - 1. */
u64 rng_below(struct rng *r, u64 n);
