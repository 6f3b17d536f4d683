/*
 * Persistent memory as a kernel finds it: the NFIT, the regions, the flush hints in their modes, by
 * every instruction that stores; and what is left when power fails. Region 0 is modelled hardware,
 * region 1 lent RAM, which keeps its bytes while this machine runs and so counts the failures of
 * power: the first `cuts` starts only work and are cut off, the last one reports.
 *
 * Options: cuts=N, seed=N.
 */
#include "apic.h"
#include "cpu.h"
#include "mem.h"
#include "nfit.h"
#include "smp.h"
#include "umbra.h"

#define MAGIC	 0x4d454d50u
#define LINE	 64
#define HINTS	 NFIT_HINTS
#define MODEL_VA 0x4400000000ull
#define RAM_VA	 0x4480000000ull
#define TEST_VA	 0x4300000000ull
#define HOLE_VA	 0x4310000000ull

#define RARE BIT64(63) /* mmio_insns.S: not emulated by Umbra */

typedef void round_fn(const u64 in[17], u64 out[17]);

struct insn {
	const char *name;
	round_fn *run;
	u64 undefined;
};
extern const struct insn mmio_insns[], mmio_insns_end[];

/* In region 1. */
struct control {
	u32 magic, stage;
	u64 acknowledged; /* records that were said to be durable before power failed */
	u32 failures, lost;
};

static struct nfit nfit;
static const struct nfit_region *const region = nfit.region;
static volatile u64 *page; /* with region 0's hints, identity-mapped */
static struct control *control;
static struct rng rng;

static s64 pmem(u64 what, u64 n, u64 argument)
{
	return hypercall(HC_PMEM, what, n, argument, 0);
}

static void store(void *to, u64 value)
{
	*(volatile u64 *)to = value;
	asm volatile("clflush (%0)" : : "r"(to) : "memory");
}

static void flush_hint(u64 at)
{
	asm volatile("sfence" ::: "memory");
	*(volatile u64 *)at = 1;
	asm volatile("sfence" ::: "memory");
}

/* --- the NFIT ------------------------------------------------------------------------------------
 */

static void find_regions(void)
{
	if (nfit.regions != 2 || !region[0].hints || !region[1].bytes)
		tap_bail("two regions are expected");
	pt_map(MODEL_VA, region[0].base, region[0].bytes, PTE_P | PTE_W, 2);
	pt_map(RAM_VA, region[1].base, region[1].bytes, PTE_P | PTE_W, 2);
	page = (volatile u64 *)(uintptr_t)(region[0].hint[0] & ~(PAGE_SIZE - 1));
	control = (struct control *)RAM_VA;
}

static void test_nfit(void)
{
	static const u32 expected[8] = {2, 1, 0, 0, 1, 0, 1, 1};

	for (u32 i = 0; i < 8; i++)
		tap_is(nfit.structures[i], expected[i], "structures of type %u", i);
	tap_ok(region[0].persistent && !region[1].persistent,
	       "the modelled range persists, lent RAM says that it is volatile");
	tap_is(nfit.highest, 1, "capabilities: bits 0 and 1 mean something");
	tap_is(nfit.caps, 0, "and neither caches nor controllers empty themselves");
	for (u32 r = 0; r < 2; r++) {
		u32 good = 0;

		tap_ok(!(region[r].base % SIZE_1G) && !(region[r].bytes % SIZE_2M) &&
			       !ram_contains(region[r].base, PAGE_SIZE) &&
			       region[r].base >= ram_top(),
		       "region %u: %lu MiB at 0x%lx, above all RAM", r, region[r].bytes >> 20,
		       region[r].base);
		for (u32 i = 0; i < region[r].hints; i++)
			good += region[r].hint[i] && !(region[r].hint[i] & 7);
		tap_is(good, r ? 0 : HINTS, "aligned flush hints");
		tap_is(region[r].handle, 1 - r, "handle of its NVDIMM, or none");
	}
}

