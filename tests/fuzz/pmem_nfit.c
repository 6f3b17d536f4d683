/*
 * Any bytes as the host's NFIT: what is accepted obeys what nfit.h promises. Header and checksum
 * are put right first, unless the first byte is odd: random bytes hardly ever have them.
 */
#include <stdlib.h>
#include <string.h>

#include "pmem/nfit.h"
#include "pmem/nfit_layout.h"

#define CHECK(cond)              \
	do {                     \
		if (!(cond))     \
			abort(); \
	} while (0)

static void mend(uint8_t *p, size_t size)
{
	uint32_t length = (uint32_t)size;
	uint8_t sum = 0;

	memcpy(p, "NFIT", 4);
	memcpy(p + 4, &length, 4);
	p[9] = 0;
	for (size_t i = 0; i < size; i++)
		sum = (uint8_t)(sum + p[i]);
	p[9] = (uint8_t)-sum;
}

static void check_ranges(const struct nfit *n)
{
	CHECK(n->ranges <= NFIT_MAX_RANGES);
	for (u32 i = 0; i < n->ranges; i++) {
		const struct nfit_range *r = &n->range[i];

		CHECK(r->index);
		if (r->kind == NFIT_OTHER)
			continue;
		CHECK(r->bytes && IS_ALIGNED(r->base | r->bytes, PAGE_SIZE));
		CHECK(r->base < NFIT_ADDRESS_MAX && r->bytes <= NFIT_ADDRESS_MAX - r->base);
		for (u32 j = 0; j < i; j++) {
			const struct nfit_range *s = &n->range[j];

			CHECK(s->index != r->index);
			CHECK(s->kind == NFIT_OTHER || r->base >= s->base + s->bytes ||
			      s->base >= r->base + r->bytes);
		}
	}
}

static void check_hints(const struct nfit *n)
{
	u16 dimm[NFIT_MAX_DIMMS];
	bool all;

	CHECK(n->hints <= NFIT_MAX_HINTS && n->dimms <= NFIT_MAX_DIMMS);
	for (u32 i = 0; i < n->hints; i++)
		CHECK(n->hint[i] && !(n->hint[i] & 7) && n->hint[i] < NFIT_ADDRESS_MAX);
	for (u32 i = 0; i < n->ranges; i++) {
		u32 count = nfit_range_dimms(n, &n->range[i], dimm, &all);

		CHECK(count <= n->dimms);
		for (u32 d = 0; d < count; d++) {
			const struct nfit_dimm *x = &n->dimm[dimm[d]];

			CHECK(x->count && x->first + x->count <= n->hints);
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct nfit nfit;
	const char *why;
	uint8_t *copy;
	u32 where;
	int err;

	if (!size)
		return 0;
	copy = malloc(size);
	memcpy(copy, data, size);
	if (size >= sizeof(struct nfit_header) && !(data[0] & 1))
		mend(copy, size);
	err = nfit_parse(copy, size, &nfit, &why, &where);
	free(copy);
	CHECK(!!err == !!why);
	check_ranges(&nfit);
	check_hints(&nfit);
	return 0;
}
