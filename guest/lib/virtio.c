/* A small virtio driver. Contract in virtio.h. */
#include "cpu.h"
#include "mem.h"
#include "virtio.h"

bool vio_find(struct vio *d, u32 slot)
{
	d->base = VIO_BASE + slot * PAGE_SIZE;
	d->pin = VIO_PIN + slot;
	d->id = 0;
	if (vio_read(d, VIO_R_MAGIC) != VIO_MAGIC || vio_read(d, VIO_R_VERSION) != 2)
		return false;
	d->id = vio_read(d, VIO_R_ID);
	return d->id != 0;
}

u64 vio_offered(const struct vio *d)
{
	u64 low;

	vio_write(d, VIO_R_OFFERED_SEL, 0);
	low = vio_read(d, VIO_R_OFFERED);
	vio_write(d, VIO_R_OFFERED_SEL, 1);
	return (u64)vio_read(d, VIO_R_OFFERED) << 32 | low;
}

bool vio_negotiate(struct vio *d, u64 features)
{
	vio_write(d, VIO_R_STATUS, 0);
	vio_write(d, VIO_R_STATUS, VIO_S_ACKNOWLEDGE);
	vio_write(d, VIO_R_STATUS, VIO_S_ACKNOWLEDGE | VIO_S_DRIVER);
	vio_write(d, VIO_R_ACCEPTED_SEL, 0);
	vio_write(d, VIO_R_ACCEPTED, (u32)features);
	vio_write(d, VIO_R_ACCEPTED_SEL, 1);
	vio_write(d, VIO_R_ACCEPTED, (u32)(features >> 32));
	vio_write(d, VIO_R_STATUS, VIO_S_ACKNOWLEDGE | VIO_S_DRIVER | VIO_S_FEATURES_OK);
	d->accepted = features;
	return vio_status(d) & VIO_S_FEATURES_OK;
}

static void set_address(struct vio *d, u32 reg, const volatile void *at)
{
	vio_write(d, reg, (u32)(uintptr_t)at);
	vio_write(d, reg + 4, (u32)((uintptr_t)at >> 32));
}

bool vio_queue(struct vio *d, u32 index, u32 size)
{
	struct vq *q = &d->queue[index];

	if (!q->desc) {
		q->desc = page_alloc(); /* 256 descriptors */
		q->avail = page_alloc();
		q->used = page_alloc();
	}
	memset((void *)(uintptr_t)q->desc, 0, PAGE_SIZE);
	memset((void *)(uintptr_t)q->avail, 0, PAGE_SIZE);
	memset((void *)(uintptr_t)q->used, 0, PAGE_SIZE);
	q->index = index;
	q->size = size;
	q->added = q->seen = 0;
	vio_write(d, VIO_R_QUEUE, index);
	vio_write(d, VIO_R_QUEUE_SIZE, size);
	set_address(d, VIO_R_DESC, q->desc);
	set_address(d, VIO_R_DRIVER, q->avail);
	set_address(d, VIO_R_DEVICE, q->used);
	vio_write(d, VIO_R_READY, 1);
	return vio_read(d, VIO_R_READY) == 1;
}

bool vio_start(struct vio *d, u64 features, u32 size)
{
	bool ok = vio_negotiate(d, features | VIO_F_VERSION_1) && vio_queue(d, 0, size);

	if (d->id == VIO_ID_CONSOLE)
		ok = ok && vio_queue(d, 1, size);
	vio_write(d, VIO_R_STATUS,
		  VIO_S_ACKNOWLEDGE | VIO_S_DRIVER | VIO_S_FEATURES_OK | VIO_S_DRIVER_OK);
	return ok && (vio_status(d) & VIO_S_DRIVER_OK);
}

void vq_desc(struct vq *q, u32 i, const volatile void *at, u32 bytes, u32 flags, u32 next)
{
	q->desc[i].at = (uintptr_t)at;
	q->desc[i].bytes = bytes;
	q->desc[i].flags = (u16)flags;
	q->desc[i].next = (u16)next;
}

void vq_add(struct vq *q, u32 head)
{
	q->avail[2 + (q->added & (q->size - 1))] = (u16)head;
	__atomic_thread_fence(__ATOMIC_RELEASE);
	q->avail[1] = ++q->added;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

bool vq_used(struct vq *q, u32 *head, u32 *written)
{
	const volatile u32 *element;

	if (q->used[1] == q->seen)
		return false;
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	element = (const volatile u32 *)(const volatile void *)&q->used[2] +
		  2 * (q->seen++ & (q->size - 1));
	*head = element[0];
	*written = element[1];
	return true;
}