/* --- regions -------------------------------------------------------------------------------------
 */

static void test_memory(void)
{
	static const u32 shift[2] = {12, 21};
	u64 wrong = 0;

	for (u32 r = 0; r < 2; r++) {
		u8 *base = (u8 *)(r ? RAM_VA : MODEL_VA);

		for (u64 i = PAGE_SIZE; i < region[r].bytes; i += PAGE_SIZE + LINE)
			*(volatile u64 *)(base + i) = i * 3 + r;
		for (u64 i = PAGE_SIZE; i < region[r].bytes; i += PAGE_SIZE + LINE)
			wrong += *(volatile u64 *)(base + i) != i * 3 + r;
		/* A model sees what is dirty by the page. */
		tap_is((u64)hypercall(HC_PAGE_SIZE, region[r].base + PAGE_SIZE, 0, 0, 0), shift[r],
		       "EPT leaf of region %u", r);
	}
	tap_is(wrong, 0, "words that do not read as written");
	tap_is((u64)pmem(HC_PMEM_REGIONS, 0, 0), 2, "HC_PMEM: regions");
	tap_is((u64)pmem(HC_PMEM_KIND, 0, 0), HC_PMEM_KIND_MODEL, "the first is modelled");
	tap_is((u64)pmem(HC_PMEM_KIND, 1, 0), HC_PMEM_KIND_RAM, "the second is lent");
	tap_is((u64)pmem(HC_PMEM_MODE, 0, 0), HC_PMEM_MODE_TRAP, "the first traps");
	tap_is((u64)pmem(HC_PMEM_MODE, 1, 0), HC_PMEM_MODE_NONE, "the second does not");
	tap_is((u64)pmem(HC_PMEM_MODE, 2, 0), (u64)HC_EINVAL, "there is no third");
	tap_is((u64)pmem(99, 0, 0), (u64)HC_EINVAL, "an unknown question");
	tap_is((u64)pmem(HC_PMEM_SET_MODE, 1, HC_PMEM_MODE_DIRECT), (u64)HC_EINVAL,
	       "nothing to map directly");
	tap_is((u64)pmem(HC_PMEM_SET_MODE, 0, 3), (u64)HC_EINVAL, "no such mode");
}

/* --- what a store to a hint does
 * -------------------------------------------------------------------
 */

static u32 controllers(void)
{
	return (u32)pmem(HC_PMEM_CONTROLLERS, 0, 0);
}

/* Flushes of all controllers since last asked; ~0 if they differ. */
static u64 flushes(void)
{
	static u64 before[16];
	u64 first = 0;

	for (u32 c = 0; c < controllers(); c++) {
		u64 now = (u64)pmem(HC_PMEM_FLUSHES, 0, c), more = now - before[c];

		if (c && more != first)
			first = ~0ull;
		else if (!c)
			first = more;
		before[c] = now;
	}
	return first;
}

static u64 faults(void)
{
	return (u64)hypercall(HC_STAT, HC_STAT_EPT_FAULTS, 0, 0, 0);
}

static u32 many = 500;

