/*
 * KVM's asynchronous page faults, as stock Linux speaks them: a guest that can is told by a #PF
 * that a page is on its way, schedules something else, and is told by an interrupt when it is here.
 * Linux: Documentation/virt/kvm/x86/{cpuid,msr}.rst.
 *
 * A vCPU's first 8 bytes of its area of 64 in its memory: `flags`, 1 with the #PF whose CR2 is a
 * token; `token`, with the interrupt. A field that the guest has not set back to 0 is left alone:
 * it waits as if it could not do better; interrupts besides wait for its acknowledgement. Waits
 * that it has dropped by disabling all this end with the token ~0, which wakes everybody, when it
 * is enabled again. The area's page is pinned meanwhile.
 *
 * Only the guest's own accesses, not Umbra's for it, and only where it can schedule: interrupts
 * enabled and in nobody's shadow, no NMI being handled, no event on its way, paging on, and CPL 3
 * unless it asks for other levels as well.
 *
 * All of it is guarded by the lock of the VM's space. What vm/ calls is in vm/apf.h.
 */
#pragma once

#include "remote/remote.h"

#define ASYNC_FAULTS 64u /* of a vCPU, that the guest has not been told the end of */

struct vcpu;
struct vm_remote;

/* r->async, if the VM's configuration asks for it: 0 or ERR_NOMEM. */
int async_create(struct vm_remote *r);
void async_destroy(struct vm_remote *r);

/* Lock held, r->async set; a page that the vCPU's guest needs is on its way. True: the guest will
 * get a #PF for it, and the vCPU need not wait. */
bool async_begin(struct vm_remote *r, struct vcpu *vcpu, u32 page);
/* Lock held, r->async set: the page is not on its way any more. Any CPU. */
void async_end(struct vm_remote *r, u32 page);
/* Lock held: adds up. */
void async_stats(const struct vm_remote *r, struct async_stats *out);
