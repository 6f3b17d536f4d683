/*
 * hv/pmem/medium.c and model.c: real hints are stored to, all of them; the model keeps back what
 * has not been flushed, by controller and by line, and a power cut leaves only states that real
 * hardware could leave.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <cmocka.h>

#include "nfit_table.h"
#include "pmem/medium.h"
#include "pmem/model.h"
#include "pmem/nfit.h"

#define BASE  0x100000
#define BYTES (256 * KIB)
#define IMAGE 0x180000

static struct medium m;
static u8 *stored;
static u64 written[BYTES / PAGE_SIZE / 64 + 1]; /* marks_bytes() */

static u8 *live(u64 offset)
{
	return (u8 *)phys_to_ptr(hpa(BASE)) + offset;
}

static void start(u32 controllers, u64 seed)
{
	host_memory_release();
	host_memory_init(4 * MIB);
	free(stored);
	stored = calloc(1, BYTES);
	memset(written, 0, sizeof(written));
	medium_init_model(&m, hpa(BASE), BYTES, controllers, seed, stored, written);
}

static void store(u64 offset, u64 value)
{
	memcpy(live(offset), &value, 8);
	medium_written(&m, offset, 8);
}

static u64 on_medium(u64 offset)
{
	u64 value;

	memcpy(&value, stored + offset, 8);
	return value;
}

static int teardown(void **state)
{
	host_memory_release();
	free(stored);
	stored = NULL;
	return 0;
}

/* --- real ---------------------------------------------------------------------------------------
 */

#define HINTS 0x200000

static u64 hint_value(u64 at)
{
	return *(u64 *)phys_to_ptr(hpa(at));
}

static void test_real(void **state)
{
	struct nfit_table table;
	static struct nfit nfit;
	const char *why;
	u32 where;

	host_memory_release();
	host_memory_init(4 * MIB);
	nfit_begin(&table);
	nfit_add_spa(&table, 1, guid_persistent, BASE, BYTES);
	nfit_add_spa(&table, 2, guid_persistent, BASE + BYTES, BYTES);
	nfit_add_mapping(&table, 1, 1, 0, BYTES);
	nfit_add_mapping(&table, 2, 1, 0, BYTES);
	nfit_add_mapping(&table, 3, 2, 0, BYTES);
	nfit_add_hints(&table, 1, 2, HINTS, 64);
	nfit_add_hints(&table, 2, 3, HINTS + 0x1000, 8);
	nfit_add_hints(&table, 3, 1, HINTS + 0x2000, 8);
	nfit_add_caps(&table, 1, NFIT_CAP_MEMORY_FLUSH);
	assert_int_equal(nfit_parse(table.bytes, table.length, &nfit, &why, &where), 0);
	assert_int_equal(medium_init_real(&m, &nfit, &nfit.range[0], true), 0);
	assert_int_equal(m.controllers, 2);
	assert_int_equal(m.hints, 5);
	assert_int_equal(m.direct.v, 0);
	assert_int_equal(m.caps, NFIT_CAP_MEMORY_FLUSH);
	medium_flush(&m);
	assert_int_equal(m.flushes[0], 1);
	assert_int_equal(m.flushes[1], 1);
	for (u32 i = 0; i < 2; i++)
		assert_int_equal(hint_value(HINTS + i * 64), 1);
	for (u32 i = 0; i < 3; i++)
		assert_int_equal(hint_value(HINTS + 0x1000 + i * 8), 1);
	assert_int_equal(hint_value(HINTS + 0x1018), 0);
	assert_int_equal(hint_value(HINTS + 0x2000), 0); /* of another range */
	/* The other range has one hint, but it is not the only one of the host. */
	assert_int_equal(medium_init_real(&m, &nfit, &nfit.range[1], true), 0);
	assert_int_equal(m.hints, 1);
	assert_int_equal(m.direct.v, 0);
	medium_flush(&m);
	assert_int_equal(hint_value(HINTS + 0x2000), 1);
}

