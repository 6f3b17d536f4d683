/* Commands that show what Umbra keeps about VMs: states, counters, trace, log. */
#include "lib/log.h"
#include "lib/string.h"
#include "mon/mon.h"
#include "vm/control.h"
#include "vm/stats.h"
#include "vm/trace.h"
#include "vmx/entry_check.h"
#include "x86/asm.h"
#include "x86/tsc.h"

static unsigned long long ms(u64 ticks)
{
	return mul_div(ticks, 1000, tsc_hz);
}

/* --- vms, vcpus ---------------------------------------------------------------------------------
 */

static const char *vm_state(const struct vm *vm)
{
	switch (__atomic_load_n(&vm->state, __ATOMIC_ACQUIRE)) {
	case VM_RUNNING:
		return vm_paused(vm) ? "paused" : "running";
	case VM_ENDING:
		return vm->restart ? "restarts" : "ends";
	}
	return vm->config ? "ended" : "waits";
}

static enum step vms_step(struct job *job)
{
	const struct vm *vm = vms[job->at];
	const struct boot_vm *config = vm_config((u32)job->at);

	if (!job->at)
		mon_print("  #  %-24s %-8s %5s %10s %8s\n", "name", "state", "vCPUs", "memory",
			  "restarts");
	mon_print("%c %-2llu %-24s %-8s %5u %6llu MiB %8u\n", job->at == command_vm() ? '*' : ' ',
		  (unsigned long long)job->at + 1, config->name, vm_state(vm), config->vcpus,
		  (unsigned long long)(config->memory / MIB), vm->restarts);
	if (vm->config && vm->state == VM_FREE)
		mon_print("     status %u: %s\n", vm->exit_status, vm->reason);
	return ++job->at < vm_count ? STEP_MORE : STEP_DONE;
}

bool show_vms(const struct words *w, struct job *job)
{
	if (w->count)
		return false;
	job->step = vms_step;
	return true;
}

static const char *vcpu_state(const struct vcpu *vcpu)
{
	if (vm_paused(vcpu->vm))
		return "paused";
	switch (vcpu->state) {
	case VCPU_RUNNABLE:
		return "runs";
	case VCPU_HALTED:
		return "halted";
	case VCPU_WAIT_SIPI:
		return "not started";
	case VCPU_WAITING:
		return "waits (page)";
	}
	return "stopped";
}

static enum step vcpus_step(struct job *job)
{
	struct vcpu *vcpu;
	struct stats s;

	job->vcpu = (u32)job->at;
	vcpu = job_vcpu(job);
	if (!vcpu)
		return STEP_DONE;
	if (!job->at)
		mon_print("vCPU  CPU  %-11s %12s %14s %12s\n", "state", "time in ms", "exits",
			  "injections");
	stats_vcpu(vcpu, &s);
	mon_print("%4u %4u  %-11s %12llu %14llu %12llu\n", vcpu->index, vcpu->cpu, vcpu_state(vcpu),
		  ms(s.run_tsc), (unsigned long long)s.total, (unsigned long long)s.injections);
	return ++job->at < vcpu->vm->vcpu_count ? STEP_MORE : STEP_DONE;
}

bool show_vcpus(const struct words *w, struct job *job)
{
	if (w->count > 1)
		return false;
	if (word_vm(w, 0, &job->vm))
		job->step = vcpus_step;
	return true;
}

/* --- stats --------------------------------------------------------------------------------------
 */

static struct stats stats; /* of the job at work */

static enum step stats_start(struct job *job)
{
	struct vm *vm = job_vm(job);

	if (!vm)
		return STEP_DONE;
	stats_vm(vm, &stats);
	mon_print("%s: %llu exits\n", vm->config->name, (unsigned long long)stats.total);
	job->phase = 1;
	return STEP_MORE;
}

static enum step stats_end(void)
{
	mon_print("%llu injections, %llu EPT violations, %llu refusals\n",
		  (unsigned long long)stats.injections, (unsigned long long)stats.ept_faults,
		  (unsigned long long)stats.refusals);
	mon_print("%llu ms on a CPU, %llu ms halted", ms(stats.run_tsc), ms(stats.halted_tsc));
	if (stats.watched_tsc)
		mon_print(", %llu of %llu watched us in Umbra",
			  (unsigned long long)mul_div(stats.root_tsc, 1000000, tsc_hz),
			  (unsigned long long)mul_div(stats.watched_tsc, 1000000, tsc_hz));
	mon_print("\n");
	return STEP_DONE;
}

/* A reason at a time, the most frequent first. */
static enum step stats_step(struct job *job)
{
	u32 most = 0;
	u64 count;

