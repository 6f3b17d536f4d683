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

#define LINE_BYTES 400 /* a list that gets longer goes on in a line of the same kind */
#define HOT_SHOWN  16
#define LAST_SHOWN 48

typedef unsigned long long ull;

/* The line that is being written. */
static struct {
	struct spinlock lock;
	u32 lines;
	u32 len, head; /* head: bytes that a continuation repeats */
	char text[LINE_BYTES + 80];
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

/* One item of a list; what stands before the first is the head. */
static void __format(1, 2) item(const char *fmt, ...)
{
	va_list ap;

	if (!out.head)
		out.head = out.len;
	if (out.len > LINE_BYTES) {
		u32 head = out.head;

		finish();
		out.len = out.head = head; /* finish() leaves the text */
	}
	va_start(ap, fmt);
	str_vprint(out.text + out.len, sizeof(out.text) - out.len, fmt, ap);
	va_end(ap);
	out.len += (u32)strlen(out.text + out.len);
}

static void write_counters(const struct vcpu *vcpu)
{
	struct stats s;

	stats_vcpu(vcpu, &s);
	put("vcpu n=%u cpu=%u exits=%llu run=%llu halted=%llu root=%llu watched=%llu "
	    "injections=%llu faults=%llu refusals=%llu",
	    vcpu->index, vcpu->cpu, (ull)s.total, (ull)s.run_tsc, (ull)s.halted_tsc,
	    (ull)s.root_tsc, (ull)s.watched_tsc, (ull)s.injections, (ull)s.ept_faults,
	    (ull)s.refusals);
	finish();
	put("exits n=%u", vcpu->index);
	for (u32 r = 0; r < EXIT_COUNT; r++)
		if (s.exits[r])
			item(" %u:%llu", r, (ull)s.exits[r]);
	finish();
}

static void write_samples(const struct vcpu *vcpu)
{
	const struct profile *p = vcpu->profile;

	put("time n=%u start=%llu interval=%llu samples=%u", vcpu->index,
	    (ull)(p->start - tsc_start), (ull)p->interval, p->samples);
	finish();
	for (u32 i = 0; i < p->samples; i++) {
		bool any = false;

		put("sample n=%u i=%u root=%llu", vcpu->index, i, (ull)p->root[i]);
		for (u32 r = 0; r < EXIT_COUNT; r++) {
			if (p->count[i][r]) {
				item(" %u:%llu", r, (ull)p->count[i][r]);
				any = true;
			}
		}
		if (any)
			finish();
		else
			out.len = 0;
	}
}

static void write_costs(const struct vcpu *vcpu)
{
	for (u32 r = 0; r < EXIT_COUNT; r++) {
		const struct profile_cost *c = &vcpu->profile->cost[r];
		u64 n = 0;

		for (u32 b = 0; b < PROFILE_HISTOGRAM; b++)
			n += c->histogram[b];
		if (!n)
			continue;
		put("cost n=%u reason=%u sum=%llu max=%llu at=%llx", vcpu->index, r, (ull)c->sum,
		    (ull)c->max, (ull)c->max_rip);
		for (u32 b = 0; b < PROFILE_HISTOGRAM; b++)
			if (c->histogram[b])
				item(" %u:%llu", b, (ull)c->histogram[b]);
		finish();
	}
}

/* The heaviest that has not been written yet; `done` marks those that have been. */
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

static void write_hot(const struct vcpu *vcpu, const char *by, const struct topk *t)
{
	const struct topk_entry *e;
	u64 done = 0;

	for (u32 i = 0; i < HOT_SHOWN && (e = next_hot(t, &done)); i++) {
		put("hot n=%u by=%s at=%llx reason=%u weight=%llu error=%llu other=%llu",
		    vcpu->index, by, (ull)e->key, e->tag, (ull)e->weight, (ull)e->error,
		    (ull)e->other);
		finish();
	}
}

static void write_last(const struct vcpu *vcpu)
{
	struct trace_entry e;

	for (u64 i = MIN(trace_count(vcpu), (u64)LAST_SHOWN); i-- > 0;) {
		if (!trace_read(vcpu, i, &e))
			continue;
		put("last n=%u tsc=%llu reason=%u rip=%llx q=%llx detail=%llx cost=%u", vcpu->index,
		    (ull)(e.tsc - tsc_start), e.reason, (ull)e.rip, (ull)e.qualification,
		    (ull)e.detail, e.cost);
		finish();
	}
}

/* Names of the reasons that occur, so that a reader needs no table of its own. */
static void write_reasons(const struct vm *vm)
{
	struct stats s;

	stats_vm(vm, &s);
	for (u32 r = 0; r < EXIT_COUNT; r++) {
		if (!s.exits[r])
			continue;
		put("reason id=%u detail=%s name=%s", r, trace_detail_name(r), exit_reason_name(r));
		finish();
	}
}

void report_write(const struct vm *vm, const char *why)
{
	if (!vm->vcpu[0] || !vm->vcpu[0]->profile)
		return;
	spin_lock(&out.lock);
	out.lines = out.len = out.head = 0;
	put("begin version=%u vm=%s run=%u why=%s status=%u vcpus=%u memory=%llu tsc_hz=%llu "
	    "now=%llu",
	    REPORT_VERSION, vm->config->name, vm->restarts, why, vm->exit_status, vm->vcpu_count,
	    (ull)vm->config->memory, (ull)tsc_hz, (ull)(rdtsc() - tsc_start));
	finish();
	write_reasons(vm);
	for (u32 i = 0; i < vm->vcpu_count; i++) {
		const struct vcpu *vcpu = vm->vcpu[i];

		write_counters(vcpu);
		write_samples(vcpu);
		write_costs(vcpu);
		write_hot(vcpu, "exits", &vcpu->profile->by_exits);
		write_hot(vcpu, "ticks", &vcpu->profile->by_ticks);
		write_hot(vcpu, "page", &vcpu->profile->pages);
		write_last(vcpu);
	}
	put("end vm=%s lines=%u", vm->config->name, out.lines + 1);
	finish();
	spin_unlock(&out.lock);
}
