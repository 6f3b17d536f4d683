/*
 * Nothing of a guest's state changes behind its back: general registers and flags, x87, SSE and all
 * XSAVE components offered, debug registers, system MSRs, control registers; across thousands of
 * exits of each kind and, with two VMs of this kernel on one CPU (option `rounds`, other `seed`s),
 * across being descheduled. Prints progress against the TSC: neither VM may starve; the option
 * `max-gap-ms` makes that a test.
 */
#include "apic.h"
#include "cpu.h"
#include "mem.h"
#include "umbra.h"

#define VEC_TEST 0x60

typedef void round_fn(const u64 in[17], u64 out[17]);

extern u64 round_page;
round_fn round_nop, round_cpuid, round_in, round_out, round_rdmsr, round_wrmsr, round_vmcall,
	round_yield, round_mmio_read, round_mmio_write, round_cr0, round_cr4, round_cr3,
	round_wbinvd, round_int3, round_irq, round_hlt, round_touch, round_insb, round_spin,
	round_xsetbv, round_ud;

/* Registers an operation may change, as bits by their places in in[] and out[]. */
#define RAX   BIT(0)
#define RCX   BIT(1)
#define RDX   BIT(2)
#define RBX   BIT(3)
#define RDI   BIT(7)
#define FLAGS BIT(16) /* the arithmetic ones */

enum {
	UMBRA_ONLY = 1,
	PENDING = 2,
	DISCARD = 4,
	XAPIC = 8,
	XSAVE = 16
};

static struct operation {
	const char *name;
	round_fn *run;
	u32 changes;
	u32 needs;
	u64 rounds, wrong;
} operations[] = {
	{"NOP", round_nop, 0, 0, 0, 0},
	{"CPUID", round_cpuid, RAX | RBX | RCX | RDX, 0, 0, 0},
	{"IN", round_in, RAX, 0, 0, 0},
	{"OUT", round_out, 0, 0, 0, 0},
	{"RDMSR", round_rdmsr, RAX | RCX | RDX, 0, 0, 0},
	{"WRMSR", round_wrmsr, RAX | RCX | RDX, 0, 0, 0},
	{"VMCALL", round_vmcall, RAX, UMBRA_ONLY, 0, 0},
	{"HC_YIELD", round_yield, RAX, UMBRA_ONLY, 0, 0},
	{"MMIO read", round_mmio_read, RAX, XAPIC, 0, 0},
	{"MMIO write", round_mmio_write, RAX, XAPIC, 0, 0},
	{"MOV CR0", round_cr0, RAX, 0, 0, 0},
	{"MOV CR4", round_cr4, RAX | FLAGS, 0, 0, 0},
	{"MOV CR3", round_cr3, RAX, 0, 0, 0},
	{"WBINVD", round_wbinvd, 0, 0, 0, 0},
	{"INT3", round_int3, 0, 0, 0, 0},
	{"UD2", round_ud, 0, 0, 0, 0},
	{"an interrupt", round_irq, 0, PENDING, 0, 0},
	{"HLT", round_hlt, 0, PENDING, 0, 0},
	{"first touch of a page", round_touch, RAX, DISCARD, 0, 0},
	{"REP INSB", round_insb, RCX | RDX | RDI, DISCARD, 0, 0},
	{"a long loop", round_spin, RCX, 0, 0, 0},
	{"XSETBV", round_xsetbv, RAX | RCX | RDX, XSAVE, 0, 0},
};

static struct rng rng;
static bool umbra, xsave;
static u64 rounds, page_count, first_page;

#define FLAG_MASK (0x8d5ull | RFLAGS_DF | RFLAGS_AC | BIT64(21)) /* arithmetic, DF, AC, ID */

/* The first few differences are shown, all are counted. */
static u32 shown;
#define SHOW(...)                              \
	do {                                   \
		if (shown++ < 20)              \
			tap_note(__VA_ARGS__); \
	} while (0)

static bool check_registers(struct operation *op, const u64 in[17], const u64 out[17])
{
	bool good = true;

	for (u32 i = 0; i < 16; i++) {
		if (i != 4 && !(op->changes & BIT(i)) && in[i] != out[i]) {
			SHOW("%s: register %u was 0x%lx, is 0x%lx", op->name, i, in[i], out[i]);
			good = false;
		}
	}
	u64 mask = op->changes & FLAGS ? FLAG_MASK & ~0x8d5ull : FLAG_MASK;

	if ((in[16] ^ out[16]) & mask) {
		SHOW("%s: flags were 0x%lx, are 0x%lx", op->name, in[16], out[16]);
		good = false;
	}
	return good;
}

