#include "peer.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct peer peer;

_Noreturn void peer_fail(const char *what)
{
	const struct rdma_qp_stats *s = &peer.qp[0].stats;

	printf("%s: %s; connection state %d, reason %u; tx %llu again %llu time-outs %llu\n",
	       peer.name, what, peer.c ? (int)peer.c->state : -1, peer.c ? peer.c->reason : 0u,
	       (unsigned long long)s->tx_packets, (unsigned long long)s->tx_again,
	       (unsigned long long)s->timeouts);
	exit(1);
}

u32 peer_random(void)
{
	u32 v;
	FILE *f = fopen("/dev/urandom", "rb");

	if (!f || fread(&v, sizeof(v), 1, f) != 1)
		exit(1);
	fclose(f);
	return v;
}

u32 peer_ip(const char *text)
{
	struct in_addr address;

	if (!inet_aton(text, &address))
		peer_fail("not an address");
	return ntohl(address.s_addr);
}

void peer_open(const char *name, const char *wire, u32 ip)
{
	u8 mac[6] = {2, 0};
	unsigned int local, remote;

	peer.name = name;
	put_be32(mac + 2, ip);
	if (sscanf(wire, "%5u:%5u", &local, &remote) != 2)
		peer_fail("not LOCAL:REMOTE ports");
	wire_open(&peer.wire, (u16)local, (u16)remote, mac, ip);
	cm_init(&peer.agent, mac, ip, 0x0200005e00000000ull + peer_random());
}

static void deliver(const u8 *frame, size_t len)
{
	struct rdma_packet p;
	int ret = rdma_decode(&p, frame, len);
	u32 i;

	if (ret) {
		peer.strange += ret != ERR_NOENT;
		return;
	}
	if (p.dest_qp == CM_QPN)
		cm_receive(&peer.agent, wire_now(), &p);
	for (i = 0; i < PEER_QPS; i++) {
		if (!peer.ready[i] || p.dest_qp != peer.qp[i].config.local_qpn)
			continue;
		if (i == 0)
			cm_data_arrived(peer.c);
		rdma_qp_receive(&peer.qp[i], wire_now(), &p);
	}
}

void peer_pump(void)
{
	u8 frame[RDMA_FRAME_MAX];
	struct rdma_frame f;
	u32 i, wait = 200;
	size_t n;

	while (cm_transmit(&peer.agent, wire_now(), &f))
		wire_send(&peer.wire, frame, rdma_frame_copy(&f, frame));
	for (i = 0; i < PEER_QPS; i++)
		while (peer.ready[i] && rdma_qp_transmit(&peer.qp[i], wire_now(), &f))
			wire_send(&peer.wire, frame, rdma_frame_copy(&f, frame));
	while ((n = wire_receive(&peer.wire, frame, sizeof(frame), wait)) > 0) {
		deliver(frame, n);
		wait = 0;
	}
}

struct cm_offer peer_offer(u16 mtu)
{
	return (struct cm_offer){
		.comm_id = peer_random() | 1,
		.qpn = (peer_random() & 0xfffff) | 0x1000,
		.psn = peer_random() & PSN_MASK,
		.initiator_depth = RDMA_READ_MAX,
		.responder_resources = RDMA_READ_MAX,
		.rnr_retry = 7,
		.retry_count = 7,
		.ack_timeout = 15, /* 134 ms */
		.mtu = mtu,
		.port = (u16)(40000 + peer_random() % 10000),
		.tid = peer_random(),
	};
}

void peer_make_qp(u32 index, const struct rdma_qp_config *config)
{
	struct rdma_regions regions = {peer.region, PEER_REGIONS};

	if (rdma_qp_init(&peer.qp[index], config, &regions))
		peer_fail("the QP's parameters");
	peer.ready[index] = true;
}

static void make_connected_qp(void (*ready)(void))
{
	struct rdma_qp_config config = {.rnr_timer = 12, .window = 64};

	cm_qp_config(&peer.agent, peer.c, &config);
	peer_make_qp(0, &config);
	if (ready)
		ready();
}

