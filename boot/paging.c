#include "paging.h"

#define ENTRIES	     512
#define PTE_PRESENT  BIT64(0)
#define PTE_WRITE    BIT64(1)
#define PTE_LARGE    BIT64(7)
#define PTE_NX	     BIT64(63)
#define TABLE	     (PTE_PRESENT | PTE_WRITE)
#define LEAF	     (PTE_PRESENT | PTE_WRITE | PTE_LARGE)
#define SIZE_512G    (512 * GIB)
#define DIRECT_FIRST 256 /* root entry of 0xffff800000000000 */
#define IMAGE_TABLES 3	 /* one level 3, two level 2 for the top two GiB */

static u64 span(u64 bytes, u64 unit)
{
	return (bytes + unit - 1) / unit;
}

u64 paging_pages(const struct paging_plan *plan)
{
	u64 level3 = span(plan->top, SIZE_512G);
	u64 level2 = plan->pages_1g ? 0 : span(plan->top, SIZE_1G);

	return 1 + IMAGE_TABLES + level3 + level2;
}

struct pool {
	u64 *page;
	u64 phys;
	u64 used;
};

static u64 *take(struct pool *pool, u64 *phys)
{
	u64 *table = pool->page + pool->used * ENTRIES;
	unsigned int i;

	*phys = pool->phys + pool->used++ * PAGE_SIZE;
	for (i = 0; i < ENTRIES; i++)
		table[i] = 0;
	return table;
}

/* One gibibyte from `base` as a level-3 entry. */
static u64 map_gib(struct pool *pool, u64 base, bool pages_1g)
{
	u64 *level2, phys;
	unsigned int i;

	if (pages_1g)
		return base | LEAF;
	level2 = take(pool, &phys);
	for (i = 0; i < ENTRIES; i++)
		level2[i] = (base + i * SIZE_2M) | LEAF;
	return phys | TABLE;
}

static void map_image(const struct paging_plan *plan, struct pool *pool, u64 *root)
{
	u64 *level3, *level2[2], phys, at;

	level3 = take(pool, &phys);
	root[ENTRIES - 1] = phys | TABLE;
	level2[0] = take(pool, &phys);
	level3[ENTRIES - 2] = phys | TABLE;
	level2[1] = take(pool, &phys);
	level3[ENTRIES - 1] = phys | TABLE;
	for (at = 0; at < plan->image_bytes; at += SIZE_2M) {
		u64 virt = plan->image_virt + at;

		level2[virt >> 30 & 1][virt >> 21 & (ENTRIES - 1)] = (plan->image_phys + at) | LEAF;
	}
}

void paging_build(const struct paging_plan *plan, void *pool_base, u64 pool_phys)
{
	struct pool pool = {.page = pool_base, .phys = pool_phys};
	u64 *root, *level3, phys, base;
	unsigned int i, j;

	root = take(&pool, &phys);
	map_image(plan, &pool, root);
	for (i = 0; i * SIZE_512G < plan->top; i++) {
		level3 = take(&pool, &phys);
		root[i] = phys | TABLE;
		root[DIRECT_FIRST + i] = phys | TABLE | PTE_NX;
		for (j = 0; j < ENTRIES; j++) {
			base = i * SIZE_512G + j * SIZE_1G;
			if (base < plan->top)
				level3[j] = map_gib(&pool, base, plan->pages_1g);
		}
	}
}
