/*
 * compute ROUNDS: a hot loop over registers whose result is known: the linear congruential
 * generator x = a x + c (mod 2^64), stepped ROUNDS times and compared with the closed form, which
 * takes 64 steps. "compute: ROUNDS rounds, RESULT, TICKS ticks"; status 1 if it is wrong.
 */
#include "sys.h"

#define A 6364136223846793005ul
#define C 1442695040888963407ul

/* n steps at once, by squaring the step (x -> a x + c). */
static u64 jump(u64 x, u64 n)
{
	u64 a = A, c = C;

	for (; n; n >>= 1) {
		if (n & 1)
			x = a * x + c;
		c = (a + 1) * c;
		a *= a;
	}
	return x;
}

int run(int argc, char **argv)
{
	u64 rounds = argc > 1 ? parse_u64(argv[1]) : 1000000;
	u64 x = 1, ticks = rdtsc();

	for (u64 i = 0; i < rounds; i++) {
		x = A * x + C;
		asm volatile("" : "+r"(x)); /* one at a time */
	}
	ticks = rdtsc() - ticks;
	print("compute: ");
	print_u64(rounds);
	print(" rounds, ");
	print_u64(x);
	print(", ");
	print_u64(ticks);
	print(" ticks\n");
	if (x == jump(1, rounds))
		return 0;
	print("compute: WRONG\n");
	return 1;
}
