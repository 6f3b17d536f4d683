/*
 * Copies made in the background. After a node was lost or has come back, after writes that fewer
 * nodes than wished acknowledged, and after a bad copy, all pages are looked at a few at a time.
 * What lacks copies is read from a node that has the page, verified, and written to one that has
 * not; what has too many is given up.
 */
#include "remote/store_internal.h"

#define US 1000ull
#define MS (1000 * US)

#define PATIENCE     (2000 * MS) /* a node that is away for less is not replaced */
#define REPAIR_EVERY (100 * US)	 /* 40 MB/s at most */
#define RESCAN_AFTER (5000 * MS)
#define SCAN_STEP    256u

void repair_scan(struct store *s)
{
	if (s->config.nodes < 2) /* nowhere to copy to */
		return;
	s->scan_left = s->config.pages;
	s->lacking = false;
	s->rescan_at = RDMA_NEVER;
}

/* Nodes whose copies count: they are up, or will perhaps soon be again. */
static u32 nodes_counting(const struct store *s)
{
	u32 i, mask = 0;

	for (i = 0; i < s->config.nodes; i++)
		if (s->node[i].used && !s->node[i].replaced)
			mask |= BIT(i);
	return mask;
}

/* Ends the patience with nodes that do not come back. */
static void replace_lost(struct store *s)
{
	u32 i;

	for (i = 0; i < s->config.nodes; i++) {
		struct store_node *n = &s->node[i];

		if (n->up || !n->used || n->replaced || s->now < n->down_since + PATIENCE)
			continue;
		n->replaced = true;
		repair_scan(s);
	}
}

/* A page lacks copies, and nothing can be done about it now. */
static void lack(struct store *s)
{
	s->lacking = true;
	if (!s->scan_left)
		s->rescan_at = s->now + RESCAN_AFTER;
}

/* The emptiest node that is up, has no copy, and has a slot for one; or NO_NODE. */
static u32 choose_target(struct store *s, u32 page, u32 up)
{
	u32 i, best = NO_NODE;

	for (i = 0; i < s->config.nodes; i++) {
		const struct store_node *n = &s->node[i];

		if (!(up & ~s->page_flags[page] & BIT(i)))
			continue;
		if (!*slot_of(s, page, i) && !node_has_room(n))
			continue;
		if (best == NO_NODE || n->taken < s->node[best].taken)
			best = i;
	}
	return best;
}

/* Slots that nobody needs: stale ones, and copies beyond what is wished. */
static void trim(struct store *s, u32 page, u32 up)
{
	u32 have = s->page_flags[page] & up, i;

	for (i = s->config.nodes; i--;) {
		if (!(up & BIT(i)) || !*slot_of(s, page, i))
			continue;
		if (!(have & BIT(i)) || nodes_in(have) > s->config.replicas) {
			have &= ~BIT(i);
			slot_give_back(s, page, i);
		}
	}
}

static void end(struct store *s, struct store_op *op)
{
	op->state = OP_FREE;
	s->repairs--;
	buffer_give_back(s, op);
	if (!op->dropped)
		page_release(s, op);
	s->head.look = true;
}

static struct store_op *free_repair(struct store *s)
{
	u32 i;

	for (i = STORE_INFLIGHT; i < STORE_OPS; i++)
		if (s->op[i].state == OP_FREE)
			return &s->op[i];
	return NULL;
}

/* False: it cannot begin now. */
static bool begin(struct store *s, u32 page, u32 source, u32 target)
{
	struct store_op *op = free_repair(s);

	if (!op)
		return false;
	*op = (struct store_op){.kind = OP_REPAIR,
				.state = OP_ACTIVE,
				.number = s->numbers++,
				.page = page,
				.buffer = NO_BUFFER,
				.target = target};
	op->wire = s->buffers + buffer_take(s, op) * PAGE_SIZE;
	s->repairs++;
	page_busy(s, page);
	if (op_post(s, op, source, RDMA_READ)) {
		end(s, op);
		return false;
	}
	return true;
}

/* The page's copies are put right as far as can be; false: not now. */
static bool look_at(struct store *s, u32 page, u32 up, u32 counting)
{
	u32 flags = s->page_flags[page], source, target;

	if (!(flags & PAGE_WRITTEN))
		return true;
	if (flags & PAGE_BUSY) {
		lack(s); /* perhaps */
		return true;
	}
	if (nodes_in(flags & counting) >= s->config.replicas) {
		if (nodes_in(flags & up) >= s->config.replicas)
			trim(s, page, up);
		return true;
	}
	source = nearest(s, flags & up);
	target = choose_target(s, page, up);
	if (source == NO_NODE || target == NO_NODE) {
		lack(s);
		return true;
	}
	return begin(s, page, source, target);
}

void repair_work(struct store *s)
{
	u32 up, counting, steps = SCAN_STEP, before;

	replace_lost(s);
	if (s->now >= s->rescan_at)
		repair_scan(s);
	if (likely(!s->scan_left))
		return;
	up = s->head.up;
	counting = nodes_counting(s);
	while (s->scan_left && steps-- && s->repairs < STORE_REPAIRS && s->now >= s->repair_at) {
		before = s->repairs;
		if (!look_at(s, s->scan_at, up, counting)) {
			s->repair_at = s->now + REPAIR_EVERY;
			break;
		}
		s->scan_at = (s->scan_at + 1) % s->config.pages;
		s->scan_left--;
		if (s->repairs != before)
			s->repair_at = s->now + REPAIR_EVERY;
		if (!s->scan_left && s->lacking)
			s->rescan_at = s->now + RESCAN_AFTER;
	}
}

u64 repair_deadline(const struct store *s)
{
	u64 first = s->rescan_at;
	u32 i;

	if (s->scan_left && s->repairs < STORE_REPAIRS)
		first = MIN(first, s->repair_at);
	/* When patience with a node ends, what it has must be looked for elsewhere. */
	for (i = 0; i < s->config.nodes; i++)
		if (!s->node[i].up && s->node[i].used && s->now < s->node[i].down_since + PATIENCE)
			first = MIN(first, s->node[i].down_since + PATIENCE);
	return first;
}

void repair_completed(struct store *s, struct store_op *op, u32 node, bool ok)
{
	const struct seal_name name = {s->config.vm, op->page,
				       s->version ? s->version[op->page] : 0};

	if (ok && !op->writing)
		s->stats.bytes_in += PAGE_SIZE;
	if (!ok || op->dropped) {
		end(s, op);
		return;
	}
	if (op->writing) {
		s->page_flags[op->page] |= (u8)BIT(node);
		s->stats.rereplicated++;
		end(s, op);
		return;
	}
	if (s->config.seal && !seal_check(&s->seal, &name, op->wire, s->tag[op->page])) {
		s->stats.corrupt++;
		s->page_flags[op->page] &= (u8)~BIT(node);
		repair_scan(s);
		end(s, op);
		return;
	}
	op->writing = true;
	if ((!*slot_of(s, op->page, op->target) && !slot_take(s, op->page, op->target)) ||
	    op_post(s, op, op->target, RDMA_WRITE)) {
		lack(s);
		end(s, op);
	}
}
