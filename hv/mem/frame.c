/*
 * Physical frames: one owner word per frame, and per 2 MiB chunk the number of its free frames, so
 * that a search steps over full and empty chunks without looking inside.
 *
 * Small pieces (heap, page tables) come from the bottom, lowest address first; pieces of 2 MiB and
 * more (guest RAM) from the top, highest first. Small pieces thus stay together in few chunks, and
 * the memory below 4 GiB is touched by guests last.
 */
#include "mem/frame.h"

#include "lib/panic.h"
#include "lib/spinlock.h"
#include "lib/string.h"

#define CHUNK_FRAMES (SIZE_2M / PAGE_SIZE)
#define LOW_LIMIT    (1 * MIB) /* BIOS data, option ROMs, start-up code of APs: never handed out */
#define NOT_FOUND    (~0ull)

static struct {
	struct spinlock lock;
	u16 *owner;	 /* per frame */
	u16 *chunk_free; /* per chunk: frames of owner FRAME_FREE */
	u64 frames;	 /* in the table; a multiple of CHUNK_FRAMES */
	u64 low;	 /* no frame below this one is free */
	u64 high;	 /* no chunk from this one on is entirely free */
	struct frame_stats stats;
} pool;

static void count(frame_owner_t owner, u64 n, bool add)
{
	u64 delta = add ? n : -n;

	if (owner != FRAME_NOT_RAM)
		pool.stats.total += delta;
	if (owner == FRAME_FREE)
		pool.stats.free += delta;
	else if (owner == FRAME_HV)
		pool.stats.hv += delta;
	else if (owner == FRAME_BOOT)
		pool.stats.boot += delta;
}

static void set_owner(u64 frame, u64 n, frame_owner_t owner)
{
	u64 end = frame + n, f = frame;

	while (f < end) { /* runs of frames of one owner within a chunk */
		u64 run = f, chunk = f / CHUNK_FRAMES, stop = MIN((chunk + 1) * CHUNK_FRAMES, end);
		frame_owner_t old = pool.owner[f];

		while (f < stop && pool.owner[f] == old)
			pool.owner[f++] = owner;
		count(old, f - run, false);
		count(owner, f - run, true);
		if (old == FRAME_FREE)
			pool.chunk_free[chunk] -= f - run;
		if (owner == FRAME_FREE)
			pool.chunk_free[chunk] += f - run;
		if (pool.chunk_free[chunk] == CHUNK_FRAMES)
			pool.high = MAX(pool.high, chunk + 1);
	}
	if (owner == FRAME_FREE)
		pool.low = MIN(pool.low, frame);
}

/* The lowest frame of [frame, frame + n) that is not free, or frame + n. */
static u64 first_busy(u64 frame, u64 n)
{
	u64 end = frame + n, f = frame;

	while (f < end) {
		if (IS_ALIGNED(f, CHUNK_FRAMES) &&
		    pool.chunk_free[f / CHUNK_FRAMES] == CHUNK_FRAMES)
			f += CHUNK_FRAMES;
		else if (pool.owner[f] == FRAME_FREE)
			f++;
		else
			return f;
	}
	return end;
}

/* The highest frame of [frame, frame + n) that is not free, or NOT_FOUND. */
static u64 last_busy(u64 frame, u64 n)
{
	u64 f = frame + n;

	while (f > frame) {
		if (IS_ALIGNED(f, CHUNK_FRAMES) && f - frame >= CHUNK_FRAMES &&
		    pool.chunk_free[f / CHUNK_FRAMES - 1] == CHUNK_FRAMES)
			f -= CHUNK_FRAMES;
		else if (pool.owner[f - 1] == FRAME_FREE)
			f--;
		else
			return f - 1;
	}
	return NOT_FOUND;
}

/* The first free frame from `frame` on, or pool.frames. */
static u64 next_free(u64 frame)
{
	u64 f = frame;

	while (f < pool.frames && pool.owner[f] != FRAME_FREE) {
		if (pool.chunk_free[f / CHUNK_FRAMES] == 0)
			f = ALIGN_DOWN(f, CHUNK_FRAMES) + CHUNK_FRAMES;
		else
			f++;
	}
	return f;
}