static void test_modes(void)
{
	u64 before, sum = 0;

	flushes();
	sum += page[0]; /* mapped for reading from here on */
	before = faults();
	for (u32 i = 0; i < many; i++)
		sum += page[i];
	tap_is(faults() - before, 0, "exits for %u loads, mode trap", many);
	for (u32 i = 0; i < many; i++)
		page[i] = i;
	tap_is(faults() - before, many, "exits for %u stores", many);
	sum = 0;
	tap_is(flushes(), many, "flushes of each of %u controllers", controllers());
	for (u32 i = 0; i < many; i++)
		sum += page[i] != i;
	tap_is(sum, 0, "what was stored reads back");
	tap_is((u64)pmem(HC_PMEM_SET_MODE, 0, HC_PMEM_MODE_NONE), 0, "mode none");
	page[1] = 99;
	before = faults();
	for (u32 i = 0; i < many; i++)
		page[i] = i + 1;
	for (u32 i = 0; i < many; i++)
		sum += page[i] != i + 1;
	tap_is(faults() - before, 0, "exits for %u stores and loads", many);
	tap_is(flushes(), 0, "flushes");
	tap_is((u64)pmem(HC_PMEM_SET_MODE, 0, HC_PMEM_MODE_DIRECT), 0, "mode direct");
	page[1] = 98;
	before = faults();
	for (u32 i = 0; i < many; i++)
		page[i] = i;
	tap_is(faults() - before, 0, "exits for %u stores", many);
	tap_is(flushes(), 0, "flushes that anybody notices");
	tap_is((u64)pmem(HC_PMEM_SET_MODE, 0, HC_PMEM_MODE_TRAP), 0, "mode trap again");
	for (u32 i = 0; i < many; i++)
		sum += page[i] != i + 1;
	tap_is(sum, 0, "words of the page that changed with the mode");
	page[0] = 1;
	tap_is(flushes(), 1, "flush by the first store after that");
}

static void test_lines(void)
{
	u8 *base = (u8 *)MODEL_VA;
	u32 step = 256 * controllers(), n;

	flush_hint(region[0].hint[0]);
	tap_is((u64)pmem(HC_PMEM_PENDING, 0, 0), 0, "nothing is pending after a flush");
	for (n = 0; n < 40; n++)
		store(base + 8192 + n * step / 4, rng_next(&rng));
	tap_is((u64)pmem(HC_PMEM_PENDING, 0, 0), n, "lines pending after %u stores", n);
	for (u32 i = 0; i < 3; i++)
		pmem(HC_PMEM_DRAIN, 0, 0);
	tap_ok(pmem(HC_PMEM_PENDING, 0, 0) < n, "fewer after some time");
	flush_hint(region[0].hint[3]);
	tap_is((u64)pmem(HC_PMEM_PENDING, 0, 0), 0, "none after a store to another hint");
	store(base + 8192, 1);
	asm volatile("sfence; movb $1, %0" : "+m"(*(volatile u8 *)((uintptr_t)page + 4095)));
	tap_is((u64)pmem(HC_PMEM_PENDING, 0, 0), 0, "nor after a byte to the page's end");
}

/* --- every instruction that stores ---------------------------------------------------------------
 */

static u8 *ram; /* a page, mapped at TEST_VA by a leaf of its own, whose dirty flag shows a store */

/* The hint page through another mapping, with holes on both sides. */
static void map_pages(void)
{
	ram = mem_alloc(PAGE_SIZE, PAGE_SIZE);
	if (!ram)
		tap_bail("out of memory");
	pt_map(TEST_VA - PAGE_SIZE, 0xd7000000, 3 * PAGE_SIZE, PTE_P | PTE_W | PTE_U, 1);
	pt_map(TEST_VA, (u64)(uintptr_t)ram, PAGE_SIZE, PTE_P | PTE_W | PTE_U, 1);
	pt_map(HOLE_VA - PAGE_SIZE, 0xd7000000, 3 * PAGE_SIZE, PTE_P | PTE_W | PTE_U, 1);
	pt_map(HOLE_VA, (u64)(uintptr_t)page, PAGE_SIZE, PTE_P | PTE_W | PTE_U, 1);
}

static bool run_on(const struct insn *insn, u64 base, const u64 in[17], u64 out[17])
{
	u64 set[17];

	memcpy(set, in, sizeof(set));
	set[6] = base;
	set[7] = base;
	insn->run(set, out);
	return true;
}

/* Elements of the longest string. */
#define MOST 100

