/*
 * What the files of the configuration's parser share: config.c has lines and sections,
 * config_values.c the keys, config_text.c the words. Strings are NUL-terminated where no length
 * stands beside them.
 */
#pragma once

#include "config.h"

enum config_section {
	CONFIG_NOWHERE,
	CONFIG_UMBRA,
	CONFIG_VM,
	CONFIG_BROKEN, /* what follows a bad header: read, not kept */
};

struct config_parser {
	struct boot_options *options;
	struct boot_vm *vms;
	u32 vm_count;
	config_report_fn report;
	void *ctx;
	unsigned int errors;
	unsigned int line;
	enum config_section section;
	unsigned int section_line;
	bool seen_umbra;
	char focus[BOOT_NAME_LEN]; /* the VM that has to turn up */
	unsigned int focus_line;
	u32 seen_keys; /* bit set of the section's keys that have had a value */
};

/* Key 0 of a VM. */
#define CONFIG_KEY_KERNEL 0

void __format(3, 4)
	config_error_at(struct config_parser *p, unsigned int line, const char *fmt, ...);
#define config_error(p, ...) config_error_at(p, (p)->line, __VA_ARGS__)

/* Of the current section: its keys' names, NULL beyond the last one; the value of a key. */
const char *config_key_name(const struct config_parser *p, size_t key);
void config_set_value(struct config_parser *p, size_t key, const char *value, size_t len);

/* What only shows when a VM's section, or the file, has ended. */
void config_end_vm(struct config_parser *p);
void config_end_file(struct config_parser *p);

/* 1 to BOOT_NAME_LEN - 1 letters, digits, "-", "_", ".". */
bool config_good_name(const char *s, size_t len);

static inline bool config_is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* len bytes, and a NUL. */
void config_copy(char *to, const char *from, size_t len);
/* Takes blanks off both ends of [*s, *s + *len). */
void config_trim(const char **s, size_t *len);
/* Decimal or 0x hexadecimal, the whole of it; false if it is anything else or exceeds 64 bits. */
bool config_number(const char *s, size_t len, u64 *out);
/* The same with K, M or G behind it. */
bool config_size(const char *s, size_t len, u64 *out);
/* a.b.c.d at the beginning of *s, which then stands behind it. In host byte order. */
bool config_ip(const char **s, u32 *out);
/*
 * Cuts the next item of a comma-separated list off *s; returns false at the end. With `literal`,
 * two commas in a row are one comma of the item; it is copied to item[len].
 */
bool config_item(const char **s, char *item, size_t *len, bool literal);
/* Cuts the next word off [*s, NUL) into word[]; its length, 0 at the end. */
size_t config_word(const char **s, char *word);
