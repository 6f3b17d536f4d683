/*
 * The counterpart of Linux's rping, client or server, made of hv/rdma: SEND and RECV both ways, and
 * in the client's memory a READ and a WRITE each round.
 *
 *   rping client|server LOCAL-UDP-PORT REMOTE-UDP-PORT ROUNDS SIZE [LOSS-PER-MILLE [MTU]]
 *
 * The MTU, 1024 unless told, is the client's: a server takes what the other side says.
 *
 * We are 10.77.0.2, the other one is 10.77.0.1. Ends with 0 if every round had the right bytes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rdma/cm.h"
#include "wire.h"

#define OUR_IP	 0x0a4d0002u
#define THEIR_IP 0x0a4d0001u
#define PORT	 7174
#define BUFFER	 (1u << 20)
#define KEY	 0x11223300u
#define VA	 0x700000000000ull
#define PATIENCE (30ull * 1000000000) /* for any one step */

/* What rping's SENDs carry: where the sender's buffer is. */
struct advert {
	u8 va[8], rkey[4], size[4];
};

struct peer {
	struct wire wire;
	struct cm_agent agent;
	struct cm_connection *c;
	struct rdma_qp qp;
	bool qp_ready;
	struct rdma_region region[2];
	u8 memory[2 * BUFFER]; /* source, sink */
	struct advert in[2], out;
	u16 mtu;
};

static struct peer peer;

static void fail(const char *what)
{
	const struct rdma_qp_stats *s = &peer.qp.stats;

	printf("rping: %s; connection state %d, reason %u; tx %llu again %llu time-outs %llu\n",
	       what, peer.c ? (int)peer.c->state : -1, peer.c ? peer.c->reason : 0u,
	       (unsigned long long)s->tx_packets, (unsigned long long)s->tx_again,
	       (unsigned long long)s->timeouts);
	exit(1);
}

static void deliver(const u8 *frame, size_t len)
{
	struct rdma_packet p;
	int ret = rdma_decode(&p, frame, len);

	if (ret == ERR_NOENT)
		return;
	if (ret)
		fail("a frame that does not decode");
	if (p.dest_qp == CM_QPN) {
		cm_receive(&peer.agent, wire_now(), &p);
	} else if (peer.qp_ready) {
		cm_data_arrived(peer.c);
		rdma_qp_receive(&peer.qp, wire_now(), &p);
	}
}

static void pump(void)
{
	u8 frame[RDMA_FRAME_MAX];
	struct rdma_frame f;
	u32 wait = 200;
	size_t n;

	while (cm_transmit(&peer.agent, wire_now(), &f))
		wire_send(&peer.wire, frame, rdma_frame_copy(&f, frame));
	while (peer.qp_ready && rdma_qp_transmit(&peer.qp, wire_now(), &f))
		wire_send(&peer.wire, frame, rdma_frame_copy(&f, frame));
	while ((n = wire_receive(&peer.wire, frame, sizeof(frame), wait)) > 0) {
		deliver(frame, n);
		wait = 0;
	}
}

static u32 random_bits(void)
{
	u32 v;
	FILE *f = fopen("/dev/urandom", "rb");

	if (!f || fread(&v, sizeof(v), 1, f) != 1)
		exit(1);
	fclose(f);
	return v;
}

static struct cm_offer offer(void)
{
	return (struct cm_offer){
		.comm_id = random_bits() | 1,
		.qpn = (random_bits() & 0xfffff) | 0x1000,
		.psn = random_bits() & PSN_MASK,
		.initiator_depth = 4,
		.responder_resources = 4,
		.rnr_retry = 7,
		.retry_count = 7,
		.ack_timeout = 15, /* 134 ms */
		.mtu = peer.mtu,
		.port = 40000,
		.tid = random_bits(),
	};
}

static void post_receive(int slot)
{
	struct rdma_receive r = {(u64)slot, &peer.in[slot], sizeof(peer.in[slot])};

	if (rdma_post_receive(&peer.qp, &r))
		fail("a receive was not taken");
}

static void make_qp(void)
{
	struct rdma_regions regions = {peer.region, 1};
	struct rdma_qp_config config = {.rnr_timer = 12, .window = 64};

	cm_qp_config(&peer.agent, peer.c, &config);
	peer.region[0] = (struct rdma_region){peer.memory, VA, sizeof(peer.memory), KEY,
					      RDMA_REMOTE_READ | RDMA_REMOTE_WRITE};
	if (rdma_qp_init(&peer.qp, &config, &regions))
		fail("the QP's parameters");
	peer.qp_ready = true;
	post_receive(0);
	post_receive(1);
}

static void wait_state(enum cm_state state)
{
	u64 end = wire_now() + PATIENCE;

	while (peer.c->state != state) {
		if (wire_now() > end || peer.c->state == CM_CLOSED)
			fail("no connection");
		pump();
	}
}

static void connect_out(void)
{
	struct cm_offer o = offer();
	u8 mac[6];

	if (!wire_resolve(&peer.wire, THEIR_IP, mac))
		fail("no answer to ARP");
	peer.c = cm_connect(&peer.agent, &o, THEIR_IP, mac, PORT);
	wait_state(CM_REP_RECEIVED);
	make_qp();
	cm_establish(peer.c);
}

