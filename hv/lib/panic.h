/*
 * panic: the end of the hypervisor, for our own bugs and broken hardware alone; never for what a
 * guest did. Prints the message, a symbolised backtrace and the tail of the log to every sink,
 * stops the other CPUs (NMI) and ends with status 70.
 */
#pragma once

#include "lib/types.h"

__noreturn void panic(const char *fmt, ...) __format(1, 2);

#define ASSERT(cond)                                                                     \
	do {                                                                             \
		if (unlikely(!(cond)))                                                   \
			panic("%s:%d: assertion failed: %s", __FILE__, __LINE__, #cond); \
	} while (0)
