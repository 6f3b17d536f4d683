/*
 * An exhaustive check of the invalidation protocol: every interleaving of two or three CPUs running
 * the real ept_enter(), ept_catch_up(), ept_leave(), ept_sync() and ept_assert_fresh(), compiled so
 * that each atomic operation is one step (ept_gen_hook.h).
 *
 * The machine of the model:
 * - Memory is x86-TSO: each CPU has a store buffer; stores other than sequentially consistent
 *   ones (XCHG) wait there until a step of their own writes them; a CPU reads its own buffer
 *   first; XCHG, locked operations and taking a lock need the buffer empty. VM entry, VM exit,
 *   INVEPT and sending an IPI are not taken to drain it, although some do.
 * - In guest mode a CPU may at any time cache whatever the EPT entries in memory say, translations
 *   and pointers to tables alike, and keep it until INVEPT. Caching more never hides an error, and
 *   what is cached changes no decision, so it is enough to let each CPU cache everything always.
 * - A guest stays in guest mode for ever unless kicked, or leaves by itself at any time: both.
 *
 * A changer is what ept.c does under the lock: store an entry, retire the old table, bump the
 * generation; then ept_sync(), after which the old frame is used for something else. The old table
 * is used for something else when ept_table_reclaim() says so.
 *
 * Wrong is: a CPU in guest mode holds anything cached that has been put to another use; a CPU fails
 * ept_assert_fresh(); a changer waits for what will never happen.
 *
 * The local state of a CPU is the list of values that its operations returned: to take a step, its
 * program runs from the start of the round with these values and is stopped one operation later.
 * Each mutant breaks one link of the chain; the check must find something wrong with every one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ept/ept_entry.h"
#include "lib/panic.h"
#include "seen.h"

#define MODEL_CPUS 3
#define HISTORY	   64
#define BUFFER	   4

enum location {
	RUNNING0, /* one per CPU; 1 = the view, 0 = NULL */
	SEEN0 = RUNNING0 + MODEL_CPUS,
	GENERATION = SEEN0 + MODEL_CPUS,
	SETTLED,
	LOCK,
	ENTRY0, /* two entries, one per changer: the number of the page that it maps */
	ENTRY1,
	LOCATIONS
};

enum guest_mode {
	ROOT,
	WILLING,
	STUBBORN
};

struct model_cpu {
	u8 round, done;
	u8 length, history[HISTORY];
	u8 stores;
	struct {
		u8 location, value;
	} buffer[BUFFER];
	u8 mode; /* enum guest_mode */
	u8 kicked;
	u8 cached; /* set of pages */
};

struct state {
	u8 memory[LOCATIONS];
	u8 reused;  /* set of pages: old frame or old table has another use */
	u8 dead[8]; /* generation in which the page's table died; 0 = alive */
	struct model_cpu cpu[MODEL_CPUS];
};

/* Page numbers: entry 0 maps 0, 1, 2, ... in turn, entry 1 maps 4, 5, ... */
#define FIRST_PAGE(entry) ((entry)*4)

enum mutant {
	GOOD,
	ENTER_NOT_FENCED,    /* ept_running stored like any other variable */
	ENTER_SWAPPED,	     /* generation read before ept_running is stored */
	ENTER_NOT_ANNOUNCED, /* ept_running not stored */
	ENTER_NOT_CHECKED,   /* generation not compared */
	ENTER_NO_INVEPT,
	LEAVE_BEFORE_EXIT,
	NO_BUMP,
	BUMP_BEFORE_CHANGE,
	BUMP_AFTER_SYNC,
	BUMP_NOT_LOCKED, /* an ordinary load and store */
	SYNC_NO_KICK,
	SYNC_NO_WAIT,
	SYNC_ONE_CPU_SHORT,
	SYNC_OLD_GENERATION, /* waits for the last generation but one */
	REUSE_BEFORE_SYNC,
	RECLAIM_AT_ONCE, /* tables go to the reserve without limbo */
	RECLAIM_ALL,	 /* whatever is in limbo, whenever it died */
	MUTANTS,
	/*
	 * Not wrong: `seen` gets the generation as it is after INVEPT. In root mode nothing is
	 * cached, and what the newer generation changed is in memory before it.
	 */
	ENTER_NOTES_LATEST,
};