static bool usable(const struct operation *op)
{
	return !(op->needs & UMBRA_ONLY && !umbra) && !(op->needs & XAPIC && lapic_is_x2apic()) &&
	       !(op->needs & XSAVE && !xsave);
}

static void run_operation(struct operation *op)
{
	u64 in[17], out[17] = {0};

	for (u32 i = 0; i < 16; i++)
		in[i] = rng_next(&rng);
	in[16] = (rng_next(&rng) & FLAG_MASK) | RFLAGS_1;
	if (op->needs & PENDING)
		lapic_send(0, ICR_SELF | ICR_ASSERT | VEC_TEST);
	if (op->needs & DISCARD) {
		if (op->run == round_insb)
			in[16] &= ~RFLAGS_DF;
		round_page = first_page + rng_below(&rng, page_count) * PAGE_SIZE;
		if (umbra && rng_below(&rng, 2))
			hypercall(HC_DISCARD, round_page, PAGE_SIZE, 0, 0);
	}
	op->run(in, out);
	op->rounds++;
	op->wrong += !check_registers(op, in, out);
}

/* --- extended state: an XSAVE area of random but legal contents ------------------------------ */

#define XFEATURES (BIT64(0) | BIT64(1) | BIT64(2) | BIT64(5) | BIT64(6) | BIT64(7) | BIT64(9))

static u8 area_in[4096] __aligned(64), area_out[4096] __aligned(64);
static u64 xfeatures;
static u32 area_bytes;
static u64 area_wrong, area_checks;

static void random_bytes(u8 *p, u32 n)
{
	for (u32 i = 0; i < n; i += 4) {
		u32 v = (u32)rng_next(&rng) | 1;

		memcpy(p + i, &v, 4);
	}
}

static void enable_xsave(void)
{
	struct cpuid_regs r;

	xsave = cpuid(1, 0).ecx & BIT(26);
	xfeatures = 3;
	area_bytes = 512;
	if (!xsave)
		return;
	write_cr4(read_cr4() | CR4_OSXSAVE);
	r = cpuid(0xd, 0);
	xfeatures = r.eax & XFEATURES;
	if (!(cpuid(7, 0).ecx & BIT(3)))
		xfeatures &= ~BIT64(9);
	else
		write_cr4(read_cr4() | CR4_PKE);
	if (safe_xsetbv(0, xfeatures) != TRAP_NONE)
		tap_bail("XSETBV of 0x%lx fails", xfeatures);
	area_bytes = cpuid(0xd, 0).ebx;
	if (area_bytes > sizeof(area_in))
		tap_bail("XSAVE area of %u bytes", area_bytes);
}

static void fill_area(void)
{
	u32 mxcsr = 0x1f80 | (rng_next(&rng) & 0xe03f);

	memset(area_in, 0, sizeof(area_in));
	area_in[0] = 0x7f; /* x87 control word 0x37f; status with TOP and conditions */
	area_in[1] = 0x03;
	area_in[3] = (u8)(rng_next(&rng) & 0x7f); /* no exception pending, not busy */
	area_in[4] = (u8)rng_next(&rng);	  /* tags */
	memcpy(area_in + 24, &mxcsr, 4);
	for (u32 i = 0; i < 8; i++)
		random_bytes(area_in + 32 + 16 * i, 8),
			area_in[40 + 16 * i] = 1, area_in[41 + 16 * i] = 0x40;
	random_bytes(area_in + 160, 256);
	if (!xsave)
		return;
	memcpy(area_in + 512, &xfeatures, 8);
	for (unsigned int c = 2; c < 10; c++) {
		if (!(xfeatures >> c & 1))
			continue;
		struct cpuid_regs r = cpuid(0xd, c);

		random_bytes(area_in + r.ebx, r.eax);
		if (c == 9) {
			memset(area_in + r.ebx, 0, r.eax);
			area_in[r.ebx] = 0xf0; /* keys 2 and 3: not those of any page here */
		}
	}
}

static void load_area(void)
{
	if (xsave)
		asm volatile("xrstor64 (%0)" : : "r"(area_in), "a"((u32)xfeatures), "d"(0));
	else
		asm volatile("fxrstor64 (%0)" : : "r"(area_in));
}

