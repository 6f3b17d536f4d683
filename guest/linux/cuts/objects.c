/*
 * libpmemobj: a transaction replaces one of SLOTS objects by a new one.
 *
 * The library takes CLWB and SFENCE for durable, as it may where the controllers' queues survive a
 * failure of power. Here they do not, so what it uses of libpmem for that is replaced: a drain is a
 * store to a flush hint, by way of the region's attribute deep_flush.
 *
 * A pool's shutdown state knows the NVDIMM, and the image lies on another: start with
 * PMEMOBJ_CONF=sds.at_create=0.
 */
#include "cuts.h"

#include <fcntl.h>
#include <libpmem.h>
#include <libpmemobj.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define SLOTS  16
#define LAYOUT "cuts"

struct root {
	uint64_t last;
	PMEMoid slot[SLOTS];
};

struct object {
	uint64_t number;
	uint64_t length;
	uint8_t data[CONTENTS_MAX];
};

static int deep_flush = -1;

void pmem_drain(void)
{
	asm volatile("sfence" ::: "memory");
	if (pwrite(deep_flush, "1", 1, 0) != 1)
		abort();
}

void pmem_persist(const void *addr, size_t len)
{
	pmem_flush(addr, len);
	pmem_drain();
}

static void *copied(void *to, size_t len, unsigned int flags)
{
	if (!(flags & PMEM_F_MEM_NOFLUSH))
		pmem_flush(to, len);
	if (!(flags & (PMEM_F_MEM_NOFLUSH | PMEM_F_MEM_NODRAIN)))
		pmem_drain();
	return to;
}

void *pmem_memcpy(void *to, const void *from, size_t len, unsigned int flags)
{
	return copied(memcpy(to, from, len), len, flags);
}

void *pmem_memmove(void *to, const void *from, size_t len, unsigned int flags)
{
	return copied(memmove(to, from, len), len, flags);
}

void *pmem_memset(void *to, int value, size_t len, unsigned int flags)
{
	return copied(memset(to, value, len), len, flags);
}

/* Of the region that has the file system. */
static bool open_deep_flush(const char *folder)
{
	struct stat st;
	char path[80];

	if (stat(folder, &st))
		return false;
	/* .../regionN/pfnN.0/block/pmemN */
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/../../../deep_flush", major(st.st_dev),
		 minor(st.st_dev));
	deep_flush = open(path, O_WRONLY);
	return deep_flush >= 0;
}

static PMEMobjpool *pool;
static struct root *root;

static uint64_t slot_of(uint64_t i)
{
	return mix(i) / 7 % SLOTS;
}

static void path_in(const char *folder, char *to, size_t size)
{
	snprintf(to, size, "%s/pool", folder);
}

static bool begin(const char *folder)
{
	char path[256];

	if (!open_deep_flush(folder))
		return false;
	path_in(folder, path, sizeof(path));
	pool = pmemobj_create(path, LAYOUT, PMEMOBJ_MIN_POOL, 0600);
	if (!pool) {
		printf("# %s\n", pmemobj_errormsg());
		return false;
	}
	root = pmemobj_direct(pmemobj_root(pool, sizeof(struct root)));
	return root != NULL;
}

static bool operation(uint64_t i)
{
	PMEMoid *slot = &root->slot[slot_of(i)];
	volatile bool done = false;

	TX_BEGIN(pool)
	{
		struct object *o;

		pmemobj_tx_add_range_direct(slot, sizeof(*slot));
		pmemobj_tx_add_range_direct(&root->last, sizeof(root->last));
		if (!OID_IS_NULL(*slot))
			pmemobj_tx_free(*slot);
		*slot = pmemobj_tx_alloc(offsetof(struct object, data) + contents_length(i), 1);
		o = pmemobj_direct(*slot);
		o->number = i;
		o->length = contents_length(i);
		contents(i, o->data);
		root->last = i;
	}
	TX_ONCOMMIT
	{
		done = true;
	}
	TX_END
	return done;
}

static bool legal(struct root *r)
{
	uint64_t seen[SLOTS] = {0};

	for (uint64_t i = 1; i <= r->last; i++)
		seen[slot_of(i)] = i;
	for (int s = 0; s < SLOTS; s++) {
		struct object *o = pmemobj_direct(r->slot[s]);

		if (!seen[s] != !o)
			return false;
		if (o && (o->number != seen[s] ||
			  pmemobj_alloc_usable_size(r->slot[s]) <
				  offsetof(struct object, data) + o->length ||
			  !contents_are(o->number, o->data, o->length)))
			return false;
	}
	return true;
}

static int64_t verify(const char *folder, const char **why)
{
	char path[256];
	PMEMobjpool *copy;
	struct root *r;
	uint64_t objects_there = 0, slots = 0;
	int64_t last = -1;

	if (!open_deep_flush(folder))
		return -1;
	path_in(folder, path, sizeof(path));
	copy = pmemobj_open(path, LAYOUT);
	if (!copy) {
		*why = pmemobj_errormsg();
		return -1;
	}
	r = pmemobj_direct(pmemobj_root(copy, sizeof(struct root)));
	*why = "an object is not what it was";
	if (r && legal(r))
		last = (int64_t)r->last;
	/* None has leaked. */
	for (PMEMoid o = pmemobj_first(copy); !OID_IS_NULL(o); o = pmemobj_next(o))
		objects_there += pmemobj_type_num(o) == 1;
	for (int s = 0; r && s < SLOTS; s++)
		slots += !OID_IS_NULL(r->slot[s]);
	pmemobj_close(copy);
	if (last >= 0 && objects_there != slots) {
		*why = "an object has leaked";
		return -1;
	}
	/* Which takes as long as all the rest. */
	if (last >= 0 && last % 4 == 0 && pmemobj_check(path, LAYOUT) != 1) {
		*why = "pmemobj_check";
		return -1;
	}
	return last;
}

const struct workload objects = {"libpmemobj", begin, operation, verify};
