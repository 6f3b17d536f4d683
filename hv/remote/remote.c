/* Remote memory of VMs: their life, and the side of the network. See remote.h. */
#include "remote/remote.h"

#include "lib/log.h"
#include "lib/string.h"
#include "mem/frame.h"
#include "net/net.h"
#include "remote/async.h"
#include "remote/internal.h"
#include "remote/seal.h"
#include "vm/control.h"
#include "vmx/caps.h"
#include "x86/asm.h"

#define NS_PER_MS 1000000ull
/* No memory node answers for so long: the VM is paused, so that its time stands still. */
#define STALL_NS (2000 * NS_PER_MS)
/* Nodes are full: try again after. */
#define RETRY_NS (100 * NS_PER_MS)
/* Counting copies goes through all pages: not more often than. */
#define COUNT_NS (1000 * NS_PER_MS)
/* A store's operation by number. */
#define ID_WRITE BIT64(63)

typedef unsigned long long ull;

static struct vm_remote *remotes[BOOT_MAX_VMS]; /* the network's lock */
static u32 remotes_end;				/* the same: none is from here on */
static u64 service_tsc;				/* atomic: see remote.h */
u32 remote_ops;

/* --- what the pager asks for ------------------------------------------------------------------ */

static bool op_accessed(void *ctx, u32 page)
{
	struct vm_remote *r = ctx;

	return ept_page_accessed(&r->vm->space.view, away_address(&r->vm->space, page));
}

static bool op_unmap(void *ctx, u32 page)
{
	struct vm_remote *r = ctx;

	return ept_page_take(&r->vm->space.view, away_address(&r->vm->space, page)) && r->flags;
}

static void *op_data(void *ctx, u32 frame)
{
	return phys_to_ptr(remote_frame(ctx, frame));
}

static const struct pager_ops ops = {op_accessed, op_unmap, op_data};

/* --- creation --------------------------------------------------------------------------------- */

static int take_frames(struct vm_remote *r)
{
	frame_owner_t owner = (frame_owner_t)(FRAME_VM_BASE + r->vm->id);
	u32 chunks = r->frames / (SIZE_2M / PAGE_SIZE);

	r->chunk = heap_alloc(chunks * sizeof(r->chunk[0]));
	if (!r->chunk)
		return ERR_NOMEM;
	for (u32 i = 0; i < chunks; i++)
		if (frame_alloc(owner, SIZE_2M, SIZE_2M, &r->chunk[i]))
			return ERR_NOMEM;
	return 0;
}

static int make_pager(struct vm_remote *r)
{
	struct pager_config config = {.pages = r->pages,
				      .frames = r->frames,
				      .vcpus = r->vm->vcpu_count,
				      .flags = r->flags,
				      .prefetch = r->vm->config->prefetch};
	void *memory;

	r->pager_bytes = pager_bytes(&config);
	memory = heap_alloc(r->pager_bytes);
	if (!memory)
		return ERR_NOMEM;
	r->pager = pager_init(memory, &config, &ops, r);
	if (r->pager)
		return 0;
	heap_free(memory, r->pager_bytes);
	log_warn("vm %s: more pages than remote memory can have", r->vm->config->name);
	return ERR_NODEV;
}

static int link_node(struct fabric *fabric, const struct boot_vm *config, u32 i)
{
	struct fabric_peer peer = {.ip = config->remote[i].ip,
				   .port = config->remote[i].port,
				   .slice = NODE_ANY_SLICE};

	_Static_assert(sizeof(peer.token) == sizeof(config->remote_token), "of the same size");
	memcpy(peer.token, config->remote_token, sizeof(peer.token));
	return fabric_link(fabric, &peer);
}

/* The network's lock held. */
static int make_store(struct vm_remote *r, struct fabric *fabric)
{
	const struct boot_vm *config = r->vm->config;
	struct store_config c = {.fabric = fabric,
				 .nodes = config->remote_count,
				 .replicas = config->replicas,
				 .pages = r->pages,
				 .vm = r->vm->id,
				 .seal = config->seal};
	void *memory;

	if (c.seal && !seal_new_key(c.key))
		log_warn("vm %s: the processor has no random numbers: its seal is weak",
			 config->name);
	for (u32 i = 0; i < c.nodes; i++) {
		int link = link_node(fabric, config, i);

		if (link < 0) {
			while (i--)
				fabric_unlink(fabric, c.link[i]);
			log_warn("vm %s: too many memory nodes in all", config->name);
			return ERR_NODEV;
		}
		c.link[i] = r->link[i] = (u32)link;
	}
	r->store_bytes = store_bytes(&c);
	memory = heap_alloc(r->store_bytes);
	if (memory)
		r->store = store_init(memory, &c);
	if (memory && !r->store)
		heap_free(memory, r->store_bytes);
	for (u32 i = 0; i < c.nodes && !r->store; i++)
		fabric_unlink(fabric, c.link[i]);
	memset(c.key, 0, sizeof(c.key));
	return r->store ? 0 : ERR_NOMEM;
}

