/*
 * KVM's asynchronous page faults: pages that are away come as a #PF with a token, other work is
 * done meanwhile, and an interrupt with the same token says that the page is here. And all that a
 * hypervisor must not do: a #PF where the guest cannot take it, or two where it has seen one.
 *
 * Wants remote memory that is smaller than what is filled here, `async_pf = yes`, `prefetch = no`
 * and 2 vCPUs; without the feature that nothing of it is there. Options: mib=N to fill (3), seed=N;
 * only=bench for scripts/bench: how much sooner two things are done of which one waits for pages.
 */
#include "apic.h"
#include "cpu.h"
#include "irq.h"
#include "mem.h"
#include "smp.h"
#include "umbra.h"

#define KVM_FIRST     0x4b564d00u
#define EN_ENABLE     BIT64(0)
#define EN_ALWAYS     BIT64(1)
#define EN_VMEXIT     BIT64(2)
#define EN_BY_IRQ     BIT64(3)
#define VEC_READY     0xd3
#define TOKEN_ALL     (~0u)
#define WORDS	      (PAGE_SIZE / 8)
#define COLD	      180 /* pages from the first on that are away once all are filled */
#define BENCH_PAGES   50
#define NESTED	      4
#define MOST	      256
#define HOLE_PHYS_TOP (1ull << 45)

/* What the hypervisor writes to, one for each CPU. */
static volatile struct area {
	u32 flags, token;
	u8 rest[56];
} areas[MAX_CPUS] __aligned(64);

static u64 *memory, pages, seed, ms; /* TSC ticks of a millisecond */
static u32 next_cold;

/* What has come, in all; on the boot processor but for the test of INIT. */
static volatile struct {
	u32 faults, readies;
	u32 token[MOST], ready[MOST];
	u32 bad_flags, bad_error, masked, kernel;
	u64 work; /* loops while something travelled */
} seen;

static volatile enum {
	ACK_BOTH,
	ACK_NOT_TOKEN,
	ACK_NOT_MSR
} acknowledge;

/* What a #PF's handler does before it waits for the page; and instead. */
static void (*volatile meanwhile)(void);
static void (*volatile instead)(void);
static volatile bool sleep_meanwhile;

/* --- events ----------------------------------------------------------------------------------- */

/* Among what has come since `from`. */
static bool is_ready(u32 token, u32 from)
{
	for (u32 i = from; i < seen.readies && i < MOST; i++)
		if (seen.ready[i] == token || seen.ready[i] == TOKEN_ALL)
			return true;
	return false;
}

static void other_work(void)
{
	irq_enable();
	seen.work++;
	irq_disable();
}

/* A round of waiting, if it is not ready yet. */
static bool go_on(u32 token, u32 from, u64 begin)
{
	if (is_ready(token, from))
		return false;
	if (rdtsc() > begin + 5000 * ms)
		tap_bail("nobody says that %x is ready", token);
	if (sleep_meanwhile)
		irq_wait();
	else
		other_work();
	return true;
}

static void await(u32 token, u32 from)
{
	u64 begin = rdtsc();

	while (go_on(token, from, begin))
		;
}

static bool on_fault(struct frame *f)
{
	volatile struct area *area = &areas[this_cpu()->index];
	u32 token = (u32)read_cr2(), flags = area->flags, from = seen.readies;
	void (*also)(void) = meanwhile;

	if (!flags)
		return false;
	area->flags = 0;
	seen.bad_flags += flags != 1 || read_cr2() >> 32;
	seen.bad_error += f->error != 0;
	seen.masked += !(f->rflags & RFLAGS_IF);
	seen.kernel += !(f->cs & 3);
	if (seen.faults < MOST)
		seen.token[seen.faults] = token;
	seen.faults++;
	if (instead) {
		instead();
		return true;
	}
	if (also) {
		irq_enable();
		also();
		irq_disable();
	}
	await(token, from);
	return true;
}

