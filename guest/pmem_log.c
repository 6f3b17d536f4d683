/*
 * Power fails at random instructions under a log-structured store. Each CPU has a store of its own
 * in region 0 (modelled hardware): puts are appended to a log as records with a sequence number and
 * a checksum, several at a time, then flushed, then acknowledged; when half of the space is full
 * the last record of each key is copied to the other half, and a superblock of two changes over.
 * CPUs flush for themselves, or one does it for all. What a put stores follows from writer and
 * number, so that a store that has been read back can be compared with what it has to be.
 *
 * Region 1 is lent RAM, which outlives failures of power and keeps the score. Every start but the
 * last works until it is cut off; each one first recovers, and checks that whatever was
 * acknowledged is there and that what is there was once the state. The store is never begun anew.
 *
 * Options: cuts=N, seed=N, window=TICKS.
 */
#include "apic.h"
#include "cpu.h"
#include "mem.h"
#include "nfit.h"
#include "smp.h"
#include "umbra.h"

#define MAGIC	 0x474f4c50u
#define LINE	 64
#define WORDS	 (LINE / 8)
#define WRITERS	 8
#define KEYS	 16
#define HALF	 0x4000 /* bytes of one half of a writer's log */
#define MODEL_VA 0x4400000000ull
#define RAM_VA	 0x4480000000ull

enum kind {
	SUPERBLOCK = 1,
	CHECKPOINT, /* the last put of a key, copied */
	PUT
};

/* Both kinds of record, and the superblock, whose key is the half and whose lines are 1. */
struct record {
	u32 magic;
	u16 writer, lines; /* of 64 bytes, all told */
	u32 kind, key;
	u64 seq;   /* of the put; superblock: of the last that is in the checkpoint */
	u64 epoch; /* the start that wrote it */
	u64 arg;   /* superblock: its generation; else a word of the value */
	u64 sum;   /* over all the others, with this as 0 */
};

/* Control block in region 1. */
struct score {
	u64 acknowledged, begun; /* numbers of puts */
	u64 generation;		 /* of the superblock that is known to be durable */
};

static struct control {
	u32 magic, starts;
	u32 failures, first_life, first_writer, first_what;
	u64 lost, kept, torn, checkpoints, batches, asleep;
	struct score score[WRITERS];
	u64 rip[256]; /* where cuts came: a hash table */
} * control;

/* What a writer knows after recovery. */
static struct store {
	u32 half;
	u64 at; /* next free byte of the half */
	u64 seq, epoch, generation;
	u64 latest[KEYS]; /* number of the last put; 0: none */
	struct rng rng;
	volatile u64 asked, done; /* flushes, where another CPU does them */
} store[WRITERS];

static struct nfit nfit;
static u32 writers, cuts, committer;
static bool group; /* `committer` flushes for all */
static enum {
	CLFLUSH,
	CLFLUSHOPT,
	CLWB,
	NOTHING
} method;

static s64 pmem(u64 what, u64 n, u64 argument)
{
	return hypercall(HC_PMEM, what, n, argument, 0);
}

/* --- what a put is -------------------------------------------------------------------------------
 */

static u64 mix(u64 x)
{
	x ^= x >> 31;
	x *= 0x9e3779b97f4a7c15ull;
	return x ^ x >> 29;
}

static u64 word_of(u32 writer, u64 seq, u64 i)
{
	return mix(mix(seq << 8 | writer) + i);
}

static u32 key_of(u32 writer, u64 seq)
{
	return (u32)(word_of(writer, seq, 100) % KEYS);
}

static u16 lines_of(u32 writer, u64 seq)
{
	return (u16)(1 + word_of(writer, seq, 101) % 6);
}

static u8 *area(u32 writer)
{
	return (u8 *)MODEL_VA + 0x10000 + writer * 0x10000ull;
}

/* Two slots; of different controllers, and not those of the logs' begin. */
static struct record *slot(u32 writer, u64 generation)
{
	return (struct record *)(area(writer) + 0x1100 + (generation & 1) * 0x140);
}

static u8 *log_at(u32 writer, u32 half, u64 at)
{
	return area(writer) + 0x4000 + half * HALF + at;
}

static u64 sum_of(const struct record *r)
{
	const u64 *word = (const u64 *)r;
	u64 sum = 0;

	for (u32 i = 0; i < r->lines * WORDS; i++)
		if (&word[i] != &r->sum)
			sum = (sum << 5 | sum >> 59) ^ word[i] * 0x9e3779b97f4a7c15ull;
	return sum;
}

static bool is_valid(const struct record *r, u32 writer, u32 kind)
{
	return r->magic == MAGIC && r->writer == writer && r->kind == kind && r->lines >= 1 &&
	       r->lines <= 6 && r->sum == sum_of(r);
}

