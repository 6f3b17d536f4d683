/*
 * More memory than there are frames for it: every page is filled, looked at again in several orders
 * and by several vCPUs, executed, used as paging structures and as stack, while it comes and goes.
 * Nothing here knows of remote memory: on any machine the points are the same.
 *
 * Options: mib=N memory to use (default: all that is free, less 1 MiB); rounds=N of each walk (1);
 * seed=N; only=NAME one of walk, stride, write, code, tables, stacks, vectors, sort, smp; or, for
 * scripts/bench, one of sequential, threes, random, chase, local, and fill, which reads nothing.
 */
#include "cpu.h"
#include "mem.h"
#include "smp.h"
#include "trap.h"
#include "umbra.h"

#define WORDS	 (PAGE_SIZE / 8)
#define TABLE_VA 0x4200000000ull
#define MAX_CPUS 16

static u64 *area; /* `pages` of them */
static u64 pages, rounds, seed;
static u64 vectors;  /* XCR0, if it can be set */
static u32 *version; /* of each page: what it has been filled with */
static u32 *next;    /* only=chase: of each page, the one that its first word points to */

static u64 mix(u64 x)
{
	x ^= x >> 31;
	x *= 0x9e3779b97f4a7c15ull;
	return x ^ x >> 29;
}

static u64 *page_at(u64 page)
{
	return area + page * WORDS;
}

static u64 word(u64 page, u64 i)
{
	return mix((page << 32 | version[page]) ^ seed) + i;
}

static void fill(u64 page)
{
	u64 *p = page_at(page), first;

	version[page]++;
	first = word(page, 0);
	for (u64 i = 0; i < WORDS; i++)
		p[i] = first + i;
}

/* Wrong words in a page: a look at all of it. */
static u64 check(u64 page)
{
	const u64 *p = page_at(page);
	u64 first = word(page, 0), wrong = 0;

	for (u64 i = 0; i < WORDS; i++)
		wrong += p[i] != first + i;
	if (wrong)
		tap_note("page %lu at %p: %lu words wrong, the first is %lx, not %lx", page,
			 (const void *)p, wrong, p[0], first);
	return wrong;
}

static u64 check_all(void)
{
	u64 wrong = 0;

	for (u64 page = 0; page < pages; page++)
		wrong += check(page);
	return wrong;
}

static u64 hash_all(void)
{
	u64 hash = 0;

	for (u64 page = 0; page < pages; page++)
		for (u64 i = 0; i < WORDS; i++)
			hash = (hash << 7 | hash >> 57) ^ page_at(page)[i];
	return hash;
}

static u64 cycles; /* TSC of the last measured piece */

static void note_time(const char *what, u64 begin, u64 touched)
{
	cycles = rdtsc() - begin;
	tap_note("%s: %lu pages, %lu cycles a page", what, touched, cycles / touched);
}

/* --- orders ----------------------------------------------------------------------------------- */

static void test_fill(void)
{
	u64 begin = rdtsc(), wrong = 0;

	for (u64 page = 0; page < pages; page++)
		for (u64 i = 0; i < WORDS; i += 37)
			wrong += page_at(page)[i] != 0;
	tap_is(wrong, 0, "memory that nobody has touched is zero");
	note_time("first touch", begin, pages);
	begin = rdtsc();
	for (u64 page = 0; page < pages; page++)
		fill(page);
	note_time("fill", begin, pages);
	begin = rdtsc();
	tap_is(check_all(), 0, "%lu pages have what was written to them", pages);
	note_time("scan", begin, pages);
	tap_is(hash_all(), hash_all(), "the hash of all memory, twice");
}

static void test_walk(void)
{
	u64 begin = rdtsc(), wrong = 0, n = pages * rounds / 2;
	struct rng r;

	rng_seed(&r, seed);
	for (u64 i = 0; i < n; i++) {
		u64 page = rng_below(&r, pages);

		wrong += check(page);
		if (rng_next(&r) & 1)
			fill(page);
	}
	tap_is(wrong, 0, "%lu visits at random, half of them writing", n);
	note_time("random", begin, n);
}

