/*
 * A client for the servers of perftest 4.5, `ib_write_bw -z` and `ib_read_bw -z`: with -z they
 * exchange what they have to say in SENDs on a connection of RDMA-CM; the transfers run on a second
 * queue pair, which nobody but this exchange connects.
 *
 *   perftest write|read LOCAL:REMOTE COUNT SIZE [LOSS-PER-MILLE [MTU]]
 *
 * We are 10.77.0.2, the other one is 10.77.0.1. What is known of perftest's exchange: the client
 * speaks first, each message is answered by one of the same size; version (16 bytes of text), two
 * numbers that do not matter here, the MTU's code as text, three times `struct keys`, after the
 * transfers once more, five numbers for the server's report, and `struct keys` again.
 *
 * READs all go to the same place of the server, so all have to bring the same bytes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peer.h"

#define OUR_IP	 0x0a4d0002u
#define THEIR_IP 0x0a4d0001u
#define PORT	 18515
#define DEPTH	 16u
#define BUFFER	 65536u

/* One end of the second queue pair: big-endian, with the padding of the structure it comes from. */
struct keys {
	u8 lid[4], out_reads[4], qpn[4], psn[4], rkey[4], pad[4];
	u8 va[8], gid[16], srqn[4], gid_index[4];
};

_Static_assert(sizeof(struct keys) == 56, "perftest's message");

static u8 inbox[64], outbox[64];
static u8 buffer[DEPTH][BUFFER];
static u8 first[BUFFER]; /* what the first READ brought */

static void post_receive(void)
{
	struct rdma_receive r = {0, inbox, sizeof(inbox)};

	if (rdma_post_receive(&peer.qp[0], &r))
		peer_fail("a receive was not taken");
}

/* Sends `length` bytes and waits for as many, which are in `inbox` then. */
static void exchange(const void *message, u32 length)
{
	struct rdma_work w = {.op = RDMA_SEND, .data = outbox, .length = length};

	memcpy(outbox, message, length);
	peer_do(0, &w);
	peer_message(length);
	post_receive();
}

static void exchange_number(u64 value, u32 length)
{
	u8 bytes[8];

	put_be64(bytes, value);
	exchange(bytes + 8 - length, length);
}

static struct keys exchange_keys(const struct keys *ours)
{
	struct keys theirs;

	exchange(ours, sizeof(*ours));
	memcpy(&theirs, inbox, sizeof(theirs));
	return theirs;
}

static struct keys begin(const struct keys *ours, u32 mtu_code)
{
	static const u8 version[16] = "6.06";
	char mtu[2] = {(char)('0' + mtu_code), 0};
	struct keys theirs;

	exchange(version, sizeof(version));
	if (strncmp((char *)inbox, "6.", 2) != 0)
		peer_fail("perftest of another version");
	exchange_number(4096, 4); /* size of its ring of buffers: a page */
	exchange_number(64, 4);	  /* cache line */
	exchange(mtu, sizeof(mtu));
	theirs = exchange_keys(ours);
	exchange_keys(ours);
	return theirs;
}

static void report(u64 count, u32 size)
{
	static const u8 unknown[8]; /* bandwidths and rate as doubles: 0 */
	u32 i;

	exchange_number(size, 8);
	exchange_number(count, 8);
	for (i = 0; i < 3; i++)
		exchange(unknown, sizeof(unknown));
}

static void transfer(bool write, const struct keys *to, u64 count, u32 size)
{
	u64 posted = 0, done = 0, end = wire_now() + 2 * PATIENCE;
	struct rdma_completion c;
	u32 i;

	for (i = 0; i < size; i++)
		buffer[0][i] = (u8)(i * 31 + i / 251);
	while (done < count) {
		struct rdma_work w = {.op = write ? RDMA_WRITE : RDMA_READ,
				      .data = buffer[posted % DEPTH],
				      .length = size,
				      .rkey = be32(to->rkey),
				      .va = be64(to->va)};

		if (posted < count && posted - done < DEPTH) {
			if (!write)
				memset(w.data, (int)(posted % 255), size);
			if (rdma_post(&peer.qp[1], &w))
				peer_fail("work was not taken");
			posted++;
			continue;
		}
		while (!rdma_poll_send(&peer.qp[1], &c)) {
			if (wire_now() > end)
				peer_fail("work did not end");
			peer_pump();
		}
		if (c.status != RDMA_OK)
			peer_fail("work failed");
		if (!done)
			memcpy(first, buffer[0], size);
		if (!write && memcmp(buffer[done % DEPTH], first, size))
			peer_fail("READs of the same place differ");
		done++;
	}
}

int main(int argc, char **argv)
{
	struct rdma_qp_config config = {.rnr_timer = 12,
					.window = 64,
					.timeout = 14,
					.retry_count = 7,
					.rnr_retry = 7,
					.initiator_depth = RDMA_READ_MAX,
					.responder_resources = RDMA_READ_MAX};
	struct keys ours = {0}, theirs;
	struct cm_offer offer;
	bool write;
	char what[64];
	u64 count, start;
	u32 size, mtu;

	if (argc < 5)
		return 2;
	write = strcmp(argv[1], "write") == 0;
	peer_open("perftest", argv[2], OUR_IP);
	count = strtoull(argv[3], NULL, 0);
	size = (u32)atoi(argv[4]);
	peer.wire.loss = argc > 5 ? (u32)atoi(argv[5]) : 0;
	mtu = argc > 6 ? (u32)atoi(argv[6]) : 1024;
	if (!count || !size || size > BUFFER)
		return 2;
	offer = peer_offer((u16)mtu);
	if (!peer_connect(THEIR_IP, PORT, &offer, PATIENCE, post_receive))
		peer_fail("no connection");

	/* Each side says with which PSN it begins. */
	config.local_qpn = (peer_random() & 0xfffff) | 0x1000;
	config.send_psn = peer_random() & PSN_MASK;
	put_be32(ours.out_reads, RDMA_READ_MAX);
	put_be32(ours.qpn, config.local_qpn);
	put_be32(ours.psn, config.send_psn);
	cm_gid_from_ip(ours.gid, OUR_IP);
	theirs = begin(&ours, peer.c->mtu);
	memcpy(config.local_mac, peer.wire.mac, 6);
	memcpy(config.remote_mac, peer.c->remote_mac, 6);
	config.local_ip = OUR_IP;
	config.remote_ip = THEIR_IP;
	config.src_port = (u16)(0xc000 | (peer_random() & 0x3fff));
	config.remote_qpn = be32(theirs.qpn);
	config.recv_psn = be32(theirs.psn);
	config.mtu = mtu;
	peer_make_qp(1, &config);
	exchange_keys(&ours); /* the server's queue pair is ready now */

	start = wire_now();
	transfer(write, &theirs, count, size);
	snprintf(what, sizeof(what), "%llu %s of %u bytes", (unsigned long long)count,
		 write ? "WRITEs" : "READs", size);
	peer_print(what, 1, wire_now() - start);
	exchange_keys(&ours);
	report(count, size);
	exchange_keys(&ours);
	peer_end(true);
	return 0;
}
