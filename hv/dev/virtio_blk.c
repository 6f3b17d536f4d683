/* A virtio disk: see virtio_blk.h. */
#include "dev/virtio_blk.h"

#include "lib/string.h"
#include "mem/frame.h"
#include "vm/vm.h"

struct header { /* 5.2.6 */
	u32 type;
	u32 reserved;
	u64 sector;
};
_Static_assert(sizeof(struct header) == 16, "virtio_blk_req");

struct zeroes { /* 5.2.6: virtio_blk_discard_write_zeroes */
	u64 sector;
	u32 sectors;
	u32 flags;
};
_Static_assert(sizeof(struct zeroes) == 16, "virtio_blk_discard_write_zeroes");

/* Offsets in the configuration space, 5.2.4. */
#define CONFIG_CAPACITY	      0
#define CONFIG_SEG_MAX	      12
#define CONFIG_BLK_SIZE	      20
#define CONFIG_MAX_ZEROES     48
#define CONFIG_MAX_ZEROES_SEG 52
#define CONFIG_BYTES	      60

/* --- life ------------------------------------------------------------------------------------- */

static void put(struct virtio_dev *dev, u32 offset, u64 value, u32 bytes)
{
	memcpy(dev->config + offset, &value, bytes);
}

static const char *last_part(const char *path)
{
	const char *last = path;

	for (; *path; path++)
		if (*path == '/' || *path == '\\')
			last = path + 1;
	return last;
}

int virtio_blk_create(struct virtio_dev *dev, struct virtio_blk *b, const struct boot_file *image,
		      bool read_only)
{
	const char *name = last_part(image->path);

	b->image = image->base;
	b->pages = ALIGN_UP(image->bytes, PAGE_SIZE) / PAGE_SIZE;
	b->sectors = ALIGN_UP(image->bytes, VIRTIO_SECTOR) / VIRTIO_SECTOR;
	b->read_only = read_only;
	memcpy(b->name, name, strnlen(name, sizeof(b->name)));
	dev->id = VIRTIO_BLK;
	dev->queue_count = 1;
	dev->max_chain = VIRTQ_MAX;
	dev->offered |= VIRTIO_BLK_F_SEG_MAX | VIRTIO_BLK_F_BLK_SIZE | VIRTIO_BLK_F_FLUSH;
	dev->config_bytes = CONFIG_BYTES;
	put(dev, CONFIG_CAPACITY, b->sectors, 8);
	put(dev, CONFIG_SEG_MAX, VIRTQ_MAX - 2, 4); /* but header and status */
	put(dev, CONFIG_BLK_SIZE, VIRTIO_SECTOR, 4);
	if (read_only) {
		dev->offered |= VIRTIO_BLK_F_RO;
		return 0;
	}
	dev->offered |= VIRTIO_BLK_F_WRITE_ZEROES;
	put(dev, CONFIG_MAX_ZEROES, VIRTIO_BLK_MAX_ZEROES, 4);
	put(dev, CONFIG_MAX_ZEROES_SEG, 1, 4);
	b->own = heap_alloc(b->pages * sizeof(b->own[0]));
	return b->own ? 0 : ERR_NOMEM;
}

void virtio_blk_destroy(struct vm *vm, struct virtio_blk *b)
{
	if (!b->own)
		return;
	for (u64 i = 0; i < b->pages && b->own_count; i++) {
		if (!b->own[i])
			continue;
		frame_free((frame_owner_t)(FRAME_VM_BASE + vm->id), hpa(b->own[i]), PAGE_SIZE);
		b->own_count--;
	}
	heap_free(b->own, b->pages * sizeof(b->own[0]));
	b->own = NULL;
}

void virtio_blk_reset(struct virtio_blk *b)
{
	b->active = false;
}

/* --- the disk's bytes ------------------------------------------------------------------------- */

static u64 page_address(const struct virtio_blk *b, u64 page)
{
	return b->own && b->own[page] ? b->own[page] : b->image + page * PAGE_SIZE;
}

/* Where the disk's bytes from `at` on are, and how many of `most` follow each other there. */
static const u8 *readable(const struct virtio_blk *b, u64 at, u64 most, u64 *run)
{
	u64 page = at / PAGE_SIZE, offset = at % PAGE_SIZE, first = page_address(b, page);
	u64 n = PAGE_SIZE - offset;

	for (u64 next = first; n < most; n += PAGE_SIZE) {
		next += PAGE_SIZE;
		if (page_address(b, ++page) != next)
			break;
	}
	*run = MIN(n, most);
	return phys_to_ptr(hpa(first + offset));
}

