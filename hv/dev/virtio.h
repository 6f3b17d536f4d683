/*
 * The virtio devices of a VM (Virtual I/O Device 1.2): what all of them share. Each has its lock,
 * which comes before vm->dev_lock: that one is taken inside to move an interrupt line.
 *
 * Everything is plain data; a device is told apart by its `id`. What a guest asks for is done while
 * it waits, in pieces of at most VIRTIO_PIECE: a device with work left is `busy`, and its vCPU has
 * REQ_DEVICE, so that between two pieces the scheduler and the VM's end get their turn.
 */
#pragma once

#include <umbra/boot_info.h>

#include "dev/virtio_ring.h"
#include "lib/spinlock.h"
#include "lib/types.h"

struct platform;
struct vcpu;
struct vm;

#define VIRTIO_LAYOUT 1 /* version of these structures */

#define VIRTIO_BASE	  0xd0000000ull /* slot n: a page at VIRTIO_BASE + n * PAGE_SIZE */
#define VIRTIO_SLOTS	  8
#define VIRTIO_FIRST_PIN  16 /* of the IOAPIC: slot n has pin 16 + n, level, active high */
#define VIRTIO_CONSOLE_AT BOOT_MAX_DISKS /* slot; disks come first */

#define VIRTIO_QUEUES	    2
#define VIRTIO_CONFIG_BYTES 64

enum virtio_id { /* chapter 5 */
	VIRTIO_NONE = 0,
	VIRTIO_BLK = 2,
	VIRTIO_CONSOLE = 3,
};

/* Feature bits, chapter 6. */
#define VIRTIO_F_INDIRECT_DESC BIT64(28)
#define VIRTIO_F_EVENT_IDX     BIT64(29)
#define VIRTIO_F_VERSION_1     BIT64(32)

/* Device status, 2.1. */
#define VIRTIO_ACKNOWLEDGE BIT(0)
#define VIRTIO_DRIVER	   BIT(1)
#define VIRTIO_DRIVER_OK   BIT(2)
#define VIRTIO_FEATURES_OK BIT(3)
#define VIRTIO_NEEDS_RESET BIT(6)
#define VIRTIO_FAILED	   BIT(7)

/* Interrupt status, 4.2.2. */
#define VIRTIO_ISR_QUEUE  BIT(0)
#define VIRTIO_ISR_CONFIG BIT(1)

/*
 * The work of one piece, in bytes moved; other things are counted as so many bytes: a descriptor, a
 * request, a byte of console. About 100 microseconds at most.
 */
#define VIRTIO_PIECE	   (128 * 1024)
#define VIRTIO_COST_DESC   64
#define VIRTIO_COST_CHAIN  512
#define VIRTIO_COST_OUTPUT 64

/* virtio_dev.busy: it can go on at once, or when a page of the guest has come (vm/away.h). */
#define VIRTIO_BUSY    1
#define VIRTIO_STARVED 2

struct virtio_dev {
	u32 layout; /* VIRTIO_LAYOUT */
	u32 id;	    /* enum virtio_id */
	u32 slot;
	struct spinlock lock;
	u64 offered, accepted; /* features */
	u32 offered_sel, accepted_sel, queue_sel;
	u32 status;
	u32 isr;
	bool line;     /* level of the interrupt */
	u32 busy;      /* atomic: work is left for virtio_work(): VIRTIO_* below */
	u32 max_chain; /* largest queue */
	u32 queue_count;
	u32 config_bytes;
	struct virtq queue[VIRTIO_QUEUES];
	u8 config[VIRTIO_CONFIG_BYTES]; /* never changes */
};

/* A disk: an image that nobody writes to, and the pages that this VM has written. */
struct virtio_blk {
	u64 image; /* host-physical */
	u64 pages; /* of 4 KiB, that the image has */
	u64 sectors;
	bool read_only;
	u64 *own; /* copy-on-write: `pages` host-physical addresses, 0 = as in the image; heap */
	u64 own_count;
	char name[20]; /* what GET_ID returns */

