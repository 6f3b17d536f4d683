/*
 * virtio devices behind their registers: the transport's state machine, disks, and that work comes
 * in bounded pieces. The console is in virtio_console.c; broken rings are in virtio_ring.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "virtio_driver.h"

#define HEADER 0x20000u
#define STATUS 0x20100u

static void put_request(u32 type, u64 sector, u64 at, u32 bytes)
{
	u32 write = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID ? WRITE : 0;

	put(HEADER, type, 8);
	put(HEADER + 8, sector, 8);
	put(STATUS, 0xee, 1);
	desc(0, 0, HEADER, 16, NEXT, 1);
	desc(0, 1, at, bytes, NEXT | write, 2);
	desc(0, 2, STATUS, 1, WRITE, 0);
	add(0, 0);
}

static s64 request(u32 slot, u32 type, u64 sector, u64 at, u32 bytes, u8 result)
{
	u32 head = 99;
	s64 length;

	put_request(type, sector, at, bytes);
	mmio_write(slot, REG_NOTIFY, 0);
	work();
	length = used(0, &head);
	assert_int_equal(head, 0);
	assert_int_equal(get(STATUS, 1), result);
	return length;
}

static void same(u64 at, u64 sector, u32 sectors)
{
	assert_memory_equal(host_ram + at, before + sector * 512, sectors * 512);
}

/* --- registers -------------------------------------------------------------------------------- */

static void test_identity(void **state)
{
	static const u32 ids[VIRTIO_SLOTS] = {VIRTIO_BLK, VIRTIO_BLK, 0, 0, VIRTIO_CONSOLE};
	u64 value;

	assert_int_equal(virtio_device_map(&host_vm), 0x13);
	for (u32 slot = 0; slot < VIRTIO_SLOTS; slot++) {
		assert_int_equal(
			virtio_mmio_read(&host_vcpu, v, slot * PAGE_SIZE + REG_MAGIC, 4, &value),
			ids[slot] != 0);
		assert_int_equal(
			virtio_mmio_write(&host_vcpu, v, slot * PAGE_SIZE + REG_STATUS, 4, 0),
			ids[slot] != 0);
		if (!ids[slot])
			continue;
		assert_int_equal(mmio_read(slot, REG_MAGIC), 0x74726976);
		assert_int_equal(mmio_read(slot, REG_VERSION), 2);
		assert_int_equal(mmio_read(slot, REG_DEVICE_ID), ids[slot]);
		assert_int_equal(mmio_read(slot, REG_VENDOR_ID), VIRTIO_VENDOR);
		assert_int_equal(mmio_read(slot, REG_GENERATION), 0);
		assert_int_equal(mmio_read(slot, REG_SHM_LEN_LOW), 0xffffffff);
		assert_int_equal(mmio_read(slot, REG_NOTIFY), 0);
		assert_int_equal(mmio_read(slot, REG_STATUS), 0);
	}
	assert_false(virtio_mmio_read(&host_vcpu, v, REG_MAGIC, 1, &value));
	assert_false(virtio_mmio_read(&host_vcpu, v, REG_MAGIC, 8, &value));
	assert_false(virtio_mmio_read(&host_vcpu, v, REG_MAGIC + 2, 4, &value));
	assert_false(virtio_mmio_write(&host_vcpu, v, REG_STATUS, 2, 1));
	assert_int_equal(mmio_read_size(COW, REG_CONFIG, 8), SECTORS);
	assert_int_equal(mmio_read(COW, REG_CONFIG + 12), 254);
	assert_int_equal(mmio_read_size(COW, REG_CONFIG + 20, 2), 512);
	assert_int_equal(mmio_read_size(COW, REG_CONFIG + 21, 1), 2);
	assert_int_equal(mmio_read_size(COW, REG_CONFIG + 58, 8), 0);
	assert_int_equal(mmio_read_size(COW, PAGE_SIZE - 8, 8), 0);
	assert_int_equal(mmio_read(CON, REG_CONFIG + 4), 1);
}