static void test_insn(const struct insn *insn)
{
	u64 in[17], on_ram[17] = {0}, on_page[17] = {0}, offset = 1024 + rng_below(&rng, 32) * 64;
	u64 *leaf = pt_entry(TEST_VA, 1), count;
	bool stored, same;

	for (u32 i = 0; i < 16; i++)
		in[i] = rng_next(&rng);
	in[16] = RFLAGS_1;
	pmem(HC_PMEM_SET_MODE, 0, HC_PMEM_MODE_NONE);
	memset(ram, 0x5a, PAGE_SIZE);
	memset((void *)(uintptr_t)page, 0x5a, PAGE_SIZE);
	pmem(HC_PMEM_SET_MODE, 0, HC_PMEM_MODE_TRAP);
	flushes();
	*leaf &= ~PTE_D;
	asm volatile("invlpg (%0)" : : "r"(TEST_VA) : "memory");
	run_on(insn, TEST_VA + offset, in, on_ram);
	stored = *leaf & PTE_D;
	run_on(insn, HOLE_VA + offset, in, on_page);
	count = flushes();
	same = !memcmp(ram, (const void *)(uintptr_t)page, PAGE_SIZE);
	if (!same || stored != (count > 0) || count > MOST)
		tap_note("%s: %lu flushes, %s store on RAM", insn->name, count,
			 stored ? "a" : "no");
	tap_ok(same && stored == (count > 0) && count <= MOST, "%s", insn->name);
}

static void test_insns(void)
{
	u32 rare = 0;

	for (const struct insn *i = mmio_insns; (uintptr_t)i < (uintptr_t)mmio_insns_end; i++) {
		if (i->undefined & RARE)
			rare++;
		else
			test_insn(i);
	}
	tap_note("%u instructions are not emulated", rare);
}

static void test_widths(void)
{
	u32 wrong = 0;
	u64 want = 0;

	flushes();
	for (u32 offset = 0; offset < 64; offset++) {
		volatile u8 *p = (volatile u8 *)(uintptr_t)page + offset * 61;

		*p = 1;
		*(volatile u16 *)p = 2;
		*(volatile u32 *)p = 3;
		*(volatile u64 *)p = 4;
		want += 4;
		wrong += *(volatile u64 *)p != 4;
	}
	tap_is(flushes(), want, "flushes by stores of 1, 2, 4 and 8 bytes at any alignment");
	tap_is(wrong, 0, "of which some did not store");
	/* Into the page from before it, and out of it. */
	*(volatile u64 *)(HOLE_VA - 4) = 0x1122334455667788;
	tap_is(flushes(), 1, "flush by a store across the page's begin");
	tap_is(*(volatile u32 *)HOLE_VA, 0x11223344, "its part");
	*(volatile u64 *)(HOLE_VA + PAGE_SIZE - 4) = 0x1122334455667788;
	tap_is(flushes(), 1, "and across its end");
}

static u64 __user u_store(u64 address)
{
	*(volatile u64 *)address = 7;
	return 1;
}

static void jump(void *to)
{
	asm volatile("call *%0" : : "r"(to) : "memory");
}

static void test_privilege(void)
{
	struct trap t;
	u64 value = 0;

	flushes();
	tap_ok(!user_run(&t, u_store, HOLE_VA + 128, &value) && value == 1, "a store at CPL 3");
	tap_is(flushes(), 1, "flushes");
	memset((void *)(uintptr_t)page, 0xc3, 64); /* RET */
	flushes();
	tap_ok(trap_run(&t, jump, (void *)HOLE_VA) && t.vector == VEC_UD,
	       "code in the hint page: #UD");
	pmem(HC_PMEM_SET_MODE, 0, HC_PMEM_MODE_NONE);
	tap_ok(trap_run(&t, jump, (void *)HOLE_VA) && t.vector == VEC_UD, "in mode none too");
	pmem(HC_PMEM_SET_MODE, 0, HC_PMEM_MODE_TRAP);
	tap_is(flushes(), 0, "flushes");
}

static u32 each = 200;

static volatile u32 done;

