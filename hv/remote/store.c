#include "remote/store.h"

#include "lib/string.h"
#include "lib/zmm.h"
#include "remote/store_internal.h"

/* What a request at a node is called: the operation's address, which has room below for these. */
#define ID_NODE	 (STORE_NODES - 1)
#define ID_WRITE STORE_NODES

_Static_assert((ID_NODE & STORE_NODES) == 0 && ID_NODE + ID_WRITE < _Alignof(struct store_op),
	       "operations are aligned");

#define WRITES_AT_ONCE 8u /* at a node: a READ waits behind those that are on their way */

/* --- memory --------------------------------------------------------------------------------- */

static bool config_valid(const struct store_config *c)
{
	return c->nodes && c->nodes <= STORE_NODES && c->replicas && c->replicas <= c->nodes &&
	       c->pages && c->pages <= BIT(30);
}

/* Hands out the pieces of the block; with `s` NULL only their sizes are added up. */
static size_t lay_out(const struct store_config *c, struct store *s, u8 *memory)
{
	size_t pages = c->pages, at = ALIGN_UP(sizeof(*s), 8), words = (pages + 63) / 64;
	u32 i;

	for (i = 0; i < c->nodes; i++, at += words * sizeof(u64))
		if (s)
			s->node[i].bitmap = (u64 *)(void *)(memory + at);
	if (c->seal) {
		if (s)
			s->version = (u64 *)(void *)(memory + at);
		at += pages * sizeof(u64);
		if (s)
			s->tag = (u8(*)[SEAL_TAG])(memory + at);
		at += pages * SEAL_TAG;
	}
	if (s)
		s->slots = (u32 *)(void *)(memory + at);
	at += pages * c->nodes * sizeof(u32);
	if (s)
		s->page_flags = memory + at;
	at += pages;
	/* Each buffer in one page, so that it is contiguous in any memory. */
	if (s)
		s->buffers = memory + at + (-(uintptr_t)(memory + at) & (PAGE_SIZE - 1));
	at += PAGE_SIZE - 1;
	return at + (c->seal ? STORE_BUFFERS : STORE_REPAIRS) * PAGE_SIZE;
}

size_t store_bytes(const struct store_config *config)
{
	return config_valid(config) ? lay_out(config, NULL, NULL) : 0;
}

struct store *store_init(void *memory, const struct store_config *config)
{
	struct store *s = memory;
	u32 i;

	if (!config_valid(config))
		return NULL;
	s->config = *config;
	lay_out(config, s, memory);
	if (config->seal)
		seal_init(&s->seal, config->key);
	memset(s->config.key, 0, sizeof(s->config.key));
	for (i = 0; i < config->nodes; i++) {
		s->node[i].link = config->link[i];
		s->node[i].l = &config->fabric->link[config->link[i]];
	}
	for (i = 0; i < STORE_INFLIGHT; i++) {
		s->op[i].next = s->free;
		s->free = &s->op[i];
	}
	for (i = 0; i < (config->seal ? STORE_BUFFERS : STORE_REPAIRS); i++)
		s->free_buffer[s->free_buffers++] = i;
	s->rescan_at = s->head.due = RDMA_NEVER;
	return s;
}

void store_destroy(struct store *s)
{
	u32 i;

	for (i = 0; i < s->config.nodes; i++)
		fabric_unlink(s->config.fabric, s->node[i].link);
	memset(&s->seal, 0, sizeof(s->seal));
}

u32 buffer_take(struct store *s, struct store_op *op)
{
	op->buffer = s->free_buffer[--s->free_buffers];
	return op->buffer;
}

void buffer_give_back(struct store *s, struct store_op *op)
{
	if (op->buffer == NO_BUFFER)
		return;
	s->free_buffer[s->free_buffers++] = op->buffer;
	op->buffer = NO_BUFFER;
	s->head.places++;
}

/* --- operations ----------------------------------------------------------------------------- */

/* The newest operation that names a page, but not the one of number `except`; or NULL. */
struct store_op *op_on_page(struct store *s, u32 page, u64 except)
{
	struct store_op *found = NULL;
	u32 i;

	for (i = 0; i < STORE_OPS; i++) {
		struct store_op *op = &s->op[i];
		bool here = (op->state == OP_QUEUED || op->state == OP_ACTIVE) && !op->dropped;

		if (here && op->page == page && op->number != except &&
		    (!found || op->number > found->number))
			found = op;
	}
	return found;
}

