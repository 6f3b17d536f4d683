/*
 * What operations cost, in TSC ticks as the guest sees them: in Bochs one tick is one instruction,
 * so the figures repeat. Prints `bench NAME VALUE UNIT` lines; scripts/bench collects them.
 */
#include "apic.h"
#include "mem.h"
#include "nfit.h"
#include "smp.h"
#include "umbra.h"

#define ROUNDS	   200u
#define VEC_SELF   0x41
#define VEC_TIMER  0x42
#define VEC_REMOTE 0x43

static volatile u32 hits, remote_hits;
static volatile bool stop_spinning;

/* Handlers without the library's frame, so that the figure is the hypervisor's and not ours. */
#define RAW_HANDLER(name, counter)                                          \
	extern const char name[];                                           \
	asm(".text\n" #name ":\n"                                           \
	    "	push %rax\n	push %rcx\n	push %rdx\n"                          \
	    "	incl " #counter "\n"                                        \
	    "	mov $0x80b, %ecx\n	xor %eax, %eax\n	xor %edx, %edx\n	wrmsr\n" \
	    "	pop %rdx\n	pop %rcx\n	pop %rax\n	iretq\n")
RAW_HANDLER(raw_hit, hits);
RAW_HANDLER(raw_remote, remote_hits);

static u64 loop_cost;

static void report(const char *name, u64 ticks)
{
	printf("bench %s %llu instructions\n", name, (unsigned long long)ticks);
}

/* The fastest of several runs: a tick of the hypervisor in between is not the operation's cost. */
#define MEASURE(name, rounds, operation)                               \
	do {                                                           \
		u64 best = ~0ull;                                      \
		for (u32 run_ = 0; run_ < 3; run_++) {                 \
			u64 start_ = rdtsc();                          \
			for (u32 i = 0; i < (rounds); i++)             \
				operation;                             \
			u64 spent_ = rdtsc() - start_;                 \
			best = MIN(best, spent_);                      \
		}                                                      \
		best /= (rounds);                                      \
		report(name, best > loop_cost ? best - loop_cost : 0); \
	} while (0)

static void nothing(void)
{
	asm volatile("" : : : "memory");
}

static void measure_loop(void)
{
	u64 best = ~0ull;

	for (u32 run = 0; run < 3; run++) {
		u64 start = rdtsc();

		for (u32 i = 0; i < ROUNDS; i++)
			nothing();
		best = MIN(best, rdtsc() - start);
	}
	loop_cost = best / ROUNDS;
}

static void self_ipi(void)
{
	u32 before = hits;

	wrmsr(MSR_X2APIC + LAPIC_ICR / 16, ICR_SELF | ICR_FIXED | VEC_SELF);
	while (hits == before)
		cpu_pause();
}

static void tsc_deadline(void)
{
	u32 before = hits;

	wrmsr(MSR_TSC_DEADLINE, rdtsc());
	while (hits == before)
		cpu_pause();
}

static void remote_ipi(void)
{
	u32 before = remote_hits;

	wrmsr(MSR_X2APIC + LAPIC_ICR / 16, (u64)cpus[1].apic_id << 32 | ICR_FIXED | VEC_REMOTE);
	while (remote_hits == before)
		cpu_pause();
}

static void spin_with_interrupts(void *arg)
{
	lapic_enable_x2apic();
	lapic_enable();
	irq_enable();
	while (!stop_spinning)
		cpu_pause();
	irq_disable();
}

static void measure_exits(void)
{
	MEASURE("exit.cpuid", ROUNDS, cpuid(0, 0));
	if (umbra_present())
		MEASURE("exit.vmcall", ROUNDS, hypercall(HC_NOP, 0, 0, 0, 0));
	MEASURE("exit.port_in", ROUNDS, inb(0x21));
	/* A byte that leaves no line begun. */
	MEASURE("exit.port_out_uart", 60, outb(0x3f8, '\r'));
	MEASURE("exit.rdmsr", ROUNDS, rdmsr(MSR_TSC_ADJUST));
	MEASURE("exit.wrmsr", ROUNDS, wrmsr(MSR_TSC_ADJUST, 0));
	MEASURE("exit.xapic_read", ROUNDS, *(volatile u32 *)(uintptr_t)(LAPIC_BASE + LAPIC_ID));
}

