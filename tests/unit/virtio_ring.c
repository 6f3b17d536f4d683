/* Split virtqueues from the device's side: every rule of chapter 2.7 that a driver can break. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "virtio_host.h"

#define DESC	0x10000u
#define AVAIL	0x20002u /* aligned to 2 only */
#define USED	0x30004u /* aligned to 4 only */
#define TABLE	0x40000u
#define DATA	0x50000u
#define SIZE	8u
#define NEXT	1u
#define WRITE	2u
#define INDIR	4u
#define INDEX	(AVAIL + 2)
#define ELEM(i) (USED + 4 + 8 * (i))

static struct virtq q;
static struct virtq_chain chain;
static u16 added;

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

static void desc_at(u64 table, u32 i, u64 at, u32 bytes, u32 flags, u32 next)
{
	put(table + 16 * i, at, 8);
	put(table + 16 * i + 8, bytes, 4);
	put(table + 16 * i + 12, flags, 2);
	put(table + 16 * i + 14, next, 2);
}

static void desc(u32 i, u64 at, u32 bytes, u32 flags, u32 next)
{
	desc_at(DESC, i, at, bytes, flags, next);
}

static void add(u32 head)
{
	put(AVAIL + 4 + 2 * (added % SIZE), head, 2);
	put(INDEX, ++added, 2);
}

static int setup(void **state)
{
	memset(host_ram, 0, sizeof(host_ram));
	q = (struct virtq){.desc = DESC, .driver = AVAIL, .device = USED, .size = SIZE};
	added = 0;
	host_vm.space.override_count = 0;
	return virtq_start(&host_vm, &q);
}

static int pop(void)
{
	memset(&chain, 0xa5, sizeof(chain));
	return virtq_pop(&host_vm, &q, &chain);
}

static void test_start(void **state)
{
	struct {
		struct virtq q;
		bool good;
	} cases[] = {
		{{.desc = DESC, .driver = AVAIL, .device = USED, .size = 1}, true},
		{{.desc = DESC, .driver = AVAIL, .device = USED, .size = 256}, true},
		{{.desc = DESC, .driver = AVAIL, .device = USED, .size = 0}, false},
		{{.desc = DESC, .driver = AVAIL, .device = USED, .size = 6}, false},
		{{.desc = DESC, .driver = AVAIL, .device = USED, .size = 512}, false},
		{{.desc = DESC, .driver = AVAIL, .device = USED, .size = 0x80000000}, false},
		{{.desc = DESC + 8, .driver = AVAIL, .device = USED, .size = 8}, false},
		{{.desc = DESC, .driver = AVAIL + 1, .device = USED, .size = 8}, false},
		{{.desc = DESC, .driver = AVAIL, .device = USED + 2, .size = 8}, false},
		{{.desc = RAM_BYTES - 128, .driver = AVAIL, .device = USED, .size = 8}, true},
		{{.desc = RAM_BYTES - 112, .driver = AVAIL, .device = USED, .size = 8}, false},
		{{.desc = DESC, .driver = RAM_BYTES - 22, .device = USED, .size = 8}, true},
		{{.desc = DESC, .driver = RAM_BYTES - 20, .device = USED, .size = 8}, false},
		/* 70 bytes are needed. */
		{{.desc = DESC, .driver = AVAIL, .device = RAM_BYTES - 72, .size = 8}, true},
		{{.desc = DESC, .driver = AVAIL, .device = RAM_BYTES - 68, .size = 8}, false},
		{{.desc = HIGH_BASE,
		  .driver = HIGH_BASE + 512,
		  .device = HIGH_BASE + 1024,
		  .size = 8},
		 true},
		{{.desc = VIRTIO_BASE, .driver = AVAIL, .device = USED, .size = 8}, false},
		{{.desc = DESC, .driver = AVAIL, .device = ~15ull, .size = 8}, false},
	};

	for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(!virtq_start(&host_vm, &cases[i].q), cases[i].good);
		assert_int_equal(cases[i].q.ready, cases[i].good);
	}
}