void page_release(struct store *s, const struct store_op *op)
{
	u8 *flags = &s->page_flags[op->page];

	if (!(*flags & PAGE_SHARED) || !op_on_page(s, op->page, op->number))
		*flags &= (u8) ~(PAGE_BUSY | PAGE_SHARED);
	else
		s->head.look = true;
}

void page_busy(struct store *s, u32 page)
{
	u8 *flags = &s->page_flags[page];

	*flags |= *flags & PAGE_BUSY ? PAGE_SHARED : PAGE_BUSY;
}

static void clear_stall(struct store *s, struct store_op *op)
{
	if (op->since)
		s->head.stalled--;
	op->since = 0;
}

/* No node has what it needs: store_work() tries again when one comes. */
static void stall(struct store *s, struct store_op *op)
{
	if (!s->head.working) { /* at a time that is not known */
		s->head.look = true;
		return;
	}
	if (!op->since)
		s->head.stalled++;
	if (!op->since)
		op->since = MAX(s->now, 1);
}

/* Whether an operation waits for others to end. */
static void set_waiting(struct store *s, const struct store_op *op, bool waiting)
{
	u64 bit = BIT64(op - s->op);

	s->head.waiting = waiting ? s->head.waiting | bit : s->head.waiting & ~bit;
}

static void complete(struct store *s, struct store_op *op, enum store_result result)
{
	clear_stall(s, op);
	if (unlikely(s->head.waiting))
		set_waiting(s, op, false);
	op->result = result;
	op->state = OP_DONE;
	op->next = s->done;
	s->done = op;
	buffer_give_back(s, op);
	page_release(s, op);
}

static inline int post(struct store *s, struct store_op *op, u32 node, enum rdma_operation what)
{
	struct store_node *n = &s->node[node];
	const struct fabric_link *l = n->l;
	struct rdma_work w = {
		.id = (u64)(uintptr_t)op | (what == RDMA_WRITE ? ID_WRITE : 0) | node,
		.op = what,
		.data = op->wire,
		.length = PAGE_SIZE,
		.rkey = l->rkey,
		.va = l->va + (*slot_of(s, op->page, node) - 1) * PAGE_SIZE,
	};
	int ret = fabric_post(s->config.fabric, n->link, &w);

	if (ret)
		return ret;
	op->pending |= BIT(node);
	n->inflight++;
	if (what == RDMA_WRITE) {
		n->writes++;
		s->stats.bytes_out += PAGE_SIZE;
	}
	return 0;
}

int op_post(struct store *s, struct store_op *op, u32 node, enum rdma_operation what)
{
	return post(s, op, node, what);
}

u32 nearest(const struct store *s, u32 among)
{
	u64 best_cost = 0;
	u32 i, best = NO_NODE;

	if (!(among & (among - 1)))
		return among ? (u32)__builtin_ctz(among) : NO_NODE;
	for (i = 0; i < s->config.nodes; i++) {
		const struct fabric_link *l = s->node[i].l;
		u64 cost = MAX(l->round_trip, 1) * (1 + s->node[i].inflight);

		if (among & BIT(i) && (best == NO_NODE || cost < best_cost)) {
			best = i;
			best_cost = cost;
		}
	}
	return best;
}

static void read_step(struct store *s, struct store_op *op)
{
	u32 have = s->page_flags[op->page] & ALL_NODES, up = have & s->head.up;
	bool busy = false;

	if (op->pending)
		return;
	while (up && !op->pending) {
		u32 node = nearest(s, up);

		busy |= op_post(s, op, node, RDMA_READ) == ERR_BUSY;
		up &= ~BIT(node);
	}
	set_waiting(s, op, busy && !op->pending);
	if (op->pending || busy)
		clear_stall(s, op);
	else if (!have)
		complete(s, op, STORE_CORRUPT);
	else
		stall(s, op);
}

/*
 * The next node to write a page to: one that has a slot for it, else the emptiest. `full` says
 * whether there are some, but none with room.
 */
