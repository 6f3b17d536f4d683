/* A virtio console: see virtio_console.h. */
#include "dev/virtio_console.h"

#include "lib/string.h"
#include "vm/console.h"
#include "vm/vm.h"

#define CONFIG_MAX_PORTS 4
#define CONFIG_BYTES	 12 /* cols, rows, max_nr_ports, emerg_wr (5.3.4) */

void virtio_console_create(struct virtio_dev *dev)
{
	dev->id = VIRTIO_CONSOLE;
	dev->offered |= VIRTIO_CONSOLE_F_EMERG_WRITE;
	dev->queue_count = 2;
	dev->max_chain = VIRTQ_MAX;
	dev->config_bytes = CONFIG_BYTES;
	dev->config[CONFIG_MAX_PORTS] = 1;
}

void virtio_console_reset(struct virtio_console *c)
{
	c->active = false;
	virtio_console_drop_input(c);
	__atomic_store_n(&c->opened, 0, __ATOMIC_RELAXED);
}

/* --- output ----------------------------------------------------------------------------------- */

static int print(struct vm *vm, struct virtio_console *c)
{
	struct virtq_cursor before = c->cursor;
	u8 text[128];
	gpa_t from;
	u32 n = virtq_take(&c->chain, &c->cursor, MIN(c->left, sizeof(text)), &from);
	int err = n ? virtio_dma_read(vm, from, text, n) : ERR_INVAL;

	if (err) {
		c->cursor = before;
		return err;
	}
	for (u32 i = 0; i < n; i++)
		console_put(vm, text[i]);
	c->left -= n;
	return (int)n * VIRTIO_COST_OUTPUT;
}

/* One step of the work: returns its cost, 0 if there is nothing to do, or an error. */
static int output_step(struct vm *vm, struct virtq *q, struct virtio_console *c)
{
	int result;

	if (c->active && c->left)
		return print(vm, c);
	if (c->active) {
		result = virtq_push(vm, q, c->chain.head, 0);
		c->active = result == ERR_AGAIN;
		return result ? result : 1;
	}
	result = virtq_pop(vm, q, &c->chain);
	if (result <= 0)
		return result;
	c->active = true;
	c->cursor = (struct virtq_cursor){0};
	c->left = c->chain.read_bytes;
	if (c->left)
		__atomic_store_n(&c->opened, 1, __ATOMIC_RELAXED);
	return VIRTIO_COST_CHAIN + c->chain.count * VIRTIO_COST_DESC;
}

void virtio_console_transmit(struct vm *vm, struct virtio *v, struct virtio_dev *dev,
			     struct virtio_console *c)
{
	struct virtq *q = &dev->queue[VIRTIO_CONSOLE_TX];
	int budget = VIRTIO_PIECE, cost;

	do {
		cost = output_step(vm, q, c);
		budget -= cost;
	} while (cost > 0 && budget > 0);
	if (cost < 0 && cost != ERR_AGAIN) {
		virtio_broken(vm, v, dev, "its output ring makes no sense");
		return;
	}
	virtio_set_busy(dev, cost);
	virtio_finish(vm, v, dev, q);
}

/* --- input ------------------------------------------------------------------------------------ */

/* Fills the buffer with what has been typed: how many bytes, or an error. */
static int fill(struct vm *vm, const struct virtq_chain *buffer)
{
	struct virtq_cursor cursor = virtq_writable(buffer);
	u32 room, count, total = 0;
	u8 text[64];
	gpa_t to;

	do {
		room = virtq_take(buffer, &cursor, sizeof(text), &to);
		/* What has been taken from the console cannot be given back. */
		if (room && vm->remote) {
			int err = virtio_dma_zero(vm, to, room);

			if (err)
				return total ? (int)total : err;
		}
		for (count = 0; count < room; count++) {
			int byte = console_get(vm);

			if (byte < 0)
				break;
			text[count] = (u8)byte;
		}
		if (count && virtio_dma_write(vm, to, text, count))
			return ERR_FAULT;
		total += count;
	} while (count && count == room);
	return (int)total;
}

/* As output_step(). A buffer that is taken while there is no input is kept for later. */
static int input_step(struct vm *vm, struct virtq *q, struct virtio_console *c)
{
	int result, err;

	if (!c->input_active) {
		result = virtq_pop(vm, q, &c->input);
		if (result <= 0)
			return result;
		if (!c->input.write_bytes)
			return ERR_INVAL;
		c->input_active = true;
	}
	result = c->filled ? (int)c->filled : fill(vm, &c->input);
	if (result <= 0)
		return result;
	c->filled = (u32)result;
	err = virtq_push(vm, q, c->input.head, (u32)result);
	if (err)
		return err;
	c->input_active = false;
	c->filled = 0;
	return VIRTIO_COST_CHAIN + c->input.count * VIRTIO_COST_DESC + result;
}

void virtio_console_receive(struct vm *vm, struct virtio *v, struct virtio_dev *dev,
			    struct virtio_console *c)
{
	struct virtq *q = &dev->queue[VIRTIO_CONSOLE_RX];
	int budget = VIRTIO_PIECE, cost;

	if (!c->opened)
		return;
	do {
		cost = input_step(vm, q, c);
		budget -= cost;
	} while (cost > 0 && budget > 0);
	if (cost == ERR_AGAIN)
		__atomic_store_n(&v->input_due, 1, __ATOMIC_RELAXED);
	else if (cost < 0) {
		virtio_broken(vm, v, dev, "its input ring makes no sense");
		return;
	}
	virtio_finish(vm, v, dev, q);
}
