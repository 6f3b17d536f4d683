/*
 * Physical frames with an owner each. All RAM the firmware left usable is managed here in 4 KiB
 * frames; the owner says who may touch a frame, so that a report can name it and a VM's end can
 * take back exactly what it had.
 *
 * Nothing allocates on a fault path (guest RAM is allocated when the VM is created, EPT tables come
 * from a reserve, see ept/ept.h).
 */
#pragma once

#include <umbra/boot_info.h>

#include "lib/types.h"

typedef u16 frame_owner_t;

enum {
	FRAME_NOT_RAM = 0, /* MMIO, holes, firmware */
	FRAME_FREE = 1,
	FRAME_BOOT = 2,		/* image, boot_info, guest files: BOOT_MEM_UMBRA */
	FRAME_HV = 3,		/* heap, stacks, page tables of the hypervisor */
	FRAME_NET = 4,		/* rings and buffers of the NIC: what the device writes to */
	FRAME_LENT = 5,		/* lent to other machines: role = memory-node */
	FRAME_VM_BASE = 0x100,	/* + VM id: guest RAM */
	FRAME_EPT_BASE = 0x200, /* + VM id: EPT tables of the VM */
};

/*
 * Reads the memory map of boot_info; runs on the loader's page tables, before any other room uses
 * memory. The first 1 MiB is never handed out. Panics if there is no room for its own table.
 */
void frame_init(const struct boot_info *boot);

/*
 * Allocates `bytes` (rounded up to 4 KiB) of physically contiguous memory aligned to `align` (a
 * power of two >= 4096) for `owner`. Not zeroed. Returns 0 or ERR_NOMEM.
 */
int frame_alloc(frame_owner_t owner, u64 bytes, u64 align, hpa_t *out);

/* The same, one zeroed 4 KiB frame. */
int frame_alloc_page(frame_owner_t owner, hpa_t *out);

/* Gives memory back; panics if any of it is not owned by `owner` (a bug of ours). */
void frame_free(frame_owner_t owner, hpa_t base, u64 bytes);

/* Gives back everything that `owner` has; returns the number of frames. */
u64 frame_free_all(frame_owner_t owner);

frame_owner_t frame_owner(hpa_t addr);

struct frame_stats {
	u64 total, free, hv, boot; /* frames */
};
void frame_stats(struct frame_stats *out);

/* Zeroed hypervisor heap memory, page-granular, never freed while a VM refers to it. NULL if none.
 */
void *heap_alloc(u64 bytes);
void heap_free(void *p, u64 bytes);
