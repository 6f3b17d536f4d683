/*
 * hv/pmem/backing.c on real address spaces, the real EPT engine and a disk in memory: what a guest
 * and Umbra write comes back on another machine with this disk; never more pages than the budget
 * are unsaved; a save writes no more than that; what fails is told.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "blk/disk.h"
#include "ept_hw.h"
#include "lib/crc32.h"
#include "lib/log.h"
#include "mem/frame.h"
#include "pmem/backing.h"
#include "pmem/nfit_layout.h"
#include "pmem/pmem.h"
#include "vm/internal.h"
#include "vm/platform.h"
#include "x86/acpi.h"
#include "x86/cpu.h"
#include "x86/paging.h"

#define PHYS	     (64 * MIB)
#define DISK_SECTORS 65536
#define FIRST	     2048
#define BYTES	     (2 * MIB)
#define PAGES	     (BYTES / PAGE_SIZE)
#define BUDGET	     64

static u8 disk[DISK_SECTORS][DISK_SECTOR];
static bool have_disk, write_fails;
static struct boot_info boot;
static struct boot_vm config;
static struct vm vm;
static struct vcpu vcpu = {.vm = &vm};
static u32 restarts, next_id;
static char logged[16384];
static u64 rng = 1;

/* --- the world ----------------------------------------------------------------------------------
 */

u64 vmx_features;
struct cpu cpus[MAX_CPUS];
u32 cpu_count = 2;

void vmx_invept_single(u64 eptp)
{
}

void ept_kick_cpu(u32 cpu)
{
}

void vcpu_fatal(struct vcpu *v, const char *fmt, ...)
{
	abort();
}

enum apic_mode platform_apic_mode(struct vcpu *v)
{
	return APIC_MODE_X2APIC;
}

void vm_restart(struct vm *v, const char *why)
{
	restarts++;
}

u64 vcpu_tsc(const struct vcpu *v)
{
	return 0;
}

void vcpu_request(struct vcpu *v, u32 requests)
{
}

struct vcpu *sched_current(void)
{
	return NULL;
}

void vmcs_read_failed(void);
void vmcs_read_failed(void)
{
	abort();
}

const struct acpi_header *acpi_find(hpa_t rsdp, const char *signature)
{
	return NULL;
}

void *paging_map_mmio(hpa_t base, u64 bytes, enum paging_type type)
{
	return phys_to_ptr(base);
}

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
	cpus[0].self = &cpus[0];
	syscall(SYS_arch_prctl, 0x1001 /* ARCH_SET_GS */, &cpus[0]);
	host_memory_release();
	host_memory_init(PHYS);
	memset(phys_to_ptr(hpa(2 * MIB)), 0x77, PHYS - 2 * MIB); /* what RAM holds at start */
	memset(&boot, 0, sizeof(boot));
	boot.options.pmem_controllers = 4;
	boot.options.pmem_save_budget = BUDGET;
	boot.memory_count = 1;
	boot.memory[0] = (struct boot_range){1 * MIB, PHYS - 1 * MIB, BOOT_MEM_USABLE, 0};
	memset(&config, 0, sizeof(config));
	strcpy(config.name, "v");
	config.memory = 4 * MIB;
	config.pmem_count = 1;
	config.pmem[0] = (struct boot_pmem){.source = BOOT_PMEM_RAM, .bytes = BYTES, .saved = 1};
	boot.vm_count = 1;
	boot.vm[0] = config;
	frame_init(&boot);
	vmx_features = 0;
	next_id++; /* media are kept by VM: this one is new */
	assert_true(next_id < BOOT_MAX_VMS);
}

static void create(void)
{
	memset(&vm, 0, sizeof(vm));
	vm.id = next_id;
	vm.config = &config;
	vm.vcpu[0] = &vcpu;
	vm.vcpu_count = 1;
	assert_int_equal(space_init(&vm, config.memory), 0);
	assert_int_equal(pmem_create(&vm), 0);
}

static void start(void)
{
	start_machine();
	pmem_init(&boot);
	create();
}

