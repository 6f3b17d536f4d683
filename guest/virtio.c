/*
 * virtio over MMIO as a driver sees it: disks that hold the same file as the first module (slot 0
 * copy-on-write, slot 1 read-only) and a console in slot 4. The devices' answers, their interrupts
 * through the IOAPIC, and what they do with rings that make no sense. Options: rounds=N (of random
 * rings), seed=N; brief: only that everything is as in the image; talk: see there.
 */
#include "apic.h"
#include "ioapic.h"
#include "irq.h"
#include "mem.h"
#include "umbra.h"
#include "virtio.h"
#include "virtio_blk.h"

#define CONSOLE_SLOT 4
#define VECTOR	     0x50

#define INFO_BLOCK 0xeff00 /* what Umbra's AML looks at: magic, CPUs, devices */
#define INFO_MAGIC 0x52424d55

#define BIG (64 * 1024)

static struct vio disk, rom, con;
static const u8 *image; /* the first module */
static u64 image_bytes, sectors;
static u8 *buffer, *other;
static struct rng rng;

/* The disk's content at a byte, as it was at the start. */
static u8 original(u64 at)
{
	return at < image_bytes ? image[at] : 0;
}

static bool same_as_image(const u8 *data, u64 at, u64 bytes)
{
	for (u64 i = 0; i < bytes; i++)
		if (data[i] != original(at + i))
			return false;
	return true;
}

static bool whole_disk_is_original(struct vio *d)
{
	for (u64 s = 0; s < sectors; s += BIG / BLK_SECTOR) {
		u32 bytes = (u32)MIN(sectors - s, BIG / BLK_SECTOR) * BLK_SECTOR;

		if (blk_transfer(d, BLK_IN, s, buffer, bytes, 1) != BLK_OK ||
		    !same_as_image(buffer, s * BLK_SECTOR, bytes))
			return false;
	}
	return true;
}

/* --- discovery and negotiation ----------------------------------------------------------------
 */

static void test_discovery(void)
{
	const u32 *info = (const u32 *)(uintptr_t)INFO_BLOCK;
	struct vio none;
	u32 found = 0;

	tap_is(info[0], INFO_MAGIC, "ACPI's information block");
	for (u32 i = 0; i < VIO_SLOTS; i++)
		found |= vio_find(&none, i) ? BIT(i) : 0;
	tap_is(found, info[2], "devices are where ACPI says");
	tap_ok(vio_find(&disk, 0) && disk.id == VIO_ID_BLK, "slot 0 is a disk");
	tap_ok(vio_find(&rom, 1) && rom.id == VIO_ID_BLK, "slot 1 is a disk");
	tap_ok(vio_find(&con, CONSOLE_SLOT) && con.id == VIO_ID_CONSOLE, "slot 4 is a console");
	tap_ok(!vio_find(&none, 7) && vio_read(&none, 0) == ~0u, "an empty slot reads all ones");
	tap_is(vio_read(&disk, VIO_R_CONFIG) | (u64)vio_read(&disk, VIO_R_CONFIG + 4) << 32,
	       sectors, "capacity in sectors");
	tap_is(*(volatile u8 *)(disk.base + VIO_R_CONFIG + 21), BLK_SECTOR >> 8,
	       "configuration space by bytes");
	tap_is(*(volatile u16 *)(disk.base + VIO_R_MAGIC), 0xffff,
	       "registers are 32 bits wide only");
	tap_is(vio_read(&disk, VIO_R_GENERATION), 0, "generation of the configuration");
}

static void test_negotiation(void)
{
	u64 offered = vio_offered(&disk);

	tap_ok(offered & VIO_F_VERSION_1, "VERSION_1 is offered");
	tap_ok(!(offered & BLK_F_RO) && (vio_offered(&rom) & BLK_F_RO), "RO where it belongs");
	tap_ok(!vio_negotiate(&disk, VIO_F_INDIRECT), "no legacy driver");
	tap_ok(!vio_negotiate(&disk, VIO_F_VERSION_1 | BIT64(40)), "a feature that is not offered");
	tap_ok(vio_negotiate(&disk, offered), "all that are offered");
	vio_write(&disk, VIO_R_STATUS, VIO_S_ACKNOWLEDGE);
	tap_is(vio_status(&disk), VIO_S_ACKNOWLEDGE | VIO_S_DRIVER | VIO_S_FEATURES_OK,
	       "status bits stay until reset");
	vio_write(&disk, VIO_R_STATUS, 0);
	tap_is(vio_status(&disk), 0, "reset");
	vio_write(&disk, VIO_R_STATUS, VIO_S_DRIVER_OK);
	tap_is(vio_status(&disk), 0, "no DRIVER_OK before FEATURES_OK");
}

