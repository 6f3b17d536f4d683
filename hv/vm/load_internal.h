/* What the files of the guest loaders share; for hv/vm/load*.c alone. */
#pragma once

#include "vm/load.h"

/* The memory map that all protocols give: ACPI's address-range types (ACPI 15.1). */
#define MAP_AVAILABLE 1
#define MAP_RESERVED  2
#define MAP_MAX	      8

struct map_entry {
	u64 base, bytes;
	u32 type;
};

struct loader {
	const struct load_request *req;
	const struct load_target *target;
	struct load_result *out;
	u64 next; /* first free address behind what has been loaded; page-aligned by place() */
};

/* Fills the reason and returns `error`. */
int load_refuse(struct loader *l, int error, const char *fmt, ...) __format(3, 4);

/* Write and zero inside guest RAM; anything else is refused, `what` naming the thing. */
int load_write(struct loader *l, u64 to, const void *src, u64 len, const char *what);
int load_zero(struct loader *l, u64 to, u64 len, const char *what);

/* Notes that the kernel occupies [base, base + bytes). */
void load_occupy(struct loader *l, u64 base, u64 bytes);

/*
 * Reserves `bytes` at the next page boundary behind everything loaded so far and above 1 MiB, below
 * LOAD_LOW_MAX, address in *at. place_data() also copies.
 */
int load_place(struct loader *l, u64 bytes, u64 *at, const char *what);
int load_place_data(struct loader *l, const void *src, u64 bytes, u64 *at, const char *what);

/*
 * Loads all modules, each at a page boundary: [at[i], at[i] + bytes).
 */
int load_modules(struct loader *l, u64 at[BOOT_MAX_MODULES]);

/* "NAME", or "NAME ARGS", into buf; fails if it does not fit. */
int load_join(struct loader *l, char *buf, u32 size, const char *name, const char *args);

/* The guest's memory map, in ascending order; returns the number of entries. */
u32 load_memory_map(const struct loader *l, struct map_entry map[MAP_MAX]);

/* --- ELF --- */

struct elf_image {
	const u8 *data;
	u64 bytes;
	bool is64;
	bool anywhere; /* a shared object (ET_DYN): its code does not depend on where it lies */
	u64 entry;
	u64 ph_offset;
	u32 ph_count, ph_size;
	u64 move; /* added to all its addresses; 0 unless the caller of elf_open() sets it */
};

/* Is there an ELF header at all? Says nothing about the rest. */
bool elf_magic(const struct guest_image *image);

/* Checks the header and that the program headers lie within the file. */
int elf_open(struct loader *l, struct elf_image *elf);

/* The lowest and the first free address of its PT_LOAD segments, before `move`. False: none. */
bool elf_span(const struct elf_image *elf, u64 *low, u64 *end);

/* Loads every PT_LOAD segment at its physical address; *entry is the physical entry point. */
int elf_load(struct loader *l, const struct elf_image *elf, u64 *entry);

/*
 * Looks for the note `name`/`type` and copies its first 8 bytes at most (zero-extended) to *value:
 * 1 found, 0 none, or refused because the notes are malformed.
 */
int elf_find_note(struct loader *l, const struct elf_image *elf, const char *name, u32 type,
		  u64 *value);

/* --- protocols --- */

/* Offset of the Multiboot header, or -1: within the first 8 KiB, 4-byte aligned, checksum right. */
s64 multiboot_find(const struct guest_image *image);
int multiboot_load(struct loader *l);
int pvh_load(struct loader *l);
/* Is there the magic of a setup header? Says nothing about the rest. */
bool linux_magic(const struct guest_image *image);
int linux_load(struct loader *l);
