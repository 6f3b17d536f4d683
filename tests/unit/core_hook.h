/* Forced into every file of the core's test: the VMCS and the processor's registers are arrays. */
#pragma once

#include "host.h"
#include "vmx/vmx.h"
#include "x86/asm.h"
#include "x86/cpu.h"

extern u64 fake_vmcs[0x8000];
extern u64 fake_dr[8], fake_cr2, fake_xcr0, fake_tsc;

u64 fake_rdmsr(u32 msr);
void fake_wrmsr(u32 msr, u64 value);
struct cpuid_regs fake_cpuid(u32 leaf, u32 subleaf);

#define vmcs_read(field)	 (fake_vmcs[field])
#define vmcs_write(field, value) ((void)(fake_vmcs[field] = (value)))
#define rdmsr(msr)		 fake_rdmsr(msr)
#define wrmsr(msr, value)	 fake_wrmsr(msr, value)
#define cpuid(leaf, subleaf)	 fake_cpuid(leaf, subleaf)
#define rdtsc()			 (fake_tsc)
#define xsetbv(index, value)	 ((void)(fake_xcr0 = (value)))
#define this_cpu()		 (&cpus[0])
#define read_cr0()		 (0x80050033ull)
#define read_cr2()		 (fake_cr2)
#define write_cr2(value)	 ((void)(fake_cr2 = (value)))
#define read_cr3()		 (0x1000ull)
#define read_cr4()		 (0x3027f0ull)
#define read_dr0()		 (fake_dr[0])
#define read_dr1()		 (fake_dr[1])
#define read_dr2()		 (fake_dr[2])
#define read_dr3()		 (fake_dr[3])
#define read_dr6()		 (fake_dr[6])
#define write_dr0(value)	 ((void)(fake_dr[0] = (value)))
#define write_dr1(value)	 ((void)(fake_dr[1] = (value)))
#define write_dr2(value)	 ((void)(fake_dr[2] = (value)))
#define write_dr3(value)	 ((void)(fake_dr[3] = (value)))
#define write_dr6(value)	 ((void)(fake_dr[6] = (value)))

/* Its inline functions use the above. */
#include "vm/internal.h"
