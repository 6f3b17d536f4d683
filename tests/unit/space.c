/* hv/vm/space.c on the real EPT engine: backing, faults, permissions, discarding, the door to RAM.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "ept_hw.h"
#include "mem/frame.h"
#include "vm/internal.h"
#include "vm/load.h"
#include "x86/cpu.h"

#define PHYS (192 * MIB)

static const struct boot_vm config;
static struct vm vm;
static struct vcpu vcpu = {.vm = &vm};
static u64 frames_free;
static unsigned int fatal, invalidations;
static enum apic_mode apic_mode;

u64 vmx_features;
struct cpu cpus[MAX_CPUS];
u32 cpu_count = 2;

void vmx_invept_single(u64 eptp)
{
	invalidations++;
}

void ept_kick_cpu(u32 cpu)
{
}

void vcpu_fatal(struct vcpu *v, const char *fmt, ...)
{
	fatal++;
}

enum apic_mode platform_apic_mode(struct vcpu *v)
{
	return apic_mode;
}

static u64 free_frames(void)
{
	struct frame_stats stats;

	frame_stats(&stats);
	return stats.free;
}

static void start_machine(u64 bytes, u64 features)
{
	static struct boot_info boot;

	cpus[0].self = &cpus[0];
	syscall(SYS_arch_prctl, 0x1001 /* ARCH_SET_GS */, &cpus[0]);
	host_memory_release();
	host_memory_init(bytes);
	memset(&boot, 0, sizeof(boot));
	boot.memory_count = 1;
	boot.memory[0] = (struct boot_range){1 * MIB, bytes - 1 * MIB, BOOT_MEM_USABLE, 0};
	frame_init(&boot);
	frames_free = free_frames();
	vmx_features = features;
	memset(&vm, 0, sizeof(vm));
	vm.config = &config;
	vm.id = 5;
	vm.vcpu[0] = &vcpu;
	vm.vcpu_count = 1;
	fatal = 0;
}

static void start(u64 ram, u64 features)
{
	start_machine(PHYS, features);
	assert_int_equal(space_init(&vm, ram), 0);
}

static void finish(void)
{
	space_destroy(&vm);
	assert_int_equal(free_frames(), frames_free);
	assert_int_equal(fatal, 0);
	host_memory_release();
}

static struct hw_page page_at(u64 at)
{
	return hw_walk(vm.space.view.eptp, at, false, vmx_has(FEAT_EPT_XO));
}

/* wanted: EPT_R, EPT_W, EPT_X. */
static enum fault_result fault_at(u64 at, u64 wanted)
{
	struct ept_fault fault = {.addr = gpa(at), .access = (u8)wanted, .write = wanted & EPT_W};

	return space_fault(&vcpu, &fault);
}

/* --- backing ---------------------------------------------------------------------------------- */

static void test_backing(void **state)
{
	u8 buffer[64];

	start_machine(PHYS, 0);
	for (u64 at = 2 * MIB; at < PHYS; at += PAGE_SIZE)
		*(u8 *)phys_to_ptr(hpa(at)) = 0xee;
	assert_int_equal(space_init(&vm, 16 * MIB), 0);
	for (u64 at = 0; at < 16 * MIB; at += PAGE_SIZE) {
		assert_int_equal(guest_read(&vm, gpa(at), buffer, sizeof(buffer)), 0);
		for (unsigned int i = 0; i < sizeof(buffer); i++)
			assert_int_equal(buffer[i], 0); /* nothing of an earlier owner */
	}
	assert_int_equal(vm.space.region_count, 1);
	assert_int_equal(frame_owner(vm.space.region[0].chunks[7]), FRAME_VM_BASE + 5);
	assert_int_equal(frame_owner(vm.space.view.root), FRAME_EPT_BASE + 5);
	finish();

	/* Not enough memory: everything that was had comes home. */
	start_machine(PHYS, 0);
	assert_int_equal(space_init(&vm, 256 * MIB), ERR_NOMEM);
	finish();
}

