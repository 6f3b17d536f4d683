/*
 * hv/pmem/pmem.c on real address spaces and the real EPT engine: regions of the host, of lent RAM
 * and of a model, through a VM's lives; the hint page's modes; what HC_PMEM answers.
 */
#include "pmem_world.h"
#include "x86/asm.h"

#define PHYS  (128 * MIB)
#define RANGE (64 * MIB) /* the host's persistent range */
#define HINTS 0x7f00000	 /* its hints: device registers */

static unsigned int stepping;

static void start_machine(u64 features)
{
	new_machine(PHYS, features);
	boot.memory_count = 3;
	boot.memory[0].bytes = RANGE - 1 * MIB;
	boot.memory[1] = (struct boot_range){RANGE, 8 * MIB, BOOT_MEM_PERSISTENT, 0};
	boot.memory[2] = (struct boot_range){RANGE + 8 * MIB, 8 * MIB, BOOT_MEM_USABLE, 0};
	frame_init(&boot);
	pmem_init(&boot);
}

/* A store to the hint page: by the processor if it is mapped, else by the emulator. */
static bool store_hint(u64 offset, u64 value)
{
	u64 at = PMEM_HINTS_BASE + offset;
	enum fault_result r = fault_at(at, true);

	if (r == FAULT_RETRY) {
		store(at, value);
		return false;
	}
	assert_int_equal(r, FAULT_EMULATE);
	pmem_window_write(&vcpu, 0, offset, &value, 8);
	return true;
}

#define AT (4 * GIB)

/* --- the model ----------------------------------------------------------------------------------
 */

static void run_model(u64 features)
{
	start_machine(features);
	configure(BOOT_PMEM_MODEL, 4 * MIB);
	assert_int_equal(create(), 0);
	assert_int_equal(ask(HC_PMEM_REGIONS, 0), 1);
	assert_int_equal(ask(HC_PMEM_KIND, 0), HC_PMEM_KIND_MODEL);
	assert_int_equal(ask(HC_PMEM_MODE, 0), HC_PMEM_MODE_TRAP);
	assert_int_equal(ask(HC_PMEM_CONTROLLERS, 0), 4);
	store(AT + 3 * MIB, 11);
	store(AT + 3 * MIB + MODEL_INTERLEAVE, 12);
	assert_int_equal(page_at(AT + 3 * MIB).shift, 12);
	assert_int_equal(ask(HC_PMEM_PENDING, 0), 2);
	assert_int_equal(fault_at(PMEM_HINTS_BASE, false), FAULT_RETRY);
	assert_true(store_hint(64, 5));
	assert_int_equal(ask(HC_PMEM_PENDING, 0), 0);
	assert_int_equal(ask(HC_PMEM_WRITES, 0), 1);
	for (u32 c = 0; c < 4; c++)
		assert_int_equal(ask(HC_PMEM_FLUSHES, c), 1);
	assert_int_equal(ask(HC_PMEM_FLUSHES, 4), HC_EINVAL);
	/* What was stored reads back, mapped or not. */
	assert_int_equal(*(u64 *)phys_to_ptr(hpa(page_at(PMEM_HINTS_BASE).frame + 64)), 5);
	/* Written by a device: no dirty flag says so. */
	assert_int_equal(guest_write(&vm, gpa(AT + 8), "abcdefgh", 8), 0);
	assert_int_equal(ask(HC_PMEM_PENDING, 0), 1);
	/* Stored again in a page that was clean in between. */
	store(AT + 3 * MIB, 13);
	assert_int_equal(ask(HC_PMEM_PENDING, 0), 2);
	store_hint(0, 1);
	/* A restart is no loss of power. */
	store(AT, 21);
	store(PMEM_LABELS_BASE + 8, 9);
	assert_int_equal(pmem_device_map(&vm), 1);
	end();
	assert_int_equal(create(), 0);
	assert_int_equal(load(AT), 21);
	assert_int_equal(load(PMEM_LABELS_BASE + 8), 9);
	assert_int_equal(load(AT + 3 * MIB), 13);
	assert_int_equal(ask(HC_PMEM_PENDING, 0), 1);
	/* A cut is: a line in flight comes or goes, what was flushed stays. */
	for (u32 i = 0; i < 64; i++)
		store(AT + 1 * MIB + i * 64, i);
	store_hint(0, 1);
	for (u32 i = 0; i < 64; i++)
		store(AT + 1 * MIB + i * 64, i + 100);
	restarts = 0;
	assert_int_equal(ask(HC_PMEM_CUT, 0), 0);
	assert_int_equal(restarts, 1);
	end();
	assert_int_equal(create(), 0);
	for (u64 i = 0; i < 64; i++)
		assert_true(load(AT + 1 * MIB + i * 64) % 100 == i);
	assert_int_equal(load(AT), 21);
	assert_int_equal(ask(HC_PMEM_PENDING, 0), 0);
	/* The power failed once. */
	store(AT, 22);
	end();
	assert_int_equal(create(), 0);
	assert_int_equal(load(AT), 22);
	assert_int_equal(ask(HC_PMEM_CUTS, 0), 1);
	end();
}

