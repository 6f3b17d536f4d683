/* Forced into every file of the blk_ata test: ports and time are functions. */
#pragma once

#include "host.h"
#include "x86/asm.h"

u8 fake_inb(u16 port);
void fake_outb(u16 port, u8 value);
void fake_insw(u16 port, void *to, size_t words);
void fake_outsw(u16 port, const void *from, size_t words);
u64 fake_rdtsc(void);

#define inb   fake_inb
#define outb  fake_outb
#define insw  fake_insw
#define outsw fake_outsw
#define rdtsc fake_rdtsc
