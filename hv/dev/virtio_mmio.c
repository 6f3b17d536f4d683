/* virtio over MMIO: see virtio_mmio.h. */
#include "dev/virtio_mmio.h"

#include "dev/virtio_blk.h"
#include "dev/virtio_console.h"
#include "lib/string.h"
#include "vm/console.h"
#include "vm/vm.h"

/* No feature has this bit: a driver that asks for what the words beyond the second offer. */
#define UNKNOWN_FEATURE BIT64(63)

#define STATUS_OF_DRIVER \
	(VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_DRIVER_OK | VIRTIO_FEATURES_OK | VIRTIO_FAILED)

static inline struct virtio_dev *device_at(struct virtio *v, u64 offset)
{
	u64 slot = offset / PAGE_SIZE;

	return slot < VIRTIO_SLOTS && (v->map & BIT(slot)) ? &v->dev[slot] : NULL;
}

static struct virtq *selected(struct virtio_dev *dev)
{
	return dev->queue_sel < dev->queue_count ? &dev->queue[dev->queue_sel] : NULL;
}

static u32 half(u64 value, u32 select)
{
	return select < 2 ? (u32)(value >> select * 32) : 0;
}

static u64 with_half(u64 old, u32 select, u32 value)
{
	return select ? (u32)old | (u64)value << 32 : (old & ~0xffffffffull) | value;
}

/* --- reading ---------------------------------------------------------------------------------- */

static u32 read_register(struct virtio_dev *dev, u32 reg)
{
	const struct virtq *q = selected(dev);

	switch (reg) {
	case REG_MAGIC:
		return VIRTIO_MAGIC;
	case REG_VERSION:
		return VIRTIO_VERSION;
	case REG_DEVICE_ID:
		return dev->id;
	case REG_VENDOR_ID:
		return VIRTIO_VENDOR;
	case REG_OFFERED:
		return half(dev->offered, dev->offered_sel);
	case REG_QUEUE_MAX:
		return q ? dev->max_chain : 0;
	case REG_QUEUE_READY:
		return q && q->ready;
	case REG_ISR:
		return dev->isr;
	case REG_STATUS:
		return dev->status;
	case REG_SHM_LEN_LOW: /* there is no shared memory: all ones (4.2.2) */
	case REG_SHM_LEN_HIGH:
	case REG_SHM_BASE_LOW:
	case REG_SHM_BASE_HIGH:
		return ~0u;
	default: /* write-only, reserved; the configuration's generation is always 0 */
		return 0;
	}
}

static void read_config(const struct virtio_dev *dev, u32 at, unsigned int size, u64 *value)
{
	*value = 0;
	if (at < dev->config_bytes)
		memcpy(value, dev->config + at, MIN(size, dev->config_bytes - at));
}

bool virtio_mmio_read(struct vcpu *vcpu, struct virtio *v, u64 offset, unsigned int size,
		      u64 *value)
{
	struct virtio_dev *dev = device_at(v, offset);
	u32 reg = (u32)(offset % PAGE_SIZE);

	if (!dev)
		return false;
	if (reg >= REG_CONFIG) {
		read_config(dev, reg - REG_CONFIG, size, value);
		return true;
	}
	if (size != 4 || reg % 4)
		return false;
	spin_lock(&dev->lock);
	*value = read_register(dev, reg);
	spin_unlock(&dev->lock);
	return true;
}

/* --- writing ---------------------------------------------------------------------------------- */

static void write_accepted(struct virtio_dev *dev, u32 value)
{
	if (dev->status & VIRTIO_FEATURES_OK)
		return;
	if (dev->accepted_sel < 2)
		dev->accepted = with_half(dev->accepted, dev->accepted_sel, value) |
				(dev->accepted & UNKNOWN_FEATURE);
	else if (value)
		dev->accepted |= UNKNOWN_FEATURE;
}

/* 2.1.1, 3.1.1: bits are only ever added, and the device checks the features. */
static void write_status(struct vm *vm, struct virtio *v, struct virtio_dev *dev, u32 value)
{
	if (!value) {
		virtio_reset(vm, v, dev);
		return;
	}
	if (!(dev->status & VIRTIO_FEATURES_OK) &&
	    ((dev->accepted & ~dev->offered) || !(dev->accepted & VIRTIO_F_VERSION_1)))
		value &= ~VIRTIO_FEATURES_OK;
	if (!((dev->status | value) & VIRTIO_FEATURES_OK))
		value &= ~VIRTIO_DRIVER_OK;
	dev->status |= value & STATUS_OF_DRIVER;
}

