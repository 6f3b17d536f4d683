/*
 * Split virtqueues (Virtual I/O Device 1.2, 2.7) as the device sees them. Rings and descriptors are
 * written by a guest, at any time and with anything: each value is read once through the door to
 * guest memory (vm/memory.h), checked, and kept. What breaks a rule is ERR_INVAL or ERR_FAULT, and
 * the caller stops the device until it is reset. All numbers are little-endian, as this machine is.
 *
 * ERR_AGAIN, in VMs with remote memory (vm/away.h): nothing has happened, and the same call is to
 * be made again when the page has come.
 *
 * Plain data; the caller locks.
 */
#pragma once

#include "lib/types.h"

struct vm;

/* A chain is no longer than its queue (2.7.5.3.1), so that this bounds both. */
#define VIRTQ_MAX 256

struct virtq {
	u64 desc, driver, device; /* guest-physical: descriptors, available ring, used ring */
	u32 size;		  /* a power of two up to VIRTQ_MAX */
	bool ready;
	bool indirect, event_idx; /* negotiated: VIRTIO_F_INDIRECT_DESC, VIRTIO_F_EVENT_IDX */
	u16 next;		  /* of the available ring: how far we have read */
	u16 used;		  /* of the used ring: how far we have written */
	u16 signalled;		  /* `used` when an interrupt was last considered */
};

/* A chain as it was when it was read: first what the device reads, then what it writes. */
struct virtq_chain {
	u16 head;
	u16 count, readable; /* elements of seg[]; how many of them, the first, are readable */
	u64 read_bytes, write_bytes;
	struct virtq_segment {
		u64 at;
		u32 bytes;
	} seg[VIRTQ_MAX];
};

/* A position in a chain. */
struct virtq_cursor {
	u32 seg, offset;
};

/* The driver says that the queue is ready: 0, or ERR_INVAL if its rings lie where they must not. */
int virtq_start(struct vm *vm, struct virtq *q);

/*
 * The next available chain: 1; 0 if there is none (the driver is asked to notify of the next one);
 * or an error.
 */
int virtq_pop(struct vm *vm, struct virtq *q, struct virtq_chain *chain);

/* Puts the chain that was popped last back to where it was. */
static inline void virtq_unpop(struct virtq *q)
{
	q->next--;
}

/* Gives a chain back, `written` bytes of it written to from its first writable one on. */
int virtq_push(struct vm *vm, struct virtq *q, u16 head, u32 written);

/* Whether the driver wants an interrupt for what was pushed since the last call: 1, 0, or an error.
 */
int virtq_wants_interrupt(struct vm *vm, struct virtq *q);

/* The first byte that the device may write. */
struct virtq_cursor virtq_writable(const struct virtq_chain *chain);

/*
 * Up to `most` contiguous bytes at the cursor, which moves past them: returns how many, and where
 * they are. 0 at the end of the chain.
 */
u32 virtq_take(const struct virtq_chain *chain, struct virtq_cursor *at, u64 most, gpa_t *out);

/* The address of the last writable byte; the chain has one. */
gpa_t virtq_last_writable(const struct virtq_chain *chain);

/* Copies `bytes` from the cursor on; it moves past them. ERR_INVAL if the chain is too short. */
int virtq_read(struct vm *vm, const struct virtq_chain *chain, struct virtq_cursor *at, void *to,
	       u32 bytes);

/*
 * The device's access to guest memory: RAM, and with the permissions that the VM's default view
 * gives the page, or a device would be the way around them. 0 or ERR_FAULT.
 */
int virtio_dma_read(struct vm *vm, gpa_t from, void *to, size_t bytes);
int virtio_dma_write(struct vm *vm, gpa_t to, const void *from, size_t bytes);
int virtio_dma_zero(struct vm *vm, gpa_t to, size_t bytes);
