/*
 * A vCPU's own accesses to its memory, for emulation: linear addresses through the guest's paging,
 * physical ones to RAM, devices or holes. On the vCPU's own CPU, its VMCS current.
 */
#pragma once

#include "lib/types.h"
#include "vm/walk.h"

struct vcpu;

/* The exception that an access has to give; inject with guest_fault_inject(). */
struct guest_fault {
	u8 vector;
	bool has_error;
	u32 error_code;
	gva_t addr; /* #PF: the address for CR2 */
};

/* Reads paging registers, CPL and PDPTEs from the VMCS. */
void walk_state_load(struct vcpu *vcpu, struct walk_state *out);

/*
 * walk(), and then the VM's own protection of RAM (space_perms): what that refuses is the #PF with
 * HC_PF_EPT that an access by the guest itself would have got.
 */
int guest_walk(struct vcpu *vcpu, const struct walk_state *state, gva_t at, unsigned int access,
	       gpa_t *out, struct guest_fault *fault);

/*
 * Bytes of guest-physical memory behind one linear range, checked and translated: at most two
 * pages. Valid until the vCPU is entered again.
 */
struct guest_range {
	gpa_t part[2];
	u32 bytes[2];
};

#define GUEST_RANGE_MAX 4096

/* An access flag besides WALK_*: addresses wrap at 4 GiB also in IA-32e mode (compatibility mode).
 */
#define GUEST_WRAP_32 BIT(5)

/*
 * Checks and translates [at, at + bytes) for `access`; 1 <= bytes <= GUEST_RANGE_MAX. WALK_OK,
 * WALK_FAULT with *fault set (#PF, or #GP(0) for an address that is not canonical in IA-32e mode;
 * the caller makes #SS(0) of it where that is due), WALK_RETRY, or ERR_NOSYS. Outside of IA-32e
 * mode addresses wrap at 4 GiB.
 */
int guest_range_get(struct vcpu *vcpu, gva_t at, size_t bytes, unsigned int access,
		    struct guest_range *out, struct guest_fault *fault);
/* The same with paging state loaded before, for many ranges in one exit. */
int guest_range_walk(struct vcpu *vcpu, const struct walk_state *state, gva_t at, size_t bytes,
		     unsigned int access, struct guest_range *out, struct guest_fault *fault);
void guest_range_read(struct vcpu *vcpu, const struct guest_range *range, void *to);
void guest_range_write(struct vcpu *vcpu, const struct guest_range *range, const void *from);

/*
 * Get and copy in one: nothing is read or written unless all of it may be. `access` adds WALK_*
 * flags to READ or WRITE (0 for an ordinary access at CPL). Returns as guest_range_get().
 */
int guest_linear_read(struct vcpu *vcpu, gva_t at, void *to, size_t bytes, unsigned int access,
		      struct guest_fault *fault);
int guest_linear_write(struct vcpu *vcpu, gva_t at, const void *from, size_t bytes,
		       unsigned int access, struct guest_fault *fault);

void guest_fault_inject(struct vcpu *vcpu, const struct guest_fault *fault);

/*
 * Physical memory of any kind, any length: RAM, MMIO (in naturally aligned pieces of at most 8
 * bytes), holes (read all ones, ignore writes).
 */
void guest_phys_read(struct vcpu *vcpu, gpa_t from, void *to, size_t bytes);
void guest_phys_write(struct vcpu *vcpu, gpa_t to, const void *from, size_t bytes);