static bool on_ready(struct frame *f)
{
	volatile struct area *area = &areas[this_cpu()->index];

	if (seen.readies < MOST)
		seen.ready[seen.readies] = area->token;
	seen.readies++;
	lapic_eoi();
	if (acknowledge != ACK_NOT_TOKEN)
		area->token = 0;
	if (acknowledge != ACK_NOT_MSR)
		wrmsr(KVM_MSR_ASYNC_PF_ACK, 1);
	return true;
}

static u64 address(u32 cpu)
{
	return (u64)(uintptr_t)&areas[cpu];
}

static void enable(u64 more)
{
	wrmsr(KVM_MSR_ASYNC_PF_EN, address(this_cpu()->index) | EN_ENABLE | EN_BY_IRQ | more);
}

/* --- pages ------------------------------------------------------------------------------------ */

static u64 word(u64 page)
{
	return (page + 1) * 0x9e3779b97f4a7c15ull ^ seed;
}

static u64 *page_at(u64 page)
{
	return memory + page * WORDS;
}

static void fill(void)
{
	memory = mem_alloc(pages * PAGE_SIZE, PAGE_SIZE);
	if (!memory)
		tap_bail("%lu pages of memory are not there", pages);
	for (u64 page = 0; page < pages; page++)
		for (u64 i = 0; i < WORDS; i += 8)
			page_at(page)[i] = word(page);
	pt_set_user((u64)(uintptr_t)memory, pages * PAGE_SIZE);
}

/* Each page once, in an order without strides. */
static u64 cold(void)
{
	if (next_cold == COLD)
		tap_bail("no page is left that has not been used");
	return (u64)next_cold++ * 61 % COLD;
}

/* Also past the shadow of STI. */
static void irq_open(void)
{
	asm volatile("sti; nop" : : : "memory");
}

/* --- accesses --------------------------------------------------------------------------------- */

static u64 __user user_read(u64 at)
{
	return *(const volatile u64 *)at;
}

static u64 __user user_add(u64 at)
{
	return ++*(volatile u64 *)at;
}

static u64 read_at_cpl3(u64 *at)
{
	u64 value = 0;

	if (user_run_flags(NULL, user_read, (u64)(uintptr_t)at, &value, RFLAGS_IF))
		return 0;
	return value;
}

static u64 read_masked_at_cpl3(u64 *at)
{
	u64 value = 0;

	if (user_run_flags(NULL, user_read, (u64)(uintptr_t)at, &value, 0))
		return 0;
	return value;
}

static u64 write_at_cpl3(u64 *at)
{
	u64 value = 0;

	if (user_run_flags(NULL, user_add, (u64)(uintptr_t)at, &value, RFLAGS_IF))
		return 0;
	return --*at == value - 1 ? *at : 0;
}

static u64 read_masked(u64 *at)
{
	return *(volatile u64 *)at;
}

static u64 read_at_cpl0(u64 *at)
{
	u64 value;

	irq_open();
	value = *(volatile u64 *)at;
	irq_disable();
	return value;
}

static u64 read_in_shadow(u64 *at)
{
	u64 value;

	asm volatile("sti; movq (%1), %0; cli" : "=r"(value) : "r"(at) : "memory");
	return value;
}

static u64 nmi_value, *nmi_at;

static bool on_nmi(struct frame *f)
{
	nmi_value = read_at_cpl0(nmi_at);
	return true;
}

static u64 read_in_nmi(u64 *at)
{
	nmi_at = at;
	nmi_value = 0;
	lapic_send(lapic_id(), ICR_NMI | ICR_ASSERT);
	for (u64 end = rdtsc() + 100 * ms; !nmi_value && rdtsc() < end;)
		cpu_pause();
	return nmi_value;
}

/* By Umbra, for OUTSB. */
static u64 read_by_port(u64 *at)
{
	u64 *p = at;

	irq_enable();
	asm volatile("outsb" : "+S"(p) : "d"(0x80) : "memory");
	irq_disable();
	return *at;
}