static void end(void)
{
	pmem_stop(&vm);
	space_destroy(&vm);
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

static struct hw_page page_at(u64 at)
{
	return hw_walk(vm.space.view.eptp, at, false, false);
}

static void guest_faults(u64 at, bool write)
{
	struct ept_fault fault = {.addr = gpa(at), .read = !write, .write = write};

	assert_int_equal(space_fault(&vcpu, &fault), FAULT_RETRY);
}

/* A guest's store, as the processor would do it. */
static void store(u64 at, u64 value)
{
	if (!hw_write(vm.space.view.eptp, at)) {
		guest_faults(at, true);
		assert_true(hw_write(vm.space.view.eptp, at));
	}
	*(u64 *)phys_to_ptr(hpa(page_at(at).frame + at % PAGE_SIZE)) = value;
}

static u64 load(u64 at)
{
	if (!(page_at(at).perms & 1))
		guest_faults(at, false);
	assert_true(page_at(at).perms & 1);
	return *(u64 *)phys_to_ptr(hpa(page_at(at).frame + at % PAGE_SIZE));
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

static s64 ask(u64 what)
{
	return pmem_hypercall(&vcpu, what, 0, 0);
}

static u16 told(void)
{
	u8 nfit[VNFIT_MAX];
	struct nfit_mapping_part mapping;

	pmem_nfit(&vm, nfit);
	memcpy(&mapping, nfit + sizeof(struct nfit_spa_part), sizeof(mapping));
	assert_int_equal(mapping.part.type, NFIT_MAPPING);
	assert_int_equal(mapping.state, ask(HC_PMEM_SAVE_STATE));
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
				assert_true(writable() <= (u64)ask(HC_PMEM_DIRTY));
				assert_true(ask(HC_PMEM_DIRTY) <= BUDGET);
				if (!chance(5))
					backing_tick(&vm, backing());
			}
			end();
			assert_true(backing()->last_pages <= BUDGET);
			assert_true(backing()->last_sectors <= limit);
			if (life < 3)
				create();
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
	assert_int_equal(ask(HC_PMEM_DIRTY), BUDGET);
	for (u32 i = 0; i < 3 * BUDGET; i++)
		pmem_tick(&vcpu, 0);
	assert_int_equal(ask(HC_PMEM_DIRTY), BUDGET * 3 / 4);
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
		create();
		memset(mirror, 0, sizeof(mirror));
		for (u64 i = 0; i < PAGES + 33; i++)
			mirror[i] = load(8 + (i < PAGES ? data_at(i * PAGE_SIZE)
							: label_at((i - PAGES) * PAGE_SIZE)));
		memcpy(before, mirror, sizeof(before));
		for (u32 i = 0; i < 200; i++)
			random_write();
		restarts = 0;
		assert_int_equal(ask(HC_PMEM_POWER_LOSS), 0);
		assert_int_equal(restarts, 1);
		vm.restart = true;
		end();
		assert_true(backing()->last_sectors <= sectors);
		create();
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
		create();
		assert_int_equal(told(), 0);
		assert_content();
		end();
	}
	assert_true(torn && whole);
}

static void expect_volatile(const char *why)
{
	create();
	assert_null(backing());
	assert_int_equal(pmem_device_map(&vm), 0);
	assert_true(has_logged(why) && has_logged("VOLATILE"));
	store(data_at(0), 1);
	assert_int_equal(ask(HC_PMEM_POWER_LOSS), HC_EINVAL);
	assert_int_equal(ask(HC_PMEM_DIRTY), HC_EINVAL);
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
	create();
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
	create();
	write_fails = true;
	for (u32 i = 0; i < 2 * BUDGET; i++)
		store(data_at(i * PAGE_SIZE) + 8, 0xbad);
	assert_true(has_logged("the disk has failed"));
	end();
	assert_true(has_logged("NOT SAVED"));
	create();
	assert_int_equal(told(), NFIT_STATE_SAVE_FAILED | NFIT_STATE_NOT_ARMED);
	assert_int_equal(load(data_at(0) + 8), 0xbad); /* RAM still has it */
	write_fails = false;
	end();
	create();
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
