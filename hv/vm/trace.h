/*
 * A vCPU's last exits: what happened, where, and what it cost. With `trace = yes` or `report = yes`
 * from the start, or switched on and off at run time.
 *
 * While it is off an exit pays the test of one word (vcpu->watch) that finds 0, and nothing else.
 * While it is on an exit costs some 200 instructions more (350 for the report); some 80 of them are
 * in the recorded cost.
 */
#pragma once

#include "lib/types.h"

struct vm;
struct vcpu;

#define TRACE_ENTRIES 4096u

struct trace_entry {
	u64 tsc; /* host TSC at the exit */
	u64 rip; /* guest RIP at the exit: of the instruction that caused it, if one did */
	u64 qualification; /* exit qualification (SDM 28.2.1) */
	u64 detail;	   /* what it was about: see trace_detail_name() */
	u32 cost;	   /* TSC ticks in root mode until the next entry or until the scheduler
			      took over (halt, yield, end); saturates; 0 = not known yet */
	u16 reason;	   /* basic exit reason; names by exit_reason_name() */
	u16 reserved;
};
_Static_assert(sizeof(struct trace_entry) == 40, "TRACE_ENTRIES of them fill whole pages");

/*
 * What `detail` is for this reason: "gpa" (EPT violation or misconfiguration, APIC access),
 * "port", "msr", "leaf" (EAX of CPUID), "call" (RAX of VMCALL), "vector" (exception, external
 * interrupt), "cr", "dr"; "" if it means nothing (0).
 */
const char *trace_detail_name(u32 reason);

/*
 * Switches recording on or off for all vCPUs of a VM. The first switching on allocates (160 KiB per
 * vCPU, kept until the VM ends): not from a fault path. Each vCPU follows at its next exit; what
 * has been recorded stays readable. 0 or ERR_NOMEM (then nothing has changed). From any CPU; the
 * caller makes sure that the VM does not go away meanwhile, also for the functions below.
 */
int trace_set(struct vm *vm, bool on);
bool trace_is_on(const struct vm *vm);

/* How many exits have been recorded; the newest TRACE_ENTRIES - 1 of them may be read. */
u64 trace_count(const struct vcpu *vcpu);

/*
 * Reads the entry `back` places before the newest (0). From any CPU, while the vCPU runs too: false
 * if there is no such entry (any more). The newest may still have cost 0.
 */
bool trace_read(const struct vcpu *vcpu, u64 back, struct trace_entry *out);
