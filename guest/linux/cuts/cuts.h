/*
 * cuts: what is left of a program's persistent data if power fails at some moment. A workload runs
 * on a file system on one modelled NVDIMM; at random moments Umbra makes an image of it in another
 * one, as it would be found after a failure of power then (HC_PMEM_IMAGE of umbra/hypercall.h). The
 * image is mounted and the workload says whether everything is there that had been flushed, and
 * whether all that is there is legal.
 *
 * A program of an ordinary Linux system, with Debian's libraries.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct workload {
	const char *name;
	/* Makes the files in `folder`, before anything is measured; false: cannot. */
	bool (*begin)(const char *folder);
	/* Operation i = 1, 2, ...: durable when it returns. False: cannot. */
	bool (*operation)(uint64_t i);
	/*
	 * Opens what is in `folder` as after a restart. Returns the number of operations that are
	 * there, or -1 and says why: not a state that is there after a whole number of them.
	 */
	int64_t (*verify)(const char *folder, const char **why);
};

extern const struct workload sqlite_journal, sqlite_wal, objects, files;

/* Contents of operation i: their length, below CONTENTS_MAX, and byte `at`. */
#define CONTENTS_MAX 700

static inline uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 31) * 0x9e3779b97f4a7c15;
	return (x ^ x >> 29) * 0xbf58476d1ce4e5b9;
}

static inline size_t contents_length(uint64_t i)
{
	return 20 + mix(i) % (CONTENTS_MAX - 20);
}

static inline uint8_t contents_byte(uint64_t i, size_t at)
{
	return (uint8_t)mix(i * 1000 + at / 8);
}

static inline void contents(uint64_t i, uint8_t *to)
{
	for (size_t at = 0; at < contents_length(i); at++)
		to[at] = contents_byte(i, at);
}

static inline bool contents_are(uint64_t i, const uint8_t *data, size_t length)
{
	if (length != contents_length(i))
		return false;
	for (size_t at = 0; at < length; at++)
		if (data[at] != contents_byte(i, at))
			return false;
	return true;
}