/* NVDIMMs behind one controller have the same hints: each is stored to once. */
static void test_shared(void **state)
{
	struct nfit_table table;
	static struct nfit nfit;
	const char *why;
	u32 where;

	nfit_begin(&table);
	nfit_add_spa(&table, 1, guid_persistent, BASE, BYTES);
	for (u32 i = 1; i <= 2 * MEDIUM_CONTROLLERS; i++) {
		nfit_add_mapping(&table, i, 1, 0, 4096);
		nfit_add_hints(&table, i, 2, HINTS + (i - 1) / 2 * 16, 8);
	}
	assert_int_equal(nfit_parse(table.bytes, table.length, &nfit, &why, &where), 0);
	assert_int_equal(medium_init_real(&m, &nfit, &nfit.range[0], true), 0);
	assert_int_equal(m.controllers, MEDIUM_CONTROLLERS);
	assert_int_equal(m.hints, 2 * MEDIUM_CONTROLLERS);
	for (u32 i = 0; i < m.hints; i++)
		assert_int_equal(m.hint[i], HINTS + i * 8);
	assert_int_equal(m.first_hint[1], 2);
	assert_int_equal(m.first_hint[m.controllers], m.hints);
	assert_int_equal(m.direct.v, 0);
	/* Some of them. */
	nfit_begin(&table);
	nfit_add_spa(&table, 1, guid_persistent, BASE, BYTES);
	for (u32 i = 0; i < 2; i++) {
		nfit_add_mapping(&table, i, 1, 0, 4096);
		nfit_add_hints(&table, i, 2, HINTS + i * 8, 8);
	}
	assert_int_equal(nfit_parse(table.bytes, table.length, &nfit, &why, &where), 0);
	assert_int_equal(medium_init_real(&m, &nfit, &nfit.range[0], true), 0);
	assert_true(m.controllers == 2 && m.hints == 3 && m.first_hint[1] == 2);
	/* One for all, which may be mapped through. */
	nfit_begin(&table);
	nfit_add_spa(&table, 1, guid_persistent, BASE, BYTES);
	for (u32 i = 0; i < 2; i++) {
		nfit_add_mapping(&table, i, 1, 0, 4096);
		nfit_add_hints(&table, i, 1, HINTS, 8);
	}
	assert_int_equal(nfit_parse(table.bytes, table.length, &nfit, &why, &where), 0);
	assert_int_equal(medium_init_real(&m, &nfit, &nfit.range[0], true), 0);
	assert_true(m.controllers == 1 && m.hints == 1);
	assert_int_equal(m.direct.v, HINTS);
}

/*
 * The order of things, seen by single-stepping through a flush: F for a fence, H for a hint that is
 * found stored to.
 */
#define RIP 16 /* REG_RIP of sys/ucontext.h */

static char order[64];
static u32 order_count;
static u64 hints_before;

static u64 all_hints(void)
{
	u64 sum = 0;

	for (u32 i = 0; i < 4; i++)
		sum += hint_value(HINTS + i * 8);
	return sum;
}

static void on_step(int signal, siginfo_t *info, void *context)
{
	static const u8 sfence[3] = {0x0f, 0xae, 0xf8};
	const ucontext_t *c = context;
	u64 sum = all_hints();

	if (sum != hints_before && order_count < sizeof(order) - 1)
		order[order_count++] = 'H';
	hints_before = sum;
	if (!memcmp((const void *)c->uc_mcontext.gregs[RIP], sfence, 3) &&
	    order_count < sizeof(order) - 1)
		order[order_count++] = 'F';
}

