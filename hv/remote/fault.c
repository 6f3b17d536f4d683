/* Remote memory of VMs: the way of a fault, and Umbra's own accesses. See remote.h, vm/away.h. */
#include "net/net.h"
#include "remote/async.h"
#include "remote/internal.h"
#include "vm/linear.h"
#include "x86/asm.h"
#include "x86/cpu.h"
#include "x86/regs.h"

/*
 * What this CPU does just now. Peeking: for learning and prefetching, pages that are not here are
 * not asked for. Insisting: see remote_insist().
 */
static struct {
	bool peeking, insisting;
} here[MAX_CPUS];

int remote_map(struct vm_remote *r, u32 page, const struct pager_place *place)
{
	struct space *space = &r->vm->space;
	gpa_t at = away_address(space, page);
	hpa_t frame = remote_frame(r, place->frame);
	u64 perms = region_perms(space, at);
	int err;

	if (!place->writable)
		perms &= ~EPT_W;
	if (likely(ept_page_put(&space->view, at, frame, perms)))
		return 0;
	err = ept_fill(&space->view, at, frame, PAGE_SIZE, perms, EPT_WB);
	return err == ERR_EXIST ? ept_map(&space->view, at, frame, PAGE_SIZE, perms, EPT_WB) : err;
}

static void wake(struct vm_remote *r, struct vcpu *vcpu)
{
	bool missed = r->missed & BIT(vcpu->index);

	/* A guest's own access need not ask whether its page has come. */
	if (vcpu->away != AWAY_FRAME && !missed)
		vcpu->away = 0;
	/* Devices that have missed something try again as well. */
	vcpu_request(vcpu, missed ? REQ_PAGE | REQ_DEVICE : REQ_PAGE);
}

void remote_wake(struct vm_remote *r, u32 away)
{
	struct vm *vm = r->vm;

	for (u32 i = 0; i < vm->vcpu_count; i++) {
		struct vcpu *vcpu = vm->vcpu[i];

		if (vcpu && (vcpu->away == away || vcpu->away == AWAY_FRAME))
			wake(r, vcpu);
	}
}

/* --- eviction --------------------------------------------------------------------------------- */

/* A piece of it: false: there is nothing more to do for now. */
static bool evict_batch(struct vm_remote *r)
{
	u32 taken;
	bool more;

	spin_lock(remote_lock(r));
	taken = pager_collect(r->pager);
	spin_unlock(remote_lock(r));
	if (taken) {
		ept_sync(&r->vm->space.view, this_cpu()->index, cpu_count);
		r->evictions++;
	}
	spin_lock(remote_lock(r));
	if (taken && pager_settle(r->pager))
		remote_wake(r, AWAY_FRAME);
	more = pager_should_evict(r->pager);
	spin_unlock(remote_lock(r));
	return more;
}

void remote_evict(struct vm_remote *r)
{
	/* Each piece looks at a part of the frames only. If there is no frame at all, all of them
	 * are looked at several times if need be, for they get older each time. */
	u32 pieces = pager_free(r->pager) ? 8 : 4 + r->frames / 64;
	u64 began = rdtsc();

	while (evict_batch(r) && pieces)
		pieces--;
	remote_post(r, net_now());
	__atomic_fetch_add(&r->evict_tsc, rdtsc() - began, __ATOMIC_RELAXED);
}

/* --- prefetch and learning -------------------------------------------------------------------- */

/* The page behind a linear address, as far as it can be told without moving anything. */
static bool page_behind(struct vcpu *vcpu, const struct walk_state *state, u64 linear, u32 *page)
{
	struct vm *vm = vcpu->vm;
	const struct region *region;
	struct walk_result found;

	if (walk(vm, state, gva(linear), WALK_READ | WALK_PROBE, &found))
		return false;
	region = space_find(&vm->space, found.addr);
	if (!region || region->kind != REGION_REMOTE)
		return false;
	*page = away_page(region, found.addr);
	return true;
}

static __noinline void prefetch(struct vcpu *vcpu, u64 linear, bool hit, u64 now)
{
	struct vm_remote *r = vcpu->vm->remote;
	struct walk_state state;
	u64 first;
	s64 stride;
	u32 window, page, done;
	bool more = true;

	spin_lock(remote_lock(r));
	window = pager_trend(r->pager, vcpu->index, linear / PAGE_SIZE, hit, &first, &stride);
	spin_unlock(remote_lock(r));
	if (!window)
		return;
	walk_state_load(vcpu, &state);
	/* Whether the guest may read there is its own business: nothing is shown to it. */
	state.cpl = 0;
	state.cr4 &= ~(u64)CR4_SMAP;
	here[this_cpu()->index].peeking = true;
	for (done = 0; done < window && more; done += more) {
		u64 at = (first + done * (u64)stride) * PAGE_SIZE;

		if (!page_behind(vcpu, &state, at, &page))
			break;
		spin_lock(remote_lock(r));
		more = pager_prefetch(r->pager, page);
		spin_unlock(remote_lock(r));
	}
	here[this_cpu()->index].peeking = false;
	remote_post(r, now);
	spin_lock(remote_lock(r));
	pager_ahead(r->pager, vcpu->index, done);
	spin_unlock(remote_lock(r));
}