static void test_regions(void **state)
{
	const struct region *region;

	start(8 * MIB, 0);
	assert_int_equal(space_add_mmio(&vm, gpa(0xfec00000), 0x1000, 3), 0);
	assert_int_equal(space_add_mmio(&vm, gpa(0xd0000000), 0x2000, 4), 0);
	region = space_find(&vm.space, gpa(0xfec00fff));
	assert_non_null(region);
	assert_int_equal(region->kind, REGION_MMIO);
	assert_int_equal(region->device, 3);
	assert_int_equal(space_find(&vm.space, gpa(0xd0001fff))->device, 4);
	assert_null(space_find(&vm.space, gpa(0xd0002000)));
	assert_null(space_find(&vm.space, gpa(0xcfffffff)));
	assert_null(space_find(&vm.space, gpa(8 * MIB)));
	assert_null(space_find(&vm.space, gpa(~0ull)));
	assert_int_equal(space_find(&vm.space, gpa(8 * MIB - 1))->kind, REGION_RAM);
	while (vm.space.region_count < SPACE_MAX_REGIONS)
		assert_int_equal(space_add_mmio(&vm,
						gpa(0xe0000000 + vm.space.region_count * 0x1000),
						0x1000, 9),
				 0);
	assert_int_equal(space_add_mmio(&vm, gpa(0xf0000000), 0x1000, 9), ERR_NOMEM);
	for (u32 i = 1; i < vm.space.region_count; i++)
		assert_true(vm.space.region[i - 1].base.v < vm.space.region[i].base.v);
	finish();
}

/* --- faults ----------------------------------------------------------------------------------- */

static void test_faults(void **state)
{
	start(8 * MIB, 0);
	assert_false(page_at(0x3000).present);
	assert_int_equal(fault_at(0x3123, EPT_W), FAULT_RETRY);
	assert_int_equal(page_at(0x3000).shift, 21);
	assert_int_equal(page_at(0x3000).perms, 7);
	assert_int_equal(page_at(0x3000).type, 6);
	assert_int_equal(page_at(0x3000).frame, vm.space.region[0].chunks[0].v + 0x3000);
	assert_int_equal(fault_at(0x3123, EPT_W), FAULT_RETRY); /* another vCPU was faster */
	assert_int_equal(fault_at(8 * MIB - 1, EPT_X), FAULT_RETRY);
	assert_int_equal(page_at(8 * MIB - 1).frame,
			 vm.space.region[0].chunks[3].v + SIZE_2M - 0x1000);
	assert_false(page_at(4 * MIB).present);

	assert_int_equal(fault_at(8 * MIB, EPT_R), FAULT_EMULATE); /* a hole */
	assert_int_equal(fault_at(~0ull, EPT_W), FAULT_EMULATE);
	assert_int_equal(space_add_mmio(&vm, gpa(0xfee00000), 0x1000, 1), 0);
	apic_mode = APIC_MODE_XAPIC;
	assert_int_equal(fault_at(0xfee00080, EPT_R), FAULT_EMULATE);
	assert_false(page_at(0xfee00000).present);
	vm.apic_access = hpa(0x5000);
	apic_mode = APIC_MODE_X2APIC;
	assert_int_equal(fault_at(0xfee00080, EPT_R), FAULT_EMULATE);
	apic_mode = APIC_MODE_XAPIC;
	assert_int_equal(fault_at(0xfee00080, EPT_R), FAULT_RETRY);
	assert_int_equal(page_at(0xfee00000).frame, 0x5000);
	assert_int_equal(page_at(0xfee00000).perms, 3); /* never executed from */
	assert_int_equal(fault_at(0xfee00080, EPT_X), FAULT_EMULATE);
	/* A vCPU that leaves xAPIC mode must not find it there. */
	space_unmap_apic(&vm);
	assert_false(page_at(0xfee00000).present);
	space_unmap_apic(&vm);
	finish();
}

