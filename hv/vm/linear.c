/* A vCPU's own accesses to its memory. */
#include "vm/linear.h"

#include <umbra/hypercall.h>

#include "lib/string.h"
#include "vm/away.h"
#include "vm/platform.h"
#include "vm/vm.h"
#include "vmx/vmx.h"
#include "x86/asm.h"
#include "x86/regs.h"

#define CPUID_EXT_EDX_1G BIT(26) /* CPUID.80000001H:EDX */

/* MAXPHYADDR. CPUID is kept out of the way: it exits where Umbra itself is a guest. */
static u8 phys_bits(void)
{
	static u8 known;

	if (unlikely(!known))
		known = (u8)cpuid(0x80000008, 0).eax;
	return known;
}

void walk_state_load(struct vcpu *vcpu, struct walk_state *out)
{
	out->cr0 = vmcs_read(VMCS_GUEST_CR0);
	out->cr3 = vmcs_read(VMCS_GUEST_CR3);
	out->cr4 = vmcs_read(VMCS_GUEST_CR4);
	out->efer = vmcs_read(VMCS_GUEST_EFER);
	out->rflags = vmcs_read(VMCS_GUEST_RFLAGS);
	out->cpl = vmcs_read(VMCS_GUEST_SS_AR) >> 5 & 3;
	out->phys_bits = phys_bits();
	out->no_1g = !(vmx_caps.cpuid_80000001_edx & CPUID_EXT_EDX_1G);
	if ((out->cr0 & CR0_PG) && (out->cr4 & CR4_PAE) && !(out->efer & EFER_LMA)) {
		out->pdpte[0] = vmcs_read(VMCS_GUEST_PDPTE0);
		out->pdpte[1] = vmcs_read(VMCS_GUEST_PDPTE1);
		out->pdpte[2] = vmcs_read(VMCS_GUEST_PDPTE2);
		out->pdpte[3] = vmcs_read(VMCS_GUEST_PDPTE3);
	}
}

/* The VM has protected this page of its RAM from such an access (HC_PROTECT, later guards). */
static bool protected_from(struct vcpu *vcpu, gpa_t at, unsigned int access)
{
	struct space *space = &vcpu->vm->space;
	const struct region *region;
	u64 needed = (access & WALK_READ ? EPT_R : 0) | (access & WALK_WRITE ? EPT_W : 0) |
		     (access & WALK_FETCH ? EPT_X : 0);
	u64 perms;

	if (likely(!__atomic_load_n(&space->override_count, __ATOMIC_RELAXED)))
		return false;
	region = space_find(space, at);
	if (!region || region->kind != REGION_RAM)
		return false;
	spin_lock(&space->lock);
	perms = space_perms(space, at);
	spin_unlock(&space->lock);
	return needed & ~perms;
}

int guest_walk(struct vcpu *vcpu, const struct walk_state *state, gva_t at, unsigned int access,
	       gpa_t *out, struct guest_fault *fault)
{
	struct walk_result found;
	int result = walk(vcpu->vm, state, at, access, &found);

	if (result == WALK_OK && protected_from(vcpu, found.addr, access)) {
		found.error_code = HC_PF_EPT | PF_P | (access & WALK_WRITE ? PF_W : 0) |
				   (access & WALK_FETCH ? PF_I : 0);
		if (state->cpl == 3 && !(access & WALK_IMPLICIT))
			found.error_code |= PF_U;
		result = WALK_FAULT;
	}
	if (result == WALK_FAULT)
		*fault = (struct guest_fault){VEC_PF, true, found.error_code, at};
	/* From here on accesses to the page must not fail. */
	if (unlikely(vcpu->vm->remote) && result == WALK_OK &&
	    !remote_hold(vcpu, found.addr, access & WALK_WRITE))
		return WALK_RETRY;
	*out = found.addr;
	return result;
}

static bool canonical(u64 linear)
{
	return (u64)((s64)(linear << 16) >> 16) == linear;
}

int guest_range_walk(struct vcpu *vcpu, const struct walk_state *state, gva_t at, size_t bytes,
		     unsigned int access, struct guest_range *out, struct guest_fault *fault)
{
	bool wrap = (access & GUEST_WRAP_32) || !(state->efer & EFER_LMA);
	u64 linear = wrap ? (u32)at.v : at.v;
	u64 first = MIN(bytes, PAGE_SIZE - (linear & (PAGE_SIZE - 1)));

	out->bytes[0] = (u32)first;
	out->bytes[1] = (u32)(bytes - first);
	for (unsigned int i = 0; i < 2 && out->bytes[i]; i++) {
		int result;

		if (!canonical(linear)) {
			*fault = (struct guest_fault){.vector = VEC_GP, .has_error = true};
			return WALK_FAULT;
		}
		result = guest_walk(vcpu, state, gva(linear), access, &out->part[i], fault);
		if (result)
			return result;
		linear += out->bytes[i];
		if (wrap)
			linear = (u32)linear;
	}
	return WALK_OK;
}

