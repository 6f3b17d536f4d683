/* Where copies lie: slots of nodes, taken ahead by the slab, and which node has which page. */
#include "lib/string.h"
#include "remote/store_internal.h"

/* A slab: the free slots of the next word of the bitmap that has any. */
void slots_ahead(struct store_node *n)
{
	u32 words = (n->slots + 63) / 64, i, bit;

	for (i = 0; i < words && !n->ready_count; i++) {
		u64 *word = &n->bitmap[n->cursor];

		/* Handed out from the end of `ready`: the lowest first. */
		for (bit = 64; bit--;) {
			u32 slot = n->cursor * 64 + bit;

			if (slot < n->slots && !(*word & BIT64(bit)))
				n->ready[n->ready_count++] = slot;
		}
		*word = ~0ull;
		n->cursor = (n->cursor + 1) % words;
	}
}

bool slot_take(struct store *s, u32 page, u32 node)
{
	struct store_node *n = &s->node[node];

	if (!n->ready_count)
		slots_ahead(n);
	if (!n->ready_count)
		return false;
	*slot_of(s, page, node) = n->ready[--n->ready_count] + 1;
	n->taken++;
	return true;
}

void slot_give_back(struct store *s, u32 page, u32 node)
{
	struct store_node *n = &s->node[node];
	u32 *at = slot_of(s, page, node), slot;

	if (!*at)
		return;
	slot = *at - 1;
	*at = 0;
	n->bitmap[slot / 64] &= ~BIT64(slot % 64);
	n->taken--;
	s->page_flags[page] &= (u8)~BIT(node);
}

void node_forget(struct store *s, u32 node, u64 length)
{
	struct store_node *n = &s->node[node];
	u32 page, i;

	for (page = 0; page < s->config.pages && n->taken; page++) {
		*slot_of(s, page, node) = 0;
		s->page_flags[page] &= (u8)~BIT(node);
	}
	for (i = 0; i < STORE_OPS; i++)
		s->op[i].acked &= ~BIT(node);
	memset(n->bitmap, 0, (s->config.pages + 63) / 64 * sizeof(*n->bitmap));
	n->slots = (u32)MIN(length / PAGE_SIZE, (u64)s->config.pages);
	n->taken = n->ready_count = n->cursor = 0;
	n->length = length;
}

void store_node_view(const struct store *s, u32 i, struct store_node_view *out)
{
	const struct store_node *n = &s->node[i];

	*out = (struct store_node_view){.up = n->up, .slots = n->slots, .taken = n->taken};
}