/* Which level of the guest's paging structures lies in the page that its walk has come to. */
static __noinline u8 table_level(struct vcpu *vcpu, const struct ept_fault *fault)
{
	struct walk_step step[WALK_LEVELS];
	struct walk_state state;
	struct walk_result found;
	unsigned int count;
	u8 level = 1;

	walk_state_load(vcpu, &state);
	here[this_cpu()->index].peeking = true;
	walk_explain(vcpu->vm, &state, fault->linear, step, &count, &found);
	here[this_cpu()->index].peeking = false;
	for (unsigned int i = 0; i < count; i++)
		if (!((step[i].at.v ^ fault->addr.v) & PAGE_MASK))
			level = (u8)(WALK_LEVELS - i);
	return level;
}

/* --- faults ----------------------------------------------------------------------------------- */

static enum pager_answer access_page(struct vm_remote *r, const struct pager_access *a,
				     struct pager_place *place)
{
	enum pager_answer answer = pager_access(r->pager, a, place);

	if (answer == PAGER_READY && !a->door && remote_map(r, a->page, place))
		return PAGER_NO_FRAME;
	return answer;
}

/*
 * If nobody else is to run on this CPU, the page is waited for here, which is the shortest way
 * back. Otherwise the vCPU leaves the run loop.
 */
static void await(struct vcpu *vcpu)
{
	while (sched_await(vcpu)) {
		__atomic_and_fetch(&vcpu->requests, ~(u32)REQ_PAGE, __ATOMIC_SEQ_CST);
		if (!vcpu->away || !remote_waits(vcpu))
			return;
	}
	vcpu_request(vcpu, REQ_PAGE);
}

enum fault_result remote_fault(struct vcpu *vcpu, const struct region *region,
			       const struct ept_fault *fault)
{
	struct vm_remote *r = vcpu->vm->remote;
	u64 began = rdtsc(), now = net_now(), wanted = fault->access;
	u8 level = unlikely(fault->walk) ? table_level(vcpu, fault) : 0;
	struct pager_access a = {.page = away_page(region, fault->addr),
				 .now = now,
				 .write = fault->write,
				 .posts = true,
				 .level = level};
	struct pager_place place = {0};
	enum pager_answer answer;
	bool fetch, evict, waits;

	if (fault->write && fault->linear_valid && !fault->walk &&
	    fault->linear.v % PAGE_SIZE == 0 && pager_state(r->pager, a.page) == PAGER_AWAY &&
	    remote_overwrite(vcpu, fault, a)) {
		if (pager_should_evict(r->pager))
			remote_evict(r);
		return FAULT_RETRY;
	}
	spin_lock(remote_lock(r));
	if ((region_perms(&vcpu->vm->space, fault->addr) & wanted) != wanted) {
		spin_unlock(remote_lock(r));
		return FAULT_REFUSED;
	}
	answer = access_page(r, &a, &place);
	fetch = answer == PAGER_FETCH;
	if (fetch)
		answer = PAGER_WAIT;
	evict = pager_should_evict(r->pager) || answer == PAGER_NO_FRAME;
	waits = answer != PAGER_READY &&
		!(unlikely(r->async) && answer == PAGER_WAIT && async_begin(r, vcpu, a.page));
	if (waits)
		vcpu->away = answer == PAGER_WAIT ? AWAY_PAGE(a.page) : AWAY_FRAME;
	spin_unlock(remote_lock(r));
	/* Demand first; what is fetched ahead, and evicting, are done while it travels. */
	if (fetch)
		remote_fetch(r, a.page, place.frame, now);
	else
		remote_post(r, now);
	if (r->prefetch && (answer == PAGER_WAIT || place.hit) && fault->linear_valid &&
	    !fault->walk)
		prefetch(vcpu, fault->linear.v, place.hit, now);
	if (answer == PAGER_WAIT)
		__atomic_fetch_add(&r->work_tsc, rdtsc() - began, __ATOMIC_RELAXED);
	if (evict)
		remote_evict(r);
	if (waits)
		await(vcpu);
	return FAULT_RETRY;
}

/* --- Umbra's own accesses --------------------------------------------------------------------- */

void remote_insist(bool on)
{
	here[this_cpu()->index].insisting = on;
}