static void test_model(void **state)
{
	run_model(BIT64(FEAT_EPT_AD));
	run_model(0); /* without dirty flags everything is compared */
}

static void test_modes(void **state)
{
	start_machine(BIT64(FEAT_EPT_AD));
	configure(BOOT_PMEM_MODEL, 2 * MIB);
	assert_int_equal(create(), 0);
	assert_true(store_hint(0, 1));
	assert_int_equal(ask(HC_PMEM_SET_MODE, HC_PMEM_MODE_NONE), 0);
	assert_false(store_hint(0, 2));
	assert_false(store_hint(4088, 3));
	assert_int_equal(ask(HC_PMEM_WRITES, 0), 1);
	assert_int_equal(ask(HC_PMEM_FLUSHES, 0), 1);
	assert_int_equal(ask(HC_PMEM_SET_MODE, HC_PMEM_MODE_TRAP), 0);
	assert_true(store_hint(0, 2));
	assert_int_equal(ask(HC_PMEM_FLUSHES, 0), 2);
	assert_int_equal(*(u64 *)phys_to_ptr(hpa(vm.pmem->region[0].hints.v + 4088)), 3);
	/* A model maps a page of its own, does not see stores, and takes all for flushed. */
	store(AT + 64, 33);
	assert_int_equal(ask(HC_PMEM_SET_MODE, HC_PMEM_MODE_DIRECT), 0);
	assert_int_equal(ask(HC_PMEM_PENDING, 0), 1);
	assert_false(store_hint(0, 9));
	assert_int_equal(ask(HC_PMEM_FLUSHES, 0), 2);
	assert_int_equal(page_at(PMEM_HINTS_BASE).type, 0);
	assert_int_equal(ask(HC_PMEM_SET_MODE, HC_PMEM_MODE_TRAP), 0);
	assert_int_equal(ask(HC_PMEM_PENDING, 0), 0);
	assert_true(store_hint(0, 2));
	assert_int_equal(ask(HC_PMEM_SET_MODE, HC_PMEM_MODE_DIRECT), 0);
	for (u64 i = 0; i < 64; i++)
		store(AT + i * 64, i + 7);
	assert_int_equal(ask(HC_PMEM_CUT, 0), 0);
	end();
	assert_int_equal(create(), 0);
	for (u64 i = 0; i < 64; i++)
		assert_int_equal(load(AT + i * 64), i + 7);
	assert_int_equal(ask(HC_PMEM_MODE, 0), HC_PMEM_MODE_TRAP);
	store(AT, 1);
	assert_int_equal(ask(HC_PMEM_PENDING, 0), 1);
	assert_int_equal(ask(HC_PMEM_SET_MODE, 3), HC_EINVAL);
	assert_int_equal(ask(HC_PMEM_SET_MODE, BIT64(32)), HC_EINVAL);
	assert_int_equal(pmem_hypercall(&vcpu, HC_PMEM_MODE, 1, 0), HC_EINVAL);
	assert_int_equal(ask(99, 0), HC_EINVAL);
	/* Emulated accesses at the page's edges and beyond. */
	pmem_window_write(&vcpu, 0, 4095, "xy", 2);
	pmem_window_write(&vcpu, 1, 0, "xy", 2);
	assert_int_equal(ask(HC_PMEM_WRITES, 0), 3);
	end();
	/* A VM without any. */
	next_id++;
	config.pmem_count = 0;
	assert_int_equal(create(), 0);
	assert_int_equal(ask(HC_PMEM_REGIONS, 0), 0);
	assert_int_equal(ask(HC_PMEM_MODE, 0), HC_EINVAL);
	assert_int_equal(pmem_device_map(&vm), 0);
	assert_int_equal(pmem_cut(&vm), ERR_INVAL);
	assert_int_equal(ask(HC_PMEM_CUT_WITHIN, 100), HC_EINVAL);
	assert_int_equal(ask(HC_PMEM_CUTS, 0), HC_EINVAL);
	end();
}