static void test_gibibyte_leaves(void **state)
{
	start_machine(4 * GIB, BIT64(FEAT_EPT_1G));
	assert_int_equal(space_init(&vm, 1 * GIB + 2 * SIZE_2M), 0);
	assert_int_equal(fault_at(5 * MIB, EPT_R), FAULT_RETRY);
	assert_int_equal(page_at(0).shift, 30);
	assert_int_equal(page_at(1 * GIB - 1).frame,
			 vm.space.region[0].chunks[0].v + 1 * GIB - 0x1000);
	assert_int_equal(fault_at(1 * GIB, EPT_R), FAULT_RETRY);
	assert_int_equal(page_at(1 * GIB).shift, 21);
	/* One page inside of it refuses writes, and then no longer. */
	assert_int_equal(space_protect(&vm, gpa(0x5000), 0x1000, EPT_R), 0);
	assert_int_equal(page_at(0x5000).perms, 1);
	assert_int_equal(page_at(0x6000).shift, 12);
	assert_int_equal(page_at(SIZE_2M).shift, 21);
	assert_int_equal(space_protect(&vm, gpa(0x5000), 0x1000, EPT_RWX), 0);
	assert_int_equal(page_at(0x5000).shift, 30);
	finish();
}

/* --- persistent memory and windows ---------------------------------------------------------------
 */

static u64 noted_at, noted_bytes;
static u32 noted_number;

void pmem_written(struct vm *v, u32 number, u64 offset, u64 bytes)
{
	noted_number = number;
	noted_at = offset;
	noted_bytes = bytes;
}

static void test_pmem_region(void **state)
{
	u8 byte = 7, read = 0;
	u64 word;
	hpa_t small;

	start(8 * MIB, 0);
	assert_int_equal(frame_alloc(FRAME_HV, 4 * MIB, SIZE_2M, &small), 0);
	assert_int_equal(space_add_pmem(&vm, gpa(4 * GIB), 4 * MIB, small, SIZE_1G, 3), 0);
	assert_int_equal(fault_at(4 * GIB + 0x3123, EPT_W), FAULT_RETRY);
	assert_int_equal(page_at(4 * GIB).shift, 21);
	assert_int_equal(page_at(4 * GIB).perms, 7);
	assert_int_equal(page_at(4 * GIB).frame, small.v);
	/* Memory like RAM to who reads and writes for the guest; the writes are told. */
	noted_bytes = 0;
	assert_int_equal(guest_write(&vm, gpa(4 * GIB + 2 * MIB - 1), &byte, 1), 0);
	assert_int_equal(noted_number, 3);
	assert_int_equal(noted_at, 2 * MIB - 1);
	assert_int_equal(noted_bytes, 1);
	assert_int_equal(guest_read(&vm, gpa(4 * GIB + 2 * MIB - 1), &read, 1), 0);
	assert_int_equal(read, 7);
	assert_int_equal(guest_write_word(&vm, gpa(4 * GIB + 8), 8, 5), 0);
	assert_int_equal(noted_at, 8);
	assert_int_equal(guest_read_word(&vm, gpa(4 * GIB + 8), 8, &word), 0);
	assert_int_equal(word, 5);
	assert_int_equal(guest_cmpxchg(&vm, gpa(4 * GIB + 16), 8, 0, 5), 0);
	assert_int_equal(noted_at, 16);
	noted_bytes = 0;
	assert_int_equal(guest_cmpxchg(&vm, gpa(4 * GIB + 16), 8, 0, 5), ERR_BUSY);
	assert_int_equal(noted_bytes, 0);
	assert_int_equal(guest_zero(&vm, gpa(4 * GIB + 100), 10), 0);
	assert_int_equal(noted_at, 100);
	noted_bytes = 0;
	assert_int_equal(guest_write(&vm, gpa(100), &byte, 1), 0); /* RAM */
	assert_int_equal(noted_bytes, 0);
	assert_int_equal(guest_write(&vm, gpa(4 * GIB + 4 * MIB - 1), &word, 2), ERR_FAULT);
	/* What guests may do to their RAM they may not do to this. */
	assert_int_equal(space_protect(&vm, gpa(4 * GIB), 0x1000, EPT_R), ERR_INVAL);
	assert_int_equal(space_discard(&vm, gpa(4 * GIB), 0x1000), ERR_INVAL);
	frame_free(FRAME_HV, small, 4 * MIB);
	finish();
}

