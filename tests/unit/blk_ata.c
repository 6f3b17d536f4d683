/*
 * hv/blk/ata.c and disk.c on a device that behaves as ATA/ATAPI-7 says: commands, addresses of 28
 * and 48 bits, and everything that can be missing or fail.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "blk/disk.h"
#include "lib/log.h"
#include "x86/tsc.h"

#define KEPT 64 /* sectors with content: the lowest, and those from BIG on */
#define BIG  ((1ull << 28) - 8)

enum kind {
	NOTHING, /* no channel: the bus floats */
	ABSENT,	 /* a channel, no such device */
	DISK,
	CDROM,
};

enum {
	BSY = 0x80,
	DRDY = 0x40,
	DF = 0x20,
	DRQ = 0x08,
	ERR = 0x01
};

static struct {
	enum kind kind[2];
	u64 sectors;
	bool lba48, flush28, flush48, big_sectors;
	u8 content[2 * KEPT][512];
	/* registers */
	u8 device, control, status, error, count[2], low[2], mid[2],
		high[2]; /* [1]: written before */
	u32 busy;	 /* reads of the status for which it is busy */
	u8 buffer[512];
	u64 lba;
	u32 left; /* sectors of the command under way */
	bool writing, ext;
	/* faults */
	u64 bad;    /* a sector that fails; ~0: none */
	bool stuck; /* busy for ever after a command */
	u32 flushes, commands[256];
} dev;
static u64 now;
static char logged[4096];
u64 tsc_hz = 1000000;

u64 fake_rdtsc(void)
{
	return now += 5000; /* 5 ms for each look */
}

void log_print(enum log_level level, const char *fmt, ...)
{
	size_t at = strlen(logged);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(logged + at, sizeof(logged) - at, fmt, ap);
	va_end(ap);
}

static u32 selected(void)
{
	return dev.device >> 4 & 1;
}

static u8 *sector(u64 lba)
{
	assert_true(lba < KEPT || (lba >= BIG && lba < BIG + KEPT));
	return dev.content[lba < KEPT ? lba : KEPT + (lba - BIG)];
}

static void give_up(u8 status, u8 error)
{
	dev.status = status | DRDY;
	dev.error = error;
	dev.left = 0;
}

static void identify(void)
{
	u16 id[256] = {0};
	const char *model = "oMed lof retts s"; /* bytes of each word swapped */

	if (dev.kind[selected()] == CDROM) {
		dev.mid[0] = 0x14;
		dev.high[0] = 0xeb;
		give_up(ERR, 4);
		return;
	}
	memcpy(&id[27], model, 16);
	id[49] = 1 << 9;
	id[60] = (u16)(dev.sectors < BIG + 8 ? dev.sectors : 0xffff);
	id[61] = (u16)(dev.sectors < BIG + 8 ? dev.sectors >> 16 : 0xfff);
	id[83] = (u16)(0x4000 | dev.lba48 << 10 | dev.flush28 << 12 | dev.flush48 << 13);
	if (dev.lba48)
		memcpy(&id[100], &dev.sectors, 8);
	id[106] = dev.big_sectors ? 0x5000 : 0;
	memcpy(dev.buffer, id, 512);
	dev.left = 0;
	dev.status = DRDY | DRQ;
}

static void next_sector(void)
{
	if (!dev.left) {
		dev.status = DRDY;
	} else if (dev.lba == dev.bad) {
		give_up(ERR, 0x40);
	} else if (dev.lba >= dev.sectors) {
		give_up(ERR, 0x10);
	} else {
		if (!dev.writing)
			memcpy(dev.buffer, sector(dev.lba), 512);
		dev.status = DRDY | DRQ;
	}
	dev.busy = 3;
}

static void transfer(bool writing, bool ext)
{
	u32 count = dev.count[0] | (ext ? dev.count[1] << 8 : 0);

	assert_true(dev.device & 0x40); /* LBA */
	assert_true(!ext || dev.lba48);
	dev.lba = dev.low[0] | (u64)dev.mid[0] << 8 | (u64)dev.high[0] << 16;
	if (ext)
		dev.lba |= (u64)dev.low[1] << 24 | (u64)dev.mid[1] << 32 | (u64)dev.high[1] << 40;
	else
		dev.lba |= (u64)(dev.device & 15) << 24;
	dev.left = count ? count : ext ? 65536 : 256;
	dev.writing = writing;
	next_sector();
}

