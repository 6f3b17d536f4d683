/* A VM's report to the log: see report.h and docs/report-format.md. */
#include "vm/report.h"

#include "lib/crc32.h"
#include "lib/log.h"
#include "lib/spinlock.h"
#include "lib/string.h"
#include "vm/profile.h"
#include "vm/stats.h"
#include "vm/vm.h"
#include "vmx/entry_check.h"
#include "x86/asm.h"
#include "x86/tsc.h"

#define LINE_BYTES 150 /* a list that gets longer goes on in a line of the same kind */
#define HOT_SHOWN  16
#define LAST_SHOWN 48

typedef unsigned long long ull;

/* The line that is being written. */
static struct {
	struct spinlock lock;
	u32 lines;
	u32 len, head; /* head: bytes that a continuation repeats */
	char text[LINE_BYTES + 250];
} out;

static void __format(1, 2) put(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	str_vprint(out.text + out.len, sizeof(out.text) - out.len, fmt, ap);
	va_end(ap);
	out.len += (u32)strlen(out.text + out.len);
}

/* Every line carries a check of its own: a serial line may lose or change a byte. */
static void finish(void)
{
	u32 check = crc32(0, out.text, out.len) & 0xffff;
	char line[sizeof(out.text) + 16];

	str_print(line, sizeof(line), "@R %s *%04x", out.text, check);
	log_data(line);
	out.lines++;
	out.len = 0;
	out.head = 0;
}

/* An item of a list; what stands before the first one is the head. */
static void item(u32 a, u64 b)
{
	if (!out.head)
		out.head = out.len;
	if (out.len > LINE_BYTES) {
		u32 head = out.head;

		finish();
		out.len = out.head = head; /* finish() leaves the text */
	}
	put(" %u:%llu", a, (ull)b);
}

/* --- what a report consists of -------------------------------------------------------------------
 *
 * A section's function writes item number c->item of it, and says whether there was one: MORE, or
 * NONE for one that is left out, or OVER behind the last one. Each line begins with the VM's
 * number.
 */

enum step {
	MORE,
	NONE,
	OVER
};

static enum step write_begin(const struct vm *vm, struct report_cursor *c, const char *why)
{
	if (c->item)
		return OVER;
	put("%u begin version=%u vm=%s run=%u why=%s status=%u vcpus=%u memory=%llu tsc_hz=%llu "
	    "now=%llu",
	    vm->id, REPORT_VERSION, vm->config->name, vm->restarts, why, vm->exit_status,
	    vm->vcpu_count, (ull)vm->config->memory, (ull)tsc_hz, (ull)(rdtsc() - tsc_start));
	finish();
	return MORE;
}

/* Names of the reasons that occur, so that a reader needs no table of its own. */
static enum step write_reason(const struct vm *vm, struct report_cursor *c, const char *why)
{
	u32 r = c->item;
	u64 n = 0;

	if (r >= EXIT_COUNT)
		return OVER;
	for (u32 i = 0; i < vm->vcpu_count; i++)
		n += vm->vcpu[i]->exits[r];
	if (!n)
		return NONE;
	put("%u reason id=%u detail=%s name=%s", vm->id, r, trace_detail_name(r),
	    exit_reason_name(r));
	finish();
	return MORE;
}

/* remote/report.c says it. */
static enum step write_remote(const struct vm *vm, struct report_cursor *c, const char *why)
{
	char text[REPORT_TEXT];

	if (!vm->remote || !remote_report(vm, c->item, text))
		return OVER;
	put("%u %s", vm->id, text);
	finish();
	return MORE;
}

static enum step write_gauge(const struct vm *vm, struct report_cursor *c, const char *why)
{
	const struct profile *p = vm->vcpu[0]->profile;
	u64 any = 0;

	if (!vm->remote || c->item >= MIN(p->samples, PROFILE_SAMPLES))
		return OVER;
	for (u32 i = 0; i < PROFILE_GAUGES; i++)
		any |= p->gauge[c->item][i];
	if (!any)
		return NONE;
	put("%u gauge i=%u", vm->id, c->item);
	for (u32 i = 0; i < PROFILE_GAUGES; i++)
		item(i, p->gauge[c->item][i]);
	finish();
	return MORE;
}

static enum step write_counters(const struct vm *vm, struct report_cursor *c, const char *why)
{
	const struct vcpu *vcpu = vm->vcpu[c->vcpu];
	struct stats s;

	if (c->item)
		return OVER;
	stats_vcpu(vcpu, &s);
	put("%u vcpu n=%u cpu=%u exits=%llu run=%llu halted=%llu root=%llu watched=%llu "
	    "injections=%llu faults=%llu refusals=%llu",
	    vm->id, c->vcpu, vcpu->cpu, (ull)s.total, (ull)s.run_tsc, (ull)s.halted_tsc,
	    (ull)s.root_tsc, (ull)s.watched_tsc, (ull)s.injections, (ull)s.ept_faults,
	    (ull)s.refusals);
	finish();
	put("%u exits n=%u", vm->id, c->vcpu);
	for (u32 r = 0; r < EXIT_COUNT; r++)
		if (s.exits[r])
			item(r, s.exits[r]);
	finish();
	return MORE;
}

static enum step write_time(const struct vm *vm, struct report_cursor *c, const char *why)
{
	const struct profile *p = vm->vcpu[c->vcpu]->profile;

	if (c->item)
		return OVER;
	put("%u time n=%u start=%llu interval=%llu samples=%u", vm->id, c->vcpu,
	    (ull)(p->start - tsc_start), (ull)p->interval, p->samples);
	finish();
	return MORE;
}

static enum step write_sample(const struct vm *vm, struct report_cursor *c, const char *why)
{
	const struct profile *p = vm->vcpu[c->vcpu]->profile;
	u64 any = 0;

