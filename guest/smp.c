/*
 * Several vCPUs: bring-up and restart by INIT and SIPI, IPIs that must not get lost, locks, and
 * translations that must be gone when they were taken away. Works with more vCPUs than CPUs.
 */
#include "apic.h"
#include "irq.h"
#include "mem.h"
#include "smp.h"
#include "umbra.h"

#define VEC_PING     0x60
#define VEC_SHOOT    0x61
#define VEC_STORM    0x70 /* and one per CPU */
#define PROBE_PAGE   0x9000
#define SHOOT_VA     0x4000000000ull
#define TEST_MS	     400 /* most of what one kind of shootdown may take */
#define SHOOT_ROUNDS 200

extern volatile u32 ap_next_index;

static u32 cpu_count;

/* While waiting for a vCPU that may share our CPU. */
static void relax(u32 i)
{
	if ((i & 31) == 31 && umbra_present())
		hypercall(HC_YIELD, 0, 0, 0, 0);
	else
		cpu_pause();
}

static bool wait_for(volatile u64 *value, u64 want)
{
	u64 start = rdtsc();

	for (u32 i = 0; *value < want; i++) {
		if (rdtsc() - start > 2000 * tsc_khz())
			return false;
		relax(i);
	}
	return true;
}

/* --- bring-up ------------------------------------------------------------------------------- */

static u32 seen_index[MAX_CPUS], seen_apic[MAX_CPUS];

static void identify(void *arg)
{
	u32 me = this_cpu()->index;

	seen_index[me] = umbra_vcpu_index();
	seen_apic[me] = cpuid(1, 0).ebx >> 24;
}

static void test_identities(void)
{
	u32 ids = 0, indices = 0, wrong = 0;

	smp_run_all(identify, NULL);
	for (u32 i = 0; i < cpu_count; i++) {
		ids |= 1u << seen_apic[i];
		indices |= 1u << seen_index[i];
		wrong += seen_apic[i] != cpus[i].apic_id;
	}
	tap_is(ids, (1u << cpu_count) - 1, "every vCPU has its own APIC ID");
	tap_is(wrong, 0, "APIC ID and CPUID agree on every vCPU");
	if (umbra_present())
		tap_is(indices, (1u << cpu_count) - 1, "every vCPU has its own index");
}

/*
 * Real-mode code that notes what INIT left: CS, EDX, CR0, and says so. What it writes lies at 0x800
 * of its page.
 */
static const u8 probe_code[] = {
	0x8c, 0xc8,			    /* mov %cs, %ax */
	0x2e, 0xa3, 0x00, 0x08,		    /* mov %ax, %cs:0x800 */
	0x66, 0x2e, 0x89, 0x16, 0x04, 0x08, /* mov %edx, %cs:0x804 */
	0x0f, 0x20, 0xc0,		    /* mov %cr0, %eax */
	0x66, 0x2e, 0xa3, 0x08, 0x08,	    /* mov %eax, %cs:0x808 */
	0x2e, 0xff, 0x06, 0x0c, 0x08,	    /* incw %cs:0x80c */
	0xfa, 0xf4, 0xeb, 0xfc,		    /* cli; hlt; jmp back */
};

struct probe {
	u16 cs, pad;
	u32 edx, cr0;
	u16 runs;
};

static volatile struct probe *probe_install(void)
{
	u8 *page = (u8 *)(uintptr_t)PROBE_PAGE;

	memcpy(page, probe_code, sizeof(probe_code));
	memset(page + 0x800, 0, sizeof(struct probe));
	return (volatile struct probe *)(volatile void *)(page + 0x800);
}

static bool probe_wait(volatile struct probe *p, u32 runs)
{
	u64 start = rdtsc();

	for (u32 i = 0; p->runs < runs; i++) {
		if (rdtsc() - start > 1000 * tsc_khz())
			return false;
		relax(i);
	}
	return true;
}

