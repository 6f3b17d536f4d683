/* hv/mem/frame.c: placement, ownership, exhaustion, and a long random comparison with a plain
 * model. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/panic.h"
#include "mem/frame.h"

static jmp_buf panic_jump;
static int panics;

__noreturn void panic(const char *fmt, ...)
{
	panics++;
	longjmp(panic_jump, 1);
}

/* Runs a statement that has to panic. The pool's lock stays taken: end of that test. */
#define ASSERT_PANICS(statement)               \
	do {                                   \
		panics = 0;                    \
		if (setjmp(panic_jump) == 0) { \
			statement;             \
		}                              \
		assert_int_equal(panics, 1);   \
	} while (0)

static struct boot_info boot;

static void add_range(u64 base, u64 bytes, u32 type)
{
	boot.memory[boot.memory_count++] = (struct boot_range){base, bytes, type, 0};
}

static void start(void)
{
	host_memory_release();
	memset(&boot, 0, sizeof(boot));
}

/* 640 KiB, hole, 1 MiB to 48 MiB with firmware and image in between, and 60 to 64 MiB. */
static void start_small(void)
{
	start();
	host_memory_init(64 * MIB);
	add_range(0, 0xa0000, BOOT_MEM_USABLE);
	add_range(0xf0000, 0x10000, BOOT_MEM_RESERVED);
	add_range(1 * MIB, 7 * MIB, BOOT_MEM_USABLE);
	add_range(8 * MIB, 2 * MIB, BOOT_MEM_UMBRA);
	add_range(10 * MIB, 10 * MIB, BOOT_MEM_USABLE);
	add_range(20 * MIB, 12 * KIB, BOOT_MEM_NVS);
	add_range(20 * MIB + 12 * KIB, 28 * MIB - 12 * KIB, BOOT_MEM_USABLE);
	add_range(60 * MIB, 4 * MIB, BOOT_MEM_USABLE);
	add_range(128 * MIB, 4 * MIB, BOOT_MEM_MMIO);
	frame_init(&boot);
}

static struct frame_stats stats(void)
{
	struct frame_stats s;

	frame_stats(&s);
	return s;
}

static void test_init_owners(void **state)
{
	u64 table = 1 * MIB, frames = 64 * MIB / PAGE_SIZE;
	u64 table_pages = ALIGN_UP((frames + frames / 512) * 2, PAGE_SIZE) / PAGE_SIZE;

	start_small();
	assert_int_equal(frame_owner(hpa(0)), FRAME_NOT_RAM);
	assert_int_equal(frame_owner(hpa(0x9f000)), FRAME_NOT_RAM);
	assert_int_equal(frame_owner(hpa(table)), FRAME_HV);
	assert_int_equal(frame_owner(hpa(table + (table_pages - 1) * PAGE_SIZE)), FRAME_HV);
	assert_int_equal(frame_owner(hpa(table + table_pages * PAGE_SIZE)), FRAME_FREE);
	assert_int_equal(frame_owner(hpa(8 * MIB - 1)), FRAME_FREE);
	assert_int_equal(frame_owner(hpa(8 * MIB)), FRAME_BOOT);
	assert_int_equal(frame_owner(hpa(10 * MIB - 1)), FRAME_BOOT);
	assert_int_equal(frame_owner(hpa(20 * MIB)), FRAME_NOT_RAM);
	assert_int_equal(frame_owner(hpa(20 * MIB + 12 * KIB)), FRAME_FREE);
	assert_int_equal(frame_owner(hpa(50 * MIB)), FRAME_NOT_RAM);
	assert_int_equal(frame_owner(hpa(64 * MIB)), FRAME_NOT_RAM);
	assert_int_equal(frame_owner(hpa(130 * MIB)), FRAME_NOT_RAM);
	assert_int_equal(frame_owner(hpa(~0ull)), FRAME_NOT_RAM);
	assert_int_equal(stats().hv, table_pages);
	assert_int_equal(stats().boot, 512);
	assert_int_equal(stats().total, (47 + 4) * 256 - 3);
	assert_int_equal(stats().free, (47 + 4) * 256 - 3 - 512 - table_pages);
}

