/*
 * Counters of a vCPU or a VM, for people: the monitor, the log and the report.
 *
 * They are read without a lock while the vCPU runs: each value is one that was true a moment ago,
 * but they need not fit one another to the last exit. Times are in ticks of the host's TSC (tsc_hz)
 * and up to date as of the last tick or the last leave of the CPU.
 */
#pragma once

#include "lib/types.h"
#include "vm/vcpu.h"

struct stats {
	u64 exits[EXIT_COUNT]; /* by basic reason; names by exit_reason_name() */
	u64 total;	       /* their sum */
	u64 injections;	       /* events given to the guest by VM entry */
	u64 ept_faults;	       /* EPT violations */
	u64 refusals;	       /* CPUID, MSR and port accesses that the policy refused */
	u64 run_tsc;	       /* it had a CPU: guest mode, and root mode on its behalf */
	u64 halted_tsc;	       /* from HLT until it ran again */
	/*
	 * Root mode: measured only while exits are watched (trace on, or `report = yes`), since two
	 * RDTSC per exit would cost every exit. root_tsc is to be compared with watched_tsc, the
	 * part of run_tsc in which it was measured; both are 0 if it never was. Root mode begins
	 * with the hypervisor's first look at the clock and ends with its last: the exit and entry
	 * themselves and some 40 instructions around them are not in it.
	 */
	u64 root_tsc, watched_tsc;
};

void stats_vcpu(const struct vcpu *vcpu, struct stats *out);
/* The sum over the VM's vCPUs. The caller makes sure that the VM does not go away meanwhile. */
void stats_vm(const struct vm *vm, struct stats *out);