/* Starts CPU `cpu` again at the library's trampoline, under its old index. */
static bool restart(u32 cpu)
{
	u64 start;

	cpus[cpu].online = false;
	ap_next_index = cpu;
	lapic_send(cpus[cpu].apic_id, ICR_SIPI | ICR_ASSERT | TRAMPOLINE >> 12);
	start = rdtsc();
	for (u32 i = 0; !cpus[cpu].online; i++) {
		if (rdtsc() - start > 1000 * tsc_khz())
			return false;
		relax(i);
	}
	return true;
}

static volatile u64 heartbeat;
static volatile bool heart_stop;

static void beat(void *arg)
{
	while (!heart_stop)
		heartbeat++;
}

static bool beats(void)
{
	u64 start = heartbeat;

	return wait_for(&heartbeat, start + 1000);
}

static void test_init_of(u32 cpu)
{
	volatile struct probe *p = probe_install();
	u64 before;

	heart_stop = false;
	smp_post(cpu, beat, NULL);
	tap_ok(beats(), "CPU %u runs", cpu);
	lapic_send(cpus[cpu].apic_id, ICR_SIPI | ICR_ASSERT | PROBE_PAGE >> 12);
	delay_us(500);
	tap_ok(beats() && !p->runs, "CPU %u: a SIPI without INIT is ignored", cpu);
	lapic_send(cpus[cpu].apic_id, ICR_INIT | ICR_ASSERT);
	/* Bochs 2.7, 3.0: the kick does not interrupt a guest with IF = 0, so a tick may pass. */
	delay_us(10000);
	before = heartbeat;
	delay_us(5000);
	tap_ok(heartbeat == before, "CPU %u: INIT stops it", cpu);
	lapic_send(cpus[cpu].apic_id, ICR_ASSERT | VEC_PING);
	lapic_send(cpus[cpu].apic_id, ICR_SIPI | ICR_ASSERT | PROBE_PAGE >> 12);
	tap_ok(probe_wait(p, 1), "CPU %u: SIPI starts it at vector * 4096", cpu);
	tap_is(p->cs, PROBE_PAGE >> 4, "CPU %u: CS", cpu);
	real_is(p->edx & 0x0fff3fff, cpuid(1, 0).eax & 0x0fff3fff, "CPU %u: EDX is the signature",
		cpu);
	tap_is(p->cr0 & ~(CR0_CD | CR0_NW), CR0_ET, "CPU %u: CR0 but for CD and NW", cpu);
	lapic_send(cpus[cpu].apic_id, ICR_SIPI | ICR_ASSERT | PROBE_PAGE >> 12);
	delay_us(500);
	tap_is(p->runs, 1, "CPU %u: a second SIPI is ignored", cpu);
	cpus[cpu].job = NULL;
}

static void test_restarts(void)
{
	u32 cpu, rounds = 0;

	for (u32 i = 0; i < 24; i++) {
		cpu = 1 + i % (cpu_count - 1);
		lapic_send(cpus[cpu].apic_id, ICR_INIT | ICR_ASSERT);
		if (i & 1) /* again while it waits for a SIPI */
			lapic_send(cpus[cpu].apic_id, ICR_INIT | ICR_ASSERT);
		if (!restart(cpu))
			break;
		smp_post(cpu, identify, NULL);
		if (!smp_wait(cpu, 1000))
			break;
		rounds++;
	}
	tap_is(rounds, 24, "restarts by INIT and SIPI, each CPU in turn");
	tap_is(smp_count(), cpu_count, "all are online again");
}

static void test_init(void)
{
	for (u32 cpu = 1; cpu < cpu_count; cpu++) {
		test_init_of(cpu);
		lapic_send(cpus[cpu].apic_id, ICR_INIT | ICR_ASSERT);
		tap_ok(restart(cpu), "CPU %u: is back after another INIT", cpu);
	}
	test_restarts();
}

/* --- IPIs and HLT --------------------------------------------------------------------------- */

static volatile u64 requests, answers;
static u64 rounds_wanted;

/* Sleeps whenever there is nothing to do: a wake-up that is lost ends the test. */
static void answer(void *arg)
{
	while (answers < rounds_wanted) {
		irq_disable();
		if (requests == answers)
			irq_wait();
		else
			answers++;
	}
}

