/* What unit tests of hv/dev do with the platform of platform_world.h. For one test file each. */
#pragma once

#include "platform_world.h"

/* --- helpers
 * -------------------------------------------------------------------------------------- */

static struct platform *p;

static inline void clear_events(void)
{
	memset(nmis, 0, sizeof(nmis));
	memset(inits, 0, sizeof(inits));
	memset(sipis, 0, sizeof(sipis));
	for (u32 i = 0; i < CPUS; i++) {
		vcpus[i].requests = 0;
		memset(&posted[i], 0, sizeof(posted[i]));
		memset(&pages[i][LAPIC_IRR], 0, 0x80);
		memset(&pages[i][LAPIC_ISR], 0, 0x80);
		vcpus[i].lapic->irr_words = vcpus[i].lapic->isr_words = 0;
	}
}

static inline void mmio(u32 cpu, u32 offset, u32 value)
{
	assert_true(platform_mmio_write(&vcpus[cpu], PLATFORM_LAPIC, offset, 4, value));
}

static inline int setup(void **state)
{
	assert_int_equal(new_platform(), 0);
	assert_int_equal(regions, 2);
	p = vm.platform;
	for (u32 i = 1; i < CPUS; i++)
		mmio(i, LAPIC_SVR, 0x1ff);
	clear_events();
	return 0;
}

static inline int teardown(void **state)
{
	platform_destroy(&vm);
	return 0;
}

static inline void advance_us(u64 us)
{
	p->last = MAX(p->last, __builtin_ia32_rdtsc()) + us * (tsc_hz / 1000000);
}

static inline void timers(void)
{
	platform_timers(&vcpus[0], p->last);
}

static inline void out(u16 port, u8 v)
{
	platform_port_out(&vcpus[0], port, 1, v);
}

static inline u8 in(u16 port)
{
	return (u8)platform_port_in(&vcpus[0], port, 1);
}

static inline void pic_init(void)
{
	static const u16 words[][2] = {{0x20, 0x11}, {0x21, 0x20}, {0x21, 4}, {0x21, 1}, {0x21, 0},
				       {0xa0, 0x11}, {0xa1, 0x28}, {0xa1, 2}, {0xa1, 1}, {0xa1, 0}};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		out(words[i][0], (u8)words[i][1]);
}

static inline void redirect(u32 pin, u32 low, u32 dest)
{
	platform_mmio_write(&vcpus[0], PLATFORM_IOAPIC, 0, 4, 0x11 + 2 * pin);
	platform_mmio_write(&vcpus[0], PLATFORM_IOAPIC, 0x10, 4, dest << 24);
	platform_mmio_write(&vcpus[0], PLATFORM_IOAPIC, 0, 4, 0x10 + 2 * pin);
	platform_mmio_write(&vcpus[0], PLATFORM_IOAPIC, 0x10, 4, low);
}

/* As vm/ does it: look, then accept. */
static inline int take(struct vcpu *v)
{
	int vector = platform_irq_pending(v);
	bool more;

	if (vector < 0)
		return -1;
	assert_int_equal(platform_irq_accept(v, &more), vector);
	assert_int_equal(more, platform_irq_pending(v) >= 0);
	return vector;
}

/* Bit per vCPU that has this vector pending now. */
static inline u32 who_has(int vector)
{
	u32 set = 0;

	for (u32 i = 0; i < CPUS; i++)
		if (platform_irq_pending(&vcpus[i]) == vector)
			set |= BIT(i);
	return set;
}

static inline u32 set_of(const u32 *counters)
{
	u32 set = 0;

	for (u32 i = 0; i < CPUS; i++) {
		assert_in_range(counters[i], 0, 1);
		set |= counters[i] << i;
	}
	return set;
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