static void test_no_devices(void **state)
{
	struct boot_vm saved = host_config;
	struct virtio *none = v;

	host_config.disk_count = 0;
	host_config.virtio_console = 0;
	assert_int_equal(virtio_device_map(&host_vm), 0);
	assert_int_equal(virtio_create(&host_vm, &none), 0);
	assert_null(none);
	virtio_destroy(&host_vm, none);
	assert_false(virtio_takes_input(none));
	host_config = saved;
}

static void test_features(void **state)
{
	u64 common = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX, offered;

	for (u32 slot = 0; slot < 2; slot++) {
		mmio_write(slot, REG_OFFERED_SEL, 1);
		offered = (u64)mmio_read(slot, REG_OFFERED) << 32;
		mmio_write(slot, REG_OFFERED_SEL, 0);
		offered |= mmio_read(slot, REG_OFFERED);
		assert_int_equal(offered, common | BIT(2) | BIT(6) | BIT(9) |
						  (slot == ROM ? BIT(5) : BIT(14)));
		mmio_write(slot, REG_OFFERED_SEL, 2);
		assert_int_equal(mmio_read(slot, REG_OFFERED), 0);
	}
	negotiate(COW, common);
	assert_int_equal(mmio_read(COW, REG_STATUS), 11);
	/* Too late. */
	mmio_write(COW, REG_ACCEPTED, 0);
	assert_int_equal(v->dev[COW].accepted, common);
	negotiate(COW, common & ~VIRTIO_F_VERSION_1);
	assert_int_equal(mmio_read(COW, REG_STATUS), 3);
	negotiate(COW, common | BIT64(33));
	assert_int_equal(mmio_read(COW, REG_STATUS), 3);
	negotiate(COW, common | BIT64(5));
	assert_int_equal(mmio_read(COW, REG_STATUS), 3);
	mmio_write(COW, REG_STATUS, 0);
	mmio_write(COW, REG_ACCEPTED_SEL, 2);
	mmio_write(COW, REG_ACCEPTED, 1);
	mmio_write(COW, REG_ACCEPTED_SEL, 1);
	mmio_write(COW, REG_ACCEPTED, 1);
	mmio_write(COW, REG_STATUS, 15);
	assert_int_equal(mmio_read(COW, REG_STATUS), 3);
}

static void test_status(void **state)
{
	mmio_write(COW, REG_STATUS, 4);
	assert_int_equal(mmio_read(COW, REG_STATUS), 0);
	start(COW, 0);
	mmio_write(COW, REG_STATUS, 1);
	assert_int_equal(mmio_read(COW, REG_STATUS), ALL_OK);
	mmio_write(COW, REG_STATUS, 0xffffff40);
	assert_int_equal(mmio_read(COW, REG_STATUS), ALL_OK | (0xffffff40 & VIRTIO_FAILED));
	mmio_write(COW, REG_STATUS, 0);
	assert_int_equal(mmio_read(COW, REG_STATUS), 0);
	assert_int_equal(mmio_read(COW, REG_QUEUE_READY), 0);
	assert_int_equal(v->dev[COW].queue[0].desc, 0);
	/* A queue cannot be ready before the features stand; nothing happens without DRIVER_OK. */
	mmio_write(COW, REG_QUEUE_SIZE, SIZE);
	mmio_write(COW, REG_QUEUE_READY, 1);
	assert_int_equal(mmio_read(COW, REG_QUEUE_READY), 0);
	negotiate(COW, VIRTIO_F_VERSION_1);
	queue(COW, 0);
	put_request(VIRTIO_BLK_T_IN, 0, DATA, 512);
	mmio_write(COW, REG_NOTIFY, 0);
	assert_int_equal(get(USED(0) + 2, 2), 0);
	mmio_write(COW, REG_STATUS, ALL_OK);
	mmio_write(COW, REG_NOTIFY, 0);
	assert_int_equal(get(USED(0) + 2, 2), 1);
}