static void test_pmem_leaves(void **state)
{
	hpa_t large;

	start_machine(4 * GIB, BIT64(FEAT_EPT_1G));
	assert_int_equal(space_init(&vm, 8 * MIB), 0);
	assert_int_equal(frame_alloc(FRAME_HV, 1 * GIB, SIZE_1G, &large), 0);
	assert_int_equal(space_add_pmem(&vm, gpa(4 * GIB), 1 * GIB, large, SIZE_1G, 0), 0);
	assert_int_equal(space_add_pmem(&vm, gpa(8 * GIB), 1 * GIB, large, PAGE_SIZE, 1), 0);
	/* Frames that are not where a large leaf wants them. */
	assert_int_equal(
		space_add_pmem(&vm, gpa(12 * GIB), 4 * MIB, hpa_add(large, SIZE_2M), SIZE_1G, 2),
		0);
	assert_int_equal(fault_at(4 * GIB + 5 * MIB, EPT_R), FAULT_RETRY);
	assert_int_equal(page_at(4 * GIB).shift, 30);
	assert_int_equal(fault_at(8 * GIB + 5 * MIB, EPT_R), FAULT_RETRY);
	assert_int_equal(page_at(8 * GIB + 5 * MIB).shift, 12);
	assert_int_equal(page_at(8 * GIB + 5 * MIB).frame, large.v + 5 * MIB);
	assert_int_equal(fault_at(12 * GIB + 3 * MIB, EPT_R), FAULT_RETRY);
	assert_int_equal(page_at(12 * GIB + 3 * MIB).shift, 21);
	assert_int_equal(page_at(12 * GIB + 3 * MIB).frame, large.v + 5 * MIB);
	/* One that ends within 2 MiB, and one that begins there on the host's side. */
	assert_int_equal(space_add_pmem(&vm, gpa(16 * GIB), 4 * MIB + 8 * KIB, large, SIZE_1G, 3),
			 0);
	assert_int_equal(space_add_pmem(&vm, gpa(20 * GIB), 4 * MIB,
					hpa_add(large, 4 * MIB + 4 * KIB), SIZE_1G, 4),
			 0);
	assert_int_equal(fault_at(16 * GIB + 3 * MIB, EPT_W), FAULT_RETRY);
	assert_int_equal(page_at(16 * GIB + 3 * MIB).shift, 21);
	assert_int_equal(fault_at(16 * GIB + 4 * MIB + 4 * KIB, EPT_W), FAULT_RETRY);
	assert_int_equal(page_at(16 * GIB + 4 * MIB + 4 * KIB).shift, 12);
	assert_int_equal(page_at(16 * GIB + 4 * MIB + 4 * KIB).frame, large.v + 4 * MIB + 4 * KIB);
	assert_int_equal(page_at(16 * GIB + 4 * MIB + 8 * KIB).perms, 0);
	assert_int_equal(fault_at(16 * GIB + 4 * MIB + 8 * KIB, EPT_W), FAULT_EMULATE);
	assert_int_equal(fault_at(20 * GIB + 2 * MIB, EPT_W), FAULT_RETRY);
	assert_int_equal(page_at(20 * GIB + 2 * MIB).shift, 12);
	assert_int_equal(page_at(20 * GIB + 2 * MIB).frame, large.v + 6 * MIB + 4 * KIB);
	frame_free(FRAME_HV, large, 1 * GIB);
	finish();
}

