/*
 * A driver of the virtio devices that keeps the rules, for tests: registers, queues, buffers. Two
 * disks with the same image, copy-on-write and read-only, and the console.
 */
#pragma once

#include "virtio_host.h"

#define SIZE	    16u
#define DESC(q)	    (0x10000u + 0x3000u * (q))
#define AVAIL(q)    (DESC(q) + 0x1000u)
#define USED(q)	    (DESC(q) + 0x2000u)
#define DATA	    0x30000u /* to the end of RAM */
#define NEXT	    1u
#define WRITE	    2u
#define COW	    0u /* slots */
#define ROM	    1u
#define CON	    VIRTIO_CONSOLE_AT
#define IMAGE_BYTES (200 * 1024 + 100)
#define SECTORS	    401u
#define ALL_OK	    15u

static struct virtio *v;
static u16 added[2], seen[2];
static u8 before[IMAGE_BYTES];

static u64 mmio_read_size(u32 slot, u32 reg, unsigned int size)
{
	u64 value = 0xdeadbeefdeadbeef;

	assert_true(virtio_mmio_read(&host_vcpu, v, slot * PAGE_SIZE + reg, size, &value));
	check_unlocked();
	return value;
}

static u32 mmio_read(u32 slot, u32 reg)
{
	return (u32)mmio_read_size(slot, reg, 4);
}

static void mmio_write(u32 slot, u32 reg, u32 value)
{
	assert_true(virtio_mmio_write(&host_vcpu, v, slot * PAGE_SIZE + reg, 4, value));
	check_unlocked();
}

static void put(u64 at, u64 value, unsigned int bytes)
{
	memcpy(host_ram + at, &value, bytes);
}

static u64 get(u64 at, unsigned int bytes)
{
	u64 value = 0;

	memcpy(&value, host_ram + at, bytes);
	return value;
}

static void negotiate(u32 slot, u64 features)
{
	mmio_write(slot, REG_STATUS, 0);
	mmio_write(slot, REG_STATUS, 1);
	mmio_write(slot, REG_STATUS, 3);
	mmio_write(slot, REG_ACCEPTED_SEL, 0);
	mmio_write(slot, REG_ACCEPTED, (u32)features);
	mmio_write(slot, REG_ACCEPTED_SEL, 1);
	mmio_write(slot, REG_ACCEPTED, (u32)(features >> 32));
	mmio_write(slot, REG_STATUS, 11);
}

static void queue(u32 slot, u32 n)
{
	memset(host_ram + DESC(n), 0, 0x3000);
	added[n] = seen[n] = 0;
	mmio_write(slot, REG_QUEUE_SEL, n);
	mmio_write(slot, REG_QUEUE_SIZE, SIZE);
	mmio_write(slot, REG_DESC_LOW, DESC(n));
	mmio_write(slot, REG_DESC_HIGH, 0);
	mmio_write(slot, REG_DRIVER_LOW, AVAIL(n));
	mmio_write(slot, REG_DRIVER_HIGH, 0);
	mmio_write(slot, REG_DEVICE_LOW, USED(n));
	mmio_write(slot, REG_DEVICE_HIGH, 0);
	mmio_write(slot, REG_QUEUE_READY, 1);
	assert_int_equal(mmio_read(slot, REG_QUEUE_READY), 1);
}

static void start(u32 slot, u64 features)
{
	negotiate(slot, VIRTIO_F_VERSION_1 | features);
	queue(slot, 0);
	if (slot == CON)
		queue(slot, 1);
	mmio_write(slot, REG_STATUS, ALL_OK);
	assert_int_equal(mmio_read(slot, REG_STATUS), ALL_OK);
}

static int setup(void **state)
{
	memset(&host_config, 0, sizeof(host_config));
	memset(host_ram, 0, sizeof(host_ram));
	host_memory_init(ARENA_BYTES);
	host_image(COW, IMAGE_AT, IMAGE_BYTES, BOOT_DISK_COW);
	host_image(ROM, IMAGE_AT + MIB, IMAGE_BYTES, BOOT_DISK_RO);
	memcpy(before, phys_to_ptr(hpa(IMAGE_AT)), IMAGE_BYTES);
	host_config.virtio_console = 1;
	frames_left = FRAMES;
	protected_page = ~0ull;
	assert_true(host_create());
	v = host_platform.virtio;
	return 0;
}

static int teardown(void **state)
{
	virtio_destroy(&host_vm, v);
	assert_int_equal(frames_used, 0);
	assert_memory_equal(before, phys_to_ptr(hpa(IMAGE_AT)), IMAGE_BYTES);
	host_memory_release();
	return 0;
}

/* --- a driver --------------------------------------------------------------------------------- */

static void desc(u32 n, u32 i, u64 at, u32 bytes, u32 flags, u32 next)
{
	put(DESC(n) + 16 * i, at, 8);
	put(DESC(n) + 16 * i + 8, bytes, 4);
	put(DESC(n) + 16 * i + 12, flags, 2);
	put(DESC(n) + 16 * i + 14, next, 2);
}

static void add(u32 n, u32 head)
{
	put(AVAIL(n) + 4 + 2 * (added[n] % SIZE), head, 2);
	put(AVAIL(n) + 2, ++added[n], 2);
}

/* The next used element: its length, or -1. */
static s64 used(u32 n, u32 *head)
{
	u64 at = USED(n) + 4 + 8 * (seen[n] % SIZE);

	if (get(USED(n) + 2, 2) == seen[n])
		return -1;
	seen[n]++;
	*head = (u32)get(at, 4);
	return (s64)get(at + 4, 4);
}

/* As the run loop does it. */
static u32 work(void)
{
	u32 pieces = 0;

	while (host_vcpu.requests & REQ_DEVICE) {
		host_vcpu.requests = 0;
		virtio_work(&host_vcpu, v);
		check_unlocked();
		pieces++;
		assert_true(pieces < 10000);
	}
	return pieces;
}