struct config {
	u32 cpus, changers; /* the first CPUs change, the others run guests */
	u8 changes, entries;
	bool assert_fresh, announce;
};

static struct ept_view view;
static u64 entries[2];
static const struct config *config;
static enum mutant mutant;

/* The step being taken. */
static struct state *now;
static u32 self;
static unsigned int position, budget, choice;
static bool chose, syncing;
static jmp_buf out;
enum outcome {
	STEPPED = 1,
	BLOCKED,
	WRONG
};

/* --- operations ------------------------------------------------------------------------------- */

/* True: the operation has happened before and *value is what it returned. */
static bool replayed(u64 *value)
{
	const struct model_cpu *c = &now->cpu[self];

	if (position < c->length) {
		*value = c->history[position++];
		return true;
	}
	if (budget == 0)
		longjmp(out, STEPPED);
	budget--;
	return false;
}

/* The same for an operation that returns nothing. */
static bool done_before(void)
{
	u64 ignored;

	return replayed(&ignored);
}

static u64 returned(u64 value)
{
	struct model_cpu *c = &now->cpu[self];

	if (c->length == HISTORY || value > 255)
		abort();
	c->history[c->length++] = value;
	position++;
	return value;
}

static unsigned int location_of(const void *word)
{
	for (unsigned int i = 0; i < MODEL_CPUS; i++) {
		if (word == &ept_running[i])
			return RUNNING0 + i;
		if (word == &view.seen[i])
			return SEEN0 + i;
	}
	for (unsigned int i = 0; i < 2; i++)
		if (word == &entries[i])
			return ENTRY0 + i;
	if (word == &view.generation)
		return GENERATION;
	if (word == &view.settled)
		return SETTLED;
	abort();
}

static bool is_running(unsigned int location)
{
	return location < RUNNING0 + MODEL_CPUS;
}

static u64 memory_read(unsigned int location)
{
	const struct model_cpu *c = &now->cpu[self];

	for (unsigned int i = c->stores; i > 0; i--)
		if (c->buffer[i - 1].location == location)
			return c->buffer[i - 1].value;
	return now->memory[location];
}

static void memory_write(unsigned int location, u64 value, bool drained)
{
	struct model_cpu *c = &now->cpu[self];

	if (drained ? c->stores > 0 : c->stores == BUFFER)
		longjmp(out, BLOCKED);
	if (drained) {
		now->memory[location] = value;
	} else {
		c->buffer[c->stores].location = location;
		c->buffer[c->stores].value = value;
		c->stores++;
	}
}

u64 model_load(const void *word)
{
	unsigned int location = location_of(word);
	u64 value;

	if (!replayed(&value)) {
		value = memory_read(location);
		if (mutant == SYNC_NO_WAIT && is_running(location) && now->cpu[location].kicked)
			value = 0;
		if (mutant == SYNC_OLD_GENERATION && location == GENERATION && syncing)
			value--;
		returned(value);
	}
	return is_running(location) && value ? (u64)(uintptr_t)&view : value;
}

void model_store(void *word, u64 value, int order)
{
	unsigned int location = location_of(word);
	bool locked = order == __ATOMIC_SEQ_CST;

	if (mutant == ENTER_NOT_ANNOUNCED && is_running(location) && value)
		return;
	if (done_before())
		return;
	if (is_running(location)) {
		value = value != 0;
		locked = locked && mutant != ENTER_NOT_FENCED;
	}
	if (mutant == ENTER_NOTES_LATEST && location == SEEN0 + self)
		value = memory_read(GENERATION);
	memory_write(location, value, locked);
	returned(0);
}

u64 model_add(void *word, u64 n)
{
	unsigned int location = location_of(word);
	u64 value;

	if (mutant == NO_BUMP)
		return 0;
	if (replayed(&value))
		return value;
	value = memory_read(location);
	memory_write(location, value + n, mutant != BUMP_NOT_LOCKED);
	return returned(value);
}

