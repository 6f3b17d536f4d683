/*
 * A vCPU without VMX, for tests that #include a file of hv/vm that reads the VMCS: fields are an
 * array, guest RAM another; what the code does to the outside is noted. Include after the real
 * headers.
 */
#pragma once

#include <stdlib.h>
#include <string.h>

#include "vm/internal.h"
#include "vm/linear.h"
#include "x86/asm.h"
#include "x86/regs.h"

#define FAKE_RAM_BYTES (64 * 4096u)
#define FAKE_MMIO      0x1000000u
#define FAKE_DEVICE    7u

static u64 vmcs_field[0x8000];
static u8 ram[FAKE_RAM_BYTES] __aligned(4096);
static u64 fake_dr6 __attribute__((unused));

/* What happened. */
static struct {
	int vector; /* -1: nothing injected */
	bool has_error;
	u32 error_code;
	u64 addr;
	unsigned int skipped, skipped_none, fatal, flushed;
	unsigned int mmio_reads, mmio_writes;
	u64 mmio_value, mmio_offset;
	unsigned int mmio_size;
} seen;

static struct vm fake_vm;
static struct vcpu fake;
struct vmx_caps vmx_caps;
static bool pdptes_ok = true;

static u64 fake_read(u32 field)
{
	return vmcs_field[field];
}

static inline void fake_write(u32 field, u64 value)
{
	vmcs_field[field] = value;
}

#define vmcs_read(field)	 fake_read(field)
#define vmcs_write(field, value) fake_write(field, value)
#define read_dr6()		 fake_dr6
#define write_dr6(value)	 (fake_dr6 = (value))

static void fake_reset(void)
{
	memset(vmcs_field, 0, sizeof(vmcs_field));
	memset(ram, 0, sizeof(ram));
	memset(&seen, 0, sizeof(seen));
	memset(&fake, 0, sizeof(fake));
	seen.vector = -1;
	fake.vm = &fake_vm;
	fake_dr6 = 0;
	pdptes_ok = true;
	fake_vm.space.override_count = 0;
}

static void put_ram(u64 at, u64 value, unsigned int bytes)
{
	memcpy(ram + at, &value, bytes);
}

static u64 get_ram(u64 at, unsigned int bytes)
{
	u64 value = 0;

	memcpy(&value, ram + at, bytes);
	return value;
}

/* --- vm/space.h
 * ----------------------------------------------------------------------------------- */

static struct region fake_regions[2] = {
	{.bytes = FAKE_RAM_BYTES, .kind = REGION_RAM},
	{.base = {FAKE_MMIO}, .bytes = 4096, .kind = REGION_MMIO, .device = FAKE_DEVICE},
};

const struct region *space_find(const struct space *space, gpa_t at)
{
	for (unsigned int i = 0; i < 2; i++) {
		if (at.v - fake_regions[i].base.v < fake_regions[i].bytes)
			return &fake_regions[i];
	}
	return NULL;
}

/* One page that the VM has protected. */
static u64 protected_page, protected_perms;

u64 space_perms(const struct space *space, gpa_t at)
{
	return at.v >> 12 == protected_page >> 12 ? protected_perms : EPT_RWX;
}

static inline void fake_protect(u64 page, u64 perms)
{
	protected_page = page;
	protected_perms = perms;
	fake_vm.space.override_count = 1;
}

static bool in_ram(gpa_t at, size_t len)
{
	return at.v <= FAKE_RAM_BYTES && FAKE_RAM_BYTES - at.v >= len;
}

int guest_read(struct vm *vm, gpa_t from, void *to, size_t len)
{
	if (!in_ram(from, len))
		return ERR_FAULT;
	memcpy(to, ram + from.v, len);
	return 0;
}

int guest_write(struct vm *vm, gpa_t to, const void *from, size_t len)
{
	if (!in_ram(to, len))
		return ERR_FAULT;
	memcpy(ram + to.v, from, len);
	return 0;
}

int guest_read_word(struct vm *vm, gpa_t at, unsigned int size, u64 *value)
{
	if (!in_ram(at, size))
		return ERR_FAULT;
	*value = get_ram(at.v, size);
	return 0;
}

int guest_cmpxchg(struct vm *vm, gpa_t at, unsigned int size, u64 old, u64 new)
{
	if (!in_ram(at, size))
		return ERR_FAULT;
	if (get_ram(at.v, size) != old)
		return ERR_BUSY;
	put_ram(at.v, new, size);
	return 0;
}

/* --- vm/platform.h
 * -------------------------------------------------------------------------------- */

bool platform_mmio_read(struct vcpu *vcpu, u32 device, u64 offset, unsigned int size, u64 *value)
{
	if (device != FAKE_DEVICE || offset & (size - 1))
		abort();
	seen.mmio_reads++;
	seen.mmio_offset = offset;
	seen.mmio_size = size;
	*value = seen.mmio_value;
	return true;
}

bool platform_mmio_write(struct vcpu *vcpu, u32 device, u64 offset, unsigned int size, u64 value)
{
	if (device != FAKE_DEVICE || offset & (size - 1))
		abort();
	seen.mmio_writes++;
	seen.mmio_offset = offset;
	seen.mmio_size = size;
	seen.mmio_value = value;
	return true;
}

/* --- vm/vcpu.h, vm/internal.h
 * ------------------------------------------------------------------------ */

static void note(int vector, bool has_error, u32 error_code, u64 addr)
{
	seen.vector = vector;
	seen.has_error = has_error;
	seen.error_code = error_code;
	seen.addr = addr;
}

void vcpu_inject(struct vcpu *vcpu, u8 vector)
{
	note(vector, false, 0, 0);
}

void vcpu_inject_error(struct vcpu *vcpu, u8 vector, u32 error_code)
{
	note(vector, true, error_code, 0);
}

void vcpu_inject_pf(struct vcpu *vcpu, gva_t addr, u32 error_code)
{
	note(VEC_PF, true, error_code, addr.v);
}

void vcpu_skip(struct vcpu *vcpu)
{
	seen.skipped++;
	vmcs_field[VMCS_GUEST_RIP] += vmcs_field[VMCS_EXIT_INSTR_LEN];
}

void vcpu_skip_bytes(struct vcpu *vcpu, u64 length)
{
	if (!length)
		seen.skipped_none++;
	vmcs_field[VMCS_GUEST_RIP] += length;
}

void vcpu_fatal(struct vcpu *vcpu, const char *fmt, ...)
{
	seen.fatal++;
}

void vcpu_request(struct vcpu *vcpu, u32 requests)
{
	vcpu->requests |= requests;
}

void event_collect(struct vcpu *vcpu)
{
	vcpu->event = (struct event){
		.info = (u32)vmcs_field[VMCS_IDT_VECTORING_INFO],
		.error_code = (u32)vmcs_field[VMCS_IDT_VECTORING_ERROR],
		.instr_len = (u32)vmcs_field[VMCS_EXIT_INSTR_LEN],
	};
}

bool vcpu_load_pdptes(struct vcpu *vcpu, u64 cr3)
{
	return pdptes_ok;
}

void vmx_invvpid_single(u16 vpid)
{
	seen.flushed++;
}
