/*
 * Two QPs over a network that loses, copies, reorders and alters: every operation completes, in
 * order, with the right bytes; each single fault at each frame, around the wrap of the PSN.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "rdma_pair.h"

/* --- random work against a model ------------------------------------------------------------ */

#define SLOTS	  RDMA_SEND_MAX
#define SLOT_SIZE 16384u
#define HALF	  (PAIR_MEMORY / 2) /* below: read and written, above: only read */

struct driver {
	u8 model[PAIR_MEMORY]; /* the peer's memory, as after everything posted */
	u8 buffer[SLOTS][SLOT_SIZE];
	u8 expected[SLOTS][SLOT_SIZE]; /* of READs */
	u8 receive[RDMA_RECV_MAX][SLOT_SIZE];
	struct rdma_work work[SLOTS];
	u64 posted, completed;
	u64 receives_posted, received;
	struct { /* what the peer's receives must get */
		u32 length, imm;
		bool has_imm, data;
		u8 bytes[SLOT_SIZE];
	} message[RDMA_SEND_MAX];
	u64 messages;
};

struct world {
	struct pair *pair;
	struct driver driver[2];
	u32 sizes; /* lengths are below */
};

static void random_bytes(struct pair *p, u8 *at, u32 len)
{
	while (len--)
		*at++ = (u8)pair_random(p, 256);
}

static void expect_message(struct driver *d, const struct rdma_work *w)
{
	u64 slot = d->messages++ % RDMA_SEND_MAX;

	d->message[slot].length = w->length;
	d->message[slot].imm = w->imm;
	d->message[slot].has_imm = w->op == RDMA_SEND_IMM || w->op == RDMA_WRITE_IMM;
	d->message[slot].data = w->op == RDMA_SEND || w->op == RDMA_SEND_IMM;
	memcpy(d->message[slot].bytes, w->data, w->length);
}

static void post_one(struct world *w, int i)
{
	struct driver *d = &w->driver[i];
	struct pair *p = w->pair;
	u32 slot = (u32)(d->posted % SLOTS), at;
	struct rdma_work work = {
		.id = d->posted,
		.op = (enum rdma_operation)pair_random(p, RDMA_SEND_IMM + 1),
		.data = d->buffer[slot],
		.length = pair_random(p, 8) ? pair_random(p, w->sizes) : 0,
		.rkey = PAIR_RKEY,
		.imm = pair_random(p, 0x10000),
		.solicited = pair_random(p, 2),
	};

	/* A slot's message must have been taken before it is used again. */
	if (d->messages - w->driver[!i].received >= RDMA_SEND_MAX - 1 ||
	    d->posted - d->completed >= SLOTS)
		return;
	at = pair_random(p, HALF - work.length);
	if (work.op == RDMA_READ) {
		at += pair_random(p, 2) * HALF;
		memcpy(d->expected[slot], d->model + at, work.length);
		memset(work.data, 0xee, work.length);
	} else {
		random_bytes(p, work.data, work.length);
	}
	if (work.op == RDMA_WRITE || work.op == RDMA_WRITE_IMM) {
		/* A repeated READ must not see a later WRITE. */
		work.fence = true;
		memcpy(d->model + at, work.data, work.length);
	}
	work.va = PAIR_VA + at;
	if (!work.length)
		work.rkey = 0;
	d->work[slot] = work;
	assert_int_equal(rdma_post(&p->end[i].qp, &work), 0);
	d->posted++;
	if (work.op == RDMA_SEND || work.op == RDMA_SEND_IMM || work.op == RDMA_WRITE_IMM)
		expect_message(d, &work);
}

static void post_receives(struct world *w, int i)
{
	struct driver *d = &w->driver[i];

	while (d->receives_posted - d->received < RDMA_RECV_MAX && pair_random(w->pair, 4)) {
		u64 slot = d->receives_posted % RDMA_RECV_MAX;
		struct rdma_receive r = {d->receives_posted, d->receive[slot], SLOT_SIZE};

		assert_int_equal(rdma_post_receive(&w->pair->end[i].qp, &r), 0);
		d->receives_posted++;
	}
}