static void test_queue_registers(void **state)
{
	start(COW, 0);
	assert_int_equal(mmio_read(COW, REG_QUEUE_MAX), VIRTQ_MAX);
	/* What a ready queue has stands. */
	mmio_write(COW, REG_DESC_LOW, 0x777);
	mmio_write(COW, REG_QUEUE_SIZE, 2);
	assert_int_equal(v->dev[COW].queue[0].desc, DESC(0));
	assert_int_equal(v->dev[COW].queue[0].size, SIZE);
	mmio_write(COW, REG_QUEUE_SEL, 1);
	assert_int_equal(mmio_read(COW, REG_QUEUE_MAX), 0);
	mmio_write(COW, REG_QUEUE_READY, 1);
	mmio_write(COW, REG_DESC_LOW, 1);
	mmio_write(COW, REG_NOTIFY, 1);
	mmio_write(COW, REG_NOTIFY, 0xffffffff);
	mmio_write(COW, REG_QUEUE_SEL, 0xffffffff);
	assert_int_equal(mmio_read(COW, REG_QUEUE_READY), 0);
	mmio_write(COW, REG_QUEUE_SEL, 0);
	mmio_write(COW, REG_QUEUE_READY, 0);
	mmio_write(COW, REG_DESC_HIGH, 0x12345678);
	assert_int_equal(v->dev[COW].queue[0].desc, 0x1234567800000000 | DESC(0));
	mmio_write(COW, REG_QUEUE_READY, 1);
	assert_int_equal(mmio_read(COW, REG_QUEUE_READY), 0);
}

static void test_lines(void **state)
{
	start(COW, 0);
	start(ROM, 0);
	request(ROM, VIRTIO_BLK_T_IN, 0, DATA, 512, 0);
	assert_int_equal(lines, BIT(16 + ROM));
	assert_int_equal(mmio_read(ROM, REG_ISR), VIRTIO_ISR_QUEUE);
	mmio_write(ROM, REG_ACK, VIRTIO_ISR_CONFIG);
	assert_int_equal(lines, BIT(16 + ROM));
	mmio_write(ROM, REG_ACK, VIRTIO_ISR_QUEUE);
	assert_int_equal(lines, 0);
	assert_int_equal(mmio_read(ROM, REG_ISR), 0);
	put(AVAIL(0), 1, 2);
	request(ROM, VIRTIO_BLK_T_IN, 0, DATA, 512, 0);
	assert_int_equal(lines, 0);
	put(AVAIL(0), 0, 2);
	request(ROM, VIRTIO_BLK_T_IN, 0, DATA, 512, 0);
	assert_int_equal(lines, BIT(16 + ROM));
	mmio_write(ROM, REG_STATUS, 0);
	assert_int_equal(lines, 0);
}

static void test_broken(void **state)
{
	start(COW, 0);
	put_request(VIRTIO_BLK_T_IN, 0, VIRTIO_BASE, 512);
	mmio_write(COW, REG_NOTIFY, 0);
	assert_int_equal(mmio_read(COW, REG_STATUS), ALL_OK | VIRTIO_NEEDS_RESET);
	assert_int_equal(mmio_read(COW, REG_ISR), VIRTIO_ISR_CONFIG);
	assert_int_equal(lines, BIT(16));
	assert_int_equal(host_vcpu.requests, 0);
	put_request(VIRTIO_BLK_T_IN, 0, DATA, 512);
	mmio_write(COW, REG_NOTIFY, 0);
	assert_int_equal(get(USED(0) + 2, 2), 0);
	mmio_write(COW, REG_STATUS, ALL_OK);
	assert_int_equal(mmio_read(COW, REG_STATUS), ALL_OK | VIRTIO_NEEDS_RESET);
	start(COW, 0);
	assert_int_equal(lines, 0);
	request(COW, VIRTIO_BLK_T_IN, 0, DATA, 512, 0);
	same(DATA, 0, 1);
	/* No header, no status. */
	desc(0, 0, HEADER, 15, NEXT, 1);
	add(0, 0);
	mmio_write(COW, REG_NOTIFY, 0);
	assert_true(mmio_read(COW, REG_STATUS) & VIRTIO_NEEDS_RESET);
	start(COW, 0);
	desc(0, 0, HEADER, 16, 0, 0);
	add(0, 0);
	mmio_write(COW, REG_NOTIFY, 0);
	assert_true(mmio_read(COW, REG_STATUS) & VIRTIO_NEEDS_RESET);
}

