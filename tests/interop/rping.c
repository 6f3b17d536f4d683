/*
 * The counterpart of Linux's rping, client or server, made of hv/rdma: SEND and RECV both ways, and
 * in the client's memory a READ and a WRITE each round.
 *
 *   rping client|server LOCAL:REMOTE ROUNDS SIZE [LOSS-PER-MILLE [MTU]]
 *
 * The MTU, 1024 unless told, is the client's: a server takes what the other side says.
 *
 * We are 10.77.0.2, the other one is 10.77.0.1. Ends with 0 if every round had the right bytes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peer.h"

#define OUR_IP	 0x0a4d0002u
#define THEIR_IP 0x0a4d0001u
#define PORT	 7174
#define BUFFER	 (1u << 20)
#define KEY	 0x11223300u
#define VA	 0x700000000000ull

/* What rping's SENDs carry: where the sender's buffer is. */
struct advert {
	u8 va[8], rkey[4], size[4];
};

static u8 memory[2 * BUFFER]; /* source, sink */
static struct advert in[2], out;

static void post_receive(u64 slot)
{
	struct rdma_receive r = {slot, &in[slot], sizeof(in[slot])};

	if (rdma_post_receive(&peer.qp[0], &r))
		peer_fail("a receive was not taken");
}

static void post_both(void)
{
	post_receive(0);
	post_receive(1);
}

/* Waits for a message and gives its receive back to the QP; returns its content. */
static struct advert receive(void)
{
	u64 slot = peer_message(sizeof(struct advert));
	struct advert a = in[slot];

	post_receive(slot);
	return a;
}

static void send_advert(u64 va, u32 size)
{
	struct rdma_work w = {.op = RDMA_SEND, .data = &out, .length = sizeof(out)};

	put_be64(out.va, va);
	put_be32(out.rkey, KEY);
	put_be32(out.size, size);
	peer_do(0, &w);
}

/* The other side READs our source and WRITEs it to our sink. */
static void client_round(u32 round, u32 size)
{
	u32 i;

	for (i = 0; i < size; i++)
		memory[i] = (u8)(33 + (round * 31 + i * 7 + i / 251) % 90);
	memory[size - 1] = 0; /* rping's server writes a string back */
	memset(memory + BUFFER, 0, size + 1);
	send_advert(VA, size);
	receive();
	send_advert(VA + BUFFER, size);
	receive();
	if (memcmp(memory, memory + BUFFER, size) || memory[BUFFER + size])
		peer_fail("other bytes came back");
}

static void transfer(enum rdma_operation op, const struct advert *a, u32 size)
{
	struct rdma_work w = {
		.op = op, .data = memory, .length = size, .rkey = be32(a->rkey), .va = be64(a->va)};

	peer_do(0, &w);
	send_advert(VA, size);
}

/* We READ the other side's source and WRITE it to its sink; it compares. */
static void server_round(u32 size)
{
	struct advert a = receive();

	if (be32(a.size) != size)
		peer_fail("the other side has another size");
	transfer(RDMA_READ, &a, size);
	a = receive();
	transfer(RDMA_WRITE, &a, size);
}

int main(int argc, char **argv)
{
	u32 rounds, size, round;
	struct cm_offer offer;
	bool client;
	char what[64];
	u64 start;

	if (argc < 5)
		return 2;
	client = strcmp(argv[1], "client") == 0;
	peer_open("rping", argv[2], OUR_IP);
	rounds = (u32)atoi(argv[3]);
	size = (u32)atoi(argv[4]);
	peer.wire.loss = argc > 5 ? (u32)atoi(argv[5]) : 0;
	offer = peer_offer(argc > 6 ? (u16)atoi(argv[6]) : 1024);
	if (!size || size >= BUFFER)
		return 2;
	peer.region[0] = (struct rdma_region){memory, VA, sizeof(memory), KEY,
					      RDMA_REMOTE_READ | RDMA_REMOTE_WRITE};
	if (!client)
		peer_accept(PORT, post_both);
	else if (!peer_connect(THEIR_IP, PORT, &offer, PATIENCE, post_both))
		peer_fail("no connection");
	start = wire_now();
	for (round = 0; round < rounds; round++) {
		if (client)
			client_round(round, size);
		else
			server_round(size);
	}
	snprintf(what, sizeof(what), "%u rounds of %u bytes", rounds, size);
	peer_print(what, 0, wire_now() - start);
	/* Let the client be the one that ends, as rping's is. */
	peer_end(client);
	return 0;
}