static void collect(struct world *w, int i)
{
	struct driver *d = &w->driver[i], *peer = &w->driver[!i];
	struct rdma_qp *qp = &w->pair->end[i].qp;
	struct rdma_completion c;

	while (rdma_poll_send(qp, &c)) {
		u32 slot = (u32)(d->completed % SLOTS);

		assert_int_equal(c.status, RDMA_OK);
		assert_int_equal(c.id, d->completed);
		if (d->work[slot].op == RDMA_READ && d->work[slot].length)
			assert_memory_equal(d->buffer[slot], d->expected[slot],
					    d->work[slot].length);
		d->completed++;
	}
	while (rdma_poll_receive(qp, &c)) {
		u64 slot = d->received % RDMA_SEND_MAX;

		assert_int_equal(c.status, RDMA_OK);
		assert_int_equal(c.id, d->received);
		assert_int_equal(c.length, peer->message[slot].length);
		assert_int_equal(c.has_imm, peer->message[slot].has_imm);
		if (c.has_imm)
			assert_int_equal(c.imm, peer->message[slot].imm);
		if (peer->message[slot].data && c.length)
			assert_memory_equal(d->receive[d->received % RDMA_RECV_MAX],
					    peer->message[slot].bytes, c.length);
		d->received++;
	}
}

/* A congestion notification out of nowhere. */
static void notify(struct pair *p)
{
	int i = (int)pair_random(p, 2);
	const struct rdma_qp_config *c = &p->end[i].qp.config;
	struct rdma_packet packet = {
		.src_ip = c->remote_ip,
		.dst_ip = c->local_ip,
		.opcode = OP_CNP,
		.congestion = BTH_BECN,
		.pkey = 0xffff,
		.dest_qp = c->local_qpn,
	};

	rdma_qp_receive(&p->end[i].qp, p->now, &packet);
}

static void random_round(u32 seed, const struct net_faults *faults, u32 mtu, u32 operations)
{
	struct rdma_qp_config a = pair_config(0, 0xfffff0 - seed % 64),
			      b = pair_config(1, 0x7fff00);
	struct world *w = calloc(1, sizeof(*w));
	struct pair *p;
	u32 steps = 0;
	int i;

	a.recv_psn = b.send_psn;
	b.recv_psn = a.send_psn;
	a.mtu = b.mtu = mtu;
	a.window = 4u << seed % 5;
	p = w->pair = pair_new(&a, &b);
	p->seed = seed + 1;
	p->faults = *faults;
	w->sizes = seed % 2 ? 4097 : SLOT_SIZE;
	for (i = 0; i < 2; i++) {
		random_bytes(p, p->end[i].memory, PAIR_MEMORY);
		memcpy(w->driver[!i].model, p->end[i].memory, PAIR_MEMORY);
	}
	while (w->driver[0].completed < operations || w->driver[1].completed < operations) {
		/* Bounded progress: at the worst, some time-outs of 4 ms for each operation. */
		assert_in_range(++steps, 1, operations * 40000);
		for (i = 0; i < 2; i++) {
			if (w->driver[i].posted < operations && !pair_random(p, 4))
				post_one(w, i);
			if (!pair_random(p, 30))
				post_receives(w, i);
		}
		if (faults->loss && !pair_random(p, 500))
			notify(p);
		pair_step(p);
		collect(w, 0);
		collect(w, 1);
	}
	/* Late copies must not harm either. */
	for (i = 0; i < 300; i++)
		pair_step(p);
	for (i = 0; i < 2; i++) {
		collect(w, i);
		assert_int_equal(w->driver[i].received, w->driver[!i].messages);
		assert_memory_equal(w->driver[!i].model, p->end[i].memory, PAIR_MEMORY);
		assert_int_equal(p->end[i].qp.state, RDMA_QP_READY);
		if (faults->loss)
			assert_int_not_equal(p->end[i].qp.stats.tx_again, 0);
		if (!faults->alter)
			assert_int_equal(p->end[i].refused, 0);
	}
	pair_free(p);
	free(w);
}

static void rounds(const struct net_faults *faults, u32 count, u32 operations)
{
	static const u32 mtus[] = {256, 512, 1024, 2048, 4096};
	u32 i;

	for (i = 0; i < count; i++)
		random_round(i, faults, mtus[i % ARRAY_SIZE(mtus)], operations);
}

static void test_clean(void **state)
{
	rounds(&(struct net_faults){0}, 10, 200);
}

static void test_loss(void **state)
{
	rounds(&(struct net_faults){.loss = 1}, 5, 1000);
	rounds(&(struct net_faults){.loss = 30}, 20, 200);
	rounds(&(struct net_faults){.loss = 100}, 20, 200);
}