static bool ready_with(u32 reg, u32 value)
{
	vio_start(&disk, 0, 16);
	vio_write(&disk, VIO_R_READY, 0);
	vio_write(&disk, reg, value);
	vio_write(&disk, VIO_R_READY, 1);
	return vio_read(&disk, VIO_R_READY);
}

static void test_queue_setup(void)
{
	tap_is(vio_read(&disk, VIO_R_QUEUE_MAX), VQ_MAX, "largest queue");
	tap_ok(ready_with(VIO_R_QUEUE_SIZE, 32), "queue of 32");
	tap_ok(!ready_with(VIO_R_QUEUE_SIZE, 0), "queue of 0 is refused");
	tap_ok(!ready_with(VIO_R_QUEUE_SIZE, 24), "queue of 24 is refused");
	tap_ok(!ready_with(VIO_R_QUEUE_SIZE, 512), "queue of 512 is refused");
	tap_ok(!ready_with(VIO_R_DESC, 0x100008), "misaligned descriptors");
	tap_ok(!ready_with(VIO_R_DRIVER, 0x100001), "misaligned available ring");
	tap_ok(!ready_with(VIO_R_DEVICE, 0x100002), "misaligned used ring");
	tap_ok(!ready_with(VIO_R_DESC, (u32)VIO_BASE), "descriptors in device memory");
	tap_ok(!ready_with(VIO_R_DRIVER, (u32)ram_top() - 16), "available ring across RAM's end");
	tap_ok(!ready_with(VIO_R_DEVICE + 4, 0xffffffff), "used ring far outside");
	vio_start(&disk, 0, 16);
	vio_write(&disk, VIO_R_QUEUE, 1);
	tap_is(vio_read(&disk, VIO_R_QUEUE_MAX), 0, "a disk has one queue");
	vio_write(&disk, VIO_R_NOTIFY, 77);
	tap_ok(whole_disk_is_original(&disk), "notifying no queue does nothing");
}

/* --- the disk ---------------------------------------------------------------------------------
 */

