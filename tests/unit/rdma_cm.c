/* RDMA-CM: captured messages, connections between two agents, lost messages, refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "rdma/cm.h"
#include "rdma_pair.h"
#include "roce_pcap.h"

#define PORT 7174

/* --- captures ------------------------------------------------------------------------------- */

static void test_captured_messages(void **state)
{
	static const char *const names[] = {"rping1500.pcap", "rping9000.pcap", "stale.pcap",
					    "bare_metal.pcap"};
	struct rdma_packet p;
	struct cm_message m;
	struct pcap pcap;
	u8 again[CM_MAD_SIZE];
	const u8 *frame;
	u32 count[8] = {0};
	size_t len, i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		assert_true(pcap_open(&pcap, names[i]));
		while ((frame = pcap_next(&pcap, &len))) {
			assert_int_equal(rdma_decode(&p, frame, len), 0);
			if (p.opcode != OP_UD_SEND_ONLY)
				continue;
			assert_true(p.dest_qp == CM_QPN && p.deth.qkey == CM_QKEY);
			assert_int_equal(cm_decode(&m, p.payload, p.payload_len), 0);
			assert_int_equal(cm_encode(&m, again), 0);
			assert_memory_equal(again, p.payload, CM_MAD_SIZE);
			count[m.attribute & 7]++;
		}
		pcap_close(&pcap);
	}
	/* REQ, MRA, REJ, REP, RTU, DREQ, DREP */
	assert_int_equal(count[0], 8);
	assert_int_equal(count[2], 3);
	assert_int_equal(count[3], 5);
	assert_int_equal(count[4], 5);
	assert_int_equal(count[5], 3);
	assert_int_equal(count[6], 2);
}

/* The first REQ of rping1500.pcap, read by hand. */
static void test_captured_fields(void **state)
{
	struct rdma_packet p;
	struct cm_message m;
	struct cm_ip_header ip;
	struct pcap pcap;
	const u8 *frame;
	size_t len;

	assert_true(pcap_open(&pcap, "rping1500.pcap"));
	frame = pcap_next(&pcap, &len);
	assert_int_equal(rdma_decode(&p, frame, len), 0);
	assert_int_equal(cm_decode(&m, p.payload, p.payload_len), 0);
	assert_int_equal(m.attribute, CM_REQ);
	assert_true(m.tid == 0x2bde5187c && m.local_id == 0x7c18e5bd);
	assert_true(m.service_id == (CM_SERVICE_TCP | PORT));
	assert_true(m.guid == 0x505400fffe000002 && m.qpn == 0x11 && m.psn == 0x9d1f72);
	assert_true(m.responder_resources == 1 && m.initiator_depth == 1);
	assert_true(m.remote_timeout == 20 && m.local_timeout == 20 && m.retry_count == 7);
	assert_true(m.pkey == 0xffff && m.mtu == 3 && m.rnr_retry == 7 && m.max_cm_retries == 15);
	assert_true(cm_gid_is_ip(m.local_gid, 0x0a4d0002) &&
		    cm_gid_is_ip(m.remote_gid, 0x0a4d0001));
	assert_true(m.flow_label == 0xa22b9 && m.hop_limit == 64 && m.ack_timeout == 19);
	assert_int_equal(cm_ip_decode(&ip, m.private_data), 0);
	assert_true(ip.src_port == 0xd6ed && ip.src_ip == 0x0a4d0002 && ip.dst_ip == 0x0a4d0001);
	frame = pcap_next(&pcap, &len);
	assert_int_equal(rdma_decode(&p, frame, len), 0);
	assert_int_equal(cm_decode(&m, p.payload, p.payload_len), 0);
	assert_true(m.attribute == CM_REP && m.local_id == 0x5f159d70 && m.remote_id == 0x7c18e5bd);
	assert_true(m.qpn == 0x11 && m.psn == 0x857bb9 && m.ack_delay == 15 && m.rnr_retry == 7);
	pcap_close(&pcap);
}