void model_lock(struct spinlock *lock)
{
	if (done_before())
		return;
	if (now->memory[LOCK])
		longjmp(out, BLOCKED);
	memory_write(LOCK, 1, true);
	returned(0);
}

void model_unlock(struct spinlock *lock)
{
	if (done_before())
		return;
	memory_write(LOCK, 0, false);
	returned(0);
}

/* ept_sync() looks again: what is_behind() has just read, two values, is forgotten. */
void model_pause(void)
{
	struct model_cpu *c = &now->cpu[self];

	if (position != c->length || c->length < 2)
		abort();
	c->length -= 2;
	longjmp(out, STEPPED);
}

void vmx_invept_single(u64 eptp)
{
	if (mutant == ENTER_NO_INVEPT || done_before())
		return;
	now->cpu[self].cached = 0;
	returned(0);
}

void ept_kick_cpu(u32 cpu)
{
	if (mutant == SYNC_NO_KICK || done_before())
		return;
	now->cpu[cpu].kicked = 1;
	returned(0);
}

void ept_table_reclaim(struct ept_view *v, u64 acknowledged)
{
	if (done_before())
		return;
	for (unsigned int page = 0; page < ARRAY_SIZE(now->dead); page++)
		if (now->dead[page] && (now->dead[page] <= acknowledged || mutant == RECLAIM_ALL))
			now->reused |= BIT(page);
	returned(0);
}

__noreturn void panic(const char *fmt, ...)
{
	longjmp(out, WRONG);
}

/* --- programs --------------------------------------------------------------------------------- */

static void vm_entry(void)
{
	if (done_before())
		return;
	chose = true;
	now->cpu[self].mode = choice ? STUBBORN : WILLING;
	returned(0);
}

static void vm_exit(void)
{
	if (done_before())
		return;
	if (now->cpu[self].mode == STUBBORN && !now->cpu[self].kicked)
		longjmp(out, BLOCKED);
	now->cpu[self].mode = ROOT;
	now->cpu[self].kicked = 0;
	returned(0);
}

/* ept_enter() with its first two steps in the wrong order, and without its last one. */
static void enter_swapped(void)
{
	u64 generation = __atomic_load_n(&view.generation, __ATOMIC_SEQ_CST);

	__atomic_store_n(&ept_running[self], &view, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&view.seen[self], __ATOMIC_RELAXED) != generation)
		ept_catch_up(&view, self, generation);
}

static void enter_not_checked(void)
{
	__atomic_store_n(&ept_running[self], &view, __ATOMIC_SEQ_CST);
}

/* As the run loop does it: the fast way if there is nothing to do, else the slow way and again. */
static void enter(void)
{
	if (!config->announce)
		return ept_enter(&view, self);
	while (!ept_announce(&view, self)) {
		ept_enter(&view, self);
		ept_leave(self);
	}
}

static void guest_round(void)
{
	if (mutant == ENTER_SWAPPED)
		enter_swapped();
	else if (mutant == ENTER_NOT_CHECKED)
		enter_not_checked();
	else
		enter();
	if (config->assert_fresh)
		ept_assert_fresh(&view, self);
	vm_entry();
	if (mutant == LEAVE_BEFORE_EXIT)
		ept_leave(self);
	vm_exit();
	if (mutant != LEAVE_BEFORE_EXIT)
		ept_leave(self);
}

static void retire(unsigned int page, u64 generation)
{
	if (done_before())
		return;
	now->dead[page] = generation;
	if (mutant == RECLAIM_AT_ONCE)
		now->reused |= BIT(page);
	returned(0);
}

static void reuse_frame(unsigned int page)
{
	if (done_before())
		return;
	now->reused |= BIT(page);
	returned(0);
}

