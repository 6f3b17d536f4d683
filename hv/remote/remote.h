/*
 * Remote memory of VMs: the pager and the store of each one, bound to its address space (vm/away.h)
 * and to the network.
 *
 * Locks: the network's (net/net.h), then the space's. Pager: under the lock of the VM's space;
 * store and fabric: under the network's. What a fault wants is queued in the pager and posted by
 * whoever gets hold of the network next, mostly at once.
 */
#pragma once

#include "lib/types.h"
#include "remote/pager.h"
#include "remote/store.h"

struct fabric;
struct vm;

/*
 * For service.c, with the network's lock held. remote_work(): the stores' turn in a round of the
 * fabric, between fabric_work() and fabric_transmit(), when something has come for them or is due:
 * completions are fetched, vCPUs woken, and what pagers have queued is posted. remote_deadline():
 * when it wants to be called though nothing has come (RDMA_NEVER).
 */
void remote_work(u64 now);
u64 remote_deadline(void);

/* service.c defines it: the connections of this machine; NULL: it has no network. */
struct fabric *service_fabric(void);

/* For the monitor; false: the VM has no remote memory, or is just going. No lock held. */
struct async_stats {
	u64 faults; /* that the guest was told of by #PF */
	u64 ready;  /* that it was told the end of by an interrupt */
	u64 waits;  /* that it could not take: the vCPU waited */
};
struct remote_view {
	struct pager_stats pager;
	struct store_stats store;
	struct store_node_view node[STORE_NODES]; /* `nodes` of them */
	u64 pages, frames, free, away, under_way;
	u32 nodes, replicas;
	bool sealed, stalled, async_offered;
	struct async_stats async;
	u64 evictions;
	/* TSC ticks: of faults that had to wait, without the wait; of evicting; of the network's
	 * service meanwhile, where it had something to do (of all VMs). */
	u64 work_tsc, evict_tsc, service_tsc;
};
bool remote_view(const struct vm *vm, struct remote_view *out);