/* --- storing and flushing ------------------------------------------------------------------------
 */

/* Bochs looks at its timers between runs of instructions; a jump ends one. */
static void put_word(volatile u64 *to, u64 value)
{
	*to = value;
	asm volatile("jmp 1f\n1:" ::: "memory");
}

static void write_back(const void *line)
{
	switch (method) {
	case CLFLUSH:
		asm volatile("clflush (%0)" : : "r"(line) : "memory");
		break;
	case CLFLUSHOPT:
		asm volatile("clflushopt (%0)" : : "r"(line) : "memory");
		break;
	case CLWB:
		asm volatile("clwb (%0)" : : "r"(line) : "memory");
		break;
	case NOTHING:
		break;
	}
}

static void write_record(struct record *to, const struct record *r)
{
	for (u32 i = 0; i < r->lines * WORDS; i++) {
		put_word((u64 *)to + i, ((const u64 *)r)[i]);
		if (i % WORDS == WORDS - 1)
			write_back((u64 *)to + i);
	}
}

static void store_hint(u32 writer)
{
	u64 hint = nfit.region[0].hint[rng_below(&store[writer].rng, NFIT_HINTS)];

	asm volatile("sfence" ::: "memory");
	*(volatile u64 *)hint = 1;
	asm volatile("sfence" ::: "memory");
}

static void commit_for_all(u32 writer)
{
	u64 asked[WRITERS];

	for (u32 w = 0; w < writers; w++)
		asked[w] = __atomic_load_n(&store[w].asked, __ATOMIC_ACQUIRE);
	store_hint(writer);
	for (u32 w = 0; w < writers; w++)
		__atomic_store_n(&store[w].done, asked[w], __ATOMIC_RELEASE);
}

/* When it returns, everything that this writer has stored is durable. */
static void commit(u32 writer)
{
	struct store *s = &store[writer];
	u64 number = s->asked + 1;

	if (!group) {
		store_hint(writer);
		return;
	}
	__atomic_store_n(&s->asked, number, __ATOMIC_RELEASE);
	if (writer == committer)
		commit_for_all(writer);
	/* A neighbour on the same physical CPU may be the one who is waited for. */
	for (u32 i = 1; __atomic_load_n(&s->done, __ATOMIC_ACQUIRE) < number; i++) {
		cpu_pause();
		if (i % 64 == 0)
			hypercall(HC_YIELD, 0, 0, 0, 0);
	}
}

/* --- the store -----------------------------------------------------------------------------------
 */

static void make(struct record *r, u32 writer, u32 kind, u64 seq)
{
	const struct record header = {
		.magic = MAGIC,
		.writer = (u16)writer,
		.lines = lines_of(writer, seq),
		.kind = kind,
		.key = key_of(writer, seq),
		.seq = seq,
		.epoch = store[writer].epoch,
		.arg = word_of(writer, seq, 0),
	};

	*r = header;
	for (u32 i = sizeof(header) / 8; i < r->lines * WORDS; i++)
		((u64 *)r)[i] = word_of(writer, seq, i);
	r->sum = sum_of(r);
}

/* The rest of the value is what it was when it was put. */
static bool is_put(const struct record *r, u32 writer)
{
	bool good = r->key == key_of(writer, r->seq) && r->lines == lines_of(writer, r->seq) &&
		    r->arg == word_of(writer, r->seq, 0);

	for (u32 i = sizeof(*r) / 8; good && i < r->lines * WORDS; i++)
		good = ((const u64 *)r)[i] == word_of(writer, r->seq, i);
	return good;
}

static void append(u32 writer, u32 kind, u64 seq)
{
	struct store *s = &store[writer];
	union {
		struct record r;
		u64 word[6 * WORDS];
	} u;

	make(&u.r, writer, kind, seq);
	write_record((struct record *)log_at(writer, s->half, s->at), &u.r);
	s->at += u.r.lines * LINE;
}

static void write_superblock(u32 writer)
{
	struct store *s = &store[writer];
	union {
		struct record r;
		u64 word[WORDS];
	} u = {.r = {.magic = MAGIC,
		     .writer = (u16)writer,
		     .lines = 1,
		     .kind = SUPERBLOCK,
		     .key = s->half,
		     .seq = s->seq,
		     .epoch = s->epoch,
		     .arg = ++s->generation}};

	u.r.sum = sum_of(&u.r);
	write_record(slot(writer, s->generation), &u.r);
	commit(writer);
	control->score[writer].generation = s->generation;
}

/* Everything up to s->seq has been acknowledged. */
static void checkpoint(u32 writer)
{
	struct store *s = &store[writer];

	s->half ^= 1;
	s->at = 0;
	for (u32 k = 0; k < KEYS; k++)
		if (s->latest[k])
			append(writer, CHECKPOINT, s->latest[k]);
	commit(writer);
	write_superblock(writer);
	__atomic_add_fetch(&control->checkpoints, 1, __ATOMIC_RELAXED);
}