static void test_malformed(void **state)
{
	static const struct {
		u8 at, value;
	} rows[] = {{0, 2}, {1, 3}, {2, 1}, {3, 1}, {16, 1}, {17, 0x0f}, {17, 0x17}};
	struct cm_message m;
	u8 mad[CM_MAD_SIZE], copy[CM_MAD_SIZE];
	size_t i;

	memset(&m, 0, sizeof(m));
	m.attribute = CM_MRA;
	m.which = 2;
	m.service_timeout = 31;
	assert_int_equal(cm_encode(&m, mad), 0);
	assert_int_equal(cm_decode(&m, mad, CM_MAD_SIZE), 0);
	assert_true(m.which == 2 && m.service_timeout == 31 && m.private_len == 222);
	assert_int_equal(cm_decode(&m, mad, CM_MAD_SIZE - 4), ERR_INVAL);
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		memcpy(copy, mad, sizeof(copy));
		copy[rows[i].at] = rows[i].value;
		assert_int_equal(cm_decode(&m, copy, CM_MAD_SIZE), ERR_INVAL);
	}
	m.attribute = 0x17;
	assert_int_equal(cm_encode(&m, mad), ERR_INVAL);
}

/* --- two agents ----------------------------------------------------------------------------- */

struct two {
	struct cm_agent agent[2];
	struct cm_connection *active, *passive;
	u64 now;
	u32 sent, lose_from, lose_count; /* messages from 1 */
	u16 log[64];			 /* attributes in the order sent */
};

static void receive(struct two *t, int to, const struct rdma_frame *f)
{
	u8 wire[RDMA_FRAME_MAX];
	struct rdma_packet p;

	assert_int_equal(rdma_decode(&p, wire, rdma_frame_copy(f, wire)), 0);
	cm_receive(&t->agent[to], t->now, &p);
}

/* Lets both speak until neither has anything to say now. */
static void talk(struct two *t)
{
	struct rdma_frame f;
	struct cm_message m;
	bool said = true;
	int i;

	while (said) {
		said = false;
		for (i = 0; i < 2; i++)
			while (cm_transmit(&t->agent[i], t->now, &f)) {
				said = true;
				assert_int_equal(cm_decode(&m, f.payload, f.payload_len), 0);
				assert_in_range(++t->sent, 1, 63);
				t->log[t->sent] = m.attribute;
				if (t->sent < t->lose_from ||
				    t->sent >= t->lose_from + t->lose_count)
					receive(t, !i, &f);
			}
	}
}

static struct cm_connection *in_state(struct cm_agent *agent, enum cm_state state)
{
	u32 i;

	for (i = 0; i < CM_CONNECTIONS; i++)
		if (agent->connection[i].state == state)
			return &agent->connection[i];
	return NULL;
}

static const struct cm_offer active_offer = {
	.comm_id = 0x1111,
	.qpn = 0xaaa,
	.psn = 0xfffffe,
	.initiator_depth = 8,
	.responder_resources = 3,
	.rnr_retry = 5,
	.retry_count = 6,
	.ack_timeout = 17,
	.mtu = 1024,
	.port = 4444,
	.tid = 0x123456789,
	.private_data = "hello",
	.private_len = 5,
};

static const struct cm_offer passive_offer = {
	.comm_id = 0x2222,
	.qpn = 0xbbb,
	.psn = 0x800000,
	.initiator_depth = 16,
	.responder_resources = 4,
	.rnr_retry = 7,
	.private_data = "welcome",
	.private_len = 8,
};

static struct two *two_new(void)
{
	struct two *t = calloc(1, sizeof(*t));

	t->now = 1000;
	cm_init(&t->agent[0], (const u8[6]){2, 0, 0, 0, 0, 1}, 0x0a4d0001, 0x1111);
	cm_init(&t->agent[1], (const u8[6]){2, 0, 0, 0, 0, 2}, 0x0a4d0002, 0x2222);
	assert_int_equal(cm_listen(&t->agent[1], PORT), 0);
	return t;
}

static struct cm_connection *connect_to(struct two *t, const struct cm_offer *offer, u16 port)
{
	return cm_connect(&t->agent[0], offer, t->agent[1].ip, t->agent[1].mac, port);
}

/* Both owners do their part as soon as they can; whether one did. */
static bool owners(struct two *t)
{
	bool did = false;
	struct cm_connection *c = in_state(&t->agent[1], CM_REQ_RECEIVED);

	if (c) {
		t->passive = c;
		assert_int_equal(cm_accept(c, &passive_offer), 0);
		did = true;
	}
	c = in_state(&t->agent[0], CM_REP_RECEIVED);
	if (c) {
		cm_establish(c);
		did = true;
	}
	return did;
}

