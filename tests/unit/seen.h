/*
 * What a search has met already: a set of byte strings that only grows. Hashes of 128 bits stand
 * for the strings: that two of some million have the same is less likely than an error of the
 * machine.
 */
#pragma once

#include <stdlib.h>

#include "lib/types.h"

struct seen {
	u64 (*keys)[2]; /* both 0: a free place */
	u64 size, count;
};

static u64 seen_hash(const u8 *p, size_t n, u64 h)
{
	for (size_t i = 0; i < n; i++) {
		h = (h ^ p[i]) * 0x9e3779b97f4a7c15;
		h ^= h >> 29;
	}
	return h ^ h >> 32;
}

static bool seen_insert(struct seen *set, const u64 key[2])
{
	u64 i = key[0] & (set->size - 1);

	while (set->keys[i][0] || set->keys[i][1]) {
		if (set->keys[i][0] == key[0] && set->keys[i][1] == key[1])
			return false;
		i = (i + 1) & (set->size - 1);
	}
	set->keys[i][0] = key[0];
	set->keys[i][1] = key[1];
	return true;
}

static void seen_grow(struct seen *set)
{
	u64(*old)[2] = set->keys, n = set->size;

	set->size = n ? 2 * n : 1 << 16;
	set->keys = calloc(set->size, sizeof(*set->keys));
	for (u64 i = 0; i < n; i++)
		if (old[i][0] || old[i][1])
			seen_insert(set, old[i]);
	free(old);
}

/* True if the string was not in the set, which begins as all zeros and ends with free(set->keys).
 */
static bool seen_add(struct seen *set, const u8 *bytes, size_t n)
{
	u64 key[2] = {seen_hash(bytes, n, 1) | 1, seen_hash(bytes, n, 0x1234567)};

	if (2 * set->count >= set->size)
		seen_grow(set);
	if (!seen_insert(set, key))
		return false;
	set->count++;
	return true;
}