static void test_stride(void)
{
	static const s64 strides[] = {-1, 3, -7};
	u64 wrong = 0;

	for (u64 s = 0; s < ARRAY_SIZE(strides); s++) {
		u64 begin = rdtsc(), n = pages / 2;
		s64 page = strides[s] < 0 ? (s64)pages - 1 : 0;

		for (u64 i = 0; i < n; i++) {
			wrong += check((u64)page);
			page = (page + strides[s] + (s64)pages) % (s64)pages;
		}
		note_time("stride", begin, n);
	}
	tap_is(wrong, 0, "visits in strides of -1, 3 and -7 pages");
}

/* --- writing by string instructions ----------------------------------------------------------- */

static void stosq(u64 *to, u64 value, u64 count)
{
	asm volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(value) : "memory");
}

static void stosb(u8 *to, u8 value, u64 count)
{
	asm volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(value) : "memory");
}

static void movsq(u64 *to, const u64 *from, u64 count)
{
	asm volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
}

static void test_write(void)
{
	u64 wrong = 0, begin = rdtsc(), half = pages / 2;

	stosq(page_at(0), 0x1122334455667788ull, half * WORDS);
	note_time("rep stosq", begin, half);
	for (u64 i = 0; i < half * WORDS; i += 61)
		wrong += area[i] != 0x1122334455667788ull;
	/* Neither begins nor ends with a page. */
	stosb((u8 *)area + 100, 0x5a, half * PAGE_SIZE - 200);
	for (u64 i = 0; i < half * PAGE_SIZE; i += 97) {
		u8 want = i < 100 || i >= half * PAGE_SIZE - 100
				  ? (u8)(0x1122334455667788ull >> i % 8 * 8)
				  : 0x5a;

		wrong += ((u8 *)area)[i] != want;
	}
	tap_is(wrong, 0, "REP STOSQ and STOSB over %lu pages", half);
	for (u64 page = half; page < pages; page++)
		fill(page);
	begin = rdtsc();
	movsq(page_at(0), page_at(half), half * WORDS);
	note_time("rep movsq", begin, half);
	wrong = 0;
	for (u64 page = 0; page < half; page++)
		for (u64 i = 0; i < WORDS; i += 13)
			wrong += page_at(page)[i] != word(half + page, i);
	tap_is(wrong, 0, "REP MOVSQ of %lu pages", half);
	for (u64 page = 0; page < half; page++)
		fill(page);
	tap_is(check_all(), 0, "and its source is what it was");
}

/* --- code ------------------------------------------------------------------------------------- */

/* MOV $value, %eax; RET, around the middle of the page, or over its end. */
static u8 *code_at(u64 page, bool crossing)
{
	return (u8 *)page_at(page) + (crossing ? PAGE_SIZE - 3 : 2048);
}

static void put_code(u8 *at, u32 value)
{
	at[0] = 0xb8;
	memcpy(at + 1, &value, 4);
	at[5] = 0xc3;
}

static u32 call_code(u8 *at)
{
	u32 value;

	asm volatile("call *%1" : "=a"(value) : "r"(at) : "memory", "cc", "rcx", "rdx");
	return value;
}

static void test_code(void)
{
	u64 wrong = 0, n = pages - 1;

	for (u64 round = 0; round < 2; round++) {
		for (u64 page = 0; page < n; page++)
			put_code(code_at(page, round), (u32)(page * 3 + round));
		for (u64 page = 0; page < n; page++)
			wrong += call_code(code_at(page, round)) != (u32)(page * 3 + round);
	}
	/* Written over right before it runs. */
	for (u64 page = 0; page < n; page += 5) {
		put_code(code_at(page, true), (u32)page ^ 0x55);
		wrong += call_code(code_at(page, true)) != ((u32)page ^ 0x55);
	}
	tap_is(wrong, 0, "code in %lu pages, also over their ends", n);
	for (u64 page = 0; page < pages; page++)
		fill(page);
}

/* --- paging structures ------------------------------------------------------------------------ */

/* 4-KiB pages that lie 1 GiB apart: three pages of tables each; all of them map pages of ours. */
static void test_tables(void)
{
	u64 n = MIN(pages / 4, 200), wrong = 0;

	for (u64 i = 0; i < n; i++)
		pt_map(TABLE_VA + i * SIZE_1G, (u64)(uintptr_t)page_at(i * 3), PAGE_SIZE,
		       PTE_P | PTE_W, 1);
	for (u64 round = 0; round < 2; round++) {
		wrong += check_all();
		write_cr3(read_cr3());
		for (u64 i = 0; i < n; i++) {
			const volatile u64 *p = (const volatile u64 *)(TABLE_VA + i * SIZE_1G);

			wrong += p[7] != word(i * 3, 7);
		}
	}
	tap_is(wrong, 0, "paging structures of %lu pages that are 1 GiB apart", n);
	for (u64 i = 0; i < n; i++)
		pt_unmap(TABLE_VA + i * SIZE_1G, PAGE_SIZE);
}