/* Connects with time-outs as they come; the number of rounds of silence. */
static u32 connect_all(struct two *t)
{
	u32 silent = 0, i;

	t->active = connect_to(t, &active_offer, PORT);
	assert_non_null(t->active);
	for (i = 0; i < 100; i++) {
		u64 next;

		do
			talk(t);
		while (owners(t));
		if (t->active->state == CM_CLOSED ||
		    (t->passive && t->passive->state == CM_ESTABLISHED &&
		     t->active->state == CM_ESTABLISHED))
			break;
		next = MIN(cm_deadline(&t->agent[0]), cm_deadline(&t->agent[1]));
		if (next != RDMA_NEVER && next > t->now) {
			t->now = next;
			silent++;
		}
	}
	return silent;
}

static void test_connect(void **state)
{
	static const u16 order[] = {0, CM_REQ, CM_REP, CM_RTU, CM_DREQ, CM_DREP};
	struct two *t = two_new();
	struct rdma_qp_config a = {0}, b = {0};

	assert_true(cm_deadline(&t->agent[0]) == RDMA_NEVER);
	assert_int_equal(connect_all(t), 0);
	assert_int_equal(t->active->state, CM_ESTABLISHED);
	assert_memory_equal(t->passive->peer_private, "hello\0\0", 8);
	assert_int_equal(t->passive->peer_private_len, CM_REQ_USER_PRIVATE);
	assert_memory_equal(t->active->peer_private, "welcome", 8);
	assert_true(t->passive->src_port == 4444 && t->passive->port == PORT);
	cm_qp_config(&t->agent[0], t->active, &a);
	cm_qp_config(&t->agent[1], t->passive, &b);
	/* Each side expects the PSN that it named. */
	assert_true(a.send_psn == 0x800000 && a.recv_psn == 0xfffffe);
	assert_true(b.send_psn == 0xfffffe && b.recv_psn == 0x800000);
	assert_true(a.local_qpn == 0xaaa && a.remote_qpn == 0xbbb && b.local_qpn == 0xbbb &&
		    b.remote_qpn == 0xaaa);
	assert_true(a.local_ip == b.remote_ip && a.remote_ip == b.local_ip);
	assert_memory_equal(a.local_mac, b.remote_mac, 6);
	assert_memory_equal(b.local_mac, a.remote_mac, 6);
	assert_true(a.mtu == 1024 && b.mtu == 1024 && a.timeout == 17 && b.timeout == 17);
	assert_true(a.retry_count == 6 && b.retry_count == 6);
	assert_true(a.rnr_retry == 7 && b.rnr_retry == 5);
	/* No side asks for more READs than the other answers. */
	assert_true(a.initiator_depth == 4 && b.responder_resources == 4);
	assert_true(b.initiator_depth == 3 && a.responder_resources == 3);
	assert_true(cm_deadline(&t->agent[0]) == RDMA_NEVER &&
		    cm_deadline(&t->agent[1]) == RDMA_NEVER);

	cm_disconnect(t->passive);
	talk(t);
	assert_true(t->active->state == CM_CLOSED && t->passive->state == CM_CLOSED);
	assert_true(t->active->reason == 0 && t->passive->reason == 0);
	assert_int_equal(t->sent, ARRAY_SIZE(order) - 1);
	assert_memory_equal(t->log, order, sizeof(order));
	free(t);
}

/* The QPs that come of it carry data. */
static void test_data(void **state)
{
	struct two *t = two_new();
	struct rdma_qp_config a = {.window = 8}, b = {.window = 8};
	struct rdma_completion c;
	struct rdma_work work = {.op = RDMA_WRITE, .rkey = PAIR_RKEY, .va = PAIR_VA + 8};
	static u8 data[5000];
	struct pair *p;

	connect_all(t);
	cm_qp_config(&t->agent[0], t->active, &a);
	cm_qp_config(&t->agent[1], t->passive, &b);
	p = pair_new(&a, &b);
	memset(data, 0x5a, sizeof(data));
	work.data = data;
	work.length = sizeof(data);
	assert_int_equal(rdma_post(&p->end[0].qp, &work), 0);
	assert_int_equal(rdma_post(&p->end[1].qp, &work), 0);
	assert_true(pair_run(p, 1000));
	assert_true(rdma_poll_send(&p->end[0].qp, &c) && c.status == RDMA_OK);
	assert_true(rdma_poll_send(&p->end[1].qp, &c) && c.status == RDMA_OK);
	assert_memory_equal(p->end[1].memory + 8, data, sizeof(data));
	assert_memory_equal(p->end[0].memory + 8, data, sizeof(data));
	pair_free(p);
	free(t);
}

