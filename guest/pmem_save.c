/*
 * Memory that is saved to the machine's disk: what was in it when the VM ended, or when power
 * failed, is there at the next start, all of it or that of the save before. Region 0 is saved.
 * Region 1 is lent RAM, which stays while this machine runs and so knows what happened before.
 *
 * Each run writes to some pages and labels, then says in page 0 that it did, with a checksum of all
 * the rest: what comes back is of one run if that fits. The first `losses` runs end by a failure of
 * power, the last one reports.
 *
 * Options: losses=N, pages=N (written in a run), torn (some saves are incomplete: power is gone too
 * early), lost (nothing that was saved is intact any more), old (the last save is not), either
 * (perhaps), endless (write until somebody ends the machine).
 */
#include "cpu.h"
#include "mem.h"
#include "nfit.h"
#include "smp.h"
#include "umbra.h"

#define MAGIC	 0x45564153u
#define SAVED_VA 0x4400000000ull
#define RAM_VA	 0x4480000000ull
#define LABELS	 0xd1000000ull
#define SECTORS	 8 /* of a page */

/* NFIT state flags, as HC_PMEM_SAVE_STATE has them. */
#define SAVE_FAILED    BIT(0)
#define RESTORE_FAILED BIT(1)

/* In page 0 of region 0. */
struct head {
	u32 magic, run;
	u64 sum; /* of all other pages and the labels */
};

/* In region 1. */
struct control {
	u32 magic;
	u32 good, run; /* what the last start found; what it left */
	u32 losses, torn, failures;
	u64 most_sectors;
};

static struct nfit nfit;
static volatile struct head *head;
static struct control *control;
static struct rng rng;
static u32 over_budget; /* atomic */

static s64 pmem(u64 what)
{
	return hypercall(HC_PMEM, what, 0, 0, 0);
}

static u64 sum_of(u64 at, u64 bytes, u64 sum)
{
	const u64 *p = (const u64 *)at;

	for (u64 i = 0; i < bytes / 8; i++)
		sum = (sum ^ p[i]) * 0x9e3779b97f4a7c15ull;
	return sum;
}

static u64 sum_all(void)
{
	u64 sum = sum_of(SAVED_VA + PAGE_SIZE, nfit.region[0].bytes - PAGE_SIZE, 1);

	return sum_of(LABELS, 0x20000, sum);
}

static bool all_zero(u64 at, u64 bytes)
{
	const u64 *p = (const u64 *)at;
	u64 any = 0;

	for (u64 i = 0; i < bytes / 8; i++)
		any |= p[i];
	return !any;
}

/* A failure of this life, kept for the report of the last. */
static void check(bool good, const char *what)
{
	if (!good) {
		control->failures++;
		tap_note("FAILED: %s", what);
	}
}

/* What a save may take: the budget's pages, the map's entries, a header. */
static u64 save_limit(void)
{
	u64 pages = nfit.region[0].bytes / PAGE_SIZE + 33;

	return (u64)pmem(HC_PMEM_BUDGET) * SECTORS + (pages * 8 + 511) / 512 + 1;
}

static void check_after_loss(u32 run, u64 state)
{
	u64 sectors = (u64)pmem(HC_PMEM_SAVED_SECTORS);

	control->most_sectors = MAX(control->most_sectors, sectors);
	check(sectors <= save_limit(), "a save took more than the budget");
	check(state == 0 || state == SAVE_FAILED, "the state after a failure of power");
	if (state)
		control->torn++;
	check(run == (state ? control->good : control->run), "the run that came back");
}

static void check_start(bool first_of_machine)
{
	u64 state = (u64)pmem(HC_PMEM_SAVE_STATE);
	u32 run = head->magic == MAGIC ? head->run : 0;

	tap_note("run %u, state %lu, generation %lu", run, state, (u64)pmem(HC_PMEM_GENERATION));
	if (!run)
		check(all_zero(SAVED_VA, nfit.region[0].bytes) && all_zero(LABELS, 0x20000),
		      "nothing has been saved, and not all is zero");
	else
		check(head->sum == sum_all(), "the checksum of what came back");
	if (!first_of_machine)
		check_after_loss(run, state);
	else if (opt_flag("either"))
		check(state == 0 || state == SAVE_FAILED, "the state at the start");
	else if (opt_flag("lost"))
		check(state == RESTORE_FAILED && !run, "nothing should have been intact");
	else
		check(state == (opt_flag("old") ? SAVE_FAILED : 0), "the state at the start");
	control->good = run;
}

