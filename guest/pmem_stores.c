/*
 * Stores to the page of flush hints by instructions that Umbra does not emulate: the guest executes
 * them itself, once, on a page that is opened for it alone. They have to store what they store to
 * memory, flush, leave registers and flags as they are, and be seen by nobody: not by interrupts
 * that come meanwhile, other CPUs' stores, the guest's own single-stepping, or exceptions.
 */
#include "apic.h"
#include "cpu.h"
#include "mem.h"
#include "nfit.h"
#include "smp.h"
#include "umbra.h"

#define TEST_VA	  0x4300000000ull
#define HOLE_VA	  0x4310000000ull
#define OTHER_VA  0x4320000000ull
#define VEC_TIMER 0x70

#define NEED_AVX    BIT(0)
#define NEED_AVX512 BIT(1)
#define NEED_XSAVE  BIT(2)

static struct nfit nfit;
static volatile u8 *page; /* the hints, identity-mapped */
static u8 *ram, *other;
static u32 have;

static u64 flushes(void)
{
	static u64 before;
	u64 now = (u64)hypercall(HC_PMEM, HC_PMEM_FLUSHES, 0, 0, 0), more = now - before;

	before = now;
	return more;
}

static void set_mode(u64 mode)
{
	if (hypercall(HC_PMEM, HC_PMEM_SET_MODE, 0, mode, 0))
		tap_bail("no mode %lu", mode);
}

/* --- instructions --------------------------------------------------------------------------------
 */

#define STORE(name, code)                                                             \
	static void name(u64 at)                                                      \
	{                                                                             \
		asm volatile(code : : "r"(at) : "rax", "rdx", "rdi", "memory", "cc"); \
	}
STORE(do_fst, "fninit; fldpi; fsts (%0)")
STORE(do_fstp, "fninit; fldpi; fstpl (%0)")
STORE(do_fstpt, "fninit; fldpi; fstpt 3(%0)")
STORE(do_fistp, "fninit; fldpi; fistpll (%0)")
STORE(do_fisttp, "fninit; fldpi; fisttps (%0)")
STORE(do_fbstp, "fninit; fldpi; fbstp (%0)")
STORE(do_fnstcw, "fninit; fnstcw 1(%0)")
STORE(do_fnstsw, "fninit; fldpi; fnstsw (%0)")
STORE(do_fnstenv, "fninit; fnstenv (%0)")
STORE(do_fnsave, "fninit; fnsave (%0)")
STORE(do_fxsave, "fninit; fxsave64 (%0)")
STORE(do_stmxcsr, "stmxcsr (%0)")
STORE(do_sgdt, "sgdt (%0)")
STORE(do_sidt, "sidt (%0)")
STORE(do_sldt, "sldt (%0)")
STORE(do_str, "str (%0)")
STORE(do_smsw, "smsw (%0)")
STORE(do_maskmov, "pcmpeqd %%xmm1, %%xmm1; mov %0, %%rdi; maskmovdqu %%xmm1, %%xmm1")
STORE(do_pextrb, "pcmpeqd %%xmm1, %%xmm1; pextrb $3, %%xmm1, (%0)")
STORE(do_extractps, "pcmpeqd %%xmm1, %%xmm1; extractps $2, %%xmm1, (%0)")
STORE(do_call, "mov %%rsp, %%rdi; lea 64(%0), %%rsp; call 1f\n1: mov %%rdi, %%rsp")
STORE(do_pushf, "mov %%rsp, %%rdi; lea 64(%0), %%rsp; pushfq; mov %%rdi, %%rsp")
STORE(do_enter, "mov %%rsp, %%rdi; mov %%rbp, %%rdx; lea 64(%0), %%rsp; xor %%ebp, %%ebp;"
		"enter $8, $0; mov %%rdx, %%rbp; mov %%rdi, %%rsp")
STORE(do_xsave, "fninit; mov $3, %%eax; xor %%edx, %%edx; xsave64 (%0)")
STORE(do_xsaveopt, "fninit; mov $3, %%eax; xor %%edx, %%edx; xsaveopt64 (%0)")
STORE(do_vmaskmov, "vpcmpeqd %%ymm1, %%ymm1, %%ymm1; vpsrldq $4, %%ymm1, %%ymm2;"
		   "vmaskmovps %%ymm1, %%ymm2, (%0)")