/* Some puts, one flush. */
static void put_batch(u32 writer)
{
	struct store *s = &store[writer];
	struct score *score = &control->score[writer];
	u64 n = 1 + rng_below(&s->rng, 4);

	if (s->at + n * 6 * LINE > HALF)
		checkpoint(writer);
	for (; n; n--) {
		score->begun = MAX(score->begun, s->seq + 1);
		append(writer, PUT, ++s->seq);
		s->latest[key_of(writer, s->seq)] = s->seq;
	}
	commit(writer);
	score->acknowledged = s->seq;
	__atomic_add_fetch(&control->batches, 1, __ATOMIC_RELAXED);
}

static void work(void *arg)
{
	u32 writer = this_cpu()->index;

	for (;;) {
		put_batch(writer);
		if (rng_below(&store[writer].rng, 8) == 0)
			hypercall(HC_YIELD, 0, 0, 0, 0);
	}
}

/* --- recovery ------------------------------------------------------------------------------------
 */

static const char *const whats[] = {
	"",
	"a durable superblock is gone",
	"a durable checkpoint is damaged",
	"a record holds something else than was put",
	"acknowledged puts are gone",
	"there are puts that were never made",
	"a key has not its last value",
};

static void fail(u32 writer, u32 what)
{
	if (!control->failures++) {
		control->first_life = control->starts;
		control->first_writer = writer;
		control->first_what = what;
	}
}

/* From what the newest superblock says; false: there is nothing yet. */
static bool read_superblock(u32 writer, u64 *records_epoch)
{
	struct store *s = &store[writer];
	const struct record *best = NULL;

	for (u32 i = 0; i < 2; i++) {
		const struct record *r = slot(writer, i);

		if (is_valid(r, writer, SUPERBLOCK) && r->lines == 1 && (r->arg & 1) == i &&
		    (!best || r->arg > best->arg))
			best = r;
	}
	if ((best ? best->arg : 0) < control->score[writer].generation)
		fail(writer, 1);
	if (!best)
		return false;
	s->half = best->key & 1;
	s->seq = best->seq;
	s->generation = best->arg;
	*records_epoch = best->epoch;
	return true;
}

/* One more record of the log; false: it ends here. */
static bool read_record(u32 writer, u32 kind, u64 *epoch)
{
	struct store *s = &store[writer];
	const struct record *r = (const struct record *)log_at(writer, s->half, s->at);
	u64 room = HALF - s->at;

	if (room < LINE || r->lines > 6 || r->lines * LINE > room)
		return false;
	if (kind == PUT && (r->seq != s->seq + 1 || r->epoch < *epoch))
		return false; /* an older one, of those that have been here before */
	if (!is_valid(r, writer, kind)) {
		control->torn += r->magic == MAGIC && r->kind == kind;
		return false;
	}
	if (!is_put(r, writer))
		fail(writer, 3);
	if (kind == PUT) {
		s->seq = r->seq;
		*epoch = r->epoch;
	}
	s->latest[r->key % KEYS] = r->seq;
	s->at += r->lines * LINE;
	return true;
}

/* The last put of each key, of those up to `seq`. */
static void expect(u32 writer, u64 seq, u64 latest[KEYS])
{
	memset(latest, 0, KEYS * sizeof(u64));
	for (u32 found = 0; seq && found < KEYS; seq--) {
		u64 *l = &latest[key_of(writer, seq)];

		found += !*l;
		*l = MAX(*l, seq);
	}
}

static void recover(u32 writer)
{
	struct store *s = &store[writer];
	struct score *score = &control->score[writer];
	u64 epoch = 0, want[KEYS];
	u32 keys = 0;

	s->epoch = control->starts;
	if (!read_superblock(writer, &epoch)) {
		write_superblock(writer);
		return;
	}
	expect(writer, s->seq, want);
	for (u32 k = 0; k < KEYS; k++)
		keys += want[k] != 0;
	for (u32 i = 0; i < keys; i++)
		if (!read_record(writer, CHECKPOINT, &epoch))
			fail(writer, 2);
	while (read_record(writer, PUT, &epoch))
		;
	if (s->seq < score->acknowledged)
		fail(writer, 4);
	if (s->seq > score->begun)
		fail(writer, 5);
	expect(writer, s->seq, want);
	if (memcmp(want, s->latest, sizeof(want)) != 0)
		fail(writer, 6);
	control->kept += s->seq > score->acknowledged;
	control->lost += s->seq < score->begun;
	/* It has been found: it is durable. */
	score->acknowledged = s->seq;
	score->generation = s->generation;
	/* What was begun and is gone is begun again. */
	score->begun = s->seq;
}