static void test_reading(void)
{
	u64 last = sectors - 1, start;

	tap_ok(vio_start(&disk, 0, 64), "the driver is ready");
	tap_ok(whole_disk_is_original(&disk), "content of the disk");
	tap_is(blk_transfer(&disk, BLK_IN, 3, buffer, BLK_SECTOR, 1), BLK_OK, "one sector");
	tap_is(blk_written, BLK_SECTOR + 1, "used length of a read");
	start = rdtsc();
	for (u32 i = 0; i < 16; i++)
		vio_notify(&disk, 0);
	tap_note("an empty notification takes %lu ticks", (rdtsc() - start) / 16);
	start = rdtsc();
	for (u32 i = 0; i < 16; i++)
		blk_transfer(&disk, BLK_IN, i, buffer, BLK_SECTOR, 1);
	tap_note("a sector takes %lu ticks", (rdtsc() - start) / 16);
	start = rdtsc();
	blk_transfer(&disk, BLK_IN, 0, buffer, BIG, 1);
	tap_note("64 KiB take %lu ticks", rdtsc() - start);
	tap_is(blk_transfer(&disk, BLK_IN, 5, buffer, 21 * BLK_SECTOR, 13), BLK_OK, "in 13 pieces");
	tap_ok(same_as_image(buffer, 5 * BLK_SECTOR, 21 * BLK_SECTOR), "content in pieces");
	tap_is(blk_transfer(&disk, BLK_IN, last, buffer, BLK_SECTOR, 1), BLK_OK, "last sector");
	tap_ok(same_as_image(buffer, last * BLK_SECTOR, BLK_SECTOR), "zeroes after the file's end");
	memset(buffer, 0x5a, BLK_SECTOR);
	tap_is(blk_transfer(&disk, BLK_IN, last, buffer, 2 * BLK_SECTOR, 1), BLK_IOERR,
	       "beyond the end");
	tap_is(blk_transfer(&disk, BLK_IN, ~0ull, buffer, BLK_SECTOR, 1), BLK_IOERR,
	       "sector that wraps");
	tap_is(blk_transfer(&disk, BLK_IN, 0, buffer, BLK_SECTOR - 1, 1), BLK_IOERR,
	       "part of a sector");
	tap_ok(buffer[0] == 0x5a && buffer[BLK_SECTOR - 1] == 0x5a && blk_written == 0,
	       "a refused read writes nothing");
	tap_is(blk_transfer(&disk, BLK_FLUSH, 0, buffer, 0, 1), BLK_OK, "flush");
	tap_is(blk_written, 1, "used length of a flush");
	memset(buffer, 0x5a, 32);
	tap_is(blk_transfer(&disk, BLK_GET_ID, 0, buffer, 20, 1), BLK_OK, "name");
	tap_ok(buffer[0] && buffer[0] != 0x5a && buffer[20] == 0x5a, "name: \"%.20s\"", buffer);
	tap_is(blk_transfer(&disk, 99, 0, buffer, BLK_SECTOR, 1), BLK_UNSUPP,
	       "a request that is none");
	tap_is(blk_transfer(&disk, BLK_ZEROES, 0, buffer, 16, 1), BLK_UNSUPP,
	       "a feature not accepted");
}

static void test_writing(void)
{
	bool untouched;

	vio_start(&disk, VIO_F_INDIRECT | BLK_F_ZEROES, 64);
	for (u32 i = 0; i < BIG; i++)
		other[i] = (u8)(i * 7 + i / 251);
	tap_is(blk_transfer(&disk, BLK_OUT, 7, other, 19 * BLK_SECTOR, 3), BLK_OK, "write");
	tap_is(blk_written, 1, "used length of a write");
	memset(buffer, 0, BIG);
	tap_is(blk_transfer(&disk, BLK_IN, 4, buffer, 25 * BLK_SECTOR, 2), BLK_OK,
	       "read around it");
	tap_ok(!memcmp(buffer + 3 * BLK_SECTOR, other, 19 * BLK_SECTOR), "what was written");
	untouched = same_as_image(buffer, 4 * BLK_SECTOR, 3 * BLK_SECTOR) &&
		    same_as_image(buffer + 22 * BLK_SECTOR, 26 * BLK_SECTOR, 3 * BLK_SECTOR);
	tap_ok(untouched, "its neighbours");
	tap_is(blk_transfer(&disk, BLK_OUT, sectors - 1, other, 2 * BLK_SECTOR, 1), BLK_IOERR,
	       "write beyond the end");
	tap_is(blk_transfer(&disk, BLK_OUT, 2, other, 100, 1), BLK_IOERR,
	       "write of part of a sector");
	*(u64 *)(void *)buffer = 9;
	*(u64 *)(void *)(buffer + 8) = 10;
	tap_is(blk_transfer(&disk, BLK_ZEROES, 0, buffer, 16, 1), BLK_OK, "write zeroes");
	blk_transfer(&disk, BLK_IN, 7, buffer, 19 * BLK_SECTOR, 1);
	memset(other + 2 * BLK_SECTOR, 0, 10 * BLK_SECTOR);
	tap_ok(!memcmp(buffer, other, 19 * BLK_SECTOR), "zeroes were written");
	*(u64 *)(void *)buffer = sectors - 1;
	*(u64 *)(void *)(buffer + 8) = 10;
	tap_is(blk_transfer(&disk, BLK_ZEROES, 0, buffer, 16, 1), BLK_IOERR,
	       "zeroes beyond the end");
	vio_start(&disk, 0, 16);
	blk_transfer(&disk, BLK_IN, 7, buffer, 19 * BLK_SECTOR, 1);
	tap_ok(!memcmp(buffer, other, 19 * BLK_SECTOR), "a reset of the device keeps the data");
}

