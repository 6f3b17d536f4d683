/*
 * A fabric and up to four memory nodes in one process, with a network between them that loses,
 * copies, delays and alters frames. Nodes can be stopped, held, restarted, and made to lie. Time
 * jumps to the next event.
 */
#pragma once

#include <stdlib.h>
#include <string.h>

#include "rdma/fabric.h"
#include "rdma/take.h"

#define NET_NODES  4u
#define NET_FRAMES 4096u
#define NET_MS	   1000000ull
#define HOST_IP	   0x0a4d0001u
#define NODE_IP(i) (0x0a4d0010u + (i))

struct net_frame {
	u64 due;
	u32 len;
	int to; /* a node, or -1: the fabric */
	u8 *bytes;
};

struct net_faults { /* chances in 1/1000 */
	u32 loss, copy, delay, alter;
};

struct net_node {
	struct node node;
	u8 *memory;
	u64 length;
	u32 slices;
	u64 entropy;
	bool stopped;	/* hears and says nothing */
	u64 held_until; /* its frames arrive then */
};

struct fabric_net {
	struct fabric fabric;
	struct net_node node[NET_NODES];
	u32 nodes;
	struct net_frame net[NET_FRAMES];
	u32 flying;
	struct net_faults faults;
	u64 now, seed, one_way;
	u64 frames, overflowed;
	bool unresolved; /* nobody answers to ARP */
	u32 resolutions;
	/* Called when the fabric has worked; a store does its work here. */
	void (*users)(struct fabric_net *n);
	u64 (*deadline)(struct fabric_net *n);
	void *user;
};

static struct fabric_net *the_net;

static const u8 host_mac[6] = {2, 0, 0, 0, 0, 1};
static const u8 net_token[NODE_TOKEN] = "open sesame";

int fabric_resolve(u32 ip, u8 mac[6])
{
	the_net->resolutions++;
	if (the_net->unresolved)
		return ERR_BUSY;
	memcpy(mac, (const u8[6]){2, 0, 0, 0, 1, (u8)ip}, 6);
	return 0;
}

static inline u32 net_random(struct fabric_net *n, u32 below)
{
	n->seed = n->seed * 6364136223846793005ull + 1442695040888963407ull;
	return (u32)(n->seed >> 33) % below;
}

/* Starts a node anew: no connections; another `entropy` is another incarnation. */
static inline void net_node_start(struct fabric_net *n, u32 i, u64 entropy)
{
	struct net_node *node = &n->node[i];
	struct node_config config = {
		.mac = {2, 0, 0, 0, 1, (u8)NODE_IP(i)},
		.ip = NODE_IP(i),
		.guid = 100 + i,
		.port = NODE_PORT,
		.memory = node->memory,
		.length = node->length,
		.slices = node->slices,
		.entropy = entropy,
	};

	if (entropy != node->entropy)
		memset(node->memory, 0x5a, node->length);
	node->entropy = entropy;
	memcpy(config.token, net_token, NODE_TOKEN);
	if (node_init(&node->node, &config))
		abort();
	node->stopped = false;
}

static inline void net_add_node(struct fabric_net *n, u64 length, u32 slices)
{
	struct net_node *node = &n->node[n->nodes];

	node->memory = calloc(1, length);
	node->length = length;
	node->slices = slices;
	net_node_start(n, n->nodes, 1000 + n->nodes);
	n->nodes++;
}

static inline struct fabric_net *net_new(u64 seed)
{
	struct fabric_net *n = calloc(1, sizeof(*n));

	n->seed = seed;
	n->now = 1000;
	n->one_way = 20000;
	fabric_init(&n->fabric, 1024, seed + 77);
	fabric_set_address(&n->fabric, host_mac, HOST_IP);
	the_net = n;
	return n;
}

static inline void net_free(struct fabric_net *n)
{
	u32 i;

	while (n->flying)
		free(n->net[--n->flying].bytes);
	for (i = 0; i < n->nodes; i++)
		free(n->node[i].memory);
	free(n);
}

static inline int net_link(struct fabric_net *n, u32 node)
{
	struct fabric_peer peer = {.ip = NODE_IP(node), .port = NODE_PORT, .slice = NODE_ANY_SLICE};

	memcpy(peer.token, net_token, NODE_TOKEN);
	return fabric_link(&n->fabric, &peer);
}

