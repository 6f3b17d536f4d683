/*
 * hv/pmem/backing.c on real address spaces, the real EPT engine and a disk in memory: what a guest
 * and Umbra write comes back on another machine with this disk; never more pages than the budget
 * are unsaved; a save writes no more than that; what fails is told.
 */
#include <stdio.h>

#include "blk/disk.h"
#include "lib/crc32.h"
#include "lib/log.h"
#include "pmem/backing.h"
#include "pmem/nfit_layout.h"
#include "pmem_world.h"

#define PHYS	     (64 * MIB)
#define DISK_SECTORS 65536
#define FIRST	     2048
#define BYTES	     (2 * MIB)
#define PAGES	     (BYTES / PAGE_SIZE)
#define BUDGET	     64

static u8 disk[DISK_SECTORS][DISK_SECTOR];
static bool have_disk, write_fails;
static char logged[16384];
static u64 rng = 1;

void log_print(enum log_level level, const char *fmt, ...)
{
	size_t at = strlen(logged);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(logged + at, sizeof(logged) - at, fmt, ap);
	va_end(ap);
	strncat(logged, "\n", sizeof(logged) - strlen(logged) - 1);
}

static bool has_logged(const char *text)
{
	return strstr(logged, text) != NULL;
}

static u32 chance(u32 n)
{
	rng = rng * 6364136223846793005ull + 1442695040888963407ull;
	return (u32)(rng >> 33) % n;
}

/* --- the disk -----------------------------------------------------------------------------------
 */

int disk_init(void)
{
	return have_disk ? 0 : ERR_NODEV;
}

u64 disk_sectors(void)
{
	return have_disk ? DISK_SECTORS : 0;
}

int disk_read(u64 lba, u32 count, void *to)
{
	assert_true(lba < DISK_SECTORS && count <= DISK_SECTORS - lba);
	memcpy(to, disk[lba], (size_t)count * DISK_SECTOR);
	return 0;
}

int disk_write(u64 lba, u32 count, const void *from)
{
	assert_true(lba >= FIRST && lba < DISK_SECTORS - 33 && count <= DISK_SECTORS - 33 - lba);
	if (write_fails)
		return ERR_IO;
	memcpy(disk[lba], from, (size_t)count * DISK_SECTOR);
	return 0;
}

int disk_flush(void)
{
	return write_fails ? ERR_IO : 0;
}

static void put(u8 *at, u64 value, u32 bytes)
{
	memcpy(at, &value, bytes);
}

/* A table with our partition alone. */
static void blank_disk(void)
{
	static const u8 type[] = SAVE_PARTITION_TYPE;
	u8 *h = disk[1];

	memset(disk, 0, sizeof(disk));
	memcpy(disk[2], type, 16);
	put(disk[2] + 32, FIRST, 8);
	put(disk[2] + 40, DISK_SECTORS - 34, 8);
	memcpy(h, "EFI PART", 8);
	put(h + 12, 92, 4);
	put(h + 24, 1, 8);
	put(h + 40, 34, 8);
	put(h + 48, DISK_SECTORS - 34, 8);
	put(h + 72, 2, 8);
	put(h + 80, 128, 4);
	put(h + 84, 128, 4);
	put(h + 88, crc32(0, disk[2], 128 * 128), 4);
	put(h + 16, crc32(0, h, 92), 4);
	have_disk = true;
	write_fails = false;
}

/* --- machines and VMs ---------------------------------------------------------------------------
 */

static void start_machine(void)
{
	logged[0] = 0;
	new_machine(PHYS, 0);
	memset(phys_to_ptr(hpa(2 * MIB)), 0x77, PHYS - 2 * MIB); /* what RAM holds at start */
	boot.options.pmem_save_budget = BUDGET;
	configure(BOOT_PMEM_RAM, BYTES);
	config.pmem[0].saved = 1;
	boot.vm_count = 1;
	boot.vm[0] = config;
	frame_init(&boot);
}

static void start(void)
{
	start_machine();
	pmem_init(&boot);
	assert_int_equal(create(), 0);
}

static struct backing *backing(void)
{
	return vm.pmem->region[0].backing;
}

static u64 data_at(u64 offset)
{
	return vm.pmem->region[0].base.v + offset;
}

static u64 label_at(u64 offset)
{
	return PMEM_LABELS_BASE + offset;
}

/* How many pages the guest could write to unnoticed. */
static u64 writable(void)
{
	u64 n = 0;

	for (u64 i = 0; i < BYTES; i += PAGE_SIZE)
		n += (page_at(data_at(i)).perms & 2) != 0;
	for (u64 i = 0; i < PMEM_LABELS_STRIDE; i += PAGE_SIZE)
		n += (page_at(label_at(i)).perms & 2) != 0;
	return n;
}

