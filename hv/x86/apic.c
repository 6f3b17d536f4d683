#include "x86/apic.h"

#include "lib/log.h"
#include "x86/asm.h"
#include "x86/cpu.h"
#include "x86/paging.h"
#include "x86/regs.h"
#include "x86/smp.h"
#include "x86/tsc.h"

/* Register offsets (SDM 3A table 11-1); the x2APIC MSR is 0x800 + offset / 16. */
enum {
	APIC_ID = 0x020,
	APIC_TPR = 0x080,
	APIC_EOI = 0x0b0,
	APIC_SVR = 0x0f0,
	APIC_ESR = 0x280,
	APIC_LVT_CMCI = 0x2f0,
	APIC_ICR = 0x300,
	APIC_ICR2 = 0x310,
	APIC_LVT_TIMER = 0x320,
	APIC_LVT_THERMAL = 0x330,
	APIC_LVT_PERF = 0x340,
	APIC_LVT_LINT0 = 0x350,
	APIC_LVT_LINT1 = 0x360,
	APIC_LVT_ERROR = 0x370,
	APIC_TIMER_COUNT = 0x380,
	APIC_TIMER_NOW = 0x390,
	APIC_TIMER_DIVIDE = 0x3e0,
	APIC_VERSION = 0x030,
};

#define SVR_ENABLE	  BIT(8)
#define LVT_MASKED	  BIT(16)
#define LVT_MODE	  (7u << 8)
#define LVT_MODE_SMI	  (2u << 8)
#define LVT_MODE_NMI	  (4u << 8)
#define LVT_TIMER_TSC	  (2u << 17)
#define ICR_NMI		  (4u << 8)
#define ICR_INIT	  (5u << 8)
#define ICR_STARTUP	  (6u << 8)
#define ICR_ASSERT	  BIT(14)
#define ICR_PENDING	  BIT(12)
#define TIMER_DIVIDE_BY_1 0xbu

static bool x2apic, tsc_deadline;
static u64 mmio_base;
static volatile u32 *mmio;
static u64 timer_hz; /* of the count register, where TSC-deadline mode is not offered */

static u32 apic_read(u32 reg)
{
	if (x2apic)
		return (u32)rdmsr(MSR_X2APIC_FIRST + reg / 16);
	return mmio[reg / 4];
}

static void apic_write(u32 reg, u32 value)
{
	if (x2apic)
		wrmsr(MSR_X2APIC_FIRST + reg / 16, value);
	else
		mmio[reg / 4] = value;
}

/* The mode is the boot processor's, for all. IDs above 254 exist in x2APIC mode only. */
void apic_choose_mode(bool need_x2apic)
{
	u64 base = rdmsr(MSR_APIC_BASE);

	x2apic = (base & APIC_BASE_X2APIC) || need_x2apic;
	tsc_deadline = cpuid(1, 0).ecx & BIT(24);
	mmio_base = base & 0x000ffffffffff000ull;
	if (!x2apic)
		mmio = paging_map_mmio(hpa(mmio_base), PAGE_SIZE, PAGING_UC);
	/* The 8259 pair never interrupts the hypervisor. */
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
}

static bool switch_on(void)
{
	u64 base = rdmsr(MSR_APIC_BASE);

	if (!(base & APIC_BASE_ENABLE)) {
		base |= APIC_BASE_ENABLE;
		wrmsr(MSR_APIC_BASE, base);
	}
	if (x2apic && !(base & APIC_BASE_X2APIC))
		wrmsr(MSR_APIC_BASE, base | APIC_BASE_X2APIC);
	/* From x2APIC to xAPIC leads only through "disabled" (SDM 3A 11.12.5), and the firmware
	 * had a reason: such a CPU is not used. */
	return x2apic || !(base & APIC_BASE_X2APIC);
}

/* NMIs report the platform's errors, SMIs are the firmware's way to watch heat: both stay. */
static void mask_lvt(u32 reg)
{
	u32 mode = apic_read(reg) & LVT_MODE;

	if (mode != LVT_MODE_NMI && mode != LVT_MODE_SMI)
		apic_write(reg, LVT_MASKED);
}

