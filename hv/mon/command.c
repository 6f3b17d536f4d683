/* The monitor's commands: their names, and how their arguments are read. */
#include "lib/string.h"
#include "mon/mon.h"

struct command {
	const char *name, *arguments, *help;
	bool (*run)(const struct words *w, struct job *job);
	bool takes_vm; /* as its first argument */
};

static bool show_help(const struct words *w, struct job *job);

static const struct command commands[] = {
	{"help", "", "these commands", show_help, false},
	{"vms", "", "the VMs, and how they are", show_vms, false},
	{"vm", "VM", "make it the one that commands are about", act_vm, true},
	{"vcpus", "[VM]", "its vCPUs", show_vcpus, true},
	{"stats", "[VM]", "its exits by reason, and other counters", show_stats, true},
	{"remote", "[VM]", "its memory on memory nodes", show_remote, true},
	{"network", "", "the network card, and links to memory nodes", show_network, false},
	{"regs", "[VM [VCPU]]", "registers", look_regs, true},
	{"mem", "GPA [BYTES]", "guest-physical memory", look_mem, false},
	{"walk", "GVA [VCPU]", "how the guest translates a linear address", look_walk, false},
	{"ept", "GPA", "how a guest-physical address is mapped", look_ept, false},
	{"log", "[LINES]", "the end of Umbra's log", show_log, false},
	{"trace", "[VM] [on | off | N]", "record exits; show the last N of each vCPU", show_trace,
	 true},
	{"pause", "[VM]", "stop it, and its time", act_pause, true},
	{"resume", "[VM]", "let it go on", act_resume, true},
	{"restart", "VM", "start it from its image, as after a reset", act_restart, true},
	{"kill", "VM", "end it", act_kill, true},
	{"nmi", "[VM [VCPU]]", "send a non-maskable interrupt", act_nmi, true},
	{"pmem", "[VM [mode M [N] | cut [TICKS [SEED]]]]", "its persistent memory", act_pmem, true},
	{"power", "[VM]", "press its power button (ACPI)", act_power, true},
	{"outage", "", "power is about to fail: save, and end", act_outage, false},
	{"focus", "VM | all | monitor", "what the terminal shows", act_focus, true},
	{"quit", "", "back to what the terminal showed before", act_quit, false},
};

static u32 current;

u32 command_vm(void)
{
	return current;
}

void set_command_vm(u32 vm)
{
	current = vm;
}

static bool starts_with(const char *text, const char *start, size_t len)
{
	return strlen(text) >= len && !memcmp(text, start, len);
}

static const struct command *find(const char *name, size_t len)
{
	for (u32 i = 0; i < ARRAY_SIZE(commands); i++)
		if (strlen(commands[i].name) == len && starts_with(name, commands[i].name, len))
			return &commands[i];
	return NULL;
}

static enum step help_step(struct job *job)
{
	const struct command *c = &commands[job->at];

	mon_print("%-8s%-20s %s\n", c->name, c->arguments, c->help);
	if (++job->at < ARRAY_SIZE(commands))
		return STEP_MORE;
	mon_print("VM is a name or a number of `vms`; without one it is that of the prompt.\n"
		  "GPA and GVA are hexadecimal. Ctrl-C stops a long answer; Ctrl-A h: keys.\n");
	return STEP_DONE;
}

static bool show_help(const struct words *w, struct job *job)
{
	job->step = help_step;
	return true;
}

bool parse_number(const char *text, bool hex, u64 *out)
{
	u64 value = 0, base = hex ? 16 : 10;

	if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
		base = 16;
		text += 2;
	}
	if (!*text)
		return false;
	for (; *text; text++) {
		u8 lower = (u8)*text | 0x20;
		u64 digit = *text >= '0' && *text <= '9'   ? (u64)(*text - '0')
			    : lower >= 'a' && lower <= 'f' ? (u64)(lower - 'a') + 10
							   : 16;

		if (digit >= base || value > (~0ull - digit) / base)
			return false;
		value = value * base + digit;
	}
	*out = value;
	return true;
}

static const char *vm_name(u32 id)
{
	return vm_config(id)->name;
}

bool parse_vm(const char *text, u32 *out)
{
	u64 number;

	for (u32 i = 0; i < vm_count; i++) {
		if (!strcmp(vm_name(i), text)) {
			*out = i;
			return true;
		}
	}
	if (parse_number(text, false, &number) && number >= 1 && number <= vm_count) {
		*out = (u32)number - 1;
		return true;
	}
	mon_print("there is no VM %s; `vms` lists them\n", text);
	return false;
}

bool word_vm(const struct words *w, u32 at, u32 *out)
{
	*out = current;
	return at >= w->count || parse_vm(w->word[at], out);
}

/* Cuts the line at blanks, in place. False: too many words. */
static bool split(char *line, struct words *w)
{
	w->count = 0;
	for (;;) {
		while (*line == ' ')
			*line++ = 0;
		if (!*line)
			return true;
		if (w->count == MON_WORDS)
			return false;
		w->word[w->count++] = line;
		while (*line && *line != ' ')
			line++;
	}
}

void command_run(char *line, struct job *job)
{
	const struct command *command;
	struct words w;

	if (!split(line, &w)) {
		mon_print("too many words\n");
		return;
	}
	if (!w.count)
		return;
	command = find(w.word[0], strlen(w.word[0]));
	if (!command) {
		mon_print("unknown command %s; try help\n", w.word[0]);
		return;
	}
	for (u32 i = 1; i < w.count; i++)
		w.word[i - 1] = w.word[i];
	w.count--;
	if (!command->run(&w, job)) {
		mon_print("usage: %s %s\n", command->name, command->arguments);
		job->step = NULL;
	}
}

const char *command_complete(const char *line, u32 n)
{
	const struct command *command;
	const char *last;
	size_t len;

	while (*line == ' ')
		line++;
	for (len = 0; line[len] && line[len] != ' '; len++)
		;
	if (!line[len]) {
		for (u32 i = 0; i < ARRAY_SIZE(commands); i++)
			if (starts_with(commands[i].name, line, len) && !n--)
				return commands[i].name;
		return NULL;
	}
	command = find(line, len);
	for (last = line + len; *last == ' '; last++)
		;
	/* The first argument, of a command that wants a VM there. */
	for (len = 0; last[len]; len++)
		if (last[len] == ' ')
			return NULL;
	if (!command || !command->takes_vm)
		return NULL;
	for (u32 i = 0; i < vm_count; i++)
		if (starts_with(vm_name(i), last, len) && !n--)
			return vm_name(i);
	return NULL;
}
