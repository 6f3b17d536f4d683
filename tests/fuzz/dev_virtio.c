/*
 * The virtio devices of a VM whose driver does anything: any register, any bytes in rings,
 * descriptors and buffers. Whatever it is, the images stay as they are, what was allocated is given
 * back, no piece of work is large, and the interrupt lines say what the status registers say.
 */
#include "../unit/virtio_host.h"

#include "lib/panic.h"

#define IMAGE_BYTES (64 * 1024 + 700)
#define QUEUE_BYTES 0x1000u /* rings of one queue, with 16 elements: at 0, of the other above */

static u8 before[2 * MIB];

static struct virtio *v;

static void mmio_write(u32 slot, u32 reg, u32 value)
{
	virtio_mmio_write(&host_vcpu, v, slot * PAGE_SIZE + reg, 4, value);
}

/* What every driver does, so that the fuzzer need not find it. */
static void start(u32 slot, u32 features)
{
	mmio_write(slot, REG_STATUS, 0);
	mmio_write(slot, REG_STATUS, 3);
	mmio_write(slot, REG_ACCEPTED_SEL, 0);
	mmio_write(slot, REG_ACCEPTED, (features & 3) << 28 | (features & 4 ? BIT(14) : 0));
	mmio_write(slot, REG_ACCEPTED_SEL, 1);
	mmio_write(slot, REG_ACCEPTED, 1);
	mmio_write(slot, REG_STATUS, 11);
	if (slot == 1) /* what it has not offered */
		mmio_write(slot, REG_STATUS, 0);
	for (u32 n = 0; n < 2; n++) {
		mmio_write(slot, REG_QUEUE_SEL, n);
		mmio_write(slot, REG_QUEUE_SIZE, 16);
		mmio_write(slot, REG_DESC_LOW, n * QUEUE_BYTES);
		mmio_write(slot, REG_DRIVER_LOW, n * QUEUE_BYTES + 0x400);
		mmio_write(slot, REG_DEVICE_LOW, n * QUEUE_BYTES + 0x800);
		mmio_write(slot, REG_QUEUE_READY, 1);
	}
	mmio_write(slot, REG_STATUS, 15);
}

/* A descriptor whose numbers are near those that matter. */
static void put_desc(u32 n, u32 i, const u8 *data)
{
	static const u64 bases[] = {0x10000,   0,	    0x400,	RAM_BYTES - 64,
				    HIGH_BASE, VIRTIO_BASE, ~0ull - 63, 0x10000};
	u64 at = bases[data[0] & 7] + (data[0] >> 3) * 16u;
	u32 bytes = data[1] & 1 ? data[1] >> 1 : (u32)(data[1] >> 1) * 512;
	u16 flags = data[2] & 15, next = data[2] >> 4;
	u8 *desc = host_ram + n * QUEUE_BYTES + 16 * (i & 15);

	memcpy(desc, &at, 8);
	memcpy(desc + 8, &bytes, 4);
	memcpy(desc + 12, &flags, 2);
	memcpy(desc + 14, &next, 2);
}

/* A request whose header, data and status are right, at any sector. */
static void put_request(const u8 *data)
{
	static const u8 chain[] = {0, 0, 1, 0, 0, 1};
	u64 sector = data[1];
	u32 type = data[0] & 15, bytes = (u32)(data[2] & 63) * 512;
	u16 flags = type == VIRTIO_BLK_T_OUT ? 1 : 3, next = 2;

	memcpy(host_ram + 0x10000, &type, 4);
	memcpy(host_ram + 0x10008, &sector, 8);
	put_desc(0, 0, (const u8[]){chain[0], 16 << 1 | 1, 1 | 1 << 4});
	put_desc(0, 1, (const u8[]){0 | 8 << 3, 0, (u8)(flags | next << 4)});
	memcpy(host_ram + 16 + 8, &bytes, 4);
	put_desc(0, 2, (const u8[]){0 | 4 << 3, 1 << 1 | 1, 2});
}

static void add(u32 n, u32 head)
{
	u8 *avail = host_ram + n * QUEUE_BYTES + 0x400;
	u16 index, value = (u16)head;

	memcpy(&index, avail + 2, 2);
	memcpy(avail + 4 + 2 * (index & 15), &value, 2);
	index++;
	memcpy(avail + 2, &index, 2);
}

