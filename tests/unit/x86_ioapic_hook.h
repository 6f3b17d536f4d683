/* Forced into every file of the x86_ioapic test: device registers are functions. */
#pragma once

#include "host.h"
#include "x86/asm.h"

u32 fake_read(const void *at);
void fake_write(void *at, u32 value);

#define mmio_read32  fake_read
#define mmio_write32 fake_write
