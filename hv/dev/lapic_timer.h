/*
 * The timer of the local APIC, between lapic.c (registers) and lapic_timer.c. Own CPU only. All
 * times are host TSC unless they say guest; they are computed from the start of the count, so that
 * nothing drifts.
 */
#pragma once

#include "dev/lapic.h"

/* Current count. */
u32 lapic_timer_count(struct lapic *l, u64 now);
/* Writes of the initial count, the divide configuration and LVT timer, values already masked. */
void lapic_timer_start(struct lapic *l, u32 count, u64 now);
void lapic_timer_set_divide(struct lapic *l, u32 value, u64 now);
void lapic_timer_set_lvt(struct lapic *l, u32 lvt, u64 now);
/* IA32_TSC_DEADLINE, guest TSC; outside TSC-deadline mode writes are ignored and it reads 0. */
void lapic_timer_set_deadline(struct lapic *l, u64 value);
u64 lapic_timer_get_deadline(struct lapic *l);
/* Forgets whatever was counting. */
void lapic_timer_stop(struct lapic *l);