STORE(do_vextract, "vpcmpeqd %%ymm1, %%ymm1, %%ymm1; vextractf128 $1, %%ymm1, (%0)")
STORE(do_zmm, "vpternlogd $255, %%zmm1, %%zmm1, %%zmm1; vmovdqu64 %%zmm1, (%0)")
STORE(do_scatter,
      "vpternlogd $255, %%zmm1, %%zmm1, %%zmm1; vpabsd %%zmm1, %%zmm2;"
      "mov $0x8001, %%eax; kmovw %%eax, %%k1; vpscatterdd %%zmm1, (%0,%%zmm2,4)%{%%k1%}")

/* The processor sets the descriptor's accessed flag (bit 40). */
static void do_segment(u64 at)
{
	struct __packed {
		u16 limit;
		u64 base;
	} old, new = {15, at};
	u64 *descriptor = (u64 *)at;

	descriptor[0] = 0;
	descriptor[1] = 0x00cf92000000ffff;
	asm volatile("sgdt %0; lgdt %1; mov %2, %%fs; lgdt %0; mov %3, %%fs"
		     : "=m"(old)
		     : "m"(new), "r"(8), "r"(0)
		     : "memory");
}

static const struct store {
	const char *name;
	void (*run)(u64 at);
	u32 needs;
} stores[] = {
	{"FST", do_fst, 0},
	{"FSTP", do_fstp, 0},
	{"FSTP, 80 bits", do_fstpt, 0},
	{"FISTP", do_fistp, 0},
	{"FISTTP", do_fisttp, 0},
	{"FBSTP", do_fbstp, 0},
	{"FNSTCW", do_fnstcw, 0},
	{"FNSTSW", do_fnstsw, 0},
	{"FNSTENV", do_fnstenv, 0},
	{"FNSAVE", do_fnsave, 0},
	{"FXSAVE64", do_fxsave, 0},
	{"STMXCSR", do_stmxcsr, 0},
	{"SGDT", do_sgdt, 0},
	{"SIDT", do_sidt, 0},
	{"SLDT", do_sldt, 0},
	{"STR", do_str, 0},
	{"SMSW", do_smsw, 0},
	{"MASKMOVDQU", do_maskmov, 0},
	{"PEXTRB", do_pextrb, 0},
	{"EXTRACTPS", do_extractps, 0},
	{"CALL with its stack there", do_call, 0},
	{"PUSHF with its stack there", do_pushf, 0},
	{"ENTER with its stack there", do_enter, 0},
	{"MOV FS with its descriptor there", do_segment, 0},
	{"XSAVE64", do_xsave, NEED_XSAVE},
	{"XSAVEOPT64", do_xsaveopt, NEED_XSAVE},
	{"VMASKMOVPS", do_vmaskmov, NEED_AVX},
	{"VEXTRACTF128", do_vextract, NEED_AVX},
	{"VMOVDQU64, 64 bytes", do_zmm, NEED_AVX512},
	{"VPSCATTERDD", do_scatter, NEED_AVX512},
};

static u16 fpu_status(void)
{
	u16 status;

	asm volatile("fnstsw %0" : "=a"(status));
	return status;
}

static void enable_vectors(void)
{
	struct cpuid_regs one = cpuid(1, 0), seven = cpuid(7, 0);
	u64 wanted = 3;

	write_cr0((read_cr0() | CR0_MP | CR0_NE) & ~(CR0_EM | CR0_TS));
	write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
	if (!(one.ecx & BIT(26)))
		return;
	write_cr4(read_cr4() | CR4_OSXSAVE);
	if (cpuid(0xd, 1).eax & BIT(0))
		have |= NEED_XSAVE;
	if (one.ecx & BIT(28))
		wanted |= 4;
	if ((one.ecx & BIT(28)) && (seven.ebx & BIT(16)))
		wanted |= 0xe0;
	if (safe_xsetbv(0, wanted) != TRAP_NONE)
		return;
	have |= (wanted & 4 ? NEED_AVX : 0) | (wanted & 0xe0 ? NEED_AVX512 : 0);
}

static void test_store(const struct store *s)
{
	u16 status[2];
	u64 count;
	bool same;

	set_mode(HC_PMEM_MODE_NONE);
	memset((void *)(uintptr_t)page, 0, PAGE_SIZE);
	set_mode(HC_PMEM_MODE_TRAP);
	memset(ram, 0, PAGE_SIZE);
	flushes();
	s->run(TEST_VA + 1024);
	status[0] = fpu_status();
	s->run(HOLE_VA + 1024);
	status[1] = fpu_status();
	count = flushes();
	same = !memcmp(ram, (const void *)(uintptr_t)page, PAGE_SIZE);
	if (!same || !count || status[0] != status[1])
		tap_note("%s: %lu flushes, FPU status %x instead of %x%s", s->name, count,
			 status[1], status[0], same ? "" : ", other bytes");
	tap_ok(same && count && status[0] == status[1], "%s", s->name);
}

