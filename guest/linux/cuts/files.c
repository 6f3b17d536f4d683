/*
 * Files of the file system itself: each operation writes a new file, makes it durable, gives it the
 * name of one of NAMES by rename() and makes that durable: a name is at any time the old file or
 * the new one, whole.
 */
#include "cuts.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NAMES 8

struct record {
	uint64_t number, length;
	uint8_t data[CONTENTS_MAX];
};

static char home[200];
static int folder_fd;

static bool begin(const char *folder)
{
	snprintf(home, sizeof(home), "%s", folder);
	folder_fd = open(folder, O_RDONLY | O_DIRECTORY);
	return folder_fd >= 0;
}

static bool operation(uint64_t i)
{
	struct record r = {.number = i, .length = contents_length(i)};
	ssize_t bytes = (ssize_t)(offsetof(struct record, data) + r.length);
	char temporary[256], name[256];
	int fd;

	contents(i, r.data);
	snprintf(temporary, sizeof(temporary), "%s/new", home);
	snprintf(name, sizeof(name), "%s/%lu", home, i % NAMES);
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (fd < 0 || write(fd, &r, (size_t)bytes) != bytes || fsync(fd) || close(fd))
		return false;
	return !rename(temporary, name) && !fsync(folder_fd);
}

/* Number of the operation that wrote the file; 0: it is not there; -1: it is not what it was. */
static int64_t read_name(const char *folder, uint64_t n)
{
	struct record r = {0};
	char name[256];
	ssize_t got;
	int fd;

	snprintf(name, sizeof(name), "%s/%lu", folder, n);
	fd = open(name, O_RDONLY);
	if (fd < 0)
		return 0;
	got = read(fd, &r, sizeof(r));
	close(fd);
	if (got < (ssize_t)offsetof(struct record, data) || r.number % NAMES != n ||
	    (size_t)got != offsetof(struct record, data) + r.length ||
	    !contents_are(r.number, r.data, r.length))
		return -1;
	return (int64_t)r.number;
}

static int64_t verify(const char *folder, const char **why)
{
	int64_t last = 0, number[NAMES];

	*why = "a file is not what it was";
	for (uint64_t n = 0; n < NAMES; n++) {
		number[n] = read_name(folder, n);
		if (number[n] < 0)
			return -1;
		if (number[n] > last)
			last = number[n];
	}
	*why = "an older file is missing";
	for (int64_t i = last; i > 0 && i > last - NAMES; i--)
		if (number[i % NAMES] != i)
			return -1;
	return last;
}

const struct workload files = {"files", begin, operation, verify};
