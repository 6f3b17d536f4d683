/* tsc: the time stamp counter, in decimal. */
#include "sys.h"

int run(int argc, char **argv)
{
	print_u64(rdtsc());
	print("\n");
	return 0;
}