static void test_stores(void)
{
	for (u32 i = 0; i < ARRAY_SIZE(stores); i++) {
		if (stores[i].needs & ~have)
			tap_skip("%s: not on this machine", stores[i].name);
		else
			test_store(&stores[i]);
	}
}

/* --- nobody sees it ------------------------------------------------------------------------------
 */

static volatile u32 ticks, traced, steps;

static bool tick(struct frame *f)
{
	ticks++;
	traced += !!(f->rflags & RFLAGS_TF);
	lapic_eoi();
	return true;
}

static void test_interrupts(void)
{
	u64 rflags = 0, wrong = 0;

	lapic_enable();
	trap_set_handler(VEC_TIMER, tick);
	lapic_write(LAPIC_LVT_TIMER, 1u << 17 | VEC_TIMER);
	lapic_write(LAPIC_TIMER_DCR, 0xb);
	/* Every 300 microseconds: that leaves time to do something. */
	lapic_write(LAPIC_TIMER_ICR, cpuid(UMBRA_CPUID_TIMING, 0).ebx / 10 * 3);
	asm volatile("sti" ::: "memory");
	flushes();
	for (u32 i = 0; i < 500; i++) {
		asm volatile("fninit; fldpi; fstpl (%1); pushfq; pop %0"
			     : "=r"(rflags)
			     : "r"(HOLE_VA + 64)
			     : "memory");
		wrong += !(rflags & RFLAGS_IF) || (rflags & RFLAGS_TF);
	}
	asm volatile("cli" ::: "memory");
	lapic_write(LAPIC_TIMER_ICR, 0);
	tap_ok(flushes() >= 500, "flushes by 500 stores while the timer ticks");
	tap_ok(ticks > 3, "%u ticks", ticks);
	tap_is(traced, 0, "of which found TF set");
	tap_is(wrong, 0, "stores after which IF or TF was another");
}

static bool step(struct frame *f)
{
	steps++;
	return true;
}

static void test_own_step(void)
{
	u32 on_ram;
	u64 target[2] = {TEST_VA + 64, HOLE_VA + 64};

	trap_set_handler(VEC_DB, step);
	for (u32 i = 0; i < 2; i++) {
		steps = 0;
		asm volatile("fninit; fldpi; pushfq; orl $0x100, (%%rsp); popfq;"
			     "nop; fstpl (%0); nop; pushfq; andl $~0x100, (%%rsp); popfq"
			     :
			     : "r"(target[i])
			     : "memory", "cc");
		if (!i)
			on_ram = steps;
	}
	trap_set_handler(VEC_DB, NULL);
	tap_is(steps, on_ram, "traps of the guest's own single-stepping");
}

static void faulting(void *arg)
{
	asm volatile("fstpl (%0)" : : "r"(arg) : "memory");
}

static void test_faults(void)
{
	struct trap t;

	/* Out of the page into one that is not mapped: nothing may remain of the step. */
	pt_unmap(HOLE_VA + PAGE_SIZE, PAGE_SIZE);
	tap_ok(trap_run(&t, faulting, (void *)(HOLE_VA + PAGE_SIZE - 4)) && t.vector == VEC_PF &&
		       !(t.rflags & RFLAGS_TF),
	       "a store that ends in a page fault");
	write_cr0(read_cr0() | CR0_TS);
	tap_ok(trap_run(&t, faulting, (void *)(HOLE_VA + 64)) && t.vector == VEC_NM &&
		       !(t.rflags & RFLAGS_TF),
	       "one that the FPU is not there for");
	write_cr0(read_cr0() & ~CR0_TS);
	/* From memory in front of it. */
	*(volatile u64 *)(OTHER_VA + PAGE_SIZE - 8) = 0;
	flushes();
	asm volatile("fninit; fldpi; fstpl (%0)" : : "r"(OTHER_VA + PAGE_SIZE - 4) : "memory");
	tap_ok(flushes() > 0, "one that begins in memory");
	tap_ok(*(volatile u32 *)(OTHER_VA + PAGE_SIZE - 4) == 0x54442d18 &&
		       *(volatile u32 *)page == 0x400921fb,
	       "both of its parts");
}

static u64 __user u_store(u64 at)
{
	asm volatile("fninit; fldpi; fstpl (%0)" : : "r"(at) : "memory");
	return 1;
}

static void test_user(void)
{
	struct trap t;
	u64 value = 0;

	flushes();
	tap_ok(!user_run(&t, u_store, HOLE_VA + 128, &value) && value == 1, "a store at CPL 3");
	tap_ok(flushes() > 0, "flushes");
}

