/*
 * A set of small numbers, mostly empty: anybody adds to it at any time, and one at a time takes out
 * what is in it, in time that depends on how much that is. Atomic; no lock. Who adds a number while
 * it is being taken out finds it either in the set afterwards or taken after the addition.
 */
#pragma once

#include "lib/types.h"

/* Plain data but for the pointers. */
struct marks {
	u64 *word;  /* a bit for each number */
	u64 *group; /* a bit for each word that may not be 0 */
	u64 count;  /* numbers from 0 to count - 1 */
	u64 groups; /* words at `group` */
};

#define MARKS_NONE (~0ull)

static inline u64 marks_words(u64 count)
{
	return (count + 63) / 64;
}

/* Bytes that a set needs. */
static inline u64 marks_bytes(u64 count)
{
	return (marks_words(count) + marks_words(marks_words(count))) * sizeof(u64);
}

/* An empty set in marks_bytes(count) bytes that are zero. */
static inline void marks_init(struct marks *m, void *memory, u64 count)
{
	m->word = memory;
	m->group = m->word + marks_words(count);
	m->count = count;
	m->groups = marks_words(marks_words(count));
}

static inline bool marks_has(const struct marks *m, u64 n)
{
	return __atomic_load_n(&m->word[n / 64], __ATOMIC_ACQUIRE) >> n % 64 & 1;
}

static inline void marks_add(struct marks *m, u64 n)
{
	u64 w = n / 64;

	__atomic_or_fetch(&m->word[w], BIT64(n % 64), __ATOMIC_SEQ_CST);
	__atomic_or_fetch(&m->group[w / 64], BIT64(w % 64), __ATOMIC_SEQ_CST);
}

/* Nothing is in the set; false may also mean that nothing is any more. */
static inline bool marks_empty(const struct marks *m)
{
	u64 any = 0;

	for (u64 g = 0; g < m->groups; g++)
		any |= __atomic_load_n(&m->group[g], __ATOMIC_ACQUIRE);
	return !any;
}

/* How many there are, more or less while others add. */
static inline u64 marks_total(const struct marks *m)
{
	u64 total = 0;

	for (u64 w = 0; w < marks_words(m->count); w++)
		for (u64 bits = __atomic_load_n(&m->word[w], __ATOMIC_RELAXED); bits;
		     bits &= bits - 1)
			total++;
	return total;
}

/* The lowest word from `w` on that is not 0; forgets groups' bits of those that are. */
static inline u64 marks_word(struct marks *m, u64 w)
{
	for (u64 words = marks_words(m->count); w < words; w = (w / 64 + 1) * 64) {
		u64 *group = &m->group[w / 64];
		u64 bits = __atomic_load_n(group, __ATOMIC_ACQUIRE) & ~0ull << w % 64;

		for (; bits; bits &= bits - 1) {
			u64 at = w / 64 * 64 + (u64)__builtin_ctzll(bits);

			if (__atomic_load_n(&m->word[at], __ATOMIC_RELAXED))
				return at;
			/* First the bit, then another look: an addition sets them in the other
			 * order. */
			__atomic_and_fetch(group, ~BIT64(at % 64), __ATOMIC_SEQ_CST);
			if (!__atomic_load_n(&m->word[at], __ATOMIC_SEQ_CST))
				continue;
			__atomic_or_fetch(group, BIT64(at % 64), __ATOMIC_SEQ_CST);
			return at;
		}
	}
	return MARKS_NONE;
}

/* Takes out the lowest number from `from` on, and returns it; MARKS_NONE if there is none. */
static inline u64 marks_take(struct marks *m, u64 from)
{
	u64 w = from / 64, mask = ~0ull << from % 64;

	for (;; w++, mask = ~0ull) {
		u64 bits;

		w = marks_word(m, w);
		if (w == MARKS_NONE)
			return MARKS_NONE;
		bits = __atomic_load_n(&m->word[w], __ATOMIC_RELAXED);
		if (w == from / 64)
			bits &= mask;
		if (!bits)
			continue;
		bits &= -bits;
		__atomic_and_fetch(&m->word[w], ~bits, __ATOMIC_SEQ_CST);
		return w * 64 + (u64)__builtin_ctzll(bits);
	}
}