/* The VM's own copy of a page, or NULL if there is no memory. `whole`: it will be overwritten. */
static u8 *writable(struct vm *vm, struct virtio_blk *b, u64 page, bool whole)
{
	hpa_t frame;

	if (likely(b->own[page]))
		return phys_to_ptr(hpa(b->own[page]));
	if (frame_alloc((frame_owner_t)(FRAME_VM_BASE + vm->id), PAGE_SIZE, PAGE_SIZE, &frame))
		return NULL;
	if (!whole)
		memcpy(phys_to_ptr(frame), phys_to_ptr(hpa(page_address(b, page))), PAGE_SIZE);
	b->own[page] = frame.v;
	b->own_count++;
	return phys_to_ptr(frame);
}

/* --- requests --------------------------------------------------------------------------------- */

static void fail(struct virtio_blk *b, u8 result)
{
	b->result = result;
	b->left = 0;
}

static void set_range(struct virtio_blk *b, u64 sector, u64 bytes)
{
	u64 sectors = bytes / VIRTIO_SECTOR;

	if (bytes % VIRTIO_SECTOR || sector > b->sectors || sectors > b->sectors - sector) {
		fail(b, VIRTIO_BLK_S_IOERR);
		return;
	}
	b->at = sector * VIRTIO_SECTOR;
	b->left = bytes;
}

static int begin_zeroes(struct vm *vm, const struct virtio_dev *dev, struct virtio_blk *b)
{
	struct zeroes range;
	int err;

	if (!(dev->accepted & VIRTIO_BLK_F_WRITE_ZEROES)) {
		fail(b, VIRTIO_BLK_S_UNSUPP);
		return 0;
	}
	if (b->chain.read_bytes != sizeof(struct header) + sizeof(range)) {
		fail(b, VIRTIO_BLK_S_IOERR);
		return 0;
	}
	err = virtq_read(vm, &b->chain, &b->cursor, &range, sizeof(range));
	if (err)
		return err;
	if (range.flags & ~VIRTIO_BLK_UNMAP)
		fail(b, VIRTIO_BLK_S_UNSUPP);
	else if (range.sectors > VIRTIO_BLK_MAX_ZEROES)
		fail(b, VIRTIO_BLK_S_IOERR);
	else
		set_range(b, range.sector, (u64)range.sectors * VIRTIO_SECTOR);
	return 0;
}

static int give_name(struct vm *vm, struct virtio_blk *b)
{
	u32 done = 0, n;
	gpa_t to;

	if (b->chain.write_bytes <= sizeof(b->name)) {
		fail(b, VIRTIO_BLK_S_IOERR);
		return 0;
	}
	b->cursor = virtq_writable(&b->chain);
	while ((n = virtq_take(&b->chain, &b->cursor, sizeof(b->name) - done, &to))) {
		int err = virtio_dma_write(vm, to, b->name + done, n);

		if (err)
			return err;
		done += n;
	}
	return 0;
}

/* A chain has come: what is asked for. An error if it is no request at all. */
static int begin(struct vm *vm, const struct virtio_dev *dev, struct virtio_blk *b)
{
	struct header header;
	u64 data = b->chain.read_bytes - sizeof(header), room = b->chain.write_bytes - 1;
	int err;

	if (b->chain.read_bytes < sizeof(header) || !b->chain.write_bytes)
		return ERR_INVAL;
	b->cursor = (struct virtq_cursor){0};
	err = virtq_read(vm, &b->chain, &b->cursor, &header, sizeof(header));
	if (err)
		return err;
	b->active = true;
	b->result = VIRTIO_BLK_S_OK;
	b->type = header.type;
	b->left = 0;
	switch (header.type) {
	case VIRTIO_BLK_T_IN:
		b->cursor = virtq_writable(&b->chain);
		set_range(b, header.sector, room);
		return 0;
	case VIRTIO_BLK_T_OUT:
		if (b->read_only)
			fail(b, VIRTIO_BLK_S_IOERR);
		else
			set_range(b, header.sector, data);
		return 0;
	case VIRTIO_BLK_T_FLUSH:
		return 0;
	case VIRTIO_BLK_T_GET_ID:
		return give_name(vm, b);
	case VIRTIO_BLK_T_WRITE_ZEROES:
		return begin_zeroes(vm, dev, b);
	default:
		fail(b, VIRTIO_BLK_S_UNSUPP);
		return 0;
	}
}

