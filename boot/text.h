/* Text for messages and paths: formatting and UTF-8. Plain char; the same code runs in host tests.
 */
#pragma once

#include <stdarg.h>

#include "lib/types.h"

/* snprintf(3) without floating point: always terminates, returns the wanted length. */
int text_print(char *buf, size_t size, const char *fmt, ...) __format(3, 4);
int text_vprint(char *buf, size_t size, const char *fmt, va_list ap);

bool text_equal(const char *a, const char *b);
size_t text_length(const char *s);

/*
 * Decodes the character at s (at most len bytes; RFC 3629). Returns its length in bytes and sets
 * *code, or 0 if the bytes are not UTF-8 (overlong forms and surrogates included).
 */
unsigned int text_utf8(const char *s, size_t len, u32 *code);