int remote_create(struct vm *vm)
{
	struct fabric *fabric = service_fabric();
	struct vm_remote *r;
	int err;

	if (!fabric) {
		log_warn("vm %s: there is no network for its remote memory", vm->config->name);
		return ERR_NODEV;
	}
	r = heap_alloc(sizeof(*r));
	if (!r)
		return ERR_NOMEM;
	vm->remote = r;
	r->vm = vm;
	r->pages = (u32)(vm->config->memory / PAGE_SIZE);
	r->frames = (u32)(vm->config->local / PAGE_SIZE);
	r->prefetch = vm->config->prefetch;
	r->flags = vm->space.view.features & BIT64(FEAT_EPT_AD);
	err = take_frames(r);
	if (!err)
		err = make_pager(r);
	if (!err)
		err = async_create(r);
	if (err)
		return err;
	net_lock();
	err = make_store(r, fabric);
	if (!err) {
		remotes[vm->id] = r;
		remotes_end = MAX(remotes_end, vm->id + 1u);
	}
	net_look();
	net_unlock();
	return err;
}

/* The NIC may still be reading from frames that are about to belong to somebody else. */
static void drain(void)
{
	u64 end = net_now() + NS_PER_MS;

	while (net_now() < end)
		net_service();
}

static void report(const struct vm_remote *r)
{
	const struct pager_stats *s = pager_stats(r->pager);
	const char *name = r->vm->config->name;
	struct async_stats async;
	u64 waited = 0;

	for (u32 i = 0; i < PAGER_LATENCIES; i++)
		waited += s->latency[i];
	log_info("vm %s: remote memory: %llu faults, %llu pages read, %llu written, %llu dropped, "
		 "%llu overwritten",
		 name, (ull)s->faults, (ull)s->reads, (ull)s->writes, (ull)s->drops,
		 (ull)s->overwrites);
	log_info("vm %s: remote memory: %llu waits of %llu us, %llu fetched ahead, %llu of use",
		 name, (ull)waited, (ull)(waited ? s->latency_sum / waited / 1000 : 0),
		 (ull)s->prefetched, (ull)(s->prefetch_hits + s->prefetch_late));
	log_info("vm %s: remote memory: ticks: %llu faults, %llu evicting, %llu network", name,
		 (ull)r->work_tsc, (ull)r->evict_tsc, (ull)service_tsc);
	async_stats(r, &async);
	if (r->async)
		log_info("vm %s: remote memory: %llu faults told of, %llu ready, %llu waited for",
			 name, (ull)async.faults, (ull)async.ready, (ull)async.waits);
}

void remote_destroy(struct vm *vm)
{
	frame_owner_t owner = (frame_owner_t)(FRAME_VM_BASE + vm->id);
	struct vm_remote *r = vm->remote;

	if (!r)
		return;
	net_lock();
	remotes[vm->id] = NULL;
	while (remotes_end && !remotes[remotes_end - 1])
		remotes_end--;
	if (r->store)
		store_destroy(r->store);
	net_look();
	net_unlock();
	if (r->store) {
		if (vm->restarts < 8)
			report(r);
		drain();
		heap_free(r->store, r->store_bytes);
	}
	vm->remote = NULL;
	async_destroy(r);
	if (r->pager)
		heap_free(r->pager, r->pager_bytes);
	for (u32 i = 0; r->chunk && i < r->frames / (SIZE_2M / PAGE_SIZE); i++)
		if (r->chunk[i].v)
			frame_free(owner, r->chunk[i], SIZE_2M);
	if (r->chunk)
		heap_free(r->chunk, r->frames / (SIZE_2M / PAGE_SIZE) * sizeof(r->chunk[0]));
	heap_free(r, sizeof(*r));
}

/* --- the network's side: its lock is held ----------------------------------------------------- */

static void refuse(struct vm_remote *r, u32 page)
{
	if (r->corrupt)
		return;
	r->corrupt = r->uneasy = true;
	log_warn("vm %s: the page at %#llx has come back altered, old, or from another place",
		 r->vm->config->name, (unsigned long long)away_address(&r->vm->space, page).v);
	vm_end(r->vm, VM_STATUS_FAULT, "a page of its memory came back other than it was written");
}