static void check_area(void)
{
	bool good = true;

	memset(area_out, 0, sizeof(area_out));
	if (xsave)
		asm volatile("xsave64 (%0)"
			     :
			     : "r"(area_out), "a"((u32)xfeatures), "d"(0)
			     : "memory");
	else
		asm volatile("fxsave64 (%0)" : : "r"(area_out) : "memory");
	area_checks++;
	/* Bytes 28 to 31 are MXCSR_MASK, 416 to 511 are not written. */
	for (u32 i = 0; i < area_bytes; i++) {
		if ((i >= 28 && i < 32) || (i >= 416 && i < 512) || area_in[i] == area_out[i])
			continue;
		if (good)
			SHOW("extended state: byte %u was 0x%x, is 0x%x", i, area_in[i],
			     area_out[i]);
		good = false;
	}
	area_wrong += !good;
}

/*
 * The instructions of the compacted format, which kernels prefer: where CPUID offers them (leaf
 * 0xD, subleaf 1, EAX bit), what they save comes back.
 */
static void test_compacted(bool supervisor, u32 offered)
{
	static u8 compacted[4096] __aligned(64), none[4096] __aligned(64);
	const char *name = supervisor ? "XSAVES" : "XSAVEC";
	u64 before = area_wrong;

	if (!xsave || !(cpuid(0xd, 1).eax & offered)) {
		tap_skip("%s is not offered", name);
		return;
	}
	fill_area();
	load_area();
	if (supervisor)
		asm volatile("xsaves64 (%0)"
			     :
			     : "r"(compacted), "a"((u32)xfeatures), "d"(0)
			     : "memory");
	else
		asm volatile("xsavec64 (%0)"
			     :
			     : "r"(compacted), "a"((u32)xfeatures), "d"(0)
			     : "memory");
	asm volatile("xrstor64 (%0)" : : "r"(none), "a"((u32)xfeatures), "d"(0) : "memory");
	trap_clear();
	if (supervisor)
		asm volatile(EX("xrstors64 (%0)")
			     :
			     : "r"(compacted), "a"((u32)xfeatures), "d"(0)
			     : "memory");
	else
		asm volatile(EX("xrstor64 (%0)")
			     :
			     : "r"(compacted), "a"((u32)xfeatures), "d"(0)
			     : "memory");
	check_area();
	tap_ok(trap_last()->vector == TRAP_NONE && area_wrong == before,
	       "%s: what it saves comes back", name);
	area_wrong = before;
}

/* --- debug registers, MSRs, control registers ------------------------------------------------ */

static const u32 msrs[] = {MSR_STAR,	    MSR_LSTAR,	      MSR_CSTAR,	MSR_FMASK,
			   MSR_SYSENTER_CS, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP, MSR_FS_BASE,
			   MSR_GS_BASE,	    MSR_KERNEL_GS,    MSR_PAT,		MSR_TSC_AUX};
static u64 msr_value[ARRAY_SIZE(msrs)], dr_value[6], cr2_value, cr8_value;
static u64 msr_wrong, dr_wrong, cr_wrong, system_checks;
static u64 cr0_value, cr4_value;

static u64 canonical(void)
{
	return (u64)((s64)(rng_next(&rng) << 16) >> 16);
}

static void set_system(void)
{
	for (u32 i = 0; i < ARRAY_SIZE(msrs); i++) {
		u64 v = canonical();

		if (msrs[i] == MSR_FMASK || msrs[i] == MSR_TSC_AUX)
			v = (u32)v;
		else if (msrs[i] == MSR_SYSENTER_CS)
			v = (u16)v; /* all that is used, and that QEMU 7.2 TCG keeps */
		else if (msrs[i] == MSR_PAT)
			v = 0x0007040600070406ull ^ (v & 1 ? 0x0002000200000000ull : 0);
		else if (msrs[i] == MSR_STAR)
			v = rng_next(&rng);
		/* Absent without RDTSCP: then it stays 0. */
		msr_value[i] = safe_wrmsr(msrs[i], v) == TRAP_NONE ? v : 0;
	}
	for (u32 i = 0; i < 4; i++)
		dr_value[i] = 0x7f0000000000ull + (rng_next(&rng) & 0xffffffff);
	dr_value[4] = 0xffff0ff0 | (rng_next(&rng) & 0xe00f);
	/* Breakpoints on addresses that nobody touches: any type, length 1. */
	dr_value[5] = 0x400 | (rng_next(&rng) & 0xff);
	for (u32 i = 0; i < 4; i++)
		dr_value[5] |= (u64)(rng_below(&rng, 2) ? 1 : 3) << (16 + 4 * i);
	write_dr7(0x400);
	write_dr0(dr_value[0]);
	write_dr1(dr_value[1]);
	write_dr2(dr_value[2]);
	write_dr3(dr_value[3]);
	write_dr6(dr_value[4]);
	write_dr7(dr_value[5]);
	cr2_value = canonical();
	write_cr2(cr2_value);
	cr8_value = rng_below(&rng, 4);
	write_cr8(cr8_value);
	cr0_value = read_cr0();
	cr4_value = read_cr4();
}

