/* The devices of a VM that has been paused: their clocks go on from where they were. */
#include "dev/platform.h"
#include "vm/platform.h"
#include "x86/asm.h"

static void skip(u64 *time, u64 ticks)
{
	if (*time != LAPIC_NEVER)
		*time += ticks;
}

/* An expiry in TSC-deadline mode is computed afresh by whoever runs the timers next. */
static void skip_lapic(struct lapic *l, u64 ticks)
{
	skip(&l->expiry, ticks);
	if (l->last_fire)
		l->last_fire += ticks;
}

void platform_skip_time(struct vm *vm, u64 ticks)
{
	struct platform *p = vm->platform;

	spin_lock(&vm->dev_lock);
	p->epoch += ticks;
	p->last = MIN(p->last + ticks, rdtsc());
	p->earliest += ticks;
	skip(&p->deadline, ticks);
	for (u32 i = 0; i < vm->vcpu_count; i++) {
		skip_lapic(&p->lapic[i], ticks);
		skip(&p->lapic_deadline[i], ticks);
		skip(&vm->vcpu[i]->timer_deadline, ticks);
	}
	spin_unlock(&vm->dev_lock);
}