static void test_chain(void **state)
{
	struct virtq_cursor at = {0};
	u8 bytes[8];
	gpa_t where;

	assert_int_equal(pop(), 0);
	desc(3, DATA, 5, NEXT, 7);
	desc(7, DATA + 100, 0, NEXT, 1);
	desc(1, HIGH_BASE, 3, NEXT, 0);
	desc(0, DATA + 200, 10, NEXT | WRITE, 2);
	desc(2, DATA + 300, 6, NEXT | WRITE, 4);
	desc(4, DATA + 400, 0, WRITE, 99);
	add(3);
	assert_int_equal(pop(), 1);
	assert_int_equal(chain.head, 3);
	assert_int_equal(chain.count, 6);
	assert_int_equal(chain.readable, 3);
	assert_int_equal(chain.read_bytes, 8);
	assert_int_equal(chain.write_bytes, 16);
	memcpy(host_ram + DATA, "abcde", 5);
	memcpy(host_ram + RAM_BYTES, "fgh", 3);
	assert_int_equal(virtq_read(&host_vm, &chain, &at, bytes, 8), 0);
	assert_memory_equal(bytes, "abcdefgh", 8);
	at = virtq_writable(&chain);
	assert_int_equal(virtq_take(&chain, &at, 4, &where), 4);
	assert_int_equal(where.v, DATA + 200);
	assert_int_equal(virtq_take(&chain, &at, 100, &where), 6);
	assert_int_equal(where.v, DATA + 204);
	assert_int_equal(virtq_take(&chain, &at, 100, &where), 6);
	assert_int_equal(where.v, DATA + 300);
	assert_int_equal(virtq_take(&chain, &at, 100, &where), 0);
	assert_int_equal(virtq_last_writable(&chain).v, DATA + 305);
	at = (struct virtq_cursor){0};
	assert_int_equal(virtq_read(&host_vm, &chain, &at, host_ram + 0x60000, 30), ERR_INVAL);
	assert_int_equal(pop(), 0);
}

static void test_push(void **state)
{
	for (u32 i = 0; i < 70000; i++) {
		desc(i % SIZE, DATA, 16, WRITE, 0);
		add(i % SIZE);
		assert_int_equal(pop(), 1);
		assert_int_equal(chain.head, i % SIZE);
		assert_int_equal(virtq_push(&host_vm, &q, chain.head, i), 0);
		assert_int_equal(get(USED + 2, 2), (u16)(i + 1));
		assert_int_equal(get(ELEM(i % SIZE), 4), i % SIZE);
		assert_int_equal(get(ELEM(i % SIZE) + 4, 4), i);
	}
	assert_int_equal(get(USED, 2), 0);
	assert_int_equal(get(ELEM(SIZE), 4), 0);
}

/* The whole ring may be full. */
static void test_full(void **state)
{
	for (u32 i = 0; i < SIZE; i++)
		desc(i, DATA, 16, WRITE, 0);
	for (u32 i = 0; i < SIZE; i++)
		add(SIZE - 1 - i);
	for (u32 i = 0; i < SIZE; i++) {
		assert_int_equal(pop(), 1);
		assert_int_equal(chain.head, SIZE - 1 - i);
	}
	assert_int_equal(pop(), 0);
	put(INDEX, added + SIZE + 1, 2);
	assert_int_equal(pop(), ERR_INVAL);
	put(INDEX, added - 1, 2);
	assert_int_equal(pop(), ERR_INVAL);
	put(INDEX, added, 2);
	assert_int_equal(pop(), 0);
}

static void refused(int error)
{
	u16 next = q.next;

	add(0);
	assert_int_equal(pop(), error);
	assert_int_equal(q.next, next);
	assert_int_equal(q.used, 0);
}

static void test_bad_chains(void **state)
{
	static const struct {
		u64 at;
		u32 bytes, flags, next;
		int error;
	} cases[] = {
		{DATA, 16, NEXT, 0, ERR_INVAL}, /* follows itself */
		{DATA, 16, NEXT, SIZE, ERR_INVAL},
		{DATA, 16, NEXT, 0xffff, ERR_INVAL},
		{RAM_BYTES, 1, 0, 0, ERR_FAULT},
		{RAM_BYTES - 1, 2, 0, 0, ERR_FAULT},
		{RAM_BYTES - 1, 1, 0, 0, 1},
		{VIRTIO_BASE, 4, WRITE, 0, ERR_FAULT},
		{~0ull, 1, 0, 0, ERR_FAULT},
		{~0ull, 2, WRITE, 0, ERR_FAULT},
		{0ull - 4, 0xffffffff, WRITE, 0, ERR_FAULT},
		{HIGH_BASE + HIGH_BYTES - 16, 17, WRITE, 0, ERR_FAULT},
		{RAM_BYTES, 0, 0, 0, 1},	  /* no bytes, no address */
		{TABLE, 16, INDIR, 0, ERR_INVAL}, /* not negotiated */
		{0, 0xffffffff, 0, 0, ERR_FAULT},
	};

	for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
		setup(NULL);
		desc(0, cases[i].at, cases[i].bytes, cases[i].flags, cases[i].next);
		add(0);
		assert_int_equal(pop(), cases[i].error);
	}
	setup(NULL);
	desc(0, DATA, 16, NEXT | WRITE, 1);
	desc(1, DATA, 16, 0, 0);
	refused(ERR_INVAL); /* readable after writable */
	setup(NULL);
	put(AVAIL + 4, SIZE, 2);
	put(INDEX, 1, 2);
	assert_int_equal(pop(), ERR_INVAL); /* no such head */
}

