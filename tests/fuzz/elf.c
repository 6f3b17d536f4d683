/* Any bytes as umbra.elf: what is accepted is loaded without a write outside the image. */
#include <stdlib.h>
#include <string.h>

#include "elf.h"

#define CHECK(cond)              \
	do {                     \
		if (!(cond))     \
			abort(); \
	} while (0)

/* Accepted images larger than this are not loaded here: only for speed. */
#define LOAD_MAX (4 * MIB)

static void put(uint8_t *p, u64 value, unsigned int bytes)
{
	while (bytes--) {
		*p++ = (uint8_t)value;
		value >>= 8;
	}
}

static u64 get(const uint8_t *p, unsigned int bytes)
{
	u64 v = 0;

	while (bytes--)
		v = v << 8 | p[bytes];
	return v;
}

/*
 * Random bytes are hardly ever an ELF file: inputs with an even first byte describe the segments of
 * a well-formed one, 12 bytes each, with numbers near the bounds that matter.
 */
#define SEGMENT_BYTES 12
#define BUILT_MAX     4096

static size_t build(uint8_t *file, const uint8_t *data, size_t size)
{
	size_t n = MIN((size - 4) / SEGMENT_BYTES, (size_t)17), i;
	u64 bytes = MIN(get(data + 1, 2), (u64)BUILT_MAX), memsz;
	uint8_t *ph;

	memset(file, data[3], BUILT_MAX);
	memset(file, 0, 64 + n * 56);
	memcpy(file, "\177ELF\2\1\1", 7);
	put(file + 16, 2, 2);
	put(file + 18, 62, 2);
	put(file + 24, ELF_IMAGE_LOWEST + 4u * data[3], 8);
	put(file + 32, 64, 8);
	put(file + 54, 56, 2);
	put(file + 56, n, 2);
	for (i = 0; i < n; i++, data += SEGMENT_BYTES) {
		ph = file + 64 + i * 56;
		put(ph, data[4] & 7, 4);
		put(ph + 4, data[5] & 7, 4);
		put(ph + 8, get(data + 6, 2), 8);
		put(ph + 16, ELF_IMAGE_LOWEST + get(data + 8, 4), 8);
		put(ph + 32, get(data + 12, 2), 8);
		memsz = get(data + 14, 2) << 4;
		put(ph + 40, data[5] & 8 ? ~memsz : memsz, 8);
	}
	return bytes;
}

static void one(const uint8_t *data, size_t size)
{
	static const char untouched[] = "untouched";
	struct elf_image image;
	char why[120];
	void *to;

	memcpy(why, untouched, sizeof(untouched));
	if (elf_check(data, size, &image, why, sizeof(why))) {
		CHECK(memchr(why, 0, sizeof(why)) && strcmp(why, untouched));
		return;
	}
	CHECK(IS_ALIGNED(image.virt, SIZE_2M) && image.virt >= ELF_IMAGE_LOWEST);
	CHECK(image.bytes && IS_ALIGNED(image.bytes, PAGE_SIZE));
	CHECK(image.bytes <= ELF_IMAGE_MAX_BYTES);
	CHECK(image.entry >= image.virt && image.entry - image.virt < image.bytes);
	if (image.bytes > LOAD_MAX)
		return;
	to = malloc(image.bytes);
	elf_load(data, &image, to);
	free(to);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t file[BUILT_MAX], *copy;
	size_t bytes;

	if (size < 4 + SEGMENT_BYTES || data[0] & 1) {
		one(data, size);
		return 0;
	}
	/* A copy of its own size, so that ASan sees a read beyond it. */
	bytes = build(file, data, size);
	copy = malloc(bytes ? bytes : 1);
	memcpy(copy, file, bytes);
	one(copy, bytes);
	free(copy);
	return 0;
}