/* The lowest run of n free frames aligned to `align` frames: a complete search. */
static u64 find_low(u64 n, u64 align)
{
	u64 at;

	pool.low = next_free(pool.low);
	at = ALIGN_UP(pool.low, align);
	while (at < pool.frames && n <= pool.frames - at) {
		u64 busy = first_busy(at, n);

		if (busy == at + n)
			return at;
		at = ALIGN_UP(next_free(busy + 1), align);
	}
	return NOT_FOUND;
}

/*
 * The highest run of n >= CHUNK_FRAMES free frames that starts on a chunk and on `align`. Such a
 * run contains its first chunk and every further one but the last entirely, so that all of these
 * lie below pool.high.
 */
static u64 find_high(u64 n, u64 align)
{
	u64 whole = n / CHUNK_FRAMES, step = MAX(align, CHUNK_FRAMES), at;

	while (pool.high > 0 && pool.chunk_free[pool.high - 1] < CHUNK_FRAMES)
		pool.high--;
	if (pool.high < whole || pool.frames < n)
		return NOT_FOUND;
	at = MIN((pool.high - whole) * CHUNK_FRAMES, pool.frames - n);
	at = ALIGN_DOWN(at, step);
	for (;;) {
		u64 busy = last_busy(at, n);

		if (busy == NOT_FOUND)
			return at;
		if (busy < n)
			return NOT_FOUND;
		at = ALIGN_DOWN(busy - n, step);
	}
}

/* --- start ------------------------------------------------------------------------------------ */

static u64 range_end(const struct boot_range *r)
{
	return r->base + r->bytes;
}

static bool is_ram(const struct boot_range *r)
{
	return r->type == BOOT_MEM_USABLE || r->type == BOOT_MEM_UMBRA;
}

/* Where the tables go: the lowest usable memory that holds them in one piece. */
static u64 place_tables(const struct boot_info *boot, u64 bytes)
{
	for (u32 i = 0; i < boot->memory_count; i++) {
		const struct boot_range *r = &boot->memory[i];
		u64 base = MAX(ALIGN_UP(r->base, PAGE_SIZE), LOW_LIMIT);
		u64 end = ALIGN_DOWN(range_end(r), PAGE_SIZE);

		if (r->type == BOOT_MEM_USABLE && base < end && end - base >= bytes)
			return base;
	}
	panic("no room for the table of physical frames (%llu KiB)",
	      (unsigned long long)(bytes / KIB));
}

/* What is claimed for something other than free memory is rounded outwards, free memory inwards. */
static void claim_range(const struct boot_range *r)
{
	u64 first = ALIGN_DOWN(r->base, PAGE_SIZE), last = ALIGN_UP(range_end(r), PAGE_SIZE);
	frame_owner_t owner = r->type == BOOT_MEM_UMBRA ? FRAME_BOOT : FRAME_NOT_RAM;

	if (r->type == BOOT_MEM_USABLE) {
		owner = FRAME_FREE;
		first = MAX(ALIGN_UP(r->base, PAGE_SIZE), LOW_LIMIT);
		last = ALIGN_DOWN(range_end(r), PAGE_SIZE);
	}
	last = MIN(last, pool.frames * PAGE_SIZE);
	if (first < last)
		set_owner(first / PAGE_SIZE, (last - first) / PAGE_SIZE, owner);
}

void frame_init(const struct boot_info *boot)
{
	u64 top = 0, chunks, bytes, table;

	for (u32 i = 0; i < boot->memory_count; i++)
		if (is_ram(&boot->memory[i]))
			top = MAX(top, range_end(&boot->memory[i]));

	chunks = ALIGN_UP(top, SIZE_2M) / SIZE_2M;
	bytes = ALIGN_UP((chunks * CHUNK_FRAMES + chunks) * sizeof(u16), PAGE_SIZE);
	table = place_tables(boot, bytes);

	memset(&pool, 0, sizeof(pool));
	pool.frames = chunks * CHUNK_FRAMES;
	pool.low = pool.frames;
	pool.owner = phys_to_ptr(hpa(table));
	pool.chunk_free = pool.owner + pool.frames;
	memset(pool.owner, 0, bytes); /* FRAME_NOT_RAM */

	/* Free memory first: should the map overlap after all, the other claim wins. */
	for (u32 i = 0; i < boot->memory_count; i++)
		if (boot->memory[i].type == BOOT_MEM_USABLE)
			claim_range(&boot->memory[i]);
	for (u32 i = 0; i < boot->memory_count; i++)
		if (boot->memory[i].type != BOOT_MEM_USABLE)
			claim_range(&boot->memory[i]);
	set_owner(table / PAGE_SIZE, bytes / PAGE_SIZE, FRAME_HV);
}