	if (!job->phase)
		return stats_start(job);
	for (u32 i = 1; i < EXIT_COUNT; i++)
		if (stats.exits[i] > stats.exits[most])
			most = i;
	count = stats.exits[most];
	if (!count)
		return stats_end();
	mon_print("%14llu %3llu%%  %s\n", (unsigned long long)count,
		  (unsigned long long)mul_div(count, 100, MAX(stats.total, count)),
		  exit_reason_name(most));
	stats.exits[most] = 0;
	return STEP_MORE;
}

bool show_stats(const struct words *w, struct job *job)
{
	if (w->count > 1)
		return false;
	if (word_vm(w, 0, &job->vm))
		job->step = stats_step;
	return true;
}

/* --- trace --------------------------------------------------------------------------------------
 */

#define TRACE_SHOWN 16

static void show_entry(const struct trace_entry *e)
{
	const char *name = trace_detail_name(e->reason);
	char detail[32] = "";

	if (*name)
		str_print(detail, sizeof(detail), "%s %llx", name, (unsigned long long)e->detail);
	mon_print("%12llu %016llx %7u  %-18.18s %.22s\n",
		  (unsigned long long)mul_div(e->tsc - tsc_start, 1000000, tsc_hz),
		  (unsigned long long)e->rip, e->cost, detail, exit_reason_name(e->reason));
}

static enum step trace_step(struct job *job)
{
	struct vcpu *vcpu = job_vcpu(job);
	struct trace_entry entry;

	if (!vcpu)
		return STEP_DONE;
	if (job->phase == 0) {
		job->phase = 1;
		job->at = MIN(job->left, trace_count(vcpu));
		mon_print("%s vCPU %u: %llu recorded, newest last%s\n", vcpu->vm->config->name,
			  vcpu->index, (unsigned long long)trace_count(vcpu),
			  trace_is_on(vcpu->vm) ? "" : "; `trace on` records");
		if (job->at)
			mon_print("%12s %16s %7s  %-18s %s\n", "us", "RIP", "ticks", "what",
				  "exit");
	} else if (job->at) {
		/* Newer ones may have come: then this is a later part. */
		if (trace_read(vcpu, --job->at, &entry))
			show_entry(&entry);
	} else {
		job->phase = 0;
		return ++job->vcpu < vcpu->vm->vcpu_count ? STEP_MORE : STEP_DONE;
	}
	return STEP_MORE;
}

static enum step trace_switch_step(struct job *job)
{
	struct vm *vm = job_vm(job);

	if (vm && trace_set(vm, job->at))
		mon_print("there is not enough memory to record exits\n");
	return STEP_DONE;
}

bool show_trace(const struct words *w, struct job *job)
{
	const char *what = w->count ? w->word[w->count - 1] : "";
	bool on = !strcmp(what, "on"), off = !strcmp(what, "off");
	u32 named = w->count && (on || off) ? w->count - 1 : MIN(w->count, 1u);

	if (w->count > 2 || named > 1)
		return false;
	job->left = TRACE_SHOWN;
	if (w->count == 2 && !on && !off && !parse_number(what, false, &job->left))
		return false;
	job->at = on;
	job->vm = command_vm();
	if (named && !parse_vm(w->word[0], &job->vm))
		return true;
	job->step = on || off ? trace_switch_step : trace_step;
	return true;
}

/* --- log ----------------------------------------------------------------------------------------
 */

#define LOG_SHOWN 20
#define COLUMNS	  79
static char log_text[16 * 1024];

/* The log's end is copied once; the lines that come meanwhile are not shown. */
static enum step log_start(struct job *job)
{
	size_t len = log_ring_tail(log_text, sizeof(log_text) - 1), at = len;

	log_text[len] = 0;
	for (u64 lines = 0; at; at--)
		if (log_text[at - 1] == '\n' && lines++ == job->left)
			break;
	/* The first line may be cut off. */
	if (!at && len == sizeof(log_text) - 1)
		while (log_text[at] && log_text[at++] != '\n')
			;
	job->at = at;
	job->phase = 1;
	return STEP_MORE;
}

/* A piece of a line that fits the terminal, indented if it is not the first. */
static enum step log_step(struct job *job)
{
	const char *line = log_text + job->at;
	u32 len = 0, width = job->phase == 2 ? COLUMNS - 4 : COLUMNS;

	if (!job->phase)
		return log_start(job);
	if (!*line)
		return STEP_DONE;
	while (len < width && line[len] && line[len] != '\n')
		len++;
	mon_print("%s%.*s\n", job->phase == 2 ? "    " : "", (int)len, line);
	job->phase = line[len] && line[len] != '\n' ? 2 : 1;
	job->at += len + (line[len] == '\n');
	return STEP_MORE;
}

bool show_log(const struct words *w, struct job *job)
{
	job->left = LOG_SHOWN;
	if (w->count > 1 || (w->count && !parse_number(w->word[0], false, &job->left)))
		return false;
	job->step = log_step;
	return true;
}
