/*
 * Descriptor tables: each CPU's GDT and TSS, the common IDT (SDM 3A 3.4, 6.10, 6.14, 7.7).
 */
#pragma once

#include "lib/types.h"
#include "x86/cpu.h"

/* Interrupt-stack-table slots: these three may strike when the stack itself is the problem. */
enum ist {
	IST_NONE,
	IST_DF,
	IST_NMI,
	IST_MC,
	IST_COUNT
};

/* Fills the IDT; once, before paging_init() makes it read-only. */
void desc_init_idt(void);

/* Builds and loads the calling CPU's GDT, TSS and segments; GS base becomes `c`. Sets tss_base,
 * gdt_base, idt_base. The interrupt stacks are the boot stack's until desc_set_stacks(). */
void desc_load(struct cpu *c);

/* The tops of the interrupt stacks, by enum ist (entry 0 unused). Effective at once. */
void desc_set_stacks(struct cpu *c, u8 *const tops[IST_COUNT]);
