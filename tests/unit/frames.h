/* Physical memory of a host test with hv/mem/frame.c: all but the first MiB is to be had. */
#pragma once

#include <string.h>

#include "mem/frame.h"

/* A new arena of so many bytes; frames of an earlier one are gone. */
static inline void frames_start(u64 bytes)
{
	static struct boot_info machine;

	host_memory_release();
	host_memory_init(bytes);
	memset(&machine, 0, sizeof(machine));
	machine.memory_count = 1;
	machine.memory[0] = (struct boot_range){1 * MIB, bytes - 1 * MIB, BOOT_MEM_USABLE, 0};
	frame_init(&machine);
}

static inline u64 free_frames(void)
{
	struct frame_stats stats;

	frame_stats(&stats);
	return stats.free;
}