static u64 read_with_flags(u64 *at)
{
	u64 value;

	areas[0].flags = 1;
	value = read_at_cpl3(at);
	areas[0].flags = 0;
	return value;
}

/* A page that is away is read in this way: told of it as often as said. */
static bool try(u64 (*how)(u64 *), u32 faults, const char *what)
{
	u32 old_faults = seen.faults, old_readies = seen.readies;
	u64 page, value, ticks;

	/* One that is here after all says nothing. */
	do {
		page = cold();
		ticks = rdtsc();
		value = how(page_at(page));
		ticks = rdtsc() - ticks;
	} while (ticks < ms / 2 && seen.faults == old_faults);
	faults += old_faults;
	return tap_ok(value == word(page) && seen.faults == faults &&
			      seen.readies - old_readies == seen.faults - old_faults,
		      "%s (%lu us; %u faults, %u ready, %x)", what, ticks * 1000 / ms,
		      seen.faults - old_faults, seen.readies - old_readies,
		      seen.faults ? seen.token[(seen.faults - 1) % MOST] : 0);
}

/* --- tests ------------------------------------------------------------------------------------ */

static bool offered(void)
{
	u32 eax = cpuid(KVM_CPUID_BASE, 0).eax >= KVM_CPUID_FEATURES
			  ? cpuid(KVM_CPUID_FEATURES, 0).eax
			  : 0;
	u32 both = KVM_FEATURE_ASYNC_PF | KVM_FEATURE_ASYNC_PF_INT;

	tap_ok((eax & both) == 0 || (eax & both) == both, "by interrupt or not at all");
	tap_is(eax & BIT(10), 0, "nothing for nested guests");
	return eax & both;
}

static u32 good_values(u32 msr, const u64 *value, u32 count)
{
	u32 good = 0;
	u64 back;

	for (u32 i = 0; i < count; i++)
		good += safe_wrmsr(msr, value[i]) == TRAP_NONE &&
			safe_rdmsr(msr, &back) == TRAP_NONE && back == value[i];
	return good;
}

static u32 bad_values(u32 msr, const u64 *value, u32 count)
{
	u32 bad = 0;

	for (u32 i = 0; i < count; i++)
		bad += safe_wrmsr(msr, value[i]) == VEC_GP;
	return bad;
}

static void test_absent(void)
{
	u64 value = 0;
	u32 there = 0;

	for (u32 msr = KVM_FIRST; msr < KVM_FIRST + 16; msr++)
		there += safe_rdmsr(msr, &value) != VEC_GP || safe_wrmsr(msr, 0) != VEC_GP;
	real_is(there, 0, "no MSR of KVM's is there");
}

