/*
 * A platform without VMX, for unit tests (platform_fake.h) and fuzzing: what dev/ asks of vm/ is
 * noted, vCPUs are bare structures, and locks have to be free whenever something is called that may
 * wait. For one file each; all of hv/dev is linked.
 */
#pragma once

#include <stdlib.h>
#include <string.h>

#include "dev/platform.h"
#include "lib/panic.h"
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
	ASSERT(vm.dev_lock.next == vm.dev_lock.serving);
}

void vcpu_post_irq(struct vcpu *v, u8 vector)
{
	ASSERT(vector >= 16);
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
	ASSERT(bytes == 4096);
	ASSERT(base.v == (device == PLATFORM_LAPIC ? 0xfee00000 : 0xfec00000));
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
	ASSERT(status == 0 || (status <= 0xff && (status & 1))); /* S5, or the exit port */
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

/* A VM as when it starts; platform_create()'s result. */
static inline int new_platform(void)
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
	refusals = ended = restarted = out_count = in_count = in_next = regions = 0;
	memset(inits, 0, sizeof(inits));
	return platform_create(&vm);
}
