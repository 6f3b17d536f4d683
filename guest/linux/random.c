/*
 * random MIB [ACCESSES]: write every page of so much memory once, then go to ACCESSES pages in
 * random order; half of the visits change the page, and each checks what the last one left.
 * "random: MIB MiB, ACCESSES accesses, TICKS ticks" of the visits; status 1 on the first wrong
 * word.
 */
#include "sys.h"

#define PAGE 4096ul

static u64 next(u64 *state)
{
	u64 z = *state += 0x9e3779b97f4a7c15ul;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ul;
	z = (z ^ z >> 27) * 0x94d049bb133111ebul;
	return z ^ z >> 31;
}

/* What a page holds after `visits` changes, at both of its ends. */
static u64 pattern(u64 page, u64 visits)
{
	return (page << 20 | visits) * 0x9e3779b97f4a7c15ul;
}

int run(int argc, char **argv)
{
	u64 mib = argc > 1 ? parse_u64(argv[1]) : 16;
	u64 accesses = argc > 2 ? parse_u64(argv[2]) : 10000;
	u64 count = (mib << 20) / PAGE, words = PAGE / sizeof(u64), state = 1, ticks;
	u64 *area = pages(count * PAGE);
	uint16_t *visits = pages(count * sizeof(*visits));

	if (!area || !visits) {
		print("random: no memory\n");
		return 2;
	}
	for (u64 page = 0; page < count; page++) {
		memset(area + page * words, (int)page, PAGE);
		area[page * words] = area[(page + 1) * words - 1] = pattern(page, 0);
	}
	ticks = rdtsc();
	for (u64 n = 0; n < accesses; n++) {
		u64 r = next(&state), page = (r >> 1) % count;
		u64 *first = area + page * words, *last = first + words - 1;

		if (*first != pattern(page, visits[page]) || *last != *first) {
			print("random: WRONG page ");
			print_u64(page);
			print("\n");
			return 1;
		}
		if (r & 1)
			*first = *last = pattern(page, ++visits[page]);
	}
	ticks = rdtsc() - ticks;
	print("random: ");
	print_u64(mib);
	print(" MiB, ");
	print_u64(accesses);
	print(" accesses, ");
	print_u64(ticks);
	print(" ticks\n");
	return 0;
}
