/*
 * Stopping: the other CPUs by NMI, and the reports that come before it. x86/ only.
 */
#pragma once

#include "lib/types.h"
#include "x86/exception.h"

/* Makes every other CPU that is online halt for good; waits for them, but not for ever. */
void stop_others(void);

/* If another CPU has asked for it: halts here for good. */
void stop_if_asked(void);

/* Halts this CPU for good. */
__noreturn void stop_here(void);

/* The last step of machine_end(): lets the UARTs finish and switches off. Logs nothing. */
__noreturn void machine_off(void);

/* Reports an exception of the hypervisor's own and panics. */
__noreturn void panic_exception(const struct exception_frame *frame);
