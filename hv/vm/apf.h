/*
 * KVM's asynchronous page faults: what vm/ asks of remote/async.c, which defines these functions
 * (bound at link time). Of the VM: any CPU; of a vCPU: its own, no lock held.
 */
#pragma once

#include "lib/types.h"

struct vcpu;
struct vm;

/* CPUID says so, and KVM_MSR_ASYNC_PF_* (umbra/hypercall.h) are there. */
bool apf_offered(const struct vm *vm);

/* MSRs that vm/ does not know. False: #GP. */
bool apf_msr_read(struct vcpu *vcpu, u32 msr, u64 *value);
/* 0, ERR_INVAL (#GP), or ERR_AGAIN: a page is not here, and WRMSR is to be executed again. */
int apf_msr_write(struct vcpu *vcpu, u32 msr, u64 value);

/* INIT: as after power-up. */
void apf_reset(struct vcpu *vcpu);
/* CR2 has the token of the last #PF, and the guest has seen that one: it is not to be delivered. */
bool apf_seen(const struct vcpu *vcpu);
/* The local APIC may take interrupts that it has not taken before. */
void apf_apic_changed(struct vcpu *vcpu);