/* --- stores that nobody but the processor knows -------------------------------------------------
 */

void vcpu_step_begin(struct vcpu *v)
{
	stepping++;
}

static void test_step(void **state)
{
	struct ept_overlay *overlay = &vcpu.step.overlay;
	struct hw_page p;

	start_machine(BIT64(FEAT_EPT_AD));
	configure(BOOT_PMEM_MODEL, 2 * MIB);
	config.pmem_count = 3;
	config.pmem[1] = config.pmem[2] = config.pmem[0];
	assert_int_equal(create(), 0);
	assert_int_equal(pmem_hypercall(&vcpu, HC_PMEM_SET_MODE, 2, HC_PMEM_MODE_NONE), 0);
	store(AT + 64, 1);
	store(0x5000, 2); /* RAM */
	assert_int_equal(fault_at(PMEM_HINTS_BASE, false), FAULT_RETRY);
	stepping = 0;
	assert_true(pmem_window_step(&vcpu, 0));
	assert_int_equal(stepping, 1);
	assert_int_equal(ask(HC_PMEM_PENDING, 0), 0);
	assert_int_equal(ask(HC_PMEM_FLUSHES, 3), 1);
	/* The overlay has both pages that trap, and for the rest the view; which is as it was. */
	assert_int_not_equal(overlay->eptp, vm.space.view.eptp);
	for (u32 i = 0; i < 2; i++) {
		p = hw_walk(overlay->eptp, PMEM_HINTS_BASE + i * PMEM_HINTS_STRIDE, false, false);
		assert_int_equal(p.perms, EPT_R | EPT_W);
		assert_int_equal(p.frame, vm.pmem->region[i].hints.v);
	}
	assert_int_equal(page_at(PMEM_HINTS_BASE).perms, EPT_R);
	p = hw_walk(overlay->eptp, PMEM_HINTS_BASE + 2 * PMEM_HINTS_STRIDE, false, false);
	assert_int_equal(p.perms, 0);
	p = hw_walk(overlay->eptp, 0x5000, false, false);
	assert_int_equal(p.frame, page_at(0x5000).frame);
	assert_int_equal(p.perms, EPT_RWX);
	p = hw_walk(overlay->eptp, AT + 64, false, false);
	assert_int_equal(p.perms, EPT_R | EPT_X); /* followed as ever */
	assert_int_equal(overlay->generation, vm.space.view.generation);
	/* For an event's delivery nothing there is code. */
	ept_overlay_no_code(overlay);
	assert_int_equal(hw_walk(overlay->eptp, 0x5000, false, false).perms, EPT_R | EPT_W);
	p = hw_walk(overlay->eptp, PMEM_HINTS_BASE, false, false);
	assert_int_equal(p.perms, EPT_R | EPT_W);
	assert_int_equal(page_at(0x5000).perms, EPT_RWX);
	/* What is mapped later comes with the next copy; what is taken away shows. */
	store(AT + PAGE_SIZE, 1);
	store_hint(0, 1);
	assert_int_not_equal(overlay->generation, vm.space.view.generation);
	assert_true(pmem_window_step(&vcpu, 1));
	assert_int_equal(overlay->generation, vm.space.view.generation);
	assert_false(pmem_window_step(&vcpu, 3));
	end();
	assert_int_equal(overlay->eptp, 0);
	/* A VM without NVDIMMs has none. */
	configure(BOOT_PMEM_RAM, 2 * MIB);
	assert_int_equal(create(), 0);
	assert_int_equal(overlay->eptp, 0);
	assert_false(pmem_window_step(&vcpu, 0));
	end();
}

/* --- failures of power at some moment -----------------------------------------------------------
 */

/* Runs the VM's time until power fails, in steps that a timer makes; returns after how long. */
static u64 run_until_cut(u64 within, u64 seed)
{
	u64 start = rdtsc(), at;

	restarts = 0;
	timer_requests = 0;
	assert_int_equal(pmem_hypercall(&vcpu, HC_PMEM_CUT_WITHIN, seed, within), 0);
	assert_int_equal(timer_requests, 1);
	for (at = start; !restarts;) {
		assert_in_range(pmem_deadline(&vm), at, start + within + 10000000);
		at = pmem_deadline(&vm);
		pmem_tick(&vcpu, at - 1); /* nothing is due yet */
		assert_int_equal(pmem_deadline(&vm), at);
		assert_int_equal(restarts, 0);
		pmem_tick(&vcpu, at);
	}
	assert_int_equal(restarts, 1);
	assert_int_equal(pmem_deadline(&vm), ~0ull);
	end();
	assert_int_equal(create(), 0);
	assert_int_equal(pmem_deadline(&vm), ~0ull);
	return at - start;
}