static bool measure_interrupts(void)
{
	if (!lapic_enable_x2apic()) {
		printf("# no x2APIC: interrupts are not measured\n");
		return false;
	}
	lapic_enable();
	idt_set(VEC_SELF, (u64)(uintptr_t)raw_hit, 0xe, 0, 0);
	idt_set(VEC_REMOTE, (u64)(uintptr_t)raw_remote, 0xe, 0, 0);
	irq_enable();
	MEASURE("exit.self_ipi", ROUNDS, self_ipi());
	lapic_write(LAPIC_LVT_TIMER, 2u << 17 | VEC_SELF);
	MEASURE("exit.tscdeadline", ROUNDS, tsc_deadline());
	irq_disable();
	return true;
}

static void measure_memory(void)
{
	/* First touch of each 2 MiB: what one violation and its mapping cost. */
	u32 pages = 8;
	u8 *fresh = mem_alloc(pages * SIZE_2M, SIZE_2M);
	u64 start, spent;

	if (!fresh)
		tap_bail("no 16 MiB of fresh memory: give the VM 64M");
	start = rdtsc();
	for (u32 i = 0; i < pages; i++)
		*(volatile u8 *)(fresh + i * SIZE_2M) = 1;
	spent = rdtsc() - start;
	report("ept.fresh_page", spent / pages);
}

/* What a store to a flush hint costs more than one to memory. */
static void measure_flush(void)
{
	static const char *const modes[] = {"none", "direct", "trap"};
	static struct nfit nfit;
	volatile u64 *memory = mem_alloc(PAGE_SIZE, PAGE_SIZE);
	u64 plain = ~0ull;

	if (!nfit_read(&nfit) || !memory)
		tap_bail("no NVDIMM");
	*memory = 1;
	for (u32 run = 0; run < 3; run++) {
		u64 start = rdtsc();

		for (u32 i = 0; i < ROUNDS; i++)
			*memory = 1;
		plain = MIN(plain, rdtsc() - start);
	}
	loop_cost = plain / ROUNDS;
	for (u32 r = 0; r < nfit.regions; r++) {
		u64 controllers = (u64)hypercall(HC_PMEM, HC_PMEM_CONTROLLERS, r, 0, 0);
		volatile u64 *hint = (volatile u64 *)(uintptr_t)nfit.region[r].hint[0];

		for (u32 mode = 0; mode < ARRAY_SIZE(modes); mode++) {
			char name[40];

			if (hypercall(HC_PMEM, HC_PMEM_SET_MODE, r, mode, 0))
				tap_bail("no mode %s", modes[mode]);
			*hint = 1;
			snprintf(name, sizeof(name), "pmem.flush.%s.%u", modes[mode],
				 (u32)controllers);
			MEASURE(name, ROUNDS, *hint = 1);
		}
	}
}

static void measure_remote(void)
{
	if (smp_start() < 2) {
		printf("# one vCPU: no ipi.other_vcpu\n");
		return;
	}
	smp_post(1, spin_with_interrupts, NULL);
	delay_us(1000);
	MEASURE("ipi.other_vcpu", 50, remote_ipi());
	stop_spinning = true;
	smp_wait(1, 100);
}

void guest_main(void)
{
	if (opt_flag("flush")) {
		measure_flush();
		tap_ok(true, "measured");
		return;
	}
	measure_loop();
	printf("# loop %llu\n", (unsigned long long)loop_cost);
	measure_exits();
	measure_memory();
	if (measure_interrupts())
		measure_remote();
	tap_ok(true, "measured");
	tap_end();
}
