/*
 * Local APIC in both forms (whichever the CPU is in), 8259s, 8254 and the TSC's rate.
 */
#pragma once

#include "cpu.h"

#define LAPIC_BASE 0xfee00000ull

/* Register offsets (SDM table 11-1); x2APIC MSR = 0x800 + offset / 16. */
#define LAPIC_ID	0x020
#define LAPIC_VERSION	0x030
#define LAPIC_TPR	0x080
#define LAPIC_PPR	0x0a0
#define LAPIC_EOI	0x0b0
#define LAPIC_LDR	0x0d0
#define LAPIC_DFR	0x0e0
#define LAPIC_SVR	0x0f0
#define LAPIC_ISR	0x100
#define LAPIC_TMR	0x180
#define LAPIC_IRR	0x200
#define LAPIC_ESR	0x280
#define LAPIC_ICR	0x300
#define LAPIC_ICR_HIGH	0x310
#define LAPIC_LVT_TIMER 0x320
#define LAPIC_LVT_LINT0 0x350
#define LAPIC_LVT_LINT1 0x360
#define LAPIC_LVT_ERROR 0x370
#define LAPIC_TIMER_ICR 0x380
#define LAPIC_TIMER_CCR 0x390
#define LAPIC_TIMER_DCR 0x3e0
#define LAPIC_SELF_IPI	0x3f0

#define APIC_BASE_BSP  BIT64(8)
#define APIC_BASE_EXTD BIT64(10)
#define APIC_BASE_EN   BIT64(11)

#define ICR_FIXED   (0u << 8)
#define ICR_LOWEST  (1u << 8)
#define ICR_SMI	    (2u << 8)
#define ICR_NMI	    (4u << 8)
#define ICR_INIT    (5u << 8)
#define ICR_SIPI    (6u << 8)
#define ICR_LOGICAL BIT(11)
#define ICR_PENDING BIT(12)
#define ICR_ASSERT  BIT(14)
#define ICR_LEVEL   BIT(15)
#define ICR_SELF    (1u << 18)
#define ICR_ALL	    (2u << 18)
#define ICR_OTHERS  (3u << 18)

bool lapic_is_x2apic(void);
u32 lapic_read(u32 reg);
void lapic_write(u32 reg, u32 value);
u32 lapic_id(void);
void lapic_eoi(void);
/* Software-enables the APIC of this CPU: spurious vector 0xff, TPR 0, LVTs masked but LINT1=NMI. */
void lapic_enable(void);
/* Goes to x2APIC mode (one way); false if CPUID does not offer it. */
bool lapic_enable_x2apic(void);
/* Sends an IPI (ICR bits 19:0) to an APIC id (or logical destination); waits until it is sent. */
void lapic_send(u32 dest, u32 icr_low);

/* Masks all lines of both 8259s, after setting them up at vectors 0x20 and 0x28. */
void pic_mask_all(void);
void pic_set_mask(u16 mask);

/* TSC rate measured once against PIT channel 2 over 10 ms; the delay uses it. */
u64 tsc_khz(void);
void delay_us(u64 us);
/* Channel 2 counts `ticks` of 1.193182 MHz (1 to 65535) down: busy-waits until OUT rises. */
void pit_wait(u32 ticks);
