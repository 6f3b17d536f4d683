/*
 * The exit port at 0xf4: what QEMU's isa-debug-exit does. A write of v, of any width, ends the VM
 * with the status (v << 1) | 1, as the exit status of a process (8 bits). Reads return 0.
 */
#pragma once

#include "lib/types.h"

#define EXIT_PORT 0xf4

static inline u32 exit_port_status(u32 value)
{
	return (value << 1 | 1) & 0xff;
}