static void test_read_only(void)
{
	tap_ok(vio_start(&rom, 0, 16), "the read-only disk is ready");
	tap_is(blk_transfer(&rom, BLK_OUT, 0, other, BLK_SECTOR, 1), BLK_IOERR,
	       "a write is refused");
	tap_ok(whole_disk_is_original(&rom), "its content; the other disk's writes are not there");
}

static void test_indirect(void)
{
	struct vq *q = &disk.queue[0];
	struct vq table = {.desc = page_alloc()};

	vio_start(&disk, VIO_F_INDIRECT, 64);
	blk_request(&table, BLK_IN, 30, buffer, 20 * BLK_SECTOR, 20);
	vq_desc(q, 0, table.desc, 22 * 16, VQ_INDIRECT, 0);
	vq_add(q, 0);
	tap_is(blk_finish(&disk), BLK_OK, "an indirect table of 22");
	tap_is(blk_written, 20 * BLK_SECTOR + 1, "its used length");
	tap_ok(same_as_image(buffer, 30 * BLK_SECTOR, 20 * BLK_SECTOR), "its data");
	/* The last of a chain may be indirect. */
	blk_request(&table, BLK_IN, 30, buffer, BLK_SECTOR, 1);
	vq_desc(q, 0, blk_header, sizeof(*blk_header), VQ_NEXT, 5);
	vq_desc(q, 5, table.desc + 1, 2 * 16, VQ_INDIRECT, 0);
	table.desc[1].next = 1;
	vq_add(q, 0);
	tap_is(blk_finish(&disk), BLK_OK, "a table at a chain's end");
}

/* More than one piece of work at once. */
static void test_many(void)
{
	struct vq *q = &disk.queue[0];
	u32 head, written, done = 0, each = (u32)MIN(sectors, BIG / BLK_SECTOR) * BLK_SECTOR;

	vio_start(&disk, 0, 64);
	blk_request(q, BLK_IN, 0, buffer, each, 1);
	memset(buffer, 0, each);
	for (u32 i = 0; i < 64; i++)
		vq_add(q, 0);
	vio_notify(&disk, 0);
	while (vq_used(q, &head, &written))
		done += head == 0 && written == each + 1;
	tap_is(done, 64, "64 reads of %u KiB by one notification", each / 1024);
	blk_transfer(&disk, BLK_IN, 100, buffer, 20 * BLK_SECTOR, 1);
	tap_ok(same_as_image(buffer, 100 * BLK_SECTOR, 20 * BLK_SECTOR),
	       "and the next request works");
}

/* --- interrupts -------------------------------------------------------------------------------
 */

static u32 expected_hits;

/* The device's interrupt is level-triggered: it is acknowledged at the device first. */
static bool take(struct frame *f)
{
	u32 isr = vio_read(&disk, VIO_R_ISR);

	irq_logs[0].hits[VECTOR]++;
	vio_write(&disk, VIO_R_ACK, isr);
	lapic_eoi();
	return true;
}

static void expect_hits(u32 more, const char *what)
{
	asm volatile("sti");
	for (u32 i = 0; i < 2000 && irq_hits(VECTOR) < expected_hits + more; i++)
		cpu_pause();
	asm volatile("nop; cli");
	tap_is(irq_hits(VECTOR) - expected_hits, more, "%s", what);
	expected_hits = irq_hits(VECTOR);
}

static void read_silently(u32 times)
{
	struct vq *q = &disk.queue[0];
	u32 head, written;

	blk_request(q, BLK_IN, 1, buffer, BLK_SECTOR, 1);
	while (times--)
		vq_add(q, 0);
	vio_notify(&disk, 0);
	while (vq_used(q, &head, &written))
		;
}