static void test_init_odd_ranges(void **state)
{
	start();
	host_memory_init(16 * MIB);
	/* Not page-aligned: free memory shrinks, other claims grow; overlaps lose to the claim. */
	add_range(1 * MIB + 1, 4 * MIB, BOOT_MEM_USABLE);
	add_range(3 * MIB + 5, 1, BOOT_MEM_RESERVED);
	add_range(4 * MIB - 1, 2, BOOT_MEM_UMBRA);
	add_range(6 * MIB + 100, PAGE_SIZE, BOOT_MEM_USABLE);
	frame_init(&boot);
	assert_int_equal(frame_owner(hpa(1 * MIB)), FRAME_NOT_RAM);
	assert_int_equal(frame_owner(hpa(1 * MIB + PAGE_SIZE)), FRAME_HV);
	assert_int_equal(frame_owner(hpa(3 * MIB)), FRAME_NOT_RAM);
	assert_int_equal(frame_owner(hpa(3 * MIB + PAGE_SIZE)), FRAME_FREE);
	assert_int_equal(frame_owner(hpa(4 * MIB - 1)), FRAME_BOOT);
	assert_int_equal(frame_owner(hpa(4 * MIB)), FRAME_BOOT);
	assert_int_equal(frame_owner(hpa(5 * MIB)), FRAME_NOT_RAM);
	assert_int_equal(frame_owner(hpa(6 * MIB)), FRAME_NOT_RAM);

	/* No room for the table itself. */
	start();
	host_memory_init(2 * MIB);
	add_range(0, 1 * MIB, BOOT_MEM_USABLE);
	add_range(1 * MIB, PAGE_SIZE, BOOT_MEM_UMBRA);
	ASSERT_PANICS(frame_init(&boot));
}

static void test_placement(void **state)
{
	hpa_t small, page, large, odd;
	u64 top = 64 * MIB;

	start_small();
	assert_int_equal(frame_alloc_page(FRAME_HV, &page), 0);
	assert_int_equal(frame_alloc(FRAME_HV, 5000, PAGE_SIZE, &small), 0);
	assert_int_equal(small.v, page.v + PAGE_SIZE); /* from the bottom, side by side */
	assert_true(page.v < 2 * MIB);
	assert_int_equal(frame_owner(hpa(small.v + PAGE_SIZE)), FRAME_HV);
	assert_int_equal(frame_owner(hpa(small.v + 2 * PAGE_SIZE)), FRAME_FREE);

	assert_int_equal(frame_alloc(FRAME_VM_BASE, SIZE_2M, SIZE_2M, &large), 0);
	assert_int_equal(large.v, top - SIZE_2M); /* from the top */
	assert_int_equal(frame_alloc(FRAME_VM_BASE, SIZE_2M, SIZE_2M, &large), 0);
	assert_int_equal(large.v, top - 2 * SIZE_2M);
	assert_int_equal(frame_alloc(FRAME_VM_BASE, 3 * SIZE_2M, 2 * SIZE_2M, &large), 0);
	assert_int_equal(large.v, 40 * MIB); /* over the hole, aligned to 4 MiB */
	assert_int_equal(frame_alloc(FRAME_VM_BASE, SIZE_2M + 1, PAGE_SIZE, &odd), 0);
	assert_int_equal(odd.v, 36 * MIB);
	assert_int_equal(frame_owner(hpa(38 * MIB)), FRAME_VM_BASE);
	assert_int_equal(frame_owner(hpa(38 * MIB + PAGE_SIZE)), FRAME_FREE);

	/* What was freed at the top is used again first. */
	frame_free(FRAME_VM_BASE, hpa(62 * MIB), SIZE_2M);
	assert_int_equal(frame_alloc(FRAME_VM_BASE, SIZE_2M, SIZE_2M, &large), 0);
	assert_int_equal(large.v, 62 * MIB);
	/* And at the bottom. */
	frame_free(FRAME_HV, page, PAGE_SIZE);
	assert_int_equal(frame_alloc_page(FRAME_HV, &small), 0);
	assert_int_equal(small.v, page.v);
	/* Small but strictly aligned. */
	assert_int_equal(frame_alloc(FRAME_HV, PAGE_SIZE, SIZE_2M, &small), 0);
	assert_int_equal(small.v, 2 * MIB);
}

