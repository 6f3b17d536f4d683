/*
 * The report of a VM for programs (scripts/run --report): counters, profile and last exits as lines
 * on the log's serial port, not on the screen. docs/report-format.md describes them.
 */
#pragma once

#include "lib/types.h"

struct vm;

#define REPORT_VERSION 1

/* How far a report has got; zeroed: nothing has been written. */
struct report_cursor {
	u32 section, vcpu, item;
	u32 lines; /* written so far */
	u64 done;  /* of `hot` lines: entries that have been written */
};

/*
 * Writes the next piece of the report of a VM with `report = yes`, a line or, for long lists, a
 * few: a serial line takes some milliseconds for each. True: there is more. False: all has been
 * written, or there is nothing to write. `why`: a word without blanks: "end", "restart", "request".
 * From any CPU, while the VM's vCPUs run or after they have stopped; the caller makes sure that the
 * VM does not go away meanwhile. Pieces of several VMs' reports may alternate.
 */
bool report_step(const struct vm *vm, struct report_cursor *c, const char *why);

/*
 * What remote/ knows of a VM with remote memory, and defines (bound at link time, as vm/away.h).
 * Line `item` of its report without the VM's number, of at most REPORT_TEXT bytes with the zero;
 * false behind the last one. And the values of the moment that are recorded over time (profile.h):
 * an uneven state will do, and no lock is taken.
 */
#define REPORT_TEXT 350u
bool remote_report(const struct vm *vm, u32 item, char text[REPORT_TEXT]);
void remote_gauges(const struct vm *vm, u64 value[]);
