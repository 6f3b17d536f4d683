/*
 * Integer names, address types and small helpers that every room may use.
 *
 * Host-physical, guest-physical and guest-virtual addresses are different C types: only the named
 * functions below convert, so that no guest number is ever used as a host address by accident.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t s32;
typedef int64_t s64;

#define BIT(n)				(1u << (n))
#define BIT64(n)			(1ull << (n))
#define ARRAY_SIZE(a)			(sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)			((a) < (b) ? (a) : (b))
#define MAX(a, b)			((a) > (b) ? (a) : (b))
#define ALIGN_UP(x, a)			(((x) + ((a)-1)) & ~((__typeof__(x))(a)-1))
#define ALIGN_DOWN(x, a)		((x) & ~((__typeof__(x))(a)-1))
#define IS_ALIGNED(x, a)		(((x) & ((__typeof__(x))(a)-1)) == 0)
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#define KIB (1024ull)
#define MIB (1024ull * KIB)
#define GIB (1024ull * MIB)

#define PAGE_SHIFT 12
#define PAGE_SIZE  4096ull
#define PAGE_MASK  (~(PAGE_SIZE - 1))
#define SIZE_2M	   (2 * MIB)
#define SIZE_1G	   (1 * GIB)

#define __packed       __attribute__((packed))
#define __aligned(n)   __attribute__((aligned(n)))
#define __noinline     __attribute__((noinline))
#define __noreturn     __attribute__((noreturn))
#define __format(a, b) __attribute__((format(printf, a, b)))
#define likely(x)      __builtin_expect(!!(x), 1)
#define unlikely(x)    __builtin_expect(!!(x), 0)

/* Errors are negative returns; 0 is success. The names follow errno(3). */
enum {
	ERR_PERM = -1,
	ERR_NOENT = -2,
	ERR_IO = -5,
	ERR_AGAIN = -11,
	ERR_NOMEM = -12,
	ERR_FAULT = -14,
	ERR_BUSY = -16,
	ERR_EXIST = -17,
	ERR_NODEV = -19,
	ERR_INVAL = -22,
	ERR_RANGE = -34,
	ERR_NOSYS = -38,
	ERR_TIMEOUT = -110,
};

/* Host-physical, guest-physical and guest-virtual (linear) addresses. */
typedef struct {
	u64 v;
} hpa_t;

typedef struct {
	u64 v;
} gpa_t;

typedef struct {
	u64 v;
} gva_t;

static inline hpa_t hpa(u64 v)
{
	return (hpa_t){v};
}

static inline gpa_t gpa(u64 v)
{
	return (gpa_t){v};
}

static inline gva_t gva(u64 v)
{
	return (gva_t){v};
}

static inline hpa_t hpa_add(hpa_t a, u64 n)
{
	return (hpa_t){a.v + n};
}

static inline gpa_t gpa_add(gpa_t a, u64 n)
{
	return (gpa_t){a.v + n};
}

static inline gva_t gva_add(gva_t a, u64 n)
{
	return (gva_t){a.v + n};
}

/*
 * The hypervisor maps all of physical memory at DIRECT_MAP_BASE (read-write, never executable).
 * Host unit tests compile the same files with -DDIRECT_MAP_BASE=... naming an arena of their own.
 */
#ifndef DIRECT_MAP_BASE
#define DIRECT_MAP_BASE 0xffff800000000000ull
#endif

static inline void *phys_to_ptr(hpa_t a)
{
	return (void *)(uintptr_t)((u64)DIRECT_MAP_BASE + a.v);
}

/* Only for pointers that came from phys_to_ptr(); image addresses go through image_to_phys(). */
static inline hpa_t ptr_to_phys(const void *p)
{
	return (hpa_t){(u64)(uintptr_t)p - (u64)DIRECT_MAP_BASE};
}