static void test_copies_and_reordering(void **state)
{
	rounds(&(struct net_faults){.copy = 200}, 20, 200);
	rounds(&(struct net_faults){.delay = 100}, 20, 200);
}

static void test_everything(void **state)
{
	rounds(&(struct net_faults){.loss = 30, .copy = 50, .delay = 50, .alter = 30}, 60, 200);
}

/* --- each single fault ---------------------------------------------------------------------- */

static void one_fault(u32 psn, u64 at, char fault, u64 *frames)
{
	static u8 out[5000], in[3000], inbox[3000];
	static const enum rdma_operation ops[] = {RDMA_WRITE,	  RDMA_READ, RDMA_SEND, RDMA_READ,
						  RDMA_WRITE_IMM, RDMA_READ, RDMA_WRITE};
	static const u32 lengths[] = {2049, 3000, 1500, 1, 1024, 0, 0};
	struct pair *p = pair_default(psn);
	struct rdma_receive receive = {7, inbox, sizeof(inbox)};
	struct rdma_completion c;
	struct rdma_work work;
	size_t i;

	for (i = 0; i < sizeof(out); i++)
		out[i] = (u8)(i * 11 + 5);
	for (i = 0; i < PAIR_MEMORY; i++)
		p->end[1].memory[i] = (u8)(i * 13 + i / 256);
	memset(in, 0, sizeof(in));
	memset(inbox, 0, sizeof(inbox));
	p->fault_at = at;
	p->fault = fault;
	rdma_post_receive(&p->end[1].qp, &receive);
	rdma_post_receive(&p->end[1].qp, &receive);
	for (i = 0; i < ARRAY_SIZE(ops); i++) {
		work = (struct rdma_work){
			.id = i,
			.op = ops[i],
			.data = ops[i] == RDMA_READ ? in : out,
			.length = lengths[i],
			.rkey = PAIR_RKEY,
			.va = PAIR_VA + (ops[i] == RDMA_READ ? 8192 : 1),
			.imm = 99,
		};
		assert_int_equal(rdma_post(&p->end[0].qp, &work), 0);
	}
	assert_true(pair_run(p, 20000));
	for (i = 0; i < ARRAY_SIZE(ops); i++) {
		assert_true(rdma_poll_send(&p->end[0].qp, &c));
		assert_int_equal(c.id, i);
		assert_int_equal(c.status, RDMA_OK);
	}
	assert_memory_equal(p->end[1].memory + 1, out, 2049);
	assert_int_equal(p->end[1].memory[0], 0);
	assert_int_equal(p->end[1].memory[2050], (u8)(2050 * 13 + 8));
	assert_memory_equal(in, p->end[1].memory + 8192, 3000);
	assert_true(rdma_poll_receive(&p->end[1].qp, &c));
	assert_true(c.status == RDMA_OK && c.length == 1500 && !c.has_imm);
	assert_memory_equal(inbox, out, 1500);
	assert_true(rdma_poll_receive(&p->end[1].qp, &c));
	assert_true(c.status == RDMA_OK && c.length == 1024 && c.has_imm && c.imm == 99);
	assert_false(rdma_poll_receive(&p->end[1].qp, &c));
	if (frames)
		*frames = p->sent;
	pair_free(p);
}

static void test_each_single_fault(void **state)
{
	/* Start so that each packet of the run is once the first after a wrap, of 24 and of 23
	 * bits. */
	static const u32 wraps[] = {0, 0x800000};
	static const char faults[] = "dcl";
	u64 frames, at;
	size_t wrap, fault;
	u32 before;

	for (wrap = 0; wrap < ARRAY_SIZE(wraps); wrap++)
		for (before = 0; before < 16; before++) {
			u32 psn = (wraps[wrap] - before) & PSN_MASK;

			one_fault(psn, 0, 0, &frames);
			assert_in_range(frames, 14, 40);
			for (fault = 0; faults[fault]; fault++)
				for (at = 1; at <= frames; at++)
					one_fault(psn, at, faults[fault], NULL);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clean),
		cmocka_unit_test(test_loss),
		cmocka_unit_test(test_copies_and_reordering),
		cmocka_unit_test(test_everything),
		cmocka_unit_test(test_each_single_fault),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