/* What the store calls an operation, and what it is. */
static u64 id_of(u32 page, u32 frame, bool write)
{
	return page | (u64)frame << 24 | (write ? ID_WRITE : 0);
}

static struct pager_op op_of(u64 id)
{
	return (struct pager_op){.page = (u32)id & 0xffffff,
				 .frame = (u32)(id >> 24) & 0xffffff,
				 .write = id & ID_WRITE};
}

/* The store takes it later, or not at all. */
static __noinline void put_back(struct vm_remote *r, u64 id, int err)
{
	struct pager_op op = op_of(id);

	if (err != ERR_BUSY) {
		log_error("vm %s: the store refuses page %#x: error %d", r->vm->config->name,
			  op.page, err);
		refuse(r, op.page);
	}
	spin_lock(remote_lock(r));
	pager_put_back(r->pager, &op);
	spin_unlock(remote_lock(r));
}

/* False: it is queued again. */
static inline bool post(struct vm_remote *r, u32 page, u32 frame, bool write)
{
	u64 id = id_of(page, frame, write);
	void *data = phys_to_ptr(remote_frame(r, frame));
	int err = write ? store_write(r->store, id, page, data)
			: store_read(r->store, id, page, data);

	if (unlikely(err))
		put_back(r, id, err);
	return !err;
}

static void post_queued(struct vm_remote *r)
{
	struct pager_op op;
	bool more;

	/* Without the lock: whoever queues something afterwards posts it himself. */
	while (pager_queued(r->pager)) {
		spin_lock(remote_lock(r));
		more = pager_next(r->pager, &op);
		spin_unlock(remote_lock(r));
		if (!more || !post(r, op.page, op.frame, op.write))
			return;
	}
}

static void complete(struct vm_remote *r, const struct store_completion *c, u64 now)
{
	struct pager_op op = op_of(c->id);
	struct pager_place place;

	if (c->result == STORE_CORRUPT) {
		refuse(r, op.page);
		return;
	}
	if (c->result == STORE_FULL && !r->retry_at) {
		r->retry_at = now + RETRY_NS;
		r->uneasy = true;
	}
	spin_lock(remote_lock(r));
	if (pager_done(r->pager, &op, c->result == STORE_OK, now, &place))
		remote_map(r, op.page, &place);
	remote_wake(r, AWAY_PAGE(op.page));
	if (unlikely(r->async))
		async_end(r, op.page);
	spin_unlock(remote_lock(r));
}

/* Says which nodes are lost and back, and when all pages have as many copies as they should. */
static void look_at_nodes(struct vm_remote *r, u64 now)
{
	const struct boot_vm *config = r->vm->config;
	struct store_stats stats;
	u32 up = store_up(r->store);

	for (u32 i = 0; i < config->remote_count; i++) {
		u32 ip = config->remote[i].ip, bit = BIT(i);

		if (!((up ^ r->up) & bit))
			continue;
		if (!(up & bit) || (r->seen & bit))
			log_info("vm %s: memory node %u.%u.%u.%u %s", config->name, ip >> 24,
				 ip >> 16 & 255, ip >> 8 & 255, ip & 255,
				 up & bit ? "answers again" : "does not answer");
		r->short_of_copies |= !(up & bit);
		r->count_at = now + COUNT_NS;
	}
	r->seen |= up;
	r->up = up;
	if (likely(!r->short_of_copies) || now < r->count_at)
		return;
	r->count_at = now + COUNT_NS;
	store_stats(r->store, &stats);
	if (stats.under_replicated || stats.nodes_up < config->replicas)
		return;
	r->short_of_copies = false;
	if (config->replicas > 1)
		log_info("vm %s: all pages have %u copies again", config->name, config->replicas);
}

/* No copy of a page is to be had: the VM's time stands still until there is one. */
static void look_for_stall(struct vm_remote *r, u64 now)
{
	u64 since = r->stalled;

	if (!r->paused && since && now - since > STALL_NS && vms_hold()) {
		if (r->vm->state == VM_RUNNING && !vm_paused(r->vm)) {
			log_warn("vm %s: paused: no memory node that has its pages answers",
				 r->vm->config->name);
			vm_pause(r->vm);
			r->paused = true;
		}
		vms_release();
	} else if (r->paused && !since && vms_hold()) {
		if (r->vm->state == VM_RUNNING) {
			log_warn("vm %s: goes on: its memory is there again", r->vm->config->name);
			vm_resume(r->vm);
		}
		r->paused = false;
		vms_release();
	}
}