/* A page table lies in the page. */
static void test_page_table(void)
{
	u64 *leaf = pt_entry(OTHER_VA, 1), *entry = pt_entry(OTHER_VA, 2), before = *entry,
	    wrong = 0;
	volatile u64 *here = (volatile u64 *)((uintptr_t)page | ((uintptr_t)leaf & 0xfff));

	set_mode(HC_PMEM_MODE_NONE);
	memcpy((void *)(uintptr_t)page, (void *)((uintptr_t)leaf & ~0xfffull), PAGE_SIZE);
	*here &= ~(PTE_A | PTE_D);
	set_mode(HC_PMEM_MODE_TRAP);
	*entry = (before & 0xfff) | (uintptr_t)page;
	flushes();
	for (u32 i = 0; i < 2; i++) {
		write_cr3(read_cr3());
		wrong += *(volatile u64 *)OTHER_VA != *(u64 *)(void *)other || (*here & PTE_D);
	}
	*(volatile u64 *)(OTHER_VA + 8) = 77;
	wrong += *(u64 *)(void *)(other + 8) != 77;
	tap_ok(!wrong && (*here & PTE_A) && (*here & PTE_D), "a page table there: %lu flushes",
	       flushes());
	*entry = before;
	write_cr3(read_cr3());
}

/* --- events whose handlers' stack is there
 * --------------------------------------------------------- */

#define TOP	 2048
#define PUSHES	 17 /* of the library's handlers, at least */
#define VEC_SOFT 0x71

static u32 handled, skip;

static bool handle(struct frame *f)
{
	handled++;
	f->rip += skip;
	if (f->vector == VEC_TIMER)
		lapic_eoi();
	return true;
}

static void do_int(void)
{
	asm volatile("int $0x71" : : : "memory");
}

static void do_int3(void)
{
	asm volatile("int3" : : : "memory");
}

static void do_ud(void)
{
	asm volatile("ud2" : : : "memory");
}

static void do_gp(void)
{
	asm volatile("testb %%al, (%0)" : : "r"(BIT64(62)) : "memory", "cc");
}

static void do_pf(void)
{
	asm volatile("testb %%al, (%0)" : : "r"(HOLE_VA + PAGE_SIZE) : "memory", "cc");
}

static void do_nmi(void)
{
	lapic_send(lapic_id(), ICR_NMI | ICR_ASSERT);
	for (u32 before = handled, i = 0; handled == before && i < 1000000; i++)
		asm volatile("pause" ::: "memory");
}

static void do_timer(void)
{
	lapic_write(LAPIC_LVT_TIMER, VEC_TIMER);
	lapic_write(LAPIC_TIMER_ICR, 100);
	for (u32 before = handled, i = 0; handled == before && i < 1000000; i++)
		asm volatile("sti; pause" ::: "memory");
	asm volatile("cli" ::: "memory");
}

static const struct event {
	const char *name;
	void (*run)(void);
	u8 vector, skip;
	u8 words; /* of the frame, which are the same each time */
} events[] = {
	/* First: Bochs (2.7, 3.0) names the event before for a virtual interrupt (hv/vm/events.c).
	 */
	{"the timer's interrupt", do_timer, VEC_TIMER, 0, 0},
	{"INT n", do_int, VEC_SOFT, 0, 5},
	{"INT3", do_int3, VEC_BP, 0, 5},
	{"#UD", do_ud, VEC_UD, 2, 5},
	{"#GP, with its error code", do_gp, VEC_GP, 2, 6},
	{"#PF", do_pf, VEC_PF, 2, 6},
	{"an NMI", do_nmi, VEC_NMI, 0, 0},
};

static void test_event(const struct event *e)
{
	u64 top[2] = {TEST_VA + TOP, HOLE_VA + TOP}, count;
	u64 *frame[2] = {(u64 *)(void *)(ram + TOP), (u64 *)(uintptr_t)page + TOP / 8};
	bool same;

	trap_set_handler(e->vector, handle);
	idt_set_ist(e->vector, 3);
	handled = 0;
	skip = e->skip;
	for (u32 i = 0; i < 2; i++) {
		this_cpu()->tss.ist[2] = top[i];
		flushes();
		e->run();
	}
	count = flushes();
	idt_reset(e->vector, false);
	trap_set_handler(e->vector, NULL);
	/* Bochs (2.7, 3.0) saves RF set at any EPT violation (SDM 28.3.3). */
	for (u32 i = 0; i < 2; i++)
		*(frame[i] - 3) &= ~RFLAGS_RF;
	same = !memcmp(frame[0] - e->words, frame[1] - e->words, 8 * e->words);
	tap_ok(handled == 2 && same && count > PUSHES, "%s: %u delivered, %lu flushes", e->name,
	       handled, count);
}

