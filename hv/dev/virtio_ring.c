/* Split virtqueues: see virtio_ring.h. */
#include "dev/virtio_ring.h"

#include "lib/string.h"
#include "vm/vm.h"

struct desc { /* 2.7.5 */
	u64 at;
	u32 bytes;
	u16 flags;
	u16 next;
};
_Static_assert(sizeof(struct desc) == 16, "virtq_desc");

#define DESC_NEXT     BIT(0)
#define DESC_WRITE    BIT(1)
#define DESC_INDIRECT BIT(2)

struct used_elem { /* 2.7.8 */
	u32 id;
	u32 bytes;
};
_Static_assert(sizeof(struct used_elem) == 8, "virtq_used_elem");

/* Offsets in the available ring (2.7.6) and in the used ring (2.7.8). */
#define AVAIL_FLAGS 0
#define AVAIL_INDEX 2
#define AVAIL_RING  4
#define USED_FLAGS  0
#define USED_INDEX  2
#define USED_RING   4

#define AVAIL_NO_INTERRUPT BIT(0)

/* --- guest memory ----------------------------------------------------------------------------- */

static bool permitted(struct vm *vm, gpa_t at, size_t bytes, u64 wanted)
{
	struct space *space = &vm->space;
	bool allowed = true;

	if (likely(!__atomic_load_n(&space->override_count, __ATOMIC_RELAXED)))
		return true;
	spin_lock(&space->lock);
	for (u64 page = at.v & PAGE_MASK; page < at.v + bytes && allowed; page += PAGE_SIZE)
		allowed = (space_perms(space, gpa(page)) & wanted) == wanted;
	spin_unlock(&space->lock);
	return allowed;
}

int virtio_dma_read(struct vm *vm, gpa_t from, void *to, size_t bytes)
{
	return permitted(vm, from, bytes, EPT_R) ? guest_read(vm, from, to, bytes) : ERR_FAULT;
}

int virtio_dma_write(struct vm *vm, gpa_t to, const void *from, size_t bytes)
{
	return permitted(vm, to, bytes, EPT_W) ? guest_write(vm, to, from, bytes) : ERR_FAULT;
}

int virtio_dma_zero(struct vm *vm, gpa_t to, size_t bytes)
{
	return permitted(vm, to, bytes, EPT_W) ? guest_zero(vm, to, bytes) : ERR_FAULT;
}

static bool is_ram(struct vm *vm, u64 at, u64 bytes)
{
	const struct region *region = space_find(&vm->space, gpa(at));

	return region && region_is_memory(region) && bytes <= region->bytes - (at - region->base.v);
}

/* Indices and flags: seen whole, whoever writes them. */
static int read_half(struct vm *vm, u64 at, u16 *out)
{
	u64 value = 0;
	int err = permitted(vm, gpa(at), 2, EPT_R) ? guest_read_word(vm, gpa(at), 2, &value)
						   : ERR_FAULT;

	*out = (u16)value;
	return err;
}

static int write_half(struct vm *vm, u64 at, u16 value)
{
	return permitted(vm, gpa(at), 2, EPT_W) ? guest_write_word(vm, gpa(at), 2, value)
						: ERR_FAULT;
}

/* --- queues ----------------------------------------------------------------------------------- */

/* Behind the rings (2.7.6, 2.7.8): where driver and device say when they want to hear of it. */
static u64 used_event(const struct virtq *q)
{
	return q->driver + AVAIL_RING + 2 * (u64)q->size;
}

static u64 avail_event(const struct virtq *q)
{
	return q->device + USED_RING + sizeof(struct used_elem) * (u64)q->size;
}

int virtq_start(struct vm *vm, struct virtq *q)
{
	u64 n = q->size;

	if (!n || n > VIRTQ_MAX || (n & (n - 1)))
		return ERR_INVAL;
	/* Alignments and sizes: table in 2.7. */
	if (!IS_ALIGNED(q->desc, 16) || !IS_ALIGNED(q->driver, 2) || !IS_ALIGNED(q->device, 4))
		return ERR_INVAL;
	if (!is_ram(vm, q->desc, sizeof(struct desc) * n) ||
	    !is_ram(vm, q->driver, AVAIL_RING + 2 * n + 2) ||
	    !is_ram(vm, q->device, USED_RING + sizeof(struct used_elem) * n + 2))
		return ERR_INVAL;
	q->next = q->used = q->signalled = 0;
	q->ready = true;
	return 0;
}

/* --- chains ----------------------------------------------------------------------------------- */

static int add_segment(struct vm *vm, struct virtq_chain *chain, const struct desc *d)
{
	if (d->bytes && !is_ram(vm, d->at, d->bytes))
		return ERR_FAULT;
	if (d->flags & DESC_WRITE) {
		chain->write_bytes += d->bytes;
	} else {
		/* Readable ones come first (2.7.4.2). */
		if (chain->count > chain->readable)
			return ERR_INVAL;
		chain->readable++;
		chain->read_bytes += d->bytes;
	}
	chain->seg[chain->count++] = (struct virtq_segment){d->at, d->bytes};
	return 0;
}

