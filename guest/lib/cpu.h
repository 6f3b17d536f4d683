/*
 * Instructions that C has no words for, register bits (SDM names), and forms of them that survive
 * an exception: safe_*() return the vector taken, or TRAP_NONE. See trap.h for EX().
 */
#pragma once

#include "trap.h"

#define CR0_PE BIT64(0)
#define CR0_MP BIT64(1)
#define CR0_EM BIT64(2)
#define CR0_TS BIT64(3)
#define CR0_ET BIT64(4)
#define CR0_NE BIT64(5)
#define CR0_WP BIT64(16)
#define CR0_AM BIT64(18)
#define CR0_NW BIT64(29)
#define CR0_CD BIT64(30)
#define CR0_PG BIT64(31)

#define CR4_VME	       BIT64(0)
#define CR4_PVI	       BIT64(1)
#define CR4_TSD	       BIT64(2)
#define CR4_DE	       BIT64(3)
#define CR4_PSE	       BIT64(4)
#define CR4_PAE	       BIT64(5)
#define CR4_MCE	       BIT64(6)
#define CR4_PGE	       BIT64(7)
#define CR4_PCE	       BIT64(8)
#define CR4_OSFXSR     BIT64(9)
#define CR4_OSXMMEXCPT BIT64(10)
#define CR4_UMIP       BIT64(11)
#define CR4_LA57       BIT64(12)
#define CR4_VMXE       BIT64(13)
#define CR4_SMXE       BIT64(14)
#define CR4_FSGSBASE   BIT64(16)
#define CR4_PCIDE      BIT64(17)
#define CR4_OSXSAVE    BIT64(18)
#define CR4_SMEP       BIT64(20)
#define CR4_SMAP       BIT64(21)
#define CR4_PKE	       BIT64(22)
#define CR4_CET	       BIT64(23)
#define CR4_PKS	       BIT64(24)

#define RFLAGS_CF BIT64(0)
#define RFLAGS_1  BIT64(1)
#define RFLAGS_TF BIT64(8)
#define RFLAGS_IF BIT64(9)
#define RFLAGS_DF BIT64(10)
#define RFLAGS_OF BIT64(11)
#define RFLAGS_NT BIT64(14)
#define RFLAGS_RF BIT64(16)
#define RFLAGS_VM BIT64(17)
#define RFLAGS_AC BIT64(18)

#define MSR_TSC		  0x10
#define MSR_APIC_BASE	  0x1b
#define MSR_TSC_ADJUST	  0x3b
#define MSR_MTRRCAP	  0xfe
#define MSR_SYSENTER_CS	  0x174
#define MSR_SYSENTER_ESP  0x175
#define MSR_SYSENTER_EIP  0x176
#define MSR_MISC_ENABLE	  0x1a0
#define MSR_DEBUGCTL	  0x1d9
#define MSR_PAT		  0x277
#define MSR_MTRR_DEF_TYPE 0x2ff
#define MSR_TSC_DEADLINE  0x6e0
#define MSR_X2APIC	  0x800
#define MSR_XSS		  0xda0
#define MSR_EFER	  0xc0000080
#define MSR_STAR	  0xc0000081
#define MSR_LSTAR	  0xc0000082
#define MSR_CSTAR	  0xc0000083
#define MSR_FMASK	  0xc0000084
#define MSR_FS_BASE	  0xc0000100
#define MSR_GS_BASE	  0xc0000101
#define MSR_KERNEL_GS	  0xc0000102
#define MSR_TSC_AUX	  0xc0000103

#define EFER_SCE BIT64(0)
#define EFER_LME BIT64(8)
#define EFER_LMA BIT64(10)
#define EFER_NXE BIT64(11)

struct cpuid_regs {
	u32 eax, ebx, ecx, edx;
};

static inline struct cpuid_regs cpuid(u32 leaf, u32 subleaf)
{
	struct cpuid_regs r;

	asm volatile("cpuid"
		     : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
		     : "a"(leaf), "c"(subleaf));
	return r;
}

static inline u64 rdmsr(u32 msr)
{
	u32 lo, hi;

	asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
	return (u64)hi << 32 | lo;
}