/* The IPI comes at all distances from the other's HLT. */
static void test_wakeups(u32 cpu)
{
	struct rng r;
	u64 i;

	rng_seed(&r, cpu);
	requests = answers = 0;
	rounds_wanted = opt_u64("wakeups", 4000);
	smp_post(cpu, answer, NULL);
	for (i = 1; i <= rounds_wanted; i++) {
		requests = i;
		lapic_send(cpus[cpu].apic_id, ICR_ASSERT | VEC_PING);
		if (!wait_for(&answers, i))
			break;
		for (u64 spin = rng_below(&r, 60); spin; spin--)
			cpu_pause();
	}
	tap_is(i - 1, rounds_wanted, "CPU %u: every wake-up from HLT by IPI", cpu);
	if (!smp_wait(cpu, 1000))
		tap_bail("CPU %u does not come back", cpu);
}

static volatile u64 pings, pongs;

static bool pong(struct frame *f)
{
	lapic_eoi();
	if (this_cpu()->index == 0) {
		pongs++;
	} else {
		pings++;
		lapic_send(cpus[0].apic_id, ICR_ASSERT | VEC_PING);
	}
	return true;
}

/* Both ends halt; all work is in handlers. */
static void test_ping_pong(void)
{
	u64 rounds = 1000, start = rdtsc(), i = 0;

	pings = pongs = 0;
	trap_set_handler(VEC_PING, pong);
	for (; i < rounds && rdtsc() - start < 2000 * tsc_khz(); i++) {
		irq_disable();
		lapic_send(cpus[1].apic_id, ICR_ASSERT | VEC_PING);
		while (pongs == i)
			irq_wait();
	}
	irq_disable();
	irq_record(VEC_PING);
	tap_ok(pings == i && pongs == i && i >= rounds / 4, "ping-pong between halted vCPUs: %lu",
	       pongs);
}

static void test_broadcast(void)
{
	u64 rounds = 300, done = 0;

	irq_clear();
	for (u64 i = 1; i <= rounds; i++) {
		bool all = true;

		lapic_send(0, ICR_OTHERS | ICR_ASSERT | VEC_PING);
		for (u32 cpu = 1; cpu < cpu_count; cpu++)
			all &= irq_await(cpu, VEC_PING, (u32)i, 1000000);
		if (!all)
			break;
		done++;
	}
	tap_is(done, rounds, "broadcasts reach all halted vCPUs");
	tap_is(irq_logs[0].hits[VEC_PING], 0, "but not the sender");
}

/*
 * Everybody interrupts everybody. Interrupts of one vector may merge, so each message is a bit that
 * the receiver's handler takes; in the end none may be left.
 */
static volatile u32 mail[MAX_CPUS], mail_taken[MAX_CPUS];
static u32 mail_sent[MAX_CPUS][MAX_CPUS];
static struct barrier storm_barrier;

static u32 count_bits(u32 bits)
{
	u32 n = 0;

	for (; bits; bits &= bits - 1)
		n++;
	return n;
}

static bool take_mail(struct frame *f)
{
	u32 me = this_cpu()->index;
	u32 bits = __atomic_exchange_n(&mail[me], 0, __ATOMIC_ACQ_REL);

	mail_taken[me] += count_bits(bits);
	lapic_eoi();
	return true;
}

/* A sender's bit for a receiver is free again when the handler has taken it. */
static void storm(void *arg)
{
	u32 me = this_cpu()->index, to = me;
	struct rng r;

	rng_seed(&r, me);
	irq_enable();
	barrier_wait(&storm_barrier, cpu_count);
	for (u32 i = 0; i < 300; i++) {
		to = (u32)rng_below(&r, cpu_count);
		if (__atomic_fetch_or(&mail[to], 1u << me, __ATOMIC_ACQ_REL) & 1u << me)
			continue;
		mail_sent[me][to]++;
		lapic_send(cpus[to].apic_id, ICR_ASSERT | (VEC_STORM + me));
	}
	barrier_wait(&storm_barrier, cpu_count);
	for (u32 i = 0; mail[me] && i < 100000; i++)
		relax(i);
	irq_disable();
}

