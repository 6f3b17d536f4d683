/* Forced into every file of the posting test: each thread is a CPU, whose VMCS is an array. */
#pragma once

#include "host.h"
#include "vmx/vmx.h"
#include "x86/asm.h"
#define cpus machine_cpus /* some parameters are called like that */
#include "x86/cpu.h"
#undef cpus

extern u64 fake_vmcs[0x8000]; /* of the one CPU that runs a guest */
extern __thread u32 fake_cpu;

#define vmcs_read(field)	 (fake_vmcs[field])
#define vmcs_write(field, value) ((void)(fake_vmcs[field] = (value)))
#define this_cpu()		 (&machine_cpus[fake_cpu])

#include "vm/internal.h"