static void test_page_is_zero(void **state)
{
	hpa_t page;
	u8 *p;

	start_small();
	assert_int_equal(frame_alloc_page(FRAME_HV, &page), 0);
	memset(phys_to_ptr(page), 0xaa, PAGE_SIZE);
	frame_free(FRAME_HV, page, PAGE_SIZE);
	assert_int_equal(frame_alloc_page(FRAME_HV, &page), 0);
	p = phys_to_ptr(page);
	for (u64 i = 0; i < PAGE_SIZE; i++)
		assert_int_equal(p[i], 0);
	memset(p, 0xaa, PAGE_SIZE);
	heap_free(p, 1);
	p = heap_alloc(2 * PAGE_SIZE - 1);
	assert_ptr_equal(p, phys_to_ptr(page));
	for (u64 i = 0; i < 2 * PAGE_SIZE; i++)
		assert_int_equal(p[i], 0);
	heap_free(NULL, 5);
	assert_null(heap_alloc(0));
	assert_null(heap_alloc(1 * GIB));
	assert_null(heap_alloc(~0ull));
}

static void test_exhaustion(void **state)
{
	struct frame_stats before;
	hpa_t a;
	u64 n = 0;

	start_small();
	before = stats();
	assert_int_equal(frame_alloc(FRAME_VM_BASE, 49 * MIB, PAGE_SIZE, &a), ERR_NOMEM);
	assert_int_equal(frame_alloc(FRAME_VM_BASE, SIZE_2M, SIZE_1G, &a), ERR_NOMEM);
	assert_int_equal(frame_alloc(FRAME_VM_BASE, ~0ull, PAGE_SIZE, &a), ERR_NOMEM);
	assert_int_equal(stats().free, before.free);
	while (frame_alloc(FRAME_VM_BASE + 1, SIZE_2M, SIZE_2M, &a) == 0)
		n++;
	assert_int_equal(n, 3 + 5 + 13 + 2);
	assert_int_equal(frame_alloc(FRAME_VM_BASE, SIZE_2M, PAGE_SIZE, &a), ERR_NOMEM);
	while (frame_alloc_page(FRAME_VM_BASE + 2, &a) == 0)
		n++;
	assert_int_equal(stats().free, 0);
	assert_int_equal(frame_free_all(FRAME_VM_BASE + 1), 23 * 512);
	assert_int_equal(stats().free, 23 * 512);
	assert_int_equal(frame_alloc(FRAME_VM_BASE, 26 * MIB, 2 * SIZE_2M, &a), ERR_NOMEM);
	assert_int_equal(frame_alloc(FRAME_VM_BASE, 24 * MIB, 2 * SIZE_2M, &a), 0);
	assert_int_equal(a.v, 24 * MIB);
	frame_free_all(FRAME_VM_BASE);
	frame_free_all(FRAME_VM_BASE + 2);
	assert_int_equal(frame_free_all(FRAME_VM_BASE + 2), 0);
	assert_int_equal(stats().free, before.free);
	assert_int_equal(stats().total, before.total);
}

/* 2 MiB and more that exists only across two chunks, neither of them free as a whole. */
static void test_straddling_run(void **state)
{
	hpa_t a;

	start();
	host_memory_init(16 * MIB);
	add_range(1 * MIB, 512 * KIB, BOOT_MEM_USABLE);
	add_range(5 * MIB, 2 * MIB, BOOT_MEM_USABLE);
	frame_init(&boot);
	assert_int_equal(frame_alloc(FRAME_VM_BASE, SIZE_2M, PAGE_SIZE, &a), 0);
	assert_int_equal(a.v, 5 * MIB);
}