	if (c->item >= MIN(p->samples, PROFILE_SAMPLES))
		return OVER;
	for (u32 r = 0; r < EXIT_COUNT; r++)
		any |= p->count[c->item][r];
	if (!any)
		return NONE;
	put("%u sample n=%u i=%u root=%llu", vm->id, c->vcpu, c->item, (ull)p->root[c->item]);
	for (u32 r = 0; r < EXIT_COUNT; r++)
		if (p->count[c->item][r])
			item(r, p->count[c->item][r]);
	finish();
	return MORE;
}

static enum step write_cost(const struct vm *vm, struct report_cursor *c, const char *why)
{
	const struct profile_cost *cost;
	u64 any = 0;

	if (c->item >= EXIT_COUNT)
		return OVER;
	cost = &vm->vcpu[c->vcpu]->profile->cost[c->item];
	for (u32 b = 0; b < PROFILE_HISTOGRAM; b++)
		any |= cost->histogram[b];
	if (!any)
		return NONE;
	put("%u cost n=%u reason=%u sum=%llu max=%llu at=%llx", vm->id, c->vcpu, c->item,
	    (ull)cost->sum, (ull)cost->max, (ull)cost->max_rip);
	for (u32 b = 0; b < PROFILE_HISTOGRAM; b++)
		if (cost->histogram[b])
			item(b, cost->histogram[b]);
	finish();
	return MORE;
}

/* The heaviest that has not been written yet; `done` has a bit for each that has been. */
static const struct topk_entry *next_hot(const struct topk *t, u64 *done)
{
	u32 best = t->used;

	for (u32 i = 0; i < t->used; i++)
		if (!(*done >> i & 1) &&
		    (best == t->used || t->entry[i].weight > t->entry[best].weight))
			best = i;
	if (best == t->used)
		return NULL;
	*done |= BIT64(best);
	return &t->entry[best];
}
_Static_assert(TOPK_ENTRIES <= 64, "a bit each");

static enum step write_hot(const struct vm *vm, struct report_cursor *c, const char *by,
			   const struct topk *t)
{
	const struct topk_entry *e;

	if (!c->item)
		c->done = 0;
	e = c->item < HOT_SHOWN ? next_hot(t, &c->done) : NULL;
	if (!e)
		return OVER;
	put("%u hot n=%u by=%s at=%llx reason=%u weight=%llu error=%llu other=%llu", vm->id,
	    c->vcpu, by, (ull)e->key, e->tag, (ull)e->weight, (ull)e->error, (ull)e->other);
	finish();
	return MORE;
}

static enum step write_by_exits(const struct vm *vm, struct report_cursor *c, const char *why)
{
	return write_hot(vm, c, "exits", &vm->vcpu[c->vcpu]->profile->by_exits);
}

static enum step write_by_ticks(const struct vm *vm, struct report_cursor *c, const char *why)
{
	return write_hot(vm, c, "ticks", &vm->vcpu[c->vcpu]->profile->by_ticks);
}

static enum step write_pages(const struct vm *vm, struct report_cursor *c, const char *why)
{
	return write_hot(vm, c, "page", &vm->vcpu[c->vcpu]->profile->pages);
}

static enum step write_last(const struct vm *vm, struct report_cursor *c, const char *why)
{
	const struct vcpu *vcpu = vm->vcpu[c->vcpu];
	u64 shown = MIN(trace_count(vcpu), (u64)LAST_SHOWN);
	struct trace_entry e;

	if (c->item >= shown)
		return OVER;
	if (!trace_read(vcpu, shown - 1 - c->item, &e))
		return NONE;
	put("%u last n=%u tsc=%llu reason=%u rip=%llx q=%llx detail=%llx cost=%u", vm->id, c->vcpu,
	    (ull)(e.tsc - tsc_start), e.reason, (ull)e.rip, (ull)e.qualification, (ull)e.detail,
	    e.cost);
	finish();
	return MORE;
}

typedef enum step (*section_fn)(const struct vm *vm, struct report_cursor *c, const char *why);

static const section_fn of_vm[] = {write_begin, write_reason, write_remote, write_gauge};
static const section_fn of_vcpu[] = {write_counters, write_time,     write_sample, write_cost,
				     write_by_exits, write_by_ticks, write_pages,  write_last};

/* The function that is due, or NULL at the end. */
static section_fn due(const struct vm *vm, const struct report_cursor *c)
{
	if (c->section < ARRAY_SIZE(of_vm))
		return of_vm[c->section];
	return c->vcpu < vm->vcpu_count ? of_vcpu[c->section - ARRAY_SIZE(of_vm)] : NULL;
}

static void next_section(struct report_cursor *c)
{
	c->item = 0;
	if (++c->section < ARRAY_SIZE(of_vm) + ARRAY_SIZE(of_vcpu))
		return;
	c->section = ARRAY_SIZE(of_vm);
	c->vcpu++;
}

bool report_step(const struct vm *vm, struct report_cursor *c, const char *why)
{
	enum step step = OVER;
	section_fn section;

	if (!vm->vcpu[0] || !vm->vcpu[0]->profile || c->vcpu > vm->vcpu_count)
		return false;
	spin_lock(&out.lock);
	out.lines = out.len = out.head = 0;
	while (step != MORE && (section = due(vm, c))) {
		step = section(vm, c, why);
		if (step == OVER)
			next_section(c);
		else
			c->item++;
	}
	if (!section) {
		put("%u end vm=%s lines=%u", vm->id, vm->config->name, c->lines + 1);
		finish();
		c->vcpu++; /* behind the end */
	}
	c->lines += out.lines;
	spin_unlock(&out.lock);
	return section;
}