static int copy_out(struct vm *vm, struct virtio_blk *b, u64 most, u64 *done)
{
	gpa_t to;
	u32 room = virtq_take(&b->chain, &b->cursor, most, &to);
	const u8 *from;

	if (!room)
		return ERR_INVAL;
	from = readable(b, b->at, room, done);
	b->cursor.offset -= room - (u32)*done; /* the rest of it comes from elsewhere */
	return virtio_dma_write(vm, to, from, *done);
}

static int copy_in(struct vm *vm, struct virtio_blk *b, u64 most, u64 *done)
{
	u64 offset = b->at % PAGE_SIZE;
	bool zeroes = b->type == VIRTIO_BLK_T_WRITE_ZEROES;
	gpa_t from = gpa(0);
	int err = 0;
	u8 *to;

	*done = MIN(most, PAGE_SIZE - offset);
	if (!zeroes)
		*done = virtq_take(&b->chain, &b->cursor, *done, &from);
	if (!*done)
		return ERR_INVAL;
	to = writable(vm, b, b->at / PAGE_SIZE, *done == PAGE_SIZE);
	if (!to)
		return ERR_NOMEM;
	if (!zeroes)
		err = virtio_dma_read(vm, from, to + offset, *done);
	/* Also after a failure: a fresh page holds somebody else's data. */
	if (zeroes || err)
		memset(to + offset, 0, *done);
	return err;
}

static int complete(struct vm *vm, struct virtq *q, struct virtio_blk *b)
{
	const struct virtq_chain *chain = &b->chain;
	u32 written = 0;
	int err = virtio_dma_write(vm, virtq_last_writable(chain), &b->result, 1);

	if (err)
		return err;
	/* Written without a gap from the first byte on (2.7.8.2): the status is the last byte. */
	if (chain->write_bytes == 1 || (b->type == VIRTIO_BLK_T_IN && !b->result))
		written = (u32)chain->write_bytes;
	else if (b->type == VIRTIO_BLK_T_GET_ID && !b->result)
		written = sizeof(b->name);
	err = virtq_push(vm, q, chain->head, written);
	b->active = err;
	return err;
}

/*
 * One step of the work, about as large as the budget at most: returns its cost, 0 if there is
 * nothing to do, or an error.
 */
static int step(struct vm *vm, const struct virtio_dev *dev, struct virtq *q, struct virtio_blk *b,
		u64 budget)
{
	struct virtq_cursor before = b->cursor;
	u64 done;
	int err;

	if (!b->active) {
		err = virtq_pop(vm, q, &b->chain);
		if (err <= 0)
			return err;
		err = begin(vm, dev, b);
		if (err == ERR_AGAIN) {
			b->active = false;
			virtq_unpop(q);
		}
		return err ? err : VIRTIO_COST_CHAIN + b->chain.count * VIRTIO_COST_DESC;
	}
	if (!b->left) {
		err = complete(vm, q, b);
		return err ? err : 1;
	}
	done = MIN(b->left, MAX(budget, PAGE_SIZE));
	err = b->type == VIRTIO_BLK_T_IN ? copy_out(vm, b, done, &done)
					 : copy_in(vm, b, done, &done);
	if (err == ERR_AGAIN) {
		b->cursor = before;
		return err;
	}
	if (err == ERR_NOMEM) {
		fail(b, VIRTIO_BLK_S_IOERR);
		return 1;
	}
	b->at += done;
	b->left -= done;
	return err ? err : (int)done + VIRTIO_COST_DESC;
}

void virtio_blk_serve(struct vm *vm, struct virtio *v, struct virtio_dev *dev, struct virtio_blk *b)
{
	struct virtq *q = &dev->queue[0];
	int budget = VIRTIO_PIECE, cost;

	do {
		cost = step(vm, dev, q, b, (u64)budget);
		budget -= cost;
	} while (cost > 0 && budget > 0);
	if (cost < 0 && cost != ERR_AGAIN) {
		b->active = false;
		virtio_broken(vm, v, dev, "its ring makes no sense");
		return;
	}
	virtio_set_busy(dev, cost);
	virtio_finish(vm, v, dev, q);
}