static u64 mirror[PAGES + 33]; /* the word that each page holds */

static void random_write(void)
{
	u64 page = chance(chance(2) ? PAGES + 33 : 40), value = chance(5) ? rng : 0;
	u64 at = page < PAGES ? data_at(page * PAGE_SIZE) : label_at((page - PAGES) * PAGE_SIZE);

	at += 8;
	if (chance(4))
		store(at, value);
	else /* a hypercall's result, a disk's data */
		assert_int_equal(guest_write(&vm, gpa(at), &value, 8), 0);
	mirror[page] = value;
}

static void assert_content(void)
{
	for (u64 i = 0; i < PAGES + 33; i++)
		assert_int_equal(load(8 + (i < PAGES ? data_at(i * PAGE_SIZE)
						     : label_at((i - PAGES) * PAGE_SIZE))),
				 mirror[i]);
}

static u16 told(void)
{
	u8 nfit[VNFIT_MAX];
	struct nfit_mapping_part mapping;

	pmem_nfit(&vm, nfit);
	memcpy(&mapping, nfit + sizeof(struct nfit_spa_part), sizeof(mapping));
	assert_int_equal(mapping.part.type, NFIT_MAPPING);
	assert_int_equal(mapping.state, ask(HC_PMEM_SAVE_STATE, 0));
	return mapping.state;
}

/* --- tests --------------------------------------------------------------------------------------
 */

static void test_comes_back(void **state)
{
	u64 limit = BUDGET * 8 + save_commit_sectors(PAGES + 33);

	blank_disk();
	memset(mirror, 0, sizeof(mirror));
	for (u32 machine = 0; machine < 6; machine++) {
		start();
		assert_int_equal(pmem_device_map(&vm), 1);
		assert_int_equal(vm.pmem->region[0].mode, HC_PMEM_MODE_NONE);
		assert_true(has_logged(machine ? "restored" : "nothing has been saved"));
		for (u32 life = 0; life < 4; life++) {
			assert_int_equal(told(), 0);
			assert_content();
			assert_int_equal(writable(), 0);
			for (u32 i = chance(600); i; i--) {
				random_write();
				assert_true(writable() <= (u64)ask(HC_PMEM_DIRTY, 0));
				assert_true(ask(HC_PMEM_DIRTY, 0) <= BUDGET);
				if (!chance(5))
					backing_tick(&vm, backing());
			}
			end();
			assert_true(backing()->last_pages <= BUDGET);
			assert_true(backing()->last_sectors <= limit);
			if (life < 3)
				assert_int_equal(create(), 0);
		}
		assert_true(backing()->most <= BUDGET);
	}
	assert_true(backing()->written_back > 100);
}

/* Ticks keep some room, and no more than that. */
static void test_tick(void **state)
{
	blank_disk();
	start();
	for (u32 i = 0; i < BUDGET; i++)
		store(data_at(i * PAGE_SIZE), i);
	assert_int_equal(ask(HC_PMEM_DIRTY, 0), BUDGET);
	for (u32 i = 0; i < 3 * BUDGET; i++)
		pmem_tick(&vcpu, 0);
	assert_int_equal(ask(HC_PMEM_DIRTY, 0), BUDGET * 3 / 4);
	assert_int_equal(writable(), BUDGET * 3 / 4);
	/* Pages are closed in turn: the one that was opened last is still open. */
	assert_true(page_at(data_at((BUDGET - 1) * PAGE_SIZE)).perms & 2);
	end();
}

static void lose_power(u32 sectors)
{
	boot.options.pmem_power_loss_sectors = sectors;
}

/* Power fails under a running VM, with more and more energy left. */
static void test_power_loss(void **state)
{
	u32 torn = 0, whole = 0;

	blank_disk();
	for (u32 sectors = 1; sectors < 600; sectors += 60) {
		u64 before[PAGES + 33];

		start_machine();
		lose_power(sectors);
		pmem_init(&boot);
		assert_int_equal(create(), 0);
		memset(mirror, 0, sizeof(mirror));
		for (u64 i = 0; i < PAGES + 33; i++)
			mirror[i] = load(8 + (i < PAGES ? data_at(i * PAGE_SIZE)
							: label_at((i - PAGES) * PAGE_SIZE)));
		memcpy(before, mirror, sizeof(before));
		for (u32 i = 0; i < 200; i++)
			random_write();
		restarts = 0;
		assert_int_equal(ask(HC_PMEM_POWER_LOSS, 0), 0);
		assert_int_equal(restarts, 1);
		vm.restart = true;
		end();
		assert_true(backing()->last_sectors <= sectors);
		assert_int_equal(create(), 0);
		if (told() == NFIT_STATE_SAVE_FAILED) {
			memcpy(mirror, before, sizeof(mirror));
			assert_true(has_logged("NOT SAVED"));
			torn++;
		} else {
			assert_int_equal(told(), 0);
			whole++;
		}
		assert_content();
		/* And the next save counts again. */
		random_write();
		end();
		assert_int_equal(create(), 0);
		assert_int_equal(told(), 0);
		assert_content();
		end();
	}
	assert_true(torn && whole);
}