/* --- stacks: events whose delivery faults ----------------------------------------------------- */

static void test_stacks(void)
{
	u64 n = MIN(pages - 1, 300), wrong = 0;

	wrong += check_all();
	for (u64 i = 0; i < n; i++) {
		/* The exception's frame straddles two pages that have not been used for long. */
		u64 stack = (u64)(uintptr_t)page_at(i + 1) + 24;

		trap_clear();
		asm volatile("xchgq %%rsp, %0\n\t" EX("ud2") "xchgq %%rsp, %0"
			     : "+r"(stack)
			     :
			     : "memory");
		wrong += trap_last()->vector != VEC_UD ||
			 (trap_last()->rsp ^ (u64)(uintptr_t)page_at(i + 1)) >= PAGE_SIZE;
		fill(i);
		fill(i + 1);
	}
	tap_is(wrong, 0, "%lu exceptions on stacks that are not there", n);
	tap_is(check_all(), 0, "and nothing else was written to");
}

/* --- vector registers, which a hypervisor that fetches a page might use -------------------------
 */

/* XCR0 as an operating system sets it: all of x87, SSE, AVX and AVX-512 that there is. */
static void enable_vectors(void)
{
	if (!(cpuid(1, 0).ecx & BIT(26)))
		return;
	write_cr4(read_cr4() | CR4_OSXSAVE);
	vectors = cpuid(0xd, 0).eax & 0xe7;
	if (safe_xsetbv(0, vectors) != TRAP_NONE)
		tap_bail("XSETBV of 0x%lx fails", vectors);
}

#define AREA_MAX    4096
#define AREA_HEADER 512 /* XSAVE's: which components are there */

/*
 * In an XSAVE area: every byte of XMM and, each other time, of the upper halves of YMM and ZMM, of
 * ZMM16 to 31 and k0 to k7, which are as after reset otherwise.
 */
static void fill_vectors(u8 *at, struct rng *r)
{
	const u32 mxcsr = 0x1f80;
	u64 there = at[AREA_HEADER] == 2 ? vectors & ~1ull : 2;

	memset(at, 0, AREA_MAX);
	memcpy(at + 24, &mxcsr, 4);
	for (u32 i = 160; i < 160 + 256; i++)
		at[i] = (u8)rng_next(r);
	memcpy(at + AREA_HEADER, &there, 8);
	for (u32 c = 2; c < 8; c++) {
		struct cpuid_regs place = cpuid(0xd, c);

		for (u32 i = 0; there >> c & 1 && i < place.eax; i++)
			at[place.ebx + i] = (u8)rng_next(r);
	}
}

static void test_vectors(void)
{
	static u8 before[AREA_MAX] __aligned(64), after[AREA_MAX] __aligned(64);
	u64 wrong = 0, changed = 0, n = pages / 2;
	u32 bytes = vectors ? cpuid(0xd, 0).ebx : 0, mask = (u32)vectors & ~1u;
	struct rng r;

	if (!vectors || bytes > sizeof(before)) {
		tap_skip("no XSAVE, or an area of %u bytes", bytes);
		return;
	}
	rng_seed(&r, seed + 2);
	for (u64 i = 0; i < n; i++) {
		u64 page = rng_below(&r, pages);

		if (i % 32 == 0)
			fill_vectors(before, &r);
		asm volatile("xrstor64 (%0)" : : "r"(before), "a"(mask), "d"(0) : "memory");
		wrong += check(page);
		asm volatile("xsave64 (%0)" : : "r"(after), "a"(mask), "d"(0) : "memory");
		changed += memcmp(before + 160, after + 160, 256) != 0 ||
			   memcmp(before + 576, after + 576, bytes - 576) != 0;
		if (i % 8 == 0)
			fill(page);
	}
	tap_is(wrong, 0, "%lu visits with something in all vector registers", n);
	tap_is(changed, 0, "which it is still (XCR0 %lx)", vectors);
}

/* --- a sort ----------------------------------------------------------------------------------- */

