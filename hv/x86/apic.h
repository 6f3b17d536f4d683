/*
 * The physical local APIC, xAPIC or x2APIC, whichever the firmware left on (SDM 3A chapter 11).
 * All functions act on the calling CPU; destinations are CPU indices.
 */
#pragma once

#include "lib/types.h"

void apic_init_cpu(void); /* masks LVTs, spurious vector, TPR 0; also masks the 8259 pair once */
u32 apic_id(void);
void apic_eoi(void);
void apic_send(u32 cpu, u8 vector);
void apic_send_nmi_others(void);

/* Wake this CPU (VECTOR_TIMER) at the given TSC, or at once if it has passed. One deadline at a
 * time; used only while idle. TSC-deadline mode where offered, else one-shot. */
void apic_timer_arm(u64 tsc);
void apic_timer_stop(void);

/* Sleeps until an interrupt arrives; interrupts are off before and after. */
void cpu_idle(void);
/* Takes what is pending now; interrupts are off before and after. */
void cpu_take_interrupts(void);
