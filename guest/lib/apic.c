/* Local APIC, 8259, 8254, TSC rate. Contract in apic.h. */
#include "apic.h"

bool lapic_is_x2apic(void)
{
	return rdmsr(MSR_APIC_BASE) & APIC_BASE_EXTD;
}

u32 lapic_read(u32 reg)
{
	if (lapic_is_x2apic())
		return (u32)rdmsr(MSR_X2APIC + reg / 16);
	return *(volatile u32 *)(uintptr_t)(LAPIC_BASE + reg);
}

void lapic_write(u32 reg, u32 value)
{
	if (lapic_is_x2apic())
		wrmsr(MSR_X2APIC + reg / 16, value);
	else
		*(volatile u32 *)(uintptr_t)(LAPIC_BASE + reg) = value;
}

u32 lapic_id(void)
{
	return lapic_is_x2apic() ? lapic_read(LAPIC_ID) : lapic_read(LAPIC_ID) >> 24;
}

void lapic_eoi(void)
{
	lapic_write(LAPIC_EOI, 0);
}

void lapic_enable(void)
{
	lapic_write(LAPIC_SVR, 0x1ff);
	lapic_write(LAPIC_LVT_TIMER, BIT(16));
	lapic_write(LAPIC_LVT_LINT0, BIT(16));
	lapic_write(LAPIC_LVT_LINT1, 0x400);
	lapic_write(LAPIC_LVT_ERROR, BIT(16));
	lapic_write(LAPIC_TPR, 0);
}

bool lapic_enable_x2apic(void)
{
	if (!(cpuid(1, 0).ecx & BIT(21)))
		return false;
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_BASE_EN | APIC_BASE_EXTD);
	return true;
}

void lapic_send(u32 dest, u32 icr_low)
{
	if (lapic_is_x2apic()) {
		/* x2APIC writes are not ordered after earlier stores by themselves. */
		asm volatile("mfence; lfence" : : : "memory");
		wrmsr(MSR_X2APIC + LAPIC_ICR / 16, (u64)dest << 32 | icr_low);
		return;
	}
	lapic_write(LAPIC_ICR_HIGH, dest << 24);
	lapic_write(LAPIC_ICR, icr_low);
	while (lapic_read(LAPIC_ICR) & ICR_PENDING)
		cpu_pause();
}

void pic_set_mask(u16 mask)
{
	outb(0x21, (u8)mask);
	outb(0xa1, (u8)(mask >> 8));
}

void pic_mask_all(void)
{
	outb(0x20, 0x11);
	outb(0xa0, 0x11);
	outb(0x21, 0x20);
	outb(0xa1, 0x28);
	outb(0x21, 0x04);
	outb(0xa1, 0x02);
	outb(0x21, 0x01);
	outb(0xa1, 0x01);
	pic_set_mask(0xffff);
}

/* Mode 0 on channel 2: OUT (port 0x61 bit 5) falls with the control word, rises at the end. */
void pit_wait(u32 ticks)
{
	outb(0x61, (inb(0x61) & ~0x02u) | 0x01);
	outb(0x43, 0xb0);
	outb(0x42, (u8)ticks);
	outb(0x42, (u8)(ticks >> 8));
	while (!(inb(0x61) & 0x20))
		cpu_pause();
}

u64 tsc_khz(void)
{
	static u64 khz;
	u64 start;

	if (!khz) {
		start = rdtsc();
		pit_wait(11932);
		khz = (rdtsc() - start) / 10;
	}
	return khz;
}

void delay_us(u64 us)
{
	u64 end = rdtsc() + us * tsc_khz() / 1000;

	while ((s64)(end - rdtsc()) > 0)
		cpu_pause();
}
