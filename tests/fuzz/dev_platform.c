/*
 * The whole platform of a VM with three vCPUs: every port, both MMIO pages and all APIC MSRs with
 * random arguments, while time goes on and interrupts are taken. What vm/ provides is played here;
 * locks are checked to be free whenever something is called that may wait.
 */
#include <stdlib.h>
#include <string.h>

#include "dev/platform.h"
#include "lib/panic.h"
#include "vm/console.h"
#include "vm/platform.h"
#include "vmx/vmx.h"

#define CPUS 3

u64 tsc_hz = 1000000000000000ull; /* real time stands still; see tests/unit/dev_platform.c */
u64 vmx_features;

static const struct boot_vm config = {.name = "fuzz", .memory = 64 * MIB, .x2apic = 1};
static struct vm vm;
static struct vcpu vcpus[CPUS];
static struct posted posted[CPUS];
static u8 pages[CPUS][4096] __aligned(4096);

static void check_unlocked(void)
{
	ASSERT(vm.dev_lock.next == vm.dev_lock.serving);
}

void vcpu_post_irq(struct vcpu *v, u8 vector)
{
	ASSERT(vector >= 16);
	v->posted->pir[vector / 64] |= BIT64(vector % 64);
}

void vcpu_post_nmi(struct vcpu *v)
{
}

void vcpu_post_init(struct vcpu *v)
{
	v->requests |= REQ_INIT;
}

void vcpu_post_sipi(struct vcpu *v, u8 vector)
{
}

void vcpu_request(struct vcpu *v, u32 requests)
{
	v->requests |= requests;
}

void vcpu_apic_mode_changed(struct vcpu *v)
{
	check_unlocked();
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
	return 0;
}

/* The ACPI tables. */
int guest_write(struct vm *v, gpa_t to, const void *from, size_t len)
{
	return 0;
}

void vm_end(struct vm *v, u32 status, const char *fmt, ...)
{
	ASSERT(status == 0 || (status <= 0xff && (status & 1))); /* S5, or the exit port */
	check_unlocked();
}

void vm_restart(struct vm *v, const char *why)
{
	check_unlocked();
}

void vm_log_refusal(struct vcpu *v, const char *what, u64 key)
{
	check_unlocked();
}

void console_put(struct vm *v, u8 byte)
{
	check_unlocked();
}

int console_get(struct vm *v)
{
	return v->platform->last & 64 ? (int)(v->platform->last & 0xff) : -1;
}

s64 wallclock_read(void)
{
	return 1735689600;
}

static void take_interrupt(struct vcpu *v)
{
	int vector = platform_irq_pending(v);
	bool extint = platform_extint(v), more;

	if (vector < 0)
		return;
	ASSERT(!extint || v->index == 0);
	ASSERT(platform_irq_accept(v, &more) == vector);
	ASSERT(more == (platform_irq_pending(v) >= 0));
	ASSERT(extint || platform_isr_highest(v) == vector);
}

static void check(struct vcpu *v)
{
	u64 map[4], now = vm.platform->last;

	check_unlocked();
	platform_eoi_bitmap(v, map);
	platform_timers(v, now);
	ASSERT(v->timer_deadline > now || v->index);
	ASSERT(vm.platform->intr == 0 || pic_pending(&vm.platform->pic) >= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	memset(&vm, 0, sizeof(vm));
	memset(vcpus, 0, sizeof(vcpus));
	memset(posted, 0, sizeof(posted));
	vm.config = &config;
	vm.vcpu_count = CPUS;
	for (u32 i = 0; i < CPUS; i++) {
		vcpus[i].vm = &vm;
		vcpus[i].index = i;
		vcpus[i].vapic = pages[i];
		vcpus[i].posted = &posted[i];
		vm.vcpu[i] = &vcpus[i];
	}
	if (platform_create(&vm))
		return 0;
	for (size_t i = 0; i + 7 < size; i += 8) {
		struct vcpu *v = &vcpus[(data[i] >> 6) % CPUS];
		unsigned int width = 1u << (data[i] >> 4 & 3);
		u16 port = (u16)(data[i + 1] | data[i + 2] << 8);
		u64 value = 0, offset = port & 0xfff;

		memcpy(&value, data + i + 3, 5);
		vm.platform->last = MAX(vm.platform->last, __builtin_ia32_rdtsc());
		switch (data[i] & 15) {
		case 0 ... 2:
			platform_port_out(v, port, MIN(width, 4u), (u32)value);
			break;
		case 3:
		case 4:
			platform_port_in(v, port, MIN(width, 4u));
			break;
		case 5:
			platform_mmio_read(v, port & 1, offset & ~1ull, width, &value);
			break;
		case 6:
		case 7:
			platform_mmio_write(v, PLATFORM_LAPIC, offset & ~15ull, 4, value);
			break;
		case 8:
			platform_mmio_write(v, PLATFORM_IOAPIC, 0, 4, port);
			platform_mmio_write(v, PLATFORM_IOAPIC, 0x10, 4, value);
			break;
		case 9:
			platform_msr_write(v, 0x800 | (port & 0xff), (u32)value);
			break;
		case 10:
			platform_msr_write(v, 0x1b, (v->lapic->base & ~0xc00ull) | (value & 0xc00));
			break;
		case 11:
			platform_msr_write(v, 0x6e0, value << 24);
			break;
		case 12:
			vm.platform->last += value << (port & 15);
			break;
		case 13:
			platform_console_input(&vm);
			break;
		case 14:
			take_interrupt(v);
			break;
		default:
			if (v->requests & REQ_INIT)
				platform_vcpu_init(v);
			v->requests = 0;
			platform_apic_eoi(v, (u8)value);
			break;
		}
		check(v);
	}
	platform_destroy(&vm);
	return 0;
}