#define WINDOW BIT64(40) /* the host's own speed is nothing beside it */

static void test_cut_within(void **state)
{
	u64 first[8], early = 0, mixed = 0;

	start_machine(0);
	configure(BOOT_PMEM_MODEL, 2 * MIB);
	assert_int_equal(create(), 0);
	for (u32 i = 0; i < 64; i++) {
		u64 after, last = 0, kept = 0;

		for (u64 line = 0; line < 64; line++)
			store(AT + line * 64, i * 2);
		store_hint(0, 1);
		for (u64 line = 0; line < 64; line++)
			store(AT + line * 64, i * 2 + 1);
		after = run_until_cut(WINDOW, i < 8 ? i + 5 : 0);
		assert_int_equal(ask(HC_PMEM_CUTS, 0), i + 1);
		if (i < 8)
			first[i] = after;
		early += after < WINDOW / 2;
		for (u64 line = 0; line < 64; line++) {
			last = load(AT + line * 64);
			assert_in_range(last, i * 2, i * 2 + 1);
			kept += last == i * 2 + 1;
		}
		mixed += kept && kept < 64;
		assert_int_equal(ask(HC_PMEM_PENDING, 0), 0);
	}
	assert_in_range(early, 16, 48);
	assert_in_range(mixed, 16, 64);
	/* The same seed, the same moment. */
	for (u32 i = 0; i < 8; i++)
		assert_in_range(run_until_cut(WINDOW, i + 5), first[i] - WINDOW / 1000,
				first[i] + WINDOW / 1000);
	/* Called off; replaced; too long; another vCPU's timer. */
	assert_int_equal(pmem_hypercall(&vcpu, HC_PMEM_CUT_WITHIN, 1, 1000), 0);
	assert_int_equal(pmem_hypercall(&vcpu, HC_PMEM_CUT_WITHIN, 1, WINDOW), 0);
	assert_true(pmem_deadline(&vm) > rdtsc() + 100000);
	vcpu.index = 1;
	restarts = 0;
	pmem_tick(&vcpu, ~0ull - 1);
	vcpu.index = 0;
	assert_int_equal(restarts, 0);
	assert_int_equal(pmem_hypercall(&vcpu, HC_PMEM_CUT_WITHIN, 1, 0), 0);
	assert_int_equal(pmem_deadline(&vm), ~0ull);
	pmem_tick(&vcpu, ~0ull - 1);
	assert_int_equal(restarts, 0);
	assert_int_equal(ask(HC_PMEM_CUT_WITHIN, BIT64(48) + 1), HC_EINVAL);
	end();
}

/* The other region becomes what this one would be found as, and the VM goes on. */
static void test_image(void **state)
{
	u64 kept = 0;

	start_machine(0);
	configure(BOOT_PMEM_MODEL, 2 * MIB);
	config.pmem_count = 2;
	config.pmem[1] = (struct boot_pmem){.source = BOOT_PMEM_MODEL, .bytes = 2 * MIB};
	assert_int_equal(create(), 0);
	assert_int_equal(ask(HC_PMEM_IMAGE, 2), HC_EINVAL);
	assert_int_equal(ask(HC_PMEM_IMAGE, 1), 0);
	restarts = 0;
	for (u32 i = 1; i <= 64; i++) {
		for (u64 line = 0; line < 64; line++)
			store(AT + line * 64, i * 2);
		store_hint(0, 1);
		for (u64 line = 0; line < 64; line++)
			store(AT + line * 64, i * 2 + 1);
		assert_int_equal(ask(HC_PMEM_CUT_WITHIN, 1000), 0);
		while (pmem_deadline(&vm) != ~0ull)
			pmem_tick(&vcpu, pmem_deadline(&vm));
		assert_int_equal(ask(HC_PMEM_IMAGES, 0), i);
		for (u64 line = 0; line < 64; line++) {
			assert_in_range(load(AT + GIB + line * 64), i * 2, i * 2 + 1);
			assert_int_equal(load(AT + line * 64), i * 2 + 1);
			kept += load(AT + GIB + line * 64) == i * 2 + 1;
		}
	}
	assert_in_range(kept, 64 * 8, 64 * 56);
	assert_true(ask(HC_PMEM_IMAGE_TSC, 0) || ask(HC_PMEM_IMAGE_TSC, 1));
	assert_int_equal(ask(HC_PMEM_IMAGE_TSC, 4), HC_EINVAL);
	assert_int_equal(restarts, 0);
	/* No longer; and not in the next life. */
	assert_int_equal(ask(HC_PMEM_IMAGE, 0), 0);
	run_until_cut(1000, 0);
	assert_int_equal(ask(HC_PMEM_IMAGE, 1), 0);
	end();
	assert_int_equal(create(), 0);
	run_until_cut(1000, 0);
	assert_int_equal(ask(HC_PMEM_IMAGES, 0), 64);
	end();
}