/* A loop is found when it has become longer than the queue; a chain as long as it is none. */
static void test_longest(void **state)
{
	for (u32 i = 0; i < SIZE; i++)
		desc(i, DATA, 16, i + 1 < SIZE ? NEXT : 0, i + 1);
	add(0);
	assert_int_equal(pop(), 1);
	assert_int_equal(chain.count, SIZE);
	setup(NULL);
	for (u32 i = 0; i < SIZE; i++)
		desc(i, DATA, 16, NEXT, (i + 1) % SIZE);
	refused(ERR_INVAL);
}

/* All lengths together have 32 bits. */
static void test_total_length(void **state)
{
	u64 saved = host_region[0].bytes;

	host_region[0].bytes = 3 * GIB; /* nobody touches it */
	desc(0, 0, 0x80000000, NEXT, 1);
	desc(1, 0, 0x7fffffff, WRITE, 0);
	add(0);
	assert_int_equal(pop(), 1);
	setup(NULL);
	desc(0, 0, 0x80000000, NEXT, 1);
	desc(1, 0, 0x80000000, WRITE, 0);
	refused(ERR_INVAL);
	host_region[0].bytes = saved;
}

static void test_indirect(void **state)
{
	static const struct {
		u64 at;
		u32 bytes, flags;
		int result;
	} cases[] = {
		{TABLE, 3 * 16, INDIR, 1},
		{TABLE, 3 * 16, INDIR | WRITE, 1}, /* the flag is ignored there (2.7.5.3.2) */
		{TABLE, 2 * 16, INDIR, ERR_INVAL}, /* its second one points out of it */
		{TABLE, 3 * 16 + 1, INDIR, ERR_INVAL},
		{TABLE, 0, INDIR, ERR_INVAL},
		{TABLE, 3 * 16, INDIR | NEXT, ERR_INVAL},
		{VIRTIO_BASE, 3 * 16, INDIR, ERR_FAULT},
		{~0ull - 15, 3 * 16, INDIR, ERR_FAULT},
		{TABLE + 3, 3 * 16, INDIR, ERR_FAULT}, /* not aligned: allowed, but garbage here */
	};

	for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
		setup(NULL);
		q.indirect = true;
		desc_at(TABLE, 0, DATA, 16, NEXT, 1);
		desc_at(TABLE, 1, DATA + 16, 32, NEXT | WRITE, 2);
		desc_at(TABLE, 2, DATA + 64, 1, WRITE, 0);
		desc(2, cases[i].at, cases[i].bytes, cases[i].flags, 0);
		add(2);
		if (i == ARRAY_SIZE(cases) - 1)
			assert_true(pop() < 0);
		else
			assert_int_equal(pop(), cases[i].result);
		if (cases[i].result == 1) {
			assert_int_equal(chain.head, 2);
			assert_int_equal(chain.count, 3);
			assert_int_equal(chain.read_bytes, 16);
			assert_int_equal(chain.write_bytes, 33);
		}
	}
	setup(NULL);
	q.indirect = true;
	desc(0, TABLE, 16, INDIR, 0);
	desc_at(TABLE, 0, TABLE, 16, INDIR, 0);
	refused(ERR_INVAL); /* nested */
	setup(NULL);
	q.indirect = true;
	for (u32 i = 0; i <= SIZE; i++)
		desc_at(TABLE, i, DATA, 1, i < SIZE ? NEXT : 0, i + 1);
	desc(0, TABLE, 16 * (SIZE + 1), INDIR, 0);
	refused(ERR_INVAL); /* longer than the queue */
	desc_at(TABLE, SIZE - 1, DATA, 1, 0, 0);
	add(0);
	put(INDEX, added = 1, 2);
	assert_int_equal(pop(), 1);
	assert_int_equal(chain.count, SIZE);
}