static void test_window(void **state)
{
	const u64 at = 0xd2000000;
	u8 byte = 0;

	start(8 * MIB, 0);
	assert_int_equal(space_add_window(&vm, gpa(at), 0x1000, 5), 0);
	/* Nothing is mapped before somebody says what. */
	assert_int_equal(fault_at(at, EPT_R), FAULT_EMULATE);
	space_set_window(&vm, gpa(at), hpa(0x5000), EPT_R, EPT_WB);
	assert_int_equal(fault_at(at + 8, EPT_W), FAULT_EMULATE);
	assert_int_equal(fault_at(at + 8, EPT_R | EPT_W), FAULT_EMULATE);
	assert_int_equal(fault_at(at + 8, EPT_X), FAULT_EMULATE);
	assert_false(page_at(at).present);
	assert_int_equal(fault_at(at + 8, EPT_R), FAULT_RETRY);
	assert_int_equal(page_at(at).perms, 1);
	assert_int_equal(page_at(at).frame, 0x5000);
	assert_int_equal(page_at(at).type, 6);
	assert_int_equal(fault_at(at + 8, EPT_W), FAULT_EMULATE);
	/* A change takes the old mapping away everywhere. */
	invalidations = 0;
	u64 generation = vm.space.view.generation;
	space_set_window(&vm, gpa(at), hpa(0x6000), EPT_R | EPT_W, EPT_UC);
	assert_false(page_at(at).present);
	assert_true(vm.space.view.generation > generation);
	assert_int_equal(fault_at(at + 8, EPT_W), FAULT_RETRY);
	assert_int_equal(page_at(at).perms, 3);
	assert_int_equal(page_at(at).frame, 0x6000);
	assert_int_equal(page_at(at).type, 0);
	assert_int_equal(fault_at(at + 8, EPT_X), FAULT_EMULATE);
	/* Not memory: nobody reads it as such, nothing is next to it. */
	assert_int_equal(guest_read(&vm, gpa(at), &byte, 1), ERR_FAULT);
	assert_int_equal(fault_at(at + 0x1000, EPT_R), FAULT_EMULATE);
	space_set_window(&vm, gpa(0x1000), hpa(0x6000), EPT_R, EPT_WB); /* no window there */
	assert_int_equal(fault_at(0x1000, EPT_W), FAULT_RETRY);
	finish();
}

/* --- permissions ------------------------------------------------------------------------------ */

static void test_protect_arguments(void **state)
{
	start(8 * MIB, 0);
	assert_int_equal(space_protect(&vm, gpa(0x1001), 0x1000, EPT_R), ERR_INVAL);
	assert_int_equal(space_protect(&vm, gpa(0x1000), 0x1001, EPT_R), ERR_INVAL);
	assert_int_equal(space_protect(&vm, gpa(0x1000), 0, EPT_R), ERR_INVAL);
	assert_int_equal(space_protect(&vm, gpa(8 * MIB), 0x1000, EPT_R), ERR_INVAL);
	assert_int_equal(space_protect(&vm, gpa(8 * MIB - 0x1000), 0x2000, EPT_R), ERR_INVAL);
	assert_int_equal(space_protect(&vm, gpa(0x1000), 0 - 0x1000ull, EPT_R), ERR_INVAL);
	assert_int_equal(space_protect(&vm, gpa(0 - 0x1000ull), 0x2000, EPT_R), ERR_INVAL);
	assert_int_equal(space_protect(&vm, gpa(0), 0x1000, EPT_W), ERR_INVAL);
	assert_int_equal(space_protect(&vm, gpa(0), 0x1000, EPT_W | EPT_X), ERR_INVAL);
	assert_int_equal(space_protect(&vm, gpa(0), 0x1000, EPT_X), ERR_INVAL);
	assert_int_equal(space_discard(&vm, gpa(8 * MIB), 0x1000), ERR_INVAL);
	assert_int_equal(space_discard(&vm, gpa(0x800), 0x1000), ERR_INVAL);
	assert_int_equal(vm.space.override_count, 0);
	assert_int_equal(vm.space.view.generation, 1);
	assert_int_equal(space_protect(&vm, gpa(0), 8 * MIB, 0), 0);
	finish();
	start(8 * MIB, BIT64(FEAT_EPT_XO));
	assert_int_equal(space_protect(&vm, gpa(0), 0x1000, EPT_X), 0);
	finish();
}