static void test_wrong_frees(void **state)
{
	hpa_t a;

	start_small();
	assert_int_equal(frame_alloc(FRAME_VM_BASE, 4 * PAGE_SIZE, PAGE_SIZE, &a), 0);
	ASSERT_PANICS(frame_free(FRAME_VM_BASE, hpa(a.v + 1), PAGE_SIZE));
	ASSERT_PANICS(frame_free(FRAME_FREE, a, PAGE_SIZE));
	ASSERT_PANICS(frame_free(FRAME_VM_BASE, hpa(1 * GIB), PAGE_SIZE));
	ASSERT_PANICS(frame_free(FRAME_VM_BASE, a, 1 * GIB));
	ASSERT_PANICS(frame_alloc(FRAME_FREE, PAGE_SIZE, PAGE_SIZE, &a));
	ASSERT_PANICS(frame_alloc(FRAME_NOT_RAM, PAGE_SIZE, PAGE_SIZE, &a));
	ASSERT_PANICS(frame_alloc(FRAME_HV, PAGE_SIZE, 3 * PAGE_SIZE, &a));
	ASSERT_PANICS(frame_alloc(FRAME_HV, PAGE_SIZE, 512, &a));
	ASSERT_PANICS(frame_alloc(FRAME_HV, 0, PAGE_SIZE, &a));
	ASSERT_PANICS(frame_free(FRAME_VM_BASE + 1, a, PAGE_SIZE));
	start_small();
	assert_int_equal(frame_alloc(FRAME_VM_BASE, 4 * PAGE_SIZE, PAGE_SIZE, &a), 0);
	ASSERT_PANICS(frame_free(FRAME_VM_BASE, a, 5 * PAGE_SIZE)); /* runs into a free frame */
}

/* --- random operations against an array of owners --------------------------------------------- */

#define MODEL_FRAMES (64 * MIB / PAGE_SIZE)

static u16 model[MODEL_FRAMES];