static void test_values(void)
{
	u64 at = address(0), on = at | EN_ENABLE | EN_BY_IRQ;
	const u64 good[] = {on, on | EN_ALWAYS, at | EN_ENABLE, EN_BY_IRQ, 0};
	const u64 bad[] = {on | EN_VMEXIT,
			   on | BIT64(4),
			   on | BIT64(5),
			   0xfee00000 | EN_ENABLE | EN_BY_IRQ,
			   HOLE_PHYS_TOP | EN_ENABLE | EN_BY_IRQ,
			   (~0ull << 12) | EN_ENABLE | EN_BY_IRQ};
	const u64 good_vector[] = {0xff, 0, VEC_READY};
	const u64 bad_vector[] = {0x100, BIT64(32) | VEC_READY, ~0ull};
	u64 value = 1;
	u32 there = 0;

	tap_is(rdmsr(KVM_MSR_ASYNC_PF_EN), 0, "off");
	tap_is(good_values(KVM_MSR_ASYNC_PF_EN, good, ARRAY_SIZE(good)), ARRAY_SIZE(good),
	       "its values");
	tap_is(bad_values(KVM_MSR_ASYNC_PF_EN, bad, ARRAY_SIZE(bad)), ARRAY_SIZE(bad),
	       "reserved bits, and addresses of what is not RAM: #GP");
	tap_is(rdmsr(KVM_MSR_ASYNC_PF_EN), 0, "and it stays what it was");
	tap_is(good_values(KVM_MSR_ASYNC_PF_INT, good_vector, ARRAY_SIZE(good_vector)),
	       ARRAY_SIZE(good_vector), "vectors");
	tap_is(bad_values(KVM_MSR_ASYNC_PF_INT, bad_vector, ARRAY_SIZE(bad_vector)),
	       ARRAY_SIZE(bad_vector), "too large ones: #GP");
	tap_ok(safe_rdmsr(KVM_MSR_ASYNC_PF_ACK, &value) == TRAP_NONE && value == 0,
	       "acknowledgements read as 0");
	for (u32 msr = KVM_FIRST; msr < KVM_FIRST + 16; msr++)
		there += safe_rdmsr(msr, &value) == TRAP_NONE;
	tap_is(there, 3, "and no other MSR of KVM's");
	areas[0].flags = areas[0].token = 7;
	enable(0);
	tap_ok(!areas[0].flags && !areas[0].token, "enabling clears the area");
	wrmsr(KVM_MSR_ASYNC_PF_EN, 0);
}

static void test_told(void)
{
	u64 work = seen.work;

	try(read_at_cpl3, 0, "disabled: it waits");
	wrmsr(KVM_MSR_ASYNC_PF_EN, address(0) | EN_ENABLE);
	try(read_at_cpl3, 0, "not by interrupt: it waits");
	enable(0);
	tap_is(seen.work, work, "and nothing was done meanwhile");
	try(read_at_cpl3, 1, "CPL 3 is told");
	try(write_at_cpl3, 1, "also when it writes");
	tap_ok(seen.work > work + 100, "and did other work meanwhile: %lu rounds",
	       seen.work - work);
	sleep_meanwhile = true;
	try(read_at_cpl3, 1, "and while it sleeps in HLT");
	sleep_meanwhile = false;
	enable(EN_ALWAYS);
	try(read_at_cpl0, 1, "CPL 0 if it wants");
}

static void test_refused(void)
{
	enable(0);
	try(read_masked_at_cpl3, 0, "CPL 3 with interrupts disabled waits");
	try(read_at_cpl0, 0, "CPL 0 waits if it has not asked");
	try(read_with_flags, 0, "one that has not seen the last one waits");
	wrmsr(KVM_MSR_ASYNC_PF_INT, 0);
	try(read_at_cpl3, 0, "one without a vector waits");
	wrmsr(KVM_MSR_ASYNC_PF_INT, VEC_READY);
	enable(EN_ALWAYS);
	try(read_masked, 0, "with interrupts disabled it waits though it has asked");
	try(read_in_shadow, 0, "behind STI it waits");
	try(read_in_nmi, 0, "in an NMI's handler it waits");
	try(read_by_port, 0, "Umbra's own access waits");
}

/* Several at once: in the handler of one the next. */
static u32 depth;

static void nest(void)
{
	u64 page;

	if (++depth == NESTED)
		return;
	page = cold();
	seen.kernel += 1000 * (*(volatile u64 *)page_at(page) != word(page));
}

static u32 tokens_twice(void)
{
	u32 twice = 0;

	for (u32 i = 0; i < seen.faults; i++) {
		u32 found = 0;

		for (u32 k = 0; k < seen.faults; k++)
			found += seen.token[k] == seen.token[i];
		twice += found != 1 || !seen.token[i] || seen.token[i] == TOKEN_ALL;
	}
	return twice;
}