static void test_protect(void **state)
{
	start(8 * MIB, 0);
	/* Before the first touch and after it. */
	assert_int_equal(space_protect(&vm, gpa(0x4000), 0x2000, EPT_R | EPT_X), 0);
	assert_int_equal(fault_at(0x4000, EPT_W), FAULT_REFUSED);
	assert_false(page_at(0x4000).present);
	assert_int_equal(fault_at(0x4000, EPT_R), FAULT_RETRY);
	assert_int_equal(page_at(0x4000).perms, 5);
	assert_int_equal(page_at(0x4000).shift, 12);
	assert_int_equal(fault_at(0x4fff, EPT_R | EPT_W), FAULT_REFUSED);
	assert_int_equal(fault_at(0x6000, EPT_W), FAULT_RETRY);
	assert_int_equal(fault_at(SIZE_2M, EPT_W), FAULT_RETRY);
	assert_int_equal(page_at(SIZE_2M).shift, 21);
	assert_int_equal(space_protect(&vm, gpa(SIZE_2M), 0x1000, 0), 0);
	assert_int_equal(fault_at(SIZE_2M, EPT_R), FAULT_REFUSED);
	assert_int_equal(fault_at(SIZE_2M, EPT_X), FAULT_REFUSED);
	assert_false(page_at(SIZE_2M).present);
	assert_int_equal(page_at(SIZE_2M + 0x1000).perms, 7);
	/* Everything is given back: one leaf again, once everything has been touched. */
	assert_int_equal(space_protect(&vm, gpa(0), 2 * SIZE_2M, EPT_RWX), 0);
	assert_int_equal(vm.space.override_count, 0);
	assert_int_equal(page_at(SIZE_2M).shift, 21);
	assert_int_equal(vm.space.view.limbo_count, 0);
	assert_int_equal(fault_at(0x4000, EPT_W), FAULT_RETRY);
	finish();
}

/* The table of overrides is full: refused, and nothing has changed. */
static void test_too_many_overrides(void **state)
{
	u64 at = 0;

	start(8 * MIB, 0);
	for (; at < SPACE_MAX_OVERRIDES * 0x2000; at += 0x2000)
		assert_int_equal(space_protect(&vm, gpa(at), 0x1000, EPT_R), 0);
	assert_int_equal(fault_at(at, EPT_W), FAULT_RETRY);
	assert_int_equal(space_protect(&vm, gpa(at), 0x1000, EPT_R), ERR_NOMEM);
	assert_int_equal(space_perms(&vm.space, gpa(at)), EPT_RWX);
	assert_int_equal(page_at(at).perms, 7);
	/* Room again: one in the place of another, and all at once. */
	assert_int_equal(space_protect(&vm, gpa(0), 0x1000, 0), 0);
	assert_int_equal(space_protect(&vm, gpa(0), 0x3000, EPT_R), 0);
	assert_int_equal(space_protect(&vm, gpa(at), 0x1000, EPT_R), 0);
	assert_int_equal(space_protect(&vm, gpa(0), 8 * MIB, EPT_RWX), 0);
	assert_int_equal(vm.space.override_count, 0);
	finish();
}

#define MODEL_PAGES (8 * MIB / PAGE_SIZE)

static u64 seed;

static u64 below(u64 n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (seed >> 11) % n;
}

