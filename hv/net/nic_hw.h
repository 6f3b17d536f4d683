/*
 * What a NIC driver needs of the machine: nic_hw.c in the hypervisor, a model of a NIC in tests.
 */
#pragma once

#include "lib/types.h"

u32 nic_read(void *regs, u32 offset);
void nic_write(void *regs, u32 offset, u32 value);
/* Waits at least so long; only while a NIC is started or reset. */
void nic_pause(u32 microseconds);