static void test_several(void)
{
	u32 kernel = seen.kernel;

	enable(EN_ALWAYS);
	depth = 0;
	meanwhile = nest;
	try(read_at_cpl0, NESTED, "several at once");
	meanwhile = NULL;
	tap_is(seen.kernel - kernel, NESTED, "all of them with the right bytes");
	tap_is(tokens_twice(), 0, "no token comes twice, or is 0, or everybody's");
}

/* Two are under way, the first one's end is not acknowledged properly. */
static u32 held_back, let_go;

/* Until `n` have come in all, or for so long. */
static void linger(u32 n, u64 time)
{
	for (u64 end = rdtsc() + time * ms; seen.readies < n && rdtsc() < end;)
		other_work();
}

static void second(void)
{
	u32 before = seen.readies;

	linger(before + 1, 5000);
	/* The other page comes meanwhile. */
	linger(before + 2, 300);
	held_back = seen.readies - before;
	acknowledge = ACK_BOTH;
	areas[0].token = 0;
	wrmsr(KVM_MSR_ASYNC_PF_ACK, 1);
	linger(before + 2, 5000);
	let_go = seen.readies - before - held_back;
}

static void first(void)
{
	/* Its own fault is answered by second(). */
	if (depth++ == 0) {
		u64 page = cold();

		irq_open();
		*(volatile u64 *)page_at(page);
		irq_disable();
	} else {
		second();
	}
}

static void test_acknowledge(void)
{
	static const char *const what[] = {"", "its token kept", "no write to the MSR"};

	for (int way = ACK_NOT_TOKEN; way <= ACK_NOT_MSR; way++) {
		u32 faults = seen.faults, readies = seen.readies;

		depth = 0;
		acknowledge = way;
		instead = first;
		/* Whether it waits or is told does not matter here. */
		read_at_cpl0(page_at(cold()));
		instead = NULL;
		tap_ok(seen.faults - faults == 2 && held_back == 1 && let_go == 1 &&
			       seen.readies - readies == 2,
		       "nothing more until it is acknowledged: %s (%u faults, %u and %u ready)",
		       what[way], seen.faults - faults, held_back, let_go);
	}
}

static void disable(void)
{
	wrmsr(KVM_MSR_ASYNC_PF_EN, 0);
	linger(MOST, 300);
}

static void test_disabled(void)
{
	u32 faults = seen.faults, readies = seen.readies;
	u64 page = cold(), value;

	instead = disable;
	value = read_at_cpl0(page_at(page));
	instead = NULL;
	tap_is(seen.faults - faults, 1, "it disables all in the handler");
	tap_ok(value == word(page) && seen.readies == readies && !areas[0].token,
	       "nobody tells it of the page any more");
	enable(EN_ALWAYS);
	irq_window();
	tap_ok(seen.readies == readies + 1 && is_ready(TOKEN_ALL, readies),
	       "everybody is woken when it enables it again");
	wrmsr(KVM_MSR_ASYNC_PF_EN, 0);
	enable(EN_ALWAYS);
	irq_window();
	tap_is(seen.readies - readies, 1, "but not if nobody can wait");
	try(read_at_cpl0, 1, "it works again");
}

/* --- INIT ------------------------------------------------------------------------------------- */

static volatile bool ap_stuck;
static volatile u64 ap_control, ap_vector;

static void stay(void)
{
	ap_stuck = true;
	for (;;)
		cpu_pause();
}

static void ap_touch(void *arg)
{
	wrmsr(KVM_MSR_ASYNC_PF_INT, VEC_READY);
	enable(EN_ALWAYS);
	/* It cannot be told the end before INIT comes. */
	areas[1].token = 1;
	read_at_cpl0(page_at(cold()));
}

static void ap_look(void *arg)
{
	ap_control = rdmsr(KVM_MSR_ASYNC_PF_EN);
	ap_vector = rdmsr(KVM_MSR_ASYNC_PF_INT);
	wrmsr(KVM_MSR_ASYNC_PF_INT, VEC_READY);
	enable(EN_ALWAYS);
	irq_window();
}