static u32 write_target(struct store *s, const struct store_op *op, u32 up, bool *full)
{
	u32 i, best = NO_NODE;
	bool best_has = false;

	*full = false;
	for (i = 0; i < s->config.nodes; i++) {
		const struct store_node *n = &s->node[i];
		bool has = *slot_of(s, op->page, i);

		if (!(up & BIT(i)))
			continue;
		if (!has && !node_has_room(n)) {
			*full = true;
			continue;
		}
		if (best == NO_NODE || (has && !best_has) ||
		    (has == best_has && n->taken < s->node[best].taken)) {
			best = i;
			best_has = has;
		}
	}
	*full &= best == NO_NODE;
	return best;
}

/* From here on the older copies do not count, whatever becomes of this write. */
static void supersede(struct store *s, struct store_op *op)
{
	if (op->begun)
		return;
	op->begun = true;
	s->page_flags[op->page] &= (u8)~ALL_NODES;
	s->page_flags[op->page] |= PAGE_WRITTEN;
	if (!s->config.seal)
		return;
	s->version[op->page] = op->version;
	memcpy(s->tag[op->page], op->tag, SEAL_TAG);
}

/* There is no room for the page. If it was there before, it is so still. */
static void write_full(struct store *s, struct store_op *op)
{
	u32 i;

	if (op->begun)
		s->page_flags[op->page] &= (u8)~PAGE_WRITTEN;
	for (i = 0; i < s->config.nodes && op->begun; i++)
		slot_give_back(s, op->page, i);
	complete(s, op, STORE_FULL);
}

/* Enough nodes have the page. Slots elsewhere are of no use any more. */
static void written(struct store *s, struct store_op *op, u32 up)
{
	u32 i;

	for (i = 0; i < s->config.nodes; i++)
		if (up & ~op->acked & BIT(i))
			slot_give_back(s, op->page, i);
	if (nodes_in(op->acked & up) < s->config.replicas)
		repair_scan(s);
	s->stats.writes++;
	complete(s, op, STORE_OK);
}

static void write_step(struct store *s, struct store_op *op)
{
	/* One that has acknowledged and gone counts again when it comes back, if it does. */
	u32 up = s->head.up, has = op->acked & up, tried = op->acked | op->pending, busy = 0, node;
	bool full = false;

	while (nodes_in(has | op->pending | busy) < s->config.replicas) {
		node = write_target(s, op, up & ~tried, &full);
		if (node == NO_NODE)
			break;
		tried |= BIT(node);
		if (s->node[node].writes >= WRITES_AT_ONCE) {
			busy |= BIT(node);
			continue;
		}
		if (!*slot_of(s, op->page, node) && !slot_take(s, op->page, node))
			continue;
		supersede(s, op);
		if (op_post(s, op, node, RDMA_WRITE))
			busy |= BIT(node);
	}
	set_waiting(s, op, busy);
	if (op->pending || busy)
		clear_stall(s, op);
	else if (has)
		written(s, op, up);
	else if (full && !op->acked)
		write_full(s, op);
	else
		stall(s, op);
}

/* A write begins when nothing older concerns the page, and a buffer is there to seal it in. */
static bool write_begin(struct store *s, struct store_op *op)
{
	struct seal_name name = {s->config.vm, op->page, 0};
	u32 i;

	for (i = 0; i < STORE_OPS && s->page_flags[op->page] & PAGE_BUSY; i++) {
		const struct store_op *o = &s->op[i];

		if ((o->state == OP_ACTIVE || o->state == OP_QUEUED) && o->page == op->page &&
		    o->number < op->number && !o->dropped)
			return false;
	}
	if (s->config.seal) {
		if (s->free_buffers <= STORE_REPAIRS - s->repairs)
			return false;
		op->wire = s->buffers + buffer_take(s, op) * PAGE_SIZE;
		zmm_copy(op->wire, op->data, PAGE_SIZE);
		name.version = op->version = ++s->versions;
		seal_page(&s->seal, &name, op->wire, op->tag);
	}
	op->state = OP_ACTIVE;
	return true;
}

static inline struct store_op *op_new(struct store *s, u64 id, enum op_kind kind, u32 page,
				      void *data)
{
	struct store_op *op;

	op = s->free;
	if (!op)
		return NULL;
	s->free = op->next;
	op->kind = kind;
	op->state = OP_ACTIVE;
	op->id = id;
	op->number = s->numbers++;
	op->page = page;
	op->data = data;
	op->wire = data;
	op->buffer = NO_BUFFER;
	op->pending = op->acked = 0;
	op->begun = op->dropped = false;
	op->since = 0;
	return op;
}

