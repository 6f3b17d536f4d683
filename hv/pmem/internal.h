/* Between pmem.c, which makes regions, and flush.c and cut.c, which work on them. */
#pragma once

#include "pmem/pmem.h"

static inline gpa_t pmem_hints_at(u32 number)
{
	return gpa(PMEM_HINTS_BASE + number * PMEM_HINTS_STRIDE);
}

/* NULL: the VM has none with this number. */
struct pmem_region *pmem_region(const struct vm *vm, u64 number);

/* Maps a region's hint page as its mode says. */
void pmem_map_hints(struct vm *vm, u32 number);

/*
 * Takes the medium's lock, which the caller gives back, and tells a model which pages have been
 * written to. What a CPU writes from now on counts as written later.
 */
void pmem_collect(struct vm *vm, struct pmem_region *r);

/* Before the VM's first life: where its failures of power come from. */
void pmem_cut_init(struct vm *vm, const struct boot_options *options);
/* The guest flushes: the time to the configuration's next failure of power begins, once per life.
 */
void pmem_begin(struct vm *vm);