/* --- lent RAM -----------------------------------------------------------------------------------
 */

static void test_ram(void **state)
{
	u8 nfit[VNFIT_MAX];
	u32 n;

	start_machine(BIT64(FEAT_EPT_AD));
	configure(BOOT_PMEM_RAM, 4 * MIB);
	config.pmem_count = 2;
	config.pmem[1] = (struct boot_pmem){.source = BOOT_PMEM_RAM, .bytes = 2 * MIB};
	assert_int_equal(create(), 0);
	assert_int_equal(pmem_device_map(&vm), 0); /* no NVDIMMs */
	n = pmem_nfit(&vm, nfit);
	assert_in_range(n, 1, VNFIT_MAX);
	assert_memory_equal(nfit + 16, guid_volatile, 16);
	assert_int_equal(ask(HC_PMEM_MODE, 0), HC_PMEM_MODE_NONE);
	assert_int_equal(ask(HC_PMEM_CONTROLLERS, 0), 0);
	assert_int_equal(fault_at(PMEM_HINTS_BASE, true), FAULT_EMULATE);
	assert_int_equal(fault_at(PMEM_LABELS_BASE, true), FAULT_EMULATE);
	pmem_window_write(&vcpu, 0, 0, "x", 1);
	store(AT + 3 * MIB, 7);
	assert_int_equal(page_at(AT + 3 * MIB).shift, 21);
	store(AT + GIB, 8); /* each region begins at a boundary */
	assert_int_equal(fault_at(AT + GIB + 2 * MIB, true), FAULT_EMULATE);
	end();
	assert_int_equal(create(), 0);
	assert_int_equal(load(AT + 3 * MIB), 7);
	assert_int_equal(load(AT + GIB), 8);
	end();
	/* More than there is. */
	configure(BOOT_PMEM_RAM, 128 * MIB);
	assert_int_equal(create(), ERR_NOMEM);
	end();
	configure(BOOT_PMEM_MODEL, 40 * MIB);
	assert_int_equal(create(), ERR_NOMEM);
	end();
}

/* --- the host's ---------------------------------------------------------------------------------
 */

static void host_table(u32 hints)
{
	nfit_begin(&table);
	nfit_add_spa(&table, 1, guid_persistent, RANGE, 8 * MIB);
	nfit_add_mapping(&table, 1, 1, 0, 8 * MIB);
	if (hints)
		nfit_add_hints(&table, 1, (u16)hints, HINTS + 8, 64);
	nfit_add_caps(&table, 1, NFIT_CAP_MEMORY_FLUSH);
	have_table = true;
	start_machine(BIT64(FEAT_EPT_AD));
}

static u64 host_hint(u32 n)
{
	return *(u64 *)phys_to_ptr(hpa(HINTS + 8 + n * 64));
}

/* Whoever asks for memory, and whatever for, gets none of it. */
static void test_never_ordinary(void **state)
{
	u64 pages = 0;
	hpa_t page;

	host_table(0);
	while (!frame_alloc_page(FRAME_HV, &page)) {
		assert_false(page.v >= RANGE && page.v < RANGE + 8 * MIB);
		pages++;
	}
	assert_in_range(pages, (RANGE + 6 * MIB) / PAGE_SIZE, (RANGE + 7 * MIB) / PAGE_SIZE);
	assert_int_equal(frame_owner(hpa(RANGE)), FRAME_NOT_RAM);
}