extern volatile u32 ap_next_index;

static void test_init(void)
{
	u32 readies = seen.readies;

	if (smp_start() < 2) {
		tap_skip("one vCPU only");
		return;
	}
	instead = stay;
	smp_post(1, ap_touch, NULL);
	for (u64 end = rdtsc() + 1000 * ms; !ap_stuck && rdtsc() < end;)
		cpu_pause();
	lapic_send(cpus[1].apic_id, ICR_INIT | ICR_ASSERT);
	delay_us(60000);
	tap_ok(ap_stuck && areas[1].token == 1, "INIT while an end is to be told");
	areas[1].token = 0;
	instead = NULL;
	ap_next_index = 1;
	ap_control = ap_vector = 1;
	smp_init_sipi(cpus[1].apic_id);
	smp_wait(1, 1000);
	smp_post(1, ap_look, NULL);
	smp_wait(1, 1000);
	tap_ok(!ap_control && !ap_vector, "and its MSRs are 0 (%lx, %lx)", ap_control, ap_vector);
	tap_is(seen.readies, readies, "and nobody is told it afterwards");
}

/* --- for scripts/bench ------------------------------------------------------------------------ */

/* Rounds of other work in 1,000 ticks if nothing else is to be done. */
static u64 work_rate(void)
{
	u64 begin = rdtsc(), work = seen.work;

	while (rdtsc() < begin + 50 * ms)
		go_on(0, seen.readies, begin);
	return (seen.work - work) * 1000 / (rdtsc() - begin);
}

/* Pages that are away are read, and so much other work is done: what can be while they travel, the
 * rest behind it. Ticks of it all. */
static u64 read_and_work(u64 rounds)
{
	u64 begin = rdtsc(), end = seen.work + rounds, wrong = 0, away = 0, middle;

	for (u32 i = 0; i < BENCH_PAGES; i++) {
		u64 page = cold(), ticks = rdtsc();

		wrong += read_at_cpl3(page_at(page)) != word(page);
		away += rdtsc() - ticks > ms / 2;
	}
	middle = rdtsc();
	while (seen.work < end)
		go_on(0, seen.readies, middle);
	begin = rdtsc() - begin;
	tap_ok(!wrong && away == BENCH_PAGES, "%lu pages were away, %lu are wrong", away, wrong);
	return begin;
}

/* As much work as fits into the time that the pages take. */
static void bench(void)
{
	u64 rounds = work_rate() * read_and_work(0) / 1000;
	u64 apart = read_and_work(rounds);

	wrmsr(KVM_MSR_ASYNC_PF_INT, VEC_READY);
	enable(0);
	printf("bench remote.async_pf.apart %lu ticks\n", apart);
	printf("bench remote.async_pf.beside %lu ticks\n", read_and_work(rounds));
	tap_is(seen.faults, BENCH_PAGES, "told of as many");
}

/* ---------------------------------------------------------------------------------------------- */

void guest_main(void)
{
	char only[16] = "";

	ms = tsc_khz();
	seed = opt_u64("seed", 1);
	pages = opt_u64("mib", 3) * 256;
	opt_str("only", only, sizeof(only));
	lapic_enable();
	trap_set_handler(VEC_PF, on_fault);
	trap_set_handler(VEC_READY, on_ready);
	trap_set_handler(VEC_NMI, on_nmi);
	if (!offered()) {
		test_absent();
		tap_end();
	}
	fill();
	if (!strcmp(only, "bench")) {
		bench();
		tap_end();
	}
	test_values();
	test_told();
	test_refused();
	test_several();
	test_acknowledge();
	test_disabled();
	test_init();
	tap_is(seen.bad_flags, 0, "the flags are 1, and a token has 32 bits");
	tap_is(seen.bad_error, 0, "the error code is 0");
	tap_is(seen.masked, 0, "never with interrupts disabled");
	tap_end();
}