/* --- disks ------------------------------------------------------------------------------------ */

static void test_read(void **state)
{
	start(COW, 0);
	assert_int_equal(request(COW, VIRTIO_BLK_T_IN, 0, DATA, 400 * 512, 0), 400 * 512 + 1);
	same(DATA, 0, 400);
	memset(host_ram + DATA, 0x5a, 512);
	assert_int_equal(request(COW, VIRTIO_BLK_T_IN, 400, DATA, 512, 0), 513);
	assert_memory_equal(host_ram + DATA, before + 400 * 512, 100);
	for (u32 i = 100; i < 512; i++)
		assert_int_equal(host_ram[DATA + i], 0);
	memset(host_ram + DATA, 0x5a, 1024);
	assert_int_equal(request(COW, VIRTIO_BLK_T_IN, 400, DATA, 1024, 1), 0);
	assert_int_equal(request(COW, VIRTIO_BLK_T_IN, 401, DATA, 512, 1), 0);
	assert_int_equal(request(COW, VIRTIO_BLK_T_IN, ~0ull, DATA, 512, 1), 0);
	assert_int_equal(request(COW, VIRTIO_BLK_T_IN, 1ull << 55, DATA, 512, 1), 0);
	assert_int_equal(request(COW, VIRTIO_BLK_T_IN, 0, DATA, 511, 1), 0);
	assert_int_equal(host_ram[DATA], 0x5a);
	/* Nothing to read is no error, and the status is the first byte then. */
	assert_int_equal(request(COW, VIRTIO_BLK_T_IN, 401, DATA, 0, 0), 1);
	assert_int_equal(request(COW, VIRTIO_BLK_T_IN, 402, DATA, 0, 1), 1);
	assert_int_equal(frames_used, 0);
}

/* Header, data and status cut anyhow. */
static void test_layout(void **state)
{
	u32 head;

	start(COW, 0);
	put(HEADER, VIRTIO_BLK_T_IN, 8);
	put(HEADER + 8, 9, 8);
	desc(0, 0, HEADER, 3, NEXT, 1);
	desc(0, 1, HEADER + 3, 13, NEXT, 2);
	desc(0, 2, DATA, 1000, NEXT | WRITE, 3);
	desc(0, 3, DATA + 1000, 25, NEXT | WRITE, 4);
	desc(0, 4, DATA, 0, WRITE, 0);
	host_ram[DATA + 1024] = 0xee;
	add(0, 0);
	mmio_write(COW, REG_NOTIFY, 0);
	assert_int_equal(used(0, &head), 1025);
	same(DATA, 9, 2);
	assert_int_equal(host_ram[DATA + 1024], 0);
}

static void test_write(void **state)
{
	start(COW, VIRTIO_BLK_F_WRITE_ZEROES);
	for (u32 i = 0; i < 40 * 512; i++)
		host_ram[DATA + i] = (u8)(i * 13 + i / 256);
	/* Sectors 7 to 46: pages 0 to 5, the first and the last in part. */
	assert_int_equal(request(COW, VIRTIO_BLK_T_OUT, 7, DATA, 40 * 512, 0), 1);
	assert_int_equal(frames_used, 6);
	assert_int_equal(request(COW, VIRTIO_BLK_T_IN, 0, DATA + 0x10000, 60 * 512, 0),
			 60 * 512 + 1);
	same(DATA + 0x10000, 0, 7);
	assert_memory_equal(host_ram + DATA + 0x10000 + 7 * 512, host_ram + DATA, 40 * 512);
	same(DATA + 0x10000 + 47 * 512, 47, 13);
	request(COW, VIRTIO_BLK_T_OUT, 10, DATA, 512, 0);
	assert_int_equal(frames_used, 6);
	request(COW, VIRTIO_BLK_T_OUT, 400, DATA, 1024, 1);
	request(COW, VIRTIO_BLK_T_OUT, 0, DATA, 100, 1);
	assert_int_equal(frames_used, 6);
	request(COW, VIRTIO_BLK_T_OUT, 400, DATA, 512, 0);
	assert_int_equal(frames_used, 7);
	/* The zeroes of sectors 20 to 59. */
	put(DATA, 20, 8);
	put(DATA + 8, 40, 8);
	assert_int_equal(request(COW, VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 16, 0), 1);
	request(COW, VIRTIO_BLK_T_IN, 0, DATA + 0x10000, 61 * 512, 0);
	for (u32 i = 20 * 512; i < 60 * 512; i++)
		assert_int_equal(host_ram[DATA + 0x10000 + i], 0);
	same(DATA + 0x10000 + 60 * 512, 60, 1);
	assert_int_equal(host_ram[DATA + 0x10000 + 19 * 512], (u8)(12 * 512 * 13 + 12 * 2));
	put(DATA, 401, 8);
	request(COW, VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 16, 1);
	put(DATA, 0, 8);
	put(DATA + 12, 2, 4);
	request(COW, VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 16, 2);
	put(DATA + 8, 0x10001, 8);
	request(COW, VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 16, 1);
	request(COW, VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 15, 1);
	request(COW, VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 32, 1);
}