static void test_host(void **state)
{
	host_table(2);
	assert_int_equal(uncached, HINTS);
	configure(BOOT_PMEM_HOST, 0);
	config.pmem[0].direct = 1;
	assert_int_equal(create(), 0);
	assert_int_equal(ask(HC_PMEM_MODE, 0), HC_PMEM_MODE_TRAP); /* two hints: not direct */
	store(AT + 8 * MIB - 8, 77);
	assert_int_equal(*(u64 *)phys_to_ptr(hpa(RANGE + 8 * MIB - 8)), 77);
	assert_int_equal(page_at(AT).shift, 21);
	assert_true(store_hint(0, 1));
	assert_int_equal(host_hint(0), 1);
	assert_int_equal(host_hint(1), 1);
	assert_int_equal(ask(HC_PMEM_FLUSHES, 0), 1);
	/* Real controllers are not left out, and power does not fail because a guest says so. */
	assert_int_equal(ask(HC_PMEM_SET_MODE, HC_PMEM_MODE_NONE), HC_EINVAL);
	assert_int_equal(ask(HC_PMEM_CUT, 0), HC_EINVAL);
	end();
	/* Its range is taken. */
	u32 id = next_id;

	configure(BOOT_PMEM_HOST, 0);
	assert_int_equal(create(), ERR_NODEV);
	end();
	configure(BOOT_PMEM_HOST, 0);
	config.pmem[0].range = 2;
	assert_int_equal(create(), ERR_NODEV);
	end();
	/* But not from the one who has it. */
	configure(BOOT_PMEM_HOST, 0);
	next_id = id;
	assert_int_equal(create(), 0);
	assert_int_equal(load(AT + 8 * MIB - 8), 77);
	end();
}

static void test_direct(void **state)
{
	host_table(1);
	next_id = 20;
	configure(BOOT_PMEM_HOST, 0);
	config.pmem[0].direct = 1;
	assert_int_equal(create(), 0);
	assert_int_equal(ask(HC_PMEM_MODE, 0), HC_PMEM_MODE_DIRECT);
	assert_false(store_hint(8, 6));
	assert_int_equal(host_hint(0), 6); /* the device's own register */
	assert_int_equal(page_at(PMEM_HINTS_BASE).type, 0);
	assert_int_equal(page_at(PMEM_HINTS_BASE).perms, 3);
	assert_int_equal(ask(HC_PMEM_SET_MODE, HC_PMEM_MODE_TRAP), 0);
	assert_true(store_hint(8, 7));
	assert_int_equal(host_hint(0), 1);
	assert_int_equal(ask(HC_PMEM_SET_MODE, HC_PMEM_MODE_DIRECT), 0);
	assert_false(store_hint(16, 8));
	end();
	/* Not unless the user vouches for the page. */
	host_table(1);
	configure(BOOT_PMEM_HOST, 0);
	assert_int_equal(create(), 0);
	assert_int_equal(ask(HC_PMEM_MODE, 0), HC_PMEM_MODE_TRAP);
	end();
	/* No hints at all: nothing to do, and what the platform says is passed on. */
	host_table(0);
	configure(BOOT_PMEM_HOST, 0);
	assert_int_equal(create(), 0);
	assert_int_equal(ask(HC_PMEM_MODE, 0), HC_PMEM_MODE_NONE);
	assert_false(store_hint(8, 6));
	u8 nfit[VNFIT_MAX];
	u32 n = pmem_nfit(&vm, nfit);

	assert_int_equal(nfit[n - 8], NFIT_CAP_MEMORY_FLUSH);
	end();
}

static void test_bad_host(void **state)
{
	host_table(1);
	/* In use as memory: firmware that says two things. */
	boot.memory[1].type = BOOT_MEM_USABLE;
	configure(BOOT_PMEM_HOST, 0);
	assert_int_equal(create(), ERR_NODEV);
	end();
	/* A hint in the middle of RAM. */
	nfit_begin(&table);
	nfit_add_spa(&table, 1, guid_persistent, RANGE, 8 * MIB);
	nfit_add_hints(&table, 1, 1, 2 * MIB, 64);
	start_machine(0);
	configure(BOOT_PMEM_HOST, 0);
	assert_int_equal(create(), ERR_NODEV);
	end();
	/* A broken table is none. */
	host_table(1);
	table.bytes[60] ^= 1;
	start_machine(0);
	configure(BOOT_PMEM_HOST, 0);
	assert_int_equal(create(), ERR_NODEV);
	end();
}

static int teardown(void **state)
{
	host_memory_release();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model),	   cmocka_unit_test(test_modes),
		cmocka_unit_test(test_cut_within), cmocka_unit_test(test_step),
		cmocka_unit_test(test_image),	   cmocka_unit_test(test_ram),
		cmocka_unit_test(test_host),	   cmocka_unit_test(test_direct),
		cmocka_unit_test(test_bad_host),   cmocka_unit_test(test_never_ordinary),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}
