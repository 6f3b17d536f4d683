/*
 * Vector registers 0 to 15 as they are in the CPU: a guest's stay there while its vCPU runs (the
 * hypervisor is compiled without them). CR4.OSFXSR has to be set, CR0.TS clear; the 32-byte forms
 * and vector_load_vex16() take CR4.OSXSAVE and XCR0 with SSE and AVX state.
 */
#pragma once

#include "lib/types.h"

void vector_store16(unsigned int reg, void *to);
void vector_store32(unsigned int reg, void *to);
/* Keeps what is above bit 127. */
void vector_load16(unsigned int reg, const void *from);
/* Zeroes what is above bit 127, up to the register's full width. */
void vector_load_vex16(unsigned int reg, const void *from);
void vector_load32(unsigned int reg, const void *from);