/* A restart of the VM: everything is as in the image again; teardown compares the image. */
static void test_restart(void **state)
{
	start(COW, 0);
	memset(host_ram + DATA, 0x33, 100 * 512);
	request(COW, VIRTIO_BLK_T_OUT, 0, DATA, 100 * 512, 0);
	mmio_write(COW, REG_STATUS, 0);
	start(COW, 0);
	request(COW, VIRTIO_BLK_T_IN, 99, DATA + 0x20000, 512, 0);
	assert_int_equal(host_ram[DATA + 0x20000], 0x33);
	virtio_destroy(&host_vm, v);
	assert_int_equal(frames_used, 0);
	assert_true(host_create());
	v = host_platform.virtio;
	start(COW, 0);
	request(COW, VIRTIO_BLK_T_IN, 0, DATA, 100 * 512, 0);
	same(DATA, 0, 100);
}

static void test_read_only(void **state)
{
	start(ROM, 0);
	assert_int_equal(request(ROM, VIRTIO_BLK_T_OUT, 0, DATA, 512, 1), 1);
	put(DATA, 0, 8);
	put(DATA + 8, 1, 8);
	request(ROM, VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 16, 2);
	request(ROM, VIRTIO_BLK_T_IN, 0, DATA, 512, 0);
	assert_int_equal(frames_used, 0);
}

static void test_other_requests(void **state)
{
	start(COW, 0);
	assert_int_equal(request(COW, VIRTIO_BLK_T_FLUSH, 0, DATA, 0, 0), 1);
	memset(host_ram + DATA, 0x5a, 32);
	assert_int_equal(request(COW, VIRTIO_BLK_T_GET_ID, 0, DATA, 20, 0), 20);
	assert_memory_equal(host_ram + DATA, "root.img\0\0\0\0\0\0\0\0\0\0\0\0\x5a", 21);
	assert_int_equal(request(COW, VIRTIO_BLK_T_GET_ID, 0, DATA, 19, 1), 0);
	assert_int_equal(request(COW, 2, 0, DATA, 512, 2), 1);
	assert_int_equal(request(COW, 11, 0, DATA, 16, 2), 1);
	assert_int_equal(request(COW, 0x80000000, 0, DATA, 512, 2), 1);
	request(COW, VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 16, 2);
}

static void test_no_memory(void **state)
{
	start(COW, 0);
	frames_left = 2;
	memset(host_ram + DATA, 0x44, 32 * 512);
	assert_int_equal(request(COW, VIRTIO_BLK_T_OUT, 0, DATA, 32 * 512, 1), 1);
	request(COW, VIRTIO_BLK_T_OUT, 8, DATA, 512, 0);
	request(COW, VIRTIO_BLK_T_OUT, 16, DATA, 512, 1);
	request(COW, VIRTIO_BLK_T_IN, 16, DATA, 16 * 512, 0);
	same(DATA, 16, 16);
}

