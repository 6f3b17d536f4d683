/*
 * What x86/ itself needs of the local APIC and of stopping for starting processors. x86/ only.
 */
#pragma once

#include "lib/types.h"
#include "x86/stop.h"

/* Boot processor, before apic_init_cpu(): xAPIC or x2APIC for all; masks the 8259 pair. */
void apic_choose_mode(bool need_x2apic);
void apic_timer_calibrate(void);
const char *apic_describe(void);

void apic_send_init(u32 apic);
void apic_send_startup(u32 apic, u8 page); /* SDM 3A 9.4.4: start at page << 12 */