/* Any message lost, any number in a row: it still connects, and disconnects. */
static void test_losses(void **state)
{
	u32 from, count, i;

	for (from = 1; from <= 6; from++)
		for (count = 1; count <= 5; count++) {
			struct two *t = two_new();

			t->lose_from = from;
			t->lose_count = count;
			connect_all(t);
			assert_int_equal(t->active->state, CM_ESTABLISHED);
			assert_int_equal(t->passive->state, CM_ESTABLISHED);
			cm_disconnect(t->active);
			for (i = 0; i < 20 && t->active->state != CM_CLOSED; i++) {
				talk(t);
				if (t->active->state != CM_CLOSED)
					t->now = cm_deadline(&t->agent[0]);
			}
			talk(t);
			assert_int_equal(t->active->state, CM_CLOSED);
			assert_int_equal(t->passive->state, CM_CLOSED);
			assert_in_range(t->sent, from < 6 ? 6 : 5, 5 + 2 * count);
			free(t);
		}
}

static void test_silence(void **state)
{
	struct two *t = two_new();
	u64 start = t->now;

	t->lose_from = 1;
	t->lose_count = 1000;
	assert_int_equal(connect_all(t), 8);
	assert_int_equal(t->active->state, CM_CLOSED);
	assert_int_equal(t->active->reason, CM_REJ_TIMEOUT);
	assert_int_equal(t->sent, 8); /* once and seven times more */
	assert_int_equal(t->now - start, 8 * (4096ull << 18));
	free(t);
}

/* An owner that takes its time is announced when the peer asks again. */
static void test_mra(void **state)
{
	struct two *t = two_new();
	struct cm_connection *c = connect_to(t, &active_offer, PORT);

	talk(t);
	assert_non_null(in_state(&t->agent[1], CM_REQ_RECEIVED));
	t->now = cm_deadline(&t->agent[0]);
	talk(t);
	assert_int_equal(t->log[2], CM_REQ);
	assert_int_equal(t->log[3], CM_MRA);
	assert_int_equal(cm_deadline(&t->agent[0]), t->now + (4096ull << 20));
	t->now += (4096ull << 20) - 1;
	talk(t);
	assert_int_equal(t->sent, 3);
	owners(t);
	talk(t);
	assert_int_equal(c->state, CM_REP_RECEIVED);
	free(t);
}

/* --- refusals ------------------------------------------------------------------------------- */

/* Sends a REQ with something changed; the reason of the REJ that comes back, 0 if none. */
static u16 refused(void (*change)(struct cm_message *m))
{
	struct two *t = two_new();
	struct rdma_packet p;
	struct rdma_frame f;
	struct cm_message m;
	u8 wire[RDMA_FRAME_MAX], mad[CM_MAD_SIZE];
	u16 reason = 0;

	connect_to(t, &active_offer, PORT);
	assert_true(cm_transmit(&t->agent[0], t->now, &f));
	assert_int_equal(rdma_decode(&p, wire, rdma_frame_copy(&f, wire)), 0);
	assert_int_equal(cm_decode(&m, p.payload, p.payload_len), 0);
	change(&m);
	cm_encode(&m, mad);
	p.payload = mad;
	cm_receive(&t->agent[1], t->now, &p);
	if (cm_transmit(&t->agent[1], t->now, &f)) {
		assert_int_equal(cm_decode(&m, f.payload, f.payload_len), 0);
		assert_int_equal(m.attribute, CM_REJ);
		assert_int_equal(m.remote_id, 0x1111);
		assert_int_equal(m.which, 0);
		reason = m.reason;
		assert_null(in_state(&t->agent[1], CM_REQ_RECEIVED));
	} else {
		assert_non_null(in_state(&t->agent[1], CM_REQ_RECEIVED));
	}
	free(t);
	return reason;
}

static void change_nothing(struct cm_message *m)
{
}

static void change_port(struct cm_message *m)
{
	m->service_id++;
}

static void change_port_0(struct cm_message *m)
{
	m->service_id = CM_SERVICE_TCP;
}