/* Others are under way on the page. */
static __noinline int read_besides(struct store *s, u64 id, u32 page, void *data)
{
	const struct store_op *other = op_on_page(s, page, NO_NUMBER);
	/* Reads never wait for writes, so the newest one, if there is one, is a write. */
	bool written = other && other->kind == OP_WRITE;
	struct store_op *op;

	if (!(s->page_flags[page] & PAGE_WRITTEN) && !written)
		return ERR_NOENT;
	op = op_new(s, id, OP_READ, page, data);
	if (!op)
		return ERR_BUSY;
	page_busy(s, page);
	if (!written) {
		read_step(s, op);
		return 0;
	}
	zmm_copy(data, other->data, PAGE_SIZE);
	s->stats.reads++;
	complete(s, op, STORE_OK);
	return 0;
}

int store_read(struct store *s, u64 id, u32 page, void *data)
{
	struct store_op *op;
	u32 flags, node;

	if (page >= s->config.pages)
		return ERR_NOENT;
	flags = s->page_flags[page];
	if (unlikely(flags & PAGE_BUSY))
		return read_besides(s, id, page, data);
	if (!(flags & PAGE_WRITTEN))
		return ERR_NOENT;
	op = op_new(s, id, OP_READ, page, data);
	if (!op)
		return ERR_BUSY;
	s->page_flags[page] = (u8)(flags | PAGE_BUSY);
	node = nearest(s, flags & s->head.up);
	if (unlikely(node == NO_NODE || post(s, op, node, RDMA_READ)))
		read_step(s, op);
	return 0;
}

int store_write(struct store *s, u64 id, u32 page, const void *data)
{
	struct store_op *op;
	bool begun;

	if (page >= s->config.pages)
		return ERR_NOENT;
	/* It is only read, but travels in the same member as what is read into. */
	op = op_new(s, id, OP_WRITE, page, (void *)(uintptr_t)data);
	if (!op)
		return ERR_BUSY;
	begun = write_begin(s, op);
	page_busy(s, page);
	if (begun) {
		write_step(s, op);
	} else {
		op->state = OP_QUEUED;
		set_waiting(s, op, true);
	}
	return 0;
}

void store_discard(struct store *s, u32 page)
{
	struct store_op *op;
	u32 i;

	if (page >= s->config.pages)
		return;
	/* Only a repair can be under way. */
	op = s->page_flags[page] & PAGE_BUSY ? op_on_page(s, page, NO_NUMBER) : NULL;
	if (op)
		op->dropped = true;
	for (i = 0; i < s->config.nodes; i++)
		slot_give_back(s, page, i);
	s->page_flags[page] = 0;
}

bool store_done(struct store *s, struct store_completion *c)
{
	struct store_op *op = s->done;

	if (!op)
		return false;
	c->id = op->id;
	c->result = op->result;
	op->state = OP_FREE;
	s->done = op->next;
	op->next = s->free;
	s->free = op;
	return true;
}

/* --- what nodes do -------------------------------------------------------------------------- */

static __noinline bool opens(struct store *s, const struct store_op *op)
{
	const struct seal_name name = {s->config.vm, op->page, s->version[op->page]};

	return seal_open(&s->seal, &name, op->data, s->tag[op->page]);
}

static void read_completed(struct store *s, struct store_op *op, u32 node, bool ok)
{
	if (!ok) {
		s->stats.failovers++;
		read_step(s, op);
		return;
	}
	s->stats.bytes_in += PAGE_SIZE;
	if (!s->config.seal || opens(s, op)) {
		s->stats.reads++;
		complete(s, op, STORE_OK);
		return;
	}
	s->stats.corrupt++;
	s->page_flags[op->page] &= (u8)~BIT(node);
	repair_scan(s);
	read_step(s, op);
}

static void write_completed(struct store *s, struct store_op *op, u32 node, bool ok)
{
	if (ok) {
		op->acked |= BIT(node);
		s->page_flags[op->page] |= (u8)BIT(node);
	} else {
		s->stats.failovers++;
	}
	write_step(s, op);
}