static void check(void)
{
	check_unlocked();
	for (u32 i = 0; i < VIRTIO_SLOTS; i++) {
		const struct virtio_dev *dev = &v->dev[i];

		ASSERT(dev->lock.next == dev->lock.serving);
		ASSERT(dev->line == (dev->isr != 0));
		ASSERT(!!(lines & BIT64(16 + i)) == dev->line);
		ASSERT(!(dev->accepted & ~dev->offered) || !(dev->status & VIRTIO_FEATURES_OK));
		ASSERT(!dev->busy || virtio_running(dev));
		for (u32 n = 0; n < VIRTIO_QUEUES; n++)
			ASSERT(!dev->queue[n].ready || dev->queue[n].size <= VIRTQ_MAX);
	}
	ASSERT(v->blk[0].own_count == frames_used);
}

static void step(const u8 *data)
{
	static const u32 slots[] = {0, 1, VIRTIO_CONSOLE_AT, 0};
	u32 slot = slots[data[0] >> 4 & 3], n = data[0] >> 6 & 1;
	u64 value;

	switch (data[0] & 15) {
	case 0:
		start(slot, data[1]);
		break;
	case 1 ... 3:
		put_desc(n, data[1], data + 2);
		break;
	case 4:
		put_request(data + 1);
		add(0, 0);
		break;
	case 5 ... 6:
		add(n, data[1] & 31);
		break;
	case 7 ... 9:
		mmio_write(slot, REG_NOTIFY, n);
		break;
	case 10: /* any bytes in the rings or near the data */
		memcpy(host_ram + (data[0] & 128 ? 0x10000 : 0) + (data[1] | (data[2] & 31) << 8),
		       data + 3, 5);
		break;
	case 11:
		mmio_write(slot, data[1], (u32)(data[2] | data[3] << 8 | data[4] << 16));
		break;
	case 12:
		virtio_mmio_read(&host_vcpu, v, (u64)(data[1] | (data[2] & 127) << 8),
				 1u << (data[3] & 3), &value);
		virtio_mmio_write(&host_vcpu, v, (u64)(data[4] | (data[5] & 127) << 8),
				  1u << (data[3] >> 2 & 3), data[6]);
		break;
	case 13:
		console_in_count += data[1];
		__atomic_store_n(&v->input_due, 1, __ATOMIC_RELAXED);
		host_vcpu.requests |= REQ_DEVICE;
		break;
	case 14:
		protected_page = (data[1] & 3) ? (u64)data[2] << 12 : ~0ull;
		host_vm.space.override_count = data[1] & 3;
		protected_perms = data[3] & 7;
		break;
	default:
		if (host_vcpu.requests & REQ_DEVICE) {
			host_vcpu.requests = 0;
			virtio_work(&host_vcpu, v);
		}
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!host_direct_map) {
		host_memory_init(ARENA_BYTES);
		host_image(0, IMAGE_AT, IMAGE_BYTES, BOOT_DISK_COW);
		host_image(1, IMAGE_AT + MIB, IMAGE_BYTES, BOOT_DISK_RO);
		host_config.virtio_console = 1;
		memcpy(before, phys_to_ptr(hpa(IMAGE_AT)), sizeof(before));
	}
	memset(host_ram, 0, 0x20000);
	protected_page = ~0ull;
	frames_left = 12;
	host_vm.restarts = 100; /* no lines in the log */
	ASSERT(host_create());
	v = host_platform.virtio;
	for (; size >= 8; data += 8, size -= 8) {
		step(data);
		check();
	}
	for (u32 pieces = 0; host_vcpu.requests & REQ_DEVICE; pieces++) {
		ASSERT(pieces < 100000);
		host_vcpu.requests = 0;
		virtio_work(&host_vcpu, v);
		check();
	}
	virtio_destroy(&host_vm, v);
	ASSERT(frames_used == 0);
	ASSERT(!memcmp(before, phys_to_ptr(hpa(IMAGE_AT)), sizeof(before)));
	return 0;
}
