/*
 * scan MIB [ROUNDS]: write every page of so much memory once, then read all of it in order ROUNDS
 * times, word by word of each page's first 512 bytes, and check it. "scan: MIB MiB, ROUNDS rounds,
 * TICKS ticks" of the reading; status 1 on the first wrong word.
 */
#include "sys.h"

#define PAGE	4096ul
#define CHECKED 64ul /* words of a page */

static u64 pattern(u64 page, u64 word)
{
	return (page + 1) * 0x9e3779b97f4a7c15ul ^ word * 0xff51afd7ed558ccdul;
}

int run(int argc, char **argv)
{
	u64 mib = argc > 1 ? parse_u64(argv[1]) : 16, rounds = argc > 2 ? parse_u64(argv[2]) : 1;
	u64 count = (mib << 20) / PAGE, words = PAGE / sizeof(u64), ticks;
	u64 *area = pages(count * PAGE);

	if (!area) {
		print("scan: no memory\n");
		return 2;
	}
	for (u64 page = 0; page < count; page++)
		for (u64 word = 0; word < words; word++)
			area[page * words + word] = pattern(page, word);
	ticks = rdtsc();
	for (u64 round = 0; round < rounds; round++)
		for (u64 page = 0; page < count; page++)
			for (u64 word = 0; word < CHECKED; word++)
				if (area[page * words + word] != pattern(page, word)) {
					print("scan: WRONG page ");
					print_u64(page);
					print("\n");
					return 1;
				}
	ticks = rdtsc() - ticks;
	print("scan: ");
	print_u64(mib);
	print(" MiB, ");
	print_u64(rounds);
	print(" rounds, ");
	print_u64(ticks);
	print(" ticks\n");
	return 0;
}
