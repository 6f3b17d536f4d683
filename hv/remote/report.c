/* What the report of a VM says about its remote memory: vm/report.h, docs/report-format.md. */
#include "vm/report.h"

#include "lib/log.h"
#include "lib/string.h"
#include "remote/internal.h"
#include "vm/profile.h"

typedef unsigned long long ull;

enum line {
	LINE_REMOTE,
	LINE_PAGING,
	LINE_STORE,
	LINE_LATENCY, /* two of them: a line is bounded */
	LINE_LATENCY_2,
	LINE_NODE, /* one for each */
};

static void put(char text[REPORT_TEXT], const char *fmt, ...)
{
	size_t len = strlen(text);
	va_list ap;

	va_start(ap, fmt);
	str_vprint(text + len, REPORT_TEXT - len, fmt, ap);
	va_end(ap);
}

static void paging(char *text, const struct pager_stats *p)
{
	put(text,
	    "paging faults=%llu minor=%llu zero=%llu waits=%llu overwritten=%llu kept=%llu "
	    "tables=%llu noframe=%llu reads=%llu writes=%llu drops=%llu zeroes=%llu",
	    (ull)p->faults, (ull)p->minor, (ull)p->zero_fills, (ull)p->waits, (ull)p->overwrites,
	    (ull)p->rescues, (ull)p->table_faults, (ull)p->no_frame, (ull)p->reads, (ull)p->writes,
	    (ull)p->drops, (ull)p->zeroes);
}

static void latency(char *text, const struct pager_stats *p, u32 half)
{
	put(text, "latency sum=%llu", (ull)p->latency_sum);
	for (u32 i = half * PAGER_LATENCIES / 2; i < (half + 1) * PAGER_LATENCIES / 2; i++)
		if (p->latency[i])
			put(text, " %u:%llu", i, (ull)p->latency[i]);
}

bool remote_report(const struct vm *vm, u32 item, char text[REPORT_TEXT])
{
	struct remote_view v;

	if (!remote_view(vm, &v) || item >= LINE_NODE + v.nodes)
		return false;
	text[0] = 0;
	if (item == LINE_REMOTE)
		put(text,
		    "remote pages=%llu frames=%llu free=%llu away=%llu nodes=%u up=%u replicas=%u "
		    "sealed=%u stalled=%u",
		    (ull)v.pages, (ull)v.frames, (ull)v.free, (ull)v.away, v.nodes,
		    v.store.nodes_up, v.replicas, v.sealed, v.stalled);
	else if (item == LINE_PAGING)
		paging(text, &v.pager);
	else if (item == LINE_STORE)
		put(text,
		    "store in=%llu out=%llu failovers=%llu corrupt=%llu copied=%llu lacking=%u "
		    "ahead=%llu used=%llu late=%llu wasted=%llu",
		    (ull)v.store.bytes_in, (ull)v.store.bytes_out, (ull)v.store.failovers,
		    (ull)v.store.corrupt, (ull)v.store.rereplicated, v.store.under_replicated,
		    (ull)v.pager.prefetched, (ull)v.pager.prefetch_hits, (ull)v.pager.prefetch_late,
		    (ull)v.pager.prefetch_wasted);
	else if (item < LINE_NODE)
		latency(text, &v.pager, item - LINE_LATENCY);
	else
		put(text, "node i=%u ip=%u up=%u slots=%u taken=%u", item - LINE_NODE,
		    vm->config->remote[item - LINE_NODE].ip, v.node[item - LINE_NODE].up,
		    v.node[item - LINE_NODE].slots, v.node[item - LINE_NODE].taken);
	return true;
}

void remote_gauges(const struct vm *vm, u64 value[])
{
	const struct vm_remote *r = vm->remote;
	const struct pager_stats *p = pager_stats(r->pager);

	value[0] = r->frames - pager_free(r->pager);
	value[1] = pager_away(r->pager);
	value[2] = p->faults;
	value[3] = p->reads;
	value[4] = p->writes;
	value[5] = p->prefetch_hits + p->prefetch_late;
}
_Static_assert(PROFILE_GAUGES == 6, "as many as are written here");