static inline void wrmsr(u32 msr, u64 value)
{
	asm volatile("wrmsr" : : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

static inline int safe_rdmsr(u32 msr, u64 *value)
{
	u32 lo = 0, hi = 0;

	trap_clear();
	asm volatile(EX("rdmsr") : "+a"(lo), "+d"(hi) : "c"(msr) : "memory");
	*value = (u64)hi << 32 | lo;
	return trap_last()->vector;
}

static inline int safe_wrmsr(u32 msr, u64 value)
{
	trap_clear();
	asm volatile(EX("wrmsr") : : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
	return trap_last()->vector;
}

static inline u64 rdtsc(void)
{
	u32 lo, hi;

	asm volatile("rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
	return (u64)hi << 32 | lo;
}

#define DEFINE_CR(n)                                                       \
	static inline u64 read_cr##n(void)                                 \
	{                                                                  \
		u64 v;                                                     \
		asm volatile("mov %%cr" #n ", %0" : "=r"(v) : : "memory"); \
		return v;                                                  \
	}                                                                  \
	static inline void write_cr##n(u64 v)                              \
	{                                                                  \
		asm volatile("mov %0, %%cr" #n : : "r"(v) : "memory");     \
	}                                                                  \
	static inline int safe_write_cr##n(u64 v)                          \
	{                                                                  \
		trap_clear();                                              \
		asm volatile(EX("mov %0, %%cr" #n) : : "r"(v) : "memory"); \
		return trap_last()->vector;                                \
	}
DEFINE_CR(0)
DEFINE_CR(2)
DEFINE_CR(3)
DEFINE_CR(4)
DEFINE_CR(8)

#define DEFINE_DR(n)                                                   \
	static inline u64 read_dr##n(void)                             \
	{                                                              \
		u64 v;                                                 \
		asm volatile("mov %%dr" #n ", %0" : "=r"(v));          \
		return v;                                              \
	}                                                              \
	static inline void write_dr##n(u64 v)                          \
	{                                                              \
		asm volatile("mov %0, %%dr" #n : : "r"(v) : "memory"); \
	}
DEFINE_DR(0)
DEFINE_DR(1)
DEFINE_DR(2)
DEFINE_DR(3)
DEFINE_DR(6)
DEFINE_DR(7)

#define DEFINE_PORT(suffix, type, reg)                                                   \
	static inline type in##suffix(u16 port)                                          \
	{                                                                                \
		type v;                                                                  \
		asm volatile("in" #suffix " %1, %0" : "=a"(v) : "Nd"(port) : "memory");  \
		return v;                                                                \
	}                                                                                \
	static inline void out##suffix(u16 port, type v)                                 \
	{                                                                                \
		asm volatile("out" #suffix " %0, %1" : : "a"(v), "Nd"(port) : "memory"); \
	}
DEFINE_PORT(b, u8, al)
DEFINE_PORT(w, u16, ax)
DEFINE_PORT(l, u32, eax)

static inline u64 xgetbv(u32 index)
{
	u32 lo, hi;

	asm volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(index));
	return (u64)hi << 32 | lo;
}

static inline int safe_xsetbv(u32 index, u64 value)
{
	trap_clear();
	asm volatile(EX("xsetbv")
		     :
		     : "c"(index), "a"((u32)value), "d"((u32)(value >> 32))
		     : "memory");
	return trap_last()->vector;
}

static inline void invlpg(u64 va)
{
	asm volatile("invlpg (%0)" : : "r"(va) : "memory");
}

static inline u64 read_flags(void)
{
	u64 v;

	asm volatile("pushfq; popq %0" : "=r"(v) : : "memory");
	return v;
}

static inline void write_flags(u64 v)
{
	asm volatile("pushq %0; popfq" : : "r"(v) : "memory", "cc");
}

static inline void irq_enable(void)
{
	asm volatile("sti" : : : "memory");
}

static inline void irq_disable(void)
{
	asm volatile("cli" : : : "memory");
}

/* Lets interrupts in for a moment: STI; NOP; CLI opens a window of at least one instruction. */
static inline void irq_window(void)
{
	asm volatile("sti; nop; nop; cli" : : : "memory");
}

static inline void cpu_pause(void)
{
	asm volatile("pause" : : : "memory");
}

/* STI; HLT; CLI: no interrupt can slip in between the first two. */
static inline void irq_wait(void)
{
	asm volatile("sti; hlt; cli" : : : "memory");
}

struct __packed desc_ptr {
	u16 limit;
	u64 base;
};
