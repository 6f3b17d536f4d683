/*
 * Watched exits: the ring of a vCPU's last ones, and what the report collects about all of them.
 *
 * An exit of a watched vCPU takes a detour (run.c): watch_exit() before its handler records it and
 * posts REQ_WATCH, so that the way in is the slow one and comes by prepare_watched(), which calls
 * watch_done() when everything is ready for the entry or the scheduler takes over.
 */
#include "vm/trace.h"

#include "lib/log.h"
#include "mem/frame.h"
#include "vm/internal.h"
#include "vm/profile.h"
#include "vmx/entry_check.h"
#include "x86/asm.h"
#include "x86/tsc.h"

#define TRACE_SHOWN 16
#define RING_BYTES  (TRACE_ENTRIES * sizeof(struct trace_entry))

static int create_ring(struct vcpu *vcpu)
{
	struct trace_entry *ring;

	if (vcpu->trace)
		return 0;
	ring = heap_alloc(RING_BYTES);
	if (!ring)
		return ERR_NOMEM;
	__atomic_store_n(&vcpu->trace, ring, __ATOMIC_RELEASE);
	return 0;
}

static int create_profile(struct vcpu *vcpu)
{
	const struct vcpu *first = vcpu->vm->vcpu[0];

	vcpu->profile = heap_alloc(sizeof(*vcpu->profile));
	if (!vcpu->profile)
		return ERR_NOMEM;
	/* One start for all vCPUs of a VM, so that their samples can be added. */
	profile_init(vcpu->profile, vcpu->index ? first->profile->start : rdtsc(),
		     tsc_from_us(PROFILE_START_US));
	return 0;
}

int watch_create(struct vcpu *vcpu)
{
	const struct boot_options *options = &vm_boot->options;

	if (!options->trace && !options->report)
		return 0;
	if (create_ring(vcpu) || (options->report && create_profile(vcpu)))
		return ERR_NOMEM;
	vcpu->watch = (options->trace ? WATCH_TRACE : 0) | (options->report ? WATCH_REPORT : 0);
	vcpu->watch_wanted = vcpu->watch;
	return 0;
}

void watch_destroy(struct vcpu *vcpu)
{
	if (vcpu->trace)
		heap_free(vcpu->trace, RING_BYTES);
	if (vcpu->profile)
		heap_free(vcpu->profile, sizeof(*vcpu->profile));
}

int trace_set(struct vm *vm, bool on)
{
	for (u32 i = 0; on && i < vm->vcpu_count; i++)
		if (create_ring(vm->vcpu[i]))
			return ERR_NOMEM;
	for (u32 i = 0; i < vm->vcpu_count; i++) {
		struct vcpu *vcpu = vm->vcpu[i];

		if (on)
			__atomic_or_fetch(&vcpu->watch_wanted, WATCH_TRACE, __ATOMIC_RELEASE);
		else
			__atomic_and_fetch(&vcpu->watch_wanted, ~(u64)WATCH_TRACE,
					   __ATOMIC_RELEASE);
		vcpu_request(vcpu, REQ_WATCH);
	}
	return 0;
}

bool trace_is_on(const struct vm *vm)
{
	return __atomic_load_n(&vm->vcpu[0]->watch_wanted, __ATOMIC_RELAXED) & WATCH_TRACE;
}

void watch_follow(struct vcpu *vcpu)
{
	vcpu->watch =
		__atomic_load_n(&vcpu->watch_wanted, __ATOMIC_ACQUIRE) | (vcpu->watch & WATCH_STEP);
	if (!(vcpu->watch & ~(u64)WATCH_STEP)) {
		vcpu->root_since = 0;
		vcpu->exit_open = false;
	}
}

/* --- recording -----------------------------------------------------------------------------------
 */

/* What the exit was about; the guest's registers and the exit fields are still those of the exit.
 */
static u64 detail_of(const struct vcpu *vcpu, u32 reason, u64 q)
{
	switch (reason) {
	case EXIT_EPT_VIOLATION:
	case EXIT_EPT_MISCONFIG:
		return vmcs_read(VMCS_GUEST_PHYSICAL_ADDRESS);
	case EXIT_APIC_ACCESS:
	case EXIT_APIC_WRITE:
		return 0xfee00000 + (q & 0xfff);
	case EXIT_IO:
		return (u16)(q >> 16);
	case EXIT_RDMSR:
	case EXIT_WRMSR:
		return (u32)vcpu->gpr[RCX];
	case EXIT_CPUID:
		return (u32)vcpu->gpr[RAX];
	case EXIT_VMCALL:
		return vcpu->gpr[RAX];
	case EXIT_EXCEPTION_NMI:
	case EXIT_EXTERNAL_INTERRUPT:
		return vmcs_read(VMCS_EXIT_INTR_INFO) & INTR_INFO_VECTOR;
	case EXIT_VIRTUALIZED_EOI:
		return (u8)q;
	case EXIT_CR_ACCESS:
		return q & 0xf;
	case EXIT_MOV_DR:
		return q & 7;
	}
	return 0;
}