/* --- lives ---------------------------------------------------------------------------------------
 */

static void note_rip(void)
{
	u64 rip = (u64)pmem(HC_PMEM_CUT_RIP, 0, 0);

	control->asleep += !rip;
	for (u32 i = 0; rip && i < ARRAY_SIZE(control->rip); i++) {
		u64 *entry = &control->rip[(mix(rip) + i) % ARRAY_SIZE(control->rip)];

		if (*entry && *entry != rip)
			continue;
		*entry = rip;
		return;
	}
}

/* Returns whether one CPU is to flush for all. */
static bool choose(struct rng *rng)
{
	static const u32 bit[] = {[CLFLUSHOPT] = BIT(23), [CLWB] = BIT(24)};
	u32 have = cpuid(7, 0).ebx;

	method = rng_below(rng, NOTHING + 1);
	if ((method == CLFLUSHOPT || method == CLWB) && !(have & bit[method]))
		method = CLFLUSH;
	committer = (u32)rng_below(rng, writers);
	return rng_below(rng, 3) == 0;
}

/* The others wait for power-up's SIPI (no firmware has taken them out of that), without delays. */
static void start_cpus(void)
{
	smp_spin = true;
	smp_install_trampoline();
	lapic_enable();
	if (writers > 1)
		lapic_send(0, ICR_OTHERS | ICR_SIPI | ICR_ASSERT | TRAMPOLINE >> 12);
	for (u32 i = 0; i < 1000000 && smp_count() < writers; i++)
		cpu_pause();
	if (smp_count() != writers)
		tap_bail("%u CPUs of %u", smp_count(), writers);
}

/* Cut off, or the last. */
static void live(u64 seed, u64 window)
{
	bool last = control->starts >= cuts, together;
	struct rng rng;

	rng_seed(&rng, seed * 1000003 + control->starts);
	together = choose(&rng);
	for (u32 w = 0; w < writers; w++)
		rng_seed(&store[w].rng, rng_next(&rng));
	/* Some of the time recovery is in the window too. */
	window = 1 + rng_below(&rng, window);
	if (!last && rng_below(&rng, 4) == 0)
		pmem(HC_PMEM_CUT_WITHIN, rng_next(&rng) | 1, window);
	for (u32 w = 0; w < writers; w++)
		recover(w);
	if (last)
		return;
	start_cpus();
	group = together;
	pmem(HC_PMEM_CUT_WITHIN, rng_next(&rng) | 1, window);
	for (u32 w = 1; w < writers; w++)
		smp_post(w, work, NULL);
	work(NULL);
}

static void begin(void)
{
	if (!umbra_present() || !nfit_read(&nfit)) {
		tap_skip("no persistent memory");
		tap_end();
	}
	if (nfit.regions != 2 || !nfit.region[0].hints)
		tap_bail("two regions are expected");
	pt_map(MODEL_VA, nfit.region[0].base, nfit.region[0].bytes, PTE_P | PTE_W, 2);
	pt_map(RAM_VA, nfit.region[1].base, nfit.region[1].bytes, PTE_P | PTE_W, 2);
	control = (struct control *)RAM_VA;
	cuts = (u32)opt_u64("cuts", 200);
	writers = MIN(smp_expected(), (u32)WRITERS);
	if (control->magic != MAGIC) {
		memset(control, 0, sizeof(*control));
		control->magic = MAGIC;
	} else {
		control->starts++;
		note_rip();
	}
}

void guest_main(void)
{
	u32 places = 0;

	begin();
	live(opt_u64("seed", 1), opt_u64("window", 400000));
	for (u32 i = 0; i < ARRAY_SIZE(control->rip); i++)
		places += control->rip[i] != 0;
	tap_is((u64)pmem(HC_PMEM_CUTS, 0, 0), cuts, "failures of power");
	if (control->failures)
		tap_note("start %u, writer %u: %s", control->first_life, control->first_writer,
			 whats[control->first_what]);
	tap_is(control->failures, 0, "rules broken");
	tap_note("%lu batches by %u writers, %lu checkpoints", control->batches, writers,
		 control->checkpoints);
	tap_note("at %u instructions and more; %lu times all were asleep", places, control->asleep);
	tap_note("%lu with puts lost, %lu with puts kept that were not acknowledged; %lu torn",
		 control->lost, control->kept, control->torn);
	/* That the test tests something. */
	if (cuts < 50)
		return;
	tap_ok(control->lost >= cuts / 10, "puts got lost");
	tap_ok(control->kept >= cuts / 20, "puts survived by chance");
	tap_ok(control->torn >= cuts / 50, "records were torn");
	tap_ok(control->checkpoints >= cuts / 5, "checkpoints were made");
	tap_ok(places >= 10, "power failed at many places");
}
