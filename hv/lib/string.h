/* The memory and string functions a freestanding C compiler may call, and the few we add. */
#pragma once

#include "lib/types.h"

void *memcpy(void *restrict dst, const void *restrict src, size_t n);
void *memmove(void *dst, const void *src, size_t n);
void *memset(void *dst, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);
size_t strnlen(const char *s, size_t max);
int strcmp(const char *a, const char *b);

/* Copies at most size - 1 bytes and always terminates; returns true if everything fitted. */
bool str_copy(char *dst, size_t size, const char *src);