static void write_page(u64 at, u32 run, struct rng *r)
{
	volatile u64 *p = (volatile u64 *)at;

	for (u32 i = 0; i < PAGE_SIZE / 8; i++)
		p[i] = (u64)run << 32 | (at >> 12 << 16) | i;
	if (rng_below(r, 8) == 0)
		memset((void *)at, 0, PAGE_SIZE);
}

struct share {
	u32 run;
	u64 pages;
};

/* On each CPU, to pages anywhere. */
static void write_share(void *arg)
{
	const struct share *share = arg;
	u64 budget = (u64)pmem(HC_PMEM_BUDGET), all = nfit.region[0].bytes / PAGE_SIZE;
	struct rng r;

	rng_seed(&r, share->run + 1000 * control->losses + 1000000 * this_cpu()->index);
	for (u64 n = 0; n < share->pages; n++) {
		write_page(SAVED_VA + (1 + rng_below(&r, all - 1)) * PAGE_SIZE, share->run, &r);
		if ((u64)pmem(HC_PMEM_DIRTY) > budget)
			__atomic_add_fetch(&over_budget, 1, __ATOMIC_RELAXED);
	}
}

static void write_run(u32 run, u64 pages)
{
	struct share share = {run, pages / smp_count()};

	rng_seed(&rng, run);
	smp_run_all(write_share, &share);
	check(over_budget == 0, "more pages were dirty than the budget");
	write_page(LABELS + rng_below(&rng, 32) * PAGE_SIZE, run, &rng);
	head->sum = sum_all();
	head->run = run;
	head->magic = MAGIC;
	control->run = run;
}

static void find_regions(void)
{
	if (!nfit_read(&nfit))
		tap_bail("no NFIT, or its checksum is wrong");
	if (nfit.regions != 2)
		tap_bail("two regions are expected");
	pt_map(SAVED_VA, nfit.region[0].base, nfit.region[0].bytes, PTE_P | PTE_W, 2);
	pt_map(RAM_VA, nfit.region[1].base, nfit.region[1].bytes, PTE_P | PTE_W, 2);
	head = (volatile struct head *)SAVED_VA;
	control = (struct control *)RAM_VA;
}

static void report(void)
{
	tap_is(control->failures, 0, "failed checks, noted above");
	tap_is(control->losses, opt_u64("losses", 3), "failures of power");
	if (opt_flag("torn"))
		tap_ok(control->torn > 0 && control->torn < control->losses,
		       "%u of the saves were incomplete", control->torn);
	else
		tap_is(control->torn, 0, "saves that were incomplete");
	tap_ok((u64)pmem(HC_PMEM_MOST_DIRTY) <= (u64)pmem(HC_PMEM_BUDGET),
	       "%lu pages were dirty at a time, of %lu", (u64)pmem(HC_PMEM_MOST_DIRTY),
	       (u64)pmem(HC_PMEM_BUDGET));
	tap_ok(control->most_sectors <= save_limit(), "a save took up to %lu sectors, of %lu",
	       control->most_sectors, save_limit());
	tap_ok(nfit.region[0].persistent && !nfit.region[1].persistent,
	       "the saved range persists, the other says that it is volatile");
	tap_is(nfit.region[0].hints, NFIT_HINTS, "flush hints");
	tap_is((u64)pmem(HC_PMEM_MODE), HC_PMEM_MODE_NONE, "which nothing listens to");
	tap_is(nfit.caps, 3, "caches and controllers empty themselves");
	tap_note("the last run is %u", head->run);
}

void guest_main(void)
{
	u64 pages = opt_u64("pages", 80);
	bool first;

	if (!umbra_present() || !nfit_read(&nfit)) {
		tap_skip("no persistent memory");
		tap_end();
	}
	find_regions();
	if (!nfit.region[0].persistent)
		tap_bail("the first region is not saved");
	first = control->magic != MAGIC;
	if (first) {
		memset(control, 0, sizeof(*control));
		control->magic = MAGIC;
	}
	smp_start();
	check_start(first);
	do
		write_run(head->magic == MAGIC ? head->run + 1 : 1, pages);
	while (opt_flag("endless"));
	if (control->losses < opt_u64("losses", 3)) {
		control->losses++;
		if (pmem(HC_PMEM_POWER_LOSS))
			tap_bail("power does not fail");
		for (;;)
			asm volatile("pause");
	}
	report();
}
