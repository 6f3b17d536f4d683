/* The ring of a vCPU's last exits (`trace = yes`): what led to a VM's end. */
#include "lib/log.h"
#include "mem/frame.h"
#include "vm/internal.h"
#include "vmx/entry_check.h"
#include "x86/asm.h"
#include "x86/tsc.h"

#define TRACE_SHOWN 16

struct trace_entry {
	u64 tsc, rip, qualification;
	u32 reason;
	u32 reserved;
};
_Static_assert(sizeof(struct trace_entry) == 32, "a power of two of them fills whole pages");

int trace_create(struct vcpu *vcpu)
{
	if (!vm_boot->options.trace)
		return 0;
	vcpu->trace = heap_alloc(TRACE_ENTRIES * sizeof(struct trace_entry));
	return vcpu->trace ? 0 : ERR_NOMEM;
}

void trace_destroy(struct vcpu *vcpu)
{
	if (vcpu->trace)
		heap_free(vcpu->trace, TRACE_ENTRIES * sizeof(struct trace_entry));
}

void trace_exit(struct vcpu *vcpu, u32 reason)
{
	vcpu->trace[vcpu->trace_next++ % TRACE_ENTRIES] = (struct trace_entry){
		.tsc = rdtsc(),
		.rip = vmcs_read(VMCS_GUEST_RIP),
		.qualification = vmcs_read(VMCS_EXIT_QUALIFICATION),
		.reason = reason,
	};
}

void trace_report(const struct vcpu *vcpu)
{
	u64 shown = MIN(vcpu->trace_next, (u64)TRACE_SHOWN);

	if (!vcpu->trace)
		return;
	log_warn("  last exits, newest last: time in us, RIP, qualification, reason");
	for (u64 i = vcpu->trace_next - shown; i < vcpu->trace_next; i++) {
		const struct trace_entry *e = &vcpu->trace[i % TRACE_ENTRIES];

		log_warn("  %10llu %016llx %8llx %u %s",
			 (unsigned long long)mul_div(e->tsc - tsc_start, 1000000, tsc_hz),
			 (unsigned long long)e->rip, (unsigned long long)e->qualification,
			 e->reason, exit_reason_name(e->reason));
	}
}