static void change_service(struct cm_message *m)
{
	m->service_id ^= 0x100000;
}

static void change_ip_version(struct cm_message *m)
{
	m->private_data[1] = 0x60;
}

static void change_transport(struct cm_message *m)
{
	m->transport = 1;
}

static void change_mtu(struct cm_message *m)
{
	m->mtu = 6;
}

static void change_gid(struct cm_message *m)
{
	m->remote_gid[15]++;
}

static void change_source(struct cm_message *m)
{
	m->local_gid[15]++;
}

static void test_refusals(void **state)
{
	assert_int_equal(refused(change_nothing), 0);
	assert_int_equal(refused(change_port), CM_REJ_INVALID_SERVICE);
	assert_int_equal(refused(change_port_0), CM_REJ_INVALID_SERVICE);
	assert_int_equal(refused(change_service), CM_REJ_INVALID_SERVICE);
	assert_int_equal(refused(change_ip_version), CM_REJ_INVALID_SERVICE);
	assert_int_equal(refused(change_transport), CM_REJ_INVALID_TRANSPORT);
	assert_int_equal(refused(change_mtu), CM_REJ_INVALID_MTU);
	assert_int_equal(refused(change_gid), CM_REJ_REMOTE_GID);
	assert_int_equal(refused(change_source), CM_REJ_REMOTE_GID);
}

static void test_reject(void **state)
{
	struct two *t = two_new();
	struct cm_connection *c;

	/* By the passive owner; said again if it is asked again. */
	t->active = connect_to(t, &active_offer, PORT);
	t->lose_from = 2;
	t->lose_count = 1;
	talk(t);
	c = in_state(&t->agent[1], CM_REQ_RECEIVED);
	cm_reject(c, CM_REJ_CONSUMER);
	talk(t);
	assert_int_equal(t->active->state, CM_REQ_SENT);
	t->now = cm_deadline(&t->agent[0]);
	talk(t);
	assert_int_equal(t->active->state, CM_CLOSED);
	assert_int_equal(t->active->reason, CM_REJ_CONSUMER);
	cm_release(c);
	cm_release(t->active);

	/* By the active owner, who does not like the answer. */
	t->active = connect_to(t, &active_offer, PORT);
	talk(t);
	c = in_state(&t->agent[1], CM_REQ_RECEIVED);
	assert_int_equal(cm_accept(c, &passive_offer), 0);
	talk(t);
	cm_reject(t->active, CM_REJ_NO_QP);
	talk(t);
	assert_true(c->state == CM_CLOSED && c->reason == CM_REJ_NO_QP);
	free(t);
}

/* A peer that has forgotten its connection and comes again with the same QP. */
static void test_stale(void **state)
{
	struct two *t = two_new();
	struct cm_offer offer = active_offer;
	struct cm_connection *again;

	connect_all(t);
	cm_release(t->active);
	offer.comm_id = 0x3333;
	offer.tid++;
	again = connect_to(t, &offer, PORT);
	talk(t);
	assert_int_equal(again->state, CM_CLOSED);
	assert_int_equal(again->reason, CM_REJ_STALE);
	/* The old one ends: a DREQ for what is not there any more is answered. */
	assert_int_equal(t->passive->state, CM_CLOSED);
	/* With another QP number it may. */
	cm_release(again);
	offer.comm_id = 0x4444;
	offer.qpn++;
	again = connect_to(t, &offer, PORT);
	talk(t);
	owners(t);
	talk(t);
	assert_int_equal(again->state, CM_REP_RECEIVED);
	free(t);
}

/* A DREQ with something changed; the state that the connection is in then. */
static enum cm_state state_after_dreq(int change)
{
	struct two *t = two_new();
	struct rdma_packet p;
	struct cm_message m;
	struct rdma_frame f;
	u8 wire[RDMA_FRAME_MAX], mad[CM_MAD_SIZE];
	enum cm_state after;

	connect_all(t);
	cm_disconnect(t->active);
	assert_true(cm_transmit(&t->agent[0], t->now, &f));
	assert_int_equal(rdma_decode(&p, wire, rdma_frame_copy(&f, wire)), 0);
	assert_int_equal(cm_decode(&m, p.payload, p.payload_len), 0);
	m.qpn += change == 1;
	m.local_id += change == 2;
	m.remote_id += change == 3;
	cm_encode(&m, mad);
	p.payload = mad;
	p.src_ip += change == 4;
	p.dst_ip += change == 5;
	p.deth.qkey += change == 6;
	p.dest_qp += change == 7;
	cm_receive(&t->agent[1], t->now, &p);
	after = t->passive->state;
	free(t);
	return after;
}