static void test_interrupts(void)
{
	struct vq *q = &disk.queue[0];

	pic_mask_all();
	lapic_enable();
	trap_set_handler(VECTOR, take);
	vio_start(&disk, 0, 16);
	ioapic_set(disk.pin, VECTOR | IOAPIC_LEVEL);
	read_silently(1);
	tap_is(vio_read(&disk, VIO_R_ISR), VIO_ISR_QUEUE, "interrupt status after a request");
	expect_hits(1, "one interrupt");
	tap_is(vio_read(&disk, VIO_R_ISR), 0, "acknowledged");
	tap_ok(!(ioapic_get(disk.pin) & IOAPIC_REMOTE_IRR), "and ended");
	read_silently(5);
	expect_hits(1, "one for five requests at once");
	q->avail[0] = 1;
	read_silently(1);
	expect_hits(0, "none if the driver says so");
	tap_is(vio_read(&disk, VIO_R_ISR), 0, "and no interrupt status");
	q->avail[0] = 0;

	vio_start(&disk, VIO_F_EVENT_IDX, 16);
	*vq_used_event(q) = 0;
	read_silently(1);
	expect_hits(1, "event index: the first");
	tap_is(vq_avail_event(q), 1, "the device asks to hear of the next");
	read_silently(1);
	expect_hits(0, "event index: not before it is due");
	*vq_used_event(q) = 4;
	read_silently(2);
	expect_hits(0, "event index: still not");
	read_silently(1);
	expect_hits(1, "event index: now");
	*vq_used_event(q) = 7;
	read_silently(6);
	expect_hits(1, "event index: in the middle of several");
	*vq_used_event(q) = 200;
	for (u32 i = 0; i < 33; i++)
		read_silently(1);
	expect_hits(0, "event index: the ring goes round");
	read_silently(1);
	vio_write(&disk, VIO_R_STATUS, 0);
	tap_is(vio_read(&disk, VIO_R_ISR), 0, "a reset takes the interrupt back");
	ioapic_mask(disk.pin);
}

/* --- rings that make no sense -----------------------------------------------------------------
 */

#define HOLE ((const void *)(uintptr_t)0xe0000000)

/* A valid request of 64 sectors is in descriptors 0 to 3; the cases break it. */
static void bad_loop(struct vq *q)
{
	vq_desc(q, 2, buffer, BLK_SECTOR, VQ_WRITE | VQ_NEXT, 2);
}

static void bad_long_loop(struct vq *q)
{
	vq_desc(q, 3, buffer, BLK_SECTOR, VQ_WRITE | VQ_NEXT, 1);
}

static void bad_next(struct vq *q)
{
	q->desc[1].next = (u16)q->size;
}

static void bad_hole(struct vq *q)
{
	vq_desc(q, 1, HOLE, BLK_SECTOR, VQ_WRITE | VQ_NEXT, 2);
}

static void bad_end(struct vq *q)
{
	vq_desc(q, 1, (const void *)(uintptr_t)(ram_top() - BLK_SECTOR), 2 * BLK_SECTOR,
		VQ_WRITE | VQ_NEXT, 2);
}

static void bad_wrap(struct vq *q)
{
	vq_desc(q, 1, (const void *)(uintptr_t)(0 - 256ull), BLK_SECTOR, VQ_WRITE | VQ_NEXT, 2);
}

static void bad_length(struct vq *q)
{
	q->desc[1].bytes = 0xffffffff;
}

static void bad_self(struct vq *q)
{
	vq_desc(q, 1, (const void *)(uintptr_t)VIO_BASE, BLK_SECTOR, VQ_WRITE | VQ_NEXT, 2);
}

static void bad_order(struct vq *q)
{
	q->desc[0].flags |= VQ_WRITE;
	q->desc[1].flags &= (u16)~VQ_WRITE;
}

static void bad_header(struct vq *q)
{
	q->desc[0].bytes = 15;
}

static void bad_no_status(struct vq *q)
{
	vq_desc(q, 0, blk_header, sizeof(*blk_header), 0, 0);
}

static void bad_status(struct vq *q)
{
	q->desc[3].at = (uintptr_t)HOLE;
}

static void bad_head(struct vq *q)
{
	q->avail[2 + (q->added & (q->size - 1))] = (u16)q->size;
	q->avail[1] = ++q->added;
}

static void bad_index(struct vq *q)
{
	q->avail[1] = q->added += (u16)(q->size + 1);
}

static void bad_index_back(struct vq *q)
{
	q->avail[1] = q->added -= 1;
}

static void bad_indirect(struct vq *q)
{
	vq_desc(q, 0, other, 4 * 16, VQ_INDIRECT | VQ_NEXT, 1);
}

