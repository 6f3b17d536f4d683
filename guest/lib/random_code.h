/*
 * Random code for the sandbox: put together in code[], then copied to the end of the page at CODE,
 * behind which there is nothing.
 */
#pragma once

#include "lib.h"

extern u8 code[256];
extern u32 code_bytes;

void emit(const u8 *bytes, u32 n);
/* MOV to a 64-bit register. */
void emit_load(u32 reg, u64 value);
/* Begins: all registers are loaded, mostly with addresses in `window`; RSP is a stack in SANDBOX.
 */
void emit_prologue(u64 window);
/* Bytes of chance, half of the time behind an opcode that a hypervisor has to do with. */
void emit_random(u32 n);
/* True for what must not be executed at CPL 0: it would change tables, ports or MSRs for good. */
bool is_spared(const u8 *insn, const u8 *end);
/* Returns where it begins. */
u64 install_code(void);
