/*
 * The log: levels, a RAM ring that survives for the panic screen, and sinks (UART, framebuffer)
 * that x86/ registers. One call is one line; the newline is added. Lines carry the time since
 * start and the CPU. Safe from any context, exception handlers included; never from NMI.
 *
 * Levels: ERROR = a bug of ours or broken hardware; WARN = a VM was ended, or something asked for
 * could not be given; INFO = start, stop, configuration; DEBUG = the rest. No guest can make ERROR
 * lines, and a guest-triggered line is rate-limited by its caller (once per VM and cause).
 */
#pragma once

#include <stdarg.h>

#include "lib/types.h"

enum log_level {
	LOG_ERROR,
	LOG_WARN,
	LOG_INFO,
	LOG_DEBUG
};

#define LOG_RING_BYTES (64 * 1024)

void log_print(enum log_level level, const char *fmt, ...) __format(2, 3);
void log_set_level(enum log_level level);

#define log_error(...) log_print(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_print(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_print(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_print(LOG_DEBUG, __VA_ARGS__)

/* One line as it is, without prefix, whatever the level; for what programs read (machine_end). */
void log_plain(const char *line);

/*
 * The same for data in bulk that nobody reads as it goes by: only to the sink that
 * log_set_data_sink() has named (the UART), not to the others nor into the ring.
 */
void log_data(const char *line);

/* Defined by x86/ (and by tests): microseconds since start, and the index of the calling CPU. */
u64 log_clock_us(void);
unsigned int log_cpu(void);

/* A sink takes one whole line without its newline; called under the log's lock. At most 4. It first
 * receives what the ring already holds. */
typedef void (*log_sink_fn)(const char *line, size_t len);
void log_add_sink(log_sink_fn sink);
void log_set_data_sink(log_sink_fn sink);

/* The ring: copies up to `len` of its newest bytes, oldest first, to buf; returns the number. */
size_t log_ring_tail(char *buf, size_t len);

/* From a panic: take the lock away from whoever holds it, so that the report comes out. */
void log_break_lock(void);

/* snprintf(3) without floating point (stb_sprintf); always terminates; returns the wanted length.
 */
int str_print(char *buf, size_t size, const char *fmt, ...) __format(3, 4);
int str_vprint(char *buf, size_t size, const char *fmt, va_list ap);
