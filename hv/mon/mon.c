/* The monitor's steps: see mon.h. */
#include "mon/mon.h"

#include "lib/log.h"
#include "lib/string.h"
#include "vm/console.h"

/* Keys and lines of output that one poll may cost the VM on this CPU. */
#define STEPS_AT_ONCE 32
/* Ctrl-C works at once: no more than this waits for the line. */
#define UNSENT_MAX 2048

static struct {
	struct spinlock lock;
	struct job job;
	char line[MON_LINE];
} mon;

void mon_print(const char *fmt, ...)
{
	char text[400], out[500];
	size_t n = 0;
	va_list ap;

	va_start(ap, fmt);
	str_vprint(text, sizeof(text), fmt, ap);
	va_end(ap);
	for (const char *s = text; *s && n < sizeof(out) - 2; s++) {
		if (*s == '\n')
			out[n++] = '\r';
		out[n++] = *s;
	}
	out[n] = 0;
	console_print(out);
}

struct vm *job_vm(const struct job *job)
{
	struct vm *vm = vms[job->vm];

	if (__atomic_load_n(&vm->state, __ATOMIC_ACQUIRE) == VM_RUNNING)
		return vm;
	mon_print("the VM does not run\n");
	return NULL;
}

struct vcpu *job_vcpu(const struct job *job)
{
	struct vm *vm = job_vm(job);

	if (!vm)
		return NULL;
	if (job->vcpu < vm->vcpu_count)
		return vm->vcpu[job->vcpu];
	mon_print("vCPUs of %s are 0 to %u\n", vm->config->name, vm->vcpu_count - 1);
	return NULL;
}

static void job_ends(void)
{
	mon.job.step = NULL;
	edit_prompt();
}

/* False: nothing to do before the next poll. */
static bool job_step(void)
{
	enum step result;

	if (console_monitor_break()) {
		console_monitor_get();
		mon_print("^C\n");
		job_ends();
		return true;
	}
	if (!vms_hold())
		return false;
	result = mon.job.step(&mon.job);
	vms_release();
	if (result == STEP_DONE)
		job_ends();
	return result != STEP_WAIT;
}

static bool key_step(void)
{
	int byte = console_monitor_get();

	if (byte < 0)
		return false;
	if (edit_key((u8)byte, mon.line)) {
		mon.job = (struct job){0};
		command_run(mon.line, &mon.job);
		if (!mon.job.step)
			edit_prompt();
	}
	return true;
}

void monitor_poll(void)
{
	/* One CPU at a time; others have guests to run. */
	if (!spin_trylock(&mon.lock))
		return;
	for (u32 i = 0; i < STEPS_AT_ONCE && console_unsent() <= UNSENT_MAX; i++)
		if (mon.job.step ? !job_step() : !key_step())
			break;
	spin_unlock(&mon.lock);
}
