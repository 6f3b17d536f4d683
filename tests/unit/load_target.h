/* Guest RAM for tests of the loaders: two buffers; any access outside of them aborts. */
#pragma once

#include <stdlib.h>
#include <string.h>

#include "vm/load.h"

struct test_ram {
	u8 *low, *high;
	u64 low_bytes, high_bytes;
	u64 writes;
	bool fail; /* let the next write or zero fail */
};

static u8 *test_ram_at(struct test_ram *ram, u64 at, u64 len)
{
	if (at < ram->low_bytes && len <= ram->low_bytes - at)
		return ram->low + at;
	if (at >= LOAD_HIGH_BASE && at - LOAD_HIGH_BASE < ram->high_bytes &&
	    len <= ram->high_bytes - (at - LOAD_HIGH_BASE))
		return ram->high + (at - LOAD_HIGH_BASE);
	return NULL;
}

static int test_ram_write(void *ctx, gpa_t to, const void *src, u64 len)
{
	struct test_ram *ram = ctx;
	u8 *p = test_ram_at(ram, to.v, len);

	if (!p || !len)
		abort(); /* the loader tried to leave guest RAM */
	if (ram->fail)
		return ERR_FAULT;
	ram->writes++;
	memcpy(p, src, len);
	return 0;
}

static int test_ram_zero(void *ctx, gpa_t to, u64 len)
{
	struct test_ram *ram = ctx;
	u8 *p = test_ram_at(ram, to.v, len);

	if (!p || !len)
		abort();
	if (ram->fail)
		return ERR_FAULT;
	memset(p, 0, len);
	return 0;
}

static struct load_target test_ram_target(struct test_ram *ram)
{
	return (struct load_target){.ctx = ram,
				    .write = test_ram_write,
				    .zero = test_ram_zero,
				    .ram_low = ram->low_bytes,
				    .ram_high = ram->high_bytes};
}
