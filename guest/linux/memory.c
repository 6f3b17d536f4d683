/*
 * memory MIB [ROUNDS]: fill memory with a pattern that names address and round, and read it back in
 * another order. "memory: MIB MiB, ROUNDS rounds, TICKS ticks"; status 1 on the first wrong word.
 */
#include "sys.h"

#define STRIDE 521ul /* words; odd, so that it visits every word of a power of two */

static u64 pattern(u64 index, u64 round)
{
	return (index + 1) * 0x9e3779b97f4a7c15ul ^ round * 0xff51afd7ed558ccdul;
}

static int wrong(u64 index, u64 found, u64 expected)
{
	print("memory: WRONG word ");
	print_u64(index);
	print(": ");
	print_u64(found);
	print(" instead of ");
	print_u64(expected);
	print("\n");
	return 1;
}

int run(int argc, char **argv)
{
	u64 mib = argc > 1 ? parse_u64(argv[1]) : 16, rounds = argc > 2 ? parse_u64(argv[2]) : 1;
	u64 words = 1, ticks;
	u64 *area;

	while (words * 2 * sizeof(u64) <= mib << 20)
		words *= 2;
	area = pages(words * sizeof(u64));
	if (!area) {
		print("memory: none\n");
		return 2;
	}
	ticks = rdtsc();
	for (u64 round = 0; round < rounds; round++) {
		for (u64 i = 0; i < words; i++)
			area[i] = pattern(i, round);
		for (u64 n = 0, i = 0; n < words; n++, i = (i + STRIDE) & (words - 1))
			if (area[i] != pattern(i, round))
				return wrong(i, area[i], pattern(i, round));
	}
	ticks = rdtsc() - ticks;
	print("memory: ");
	print_u64(words * sizeof(u64) >> 20);
	print(" MiB, ");
	print_u64(rounds);
	print(" rounds, ");
	print_u64(ticks);
	print(" ticks\n");
	return 0;
}