/* What was taken from a queue that the driver takes back is forgotten. */
static void stop_queue(struct virtio *v, struct virtio_dev *dev, struct virtq *q)
{
	q->ready = false;
	if (dev->id == VIRTIO_BLK)
		virtio_blk_reset(&v->blk[dev->slot]);
	else if (dev->queue_sel == VIRTIO_CONSOLE_TX)
		v->console.active = false;
	else
		virtio_console_drop_input(&v->console);
}

static void write_ready(struct vm *vm, struct virtio *v, struct virtio_dev *dev, u32 value)
{
	struct virtq *q = selected(dev);

	if (!q)
		return;
	if (!(value & 1)) {
		stop_queue(v, dev, q);
	} else if (!q->ready && (dev->status & VIRTIO_FEATURES_OK)) {
		q->indirect = dev->accepted & VIRTIO_F_INDIRECT_DESC;
		q->event_idx = dev->accepted & VIRTIO_F_EVENT_IDX;
		/* If it fails the driver reads that the queue is not ready. */
		virtq_start(vm, q);
	}
}

/* A queue's size and addresses, which stand once it is ready. */
static void write_queue(struct virtio_dev *dev, u32 reg, u32 value)
{
	struct virtq *q = selected(dev);
	u32 high = reg >> 2 & 1;

	if (!q || q->ready)
		return;
	switch (reg) {
	case REG_QUEUE_SIZE:
		q->size = value;
		break;
	case REG_DESC_LOW:
	case REG_DESC_HIGH:
		q->desc = with_half(q->desc, high, value);
		break;
	case REG_DRIVER_LOW:
	case REG_DRIVER_HIGH:
		q->driver = with_half(q->driver, high, value);
		break;
	case REG_DEVICE_LOW:
	case REG_DEVICE_HIGH:
		q->device = with_half(q->device, high, value);
		break;
	default: /* read-only or reserved */
		break;
	}
}

static void write_register(struct vm *vm, struct virtio *v, struct virtio_dev *dev, u32 reg,
			   u32 value)
{
	switch (reg) {
	case REG_OFFERED_SEL:
		dev->offered_sel = value;
		break;
	case REG_ACCEPTED:
		write_accepted(dev, value);
		break;
	case REG_ACCEPTED_SEL:
		dev->accepted_sel = value;
		break;
	case REG_QUEUE_SEL:
		dev->queue_sel = value;
		break;
	case REG_QUEUE_READY:
		write_ready(vm, v, dev, value);
		break;
	case REG_ACK:
		virtio_interrupt(vm, dev, 0, value);
		break;
	case REG_STATUS:
		write_status(vm, v, dev, value);
		break;
	default:
		write_queue(dev, reg, value);
		break;
	}
}

/* The only thing that can be written there is a character, before the driver is up (5.3.4). */
static void write_config(struct vm *vm, const struct virtio_dev *dev, u32 at, u64 value)
{
	if (dev->id == VIRTIO_CONSOLE && at == VIRTIO_CONSOLE_EMERG)
		console_put(vm, (u8)value);
}

bool virtio_mmio_write(struct vcpu *vcpu, struct virtio *v, u64 offset, unsigned int size,
		       u64 value)
{
	struct virtio_dev *dev = device_at(v, offset);
	u32 reg = (u32)(offset % PAGE_SIZE);
	bool left;

	if (!dev)
		return false;
	if (reg >= REG_CONFIG) {
		write_config(vcpu->vm, dev, reg - REG_CONFIG, value);
		return true;
	}
	if (size != 4 || reg % 4)
		return false;
	spin_lock(&dev->lock);
	if (likely(reg == REG_NOTIFY))
		virtio_serve(vcpu->vm, v, dev, (u32)value);
	else
		write_register(vcpu->vm, v, dev, reg, (u32)value);
	left = dev->busy == VIRTIO_BUSY;
	spin_unlock(&dev->lock);
	if (unlikely(left))
		vcpu_request(vcpu, REQ_DEVICE);
	return true;
}