static void test_order(void **state)
{
	const struct sigaction action = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};
	struct sigaction old;
	struct nfit_table table;
	static struct nfit nfit;
	const char *why;
	u32 where;

	host_memory_release();
	host_memory_init(4 * MIB);
	nfit_begin(&table);
	nfit_add_spa(&table, 1, guid_persistent, BASE, BYTES);
	for (u32 i = 0; i < 4; i++) {
		nfit_add_mapping(&table, i, 1, 0, BYTES);
		nfit_add_hints(&table, i, 1, HINTS + i * 8, 8);
	}
	assert_int_equal(nfit_parse(table.bytes, table.length, &nfit, &why, &where), 0);
	assert_int_equal(medium_init_real(&m, &nfit, &nfit.range[0], true), 0);
	hints_before = all_hints();
	sigaction(SIGTRAP, &action, &old);
	asm volatile("sub $128, %%rsp; pushf; orl $0x100, (%%rsp); popf; add $128, %%rsp"
		     :
		     :
		     : "memory", "cc");
	medium_flush(&m);
	asm volatile("sub $128, %%rsp; pushf; andl $~0x100, (%%rsp); popf; add $128, %%rsp"
		     :
		     :
		     : "memory", "cc");
	sigaction(SIGTRAP, &old, NULL);
	/* 5.2.25.8: what was stored before is accepted first; and done is what has been told. */
	assert_string_equal(order, "FHHHHF");
}

static void test_direct(void **state)
{
	struct nfit_table table;
	static struct nfit nfit;
	const char *why;
	u32 where;

	nfit_begin(&table);
	nfit_add_spa(&table, 1, guid_persistent, BASE, BYTES);
	nfit_add_mapping(&table, 1, 1, 0, BYTES);
	nfit_add_hints(&table, 1, 1, HINTS + 0x238, 8);
	assert_int_equal(nfit_parse(table.bytes, table.length, &nfit, &why, &where), 0);
	assert_int_equal(medium_init_real(&m, &nfit, &nfit.range[0], true), 0);
	assert_int_equal(m.direct.v, HINTS);
	assert_int_equal(medium_init_real(&m, &nfit, &nfit.range[0], false), 0);
	assert_int_equal(m.direct.v, 0);
	/* No hints, no controllers: nothing to do. */
	nfit_begin(&table);
	nfit_add_spa(&table, 1, guid_persistent, BASE, BYTES);
	assert_int_equal(nfit_parse(table.bytes, table.length, &nfit, &why, &where), 0);
	assert_int_equal(medium_init_real(&m, &nfit, &nfit.range[0], true), 0);
	assert_int_equal(m.controllers, 0);
	assert_int_equal(m.direct.v, 0);
	medium_flush(&m);
	medium_init_ram(&m, hpa(BASE), BYTES);
	assert_int_equal(m.controllers, 0);
	medium_flush(&m);
	/* More controllers than there is room for. */
	nfit_begin(&table);
	nfit_add_spa(&table, 1, guid_persistent, BASE, BYTES);
	for (u32 i = 0; i <= MEDIUM_CONTROLLERS; i++) {
		nfit_add_mapping(&table, i, 1, 0, 4096);
		nfit_add_hints(&table, i, 1, HINTS + i * 8, 8);
	}
	assert_int_equal(nfit_parse(table.bytes, table.length, &nfit, &why, &where), 0);
	assert_int_equal(medium_init_real(&m, &nfit, &nfit.range[0], true), ERR_RANGE);
}

/* --- the model ----------------------------------------------------------------------------------
 */

