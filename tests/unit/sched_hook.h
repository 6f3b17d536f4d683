/* Forced into every file of the scheduler's test: time and the CPU's number are variables. */
#pragma once

#include "host.h"
#include "vm/internal.h"
#include "x86/asm.h"
#include "x86/cpu.h"

extern u64 fake_tsc;
extern u32 fake_cpu;

#define rdtsc()	   (fake_tsc)
#define this_cpu() (&cpus[fake_cpu])
