/*
 * Physical CPUs: the per-CPU block, found through GS; who am I; start and stop.
 */
#pragma once

#include "lib/types.h"

#define MAX_CPUS 64

/* Vectors that the hypervisor itself receives. Everything else that arrives is spurious. */
#define VECTOR_TIMER	0xf0 /* local APIC timer, only armed while the CPU is idle */
#define VECTOR_KICK	0xf1 /* leave guest mode, or wake up: look at your requests */
#define VECTOR_POSTED	0xf2 /* posted-interrupt notification; also wakes an idle CPU */
#define VECTOR_SPURIOUS 0xff

/* Selectors of the hypervisor's GDT. */
#define SEL_CODE 0x08
#define SEL_DATA 0x10
#define SEL_TSS	 0x18

struct cpu {
	struct cpu *self; /* GS:0 */
	u32 index;	  /* 0 = boot processor, dense */
	u32 apic_id;
	u8 *stack_top;			  /* hypervisor stack, guard page below */
	u64 tss_base, gdt_base, idt_base; /* for the VMCS host state */
	u32 online;			  /* atomic */
	u64 kicks;			  /* external-interrupt arrivals, statistics */
	u64 spurious;			  /* interrupts with a vector that nobody owns */
	u32 nmi_pending;		  /* NMIs that arrived and were not for stopping; atomic */
	u32 stopped;			  /* halted for good; atomic */
};

extern struct cpu cpus[MAX_CPUS];
extern u32 cpu_count;

static inline struct cpu *this_cpu(void)
{
	struct cpu *c;

	asm("mov %%gs:0, %0" : "=r"(c));
	return c;
}

/*
 * Prepares the calling CPU once its CR3 is the hypervisor's: control registers, EFER, PAT, extended
 * state, descriptor tables with guarded interrupt stacks, local APIC.
 */
void cpu_init(struct cpu *c);

/* Leaves the present stack for good and calls to(), which must not return. */
__noreturn void stack_switch(void *top, void (*to)(void));

/* Starts every CPU that boot_info lists (at most `limit`, 0 = all) by INIT-SIPI-SIPI; each runs
 * cpu_entry(). A CPU that does not answer in a second is logged and left out. */
struct boot_info;
void smp_start(const struct boot_info *boot, u32 limit);

/* Defined by main.c: where an application processor goes when its GDT, IDT, paging, APIC are up. */
__noreturn void cpu_entry(void);

/* Ends the machine as boot_options.poweroff says. status: see scripts/run. Never returns. */
void machine_set_poweroff(u32 method);
__noreturn void machine_end(u32 status);
