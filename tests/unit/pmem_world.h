/*
 * A VM with persistent memory without VMX: real address spaces and the real EPT engine on an arena,
 * the guest's accesses made by a walk of the page tables. What hv/pmem asks of the rest is noted.
 * For one test file each, which links hv/pmem, hv/vm/space.c and hv/ept.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "ept_hw.h"
#include "mem/frame.h"
#include "nfit_table.h"
#include "pmem/pmem.h"
#include "vm/internal.h"
#include "vm/platform.h"
#include "x86/acpi.h"
#include "x86/cpu.h"
#include "x86/paging.h"

static struct boot_info boot;
static struct boot_vm config;
static struct vm vm;
static struct vcpu vcpu = {.vm = &vm};
static struct nfit_table table; /* the host's */
static bool have_table;
static u32 restarts, timer_requests, next_id;
static u64 uncached; /* the page that was mapped last as device memory */

/* --- what is below and beside hv/pmem
 * ------------------------------------------------------------ */

u64 vmx_features;
struct cpu cpus[MAX_CPUS];
u32 cpu_count = 2;

void vmx_invept_single(u64 eptp)
{
}

void ept_kick_cpu(u32 cpu)
{
}

void vcpu_fatal(struct vcpu *v, const char *fmt, ...)
{
	abort();
}

enum apic_mode platform_apic_mode(struct vcpu *v)
{
	return APIC_MODE_X2APIC;
}

void vm_restart(struct vm *v, const char *why)
{
	restarts++;
}

u64 vcpu_tsc(const struct vcpu *v)
{
	return v->tsc_offset + 7;
}

void vcpu_request(struct vcpu *v, u32 requests)
{
	timer_requests += requests == REQ_TIMER;
}

struct vcpu *sched_current(void)
{
	return NULL;
}

void vmcs_read_failed(void);
void vmcs_read_failed(void)
{
	abort();
}

const struct acpi_header *acpi_find(hpa_t rsdp, const char *signature)
{
	assert_string_equal(signature, "NFIT");
	return have_table ? (const void *)table.bytes : NULL;
}

void *paging_map_mmio(hpa_t base, u64 bytes, enum paging_type type)
{
	if (type == PAGING_UC)
		uncached = base.v;
	return phys_to_ptr(base);
}

/* --- machines and VMs
 * ------------------------------------------------------------------------------ */

/* `bytes` of RAM; the caller adds what else it has to `boot`, and then calls frame_init(). */
static inline void new_machine(u64 bytes, u64 features)
{
	cpus[0].self = &cpus[0];
	syscall(SYS_arch_prctl, 0x1001 /* ARCH_SET_GS */, &cpus[0]);
	host_memory_release();
	host_memory_init(bytes);
	memset(&boot, 0, sizeof(boot));
	boot.options.pmem_controllers = 4;
	boot.memory_count = 1;
	boot.memory[0] = (struct boot_range){1 * MIB, bytes - 1 * MIB, BOOT_MEM_USABLE, 0};
	vmx_features = features;
}

/* Another VM of the machine, with one region: media are kept by VM. */
static inline void configure(u32 source, u64 bytes)
{
	next_id++;
	assert_true(next_id < BOOT_MAX_VMS);
	memset(&config, 0, sizeof(config));
	strcpy(config.name, "v");
	config.memory = 4 * MIB;
	config.pmem_count = 1;
	config.pmem[0] = (struct boot_pmem){.source = source, .bytes = bytes, .range = 1};
}

/* A life of the VM. */
static inline int create(void)
{
	memset(&vm, 0, sizeof(vm));
	vm.id = next_id;
	vm.config = &config;
	vm.vcpu[0] = &vcpu;
	vm.vcpu_count = 1;
	assert_int_equal(space_init(&vm, config.memory), 0);
	return pmem_create(&vm);
}

static inline void end(void)
{
	pmem_stop(&vm);
	space_destroy(&vm);
}

/* --- the guest
 * -------------------------------------------------------------------------------------
 */

static inline enum fault_result fault_at(u64 at, bool write)
{
	struct ept_fault fault = {.addr = gpa(at), .access = write ? EPT_W : EPT_R, .write = write};

	return space_fault(&vcpu, &fault);
}

static inline struct hw_page page_at(u64 at)
{
	return hw_walk(vm.space.view.eptp, at, false, vmx_has(FEAT_EPT_XO));
}

/* A guest's store, as the processor would do it. */
static inline void store(u64 at, u64 value)
{
	if (!hw_write(vm.space.view.eptp, at)) {
		assert_int_equal(fault_at(at, true), FAULT_RETRY);
		assert_true(hw_write(vm.space.view.eptp, at));
	}
	*(u64 *)phys_to_ptr(hpa(page_at(at).frame + at % PAGE_SIZE)) = value;
}

static inline u64 load(u64 at)
{
	if (!(page_at(at).perms & EPT_R))
		assert_int_equal(fault_at(at, false), FAULT_RETRY);
	assert_true(page_at(at).perms & EPT_R);
	return *(u64 *)phys_to_ptr(hpa(page_at(at).frame + at % PAGE_SIZE));
}

static inline s64 ask(u64 what, u64 argument)
{
	return pmem_hypercall(&vcpu, what, 0, argument);
}