static void store_many(void *arg)
{
	for (u32 i = 0; i < each; i++) {
		u32 slot = this_cpu()->index % HINTS;

		*(volatile u64 *)region[0].hint[slot] = i;
	}
	__atomic_add_fetch(&done, 1, __ATOMIC_SEQ_CST);
}

static void test_cpus(void)
{
	u32 n;

	n = smp_start();
	flushes();
	smp_run_all(store_many, NULL);
	tap_is(done, n, "CPUs that stored");
	tap_is(flushes(), (u64)n * each, "flushes by %u CPUs at once", n);
	tap_is((u64)pmem(HC_PMEM_WRITES, 0, 0) >= (u64)n * each, 1, "HC_PMEM: writes");
}

/* --- power fails ---------------------------------------------------------------------------------
 */

#define RECORD_BYTES 320 /* five lines, over all controllers */
static u32 records = 400;
#define LOG 0x10000

/* Of the start `stage`, word i of record n. */
static u64 record_word(u32 stage, u64 n, u32 i)
{
	return (u64)stage << 32 | n << 8 | i;
}

static void *record(u64 n, u32 i)
{
	return (void *)(MODEL_VA + LOG + n * RECORD_BYTES + i * LINE);
}

/* Records, then a count that covers them, each flushed, until power fails at some step. */
static void write_log(u32 stage)
{
	u64 stop = rng_below(&rng, 6 * records), step = 0;
	u64 *head = (u64 *)(MODEL_VA + 4096);

	store(&head[0], (u64)stage << 32);
	flush_hint(region[0].hint[0]);
	control->acknowledged = 0;
	for (u64 n = 1; n < records; n++) {
		for (u32 i = 0; i < 5; i++) {
			if (step++ == stop)
				return;
			store(record(n, i), record_word(stage, n, i));
		}
		flush_hint(region[0].hint[n % HINTS]);
		if (step++ == stop)
			return;
		store(&head[0], (u64)stage << 32 | n);
		if (n & 1) {
			flush_hint(region[0].hint[n / 2 % HINTS]);
			control->acknowledged = n;
		}
	}
}

static void check_log(u32 stage)
{
	u64 head = *(volatile u64 *)(MODEL_VA + 4096), count = (u32)head;
	bool bad = head >> 32 != stage || count < control->acknowledged || count >= records;

	for (u64 n = 1; !bad && n <= count; n++)
		for (u32 i = 0; i < 5; i++)
			bad |= *(volatile u64 *)record(n, i) != record_word(stage, n, i);
	/* Only to see that power failures do lose something. */
	for (u32 i = 0; i < 5 && !bad && count + 1 < records; i++)
		if (*(volatile u64 *)record(count + 1, i) != record_word(stage, count + 1, i)) {
			control->lost++;
			break;
		}
	control->failures += bad;
}

static void fail_power(u32 cuts)
{
	if (control->magic != MAGIC) {
		memset(control, 0, sizeof(*control));
		control->magic = MAGIC;
	} else {
		check_log(control->stage);
		control->stage++;
	}
	if (control->stage >= cuts)
		return;
	rng_seed(&rng, opt_u64("seed", 1) * 1000 + control->stage);
	write_log(control->stage);
	if (pmem(HC_PMEM_CUT, 0, 0))
		tap_bail("power does not fail");
	for (;;)
		asm volatile("pause");
}

void guest_main(void)
{
	u32 cuts = (u32)opt_u64("cuts", 20);

	if (!umbra_present() || !nfit_read(&nfit)) {
		tap_skip("no persistent memory");
		tap_end();
	}
	find_regions();
	fail_power(cuts);
	rng_seed(&rng, opt_u64("seed", 1));
	tap_is(control->stage, cuts, "failures of power");
	tap_is(control->failures, 0, "after which something durable was gone or wrong");
	tap_ok(control->lost > 0, "%u lost something that was not durable", control->lost);
	test_nfit();
	test_memory();
	test_modes();
	test_lines();
	map_pages();
	test_insns();
	test_widths();
	test_privilege();
	test_cpus();
}