/* Random protections, faults and discards against one number per page. */
static void test_random_protection(void **state)
{
	static const u64 perms[] = {EPT_RWX,	   EPT_RWX, EPT_R, EPT_R | EPT_W,
				    EPT_R | EPT_X, 0,	    EPT_X};
	static u64 model[MODEL_PAGES];
	unsigned int refused = 0;

	seed = 0x123456789abcdef;
	start(8 * MIB, BIT64(FEAT_EPT_XO));
	for (u64 i = 0; i < MODEL_PAGES; i++)
		model[i] = EPT_RWX;
	for (int round = 0; round < 30000; round++) {
		u64 page = below(MODEL_PAGES), n = 1 + below(below(4) ? 6 : 1200);
		u64 at = page * PAGE_SIZE;

		n = MIN(n, MODEL_PAGES - page);
		switch (below(round % 1000 < 100 ? 6 : 60)) {
		case 0: {
			u64 p = perms[below(ARRAY_SIZE(perms))];
			int err = space_protect(&vm, gpa(at), n * PAGE_SIZE, p);

			for (u64 i = page; err == 0 && i < page + n; i++)
				model[i] = p;
			if (err)
				assert_int_equal(err, ERR_NOMEM);
			break;
		}
		case 1:
			assert_int_equal(space_discard(&vm, gpa(at), n * PAGE_SIZE), 0);
			assert_false(page_at(at).present);
			break;
		case 2: /* all open again, so that the table of overrides does not stay full */
			if (below(10) == 0) {
				assert_int_equal(space_protect(&vm, gpa(0), 8 * MIB, EPT_RWX), 0);
				for (u64 i = 0; i < MODEL_PAGES; i++)
					model[i] = EPT_RWX;
			}
			break;
		default: {
			u64 wanted = 1ull << below(3);
			enum fault_result result = fault_at(at, wanted);

			refused += result == FAULT_REFUSED;
			assert_int_equal(result,
					 model[page] & wanted ? FAULT_RETRY : FAULT_REFUSED);
			/* The instruction runs again, and does not fault again. */
			if (result == FAULT_RETRY)
				assert_true(page_at(at).present && (page_at(at).perms & wanted));
			break;
		}
		}
		for (int i = 0; i < 8; i++) {
			u64 p = below(MODEL_PAGES);
			struct hw_page hw = page_at(p * PAGE_SIZE);

			assert_int_equal(space_perms(&vm.space, gpa(p * PAGE_SIZE)), model[p]);
			if (hw.present)
				assert_int_equal(hw.perms, model[p]);
		}
		assert_true(vm.space.view.reserve_count >= 8);
		/* A large leaf over small ones, on a fault: the table waits for the next
		 * ept_sync(). */
		assert_true(vm.space.view.limbo_count <= MODEL_PAGES / 512);
	}
	assert_true(refused > 100);
	finish();
}

/* --- discarding ------------------------------------------------------------------------------- */

static void test_discard(void **state)
{
	u8 page[PAGE_SIZE], zero[PAGE_SIZE] = {0};

	start(8 * MIB, 0);
	memset(page, 0x77, sizeof(page));
	for (u64 at = 0; at < 8 * MIB; at += PAGE_SIZE)
		assert_int_equal(guest_write(&vm, gpa(at), page, sizeof(page)), 0);
	assert_int_equal(fault_at(SIZE_2M, EPT_W), FAULT_RETRY);
	ept_enter(&vm.space.view, 1);
	ept_leave(1);
	invalidations = 0;
	assert_int_equal(space_discard(&vm, gpa(SIZE_2M - 0x1000), 0x3000), 0);
	assert_false(page_at(SIZE_2M).present);
	assert_false(page_at(SIZE_2M + 0x1000).present);
	assert_true(page_at(SIZE_2M + 0x2000).present);
	ept_enter(&vm.space.view, 1);
	assert_int_equal(invalidations, 1);
	ept_leave(1);
	for (u64 at = 0; at < 8 * MIB; at += PAGE_SIZE) {
		u8 got[PAGE_SIZE];
		bool gone = at >= SIZE_2M - 0x1000 && at < SIZE_2M + 0x2000;

		assert_int_equal(guest_read(&vm, gpa(at), got, sizeof(got)), 0);
		assert_memory_equal(got, gone ? zero : page, PAGE_SIZE);
	}
	finish();
}

/* --- the door --------------------------------------------------------------------------------- */