static u64 next_random(u64 *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static bool model_has_run(u64 n, u64 align)
{
	for (u64 at = 0; at + n <= MODEL_FRAMES; at += align) {
		u64 i = 0;

		while (i < n && model[at + i] == FRAME_FREE)
			i++;
		if (i == n)
			return true;
	}
	return false;
}

static void model_compare(void)
{
	struct frame_stats want = {0}, got = stats();

	for (u64 f = 0; f < MODEL_FRAMES; f++) {
		if (frame_owner(hpa(f * PAGE_SIZE)) != model[f])
			fail_msg("frame %#llx: owner %#x, model %#x", (unsigned long long)f,
				 frame_owner(hpa(f * PAGE_SIZE)), model[f]);
		want.total += model[f] != FRAME_NOT_RAM;
		want.free += model[f] == FRAME_FREE;
		want.hv += model[f] == FRAME_HV;
		want.boot += model[f] == FRAME_BOOT;
	}
	assert_memory_equal(&got, &want, sizeof(got));
}

static void random_alloc(u64 *seed, frame_owner_t owner)
{
	static const u16 frames[] = {1, 1, 1, 2, 3, 17, 500, 511, 512, 513, 1024, 1536, 2000};
	u64 n = frames[next_random(seed) % ARRAY_SIZE(frames)];
	u64 align = 1ull << next_random(seed) % 12;
	hpa_t out;
	int err = frame_alloc(owner, n * PAGE_SIZE - next_random(seed) % 4096, align * PAGE_SIZE,
			      &out);

	if (err) {
		assert_int_equal(err, ERR_NOMEM);
		assert_false(model_has_run(n, align));
		return;
	}
	assert_true(IS_ALIGNED(out.v, align * PAGE_SIZE));
	for (u64 f = out.v / PAGE_SIZE; f < out.v / PAGE_SIZE + n; f++) {
		assert_int_equal(model[f], FRAME_FREE);
		model[f] = owner;
	}
}

static void random_free(u64 *seed)
{
	u64 first = next_random(seed) % MODEL_FRAMES, n = 0, want = 1 + next_random(seed) % 700;
	frame_owner_t owner = model[first];

	if (owner < FRAME_HV)
		return;
	if (owner == FRAME_HV && first * PAGE_SIZE < 1 * MIB + 64 * KIB)
		return; /* the table itself */
	while (n < want && first + n < MODEL_FRAMES && model[first + n] == owner)
		model[first + n++] = FRAME_FREE;
	frame_free(owner, hpa(first * PAGE_SIZE), n * PAGE_SIZE);
}

static void test_random(void **state)
{
	u64 seed = 0x9e3779b97f4a7c15;

	start_small();
	for (u64 f = 0; f < MODEL_FRAMES; f++)
		model[f] = frame_owner(hpa(f * PAGE_SIZE));
	for (int round = 0; round < 20000; round++) {
		frame_owner_t owner = FRAME_VM_BASE + next_random(&seed) % 4;
		u64 what = next_random(&seed) % 1000;

		if (what == 0) {
			u64 n = 0;

			for (u64 f = 0; f < MODEL_FRAMES; f++) {
				n += model[f] == owner;
				model[f] = model[f] == owner ? FRAME_FREE : model[f];
			}
			assert_int_equal(frame_free_all(owner), n);
		} else if (what < 500) {
			random_alloc(&seed, what < 50 ? FRAME_HV : owner);
		} else {
			random_free(&seed);
		}
		if (round % 50 == 0)
			model_compare();
	}
	model_compare();
}

/* --- large machines, many CPUs ---------------------------------------------------------------- */

static void test_many_gib(void **state)
{
	hpa_t a;
	u64 n = 0;

	start();
	host_memory_init(128 * GIB);
	add_range(1 * MIB, 3 * GIB - 1 * MIB, BOOT_MEM_USABLE);
	add_range(4 * GIB, 124 * GIB, BOOT_MEM_USABLE);
	alarm(60); /* a search that starts over each time takes far longer */
	frame_init(&boot);
	assert_int_equal(frame_alloc(FRAME_VM_BASE, 50 * GIB, SIZE_1G, &a), 0);
	assert_int_equal(a.v, 78 * GIB);
	for (u64 i = 0; i < 74; i++)
		assert_int_equal(frame_alloc(FRAME_VM_BASE, SIZE_1G, SIZE_1G, &a), 0);
	assert_int_equal(a.v, 4 * GIB);
	assert_int_equal(frame_alloc(FRAME_VM_BASE + 1, SIZE_1G, SIZE_1G, &a), 0);
	assert_int_equal(a.v, 2 * GIB);
	assert_int_equal(frame_alloc(FRAME_VM_BASE + 1, SIZE_1G, SIZE_1G, &a), 0);
	assert_int_equal(frame_alloc(FRAME_VM_BASE + 1, SIZE_1G, SIZE_1G, &a), ERR_NOMEM);
	assert_int_equal(frame_free_all(FRAME_VM_BASE), 124 * GIB / PAGE_SIZE);
	while (frame_alloc(FRAME_VM_BASE, SIZE_2M, SIZE_2M, &a) == 0)
		n++;
	assert_in_range(n, 62 * 1024 + 512 - 64, 62 * 1024 + 512 - 1);
	alarm(0);
	host_memory_release();
}

#define THREADS 2

static void *hammer(void *arg)
{
	frame_owner_t owner = FRAME_VM_BASE + (uintptr_t)arg;
	u64 seed = 1000 + (uintptr_t)arg;

	for (int round = 0; round < 1500; round++) {
		u64 bytes = (1 + next_random(&seed) % 600) * PAGE_SIZE;
		hpa_t a;

		if (frame_alloc(owner, bytes, PAGE_SIZE, &a) != 0)
			continue;
		memset(phys_to_ptr(a), (int)owner, 64);
		if (frame_owner(a) != owner || *(u8 *)phys_to_ptr(a) != (u8)owner)
			abort();
		if (next_random(&seed) % 8)
			frame_free(owner, a, bytes);
		else if (round % 100 == 99)
			frame_free_all(owner);
	}
	frame_free_all(owner);
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t thread[THREADS];
	u64 free;

	start_small();
	free = stats().free;
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, hammer, (void *)i), 0);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(thread[i], NULL), 0);
	assert_int_equal(stats().free, free);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_init_owners), cmocka_unit_test(test_init_odd_ranges),
		cmocka_unit_test(test_placement),   cmocka_unit_test(test_page_is_zero),
		cmocka_unit_test(test_exhaustion),  cmocka_unit_test(test_straddling_run),
		cmocka_unit_test(test_wrong_frees), cmocka_unit_test(test_random),
		cmocka_unit_test(test_many_gib),    cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
