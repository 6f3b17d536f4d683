/*
 * A driver for virtio devices over MMIO (Virtual I/O Device 1.2, 4.2.2, 2.7): enough for tests,
 * which also need to do everything wrong. Rings lie in identity-mapped memory.
 */
#pragma once

#include "lib.h"

#define VIO_BASE  0xd0000000ull
#define VIO_SLOTS 8
#define VIO_PIN	  16 /* of slot 0 */
#define VIO_MAGIC 0x74726976u

#define VIO_ID_BLK     2
#define VIO_ID_CONSOLE 3

/* Registers. */
#define VIO_R_MAGIC	   0x000
#define VIO_R_VERSION	   0x004
#define VIO_R_ID	   0x008
#define VIO_R_OFFERED	   0x010
#define VIO_R_OFFERED_SEL  0x014
#define VIO_R_ACCEPTED	   0x020
#define VIO_R_ACCEPTED_SEL 0x024
#define VIO_R_QUEUE	   0x030
#define VIO_R_QUEUE_MAX	   0x034
#define VIO_R_QUEUE_SIZE   0x038
#define VIO_R_READY	   0x044
#define VIO_R_NOTIFY	   0x050
#define VIO_R_ISR	   0x060
#define VIO_R_ACK	   0x064
#define VIO_R_STATUS	   0x070
#define VIO_R_DESC	   0x080
#define VIO_R_DRIVER	   0x090
#define VIO_R_DEVICE	   0x0a0
#define VIO_R_GENERATION   0x0fc
#define VIO_R_CONFIG	   0x100

#define VIO_S_ACKNOWLEDGE 1u
#define VIO_S_DRIVER	  2u
#define VIO_S_DRIVER_OK	  4u
#define VIO_S_FEATURES_OK 8u
#define VIO_S_NEEDS_RESET 64u

#define VIO_F_INDIRECT	BIT64(28)
#define VIO_F_EVENT_IDX BIT64(29)
#define VIO_F_VERSION_1 BIT64(32)

#define VIO_ISR_QUEUE  1u
#define VIO_ISR_CONFIG 2u

#define VQ_NEXT	    1u
#define VQ_WRITE    2u
#define VQ_INDIRECT 4u

#define VQ_MAX 256

struct vq_desc {
	u64 at;
	u32 bytes;
	u16 flags, next;
};

struct vq {
	u32 index, size;
	volatile struct vq_desc *desc;
	volatile u16 *avail; /* [0] flags, [1] index, [2...] ring, then used_event */
	volatile u16 *used;  /* [0] flags, [1] index; elements from [2], then avail_event */
	u16 added, seen;     /* our indices */
};

struct vio {
	u64 base;
	u32 id;
	u32 pin;
	u64 accepted;
	struct vq queue[2];
};

static inline u32 vio_read(const struct vio *d, u32 reg)
{
	return *(volatile u32 *)(d->base + reg);
}

static inline void vio_write(const struct vio *d, u32 reg, u32 value)
{
	*(volatile u32 *)(d->base + reg) = value;
}

static inline u32 vio_status(const struct vio *d)
{
	return vio_read(d, VIO_R_STATUS);
}

/* A device in slot n? */
bool vio_find(struct vio *d, u32 slot);
u64 vio_offered(const struct vio *d);
/* Resets it and goes up to FEATURES_OK with these features: false if it refuses them. */
bool vio_negotiate(struct vio *d, u64 features);
/* Sets a queue up, with fresh rings the first time. False if the device does not take it. */
bool vio_queue(struct vio *d, u32 index, u32 size);
/* Reset, features, one queue (or two for a console), DRIVER_OK. */
bool vio_start(struct vio *d, u64 features, u32 size);

static inline void vio_notify(const struct vio *d, u32 queue)
{
	vio_write(d, VIO_R_NOTIFY, queue);
}

static inline volatile u16 *vq_used_event(struct vq *q)
{
	return &q->avail[2 + q->size];
}

static inline u16 vq_avail_event(const struct vq *q)
{
	return q->used[2 + 4 * q->size];
}

/* Fills descriptor i. */
void vq_desc(struct vq *q, u32 i, const volatile void *at, u32 bytes, u32 flags, u32 next);
/* Makes the chain at `head` available, without notifying. */
void vq_add(struct vq *q, u32 head);
/* The next used element: false if there is none. */
bool vq_used(struct vq *q, u32 *head, u32 *written);