int guest_range_get(struct vcpu *vcpu, gva_t at, size_t bytes, unsigned int access,
		    struct guest_range *out, struct guest_fault *fault)
{
	struct walk_state state;

	walk_state_load(vcpu, &state);
	return guest_range_walk(vcpu, &state, at, bytes, access, out, fault);
}

void guest_range_read(struct vcpu *vcpu, const struct guest_range *range, void *to)
{
	guest_phys_read(vcpu, range->part[0], to, range->bytes[0]);
	if (range->bytes[1])
		guest_phys_read(vcpu, range->part[1], (u8 *)to + range->bytes[0], range->bytes[1]);
}

void guest_range_write(struct vcpu *vcpu, const struct guest_range *range, const void *from)
{
	guest_phys_write(vcpu, range->part[0], from, range->bytes[0]);
	if (range->bytes[1])
		guest_phys_write(vcpu, range->part[1], (const u8 *)from + range->bytes[0],
				 range->bytes[1]);
}

int guest_linear_read(struct vcpu *vcpu, gva_t at, void *to, size_t bytes, unsigned int access,
		      struct guest_fault *fault)
{
	struct guest_range range;
	int result = guest_range_get(vcpu, at, bytes, access | WALK_READ, &range, fault);

	if (result == WALK_OK)
		guest_range_read(vcpu, &range, to);
	return result;
}

int guest_linear_write(struct vcpu *vcpu, gva_t at, const void *from, size_t bytes,
		       unsigned int access, struct guest_fault *fault)
{
	struct guest_range range;
	int result = guest_range_get(vcpu, at, bytes, access | WALK_WRITE, &range, fault);

	if (result == WALK_OK)
		guest_range_write(vcpu, &range, from);
	return result;
}

void guest_fault_inject(struct vcpu *vcpu, const struct guest_fault *fault)
{
	if (fault->vector == VEC_PF)
		vcpu_inject_pf(vcpu, fault->addr, fault->error_code);
	else if (fault->has_error)
		vcpu_inject_error(vcpu, fault->vector, fault->error_code);
	else
		vcpu_inject(vcpu, fault->vector);
}

/* The largest naturally aligned access at `at` that is not longer than `bytes`. */
static unsigned int piece_of(u64 at, size_t bytes)
{
	unsigned int size = 8;

	while (size > bytes || (at & (size - 1)))
		size /= 2;
	return size;
}

/* Memory from `at` to the end of its region, or as much of it as is wanted. */
static size_t ram_part(const struct region *region, gpa_t at, size_t bytes)
{
	return MIN(bytes, region->base.v + region->bytes - at.v);
}

void guest_phys_read(struct vcpu *vcpu, gpa_t from, void *to, size_t bytes)
{
	u8 *out = to;
	size_t done;

	for (; bytes; bytes -= done, out += done, from = gpa_add(from, done)) {
		const struct region *region = space_find(&vcpu->vm->space, from);
		u64 value = ~0ull;

		if (region && region_is_memory(region)) {
			int err;

			done = ram_part(region, from, bytes);
			/* What guest_walk() has translated is here; if not, nobody can be asked to
			 * try again. */
			while ((err = guest_read(vcpu->vm, from, out, done)) == ERR_AGAIN)
				remote_poll(rdtsc());
			if (!err)
				continue;
		}
		if (region && region->kind == REGION_WINDOW) {
			done = ram_part(region, from, bytes);
			pmem_window_read(vcpu, region->device, from.v - region->base.v, out, done);
			continue;
		}
		done = piece_of(from.v, bytes);
		if (region && region->kind == REGION_MMIO &&
		    !platform_mmio_read(vcpu, region->device, from.v - region->base.v,
					(unsigned int)done, &value))
			value = ~0ull;
		memcpy(out, &value, done);
	}
}

void guest_phys_write(struct vcpu *vcpu, gpa_t to, const void *from, size_t bytes)
{
	const u8 *in = from;
	size_t done;

	for (; bytes; bytes -= done, in += done, to = gpa_add(to, done)) {
		const struct region *region = space_find(&vcpu->vm->space, to);
		u64 value = 0;

		if (region && region_is_memory(region)) {
			done = ram_part(region, to, bytes);
			while (guest_write(vcpu->vm, to, in, done) == ERR_AGAIN)
				remote_poll(rdtsc());
			continue;
		}
		if (region && region->kind == REGION_WINDOW) {
			done = ram_part(region, to, bytes);
			pmem_window_write(vcpu, region->device, to.v - region->base.v, in, done);
			continue;
		}
		done = piece_of(to.v, bytes);
		memcpy(&value, in, done);
		if (region && region->kind == REGION_MMIO)
			platform_mmio_write(vcpu, region->device, to.v - region->base.v,
					    (unsigned int)done, value);
	}
}