const char *trace_detail_name(u32 reason)
{
	switch (reason) {
	case EXIT_EPT_VIOLATION:
	case EXIT_EPT_MISCONFIG:
	case EXIT_APIC_ACCESS:
	case EXIT_APIC_WRITE:
		return "gpa";
	case EXIT_IO:
		return "port";
	case EXIT_RDMSR:
	case EXIT_WRMSR:
		return "msr";
	case EXIT_CPUID:
		return "leaf";
	case EXIT_VMCALL:
		return "call";
	case EXIT_EXCEPTION_NMI:
	case EXIT_EXTERNAL_INTERRUPT:
	case EXIT_VIRTUALIZED_EOI:
		return "vector";
	case EXIT_CR_ACCESS:
		return "cr";
	case EXIT_MOV_DR:
		return "dr";
	}
	return "";
}

void watch_exit(struct vcpu *vcpu, u32 reason)
{
	u64 q = vmcs_read(VMCS_EXIT_QUALIFICATION), next = vcpu->trace_next;
	struct trace_entry *e = &vcpu->trace[next % TRACE_ENTRIES];

	/* For readers: whoever sees something of the new entry sees that all before it counted. */
	__atomic_thread_fence(__ATOMIC_RELEASE);
	*e = (struct trace_entry){
		.rip = vmcs_read(VMCS_GUEST_RIP),
		.qualification = q,
		.detail = detail_of(vcpu, reason, q),
		.reason = (u16)reason,
	};
	vcpu->exit_open = true;
	__atomic_or_fetch(&vcpu->requests, REQ_WATCH, __ATOMIC_RELAXED);
	/* The clock starts when the recording is over: that is no part of the exit's cost. */
	vcpu->root_since = e->tsc = rdtsc();
	__atomic_store_n(&vcpu->trace_next, next + 1, __ATOMIC_RELEASE);
}

void watch_done(struct vcpu *vcpu)
{
	struct trace_entry *e;
	u64 cost;

	if (!vcpu->root_since)
		return;
	cost = rdtsc() - vcpu->root_since;
	vcpu->root_tsc += cost;
	vcpu->root_since = 0;
	if (!vcpu->exit_open)
		return;
	vcpu->exit_open = false;
	e = &vcpu->trace[(vcpu->trace_next - 1) % TRACE_ENTRIES];
	__atomic_store_n(&e->cost, (u32)MIN(cost, 0xffffffffull), __ATOMIC_RELAXED);
	if (!vcpu->profile)
		return;
	profile_add(vcpu->profile, e, cost);
	if (vcpu->bsp && vcpu->vm->remote) {
		u64 *gauge = profile_gauge(vcpu->profile, e->tsc);

		if (gauge)
			remote_gauges(vcpu->vm, gauge);
	}
}

/* --- reading -------------------------------------------------------------------------------------
 */

u64 trace_count(const struct vcpu *vcpu)
{
	return __atomic_load_n(&vcpu->trace_next, __ATOMIC_ACQUIRE);
}

bool trace_read(const struct vcpu *vcpu, u64 back, struct trace_entry *out)
{
	u64 count = trace_count(vcpu), at = count - 1 - back;

	if (back >= count || back >= TRACE_ENTRIES - 1)
		return false;
	*out = vcpu->trace[at % TRACE_ENTRIES];
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	/* The place of the entry that is being written now is no longer at's. */
	return trace_count(vcpu) - at < TRACE_ENTRIES;
}

void trace_report(const struct vcpu *vcpu)
{
	struct trace_entry e;

	if (!vcpu->trace)
		return;
	log_warn("  last exits, newest last: time in us, cost in ticks, RIP, qualification, "
		 "reason");
	for (u64 i = MIN(trace_count(vcpu), (u64)TRACE_SHOWN); i-- > 0;) {
		char what[40] = "";

		if (!trace_read(vcpu, i, &e))
			continue;
		if (*trace_detail_name(e.reason))
			str_print(what, sizeof(what), ", %s %#llx", trace_detail_name(e.reason),
				  (unsigned long long)e.detail);
		log_warn("  %10llu %8u %016llx %8llx %u %s%s",
			 (unsigned long long)mul_div(e.tsc - tsc_start, 1000000, tsc_hz), e.cost,
			 (unsigned long long)e.rip, (unsigned long long)e.qualification, e.reason,
			 exit_reason_name(e.reason), what);
	}
}