/* A write that fails must not show what the page's frame held before. */
static void test_failed_write_leaks_nothing(void **state)
{
	start(COW, 0);
	host_vm.space.override_count = 1;
	protected_page = DATA;
	protected_perms = 0;
	put_request(VIRTIO_BLK_T_OUT, 8, DATA, 4096);
	mmio_write(COW, REG_NOTIFY, 0);
	assert_true(mmio_read(COW, REG_STATUS) & VIRTIO_NEEDS_RESET);
	host_vm.space.override_count = 0;
	start(COW, 0);
	request(COW, VIRTIO_BLK_T_IN, 8, DATA, 4096, 0);
	for (u32 i = 0; i < 4096; i++)
		assert_int_not_equal(host_ram[DATA + i], 0xee);
}

/* --- pieces ----------------------------------------------------------------------------------- */

/* Sixteen reads of 200 KiB: the notification returns early, the rest comes by REQ_DEVICE. */
static void test_pieces(void **state)
{
	u32 bytes = 400 * 512, count = 0, head;

	start(COW, 0);
	for (u32 i = 0; i < SIZE; i++)
		put_request(VIRTIO_BLK_T_IN, 0, DATA, bytes);
	mmio_write(COW, REG_NOTIFY, 0);
	assert_int_equal(get(USED(0) + 2, 2), 0);
	assert_int_equal(host_vcpu.requests, REQ_DEVICE);
	assert_in_range(work(), SIZE * bytes / VIRTIO_PIECE - 1, SIZE * bytes / VIRTIO_PIECE + 3);
	while (used(0, &head) == bytes + 1)
		count++;
	assert_int_equal(count, SIZE);
	same(DATA, 0, 400);
}

/* Requests that move nothing are work as well. */
static void test_many_small(void **state)
{
	start(COW, 0);
	for (u32 i = 0; i < SIZE; i++)
		put_request(VIRTIO_BLK_T_FLUSH, 0, DATA, 0);
	mmio_write(COW, REG_NOTIFY, 0);
	assert_int_equal(host_vcpu.requests, 0);
	assert_int_equal(get(USED(0) + 2, 2), SIZE);
	for (u32 round = 0; round < 100; round++) {
		put(AVAIL(0) + 2, added[0] += SIZE, 2);
		mmio_write(COW, REG_NOTIFY, 0);
		work();
	}
	assert_int_equal(get(USED(0) + 2, 2), SIZE * 101);
}

static void test_reset_in_the_middle(void **state)
{
	start(COW, 0);
	put_request(VIRTIO_BLK_T_IN, 0, DATA, 400 * 512);
	mmio_write(COW, REG_NOTIFY, 0);
	assert_int_equal(host_vcpu.requests, REQ_DEVICE);
	start(COW, 0);
	memset(host_ram + DATA, 0x66, 400 * 512);
	work();
	assert_int_equal(host_ram[DATA + 399 * 512], 0x66);
	assert_int_equal(get(USED(0) + 2, 2), 0);
	request(COW, VIRTIO_BLK_T_IN, 3, DATA, 512, 0);
	same(DATA, 3, 1);
	/* The same by taking the queue back. */
	put_request(VIRTIO_BLK_T_IN, 0, DATA, 400 * 512);
	mmio_write(COW, REG_NOTIFY, 0);
	mmio_write(COW, REG_QUEUE_READY, 0);
	work();
	assert_int_equal(get(USED(0) + 2, 2), 1);
	queue(COW, 0);
	request(COW, VIRTIO_BLK_T_IN, 3, DATA, 512, 0);
	same(DATA, 3, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_identity),
		TEST(test_no_devices),
		TEST(test_features),
		TEST(test_status),
		TEST(test_queue_registers),
		TEST(test_lines),
		TEST(test_broken),
		TEST(test_read),
		TEST(test_layout),
		TEST(test_write),
		TEST(test_restart),
		TEST(test_read_only),
		TEST(test_other_requests),
		TEST(test_no_memory),
		TEST(test_failed_write_leaks_nothing),
		TEST(test_pieces),
		TEST(test_many_small),
		TEST(test_reset_in_the_middle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