static void test_storm(void)
{
	u32 sent = 0, left = 0, wrong = 0;

	for (u32 cpu = 0; cpu < cpu_count; cpu++)
		trap_set_handler(VEC_STORM + cpu, take_mail);
	smp_run_all(storm, NULL);
	for (u32 cpu = 0; cpu < cpu_count; cpu++) {
		u32 to_cpu = 0;

		for (u32 from = 0; from < cpu_count; from++)
			to_cpu += mail_sent[from][cpu];
		sent += to_cpu;
		left += mail[cpu] != 0;
		wrong += mail_taken[cpu] != to_cpu;
	}
	tap_ok(!left && !wrong, "%u IPIs from all to all: none is lost", sent);
	if (left || wrong)
		tap_note("%u vCPUs with mail left, %u with wrong counts", left, wrong);
}

/* --- locks ---------------------------------------------------------------------------------- */

#define LOCK_ROUNDS 2000

static struct {
	struct spinlock lock;
	u64 plain, added, swapped, wide[2] __aligned(16);
	u32 bits[64], collisions;
} shared;

static void wide_increment(void)
{
	u64 low = shared.wide[0], high = shared.wide[1];
	bool done = false; /* cppcheck does not see the asm set it */

	do {
		asm volatile("lock cmpxchg16b %1"
			     : "=@ccz"(done), "+m"(shared.wide), "+a"(low), "+d"(high)
			     : "b"(low + 1), "c"(high - 1)
			     : "memory");
	} while (!done);
}