/* --- allocation ------------------------------------------------------------------------------- */

int frame_alloc(frame_owner_t owner, u64 bytes, u64 align, hpa_t *out)
{
	u64 n, at = NOT_FOUND;

	ASSERT(owner > FRAME_FREE && bytes > 0);
	ASSERT(align >= PAGE_SIZE && (align & (align - 1)) == 0);
	if (bytes > pool.frames * PAGE_SIZE)
		return ERR_NOMEM;
	n = ALIGN_UP(bytes, PAGE_SIZE) / PAGE_SIZE;

	spin_lock(&pool.lock);
	if (n >= CHUNK_FRAMES)
		at = find_high(n, align / PAGE_SIZE);
	if (at == NOT_FOUND)
		at = find_low(n, align / PAGE_SIZE);
	if (at != NOT_FOUND)
		set_owner(at, n, owner);
	spin_unlock(&pool.lock);

	if (at == NOT_FOUND)
		return ERR_NOMEM;
	*out = hpa(at * PAGE_SIZE);
	return 0;
}

int frame_alloc_page(frame_owner_t owner, hpa_t *out)
{
	int err = frame_alloc(owner, PAGE_SIZE, PAGE_SIZE, out);

	if (err == 0)
		memset(phys_to_ptr(*out), 0, PAGE_SIZE);
	return err;
}

void frame_free(frame_owner_t owner, hpa_t base, u64 bytes)
{
	u64 first = base.v / PAGE_SIZE, n = ALIGN_UP(bytes, PAGE_SIZE) / PAGE_SIZE;

	ASSERT(owner > FRAME_FREE && IS_ALIGNED(base.v, PAGE_SIZE));
	ASSERT(first <= pool.frames && n <= pool.frames - first);

	spin_lock(&pool.lock);
	for (u64 f = first; f < first + n; f++)
		if (pool.owner[f] != owner)
			panic("frame %#llx freed by owner %#x belongs to %#x",
			      (unsigned long long)(f * PAGE_SIZE), owner, pool.owner[f]);
	set_owner(first, n, FRAME_FREE);
	spin_unlock(&pool.lock);
}

u64 frame_free_all(frame_owner_t owner)
{
	u64 freed = 0;

	ASSERT(owner > FRAME_FREE);
	/* The lock is taken per chunk: nobody waits for the whole table to be searched. */
	for (u64 chunk = 0; chunk < pool.frames / CHUNK_FRAMES; chunk++) {
		u64 first = chunk * CHUNK_FRAMES;

		spin_lock(&pool.lock);
		for (u64 f = first; f < first + CHUNK_FRAMES; f++) {
			if (pool.owner[f] != owner)
				continue;
			set_owner(f, 1, FRAME_FREE);
			freed++;
		}
		spin_unlock(&pool.lock);
	}
	return freed;
}

frame_owner_t frame_owner(hpa_t addr)
{
	u64 frame = addr.v / PAGE_SIZE;

	return frame < pool.frames ? __atomic_load_n(&pool.owner[frame], __ATOMIC_RELAXED)
				   : FRAME_NOT_RAM;
}

void frame_stats(struct frame_stats *out)
{
	spin_lock(&pool.lock);
	*out = pool.stats;
	spin_unlock(&pool.lock);
}

/* --- heap ------------------------------------------------------------------------------------- */

void *heap_alloc(u64 bytes)
{
	hpa_t base;

	if (bytes == 0 || frame_alloc(FRAME_HV, bytes, PAGE_SIZE, &base) != 0)
		return NULL;
	return memset(phys_to_ptr(base), 0, ALIGN_UP(bytes, PAGE_SIZE));
}

void heap_free(void *p, u64 bytes)
{
	if (p)
		frame_free(FRAME_HV, ptr_to_phys(p), bytes);
}