bool peer_connect(u32 ip, u16 port, const struct cm_offer *offer, u64 patience, void (*ready)(void))
{
	u64 end = wire_now() + patience;
	u8 mac[6];

	if (!wire_resolve(&peer.wire, ip, mac))
		return false;
	peer.c = cm_connect(&peer.agent, offer, ip, mac, port);
	if (!peer.c)
		peer_fail("no place for a connection");
	while (peer.c->state == CM_REQ_SENT && wire_now() < end)
		peer_pump();
	if (peer.c->state != CM_REP_RECEIVED)
		return false;
	make_connected_qp(ready);
	cm_establish(peer.c);
	return true;
}

void peer_accept(u16 port, void (*ready)(void))
{
	struct cm_offer offer = peer_offer(0);
	u64 end = wire_now() + PATIENCE;

	cm_listen(&peer.agent, port);
	peer.c = &peer.agent.connection[0];
	while (peer.c->state != CM_REQ_RECEIVED) {
		if (wire_now() > end)
			peer_fail("nobody connects");
		peer_pump();
	}
	cm_accept(peer.c, &offer);
	make_connected_qp(ready);
	while (peer.c->state != CM_ESTABLISHED) {
		if (wire_now() > end || peer.c->state == CM_CLOSED)
			peer_fail("no connection");
		peer_pump();
	}
}

static void wait_closed(u64 patience)
{
	u64 end = wire_now() + patience;

	while (peer.c->state != CM_CLOSED && wire_now() < end)
		peer_pump();
}

void peer_drop(void)
{
	memset(peer.ready, 0, sizeof(peer.ready));
	cm_disconnect(peer.c);
	wait_closed(1000000000);
	cm_release(peer.c);
	peer.c = NULL;
}

void peer_end(bool begin)
{
	u64 end;

	if (begin)
		cm_disconnect(peer.c);
	wait_closed(PATIENCE);
	if (peer.c->state != CM_CLOSED)
		peer_fail("no disconnect");
	for (end = wire_now() + 20000000; wire_now() < end;)
		peer_pump(); /* answers to what is repeated */
}

enum rdma_status peer_try(u32 index, const struct rdma_work *work)
{
	u64 end = wire_now() + PATIENCE;
	struct rdma_completion c;

	if (rdma_post(&peer.qp[index], work))
		return RDMA_FLUSHED;
	while (!rdma_poll_send(&peer.qp[index], &c)) {
		if (wire_now() > end)
			peer_fail("work did not end");
		peer_pump();
	}
	return c.status;
}

void peer_do(u32 index, const struct rdma_work *work)
{
	enum rdma_status status = peer_try(index, work);

	if (status != RDMA_OK) {
		printf("%s: operation %d: status %d\n", peer.name, work->op, status);
		peer_fail("work failed");
	}
}

u64 peer_message(u32 length)
{
	u64 end = wire_now() + PATIENCE;
	struct rdma_completion c;

	while (!rdma_poll_receive(&peer.qp[0], &c)) {
		if (wire_now() > end || peer.qp[0].state != RDMA_QP_READY)
			peer_fail("no message");
		peer_pump();
	}
	if (c.status != RDMA_OK || c.length != length)
		peer_fail("a message of another size");
	return c.id;
}

void peer_print(const char *what, u32 index, u64 ns)
{
	const struct rdma_qp_stats *s = &peer.qp[index].stats;

	printf("%s: %s in %llu us; tx %llu rx %llu again %llu time-outs %llu gaps %llu duplicates "
	       "%llu lost %llu strange %llu\n",
	       peer.name, what, (unsigned long long)ns / 1000, (unsigned long long)s->tx_packets,
	       (unsigned long long)s->rx_packets, (unsigned long long)s->tx_again,
	       (unsigned long long)s->timeouts, (unsigned long long)s->gaps,
	       (unsigned long long)s->duplicates, (unsigned long long)peer.wire.lost,
	       (unsigned long long)peer.strange);
	fflush(stdout);
}