static void bad_indirect_length(struct vq *q)
{
	vq_desc(q, 0, other, 4 * 16 + 1, VQ_INDIRECT, 0);
}

static void bad_indirect_empty(struct vq *q)
{
	vq_desc(q, 0, other, 0, VQ_INDIRECT, 0);
}

static void bad_indirect_nested(struct vq *q)
{
	struct vq table = {.desc = (struct vq_desc *)(void *)other};

	vq_desc(&table, 0, other, 16, VQ_INDIRECT, 0);
	vq_desc(q, 0, other, 16, VQ_INDIRECT, 0);
}

static void bad_indirect_long(struct vq *q)
{
	struct vq table = {.desc = (struct vq_desc *)(void *)other};

	for (u32 i = 0; i < 100; i++)
		vq_desc(&table, i, blk_header, 16, VQ_NEXT, i + 1);
	vq_desc(q, 0, other, 100 * 16, VQ_INDIRECT, 0);
}

static void bad_indirect_hole(struct vq *q)
{
	vq_desc(q, 0, HOLE, 4 * 16, VQ_INDIRECT, 0);
}

static const struct {
	const char *what;
	void (*spoil)(struct vq *q);
	bool adds; /* it has moved the index itself */
} bad[] = {
	{"a descriptor that follows itself", bad_loop, false},
	{"a loop of three", bad_long_loop, false},
	{"a next one outside the table", bad_next, false},
	{"a buffer where nothing is", bad_hole, false},
	{"a buffer across RAM's end", bad_end, false},
	{"a buffer across the end of addresses", bad_wrap, false},
	{"a buffer of 4 GiB", bad_length, false},
	{"a buffer in the device's registers", bad_self, false},
	{"writable before readable", bad_order, false},
	{"a header too short", bad_header, false},
	{"no room for a status", bad_no_status, false},
	{"a status where nothing is", bad_status, false},
	{"a head outside the table", bad_head, true},
	{"an index that jumps ahead", bad_index, true},
	{"an index that goes back", bad_index_back, true},
	{"indirect with a next one", bad_indirect, false},
	{"an indirect table of 4.06", bad_indirect_length, false},
	{"an indirect table of none", bad_indirect_empty, false},
	{"an indirect table within one", bad_indirect_nested, false},
	{"an indirect table longer than the queue", bad_indirect_long, false},
	{"an indirect table where nothing is", bad_indirect_hole, false},
};

static bool works_after_reset(void)
{
	return vio_start(&disk, 0, 16) &&
	       blk_transfer(&disk, BLK_IN, 40, buffer, BLK_SECTOR, 1) == BLK_OK &&
	       same_as_image(buffer, 40 * BLK_SECTOR, BLK_SECTOR);
}

static void test_bad_rings(void)
{
	struct vq *q = &disk.queue[0];

	for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
		vio_start(&disk, VIO_F_INDIRECT, 16);
		blk_request(q, BLK_IN, 0, buffer, 64 * BLK_SECTOR, 2);
		bad[i].spoil(q);
		if (!bad[i].adds)
			vq_add(q, 0);
		vio_notify(&disk, 0);
		tap_ok((vio_status(&disk) & VIO_S_NEEDS_RESET) && q->used[1] == 0 &&
			       vio_read(&disk, VIO_R_ISR) == VIO_ISR_CONFIG,
		       "%s: the device asks for a reset", bad[i].what);
		vio_notify(&disk, 0);
		if (q->used[1] || !works_after_reset())
			tap_ok(false, "%s: quiet until the reset, works after it", bad[i].what);
	}
	vio_start(&disk, 0, 16);
	blk_request(q, BLK_IN, 0, buffer, BLK_SECTOR, 1);
	vq_desc(q, 5, (void *)(uintptr_t)q->desc, 3 * 16, VQ_INDIRECT, 0);
	vq_add(q, 5);
	vio_notify(&disk, 0);
	tap_ok(vio_status(&disk) & VIO_S_NEEDS_RESET, "indirect without having accepted it");
	tap_ok(works_after_reset(), "and the disk works after a reset");
}