static void test_model_flush(void **state)
{
	start(4, 1);
	memset(stored, 0x5a, BYTES);
	medium_init_model(&m, hpa(BASE), BYTES, 4, 1, stored, written);
	assert_int_equal(*live(BYTES - 1), 0x5a); /* what the medium holds is what is read */
	for (u32 c = 0; c < 8; c++)
		store(c * MODEL_INTERLEAVE, c + 1);
	assert_int_equal(medium_pending(&m), 8);
	assert_int_equal(on_medium(0), 0x5a5a5a5a5a5a5a5a);
	model_flush(&m, BIT(2));
	assert_int_equal(medium_pending(&m), 6);
	assert_int_equal(on_medium(2 * MODEL_INTERLEAVE), 3);
	assert_int_equal(on_medium(6 * MODEL_INTERLEAVE), 7);
	assert_int_equal(on_medium(MODEL_INTERLEAVE), 0x5a5a5a5a5a5a5a5a);
	medium_flush(&m);
	assert_int_equal(medium_pending(&m), 0);
	for (u32 c = 0; c < 8; c++)
		assert_int_equal(on_medium(c * MODEL_INTERLEAVE), c + 1);
	assert_int_equal(m.flushes[2], 1);
	assert_int_equal(m.flushes[3], 1);
	assert_int_equal(m.lines_flushed, 8);
	/* The last byte of all, and a write over a page's border. */
	*live(BYTES - 1) = 1;
	medium_written(&m, BYTES - 1, 100);
	store(PAGE_SIZE - 4, ~0ull);
	assert_int_equal(medium_pending(&m), 3);
	medium_flush(&m);
	assert_int_equal(stored[BYTES - 1], 1);
	assert_int_equal(on_medium(PAGE_SIZE - 4), ~0ull);
	medium_written(&m, BYTES, 4096); /* outside: nothing */
	medium_written(&m, 0, 0);
	assert_int_equal(medium_pending(&m), 0);
}

static void test_model_drain(void **state)
{
	u64 before, rounds = 0;

	start(4, 7);
	for (u64 at = 0; at < BYTES; at += MEDIUM_LINE)
		store(at, at + 1);
	before = medium_pending(&m);
	assert_int_equal(before, BYTES / MEDIUM_LINE);
	medium_drain(&m);
	assert_in_range(medium_pending(&m), before / 2, before - before / 8);
	while (medium_pending(&m) && rounds++ < 200)
		medium_drain(&m);
	assert_int_equal(medium_pending(&m), 0);
	assert_memory_equal(stored, live(0), BYTES);
	assert_int_equal(m.lines_flushed, 0);
	assert_int_equal(m.lines_drained, BYTES / MEDIUM_LINE);
}

/* A cut: each line is what was flushed last or something newer; all of it by the seed alone. */
static void test_model_cut(void **state)
{
	u64 kept = 0, lost = 0;

	for (u64 seed = 0; seed < 400; seed++) {
		start(1 + seed % MEDIUM_CONTROLLERS, seed / 2 * 2);
		for (u64 at = 0; at < BYTES; at += 512)
			store(at, 1);
		medium_flush(&m);
		for (u64 at = 0; at < BYTES; at += 512)
			store(at, 2);
		if (seed % 3 == 0)
			medium_drain(&m);
		store(0, 3);
		model_flush(&m, BIT(0));
		store(0, 4);
		medium_cut(&m);
		assert_memory_equal(live(0), stored, BYTES);
		assert_int_equal(medium_pending(&m), 0);
		assert_in_range(on_medium(0), 3, 4);
		for (u64 at = 512; at < BYTES; at += 512) {
			assert_in_range(on_medium(at), 1, 2);
			kept += on_medium(at) == 2;
			lost += on_medium(at) == 1;
			if (at / MODEL_INTERLEAVE % m.controllers == 0)
				assert_int_equal(on_medium(at), 2);
		}
		assert_int_equal(m.cuts, 1);
	}
	assert_in_range(kept, 400 * 100, 400 * 480);
	assert_in_range(lost, 400 * 50, 400 * 400);
}