void apic_init_cpu(void)
{
	u32 entries;

	if (!switch_on()) {
		log_error("cpu%u is in x2APIC mode, the boot processor is not", this_cpu()->index);
		stop_here();
	}
	entries = (apic_read(APIC_VERSION) >> 16 & 0xff) + 1;
	apic_write(APIC_SVR, SVR_ENABLE | VECTOR_SPURIOUS);
	apic_write(APIC_TPR, 0);
	apic_write(APIC_LVT_TIMER, LVT_MASKED | VECTOR_TIMER);
	apic_write(APIC_LVT_LINT0, LVT_MASKED);
	apic_write(APIC_LVT_ERROR, LVT_MASKED);
	mask_lvt(APIC_LVT_LINT1);
	if (entries > 4)
		mask_lvt(APIC_LVT_PERF);
	if (entries > 5)
		mask_lvt(APIC_LVT_THERMAL);
	if (entries > 6)
		mask_lvt(APIC_LVT_CMCI);
	apic_write(APIC_TIMER_DIVIDE, TIMER_DIVIDE_BY_1);
	apic_timer_stop();
}

/* The count register's clock, measured by the TSC. Boot processor, once. */
void apic_timer_calibrate(void)
{
	u64 start;
	u32 left;

	if (tsc_deadline)
		return;
	apic_write(APIC_LVT_TIMER, LVT_MASKED | VECTOR_TIMER);
	apic_write(APIC_TIMER_COUNT, ~0u);
	start = rdtsc();
	while (rdtsc() - start < tsc_from_us(10000))
		cpu_relax();
	left = apic_read(APIC_TIMER_NOW);
	timer_hz = (u64)(~0u - left) * 100;
	apic_write(APIC_TIMER_COUNT, 0);
	if (!timer_hz)
		log_warn("the local APIC timer does not count: idle CPUs wake late");
}

const char *apic_describe(void)
{
	if (x2apic)
		return tsc_deadline ? "x2APIC, TSC-deadline timer" : "x2APIC, one-shot timer";
	return tsc_deadline ? "xAPIC, TSC-deadline timer" : "xAPIC, one-shot timer";
}

u32 apic_id(void)
{
	u32 id = apic_read(APIC_ID);

	return x2apic ? id : id >> 24;
}

void apic_eoi(void)
{
	apic_write(APIC_EOI, 0);
}

static void send(u32 apic, u32 command)
{
	if (x2apic) {
		/* WRMSR to the ICR does not wait for earlier stores (SDM 3A 11.12.3). */
		asm volatile("mfence; lfence" : : : "memory");
		wrmsr(MSR_X2APIC_FIRST + APIC_ICR / 16, (u64)apic << 32 | command);
		return;
	}
	for (u32 i = 0; i < 1000000 && apic_read(APIC_ICR) & ICR_PENDING; i++)
		cpu_relax();
	apic_write(APIC_ICR2, apic << 24);
	apic_write(APIC_ICR, command);
}

void apic_send(u32 cpu, u8 vector)
{
	send(cpus[cpu].apic_id, ICR_ASSERT | vector);
}

void apic_send_init(u32 apic)
{
	send(apic, ICR_ASSERT | ICR_INIT);
}

void apic_send_startup(u32 apic, u8 page)
{
	send(apic, ICR_ASSERT | ICR_STARTUP | page);
}

void apic_send_nmi_others(void)
{
	/* One by one: processors that were never started must not meet an NMI without an IDT. */
	for (u32 i = 0; i < cpu_count; i++)
		if (&cpus[i] != this_cpu() && __atomic_load_n(&cpus[i].online, __ATOMIC_ACQUIRE))
			send(cpus[i].apic_id, ICR_ASSERT | ICR_NMI);
}

void apic_timer_arm(u64 tsc)
{
	u64 now, count;

	if (tsc_deadline) {
		apic_write(APIC_LVT_TIMER, LVT_TIMER_TSC | VECTOR_TIMER);
		/* Orders the LVT's MMIO write before the MSR write (SDM 3A 11.5.4.1). */
		memory_fence();
		wrmsr(MSR_TSC_DEADLINE, tsc ? tsc : 1);
		return;
	}
	now = rdtsc();
	count = tsc > now ? mul_div(tsc - now, timer_hz, tsc_hz) : 1;
	apic_write(APIC_LVT_TIMER, VECTOR_TIMER);
	apic_write(APIC_TIMER_COUNT, (u32)MAX(1ull, MIN(count, 0xffffffffull)));
}

void apic_timer_stop(void)
{
	if (tsc_deadline)
		wrmsr(MSR_TSC_DEADLINE, 0);
	else
		apic_write(APIC_TIMER_COUNT, 0);
	apic_write(APIC_LVT_TIMER, LVT_MASKED | VECTOR_TIMER);
}

void cpu_idle(void)
{
	irq_enable_and_halt();
}

void cpu_take_interrupts(void)
{
	asm volatile("sti; nop; cli" : : : "memory");
}