/* What the VM has protected a device does not write to, nor read. */
static void test_protection(void)
{
	u8 *page = page_alloc();

	memset(page, 0x77, PAGE_SIZE);
	vio_start(&disk, 0, 16);
	hypercall(HC_PROTECT, (uintptr_t)page, PAGE_SIZE, HC_PERM_R, 0);
	tap_is(blk_transfer(&disk, BLK_IN, 0, page, BLK_SECTOR, 1), BLK_NONE,
	       "read into a protected page");
	tap_ok(vio_status(&disk) & VIO_S_NEEDS_RESET, "stops the device");
	tap_ok(page[0] == 0x77 && page[BLK_SECTOR - 1] == 0x77, "the page is as it was");
	hypercall(HC_PROTECT, (uintptr_t)page, PAGE_SIZE, HC_PERM_R | HC_PERM_W | HC_PERM_X, 0);
	tap_ok(works_after_reset(), "the disk works again");
}

/* Random bytes everywhere; whatever happens, a reset mends it. */
static void test_random_rings(void)
{
	u64 rounds = opt_u64("rounds", 60), stopped = 0;
	struct vq *q = &disk.queue[0];
	bool alive = true;

	for (u64 round = 0; round < rounds && alive; round++) {
		vio_start(&disk, rng_next(&rng) & (VIO_F_INDIRECT | VIO_F_EVENT_IDX), 16);
		for (u32 i = 0; i < 16; i++) {
			/* The rings themselves, data, and now and then anything. */
			u64 at = rng_below(&rng, 3) ? (uintptr_t)buffer : (uintptr_t)q->desc;

			if (!rng_below(&rng, 20))
				at = rng_next(&rng);
			vq_desc(q, i, (const void *)(uintptr_t)(at & ~15ull),
				(u32)rng_below(&rng, 5) * 16 +
					(rng_below(&rng, 9) ? 0 : (u32)rng_next(&rng)),
				rng_below(&rng, 30) ? (u32)rng_below(&rng, 4) : 7,
				(u32)rng_below(&rng, 17));
		}
		for (u32 i = 0; i < 8; i++)
			vq_add(q, (u32)rng_below(&rng, 16));
		if (!rng_below(&rng, 8))
			q->avail[1] = (u16)rng_next(&rng);
		vio_notify(&disk, (u32)rng_below(&rng, 2));
		stopped += !!(vio_status(&disk) & VIO_S_NEEDS_RESET);
		if (round % 8 == 0) {
			memset(buffer, 0, BIG);
			alive = vio_start(&disk, 0, 16) &&
				blk_transfer(&disk, BLK_IN, sectors - 1, buffer, BLK_SECTOR, 1) ==
					BLK_OK;
		}
	}
	tap_ok(alive, "%lu random rings, %lu stopped the device", rounds, stopped);
}

/* --- the console ------------------------------------------------------------------------------
 */

static void test_console(void)
{
	static const char text[] = "# said by way of virtio\n";
	struct vq *rx = &con.queue[0], *tx = &con.queue[1];
	u32 head, written;

	tap_ok(vio_start(&con, 0, 16), "the console is ready");
	vq_desc(rx, 0, buffer, 64, VQ_WRITE, 0);
	vq_add(rx, 0);
	vio_notify(&con, 0);
	vq_desc(tx, 3, text, 10, VQ_NEXT, 4);
	vq_desc(tx, 4, text + 10, sizeof(text) - 1 - 10, 0, 0);
	vq_add(tx, 3);
	vio_notify(&con, 1);
	tap_ok(vq_used(tx, &head, &written) && head == 3 && written == 0, "output is used up");
	tap_is(vio_read(&con, VIO_R_ISR), VIO_ISR_QUEUE, "and says so");
	tap_ok(!vq_used(rx, &head, &written), "no input without typing");
	for (const char *s = "# and by its emergency register\n"; *s; s++)
		vio_write(&con, VIO_R_CONFIG + 8, (u8)*s);
	vq_desc(rx, 1, buffer, 64, 0, 0);
	vq_add(rx, 1);
	vq_desc(tx, 0, HOLE, 64, 0, 0);
	vq_add(tx, 0);
	vio_notify(&con, 1);
	tap_ok(vio_status(&con) & VIO_S_NEEDS_RESET, "output from nowhere stops it");
	tap_ok(vio_start(&con, 0, 16), "and it comes back");
	vio_write(&con, VIO_R_STATUS, 0); /* input is the UART's again */
}