static void command(u8 code)
{
	assert_false(dev.status & (BSY | DRQ));
	assert_true(dev.control & 2); /* no interrupts */
	dev.commands[code]++;
	dev.busy = 5;
	dev.error = 0;
	switch (code) {
	case 0xec:
		identify();
		break;
	case 0x20:
	case 0x24:
		transfer(false, code == 0x24);
		break;
	case 0x30:
	case 0x34:
		transfer(true, code == 0x34);
		break;
	case 0xe7:
	case 0xea:
		assert_true(code == 0xe7 ? dev.flush28 : dev.flush48);
		dev.flushes++;
		dev.status = DRDY;
		break;
	default:
		give_up(ERR, 4);
	}
	if (dev.stuck && code != 0xec)
		dev.busy = ~0u;
}

u8 fake_inb(u16 port)
{
	enum kind kind = dev.kind[selected()];

	if (dev.kind[0] == NOTHING)
		return 0xff;
	if (kind == ABSENT)
		return 0;
	switch (port) {
	case 0x1f7:
	case 0x3f6:
		if (dev.busy) {
			dev.busy -= dev.busy != ~0u;
			return BSY | 0x55; /* nothing else means anything then */
		}
		return dev.status;
	case 0x1f1:
		return dev.error;
	case 0x1f4:
		return dev.mid[0];
	case 0x1f5:
		return dev.high[0];
	}
	assert_true(false);
	return 0;
}

static void shift(u8 reg[2], u8 value)
{
	reg[1] = reg[0];
	reg[0] = value;
}

void fake_outb(u16 port, u8 value)
{
	switch (port) {
	case 0x1f2:
		shift(dev.count, value);
		break;
	case 0x1f3:
		shift(dev.low, value);
		break;
	case 0x1f4:
		shift(dev.mid, value);
		break;
	case 0x1f5:
		shift(dev.high, value);
		break;
	case 0x1f6:
		dev.device = value;
		break;
	case 0x1f7:
		if (dev.kind[selected()] == DISK || dev.kind[selected()] == CDROM)
			command(value);
		break;
	case 0x3f6:
		dev.control = value;
		break;
	default:
		assert_true(false);
	}
}

void fake_insw(u16 port, void *to, size_t words)
{
	assert_true(port == 0x1f0 && words == 256 && !dev.busy && (dev.status & DRQ));
	memcpy(to, dev.buffer, 512);
	if (dev.left) {
		dev.left--;
		dev.lba++;
	}
	next_sector();
}

void fake_outsw(u16 port, const void *from, size_t words)
{
	assert_true(port == 0x1f0 && words == 256 && !dev.busy && (dev.status & DRQ) &&
		    dev.writing);
	memcpy(sector(dev.lba), from, 512);
	dev.left--;
	dev.lba++;
	next_sector();
}

/* --- tests --------------------------------------------------------------------------------------
 */

static void plug(enum kind first, enum kind second)
{
	memset(&dev, 0, sizeof(dev));
	logged[0] = 0;
	dev.kind[0] = first;
	dev.kind[1] = second;
	dev.status = DRDY;
	dev.sectors = 1ull << 29;
	dev.lba48 = dev.flush28 = dev.flush48 = true;
	dev.bad = ~0ull;
	for (u32 i = 0; i < 2 * KEPT; i++)
		memset(dev.content[i], (int)i + 1, 512);
}

static void test_found(void **state)
{
	plug(DISK, ABSENT);
	assert_int_equal(disk_init(), 0);
	assert_int_equal(disk_sectors(), 1ull << 29);
	assert_non_null(strstr(logged, "Model for tests, 262144 MiB, device 0"));
	plug(ABSENT, DISK);
	assert_int_equal(disk_init(), 0);
	assert_non_null(strstr(logged, "device 1"));
	plug(CDROM, DISK);
	assert_int_equal(disk_init(), 0);
	assert_non_null(strstr(logged, "device 1"));
	plug(DISK, ABSENT);
	dev.lba48 = dev.flush48 = false;
	dev.sectors = 12345;
	assert_int_equal(disk_init(), 0);
	assert_int_equal(disk_sectors(), 12345);
}

