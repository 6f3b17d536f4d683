/* Application processors. Contract in smp.h. */
#include "apic.h"
#include "mem.h"
#include "smp.h"
#include "umbra.h"

extern const u8 trampoline_start[], trampoline_end[];
extern volatile u32 ap_next_index;
void ap_start(u64 index);

volatile bool smp_spin;

u32 smp_count(void)
{
	u32 n = 0;

	for (u32 i = 0; i < MAX_CPUS; i++)
		n += cpus[i].online;
	return n;
}

u32 smp_expected(void)
{
	u32 n = (u32)opt_u64("cpus", 0);

	if (!n && umbra_present())
		n = cpuid(UMBRA_CPUID_INFO, 0).edx;
	if (!n) {
		outb(0x70, 0x5f);
		n = inb(0x71) + 1u;
	}
	return n <= MAX_CPUS ? n : 1;
}

static bool wake(struct frame *f)
{
	lapic_eoi();
	return true;
}

void ap_start(u64 index)
{
	struct cpu *cpu = &cpus[index];

	cpu_load_tables((unsigned int)index);
	trap_clear();
	lapic_enable();
	cpu->apic_id = lapic_id();
	cpu->job = NULL;
	__atomic_store_n(&cpu->online, true, __ATOMIC_RELEASE);
	for (;;) {
		void (*job)(void *) = cpu->job;

		if (job) {
			job(cpu->job_arg);
			__atomic_store_n(&cpu->job, NULL, __ATOMIC_RELEASE);
		} else if (smp_spin) {
			cpu_pause();
		} else {
			irq_disable();
			if (!cpu->job)
				irq_wait();
		}
	}
}

void smp_install_trampoline(void)
{
	memcpy((void *)(uintptr_t)TRAMPOLINE, trampoline_start,
	       (uintptr_t)trampoline_end - (uintptr_t)trampoline_start);
}

void smp_init_sipi(u32 apic_id)
{
	lapic_send(apic_id, ICR_INIT | ICR_ASSERT);
	delay_us(10000);
	lapic_send(apic_id, ICR_SIPI | ICR_ASSERT | TRAMPOLINE >> 12);
	delay_us(200);
	lapic_send(apic_id, ICR_SIPI | ICR_ASSERT | TRAMPOLINE >> 12);
}

u32 smp_start(void)
{
	u32 want = smp_expected();

	if (opt_flag("spin"))
		smp_spin = true;
	smp_install_trampoline();
	trap_set_handler(VEC_WAKE, wake);
	lapic_enable();
	if (want == 1)
		return 1;
	lapic_send(0, ICR_OTHERS | ICR_INIT | ICR_ASSERT);
	delay_us(10000);
	lapic_send(0, ICR_OTHERS | ICR_SIPI | ICR_ASSERT | TRAMPOLINE >> 12);
	delay_us(200);
	lapic_send(0, ICR_OTHERS | ICR_SIPI | ICR_ASSERT | TRAMPOLINE >> 12);
	for (int i = 0; i < 1000 && smp_count() < want; i++)
		delay_us(1000);
	return smp_count();
}

void smp_post(u32 cpu, void (*fn)(void *), void *arg)
{
	while (__atomic_load_n(&cpus[cpu].job, __ATOMIC_ACQUIRE))
		cpu_pause();
	cpus[cpu].job_arg = arg;
	__atomic_store_n(&cpus[cpu].job, fn, __ATOMIC_RELEASE);
	if (!smp_spin)
		lapic_send(cpus[cpu].apic_id, ICR_ASSERT | VEC_WAKE);
}

bool smp_wait(u32 cpu, u64 ms)
{
	u64 end = rdtsc() + ms * tsc_khz();

	while (__atomic_load_n(&cpus[cpu].job, __ATOMIC_ACQUIRE)) {
		if ((s64)(rdtsc() - end) > 0)
			return false;
		cpu_pause();
	}
	return true;
}

void smp_run_all(void (*fn)(void *), void *arg)
{
	for (u32 i = 1; i < MAX_CPUS; i++) {
		if (cpus[i].online)
			smp_post(i, fn, arg);
	}
	fn(arg);
	for (u32 i = 1; i < MAX_CPUS; i++) {
		if (cpus[i].online && !smp_wait(i, 60000))
			tap_bail("CPU %u does not finish its job", i);
	}
}
