/*
 * A place for code and data of tests that do harm: a window of its own, a watchdog (the PIT as NMI
 * through the IOAPIC) that ends what would not end by itself, and repair of whatever was changed.
 */
#pragma once

#include "lib.h"

/* Bits 31:0 lie in no mapped page, for instructions with 32-bit addresses. */
#define SANDBOX		  0x5030000000ull
#define SANDBOX_PAGES	  64
#define CODE		  (SANDBOX + 0x100000) /* one page; the next is not there */
#define DEVICES		  0x6070000000ull
#define DEV_LAPIC	  (DEVICES + SIZE_2M)
#define DEV_IOAPIC	  DEVICES
#define DEV_HOLE	  (DEVICES + 2 * SIZE_2M) /* where there is nothing */
#define HOLE_PHYS	  0xd0000000ull
#define TABLES		  0x7e8000000000ull /* mapped by tables that are wrong */
#define VEC_SANDBOX_TIMER 0xe0

struct sandbox {
	struct rng rng;
	u64 phys, code_phys;			  /* RAM behind SANDBOX and CODE */
	u32 exceptions;				  /* attempts that an exception ended */
	u32 rescues;				  /* of these, by the watchdog */
	u64 cr0, cr3, cr4, efer, xcr0, apic_base; /* as they should be */
};
extern struct sandbox sandbox;

/* Maps the windows, takes RAM and APICs alone into the identity map, starts the watchdog. */
void sandbox_create(void);
/* Values that find the edges: powers of two and their neighbours, canonical limits, addresses. */
u64 nasty(void);
/* Runs something that may not come back. True if an exception or the watchdog ended it. */
bool attempt(void (*fn)(void *), void *arg);
/* Between these, the watchdog and VEC_SANDBOX_TIMER end the innermost trap_run() or user_run(). */
void watch_begin(void);
void watch_end(void);
void watchdog_arm(void);
/* DR7 and DR6; all of the processor's state; local APIC, IOAPIC and watchdog. */
void repair_debug(void);
void repair_cpu(void);
void repair_apic(void);
/* Does everything work as for a kernel that did nothing? */
bool healthy(void);