static inline void net_put(struct fabric_net *n, int to, const u8 *bytes, u32 len, u64 due)
{
	struct net_frame *f = &n->net[n->flying];

	if (n->flying == NET_FRAMES) {
		n->overflowed++;
		return;
	}
	/* Exactly as long as the frame, so that reading past its end is noticed. */
	*f = (struct net_frame){due, len, to, malloc(len)};
	memcpy(f->bytes, bytes, len);
	n->flying++;
}

static inline void net_send(struct fabric_net *n, int to, const struct rdma_frame *f)
{
	u8 bytes[RDMA_FRAME_MAX];
	u32 len = rdma_frame_copy(f, bytes);
	u64 due = n->now + n->one_way;

	n->frames++;
	if (net_random(n, 1000) < n->faults.loss)
		return;
	if (net_random(n, 1000) < n->faults.delay)
		due += net_random(n, 20) * n->one_way;
	if (net_random(n, 1000) < n->faults.copy)
		net_put(n, to, bytes, len, due + (1 + net_random(n, 10)) * n->one_way);
	if (net_random(n, 1000) < n->faults.alter) {
		u32 flips = 1 + net_random(n, 3);

		while (flips--)
			bytes[net_random(n, len)] ^= (u8)(1u << net_random(n, 8));
	}
	net_put(n, to, bytes, len, due);
}

static inline bool net_take(struct fabric_net *n, struct net_frame *f)
{
	u32 i, first = NET_FRAMES;

	for (i = 0; i < n->flying; i++)
		if (n->net[i].due <= n->now &&
		    (first == NET_FRAMES || n->net[i].due < n->net[first].due))
			first = i;
	if (first == NET_FRAMES)
		return false;
	*f = n->net[first];
	memmove(&n->net[first], &n->net[first + 1], (--n->flying - first) * sizeof(*f));
	return true;
}

static inline u32 net_destination(const u8 *bytes)
{
	return be32(bytes + 14 + offsetof(struct ipv4_hdr, dst));
}

static inline void net_deliver(struct fabric_net *n)
{
	struct net_frame f;

	while (net_take(n, &f)) {
		if (f.to < 0) {
			if (!fabric_take(&n->fabric, n->now, f.bytes, f.len))
				fabric_receive(&n->fabric, n->now, f.bytes, f.len);
		} else {
			struct net_node *node = &n->node[f.to];

			if (n->now < node->held_until)
				net_put(n, f.to, f.bytes, f.len, node->held_until);
			else if (!node->stopped)
				node_receive(&node->node, n->now, f.bytes, f.len);
		}
		free(f.bytes);
	}
}

static inline u64 net_next(struct fabric_net *n)
{
	u64 next = fabric_deadline(&n->fabric);
	u32 i;

	if (n->deadline)
		next = MIN(next, n->deadline(n));
	for (i = 0; i < n->nodes; i++)
		if (!n->node[i].stopped)
			next = MIN(next,
				   MAX(node_deadline(&n->node[i].node), n->node[i].held_until));
	for (i = 0; i < n->flying; i++)
		next = MIN(next, n->net[i].due);
	return next;
}

/* One round, and time goes on to the next event, at most by `most` ns. */
static inline void net_step(struct fabric_net *n, u64 most)
{
	struct rdma_frame f;
	u32 i;

	net_deliver(n);
	fabric_work(&n->fabric, n->now);
	if (n->users)
		n->users(n);
	while (fabric_transmit(&n->fabric, n->now, &f))
		for (i = 0; i < n->nodes; i++)
			if (NODE_IP(i) == net_destination(f.head))
				net_send(n, (int)i, &f);
	for (i = 0; i < n->nodes; i++)
		while (!n->node[i].stopped && n->now >= n->node[i].held_until &&
		       node_transmit(&n->node[i].node, n->now, &f))
			net_send(n, -1, &f);
	n->now = MIN(MAX(net_next(n), n->now + 1000), n->now + most);
}

static inline void net_run(struct fabric_net *n, u64 time)
{
	u64 end = n->now + time;

	while (n->now < end)
		net_step(n, end - n->now);
}