/*
 * For tests/boot/test_virtio.py, which types: says whether the disk is as in the image, writes to
 * it, and answers what it hears on the virtio console, asleep in between. "reset" resets the
 * machine, "end" ends it.
 */
static volatile bool heard;

static bool take_console(struct frame *f)
{
	vio_write(&con, VIO_R_ACK, vio_read(&con, VIO_R_ISR));
	heard = true;
	lapic_eoi();
	return true;
}

static void say(const char *text)
{
	struct vq *tx = &con.queue[1];
	u32 head, written;

	vq_desc(tx, 0, text, (u32)strlen(text), 0, 0);
	vq_add(tx, 0);
	vio_notify(&con, 1);
	while (!vq_used(tx, &head, &written))
		cpu_pause();
}

/* A line without its end. */
static void listen(char *line, u32 room)
{
	struct vq *rx = &con.queue[0];
	u32 head, written, length = 0;

	for (;;) {
		/* Interrupts open only while asleep: none is missed. */
		asm volatile("cli");
		if (!vq_used(rx, &head, &written)) {
			asm volatile("sti; hlt; cli");
			continue;
		}
		for (u32 i = 0; i < written; i++) {
			if (buffer[i] == '\r' || buffer[i] == '\n') {
				line[length] = '\0';
				vq_add(rx, 0);
				return;
			}
			if (length + 1 < room)
				line[length++] = (char)buffer[i];
		}
		vq_add(rx, 0);
	}
}

static void talk(void)
{
	char line[64], text[100];
	bool same;

	same = vio_find(&disk, 0) && vio_start(&disk, 0, 16) && whole_disk_is_original(&disk);
	memset(buffer, 0x99, BLK_SECTOR);
	printf("disk: %s\n", same ? "as in the image" : "changed");
	printf("write: %u\n", blk_transfer(&disk, BLK_OUT, 5, buffer, BLK_SECTOR, 1));
	vio_find(&con, CONSOLE_SLOT);
	vio_start(&con, 0, 16);
	pic_mask_all();
	lapic_enable();
	trap_set_handler(VECTOR + 1, take_console);
	ioapic_set(con.pin, (VECTOR + 1) | IOAPIC_LEVEL);
	vq_desc(&con.queue[0], 0, buffer, 8, VQ_WRITE, 0);
	vq_add(&con.queue[0], 0);
	vio_notify(&con, 0);
	for (;;) {
		say("console: listening\n");
		listen(line, sizeof(line));
		snprintf(text, sizeof(text), "console: heard %s\n", line);
		say(text);
		if (!strcmp(line, "reset"))
			outb(0xcf9, 6);
		else if (!strcmp(line, "end"))
			guest_exit(heard ? 0 : 1);
	}
}

void guest_main(void)
{
	if (!vio_find(&disk, 0)) {
		if (umbra_present())
			tap_ok(false, "there is a virtio device");
		else
			tap_skip("no virtio-mmio devices on this machine");
		return;
	}
	if (!boot.module_count)
		tap_bail("no module with the disk's content");
	image = (const u8 *)(uintptr_t)boot.module[0].base;
	image_bytes = boot.module[0].bytes;
	sectors = (image_bytes + BLK_SECTOR - 1) / BLK_SECTOR;
	rng_seed(&rng, opt_u64("seed", 1));
	buffer = mem_alloc(BIG + PAGE_SIZE, PAGE_SIZE);
	other = mem_alloc(BIG + PAGE_SIZE, PAGE_SIZE);
	blk_init();
	if (opt_flag("talk"))
		talk();
	test_discovery();
	test_negotiation();
	test_queue_setup();
	test_reading();
	if (opt_flag("brief"))
		return;
	test_writing();
	test_read_only();
	test_indirect();
	test_many();
	test_interrupts();
	test_bad_rings();
	test_protection();
	test_random_rings();
	test_console();
}