static void sort(u64 *a, u64 n)
{
	while (n > 16) {
		u64 pivot = a[n / 2], i = 0, j = n - 1;

		for (;; i++, j--) {
			while (a[i] < pivot)
				i++;
			while (a[j] > pivot)
				j--;
			if (i >= j)
				break;
			u64 t = a[i];

			a[i] = a[j];
			a[j] = t;
		}
		/* The smaller half first, so that the stack stays small. */
		if (i < n - i) {
			sort(a, i);
			a += i;
			n -= i;
		} else {
			sort(a + i, n - i);
			n = i;
		}
	}
	for (u64 i = 1; i < n; i++)
		for (u64 j = i; j && a[j - 1] > a[j]; j--) {
			u64 t = a[j];

			a[j] = a[j - 1];
			a[j - 1] = t;
		}
}

static void test_sort(void)
{
	u64 n = pages * WORDS, sum = 0, after = 0, wrong = 0, begin;
	struct rng r;

	rng_seed(&r, seed + 1);
	for (u64 i = 0; i < n; i++) {
		area[i] = rng_next(&r);
		sum += area[i];
	}
	begin = rdtsc();
	sort(area, n);
	note_time("sort", begin, pages);
	for (u64 i = 0; i < n; i++) {
		after += area[i];
		wrong += i && area[i - 1] > area[i];
	}
	tap_ok(!wrong && sum == after, "a sort of %lu numbers", n);
	for (u64 page = 0; page < pages; page++)
		fill(page);
}

/* --- several vCPUs ---------------------------------------------------------------------------- */

static u64 job_wrong[MAX_CPUS];
static volatile u32 job_next;

/* Each has every n-th page for itself, and adds to a word of everybody's. */
static void job(void *arg)
{
	u32 me = __atomic_fetch_add(&job_next, 1, __ATOMIC_SEQ_CST), n = smp_count();
	struct rng r;

	rng_seed(&r, seed + 100 + me);
	for (u64 i = 0; i < pages * rounds / n; i++) {
		u64 page = rng_below(&r, pages / n) * n + me;
		u64 shared = rng_below(&r, pages / n) * n;

		if (page % n == 0) /* everybody's */
			continue;
		job_wrong[me] += check(page);
		fill(page);
		__atomic_fetch_add(page_at(shared) + 5, 1, __ATOMIC_SEQ_CST);
	}
}

static void test_smp(void)
{
	u32 n = smp_start();
	u64 wrong = 0, added = 0, expected, begin = rdtsc();

	if (n < 2) {
		tap_skip("one vCPU only");
		return;
	}
	smp_run_all(job, NULL);
	note_time("smp", begin, pages * rounds);
	for (u32 i = 0; i < n; i++)
		wrong += job_wrong[i];
	tap_is(wrong, 0, "%u vCPUs write and read pages of their own", n);
	wrong = 0;
	for (u64 page = 0; page < pages; page++) {
		if (page % n || page >= pages / n * n) {
			wrong += check(page);
			continue;
		}
		added += page_at(page)[5] - word(page, 5);
		page_at(page)[5] = word(page, 5);
		wrong += check(page);
	}
	tap_is(wrong, 0, "and they are all right in the end");
	expected = (n - 1) * (pages * rounds / n);
	tap_is(added, expected, "no addition to common pages was lost");
}

/* --- for scripts/bench: many reads, hardly any writes ----------------------------------------- */

static u64 next_page(struct rng *r, u64 i, const char *order)
{
	switch (order[0]) {
	case 's': /* sequential */
		return i % pages;
	case 't': /* in strides of three */
		return i * 3 % (pages - 1);
	case 'l': /* with locality: 99 % of the visits to 40 % of the pages */
		return rng_below(r, 100) ? rng_below(r, pages * 2 / 5) : rng_below(r, pages);
	default:
		return rng_below(r, pages);
	}
}

static void visit(const char *order)
{
	u64 n = pages * rounds, wrong = 0, begin;
	struct rng r;

	rng_seed(&r, seed);
	/* What has been filled last is here: not what the visits are about. */
	for (u64 i = 0; i < 2 * pages; i++)
		wrong += check(next_page(&r, i, order));
	begin = rdtsc();
	for (u64 i = 0; i < n; i++)
		wrong += check(next_page(&r, i, order));
	tap_is(wrong, 0, "%lu visits, %s", n, order);
	printf("bench remote.%s %lu instructions\n", order, (rdtsc() - begin) / n);
}

