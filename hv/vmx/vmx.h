/*
 * VMX instructions and VMX operation on each CPU (SDM 3C chapters 24, 31).
 */
#pragma once

#include "lib/types.h"
#include "vmx/caps.h"
#include "vmx/vmcs.h"

/* What was negotiated at start; the same on every CPU. */
extern struct vmx_caps vmx_caps;
extern struct vmx_controls vmx_controls;
extern u64 vmx_features;   /* 1 << enum feature */
extern u8 vmx_timer_shift; /* the VMX preemption timer counts TSC >> this (VMX_MISC[4:0]) */

static inline bool vmx_has(enum feature f)
{
	return vmx_features >> f & 1;
}

/* Boot processor: read and check capabilities, negotiate. Panics if the floor is not met (the
 * loader has checked before). */
void vmx_init(u64 hide);

/* Every CPU: compare with the boot processor's capabilities, FEATURE_CONTROL, VMXON. */
void vmx_cpu_init(void);
void vmx_cpu_exit(void);

/* A VMCS region or other VMX page: one zeroed frame. */
int vmx_alloc_vmcs(hpa_t *out);

void vmcs_clear(hpa_t vmcs);
void vmcs_load(hpa_t vmcs);

/* Panics with the field's name; from vmx/failed.S only. */
__noreturn void vmcs_access_failed(u32 field, bool write);

/*
 * A field that does not exist or a VMCS that is not loaded is a bug of ours: both panic, by way of
 * vmx/failed.S, which finds the field in RAX. No call is visible to the compiler, so that the short
 * functions of the exit path stay leaves.
 */
static inline u64 vmcs_read(enum vmcs_field field)
{
	u64 value;

	asm volatile("vmread %1, %0\n\tjbe vmcs_read_failed"
		     : "=r"(value)
		     : "a"((u64)field)
		     : "cc");
	return value;
}

static inline void vmcs_write(enum vmcs_field field, u64 value)
{
	asm volatile("vmwrite %0, %1\n\tjbe vmcs_write_failed"
		     :
		     : "r"(value), "a"((u64)field)
		     : "cc");
}

void vmx_invept_single(u64 eptp);
void vmx_invept_all(void);
void vmx_invvpid_all(void);
void vmx_invvpid_single(u16 vpid);
