/*
 * Invalidation by generation. tests/unit/ept_gen.c checks every interleaving of a model of this
 * file and of ept_enter() and ept_leave(); keep them in step.
 *
 * The argument in short: the changer (1) stores entries, (2) bumps the generation, (3) reads
 * ept_running[cpu]; a CPU that enters (a) stores ept_running[cpu], (b) reads the generation, (c)
 * invalidates if it is new, (d) enters. 2-3 and a-b are each in order (sequentially consistent), so
 * either (b) sees the new generation, and the CPU invalidates before it can use anything, or (3)
 * sees the CPU running, and the changer kicks it and waits until it has left or caught up.
 */
#include "ept/ept_entry.h"
#include "lib/panic.h"
#include "vmx/vmx.h"

struct ept_view *ept_running[EPT_MAX_CPUS];

void ept_catch_up(struct ept_view *view, u32 cpu, u64 generation)
{
	vmx_invept_single(view->eptp);
	/* Release: whoever sees the number may count on the invalidation. */
	__atomic_store_n(&view->seen[cpu], generation, __ATOMIC_RELEASE);
}

/* May `cpu` be in guest mode with translations older than `generation`? */
static bool is_behind(const struct ept_view *view, u32 cpu, u64 generation)
{
	return __atomic_load_n(&ept_running[cpu], __ATOMIC_SEQ_CST) == view &&
	       __atomic_load_n(&view->seen[cpu], __ATOMIC_ACQUIRE) < generation;
}

void ept_sync(struct ept_view *view, u32 this_cpu, u32 cpu_count)
{
	u64 generation = __atomic_load_n(&view->generation, __ATOMIC_SEQ_CST);
	u64 kicked = 0;

	ASSERT(cpu_count <= EPT_MAX_CPUS);
	ASSERT(__atomic_load_n(&ept_running[this_cpu], __ATOMIC_RELAXED) == NULL);

	for (u32 cpu = 0; cpu < cpu_count; cpu++) {
		if (is_behind(view, cpu, generation)) {
			ept_kick_cpu(cpu);
			kicked |= BIT64(cpu);
		}
	}
	for (u32 cpu = 0; cpu < cpu_count; cpu++)
		while ((kicked & BIT64(cpu)) && is_behind(view, cpu, generation))
			__builtin_ia32_pause();

	spin_lock(&view->lock);
	if (__atomic_load_n(&view->settled, __ATOMIC_RELAXED) < generation)
		__atomic_store_n(&view->settled, generation, __ATOMIC_RELEASE);
	ept_table_reclaim(view, generation);
	spin_unlock(&view->lock);
}

void ept_assert_fresh(const struct ept_view *view, u32 cpu)
{
	u64 settled = __atomic_load_n(&view->settled, __ATOMIC_ACQUIRE);
	u64 seen = __atomic_load_n(&view->seen[cpu], __ATOMIC_RELAXED);

	if (__atomic_load_n(&ept_running[cpu], __ATOMIC_RELAXED) != view)
		panic("CPU %u enters a guest with an EPT view that it has not announced", cpu);
	if (seen < settled)
		panic("CPU %u enters a guest with generation %llu of an EPT that settled at %llu",
		      cpu, (unsigned long long)seen, (unsigned long long)settled);
}
