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

#define EACH 100

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
	u32 n = smp_start();
	u64 count;

	flushes();
	smp_run_all(store_many, NULL);
	count = flushes();
	tap_ok(count >= (u64)n * EACH * 2, "%lu flushes by %u CPUs at once, %u stores each", count,
	       n, EACH * 2);
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
	test_cpus();
}