static void hammer(void *arg)
{
	u32 me = this_cpu()->index;

	barrier_wait(&storm_barrier, cpu_count);
	for (u64 i = 0; i < LOCK_ROUNDS; i++) {
		u64 old = shared.swapped;
		u32 bit = (u32)(i & 31);

		spin_lock(&shared.lock);
		shared.plain++;
		spin_unlock(&shared.lock);
		__atomic_fetch_add(&shared.added, i, __ATOMIC_SEQ_CST);
		while (!__atomic_compare_exchange_n(&shared.swapped, &old, old + 1, false,
						    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			cpu_pause();
		wide_increment();
		/* Bit `me` of each word is mine alone. */
		if (__atomic_fetch_xor(&shared.bits[bit], 1u << me, __ATOMIC_SEQ_CST) >> me & 1 &&
		    (i >> 5 & 1) == 0)
			shared.collisions++;
	}
}

static void test_locks(void)
{
	u64 n = cpu_count;

	smp_run_all(hammer, NULL);
	tap_is(shared.plain, n * LOCK_ROUNDS, "increments under a spin lock");
	tap_is(shared.added, n * LOCK_ROUNDS * (LOCK_ROUNDS - 1) / 2, "LOCK XADD");
	tap_is(shared.swapped, n * LOCK_ROUNDS, "LOCK CMPXCHG");
	tap_ok(shared.wide[0] == n * LOCK_ROUNDS && shared.wide[1] == 0 - n * LOCK_ROUNDS,
	       "LOCK CMPXCHG16B");
	tap_is(shared.collisions, 0, "LOCK XOR of neighbouring bits");
}

/* --- translations --------------------------------------------------------------------------- */

#define MAGIC 0x5afe5afe5afe5afeull

enum victim_kind {
	READS,
	WRITES,
	EXECUTES,
	READS_MAGIC
};

static struct {
	volatile u64 *page;
	enum victim_kind kind;
	volatile u64 gone; /* set when the old translation must not be used any more */
	volatile u64 stop;
	volatile u64 ready, rounds[MAX_CPUS];
	volatile u64 stale, faults, odd_faults;
} shoot;

/* An access that begins after `gone` was seen must not succeed by the old translation. */
static void victim_loop(void *arg)
{
	u32 me = this_cpu()->index;

	while (!shoot.stop) {
		u64 gone = shoot.gone, value = 0;

		switch (shoot.kind) {
		case WRITES:
			shoot.page[me] = 1;
			break;
		case EXECUTES:
			((void (*)(void))(uintptr_t)shoot.page)();
			break;
		default:
			value = shoot.page[me];
			break;
		}
		if (gone && (shoot.kind != READS_MAGIC || value == MAGIC))
			__atomic_fetch_add(&shoot.stale, 1, __ATOMIC_RELAXED);
		shoot.rounds[me]++;
	}
}

static void victim(void *arg)
{
	struct trap t;

	if (trap_run(&t, victim_loop, arg)) {
		__atomic_fetch_add(&shoot.faults, 1, __ATOMIC_RELAXED);
		if (t.vector != VEC_PF || !(t.error & HC_PF_EPT))
			__atomic_fetch_add(&shoot.odd_faults, 1, __ATOMIC_RELAXED);
	}
}

static void victims_start(volatile u64 *page, enum victim_kind kind)
{
	shoot.page = page;
	shoot.kind = kind;
	shoot.gone = shoot.stop = 0;
	for (u32 cpu = 1; cpu < cpu_count; cpu++) {
		shoot.rounds[cpu] = 0;
		smp_post(cpu, victim, NULL);
	}
	for (u32 cpu = 1; cpu < cpu_count; cpu++) {
		if (!wait_for(&shoot.rounds[cpu], 20))
			tap_bail("CPU %u does not get going", cpu);
	}
}

static void victims_stop(void)
{
	for (u32 cpu = 1; cpu < cpu_count; cpu++) {
		u64 now = shoot.rounds[cpu];

		/* Those that do not fault have to go on for a while. */
		for (u32 i = 0; cpus[cpu].job && shoot.rounds[cpu] < now + 20 && i < 100000; i++)
			relax(i);
	}
	shoot.stop = 1;
	for (u32 cpu = 1; cpu < cpu_count; cpu++) {
		for (u32 i = 0; cpus[cpu].job && i < 1000000; i++)
			relax(i);
		if (!smp_wait(cpu, 2000))
			tap_bail("CPU %u hangs", cpu);
	}
}

/* RET on every page, and MAGIC behind it where the victims read. */
static void fill(u64 page)
{
	volatile u64 *p = (volatile u64 *)(uintptr_t)page;

	for (u32 i = 0; i < MAX_CPUS; i++)
		p[i] = MAGIC;
}

static bool more_rounds(u64 done, u64 start)
{
	return done < 4 || (done < SHOOT_ROUNDS && rdtsc() - start < TEST_MS * tsc_khz());
}

static void shootdown(u64 base, enum victim_kind kind, u64 perms, const char *what)
{
	u64 start = rdtsc(), rounds = 0, expected = 0;

	shoot.stale = shoot.faults = shoot.odd_faults = 0;
	for (; more_rounds(rounds, start); rounds++) {
		u64 page = base + rounds % 512 * PAGE_SIZE;

		fill(page);
		if (kind == EXECUTES)
			*(volatile u8 *)(uintptr_t)page = 0xc3;
		victims_start((volatile u64 *)(uintptr_t)page, kind);
		if (kind == READS_MAGIC) {
			hypercall(HC_DISCARD, page, PAGE_SIZE, 0, 0);
		} else {
			hypercall(HC_PROTECT, page, PAGE_SIZE, perms, 0);
			expected += cpu_count - 1;
		}
		shoot.gone = 1;
		victims_stop();
		hypercall(HC_PROTECT, page, PAGE_SIZE, HC_PERM_R | HC_PERM_W | HC_PERM_X, 0);
	}
	tap_ok(!shoot.stale && rounds >= 4, "%s: no stale access in %lu rounds", what, rounds);
	tap_ok(shoot.faults == expected && !shoot.odd_faults, "%s: every victim faults", what);
	if (shoot.stale || shoot.faults != expected || shoot.odd_faults)
		tap_note("%lu stale, %lu faults (%lu odd) instead of %lu", shoot.stale,
			 shoot.faults, shoot.odd_faults, expected);
}

static void test_ept_shootdown(void)
{
	u64 base;

	if (!umbra_present()) {
		tap_skip("HC_PROTECT and HC_DISCARD need Umbra");
		return;
	}
	base = (u64)(uintptr_t)mem_alloc(SIZE_2M, SIZE_2M);
	if (!base)
		tap_bail("out of memory");
	memset((void *)(uintptr_t)base, 0, SIZE_2M);
	tap_note("EPT leaf of %ld bits", hypercall(HC_PAGE_SIZE, base, 0, 0, 0));
	shootdown(base, WRITES, HC_PERM_R | HC_PERM_X, "HC_PROTECT against writes");
	shootdown(base, READS, 0, "HC_PROTECT against reads");
	shootdown(base, EXECUTES, HC_PERM_R | HC_PERM_W, "HC_PROTECT against execution");
	shootdown(base, READS_MAGIC, 0, "HC_DISCARD");
}

/* The guest's own shootdown: entries change, IPIs make the others invalidate. */
static volatile u64 shot_va, shot_count, shot_how;

static bool shoot_handler(struct frame *f)
{
	if (shot_how == 0)
		invlpg(shot_va);
	else if (shot_how == 1)
		write_cr3(read_cr3());
	else
		write_cr4(read_cr4() ^ CR4_PGE), write_cr4(read_cr4() ^ CR4_PGE);
	__atomic_fetch_add(&shot_count, 1, __ATOMIC_RELEASE);
	lapic_eoi();
	return true;
}

static void guest_victim(void *arg)
{
	irq_enable();
	victim(arg);
	irq_disable();
}

static void guest_victims_start(void)
{
	shoot.page = (volatile u64 *)(uintptr_t)SHOOT_VA;
	shoot.kind = READS_MAGIC;
	shoot.gone = shoot.stop = 0;
	for (u32 cpu = 1; cpu < cpu_count; cpu++) {
		shoot.rounds[cpu] = 0;
		smp_post(cpu, guest_victim, NULL);
	}
	for (u32 cpu = 1; cpu < cpu_count; cpu++)
		wait_for(&shoot.rounds[cpu], 5);
}

static void test_guest_shootdown(void)
{
	static const char *const how[] = {"INVLPG", "MOV CR3", "MOV CR4"};
	u64 old = (u64)(uintptr_t)page_alloc(), new = (u64)(uintptr_t)page_alloc();
	u64 start = rdtsc(), rounds = 0;

	fill(old);
	trap_set_handler(VEC_SHOOT, shoot_handler);
	shot_va = SHOOT_VA;
	shoot.stale = shoot.faults = 0;
	for (; more_rounds(rounds, start); rounds++) {
		u64 flags = PTE_P | PTE_W | (rounds & 1 ? PTE_G : 0);

		pt_map(SHOOT_VA, old, PAGE_SIZE, flags, 1);
		/* Global entries survive MOV CR3. */
		shot_how = rounds % 3 == 1 && (flags & PTE_G) ? 0 : rounds % 3;
		guest_victims_start();
		pt_map(SHOOT_VA, new, PAGE_SIZE, flags, 1);
		shot_count = 0;
		lapic_send(0, ICR_OTHERS | ICR_ASSERT | VEC_SHOOT);
		if (!wait_for(&shot_count, cpu_count - 1)) {
			tap_ok(false, "%s: no answer", how[shot_how]);
			break;
		}
		shoot.gone = 1;
		victims_stop();
	}
	tap_ok(!shoot.stale && !shoot.faults && rounds >= 4,
	       "shootdown by IPI with INVLPG, MOV CR3, MOV CR4: %lu rounds", rounds);
	if (shoot.stale || shoot.faults)
		tap_note("%lu stale, %lu faults", shoot.stale, shoot.faults);
}

void guest_main(void)
{
	cpu_count = smp_start();
	tap_is(cpu_count, smp_expected(), "%u CPUs are online", cpu_count);
	if (cpu_count < 2) {
		tap_skip("one CPU only");
		return;
	}
	smp_spin = false;
	irq_record(VEC_PING);
	irq_record_nmi();
	test_identities();
	test_init();
	for (u32 cpu = 1; cpu < MIN(cpu_count, 4u); cpu++)
		test_wakeups(cpu);
	test_ping_pong();
	test_broadcast();
	test_storm();
	test_locks();
	test_ept_shootdown();
	test_guest_shootdown();
}