	/* The request that is being served. */
	bool active;
	u8 result; /* VIRTIO_BLK_S_* */
	u32 type;
	u64 at, left; /* on the disk; bytes */
	struct virtq_cursor cursor;
	struct virtq_chain chain;
};

struct virtio_console {
	u32 opened; /* atomic: the guest has written to it; input is for it */
	bool active;
	struct virtq_cursor cursor; /* in the chain that is being printed */
	u64 left;
	struct virtq_chain chain;
	u32 filled;	   /* bytes in `input`, which could not be given back yet */
	bool input_active; /* a buffer waits for what will be typed */
	struct virtq_chain input;
};

struct virtio {
	u32 map;	/* bit n: there is a device in slot n */
	u32 input_due;	/* atomic: the console has input for the guest */
	u32 complaints; /* broken rings logged */
	struct virtio_dev dev[VIRTIO_SLOTS];
	struct virtio_blk blk[BOOT_MAX_DISKS]; /* slot n */
	struct virtio_console console;
};

/*
 * Which devices this VM has: bit n for slot n, at VIRTIO_BASE + n * PAGE_SIZE with interrupt 16 +
 * n. From its configuration, so that it may be asked before they are created.
 */
u32 virtio_device_map(const struct vm *vm);

/* With the platform: *out is NULL if the VM has no such device. 0 or ERR_NOMEM. */
int virtio_create(struct vm *vm, struct virtio **out);
void virtio_destroy(struct vm *vm, struct virtio *v);

/* Register accesses; offset from VIRTIO_BASE. Without locks, on the vCPU's CPU. */
bool virtio_mmio_read(struct vcpu *vcpu, struct virtio *v, u64 offset, unsigned int size,
		      u64 *value);
bool virtio_mmio_write(struct vcpu *vcpu, struct virtio *v, u64 offset, unsigned int size,
		       u64 value);

/* REQ_DEVICE: another piece of work, and console input. On the vCPU's CPU, without locks. */
void virtio_work(struct vcpu *vcpu, struct virtio *v);

/* The virtio console is where input goes. Any CPU, with or without locks. */
bool virtio_takes_input(const struct virtio *v);

/* --- among hv/dev/virtio*.c: with the device's lock held -------------------------------------- */

static inline bool virtio_running(const struct virtio_dev *dev)
{
	return (dev->status & (VIRTIO_DRIVER_OK | VIRTIO_NEEDS_RESET)) == VIRTIO_DRIVER_OK;
}

/* The buffer that waits for input is not the device's any more. */
static inline void virtio_console_drop_input(struct virtio_console *c)
{
	c->input_active = false;
	c->filled = 0;
}

/* What the last step of a piece of work returned: its cost, nothing to do, or ERR_AGAIN. */
static inline void virtio_set_busy(struct virtio_dev *dev, int cost)
{
	u32 busy = cost > 0 ? VIRTIO_BUSY : cost == ERR_AGAIN ? VIRTIO_STARVED : 0;

	__atomic_store_n(&dev->busy, busy, __ATOMIC_RELAXED);
}

/* Back to the state after power-on (2.1, 4.2.3.1). */
void virtio_reset(struct vm *vm, struct virtio *v, struct virtio_dev *dev);

/* Sets or clears bits of the interrupt status and moves the line. */
void virtio_interrupt(struct vm *vm, struct virtio_dev *dev, u32 set, u32 clear);

/* The ring is broken: the device stops until it is reset (2.1.2). */
void virtio_broken(struct vm *vm, struct virtio *v, struct virtio_dev *dev, const char *why);

/* Serves queue `queue` with at most one piece of work; sets dev->busy if more is left. */
void virtio_serve(struct vm *vm, struct virtio *v, struct virtio_dev *dev, u32 queue);

/* The end of serving a queue: the interrupt for what was used, if the driver wants one. */
void virtio_finish(struct vm *vm, struct virtio *v, struct virtio_dev *dev, struct virtq *q);
