/* Snapshots of the counters: see stats.h. */
#include "vm/stats.h"

#include "lib/string.h"
#include "vm/vm.h"
#include "x86/asm.h"

static u64 look(const u64 *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static void add(const struct vcpu *vcpu, struct stats *s)
{
	u64 since = look(&vcpu->halted_since), now = rdtsc();

	for (u32 i = 0; i < EXIT_COUNT; i++) {
		u64 n = look(&vcpu->exits[i]);

		s->exits[i] += n;
		s->total += n;
	}
	s->injections += look(&vcpu->injections);
	s->ept_faults += look(&vcpu->ept_faults);
	s->refusals += look(&vcpu->refusals);
	s->run_tsc += look(&vcpu->run_tsc);
	s->halted_tsc += look(&vcpu->halted_tsc);
	if (since && now > since)
		s->halted_tsc += now - since;
	s->root_tsc += look(&vcpu->root_tsc);
	s->watched_tsc += look(&vcpu->watched_tsc);
}

void stats_vcpu(const struct vcpu *vcpu, struct stats *out)
{
	memset(out, 0, sizeof(*out));
	add(vcpu, out);
}

void stats_vm(const struct vm *vm, struct stats *out)
{
	memset(out, 0, sizeof(*out));
	for (u32 i = 0; i < vm->vcpu_count; i++)
		add(vm->vcpu[i], out);
}
