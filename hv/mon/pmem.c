/* The monitor's command about persistent memory. */
#include "lib/string.h"
#include "mon/mon.h"
#include "pmem/backing.h"
#include "pmem/pmem.h"

static const char *const modes[] = {"none", "direct", "trap"};
static const char *const kinds[] = {"", "of the host", "lent RAM", "modelled"};

static struct vm_pmem *pmem_of(const struct job *job)
{
	struct vm *vm = job_vm(job);

	if (vm && !vm->pmem)
		mon_print("%s has no persistent memory\n", vm->config->name);
	return vm ? vm->pmem : NULL;
}

static void show_hints(const struct pmem_region *r)
{
	const struct medium *m = &r->medium;

	mon_print("   stores to its hints %llu, mode %s; flushes of %u controller%s:",
		  (unsigned long long)__atomic_load_n(&r->writes, __ATOMIC_RELAXED),
		  modes[__atomic_load_n(&r->mode, __ATOMIC_RELAXED)], m->controllers,
		  m->controllers == 1 ? "" : "s");
	for (u32 c = 0; c < m->controllers; c++)
		mon_print("%s%llu", c % 4 ? " " : "\n     ",
			  (unsigned long long)__atomic_load_n(&m->flushes[c], __ATOMIC_RELAXED));
	mon_print("\n");
}

static void show_model(const struct pmem_region *r)
{
	const struct medium *m = &r->medium;

	mon_print("   pages written since the last flush: %llu\n",
		  (unsigned long long)(marks_total(&r->opened) + marks_total(&m->written)));
	mon_print("   lines flushed %llu, drained %llu, lost %llu\n",
		  (unsigned long long)m->lines_flushed, (unsigned long long)m->lines_drained,
		  (unsigned long long)m->lines_lost);
}

static void show_backing(const struct backing *b)
{
	static const char *const outcomes[] = {
		[SAVE_NEW] = "nothing had been saved",
		[SAVE_GOOD] = "good",
		[SAVE_UNSAVED] = "not saved since an earlier start",
		[SAVE_OLDER] = "the last was damaged, the one before good",
		[SAVE_DAMAGED] = "damaged",
	};
	u32 outcome = __atomic_load_n(&b->outcome, __ATOMIC_RELAXED);

	mon_print("   dirty pages %llu of %llu, most %llu\n",
		  (unsigned long long)__atomic_load_n(&b->dirty, __ATOMIC_RELAXED),
		  (unsigned long long)b->budget, (unsigned long long)b->most);
	mon_print("   last save: %llu pages, %llu sectors; %s\n", (unsigned long long)b->last_pages,
		  (unsigned long long)b->last_sectors,
		  outcome < ARRAY_SIZE(outcomes) ? outcomes[outcome] : "?");
}

static enum step regions_step(struct job *job)
{
	const struct vm_pmem *p = pmem_of(job);
	const struct pmem_region *r;

	if (!p)
		return STEP_DONE;
	if (job->at >= p->count) {
		if (p->cuts)
			mon_print("power has failed %u times\n", p->cuts);
		return STEP_DONE;
	}
	r = &p->region[job->at];
	mon_print("%llu: %llu MiB at %#llx, %s%s%s\n", (unsigned long long)job->at,
		  (unsigned long long)(r->medium.bytes / MIB), (unsigned long long)r->base.v,
		  kinds[r->medium.kind], r->backing ? " that is saved" : "",
		  r->hints.v ? "" : ", volatile");
	if (r->hints.v)
		show_hints(r);
	if (r->medium.kind == MEDIUM_MODEL)
		show_model(r);
	if (r->backing)
		show_backing(r->backing);
	job->at++;
	return STEP_MORE;
}

static enum step mode_step(struct job *job)
{
	const struct vm_pmem *p = pmem_of(job);

	if (!p)
		return STEP_DONE;
	if (job->at >= p->count)
		mon_print("there is no region %llu\n", (unsigned long long)job->at);
	else if (pmem_set_mode(job_vm(job), (u32)job->at, job->phase))
		mon_print("its medium does not allow that\n");
	return STEP_DONE;
}

static enum step cut_step(struct job *job)
{
	int err;

	if (!pmem_of(job))
		return STEP_DONE;
	err = job->at ? pmem_cut_within(job_vm(job), job->at, job->left) : pmem_cut(job_vm(job));
	if (err)
		mon_print("power fails for modelled NVDIMMs only\n");
	return STEP_DONE;
}

static bool parse_mode(const char *text, u32 *out)
{
	for (*out = 0; *out < ARRAY_SIZE(modes); ++*out)
		if (!strcmp(text, modes[*out]))
			return true;
	return false;
}

bool act_pmem(const struct words *w, struct job *job)
{
	if (w->count >= 3 && !strcmp(w->word[1], "mode")) {
		if (w->count > 4 || !parse_mode(w->word[2], &job->phase) ||
		    (w->count == 4 && !parse_number(w->word[3], false, &job->at)))
			return false;
		job->step = mode_step;
	} else if (w->count >= 2 && !strcmp(w->word[1], "cut")) {
		if (w->count > 4 ||
		    (w->count >= 3 && (!parse_number(w->word[2], false, &job->at) || !job->at)) ||
		    (w->count == 4 && !parse_number(w->word[3], false, &job->left)))
			return false;
		job->step = cut_step;
	} else if (w->count > 1) {
		return false;
	} else {
		job->step = regions_step;
	}
	if (!word_vm(w, 0, &job->vm))
		job->step = NULL;
	return true;
}