static void test_events(void)
{
	for (u32 i = 0; i < ARRAY_SIZE(events); i++)
		test_event(&events[i]);
}

#define EACH 100

static u32 online;

static void store_many(void *arg)
{
	u64 at = HOLE_VA + 256 + this_cpu()->index * 64;

	enable_vectors();
	for (u32 i = 0; i < EACH; i++) {
		*(volatile u64 *)at = i;
		asm volatile("fninit; fldpi; fstpl (%0)" : : "r"(at + 8) : "memory");
	}
}

static void test_cpus(void)
{
	u64 count;

	online = smp_start();
	flushes();
	smp_run_all(store_many, NULL);
	count = flushes();
	tap_ok(count >= (u64)online * EACH * 2, "%lu flushes by %u CPUs at once, %u stores each",
	       count, online, EACH * 2);
}

/* --- the mode changes meanwhile
 * ------------------------------------------------------------------- */

#define ROUNDS 8

static struct {
	volatile u64 stores;
	volatile bool stop;
} meanwhile;

/* Flushes and stores from now on until some have been made. */
static void watch_stores(u64 *flushed, u64 *stored)
{
	u64 start, now;

	flushes();
	start = meanwhile.stores;
	do {
		asm volatile("pause");
		now = meanwhile.stores;
	} while (now < start + 20);
	*flushed = flushes();
	*stored = now - start;
}

static void change_modes(u64 *missed, u64 *superfluous)
{
	u64 flushed, stored;

	for (u32 i = 0; i < ROUNDS; i++) {
		set_mode(HC_PMEM_MODE_TRAP);
		watch_stores(&flushed, &stored);
		/* The first may have been made, and not counted, before. */
		if (flushed + 1 < stored)
			*missed += stored - flushed;
		set_mode(i & 1 ? HC_PMEM_MODE_DIRECT : HC_PMEM_MODE_NONE);
		watch_stores(&flushed, &stored);
		if (flushed > 1) /* one that was under way */
			*superfluous += flushed;
	}
	set_mode(HC_PMEM_MODE_TRAP);
}

static void store_or_change(void *arg)
{
	u64 *wrong = arg;

	enable_vectors();
	if (!this_cpu()->index) {
		change_modes(&wrong[0], &wrong[1]);
		meanwhile.stop = true;
	}
	while (this_cpu()->index == 1 && !meanwhile.stop) {
		*(volatile u64 *)(HOLE_VA + 512) = meanwhile.stores;
		meanwhile.stores++;
		asm volatile("fninit; fldpi; fstpl (%0)" : : "r"(HOLE_VA + 520) : "memory");
		meanwhile.stores++;
	}
}

static void test_modes(void)
{
	u64 wrong[2] = {0};

	if (online < 2) {
		tap_skip("one CPU");
		return;
	}
	smp_run_all(store_or_change, wrong);
	tap_is(wrong[0], 0, "%lu stores while the mode changes: flushes missed in mode trap",
	       meanwhile.stores);
	tap_is(wrong[1], 0, "flushes in other modes");
}

void guest_main(void)
{
	if (!umbra_present() || !nfit_read(&nfit) || !nfit.region[0].hints) {
		tap_skip("no persistent memory");
		tap_end();
	}
	page = (volatile u8 *)(uintptr_t)(nfit.region[0].hint[0] & ~(PAGE_SIZE - 1));
	ram = mem_alloc(PAGE_SIZE, PAGE_SIZE);
	other = mem_alloc(PAGE_SIZE, PAGE_SIZE);
	if (!ram || !other)
		tap_bail("out of memory");
	pt_map(TEST_VA, (u64)(uintptr_t)ram, PAGE_SIZE, PTE_P | PTE_W | PTE_U, 1);
	pt_map(HOLE_VA, (u64)(uintptr_t)page, 2 * PAGE_SIZE, PTE_P | PTE_W | PTE_U, 1);
	pt_map(OTHER_VA, (u64)(uintptr_t)other, PAGE_SIZE, PTE_P | PTE_W, 1);
	pt_map(OTHER_VA + PAGE_SIZE, (u64)(uintptr_t)page, PAGE_SIZE, PTE_P | PTE_W, 1);
	enable_vectors();
	test_stores();
	test_interrupts();
	test_own_step();
	test_faults();
	test_user();
	test_page_table();
	test_events();
	test_cpus();
	test_modes();
}