static void test_strangers(void **state)
{
	int change;

	assert_int_equal(state_after_dreq(0), CM_CLOSED);
	for (change = 1; change <= 7; change++)
		assert_int_equal(state_after_dreq(change), CM_ESTABLISHED);
}

/* A REQ that comes again is answered at once, and no more READs granted than are wanted. */
static void test_repeated_req(void **state)
{
	struct two *t = two_new();
	struct cm_offer offer = passive_offer;
	struct rdma_frame req, f;
	struct cm_message m;

	offer.responder_resources = 16;
	t->active = connect_to(t, &active_offer, PORT);
	assert_true(cm_transmit(&t->agent[0], t->now, &req));
	receive(t, 1, &req);
	t->passive = in_state(&t->agent[1], CM_REQ_RECEIVED);
	assert_int_equal(cm_accept(t->passive, &offer), 0);
	assert_true(cm_transmit(&t->agent[1], t->now, &f)); /* lost */
	assert_false(cm_transmit(&t->agent[1], t->now, &f));
	receive(t, 1, &req);
	assert_true(cm_transmit(&t->agent[1], t->now, &f));
	assert_int_equal(cm_decode(&m, f.payload, f.payload_len), 0);
	assert_true(m.attribute == CM_REP && m.responder_resources == 8 && m.initiator_depth == 3);
	receive(t, 0, &f);
	assert_int_equal(t->active->state, CM_REP_RECEIVED);
	/* A refusal says what it refuses. */
	cm_reject(t->active, CM_REJ_CONSUMER);
	assert_true(cm_transmit(&t->agent[0], t->now, &f));
	assert_int_equal(cm_decode(&m, f.payload, f.payload_len), 0);
	assert_true(m.attribute == CM_REJ && m.which == 1 && m.reason == CM_REJ_CONSUMER);
	free(t);
}

static void test_full(void **state)
{
	struct two *t = two_new();
	struct cm_offer offer = active_offer;
	struct cm_connection *c = NULL;
	u32 i;

	for (i = 0; i < CM_CONNECTIONS; i++) {
		offer.comm_id = 100 + i;
		offer.qpn = 200 + i;
		assert_non_null(connect_to(t, &offer, PORT));
	}
	assert_null(connect_to(t, &offer, PORT));
	talk(t);
	/* The other side has as many places; free one of ours and try once more. */
	cm_release(&t->agent[0].connection[3]);
	offer.comm_id = 999;
	offer.qpn = 999;
	c = connect_to(t, &offer, PORT);
	talk(t);
	assert_true(c->state == CM_CLOSED && c->reason == CM_REJ_NO_QP);
	for (i = 0; i < CM_LISTENERS; i++)
		assert_int_equal(cm_listen(&t->agent[1], (u16)(PORT + i)), 0);
	assert_int_equal(cm_listen(&t->agent[1], 1), ERR_BUSY);
	free(t);
}

static void test_offers(void **state)
{
	struct two *t = two_new();
	struct cm_offer offer = active_offer;

	offer.mtu = 1500;
	assert_null(connect_to(t, &offer, PORT));
	offer.mtu = 128;
	assert_null(connect_to(t, &offer, PORT));
	offer.mtu = 256;
	offer.private_len = CM_REQ_USER_PRIVATE + 1;
	assert_null(connect_to(t, &offer, PORT));
	offer = active_offer;
	offer.comm_id = 0;
	assert_null(connect_to(t, &offer, PORT));
	offer = active_offer;
	offer.qpn = 0x1000000;
	assert_null(connect_to(t, &offer, PORT));
	free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_captured_messages),
		cmocka_unit_test(test_captured_fields),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_connect),
		cmocka_unit_test(test_data),
		cmocka_unit_test(test_losses),
		cmocka_unit_test(test_silence),
		cmocka_unit_test(test_mra),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_reject),
		cmocka_unit_test(test_stale),
		cmocka_unit_test(test_strangers),
		cmocka_unit_test(test_repeated_req),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_offers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
