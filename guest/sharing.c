/*
 * One of several VMs (or vCPUs) on one CPU. It measures its share of the time and the longest time
 * it was away, and looks whether anything of it changed meanwhile.
 *
 * Options: role=busy (default) or role=sleep; ms=N how long (400); min=N the least share in per
 * cent (30; with a sleeping neighbour 90); slice=N the quantum in microseconds (4000); seed=N for
 * patterns.
 */
#include "apic.h"
#include "irq.h"
#include "mem.h"
#include "umbra.h"

#define VEC_TIMER 0x70
#define WORDS	  (SIZE_2M / 4 / 8)

static u64 seed, slice;
static u64 *pattern_memory;

static u64 us(u64 n)
{
	return n * tsc_khz() / 1000;
}

static u64 pattern(u64 i)
{
	return (i + 1) * 0x9e3779b97f4a7c15ull ^ seed * 0xbf58476d1ce4e5b9ull;
}

/* --- state that must stay ----------------------------------------------------------------------
 */

static const u32 msrs[] = {MSR_STAR,	MSR_LSTAR,	  MSR_CSTAR,	   MSR_KERNEL_GS,
			   MSR_FS_BASE, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP};

static u64 msr_pattern(u32 i)
{
	u64 v = pattern(1000 + i);

	/* Canonical, and whatever STAR holds. */
	return msrs[i] == MSR_STAR ? v : (u64)((s64)(v << 16) >> 16);
}

static void state_set(void)
{
	for (u64 i = 0; i < WORDS; i++)
		pattern_memory[i] = pattern(i);
	for (u32 i = 0; i < ARRAY_SIZE(msrs); i++)
		wrmsr(msrs[i], msr_pattern(i));
	write_dr0(pattern(2000) >> 20);
	write_dr1(pattern(2001) >> 20);
	write_dr2(pattern(2002) >> 20);
	write_dr3(pattern(2003) >> 20);
	write_cr2(pattern(2004));
}

static void state_check(void)
{
	u64 wrong = 0;

	for (u64 i = 0; i < WORDS; i++)
		wrong += pattern_memory[i] != pattern(i);
	tap_is(wrong, 0, "memory is as it was left");
	wrong = 0;
	for (u32 i = 0; i < ARRAY_SIZE(msrs); i++)
		wrong |= (u64)(rdmsr(msrs[i]) != msr_pattern(i)) << i;
	tap_is(wrong, 0, "MSRs are as they were left");
	tap_ok(read_dr0() == pattern(2000) >> 20 && read_dr1() == pattern(2001) >> 20 &&
		       read_dr2() == pattern(2002) >> 20 && read_dr3() == pattern(2003) >> 20,
	       "debug registers are as they were left");
	tap_is(read_cr2(), pattern(2004), "CR2 is as it was left");
}

/*
 * Fills general registers and XMM0 to XMM7 from `in`, watches the TSC until it jumps (somebody else
 * ran) or `spins` are over, and stores the registers to `out`. Returns the largest step of the TSC.
 */
struct registers {
	u64 gpr[8], xmm[16];
};

static u64 hold_registers(const struct registers *in, struct registers *out, u64 jump, u64 spins)
{
	register u64 limit asm("r15") = jump;
	u64 largest = 0;

	asm volatile("movdqu 64(%[in]), %%xmm0; movdqu 80(%[in]), %%xmm1\n"
		     "movdqu 96(%[in]), %%xmm2; movdqu 112(%[in]), %%xmm3\n"
		     "movdqu 128(%[in]), %%xmm4; movdqu 144(%[in]), %%xmm5\n"
		     "movdqu 160(%[in]), %%xmm6; movdqu 176(%[in]), %%xmm7\n"
		     "pushq %%rbp; pushq %[out]\n"
		     "movq 0(%[in]), %%rbp; movq 8(%[in]), %%r8; movq 16(%[in]), %%r9\n"
		     "movq 24(%[in]), %%r10; movq 32(%[in]), %%r11; movq 40(%[in]), %%r12\n"
		     "movq 48(%[in]), %%r13; movq 56(%[in]), %%r14\n"
		     "rdtsc; movl %%eax, %%esi\n"
		     "1: rdtsc; movl %%eax, %%edi; subl %%esi, %%eax; movl %%edi, %%esi\n"
		     "cmpl %%eax, %%ebx; jae 2f; movl %%eax, %%ebx\n"
		     "2: cmpq %%r15, %%rbx; ja 3f; decq %%rcx; jnz 1b\n"
		     "3: popq %%rax\n"
		     "movq %%rbp, 0(%%rax); movq %%r8, 8(%%rax); movq %%r9, 16(%%rax)\n"
		     "movq %%r10, 24(%%rax); movq %%r11, 32(%%rax); movq %%r12, 40(%%rax)\n"
		     "movq %%r13, 48(%%rax); movq %%r14, 56(%%rax); popq %%rbp\n"
		     "movdqu %%xmm0, 64(%%rax); movdqu %%xmm1, 80(%%rax)\n"
		     "movdqu %%xmm2, 96(%%rax); movdqu %%xmm3, 112(%%rax)\n"
		     "movdqu %%xmm4, 128(%%rax); movdqu %%xmm5, 144(%%rax)\n"
		     "movdqu %%xmm6, 160(%%rax); movdqu %%xmm7, 176(%%rax)\n"
		     : "+b"(largest), "+c"(spins), [in] "+D"(in), [out] "+S"(out)
		     : "r"(limit)
		     : "rax", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "memory", "cc");
	return largest;
}