/* 2.7.7.1: without event indices the driver's flag decides. */
static void test_interrupt_flag(void **state)
{
	assert_int_equal(virtq_wants_interrupt(&host_vm, &q), 0);
	virtq_push(&host_vm, &q, 0, 0);
	assert_int_equal(virtq_wants_interrupt(&host_vm, &q), 1);
	assert_int_equal(virtq_wants_interrupt(&host_vm, &q), 0);
	put(AVAIL, 1, 2);
	virtq_push(&host_vm, &q, 0, 0);
	assert_int_equal(virtq_wants_interrupt(&host_vm, &q), 0);
	put(AVAIL, 0, 2);
	assert_int_equal(virtq_wants_interrupt(&host_vm, &q), 0);
}

/* 2.7.7.2: an interrupt is due if the element at used_event was among those just used. */
static void test_event_index(void **state)
{
	q.event_idx = true;
	for (u32 start = 0; start < 0x10000; start += 4093) {
		for (u32 count = 0; count <= SIZE; count++) {
			for (u32 event = 0; event < 2 * SIZE; event++) {
				u16 wanted = (u16)(start - SIZE / 2 + event);
				bool due = (u16)(wanted - start) < count;

				q.used = q.signalled = (u16)start;
				for (u32 i = 0; i < count; i++)
					virtq_push(&host_vm, &q, 0, 0);
				put(AVAIL + 4 + 2 * SIZE, wanted, 2);
				assert_int_equal(virtq_wants_interrupt(&host_vm, &q), due);
			}
		}
	}
	/* The flag does not count then. */
	put(AVAIL, 1, 2);
	put(AVAIL + 4 + 2 * SIZE, q.used, 2);
	virtq_push(&host_vm, &q, 0, 0);
	assert_int_equal(virtq_wants_interrupt(&host_vm, &q), 1);
}

/* 2.7.10: where the device stands is told when it has found nothing more. */
static void test_notification_index(void **state)
{
	q.event_idx = true;
	desc(0, DATA, 16, 0, 0);
	put(USED + 4 + 8 * SIZE + 2, 0xbeef, 2);
	for (u32 i = 1; i < 20; i++) {
		add(0);
		assert_int_equal(pop(), 1);
		assert_int_equal(get(USED + 4 + 8 * SIZE, 2), i - 1);
		assert_int_equal(pop(), 0);
		assert_int_equal(get(USED + 4 + 8 * SIZE, 2), i);
	}
	assert_int_equal(get(USED + 4 + 8 * SIZE + 2, 2), 0xbeef);
	q.event_idx = false;
	add(0);
	pop();
	pop();
	assert_int_equal(get(USED + 4 + 8 * SIZE, 2), 19);
}

/* What the VM's view refuses, its devices refuse. */
static void test_protection(void **state)
{
	u8 bytes[16];

	host_vm.space.override_count = 1;
	protected_page = DATA;
	protected_perms = EPT_R;
	assert_int_equal(virtio_dma_read(&host_vm, gpa(DATA), bytes, 16), 0);
	assert_int_equal(virtio_dma_write(&host_vm, gpa(DATA), bytes, 16), ERR_FAULT);
	assert_int_equal(virtio_dma_write(&host_vm, gpa(DATA - 8), bytes, 16), ERR_FAULT);
	assert_int_equal(virtio_dma_write(&host_vm, gpa(DATA - 16), bytes, 16), 0);
	assert_int_equal(virtio_dma_zero(&host_vm, gpa(DATA + 4095), 1), ERR_FAULT);
	assert_int_equal(virtio_dma_write(&host_vm, gpa(DATA + 4096), bytes, 16), 0);
	protected_perms = 0;
	assert_int_equal(virtio_dma_read(&host_vm, gpa(DATA), bytes, 16), ERR_FAULT);
	protected_page = USED & ~4095ull;
	assert_int_equal(virtq_push(&host_vm, &q, 0, 0), ERR_FAULT);
	protected_page = AVAIL & ~4095ull;
	assert_int_equal(pop(), ERR_FAULT);
	protected_page = ~0ull;
	assert_int_equal(host_vm.space.lock.next, host_vm.space.lock.serving);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_start, setup),
		cmocka_unit_test_setup(test_chain, setup),
		cmocka_unit_test_setup(test_push, setup),
		cmocka_unit_test_setup(test_full, setup),
		cmocka_unit_test_setup(test_bad_chains, setup),
		cmocka_unit_test_setup(test_longest, setup),
		cmocka_unit_test_setup(test_total_length, setup),
		cmocka_unit_test_setup(test_indirect, setup),
		cmocka_unit_test_setup(test_interrupt_flag, setup),
		cmocka_unit_test_setup(test_event_index, setup),
		cmocka_unit_test_setup(test_notification_index, setup),
		cmocka_unit_test_setup(test_protection, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
