/*
 * Names of the hypervisor's functions, for backtraces: the symbol table of its own ELF file, which
 * the loader keeps in memory. The file is not trusted to be whole: every offset is checked.
 */
#pragma once

#include "lib/types.h"

/* Takes an ELF64 file of `bytes` bytes (kept by reference). False: no usable symbol table. */
bool symbols_init(const void *elf, size_t bytes);

/* The function that contains `addr` and the offset into it; NULL if none is known. */
const char *symbols_find(u64 addr, u64 *offset);