static void completed(struct store *s, const struct rdma_completion *c)
{
	struct store_op *op = (struct store_op *)(uintptr_t)(c->id & ~(u64)(ID_NODE | ID_WRITE));
	u32 node = c->id & ID_NODE;
	bool ok = c->status == RDMA_OK;

	s->node[node].inflight--;
	s->node[node].writes -= !!(c->id & ID_WRITE);
	op->pending &= ~BIT(node);
	s->head.places++;
	switch (op->kind) {
	case OP_READ:
		read_completed(s, op, node, ok);
		break;
	case OP_WRITE:
		write_completed(s, op, node, ok);
		break;
	case OP_REPAIR:
		repair_completed(s, op, node, ok);
		break;
	}
}

/* Notices that a node has come or gone. */
static void follow(struct store *s, u32 node)
{
	struct store_node *n = &s->node[node];
	const struct fabric_link *l = n->l;
	bool up = l->state == LINK_UP;

	if (up == n->up)
		return;
	n->up = up;
	s->head.up = up ? s->head.up | BIT(node) : s->head.up & ~BIT(node);
	s->head.look = true;
	repair_scan(s);
	if (!up) {
		n->down_since = s->now;
		return;
	}
	if (!n->used || n->incarnation != l->incarnation || n->length != l->length)
		node_forget(s, node, l->length);
	n->used = true;
	n->replaced = false;
	n->incarnation = l->incarnation;
}

static void step(struct store *s, struct store_op *op)
{
	if (op->state == OP_QUEUED && !write_begin(s, op))
		return;
	if (op->state == OP_ACTIVE && op->kind == OP_READ)
		read_step(s, op);
	else if (op->state == OP_ACTIVE)
		write_step(s, op);
}

static void look_again(struct store *s)
{
	u32 i;

	s->head.look = false;
	for (i = 0; i < STORE_INFLIGHT; i++)
		step(s, &s->op[i]);
}

/* What has ended leaves a place each, at some node: in turn, so that nobody waits for ever. */
static inline void hand_out_places(struct store *s)
{
	while (s->head.places && s->head.waiting) {
		u64 todo = s->head.waiting;
		u32 places = s->head.places;

		s->head.places = 0;
		while (todo && places) {
			u64 ahead = todo >> s->turn << s->turn;
			u32 i = (u32)__builtin_ctzll(ahead ? ahead : todo);

			todo &= ~BIT64(i);
			s->turn = (i + 1) % STORE_INFLIGHT;
			step(s, &s->op[i]);
			places -= !(s->head.waiting & BIT64(i));
		}
	}
	s->head.places = 0;
}

/* What has ended at a node, and whether it has come or gone. */
static void look_at_node(struct store *s, u32 node)
{
	struct fabric *fabric = s->config.fabric;
	struct store_node *n = &s->node[node];
	const struct fabric_link *l = n->l;
	struct rdma_completion c;

	/* A node that has gone must not be asked again by what it has failed. */
	if (n->up && l->state != LINK_UP)
		follow(s, node);
	while ((l->qp.req.head != l->qp.req.una || l->state == LINK_DOWN) &&
	       fabric_poll(fabric, n->link, &c))
		completed(s, &c);
	if (n->up != (l->state == LINK_UP))
		follow(s, node);
	if (n->up && !n->ready_count && node_has_room(n))
		slots_ahead(n);
}

void store_work(struct store *s, u64 now)
{
	u32 i;

	s->now = now;
	s->head.working = true;
	for (i = 0; i < s->config.nodes; i++)
		look_at_node(s, i);
	hand_out_places(s);
	if (s->head.look)
		look_again(s);
	if (s->config.nodes > 1) {
		repair_work(s);
		s->head.due = repair_deadline(s);
	}
	s->head.working = false;
}

u64 store_stalled(const struct store *s)
{
	u64 first = 0;
	u32 i;

	for (i = 0; i < STORE_INFLIGHT && s->head.stalled; i++)
		if (s->op[i].since && (!first || s->op[i].since < first))
			first = s->op[i].since;
	return first;
}

void store_stats(const struct store *s, struct store_stats *out)
{
	u32 page, up = s->head.up;

	*out = s->stats;
	out->nodes_up = nodes_in(up);
	out->under_replicated = 0;
	for (page = 0; page < s->config.pages; page++)
		if ((s->page_flags[page] & (PAGE_WRITTEN | PAGE_BUSY)) == PAGE_WRITTEN &&
		    nodes_in(s->page_flags[page] & up) < s->config.replicas)
			out->under_replicated++;
}
