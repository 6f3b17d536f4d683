/*
 * The one door to guest memory, for Umbra's own accesses: RAM and persistent memory only, checked,
 * copying. Guest-physical addresses; for linear ones see linear.h.
 *
 * ERR_FAULT if any byte is not memory (then guest_read() fills nothing that it has not checked;
 * guest_write() and guest_zero() may have written the part before). ERR_AGAIN, of each of these
 * functions, only in VMs with remote memory: a page is not here, and has been asked for (away.h);
 * the part before may be done.
 */
#pragma once

#include "lib/types.h"

struct vm;

int guest_read(struct vm *vm, gpa_t from, void *to, size_t len);
int guest_write(struct vm *vm, gpa_t to, const void *from, size_t len);
int guest_zero(struct vm *vm, gpa_t to, size_t len);

/*
 * The exception, for what is looked at again and again: `len` bytes of RAM or persistent memory
 * where they lie, or NULL: not all are there in one piece, or may move (remote memory). For atomic
 * loads only, each value once; as long as the VM lives.
 */
const void *guest_ram_view(struct vm *vm, gpa_t at, size_t len);

/*
 * A naturally aligned 2-, 4- or 8-byte word in one access, so that another vCPU's write is seen
 * whole or not at all (paging-structure entries, indices of rings), and likewise the other way
 * round.
 */
int guest_read_word(struct vm *vm, gpa_t at, unsigned int size, u64 *value);
int guest_write_word(struct vm *vm, gpa_t at, unsigned int size, u64 value);

/*
 * Atomic compare-exchange of a naturally aligned 4- or 8-byte word (accessed and dirty flags of
 * paging-structure entries, locked instructions): ERR_BUSY if the old value did not match.
 */
int guest_cmpxchg(struct vm *vm, gpa_t at, unsigned int size, u64 old, u64 new);
