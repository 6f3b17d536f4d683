/*
 * Application processors. Started by broadcast INIT-SIPI-SIPI, they wait for jobs: halted with
 * interrupts on (woken by VEC_WAKE), or spinning after `smp_spin = true` (or option `spin`). Jobs
 * run with interrupts off. CPU 0 is the bootstrap processor; indices follow the order of arrival.
 */
#pragma once

#include "sync.h"

extern volatile bool smp_spin;

/*
 * How many CPUs there should be: option cpus=N, else Umbra's CPUID leaf, else QEMU's CMOS byte
 * 0x5f, else 1.
 */
u32 smp_expected(void);
/* Starts all; returns how many are online, CPU 0 included, after at most a second. */
u32 smp_start(void);
u32 smp_count(void);
/* INIT, 10 ms, SIPI, 200 us, SIPI to one APIC id, at TRAMPOLINE. */
void smp_init_sipi(u32 apic_id);
/* Copies the trampoline again, for tests that used its page. */
void smp_install_trampoline(void);

/* Hands a job to an idle CPU (waits until it is idle); returns at once. */
void smp_post(u32 cpu, void (*fn)(void *), void *arg);
/* Waits until a CPU is idle; false after `ms` milliseconds. */
bool smp_wait(u32 cpu, u64 ms);
/* Runs fn on all online CPUs, this one (must be 0) last, and waits for the end. */
void smp_run_all(void (*fn)(void *), void *arg);