static void test_door(void **state)
{
	u8 out[512], in[512];
	u64 end = 8 * MIB;

	start(8 * MIB, 0);
	for (unsigned int i = 0; i < sizeof(out); i++)
		out[i] = i * 7;
	/* Across two chunks whose frames do not follow each other upwards. */
	assert_int_not_equal(vm.space.region[0].chunks[1].v,
			     vm.space.region[0].chunks[0].v + SIZE_2M);
	assert_int_equal(guest_write(&vm, gpa(SIZE_2M - 100), out, sizeof(out)), 0);
	assert_int_equal(guest_read(&vm, gpa(SIZE_2M - 100), in, sizeof(in)), 0);
	assert_memory_equal(in, out, sizeof(in));
	assert_memory_equal(phys_to_ptr(vm.space.region[0].chunks[1]), out + 100,
			    sizeof(out) - 100);
	assert_int_equal(guest_zero(&vm, gpa(SIZE_2M - 1), 2), 0);
	assert_int_equal(guest_read(&vm, gpa(SIZE_2M - 2), in, 4), 0);
	assert_int_equal(in[0], out[98]);
	assert_int_equal(in[1] | in[2], 0);
	assert_int_equal(in[3], out[101]);

	/* Edges and nonsense. */
	assert_int_equal(guest_write(&vm, gpa(end - 1), out, 1), 0);
	memset(in, 0x55, sizeof(in));
	assert_int_equal(guest_read(&vm, gpa(end - 1), in, 2), ERR_FAULT);
	assert_int_equal(in[0], 0x55); /* nothing was copied */
	assert_int_equal(guest_read(&vm, gpa(end), in, 1), ERR_FAULT);
	assert_int_equal(guest_read(&vm, gpa(~0ull), in, 2), ERR_FAULT);
	assert_int_equal(guest_read(&vm, gpa(0), in, ~0ull), ERR_FAULT);
	assert_int_equal(guest_write(&vm, gpa(end - 1), out, 2), ERR_FAULT);
	assert_int_equal(guest_write(&vm, gpa(1ull << 63), out, 8), ERR_FAULT);
	assert_int_equal(guest_zero(&vm, gpa(end - 8), 9), ERR_FAULT);
	assert_int_equal(space_add_mmio(&vm, gpa(0xfec00000), 0x1000, 3), 0);
	assert_int_equal(guest_read(&vm, gpa(0xfec00000), in, 4), ERR_FAULT);
	finish();
}

static void test_cmpxchg(void **state)
{
	u64 value = 0x1122334455667788, got;

	start(8 * MIB, 0);
	assert_int_equal(guest_write(&vm, gpa(0x2000), &value, 8), 0);
	assert_int_equal(guest_cmpxchg(&vm, gpa(0x2000), 8, value + 1, 5), ERR_BUSY);
	assert_int_equal(guest_cmpxchg(&vm, gpa(0x2000), 8, value, value + 2), 0);
	assert_int_equal(guest_cmpxchg(&vm, gpa(0x2004), 4, 0x11223344, 0xaabbccdd), 0);
	assert_int_equal(guest_read(&vm, gpa(0x2000), &got, 8), 0);
	assert_int_equal(got, 0xaabbccdd5566778a);
	assert_int_equal(guest_cmpxchg(&vm, gpa(0x2004), 8, 0, 1), ERR_FAULT); /* not aligned */
	assert_int_equal(guest_cmpxchg(&vm, gpa(0x2000), 2, 0, 1), ERR_FAULT);
	assert_int_equal(guest_cmpxchg(&vm, gpa(8 * MIB), 8, 0, 1), ERR_FAULT);
	finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_backing),
		cmocka_unit_test(test_regions),
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_gibibyte_leaves),
		cmocka_unit_test(test_pmem_region),
		cmocka_unit_test(test_pmem_leaves),
		cmocka_unit_test(test_window),
		cmocka_unit_test(test_protect_arguments),
		cmocka_unit_test(test_protect),
		cmocka_unit_test(test_too_many_overrides),
		cmocka_unit_test(test_random_protection),
		cmocka_unit_test(test_discard),
		cmocka_unit_test(test_door),
		cmocka_unit_test(test_cmpxchg),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