/* vm->space.lock held. */
static u8 *try_open(struct vm_remote *r, u32 page, bool write, bool whole,
		    enum pager_answer *answer)
{
	struct pager_access a = {
		.page = page, .now = net_now(), .write = write, .whole = whole, .door = true};
	struct pager_place place;

	*answer = PAGER_READY;
	if (here[this_cpu()->index].peeking && pager_state(r->pager, page) != PAGER_HERE)
		return NULL;
	*answer = pager_access(r->pager, &a, &place);
	return *answer == PAGER_READY ? phys_to_ptr(remote_frame(r, place.frame)) : NULL;
}

u8 *remote_open(struct vm *vm, const struct region *region, gpa_t at, bool write, bool whole)
{
	struct vm_remote *r = vm->remote;
	u32 page = away_page(region, at);
	enum pager_answer answer;
	bool insist = here[this_cpu()->index].insisting;
	u8 *p;

	do {
		spin_lock(remote_lock(r));
		p = try_open(r, page, write, whole, &answer);
		if (p)
			return p + at.v % PAGE_SIZE;
		if (answer != PAGER_READY && !insist)
			r->missed |= vcpu_misses(vm, answer == PAGER_WAIT ? AWAY_PAGE(page)
									  : AWAY_FRAME);
		spin_unlock(remote_lock(r));
		if (answer == PAGER_READY)
			return NULL; /* only peeking */
		remote_post(r, net_now());
		if (answer == PAGER_NO_FRAME)
			remote_evict(r);
		if (insist)
			remote_poll(rdtsc());
	} while (insist);
	return NULL;
}

void remote_close(struct vm *vm)
{
	spin_unlock(&vm->space.lock);
}

void remote_unmap(struct vm *vm, const struct region *region, gpa_t at, u64 bytes)
{
	for (u64 done = 0; done < bytes; done += PAGE_SIZE)
		pager_unmap(vm->remote->pager, away_page(region, gpa_add(at, done)));
}

int remote_zero(struct vm *vm, const struct region *region, gpa_t at, u64 bytes)
{
	struct vm_remote *r = vm->remote;

	for (u64 done = 0; done < bytes; done += PAGE_SIZE) {
		u32 page = away_page(region, gpa_add(at, done));
		enum pager_state state;
		bool zero;
		u8 *p;

		spin_lock(remote_lock(r));
		state = pager_state(r->pager, page);
		zero = state == PAGER_ZERO ||
		       (state == PAGER_AWAY && pager_discard(r->pager, page));
		spin_unlock(remote_lock(r));
		if (zero)
			continue;
		p = remote_open(vm, region, gpa_add(at, done), true, true);
		if (!p)
			return ERR_AGAIN;
		__builtin_memset(p, 0, PAGE_SIZE);
		remote_close(vm);
	}
	return 0;
}

/* --- waiting ---------------------------------------------------------------------------------- */

bool remote_hold(struct vcpu *vcpu, gpa_t at, bool write)
{
	struct vm_remote *r = vcpu->vm->remote;
	const struct region *region = space_find(&vcpu->vm->space, at);
	u32 page;

	if (!region || region->kind != REGION_REMOTE)
		return true;
	if (!remote_open(vcpu->vm, region, at, write, false))
		return false;
	page = away_page(region, at);
	/* If there is no room: the clock spares it a while, and who misses it polls. */
	if (r->held[vcpu->index].count < HELD_PAGES && pager_pin(r->pager, page))
		r->held[vcpu->index].page[r->held[vcpu->index].count++] = page;
	remote_close(vcpu->vm);
	vcpu_request(vcpu, REQ_PAGE);
	return true;
}

bool remote_waits(struct vcpu *vcpu)
{
	struct vm_remote *r = vcpu->vm->remote;
	bool waits = false, missed;
	u32 bit = BIT(vcpu->index);

	if (!r)
		return false;
	spin_lock(remote_lock(r));
	while (r->held[vcpu->index].count)
		pager_unpin(r->pager, r->held[vcpu->index].page[--r->held[vcpu->index].count]);
	if (vcpu->away == AWAY_FRAME)
		/* If nothing is under way nobody would wake it: the next fault evicts again. */
		waits = !pager_free(r->pager) && pager_under_way(r->pager);
	else if (vcpu->away)
		waits = pager_is_under_way(r->pager, vcpu->away - 1);
	missed = !waits && (r->missed & bit);
	if (!waits) {
		vcpu->away = 0;
		r->missed &= ~bit;
	}
	spin_unlock(remote_lock(r));
	/* It may have been a device that missed it. */
	if (missed)
		vcpu_request(vcpu, REQ_DEVICE);
	return waits;
}
