/*
 * umbra.conf, as docs/configuration.md describes it, into the structures of the hand-over.
 * Portable C: compiled for the loader, for unit tests and for the fuzzer.
 */
#pragma once

#include <umbra/boot_info.h>

#include "lib/types.h"

#define CONFIG_MAX_BYTES  (64 * 1024)
#define CONFIG_MAX_LINE	  1500
#define CONFIG_MAX_ERRORS 20 /* reported; the rest are counted only */

/* Told of each error; line 0 = the file as a whole. */
typedef void (*config_report_fn)(void *ctx, unsigned int line, const char *text);

/*
 * Parses `len` bytes of text (at most CONFIG_MAX_BYTES) into options, vms[BOOT_MAX_VMS] and
 * *vm_count; all of it is set, defaults included. Paths are as written: relative ones are the
 * caller's to resolve. Returns the number of errors; with errors the output is not to be used.
 */
unsigned int config_parse(const char *text, size_t len, struct boot_options *options,
			  struct boot_vm *vms, u32 *vm_count, config_report_fn report, void *ctx);

/*
 * What can only be checked against the machine: pins beyond `cpus` processors. Reported with the
 * VM's name. Returns the number of errors.
 */
unsigned int config_check_cpus(const struct boot_vm *vms, u32 vm_count, u32 cpus,
			       config_report_fn report, void *ctx);