static void bench_sequential(void)
{
	visit("sequential");
}

static void bench_threes(void)
{
	visit("threes");
}

static void bench_random(void)
{
	visit("random");
}

static void bench_local(void)
{
	visit("local");
}

/* One cycle through all pages (Sattolo's algorithm). */
static void make_cycle(void)
{
	struct rng r;

	next = mem_alloc(pages * sizeof(next[0]), PAGE_SIZE);
	if (!next)
		tap_bail("no memory for the order of %lu pages", pages);
	for (u64 page = 0; page < pages; page++)
		next[page] = (u32)page;
	rng_seed(&r, seed);
	for (u64 page = pages - 1; page; page--) {
		u64 other = rng_below(&r, page);
		u32 kept = next[page];

		next[page] = next[other];
		next[other] = kept;
	}
}

/* From each page to that which its first word points to: the next address is not known before the
 * page is here. Only the pages say where it goes. */
static u64 chase(u64 begin, u64 steps, u64 *wrong)
{
	u64 at = begin, low = (u64)(uintptr_t)area;

	for (u64 i = 0; i < steps; i++) {
		const u64 *p = (const u64 *)(uintptr_t)at;
		u64 page = (at - low) / PAGE_SIZE;

		if (page >= pages || at % PAGE_SIZE)
			tap_bail("step %lu leads to %lx", i, at);
		for (u64 k = 1; k < WORDS; k++)
			*wrong += p[k] != word(page, k);
		at = p[0];
		*wrong += (at == begin) != (i % pages == pages - 1);
	}
	return at;
}

static void bench_chase(void)
{
	u64 start = (u64)(uintptr_t)area, n = pages * rounds, wrong = 0, begin;

	chase(start, 2 * pages, &wrong);
	begin = rdtsc();
	chase(start, n, &wrong);
	tap_is(wrong, 0, "%lu steps along pointers, back at the first page after each %lu", n,
	       pages);
	printf("bench remote.chase %lu instructions\n", (rdtsc() - begin) / n);
}

static void bench_fill(void)
{
	tap_ok(true, "all has been filled");
}

static const struct {
	const char *name;
	void (*run)(void);
} benches[] = {
	{"fill", bench_fill},	  {"sequential", bench_sequential}, {"threes", bench_threes},
	{"random", bench_random}, {"local", bench_local},	    {"chase", bench_chase},
};

/* ---------------------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	void (*run)(void);
} tests[] = {
	{"walk", test_walk},	   {"stride", test_stride}, {"write", test_write},
	{"code", test_code},	   {"tables", test_tables}, {"stacks", test_stacks},
	{"vectors", test_vectors}, {"sort", test_sort},	    {"smp", test_smp},
};

void guest_main(void)
{
	char only[16] = "";
	u64 free = ram_top() < 4 * SIZE_1G ? ram_top() - mem_next() : 0;
	/* What is left is for page tables: three pages for each GiB of test_tables(). */
	u64 reserve = SIZE_2M + SIZE_2M / 2;

	pages = opt_u64("mib", 0) * 256;
	if (!pages)
		pages = (free - reserve) / PAGE_SIZE;
	enable_vectors();
	rounds = opt_u64("rounds", 1);
	seed = opt_u64("seed", 1);
	opt_str("only", only, sizeof(only));
	version = mem_alloc(pages * sizeof(version[0]), PAGE_SIZE);
	area = mem_alloc(pages * PAGE_SIZE, PAGE_SIZE);
	if (!area || !version)
		tap_bail("%lu pages of memory are not there", pages);
	memset(version, 0, pages * sizeof(version[0]));
	tap_note("%lu pages from %p on", pages, (void *)area);
	if (!strcmp(only, "chase"))
		make_cycle();
	for (u32 i = 0; i < ARRAY_SIZE(benches); i++)
		if (!strcmp(only, benches[i].name)) {
			for (u64 page = 0; page < pages; page++) {
				fill(page);
				if (next)
					page_at(page)[0] = (u64)(uintptr_t)page_at(next[page]);
			}
			benches[i].run();
			tap_end();
		}
	test_fill();
	for (u32 i = 0; i < ARRAY_SIZE(tests); i++)
		if (!only[0] || !strcmp(only, tests[i].name))
			tests[i].run();
	tap_end();
}
