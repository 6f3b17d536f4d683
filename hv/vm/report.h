/*
 * The report of a VM for programs (scripts/run --report): counters, profile and last exits as lines
 * on the log's serial port, not on the screen. docs/report-format.md describes them.
 */
#pragma once

struct vm;

#define REPORT_VERSION 1

/*
 * Writes the report of a VM with `report = yes`; else nothing. `why`: a word without blanks: "end",
 * "restart", "request". From any CPU, while the VM's vCPUs run or after they have
 * stopped; the caller makes sure that the VM does not go away meanwhile.
 */
void report_write(const struct vm *vm, const char *why);