static void expect_volatile(const char *why)
{
	assert_int_equal(create(), 0);
	assert_null(backing());
	assert_int_equal(pmem_device_map(&vm), 0);
	assert_true(has_logged(why) && has_logged("VOLATILE"));
	store(data_at(0), 1);
	assert_int_equal(ask(HC_PMEM_POWER_LOSS, 0), HC_EINVAL);
	assert_int_equal(ask(HC_PMEM_DIRTY, 0), HC_EINVAL);
	end();
}

static void test_without(void **state)
{
	blank_disk();
	have_disk = false;
	start_machine();
	pmem_init(&boot);
	expect_volatile("there is no ATA disk");
	blank_disk();
	disk[2][0]++;
	put(disk[1] + 88, crc32(0, disk[2], 128 * 128), 4);
	put(disk[1] + 16, 0, 4);
	put(disk[1] + 16, crc32(0, disk[1], 92), 4);
	start_machine();
	pmem_init(&boot);
	expect_volatile("there is no partition of its type");
	blank_disk();
	start_machine();
	boot.options.pmem_partition = BOOT_PMEM_PARTITION_NONE;
	pmem_init(&boot);
	expect_volatile("pmem_partition = none");
	start_machine();
	boot.vm[0].pmem_count = 2;
	boot.vm[0].pmem[1] = boot.vm[0].pmem[0];
	pmem_init(&boot);
	expect_volatile("pmem_save_budget is less");
	memset(disk[FIRST], 0xdd, DISK_SECTOR);
	memset(disk[FIRST + 8], 0xdd, DISK_SECTOR);
	start_machine();
	pmem_init(&boot);
	expect_volatile("the partition holds something else");
	assert_int_equal(disk[FIRST][5], 0xdd);
	/* Of another size: what is there stays there. */
	blank_disk();
	start();
	end();
	start_machine();
	config.pmem[0].bytes = 2 * BYTES;
	pmem_init(&boot);
	expect_volatile("another size");
}

static void test_damaged(void **state)
{
	u64 area = FIRST + SAVE_AREAS;

	blank_disk();
	start();
	store(data_at(0), 1);
	end();
	assert_int_equal(create(), 0);
	store(data_at(0), 2);
	end();
	/* The newest, generation 3, is in the first header. */
	disk[area + SAVE_HEADER_AT][20] ^= 1;
	start();
	assert_int_equal(told(), NFIT_STATE_SAVE_FAILED);
	assert_int_equal(load(data_at(0)), 1);
	end();
	disk[area + SAVE_HEADER_AT][20] ^= 1;
	disk[area + SAVE_HEADER_AT + 8][20] ^= 1;
	disk[area + SAVE_HEADER_AT][60] ^= 1;
	start();
	assert_int_equal(told(), NFIT_STATE_RESTORE_FAILED);
	assert_true(has_logged("EMPTY"));
	memset(mirror, 0, sizeof(mirror));
	assert_content();
	random_write();
	end();
	start();
	assert_int_equal(told(), 0);
	assert_content();
	end();
}

/* A disk that fails while the VM runs: it goes on, and nobody says that it is saved. */
static void test_disk_fails(void **state)
{
	blank_disk();
	start();
	memset(mirror, 0, sizeof(mirror));
	for (u32 i = 0; i < 100; i++)
		random_write();
	end();
	assert_int_equal(create(), 0);
	write_fails = true;
	for (u32 i = 0; i < 2 * BUDGET; i++)
		store(data_at(i * PAGE_SIZE) + 8, 0xbad);
	assert_true(has_logged("the disk has failed"));
	end();
	assert_true(has_logged("NOT SAVED"));
	assert_int_equal(create(), 0);
	assert_int_equal(told(), NFIT_STATE_SAVE_FAILED | NFIT_STATE_NOT_ARMED);
	assert_int_equal(load(data_at(0) + 8), 0xbad); /* RAM still has it */
	write_fails = false;
	end();
	assert_int_equal(create(), 0);
	assert_true(told() & NFIT_STATE_NOT_ARMED); /* for good */
	end();
	start();
	assert_int_equal(told(), NFIT_STATE_SAVE_FAILED);
	assert_content();
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_comes_back), cmocka_unit_test(test_tick),
		cmocka_unit_test(test_power_loss), cmocka_unit_test(test_without),
		cmocka_unit_test(test_damaged),	   cmocka_unit_test(test_disk_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