/* Follows a chain from element `index` of a table of `elements`. */
static int follow(struct vm *vm, const struct virtq *q, struct virtq_chain *chain, u64 table,
		  u32 elements, u32 index, bool indirect)
{
	for (;;) {
		struct desc d;
		int err;

		if (index >= elements)
			return ERR_INVAL;
		err = virtio_dma_read(vm, gpa(table + index * sizeof(d)), &d, sizeof(d));
		if (err)
			return err;
		if (d.flags & DESC_INDIRECT) {
			/* Not in an indirect table, nor with a next one (2.7.5.3.1). */
			if (indirect || !q->indirect || (d.flags & DESC_NEXT) || !d.bytes ||
			    d.bytes % sizeof(d))
				return ERR_INVAL;
			table = d.at;
			elements = d.bytes / sizeof(d);
			index = 0;
			indirect = true;
			continue;
		}
		/* This ends loops, too. */
		if (chain->count == q->size)
			return ERR_INVAL;
		err = add_segment(vm, chain, &d);
		if (err || !(d.flags & DESC_NEXT))
			return err;
		index = d.next;
	}
}

/* How many chains are available: 0 or an error too. */
static int available(struct vm *vm, const struct virtq *q)
{
	u16 index;
	int err = read_half(vm, q->driver + AVAIL_INDEX, &index);

	if (err)
		return err;
	index -= q->next;
	return index > q->size ? ERR_INVAL : index;
}

/* Asks to be notified; then looks again, since the driver may have been faster. */
static int rearm(struct vm *vm, struct virtq *q)
{
	if (q->event_idx) {
		int err = write_half(vm, avail_event(q), q->next);

		if (err)
			return err;
		/* The driver writes its index, then reads this one. */
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	}
	return available(vm, q);
}

int virtq_pop(struct vm *vm, struct virtq *q, struct virtq_chain *chain)
{
	int found = available(vm, q), err;
	u16 head;

	if (!found)
		found = rearm(vm, q);
	if (found <= 0)
		return found;
	err = read_half(vm, q->driver + AVAIL_RING + 2 * (u64)(q->next & (q->size - 1)), &head);
	if (err)
		return err;
	chain->head = head;
	chain->count = chain->readable = 0;
	chain->read_bytes = chain->write_bytes = 0;
	err = follow(vm, q, chain, q->desc, q->size, head, false);
	if (err)
		return err;
	/* Lengths that are given back have 32 bits (2.7.5.2). */
	if (chain->read_bytes + chain->write_bytes > 0xffffffff)
		return ERR_INVAL;
	q->next++;
	return 1;
}

int virtq_push(struct vm *vm, struct virtq *q, u16 head, u32 written)
{
	struct used_elem element = {head, written};
	u64 at = q->device + USED_RING + (u64)(q->used & (q->size - 1)) * sizeof(element);
	int err = virtio_dma_write(vm, gpa(at), &element, sizeof(element));

	if (err)
		return err;
	/* Stores stay in their order on this architecture: the element is there first. */
	err = write_half(vm, q->device + USED_INDEX, (u16)(q->used + 1));
	if (!err)
		q->used++;
	return err;
}

int virtq_wants_interrupt(struct vm *vm, struct virtq *q)
{
	u16 old = q->signalled, value;
	int err;

	if (old == q->used)
		return 0;
	q->signalled = q->used;
	/* Our index, then what the driver says; it writes and reads the other way round. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	err = read_half(vm, q->event_idx ? used_event(q) : q->driver + AVAIL_FLAGS, &value);
	if (err == ERR_AGAIN)
		q->signalled = old;
	if (err)
		return err;
	if (!q->event_idx)
		return !(value & AVAIL_NO_INTERRUPT);
	/* Element `value` is among those that have been used (2.7.7.2). */
	return (u16)(q->used - value - 1) < (u16)(q->used - old);
}

/* --- the bytes of a chain --------------------------------------------------------------------- */

struct virtq_cursor virtq_writable(const struct virtq_chain *chain)
{
	return (struct virtq_cursor){.seg = chain->readable};
}

u32 virtq_take(const struct virtq_chain *chain, struct virtq_cursor *at, u64 most, gpa_t *out)
{
	const struct virtq_segment *seg;
	u32 n;

	while (at->seg < chain->count && at->offset == chain->seg[at->seg].bytes) {
		at->seg++;
		at->offset = 0;
	}
	if (at->seg == chain->count)
		return 0;
	seg = &chain->seg[at->seg];
	n = (u32)MIN((u64)(seg->bytes - at->offset), most);
	*out = gpa(seg->at + at->offset);
	at->offset += n;
	return n;
}

gpa_t virtq_last_writable(const struct virtq_chain *chain)
{
	const struct virtq_segment *seg = &chain->seg[chain->count - 1];

	while (!seg->bytes)
		seg--;
	return gpa(seg->at + seg->bytes - 1);
}

int virtq_read(struct vm *vm, const struct virtq_chain *chain, struct virtq_cursor *at, void *to,
	       u32 bytes)
{
	u8 *out = to;

	while (bytes) {
		gpa_t from;
		u32 n = virtq_take(chain, at, bytes, &from);
		int err = n ? virtio_dma_read(vm, from, out, n) : ERR_INVAL;

		if (err)
			return err;
		out += n;
		bytes -= n;
	}
	return 0;
}
