/* Forced into every host-compiled file: the arena that stands for physical memory. */
#pragma once
#include <stdint.h>

extern uint64_t host_direct_map; /* DIRECT_MAP_BASE of host builds */

/* Makes [0, bytes) of "physical memory" available, zeroed, freed by host_memory_release(). */
void host_memory_init(uint64_t bytes);
void host_memory_release(void);
