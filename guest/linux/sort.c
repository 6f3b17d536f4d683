/*
 * sort MIB: fill so much memory with random numbers and sort them in place: by quicksort, so that
 * it goes through all of it again and again, and the smaller the parts the more of the work is
 * near. "sort: MIB MiB, TICKS ticks" of the sorting; status 1 if the result is not in order or the
 * numbers are others than before.
 */
#include "sys.h"

#define SMALL 16ul

struct span {
	u64 from, to; /* to: behind the last */
};

static u64 *area;

static u64 next(u64 *state)
{
	u64 z = *state += 0x9e3779b97f4a7c15ul;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ul;
	return z ^ z >> 27;
}

static void insert(struct span s)
{
	for (u64 i = s.from + 1; i < s.to; i++) {
		u64 value = area[i], at = i;

		for (; at > s.from && area[at - 1] > value; at--)
			area[at] = area[at - 1];
		area[at] = value;
	}
}

/* Hoare's partition; returns where the second part begins, strictly inside. */
static u64 divide(struct span s)
{
	u64 a = area[s.from], b = area[s.from + (s.to - s.from) / 2], c = area[s.to - 1];
	u64 low = a < b ? a : b, high = a < b ? b : a;
	u64 pivot = c < low ? low : c > high ? high : c; /* of three: the middle one */
	u64 i = s.from, j = s.to - 1;

	for (;; i++, j--) {
		while (area[i] < pivot)
			i++;
		while (area[j] > pivot)
			j--;
		if (i >= j)
			break;
		a = area[i];
		area[i] = area[j];
		area[j] = a;
	}
	return i > s.from ? i : s.from + 1;
}

static void sort(u64 count)
{
	static struct span todo[64]; /* the smaller part first: no more than log2 of all */
	u64 depth = 1;

	todo[0] = (struct span){0, count};
	while (depth) {
		struct span s = todo[--depth];

		while (s.to - s.from > SMALL) {
			u64 middle = divide(s);
			struct span left = {s.from, middle}, right = {middle, s.to};
			bool left_smaller = middle - s.from < s.to - middle;

			todo[depth++] = left_smaller ? right : left;
			s = left_smaller ? left : right;
		}
		insert(s);
	}
}

int run(int argc, char **argv)
{
	u64 mib = argc > 1 ? parse_u64(argv[1]) : 16, count = (mib << 20) / sizeof(u64);
	u64 state = 1, sum = 0, ticks;

	area = pages(count * sizeof(u64));
	if (!area) {
		print("sort: no memory\n");
		return 2;
	}
	for (u64 i = 0; i < count; i++)
		sum += area[i] = next(&state);
	ticks = rdtsc();
	sort(count);
	ticks = rdtsc() - ticks;
	for (u64 i = 0; i < count; i++) {
		sum -= area[i];
		if (i && area[i - 1] > area[i]) {
			print("sort: WRONG order\n");
			return 1;
		}
	}
	if (sum) {
		print("sort: WRONG numbers\n");
		return 1;
	}
	print("sort: ");
	print_u64(mib);
	print(" MiB, ");
	print_u64(ticks);
	print(" ticks\n");
	return 0;
}
