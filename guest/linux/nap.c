/*
 * nap MILLISECONDS: sleep, and say how long that was: "nap: asked MS, clock NS ns, tsc TICKS".
 * Status 1 if the sleep ended early.
 */
#include "sys.h"

int run(int argc, char **argv)
{
	u64 ms = argc > 1 ? parse_u64(argv[1]) : 1000;
	struct timespec64 request = {(int64_t)(ms / 1000), (int64_t)(ms % 1000 * 1000000)};
	u64 ns = monotonic_ns(), ticks = rdtsc();
	long result = sys(SYS_CLOCK_NANOSLEEP, CLOCK_MONOTONIC, 0, (u64)(uintptr_t)&request, 0);

	ticks = rdtsc() - ticks;
	ns = monotonic_ns() - ns;
	print("nap: asked ");
	print_u64(ms);
	print(" ms, clock ");
	print_u64(ns);
	print(" ns, tsc ");
	print_u64(ticks);
	print("\n");
	return result || ns < ms * 1000000;
}