/* What walk_change() of ept.c does, reduced to one entry, and its caller. */
static void changer_round(void)
{
	unsigned int page = FIRST_PAGE(self) + now->cpu[self].round;
	u32 cpus = config->cpus - (mutant == SYNC_ONE_CPU_SHORT);
	u64 *entry = &entries[self];

	spin_lock(&view.lock);
	if (mutant == BUMP_BEFORE_CHANGE)
		__atomic_fetch_add(&view.generation, 1, __ATOMIC_SEQ_CST);
	epte_store(entry, page + 1);
	retire(page, __atomic_load_n(&view.generation, __ATOMIC_RELAXED) +
			     (mutant != BUMP_BEFORE_CHANGE));
	if (mutant != BUMP_BEFORE_CHANGE && mutant != BUMP_AFTER_SYNC)
		__atomic_fetch_add(&view.generation, 1, __ATOMIC_SEQ_CST);
	spin_unlock(&view.lock);

	if (mutant == REUSE_BEFORE_SYNC)
		reuse_frame(page);
	syncing = true;
	ept_sync(&view, self, cpus);
	reuse_frame(page);
	if (mutant == BUMP_AFTER_SYNC)
		__atomic_fetch_add(&view.generation, 1, __ATOMIC_SEQ_CST);
}

static bool is_changer(u32 cpu)
{
	return cpu < config->changers;
}

/* One step of a CPU's program. */
static enum outcome step_program(struct state *s, u32 cpu, unsigned int pick)
{
	struct model_cpu *c = &s->cpu[cpu];
	int outcome;

	now = s;
	self = cpu;
	position = 0;
	budget = 1;
	choice = pick;
	chose = syncing = false;
	outcome = setjmp(out);
	if (outcome)
		return outcome;
	if (is_changer(cpu))
		changer_round();
	else
		guest_round();
	c->length = 0;
	c->round++;
	c->done = c->round == (is_changer(cpu) ? config->changes : config->entries);
	return STEPPED;
}

/* The oldest store of a CPU's buffer reaches memory. */
static bool step_buffer(struct state *s, u32 cpu)
{
	struct model_cpu *c = &s->cpu[cpu];

	if (c->stores == 0)
		return false;
	s->memory[c->buffer[0].location] = c->buffer[0].value;
	c->stores--;
	memmove(&c->buffer[0], &c->buffer[1], sizeof(c->buffer[0]) * c->stores);
	return true;
}

/* --- search ----------------------------------------------------------------------------------- */

static struct {
	struct seen seen;
	struct state *stack;
	u64 depth, room;
} search;

/* Only what a state consists of: histories and buffers as far as they are filled. */
static size_t serialise(const struct state *s, u8 *out_bytes)
{
	u8 *p = out_bytes;

	memcpy(p, s, offsetof(struct state, cpu));
	p += offsetof(struct state, cpu);
	for (u32 i = 0; i < config->cpus; i++) {
		const struct model_cpu *c = &s->cpu[i];

		*p++ = c->round;
		*p++ = c->mode;
		*p++ = c->kicked;
		*p++ = c->cached;
		*p++ = c->length;
		*p++ = c->stores;
		memcpy(p, c->history, c->length);
		p += c->length;
		memcpy(p, c->buffer, sizeof(c->buffer[0]) * c->stores);
		p += sizeof(c->buffer[0]) * c->stores;
	}
	return p - out_bytes;
}

/* Notes the state for expansion if it is new. */
static void visit(const struct state *s)
{
	u8 bytes[sizeof(struct state)];

	if (!seen_add(&search.seen, bytes, serialise(s, bytes)))
		return;
	if (search.depth == search.room) {
		search.room = search.room ? 2 * search.room : 1024;
		search.stack = realloc(search.stack, search.room * sizeof(*search.stack));
	}
	search.stack[search.depth++] = *s;
}

/* Caching as much as possible; true if something wrong is cached in guest mode. */
static bool is_wrong(struct state *s)
{
	for (u32 i = 0; i < config->cpus; i++) {
		if (s->cpu[i].mode == ROOT)
			continue;
		for (u32 e = 0; e < 2; e++)
			s->cpu[i].cached |= BIT(s->memory[ENTRY0 + e]);
		if (s->cpu[i].cached & s->reused)
			return true;
	}
	return false;
}

