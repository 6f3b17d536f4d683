/* The command `remote`: memory of VMs that lies on memory nodes. */
#include "lib/string.h"
#include "mon/mon.h"
#include "remote/remote.h"
#include "vm/vm.h"
#include "x86/tsc.h"

typedef unsigned long long ull;

static ull percent(u64 part, u64 whole)
{
	return whole ? part * 100 / whole : 0;
}

static void show_pages(const struct remote_view *v)
{
	mon_print("pages       %llu: %llu in %llu frames, %llu on %u node%s (%u up), copies: "
		  "%u%s%s\n",
		  (ull)v->pages, (ull)(v->frames - v->free), (ull)v->frames, (ull)v->away, v->nodes,
		  v->nodes == 1 ? "" : "s", v->store.nodes_up, v->replicas,
		  v->sealed ? ", sealed" : "", v->stalled ? ", STALLED" : "");
	mon_print("faults      %llu: %llu in frames, %llu zero-filled, %llu waited for another's, "
		  "%llu kept\n",
		  (ull)v->pager.faults, (ull)v->pager.minor, (ull)v->pager.zero_fills,
		  (ull)v->pager.waits, (ull)v->pager.rescues);
	mon_print("            %llu on paging structures, %llu overwritten whole, %llu without a "
		  "frame\n",
		  (ull)v->pager.table_faults, (ull)v->pager.overwrites, (ull)v->pager.no_frame);
}

static void show_nodes(const struct vm *vm, const struct remote_view *v)
{
	for (u32 i = 0; i < v->nodes; i++) {
		u32 ip = vm->config->remote[i].ip;

		mon_print("node        %u.%u.%u.%u %s: has %u pages, room for %u\n", ip >> 24,
			  ip >> 16 & 255, ip >> 8 & 255, ip & 255,
			  v->node[i].up ? "answers" : "does not answer", v->node[i].taken,
			  v->node[i].slots);
	}
}

static void show_traffic(const struct remote_view *v)
{
	const struct pager_stats *p = &v->pager;

	mon_print("read        %llu pages, written %llu; dropped %llu, %llu of them zero; %llu "
		  "batches\n",
		  (ull)p->reads, (ull)p->writes, (ull)p->drops, (ull)p->zeroes, (ull)p->batches);
	mon_print("bytes       %llu in, %llu out; %llu failovers, %llu corrupt, %llu copied again, "
		  "%u to do\n",
		  (ull)v->store.bytes_in, (ull)v->store.bytes_out, (ull)v->store.failovers,
		  (ull)v->store.corrupt, (ull)v->store.rereplicated, v->store.under_replicated);
	if (v->async_offered)
		mon_print("async       %llu faults told of, %llu of them ready; %llu waited for\n",
			  (ull)v->async.faults, (ull)v->async.ready, (ull)v->async.waits);
	mon_print("prefetch    %llu pages: %llu%% touched, %llu late, %llu wasted\n",
		  (ull)p->prefetched, percent(p->prefetch_hits + p->prefetch_late, p->prefetched),
		  (ull)p->prefetch_late, (ull)p->prefetch_wasted);
}

/* From the fault until the page was there. */
static void show_latency(const struct remote_view *v)
{
	u64 total = 0, most = 1;

	for (u32 i = 0; i < PAGER_LATENCIES; i++) {
		total += v->pager.latency[i];
		most = MAX(most, v->pager.latency[i]);
	}
	if (!total)
		return;
	mon_print("latency     %llu us on average\n", (ull)(v->pager.latency_sum / total / 1000));
	for (u32 i = 0; i < PAGER_LATENCIES; i++) {
		char bar[33];
		u32 n = (u32)(v->pager.latency[i] * 32 / most);

		if (!v->pager.latency[i])
			continue;
		memset(bar, '#', n);
		bar[n] = 0;
		mon_print("  < %8llu us %8llu %s\n", 1ull << i, (ull)v->pager.latency[i], bar);
	}
}

static enum step remote_step(struct job *job)
{
	struct vm *vm = job_vm(job);
	struct remote_view v;

	if (!vm)
		return STEP_DONE;
	if (!remote_view(vm, &v)) {
		mon_print("all its memory is here\n");
		return STEP_DONE;
	}
	switch (job->phase++) {
	case 0:
		show_pages(&v);
		show_nodes(vm, &v);
		return STEP_MORE;
	case 1:
		show_traffic(&v);
		return STEP_MORE;
	default:
		show_latency(&v);
		return STEP_DONE;
	}
}

bool show_remote(const struct words *w, struct job *job)
{
	if (w->count > 1)
		return false;
	if (word_vm(w, 0, &job->vm))
		job->step = remote_step;
	return true;
}
