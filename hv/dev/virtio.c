/* The virtio devices of a VM, and what their kinds share: see virtio.h. */
#include "dev/virtio.h"

#include "dev/acpi_layout.h"
#include "dev/platform.h"
#include "dev/virtio_blk.h"
#include "dev/virtio_console.h"
#include "lib/log.h"
#include "lib/string.h"
#include "mem/frame.h"
#include "vm/vm.h"

_Static_assert(VIRTIO_BASE == VIRTIO_MMIO_BASE && VIRTIO_MMIO_STRIDE == PAGE_SIZE &&
		       VIRTIO_FIRST_PIN == VIRTIO_MMIO_GSI && VIRTIO_SLOTS == VIRTIO_MMIO_COUNT,
	       "ACPI tells drivers where the devices are");

/* No guest fills the log with its broken rings, nor by restarting. */
#define COMPLAINTS 4

/* --- life ------------------------------------------------------------------------------------- */

u32 virtio_device_map(const struct vm *vm)
{
	u32 map = (u32)BIT64(vm->config->disk_count) - 1;

	return vm->config->virtio_console ? map | BIT(VIRTIO_CONSOLE_AT) : map;
}

int virtio_create(struct vm *vm, struct virtio **out)
{
	const struct boot_vm *config = vm->config;
	u32 map = virtio_device_map(vm);
	struct virtio *v;

	*out = NULL;
	if (!map)
		return 0;
	v = heap_alloc(sizeof(*v));
	if (!v)
		return ERR_NOMEM;
	v->map = map;
	for (u32 slot = 0; slot < VIRTIO_SLOTS; slot++) {
		v->dev[slot].layout = VIRTIO_LAYOUT;
		v->dev[slot].slot = slot;
		v->dev[slot].offered =
			VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX;
	}
	for (u32 i = 0; i < config->disk_count; i++) {
		if (virtio_blk_create(&v->dev[i], &v->blk[i], &config->disk[i],
				      config->disk_mode[i] == BOOT_DISK_RO)) {
			virtio_destroy(vm, v);
			return ERR_NOMEM;
		}
	}
	if (config->virtio_console)
		virtio_console_create(&v->dev[VIRTIO_CONSOLE_AT]);
	*out = v;
	return 0;
}

void virtio_destroy(struct vm *vm, struct virtio *v)
{
	if (!v)
		return;
	for (u32 i = 0; i < BOOT_MAX_DISKS; i++)
		virtio_blk_destroy(vm, &v->blk[i]);
	heap_free(v, sizeof(*v));
}

void virtio_reset(struct vm *vm, struct virtio *v, struct virtio_dev *dev)
{
	virtio_interrupt(vm, dev, 0, ~0u);
	dev->accepted = 0;
	dev->offered_sel = dev->accepted_sel = dev->queue_sel = 0;
	dev->status = 0;
	__atomic_store_n(&dev->busy, 0, __ATOMIC_RELAXED);
	memset(dev->queue, 0, sizeof(dev->queue));
	if (dev->id == VIRTIO_BLK)
		virtio_blk_reset(&v->blk[dev->slot]);
	else
		virtio_console_reset(&v->console);
}

/* --- interrupts ------------------------------------------------------------------------------- */

void virtio_interrupt(struct vm *vm, struct virtio_dev *dev, u32 set, u32 clear)
{
	bool level;

	dev->isr = (dev->isr | set) & ~clear;
	level = dev->isr;
	if (level == dev->line)
		return;
	dev->line = level;
	spin_lock(&vm->dev_lock);
	ioapic_set_line(&vm->platform->ioapic, VIRTIO_FIRST_PIN + dev->slot, level);
	spin_unlock(&vm->dev_lock);
}

void virtio_broken(struct vm *vm, struct virtio *v, struct virtio_dev *dev, const char *why)
{
	dev->status |= VIRTIO_NEEDS_RESET;
	__atomic_store_n(&dev->busy, 0, __ATOMIC_RELAXED);
	if (dev->status & VIRTIO_DRIVER_OK)
		virtio_interrupt(vm, dev, VIRTIO_ISR_CONFIG, 0);
	if (vm->restarts < COMPLAINTS &&
	    __atomic_add_fetch(&v->complaints, 1, __ATOMIC_RELAXED) <= COMPLAINTS)
		log_info("vm %s: virtio device %u stops until its driver resets it: %s",
			 vm->config->name, dev->slot, why);
}

void virtio_finish(struct vm *vm, struct virtio *v, struct virtio_dev *dev, struct virtq *q)
{
	int wanted = virtq_wants_interrupt(vm, q);

	if (wanted > 0)
		virtio_interrupt(vm, dev, VIRTIO_ISR_QUEUE, 0);
	else if (wanted == ERR_AGAIN && !dev->busy)
		virtio_set_busy(dev, wanted);
	else if (wanted < 0 && wanted != ERR_AGAIN)
		virtio_broken(vm, v, dev, "no access to its rings");
}

/* --- work ------------------------------------------------------------------------------------- */

void virtio_serve(struct vm *vm, struct virtio *v, struct virtio_dev *dev, u32 queue)
{
	if (!virtio_running(dev) || queue >= dev->queue_count || !dev->queue[queue].ready)
		return;
	if (dev->id == VIRTIO_BLK)
		virtio_blk_serve(vm, v, dev, &v->blk[dev->slot]);
	else if (queue == VIRTIO_CONSOLE_TX)
		virtio_console_transmit(vm, v, dev, &v->console);
	else
		virtio_console_receive(vm, v, dev, &v->console);
}

/* The queue that may have been left in the middle. */
static u32 busy_queue(const struct virtio_dev *dev)
{
	return dev->id == VIRTIO_BLK ? 0 : VIRTIO_CONSOLE_TX;
}

static void serve_input(struct vm *vm, struct virtio *v)
{
	struct virtio_dev *dev = &v->dev[VIRTIO_CONSOLE_AT];

	spin_lock(&dev->lock);
	virtio_serve(vm, v, dev, VIRTIO_CONSOLE_RX);
	spin_unlock(&dev->lock);
}

void virtio_work(struct vcpu *vcpu, struct virtio *v)
{
	bool left = false;

	if (__atomic_exchange_n(&v->input_due, 0, __ATOMIC_ACQUIRE))
		serve_input(vcpu->vm, v);
	for (u32 i = 0; i < VIRTIO_SLOTS; i++) {
		struct virtio_dev *dev = &v->dev[i];

		if (!__atomic_load_n(&dev->busy, __ATOMIC_RELAXED))
			continue;
		spin_lock(&dev->lock);
		if (dev->busy) {
			__atomic_store_n(&dev->busy, 0, __ATOMIC_RELAXED);
			virtio_serve(vcpu->vm, v, dev, busy_queue(dev));
		}
		left |= dev->busy == VIRTIO_BUSY;
		spin_unlock(&dev->lock);
	}
	if (left)
		vcpu_request(vcpu, REQ_DEVICE);
}

bool virtio_takes_input(const struct virtio *v)
{
	return v && __atomic_load_n(&v->console.opened, __ATOMIC_RELAXED);
}
