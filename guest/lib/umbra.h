/* Finding Umbra, and its hypercalls (include/umbra/hypercall.h). */
#pragma once

#include <umbra/hypercall.h>

#include "cpu.h"

/* False on any other hypervisor, emulator or machine. */
bool umbra_present(void);
/* True on QEMU without KVM, the oracle that a few tests must make allowances for. */
bool tcg_present(void);
/* The identity that CPUID gives this vCPU. */
u32 umbra_vcpu_index(void);

static inline s64 hypercall(u64 number, u64 a, u64 b, u64 c, u64 d)
{
	s64 ret;

	asm volatile("vmcall" : "=a"(ret) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
	return ret;
}

/* HC_INJECT forms of info; add the vector. */
#define INJECT_EXTERNAL	 (0u << 8)
#define INJECT_NMI	 (2u << 8)
#define INJECT_HARDWARE	 (3u << 8)
#define INJECT_SOFT_INT	 (4u << 8)
#define INJECT_PRIV_SOFT (5u << 8)
#define INJECT_SOFT_EXC	 (6u << 8)
#define INJECT_CODE	 BIT(11)
