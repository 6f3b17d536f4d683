/*
 * A platform without VMX: what dev/ asks of vm/ is noted, vCPUs are bare structures. For one test
 * file each; all of hv/dev is linked.
 */
#pragma once

#include <stdlib.h>
#include <string.h>
#include "dev/platform.h"
#include "vm/console.h"
#include "vm/platform.h"
#include "vmx/vmx.h"

#define CPUS 4

/* So fast a clock that real time stands still; tests move time by platform->last. */
u64 tsc_hz = 1000000000000000ull;
u64 vmx_features;

/* --- vm/
 * ------------------------------------------------------------------------------------------ */

static struct boot_vm config = {.name = "test", .memory = 64 * MIB, .vcpus = CPUS, .x2apic = 1};
static struct vm vm;
static struct vcpu vcpus[CPUS];
static struct posted posted[CPUS];
static u8 pages[CPUS][4096] __aligned(4096);
static u32 nmis[CPUS], inits[CPUS], sipis[CPUS], refusals, ended, restarted, exit_value;
static u64 refused_key;
static u8 console_out[64], console_in[64];
static u32 out_count, in_count, in_next, regions;

static inline void check_unlocked(void)
{
	assert_int_equal(vm.dev_lock.next, vm.dev_lock.serving);
}

void vcpu_post_irq(struct vcpu *v, u8 vector)
{
	v->posted->pir[vector / 64] |= BIT64(vector % 64);
	v->posted->control |= 1;
	v->requests |= REQ_IRQ;
}

void vcpu_post_nmi(struct vcpu *v)
{
	nmis[v->index]++;
}

void vcpu_post_init(struct vcpu *v)
{
	inits[v->index]++;
}

void vcpu_post_sipi(struct vcpu *v, u8 vector)
{
	v->sipi_vector = vector;
	sipis[v->index]++;
}

void vcpu_request(struct vcpu *v, u32 requests)
{
	v->requests |= requests;
}

void vcpu_apic_mode_changed(struct vcpu *v)
{
}

u64 vcpu_tsc(const struct vcpu *v)
{
	return __builtin_ia32_rdtsc() + v->tsc_offset;
}

u64 vcpu_tsc_to_host(const struct vcpu *v, u64 guest)
{
	return guest - v->tsc_offset;
}

void *heap_alloc(u64 bytes)
{
	return calloc(1, bytes);
}

void heap_free(void *p, u64 bytes)
{
	free(p);
}

int space_add_mmio(struct vm *v, gpa_t base, u64 bytes, u32 device)
{
	assert_int_equal(bytes, 4096);
	assert_int_equal(base.v, device == PLATFORM_LAPIC ? 0xfee00000 : 0xfec00000);
	regions++;
	return 0;
}

/* The ACPI tables. */
int guest_write(struct vm *v, gpa_t to, const void *from, size_t len)
{
	return 0;
}

void vm_end(struct vm *v, u32 status, const char *fmt, ...)
{
	check_unlocked();
	exit_value = status;
	ended++;
}

void vm_restart(struct vm *v, const char *why)
{
	check_unlocked();
	restarted++;
}

void vm_log_refusal(struct vcpu *v, const char *what, u64 key)
{
	check_unlocked();
	refused_key = key;
	refusals++;
}

void console_put(struct vm *v, u8 byte)
{
	check_unlocked();
	console_out[out_count++ % 64] = byte;
}

int console_get(struct vm *v)
{
	return in_next < in_count ? console_in[in_next++] : -1;
}

s64 wallclock_read(void)
{
	return 1735689600;
}

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
	memset(&vm, 0, sizeof(vm));
	memset(vcpus, 0, sizeof(vcpus));
	vm.config = &config;
	vm.vcpu_count = CPUS;
	for (u32 i = 0; i < CPUS; i++) {
		vcpus[i].vm = &vm;
		vcpus[i].index = i;
		vcpus[i].vapic = pages[i];
		vcpus[i].posted = &posted[i];
		vm.vcpu[i] = &vcpus[i];
	}
	refusals = ended = restarted = out_count = in_count = in_next = regions = 0;
	assert_int_equal(platform_create(&vm), 0);
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
