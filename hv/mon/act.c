/* Commands that do something to a VM. */
#include "lib/string.h"
#include "mon/mon.h"
#include "pmem/pmem.h"
#include "vm/console.h"
#include "vm/control.h"
#include "vm/platform.h"

bool act_vm(const struct words *w, struct job *job)
{
	u32 id;

	if (w->count != 1)
		return false;
	if (word_vm(w, 0, &id))
		set_command_vm(id);
	return true;
}

/* Commands with nothing but a VM. */
static bool one_vm(const struct words *w, struct job *job, u32 least, step_fn step)
{
	if (w->count < least || w->count > 1)
		return false;
	if (word_vm(w, 0, &job->vm))
		job->step = step;
	return true;
}

static enum step pause_step(struct job *job)
{
	struct vm *vm = job_vm(job);

	if (vm && vm_paused(vm))
		mon_print("%s is paused already\n", vm->config->name);
	else if (vm)
		vm_pause(vm);
	return STEP_DONE;
}

bool act_pause(const struct words *w, struct job *job)
{
	return one_vm(w, job, 0, pause_step);
}

static enum step resume_step(struct job *job)
{
	struct vm *vm = job_vm(job);

	if (vm && !vm_paused(vm))
		mon_print("%s is not paused\n", vm->config->name);
	else if (vm)
		vm_resume(vm);
	return STEP_DONE;
}

bool act_resume(const struct words *w, struct job *job)
{
	return one_vm(w, job, 0, resume_step);
}

static enum step kill_step(struct job *job)
{
	struct vm *vm = job_vm(job);

	if (vm)
		vm_end(vm, VM_STATUS_KILLED, "killed from the monitor");
	return STEP_DONE;
}

bool act_kill(const struct words *w, struct job *job)
{
	return one_vm(w, job, 1, kill_step);
}

static enum step restart_step(struct job *job)
{
	struct vm *vm = vms[job->vm];

	if (vm->state == VM_RUNNING)
		vm_restart(vm, "restarted from the monitor");
	else if (!vm_start_again(vm))
		mon_print("it cannot be started now; `log` may say why\n");
	return STEP_DONE;
}

bool act_restart(const struct words *w, struct job *job)
{
	return one_vm(w, job, 1, restart_step);
}

static enum step nmi_step(struct job *job)
{
	struct vcpu *vcpu = job_vcpu(job);

	if (vcpu)
		vcpu_post_nmi(vcpu);
	return STEP_DONE;
}

bool act_nmi(const struct words *w, struct job *job)
{
	u64 vcpu = 0;

	if (w->count > 2 || (w->count == 2 && !parse_number(w->word[1], false, &vcpu)))
		return false;
	job->vcpu = (u32)MIN(vcpu, (u64)BOOT_MAX_VCPUS);
	if (word_vm(w, 0, &job->vm))
		job->step = nmi_step;
	return true;
}

static enum step power_step(struct job *job)
{
	struct vm *vm = job_vm(job);

	/* Its devices have no time now. */
	if (vm && vm_paused(vm))
		mon_print("%s is paused: resume it first\n", vm->config->name);
	else if (vm)
		platform_power_button(vm);
	return STEP_DONE;
}

bool act_power(const struct words *w, struct job *job)
{
	return one_vm(w, job, 0, power_step);
}

bool act_outage(const struct words *w, struct job *job)
{
	if (w->count)
		return false;
	/* Not a step: the VMs must not be held. */
	pmem_power_fails();
	vm_shut_down("power failure");
	return true;
}

bool act_focus(const struct words *w, struct job *job)
{
	u32 id;

	if (w->count != 1)
		return false;
	if (!strcmp(w->word[0], "all"))
		console_set_focus(BOOT_FOCUS_ALL);
	else if (!strcmp(w->word[0], "monitor"))
		console_set_focus(BOOT_FOCUS_MONITOR);
	else if (parse_vm(w->word[0], &id))
		console_set_focus(BOOT_FOCUS_VM + id);
	return true;
}

bool act_quit(const struct words *w, struct job *job)
{
	if (w->count)
		return false;
	console_set_focus(console_previous());
	return true;
}
