/*
 * The monitor: a command line on the console's terminal, for people. hv/vm/console.h gives it its
 * bytes and calls monitor_poll(), on whatever CPU looks at the console, in root mode: everything is
 * cut into short steps, and nothing waits.
 *
 * mon.c: the steps; edit.c: the line editor; command.c: the table of commands and their arguments;
 * show.c, look.c, act.c, pmem.c, remote.c, network.c: what they do.
 */
#pragma once

#include <umbra/boot_info.h>

#include "lib/types.h"
#include "vm/vm.h"

#define MON_LINE  128 /* bytes of a command, with its NUL */
#define MON_WORDS 6

/* --- mon.c ------------------------------------------------------------------------------------ */

/* A command at work. Steps run one at a time, while the VMs are held (vms_hold()). */
struct job;
enum step {
	STEP_DONE,
	STEP_MORE, /* call again, soon */
	STEP_WAIT, /* call again when somebody else has had time to do something */
};
typedef enum step (*step_fn)(struct job *job);

struct job {
	step_fn step;
	/* Numbers rather than pointers: between steps a VM may come and go. */
	u32 vm, vcpu;
	u64 at;	      /* an address, or an index that counts up */
	u64 left;     /* how much is still to be shown */
	u32 phase;    /* of the command's own; starts at 0 */
	u64 deadline; /* host TSC at which to stop waiting */
};

/* Text with \n for a new line; at most 400 bytes at once, 1 KiB a step. */
void mon_print(const char *fmt, ...) __format(1, 2);

/* The VM of a job, NULL (and said so) if it does not run; one of its vCPUs. */
struct vm *job_vm(const struct job *job);
struct vcpu *job_vcpu(const struct job *job);

/* --- edit.c ------------------------------------------------------------------------------------
 */

/* A byte of input. True: `line` is complete, and on the terminal too. */
bool edit_key(u8 key, char line[MON_LINE]);
/* Shows prompt and line afresh. */
void edit_prompt(void);

/* --- command.c ---------------------------------------------------------------------------------
 */

/* Runs a command line, or prepares the job that does (job->step). */
void command_run(char *line, struct job *job);
/* The n-th word (command or VM name, where one of those is expected) that begins with the last word
 * of the line, or NULL. */
const char *command_complete(const char *line, u32 n);
/* The VM that commands are about unless they name another. */
u32 command_vm(void);

/* Arguments after the command. */
struct words {
	u32 count;
	char *word[MON_WORDS];
};

/* --- what commands do: each checks its words; false: they are wrong, show how it is used --------
 */

bool show_vms(const struct words *w, struct job *job);
bool show_vcpus(const struct words *w, struct job *job);
bool show_stats(const struct words *w, struct job *job);
bool show_log(const struct words *w, struct job *job);
bool show_trace(const struct words *w, struct job *job);
bool show_remote(const struct words *w, struct job *job);  /* remote.c */
bool show_network(const struct words *w, struct job *job); /* network.c */

bool look_regs(const struct words *w, struct job *job);
bool look_mem(const struct words *w, struct job *job);
bool look_walk(const struct words *w, struct job *job);
bool look_ept(const struct words *w, struct job *job);

bool act_vm(const struct words *w, struct job *job);
bool act_pause(const struct words *w, struct job *job);
bool act_resume(const struct words *w, struct job *job);
bool act_kill(const struct words *w, struct job *job);
bool act_restart(const struct words *w, struct job *job);
bool act_pmem(const struct words *w, struct job *job);
bool act_nmi(const struct words *w, struct job *job);
bool act_power(const struct words *w, struct job *job);
bool act_outage(const struct words *w, struct job *job);
bool act_focus(const struct words *w, struct job *job);
bool act_quit(const struct words *w, struct job *job);

/* --- arguments ---------------------------------------------------------------------------------
 */

/* Decimal, or hexadecimal with 0x (with `hex`: always, 0x or not). */
bool parse_number(const char *text, bool hex, u64 *out);
/* A VM by name, or by number from 1. False, and said so: there is none. */
bool parse_vm(const char *text, u32 *out);
/* Word `at`, if it is there, as a VM, else the current one. False, and said so: no such VM. */
bool word_vm(const struct words *w, u32 at, u32 *out);
/* Makes it the current one. */
void set_command_vm(u32 vm);