/* --- shares -------------------------------------------------------------------------------------
 */

static void run_busy(u64 ms, u64 min_share)
{
	static struct registers in, out;
	u64 start = rdtsc(), total, away = 0, longest = 0, breaks = 0, wrong = 0;
	u64 jump = us(150);

	for (u64 i = 0; i < ARRAY_SIZE(in.gpr); i++)
		in.gpr[i] = pattern(3000 + i);
	for (u64 i = 0; i < ARRAY_SIZE(in.xmm); i++)
		in.xmm[i] = pattern(4000 + i);
	while (rdtsc() - start < ms * tsc_khz()) {
		u64 step = hold_registers(&in, &out, jump, 20000);

		wrong += memcmp(&in, &out, sizeof(in)) != 0;
		if (step > jump) {
			away += step;
			breaks++;
			longest = MAX(longest, step);
		}
	}
	total = rdtsc() - start;
	tap_note("away %lu times, %lu of %lu TSC ticks, longest %lu (a slice is %lu)", breaks, away,
		 total, longest, slice);
	tap_is(wrong, 0, "registers are as they were left");
	real_ok((total - away) * 100 / total >= min_share, "share of the CPU: %lu %%",
		(total - away) * 100 / total);
	real_ok(longest <= 5 * slice, "never away for more than five slices");
}

/* Sleeps nearly all the time; each time it wants to be woken in time. */
static void run_sleep(u64 ms)
{
	u64 start = rdtsc(), worst = 0, naps = 0;
	bool deadline = cpuid(1, 0).ecx & BIT(24);

	irq_record(VEC_TIMER);
	lapic_enable();
	lapic_write(LAPIC_TIMER_DCR, 0xb);
	lapic_write(LAPIC_LVT_TIMER, VEC_TIMER | (deadline ? BIT(18) : 0));
	while (rdtsc() - start < ms * tsc_khz()) {
		u32 before = irq_hits(VEC_TIMER);
		u64 due = rdtsc() + us(5000), late;

		if (deadline)
			wrmsr(MSR_TSC_DEADLINE, due);
		else
			lapic_write(LAPIC_TIMER_ICR, (u32)us(5000));
		irq_disable();
		while (irq_hits(VEC_TIMER) == before)
			irq_wait();
		late = rdtsc() - due;
		worst = MAX(worst, (s64)late < 0 ? 0 : late);
		naps++;
	}
	tap_note("%lu naps, at worst %lu TSC ticks late", naps, worst);
	real_ok(naps >= ms / 25, "wakes up again and again");
	real_ok(worst <= 5 * slice, "never more than five slices late");
}

void guest_main(void)
{
	char role[16] = "busy";
	u64 ms = opt_u64("ms", 400);

	seed = opt_u64("seed", 1);
	slice = us(opt_u64("slice", 4000));
	opt_str("role", role, sizeof(role));
	pattern_memory = mem_alloc(WORDS * 8, PAGE_SIZE);
	if (!pattern_memory)
		tap_bail("out of memory");
	state_set();
	if (!strcmp(role, "busy"))
		run_busy(ms, opt_u64("min", 30));
	else if (!strcmp(role, "sleep"))
		run_sleep(ms);
	else
		tap_bail("role %s", role);
	state_check();
}