static void test_not_found(void **state)
{
	u8 buffer[512];

	plug(NOTHING, NOTHING);
	assert_int_equal(disk_init(), ERR_NODEV);
	assert_int_equal(disk_sectors(), 0);
	assert_int_equal(disk_read(0, 1, buffer), ERR_NODEV);
	assert_int_equal(disk_write(0, 1, buffer), ERR_NODEV);
	assert_int_equal(disk_flush(), ERR_NODEV);
	plug(ABSENT, ABSENT);
	assert_int_equal(disk_init(), ERR_NODEV);
	plug(CDROM, CDROM);
	assert_int_equal(disk_init(), ERR_NODEV);
	plug(DISK, ABSENT);
	dev.big_sectors = true;
	assert_int_equal(disk_init(), ERR_NODEV);
	plug(DISK, ABSENT);
	dev.sectors = 0;
	assert_int_equal(disk_init(), ERR_NODEV);
}

static void check_range(u64 lba, u32 count)
{
	static u8 buffer[KEPT * 512], back[KEPT * 512];

	for (u32 i = 0; i < count * 512; i++)
		buffer[i] = (u8)(i * 7 + lba + i / 512);
	assert_int_equal(disk_write(lba, count, buffer), 0);
	for (u32 i = 0; i < count; i++)
		assert_memory_equal(sector(lba + i), buffer + i * 512, 512);
	assert_int_equal(disk_read(lba, count, back), 0);
	assert_memory_equal(back, buffer, count * 512);
}

static void test_moves(void **state)
{
	plug(DISK, ABSENT);
	assert_int_equal(disk_init(), 0);
	check_range(0, 1);
	check_range(3, KEPT - 3);
	assert_int_equal(dev.commands[0x20] + dev.commands[0x30], 4);
	assert_int_equal(dev.commands[0x24] + dev.commands[0x34], 0);
	check_range(BIG, 8); /* the last ones that 28 bits reach */
	assert_int_equal(dev.commands[0x24] + dev.commands[0x34], 0);
	check_range(BIG + 4, 8); /* across */
	check_range(BIG + 8, 20);
	assert_int_equal(dev.commands[0x24] + dev.commands[0x34], 4);
	assert_int_equal(disk_flush(), 0);
	assert_int_equal(dev.commands[0xea], 1);
	plug(ABSENT, DISK);
	dev.lba48 = dev.flush48 = false;
	dev.sectors = KEPT;
	assert_int_equal(disk_init(), 0);
	check_range(0, KEPT);
	assert_int_equal(disk_flush(), 0);
	assert_int_equal(dev.commands[0xe7], 1);
	dev.flush28 = false;
	assert_int_equal(disk_init(), 0);
	assert_int_equal(disk_flush(), 0); /* no cache */
	assert_int_equal(dev.flushes, 1);
}

static void test_range(void **state)
{
	u8 buffer[512];

	plug(DISK, ABSENT);
	dev.sectors = KEPT;
	assert_int_equal(disk_init(), 0);
	assert_int_equal(disk_read(KEPT, 1, buffer), ERR_RANGE);
	assert_int_equal(disk_write(KEPT - 1, 2, buffer), ERR_RANGE);
	assert_int_equal(disk_write(~0ull, 2, buffer), ERR_RANGE);
	assert_int_equal(disk_write(1, ~0u, buffer), ERR_RANGE);
	assert_int_equal(dev.commands[0x20] + dev.commands[0x30], 0);
}

static void test_fails(void **state)
{
	static u8 buffer[8 * 512];

	plug(DISK, ABSENT);
	assert_int_equal(disk_init(), 0);
	dev.bad = 5;
	assert_int_equal(disk_read(4, 4, buffer), ERR_IO);
	assert_non_null(strstr(logged, "reading failed at sector 4: status 0x41, error 0x40"));
	logged[0] = 0;
	assert_int_equal(disk_write(5, 1, buffer), ERR_IO);
	assert_string_equal(logged, "");	      /* once is enough */
	assert_int_equal(disk_read(6, 2, buffer), 0); /* and it goes on */
	dev.stuck = true;
	assert_int_equal(disk_read(0, 1, buffer), ERR_TIMEOUT);
	assert_non_null(strstr(logged, "no answer to reading at sector 0 for 10 s"));
	assert_int_equal(disk_write(0, 1, buffer), ERR_TIMEOUT);
	assert_int_equal(disk_flush(), ERR_TIMEOUT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_found), cmocka_unit_test(test_not_found),
		cmocka_unit_test(test_moves), cmocka_unit_test(test_range),
		cmocka_unit_test(test_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