/* What goes on besides reads and writes: seldom anything. */
static __noinline void look_around(struct vm_remote *r, u64 now)
{
	if (r->retry_at && now >= r->retry_at) {
		r->retry_at = 0;
		spin_lock(remote_lock(r));
		remote_wake(r, AWAY_FRAME);
		spin_unlock(remote_lock(r));
	}
	if (store_up(r->store) != r->up || r->short_of_copies)
		look_at_nodes(r, now);
	r->stalled = store_stalled(r->store);
	if (r->stalled || r->paused)
		look_for_stall(r, now);
	r->uneasy = r->retry_at || r->short_of_copies || r->stalled || r->paused || r->corrupt;
}

/* Operations queued or under way. */
static u32 serve(struct vm_remote *r, u64 now)
{
	struct store_completion c;

	store_work(r->store, now);
	while (store_done(r->store, &c))
		complete(r, &c, now);
	if (!r->corrupt && pager_queued(r->pager))
		post_queued(r);
	if (unlikely(r->uneasy || store_up(r->store) != r->up || store_stalls(r->store)))
		look_around(r, now);
	if (unlikely(r->uneasy))
		return r->corrupt ? 0 : pager_under_way(r->pager) + !!r->retry_at;
	return pager_under_way(r->pager);
}

void remote_work(u64 now)
{
	u32 count = 0;

	for (u32 i = 0; i < remotes_end; i++)
		if (remotes[i])
			count += serve(remotes[i], now);
	__atomic_store_n(&remote_ops, count, __ATOMIC_RELAXED);
}

static __noinline u64 uneasy_deadline(const struct vm_remote *r)
{
	u64 first = store_deadline(r->store);

	if (r->retry_at)
		first = MIN(first, r->retry_at);
	if (r->short_of_copies)
		first = MIN(first, r->count_at);
	if (r->stalled && !r->paused)
		first = MIN(first, r->stalled + STALL_NS);
	return r->paused && !r->stalled ? 0 : first;
}

u64 remote_deadline(void)
{
	u64 first = RDMA_NEVER;

	for (u32 i = 0; i < remotes_end; i++) {
		const struct vm_remote *r = remotes[i];
		u64 due;

		if (!r)
			continue;
		due = unlikely(r->uneasy) ? uneasy_deadline(r) : store_deadline(r->store);
		first = MIN(first, due);
	}
	return first;
}

/* --- any side --------------------------------------------------------------------------------- */

/* What has been posted is sent. */
static inline void send(struct vm_remote *r, u64 now)
{
	if (store_hurries(r->store))
		net_look();
	__atomic_store_n(&remote_ops, 1, __ATOMIC_RELAXED);
	net_send(now);
}

void remote_post(struct vm_remote *r, u64 now)
{
	if (!pager_queued(r->pager))
		return;
	net_lock();
	if (!r->corrupt)
		post_queued(r);
	send(r, now);
	net_unlock();
}

void remote_fetch(struct vm_remote *r, u32 page, u32 frame, u64 now)
{
	net_lock();
	if (likely(!r->corrupt))
		post(r, page, frame, false);
	send(r, now);
	net_unlock();
}

bool remote_poll(u64 began)
{
	if (!remote_busy())
		return false;
	if (net_service())
		__atomic_fetch_add(&service_tsc, rdtsc() - began, __ATOMIC_RELAXED);
	return true;
}

bool remote_view(const struct vm *vm, struct remote_view *out)
{
	struct vm_remote *r;

	net_lock();
	r = remotes[vm->id];
	if (r) {
		*out = (struct remote_view){.nodes = vm->config->remote_count,
					    .replicas = vm->config->replicas,
					    .sealed = vm->config->seal,
					    .stalled = r->stalled,
					    .async_offered = r->async,
					    .evictions = r->evictions,
					    .work_tsc = r->work_tsc,
					    .evict_tsc = r->evict_tsc,
					    .service_tsc = service_tsc,
					    .pages = r->pages,
					    .frames = r->frames};
		store_stats(r->store, &out->store);
		for (u32 i = 0; i < out->nodes; i++)
			store_node_view(r->store, i, &out->node[i]);
		spin_lock(remote_lock(r));
		out->pager = *pager_stats(r->pager);
		async_stats(r, &out->async);
		out->free = pager_free(r->pager);
		out->away = pager_away(r->pager);
		out->under_way = pager_under_way(r->pager);
		spin_unlock(remote_lock(r));
	}
	net_unlock();
	return r;
}