/* An image is what a cut would have made, and leaves everything as it is. */
static void test_model_image(void **state)
{
	static u8 image[BYTES], live_before[BYTES], stored_before[BYTES];
	static u64 image_marks[64];
	struct medium to;
	u64 pending;

	for (u64 seed = 1; seed < 100; seed++) {
		start(1 + seed % MEDIUM_CONTROLLERS, seed);
		memset(image, 0x55, BYTES);
		medium_init_model(&to, hpa(IMAGE), BYTES, 4, 1, image, image_marks);
		for (u64 at = 0; at < BYTES; at += 512)
			store(at, 1);
		medium_flush(&m);
		for (u64 at = 0; at < BYTES; at += MEDIUM_LINE)
			store(at, 2);
		pending = medium_pending(&m);
		memcpy(live_before, live(0), BYTES);
		memcpy(stored_before, stored, BYTES);
		medium_seed(&m, seed);
		assert_int_equal(medium_image(&m, &to), 0);
		assert_memory_equal(live(0), live_before, BYTES);
		assert_memory_equal(stored, stored_before, BYTES);
		assert_int_equal(medium_pending(&m), pending);
		assert_int_equal(medium_pending(&to), 0);
		medium_seed(&m, seed);
		medium_cut(&m);
		assert_memory_equal(phys_to_ptr(hpa(IMAGE)), live(0), BYTES);
		assert_memory_equal(image, live(0), BYTES);
	}
	to.bytes -= PAGE_SIZE;
	assert_int_equal(medium_image(&m, &to), ERR_INVAL);
	assert_int_equal(medium_image(&m, &m), ERR_INVAL);
	to.bytes += PAGE_SIZE;
	to.kind = MEDIUM_RAM;
	assert_int_equal(medium_image(&m, &to), ERR_INVAL);
	assert_int_equal(medium_image(&to, &m), ERR_INVAL);
}

static u64 fingerprint(u64 seed)
{
	u64 hash = 0;

	start(4, seed);
	for (u64 at = 0; at < BYTES; at += MEDIUM_LINE)
		store(at, at + 1);
	medium_drain(&m);
	for (u64 at = 0; at < BYTES; at += MEDIUM_LINE)
		hash = hash * 31 + on_medium(at);
	medium_cut(&m);
	for (u64 at = 0; at < BYTES; at += MEDIUM_LINE)
		hash = hash * 31 + on_medium(at);
	return hash;
}

static void test_seed(void **state)
{
	assert_true(fingerprint(5) == fingerprint(5));
	assert_false(fingerprint(5) == fingerprint(6));
}

/*
 * What a log-structured writer relies on, cut at 1,200 points: records are flushed, then a count
 * that covers them is stored and flushed. After a cut all records that the count covers are whole,
 * and it covers all that the writer was told are durable. `skip` = a controller that is left out:
 * then it must not hold.
 */
static bool log_survives(u64 seed, u32 skip, u32 stop)
{
	u64 acknowledged = 0, count;
	u32 step = 0;

	start(4, seed);
	for (u64 n = 1; step < stop; n++) {
		u64 at = 4096 + n * 320;

		for (u32 i = 0; i < 5 && step++ < stop; i++)
			store(at + i * 64, n * 16 + i);
		if (step++ >= stop)
			break;
		for (u32 c = 0; c < 4; c++)
			if (c != skip)
				model_flush(&m, BIT(c));
		if (step++ >= stop)
			break;
		store(0, n);
		if (step++ >= stop)
			break;
		for (u32 c = 0; c < 4; c++)
			if (c != skip)
				model_flush(&m, BIT(c));
		acknowledged = n;
	}
	medium_cut(&m);
	memcpy(&count, live(0), 8);
	if (count < acknowledged)
		return false;
	for (u64 n = 1; n <= count; n++) {
		for (u32 i = 0; i < 5; i++) {
			u64 value;

			memcpy(&value, live(4096 + n * 320 + i * 64), 8);
			if (value != n * 16 + i)
				return false;
		}
	}
	return true;
}

static void test_log(void **state)
{
	u32 broken = 0;

	for (u64 seed = 0; seed < 1200; seed++)
		assert_true(log_survives(seed, ~0u, (u32)(seed * 7 % 400) + 1));
	for (u64 seed = 0; seed < 100; seed++)
		broken += !log_survives(seed, (u32)seed % 4, (u32)(seed * 7 % 400) + 1);
	assert_in_range(broken, 30, 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shared),	    cmocka_unit_test(test_order),
		cmocka_unit_test(test_real),	    cmocka_unit_test(test_direct),
		cmocka_unit_test(test_model_flush), cmocka_unit_test(test_model_drain),
		cmocka_unit_test(test_model_cut),   cmocka_unit_test(test_model_image),
		cmocka_unit_test(test_seed),	    cmocka_unit_test(test_log),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}
