/* What lwIP asks of the compiler and of the system that it is part of. */
#pragma once

#include <sys/types.h> /* ssize_t */

#define LWIP_NO_CTYPE_H	 1
#define LWIP_NO_UNISTD_H 1

/* Both in net/netif.c. An assertion that fails is a bug of lwIP or of ours, no packet's doing. */
unsigned int lwip_port_random(void);
void lwip_port_assert(const char *what, const char *file, int line) __attribute__((noreturn));

#define LWIP_RAND() lwip_port_random()
#define LWIP_PLATFORM_DIAG(x) \
	do {                  \
	} while (0)
#define LWIP_PLATFORM_ASSERT(x) lwip_port_assert(x, __FILE__, __LINE__)