/* Takes one step from a copy; false if something is wrong. */
static bool expand(const struct state *s, u32 cpu, bool buffer, unsigned int pick, bool *moved)
{
	struct state next = *s;
	enum outcome outcome;

	if (buffer)
		outcome = step_buffer(&next, cpu) ? STEPPED : BLOCKED;
	else
		outcome = s->cpu[cpu].done ? BLOCKED : step_program(&next, cpu, pick);
	if (outcome == WRONG)
		return false;
	if (outcome == BLOCKED)
		return true;
	if (is_wrong(&next))
		return false;
	/* A look of ept_sync() that led back to where it began is no progress. */
	if (buffer || next.cpu[cpu].length > s->cpu[cpu].length ||
	    next.cpu[cpu].round != s->cpu[cpu].round)
		*moved = true;
	visit(&next);
	return true;
}

/* Waiting in ept_sync(), does the CPU get past the loop the next time that it looks? */
static bool gets_on(const struct state *s, u32 cpu)
{
	struct state t = *s;

	for (int i = 0; i < 4; i++) {
		if (step_program(&t, cpu, 0) != STEPPED)
			return false;
		if (t.cpu[cpu].length > s->cpu[cpu].length || t.cpu[cpu].round != s->cpu[cpu].round)
			return true;
	}
	return false;
}

/* A changer has not finished, and nothing will happen any more. */
static bool is_stuck(const struct state *s, bool moved)
{
	bool waits = false;

	for (u32 i = 0; i < config->changers && !moved; i++) {
		waits |= !s->cpu[i].done;
		moved |= !s->cpu[i].done && gets_on(s, i);
	}
	return waits && !moved;
}

static bool search_all(void)
{
	while (search.depth) {
		struct state s = search.stack[--search.depth];
		bool moved = false;

		for (u32 cpu = 0; cpu < config->cpus; cpu++) {
			chose = false;
			if (!expand(&s, cpu, false, 0, &moved))
				return false;
			if (chose && !expand(&s, cpu, false, 1, &moved))
				return false;
			if (!expand(&s, cpu, true, 0, &moved))
				return false;
		}
		if (is_stuck(&s, moved))
			return false;
	}
	return true;
}

/* True if nothing can go wrong. */
static bool check(const struct config *c, enum mutant m, u64 *states)
{
	struct state initial;
	bool good;

	config = c;
	mutant = m;
	memset(&search, 0, sizeof(search));
	memset(&initial, 0, sizeof(initial));
	initial.memory[GENERATION] = 1;
	initial.memory[ENTRY1] = FIRST_PAGE(1);
	visit(&initial);
	good = search_all();
	*states = search.seen.count;
	free(search.seen.keys);
	free(search.stack);
	return good;
}

/* --- tests ------------------------------------------------------------------------------------ */

static const struct config configs[] = {
	{.cpus = 2, .changers = 1, .changes = 2, .entries = 3, .assert_fresh = true},
	{.cpus = 2, .changers = 1, .changes = 2, .entries = 2, .announce = true},
	{.cpus = 3, .changers = 2, .changes = 1, .entries = 2},
	{.cpus = 3, .changers = 1, .changes = 1, .entries = 2},
};

/* Too slow for every day. */
static const struct config long_config = {.cpus = 3, .changers = 1, .changes = 2, .entries = 2};

static void test_protocol(void **state)
{
	u64 states;

	for (unsigned int i = 0; i < ARRAY_SIZE(configs); i++) {
		assert_true(check(&configs[i], GOOD, &states));
		print_message("configuration %u: %llu states\n", i, (unsigned long long)states);
		assert_true(states > 1000);
	}
	if (getenv("UMBRA_TEST_LONG"))
		assert_true(check(&long_config, GOOD, &states));
	assert_true(check(&configs[0], ENTER_NOTES_LATEST, &states));
}

static void test_mutants(void **state)
{
	for (enum mutant m = GOOD + 1; m < MUTANTS; m++) {
		bool found = false;

		for (unsigned int i = 0; i < ARRAY_SIZE(configs) && !found; i++) {
			u64 states;

			found = !check(&configs[i], m, &states);
			if (found)
				print_message(
					"mutant %d: found in configuration %u after %llu states\n",
					m, i, (unsigned long long)states);
		}
		if (!found)
			fail_msg("mutant %d of the protocol is not found wrong", m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_protocol),
		cmocka_unit_test(test_mutants),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