static void accept_in(void)
{
	u64 end = wire_now() + 2 * PATIENCE;
	struct cm_offer o = offer();

	cm_listen(&peer.agent, PORT);
	peer.c = &peer.agent.connection[0];
	while (peer.c->state != CM_REQ_RECEIVED) {
		if (wire_now() > end)
			fail("nobody connects");
		pump();
	}
	cm_accept(peer.c, &o);
	make_qp();
	wait_state(CM_ESTABLISHED);
}

/* Waits for a message and gives its receive back to the QP; returns its content. */
static struct advert receive(void)
{
	u64 end = wire_now() + PATIENCE;
	struct rdma_completion c;
	struct advert a;

	while (!rdma_poll_receive(&peer.qp, &c)) {
		if (wire_now() > end || peer.qp.state != RDMA_QP_READY)
			fail("no message");
		pump();
	}
	if (c.status != RDMA_OK || c.length != sizeof(a))
		fail("a message of another size");
	a = peer.in[c.id];
	post_receive((int)c.id);
	return a;
}

static void post(struct rdma_work w)
{
	u64 end = wire_now() + PATIENCE;
	struct rdma_completion c;

	if (rdma_post(&peer.qp, &w))
		fail("work was not taken");
	while (!rdma_poll_send(&peer.qp, &c)) {
		if (wire_now() > end)
			fail("work did not end");
		pump();
	}
	if (c.status != RDMA_OK) {
		printf("rping: operation %d: status %d\n", w.op, c.status);
		fail("work failed");
	}
}

static void send_advert(u64 va, u32 size)
{
	put_be64(peer.out.va, va);
	put_be32(peer.out.rkey, KEY);
	put_be32(peer.out.size, size);
	post((struct rdma_work){.op = RDMA_SEND, .data = &peer.out, .length = sizeof(peer.out)});
}

/* The other side READs our source and WRITEs it to our sink. */
static void client_round(u32 round, u32 size)
{
	u32 i;

	for (i = 0; i < size; i++)
		peer.memory[i] = (u8)(33 + (round * 31 + i * 7 + i / 251) % 90);
	peer.memory[size - 1] = 0; /* rping's server writes a string back */
	memset(peer.memory + BUFFER, 0, size + 1);
	send_advert(VA, size);
	receive();
	send_advert(VA + BUFFER, size);
	receive();
	if (memcmp(peer.memory, peer.memory + BUFFER, size) || peer.memory[BUFFER + size])
		fail("other bytes came back");
}

/* We READ the other side's source and WRITE it to its sink; it compares. */
static bool server_round(u32 size)
{
	struct advert a = receive();

	if (be32(a.size) != size)
		fail("the other side has another size");
	post((struct rdma_work){.op = RDMA_READ,
				.data = peer.memory,
				.length = size,
				.rkey = be32(a.rkey),
				.va = be64(a.va)});
	send_advert(VA, size);
	a = receive();
	post((struct rdma_work){.op = RDMA_WRITE,
				.data = peer.memory,
				.length = size,
				.rkey = be32(a.rkey),
				.va = be64(a.va)});
	send_advert(VA, size);
	return true;
}

int main(int argc, char **argv)
{
	static const u8 mac[6] = {2, 0, 0, 0, 0, 2};
	const struct rdma_qp_stats *s = &peer.qp.stats;
	u32 rounds, size, round;
	u64 start, end;
	bool client;

	if (argc < 6)
		return 2;
	client = strcmp(argv[1], "client") == 0;
	wire_open(&peer.wire, (u16)atoi(argv[2]), (u16)atoi(argv[3]), mac, OUR_IP);
	rounds = (u32)atoi(argv[4]);
	size = (u32)atoi(argv[5]);
	peer.wire.loss = argc > 6 ? (u32)atoi(argv[6]) : 0;
	peer.mtu = argc > 7 ? (u16)atoi(argv[7]) : 1024;
	if (!size || size >= BUFFER)
		return 2;
	cm_init(&peer.agent, mac, OUR_IP, 0x0200005e00000000ull + random_bits());
	if (client)
		connect_out();
	else
		accept_in();
	start = wire_now();
	for (round = 0; round < rounds; round++) {
		if (client)
			client_round(round, size);
		else
			server_round(size);
	}
	printf("rping: %u rounds of %u bytes in %llu us; tx %llu rx %llu again %llu time-outs %llu "
	       "gaps %llu duplicates %llu lost %llu\n",
	       rounds, size, (unsigned long long)(wire_now() - start) / 1000,
	       (unsigned long long)s->tx_packets, (unsigned long long)s->rx_packets,
	       (unsigned long long)s->tx_again, (unsigned long long)s->timeouts,
	       (unsigned long long)s->gaps, (unsigned long long)s->duplicates,
	       (unsigned long long)peer.wire.lost);
	/* Let the client be the one that ends, as rping's is. */
	if (client)
		cm_disconnect(peer.c);
	end = wire_now() + PATIENCE;
	while (peer.c->state != CM_CLOSED && wire_now() < end)
		pump();
	if (peer.c->state != CM_CLOSED)
		fail("no disconnect");
	for (round = 0; round < 50; round++)
		pump(); /* answers to what is repeated */
	return 0;
}
