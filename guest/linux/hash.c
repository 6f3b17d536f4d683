/*
 * hash MIB [ROUNDS]: fill so much memory with numbers that follow one another by a rule, then
 * ROUNDS times read every byte and change it, from the last page to the first and back; a hash of
 * all of it is taken before and after. "hash: MIB MiB, ROUNDS rounds, BEFORE AFTER": the same
 * wherever the program runs.
 */
#include "sys.h"

#define WORDS 512ul /* of a page */
#define PRIME 0x9e3779b97f4a7c15ul

/* Each word's place counts, as `hash` is multiplied between them. */
static u64 hash_page(u64 hash, const u64 *word)
{
	for (u64 i = 0; i < WORDS; i++)
		hash = (hash ^ word[i]) * PRIME + (hash >> 29);
	return hash;
}

static u64 hash_all(const u64 *area, u64 count)
{
	u64 hash = 1;

	for (u64 page = 0; page < count; page++)
		hash = hash_page(hash, area + page * WORDS);
	return hash;
}

static void fill(u64 *area, u64 count)
{
	u64 state = 1;

	for (u64 i = 0; i < count * WORDS; i++) {
		state = state * 0xd1342543de82ef95ul + 1;
		area[i] = state ^ state >> 31;
	}
}

/* Each page becomes one that depends on itself and on the one before. */
static void change(u64 *area, u64 count, bool upwards)
{
	u64 hash = 2;

	for (u64 n = 0; n < count; n++) {
		u64 *page = area + (upwards ? n : count - 1 - n) * WORDS;

		hash = hash_page(hash, page);
		for (u64 i = 0; i < WORDS; i++)
			page[i] += hash * (2 * i + 1);
	}
}

int run(int argc, char **argv)
{
	u64 mib = argc > 1 ? parse_u64(argv[1]) : 16, rounds = argc > 2 ? parse_u64(argv[2]) : 1;
	u64 count = (mib << 20) / (WORDS * sizeof(u64));
	u64 *area = pages(count * WORDS * sizeof(u64));

	if (!area) {
		print("hash: no memory\n");
		return 2;
	}
	fill(area, count);
	print("hash: ");
	print_u64(mib);
	print(" MiB, ");
	print_u64(rounds);
	print(" rounds, ");
	print_u64(hash_all(area, count));
	for (u64 round = 0; round < rounds; round++)
		change(area, count, round & 1);
	print(" ");
	print_u64(hash_all(area, count));
	print("\n");
	return 0;
}
