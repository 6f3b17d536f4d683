/*
 * The hypervisor's image: a statically linked ELF64 file whose segments lie in the top 2 GiB.
 * Portable C: compiled for the loader, for unit tests and for the fuzzer. System V gABI chapter 4
 * and 5, AMD64 supplement.
 */
#pragma once

#include "lib/types.h"

#define ELF_IMAGE_LOWEST    0xffffffff80000000ull
#define ELF_IMAGE_MAX_BYTES (64 * MIB)
#define ELF_MAX_SEGMENTS    16

struct elf_image {
	u64 virt;  /* 2 MiB-aligned link address of the image's first byte */
	u64 bytes; /* from virt to the end of the last segment, whole pages */
	u64 entry; /* link address, inside an executable segment */
};

/*
 * Checks all of what elf_load() relies on. Returns 0 and fills *image, or ERR_INVAL with the reason
 * in `why`, a text that completes "FILE ...".
 */
int elf_check(const void *file, size_t size, struct elf_image *image, char *why, size_t why_size);

/* Writes the image (image->bytes of it, gaps and bss zeroed) to `to`. Only after elf_check(). */
void elf_load(const void *file, const struct elf_image *image, void *to);