static void check_one(u64 *wrong, const char *what, u32 index, u64 got, u64 want)
{
	if (got == want)
		return;
	SHOW("%s 0x%x was 0x%lx, is 0x%lx", what, index, want, got);
	++*wrong;
}

static void check_system(void)
{
	for (u32 i = 0; i < ARRAY_SIZE(msrs); i++) {
		u64 v;

		if (safe_rdmsr(msrs[i], &v) != TRAP_NONE)
			v = 0;
		check_one(&msr_wrong, "MSR", msrs[i], v, msr_value[i]);
	}
	check_one(&dr_wrong, "DR", 0, read_dr0(), dr_value[0]);
	check_one(&dr_wrong, "DR", 1, read_dr1(), dr_value[1]);
	check_one(&dr_wrong, "DR", 2, read_dr2(), dr_value[2]);
	check_one(&dr_wrong, "DR", 3, read_dr3(), dr_value[3]);
	check_one(&dr_wrong, "DR", 6, read_dr6(), dr_value[4]);
	check_one(&dr_wrong, "DR", 7, read_dr7(), dr_value[5]);
	check_one(&cr_wrong, "CR", 2, read_cr2(), cr2_value);
	check_one(&cr_wrong, "CR", 8, read_cr8(), cr8_value);
	check_one(&cr_wrong, "CR", 0, read_cr0(), cr0_value);
	check_one(&cr_wrong, "CR", 4, read_cr4(), cr4_value);
	system_checks++;
}

static bool on_irq(struct frame *f)
{
	lapic_eoi();
	return true;
}

static bool on_trap(struct frame *f)
{
	if (f->vector == VEC_UD)
		f->rip += 2;
	return true;
}

static u64 run(void)
{
	u64 last = rdtsc(), gap = 0, step = MAX(rounds / 10, 1), start = last;

	for (u64 i = 0; i < rounds; i++) {
		struct operation *op = &operations[rng_below(&rng, ARRAY_SIZE(operations))];
		u64 now = rdtsc();

		gap = MAX(gap, now - last);
		last = now;
		if (i % 8 == 0)
			fill_area();
		if (i % 32 == 0)
			set_system();
		if (usable(op)) {
			load_area();
			run_operation(op);
			check_area();
		}
		if (op->run == round_mmio_write) /* that was the task priority */
			write_cr8(cr8_value);
		if (i % 8 == 7)
			check_system();
		if (i % step == step - 1) {
			printf("# progress %lu of %lu rounds, %lu us\n", i + 1, rounds,
			       (rdtsc() - start) * 1000 / tsc_khz());
			last = rdtsc();
		}
	}
	return gap;
}

void guest_main(void)
{
	u64 seed = opt_u64("seed", 1), gap, limit = opt_u64("max-gap-ms", 0);

	umbra = umbra_present();
	rounds = opt_u64("rounds", 3000);
	page_count = 64;
	first_page = (u64)(uintptr_t)mem_alloc(page_count * PAGE_SIZE, PAGE_SIZE);
	if (!first_page)
		tap_bail("out of memory");
	tap_note("seed %lu, %lu rounds", seed, rounds);
	rng_seed(&rng, seed);
	tsc_khz();
	lapic_enable();
	enable_xsave();
	trap_set_handler(VEC_TEST, on_irq);
	trap_set_handler(VEC_BP, on_trap);
	trap_set_handler(VEC_UD, on_trap);
	gap = run();
	write_dr7(0x400);
	for (u32 i = 0; i < ARRAY_SIZE(operations); i++) {
		if (usable(&operations[i]))
			tap_is(operations[i].wrong, 0, "registers and flags across %s",
			       operations[i].name);
		else
			tap_skip("%s", operations[i].name);
	}
	tap_is(area_wrong, 0, "x87, SSE and XSAVE components 0x%lx, %lu checks", xfeatures,
	       area_checks);
	test_compacted(false, BIT(1));
	test_compacted(true, BIT(3));
	tap_is(dr_wrong, 0, "debug registers, %lu checks", system_checks);
	tap_is(msr_wrong, 0, "MSRs");
	tap_is(cr_wrong, 0, "control registers");
	tap_note("longest pause %lu us", gap * 1000 / tsc_khz());
	if (limit)
		tap_ok(gap / tsc_khz() < limit, "no pause of %lu ms or more", limit);
}
