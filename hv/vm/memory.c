/* The door to guest memory. See memory.h. */
#include "vm/memory.h"

#include "lib/string.h"
#include "mem/frame.h"
#include "vm/away.h"
#include "vm/internal.h"

/* Host pointer to the byte; *left: so many from there on are contiguous. NULL: not RAM. */
static inline u8 *ram_pointer(struct vm *vm, gpa_t at, size_t *left)
{
	const struct region *region = region_find(&vm->space, at);

	*left = 0;
	if (unlikely(!region || !region_is_memory(region) || region->kind == REGION_REMOTE))
		return NULL;
	/* Persistent regions may end within 2 MiB, but then at the end of a page. */
	*left = MIN(SIZE_2M - (at.v - region->base.v) % SIZE_2M,
		    region->bytes - (at.v - region->base.v));
	return phys_to_ptr(region_frame(region, at));
}

const void *guest_ram_view(struct vm *vm, gpa_t at, size_t len)
{
	size_t left;
	const u8 *p = ram_pointer(vm, at, &left);

	return p && len <= left ? p : NULL;
}

/* The EPT's dirty flags do not show what we have written ourselves. After the write. */
static void note_write(struct vm *vm, gpa_t at, size_t len)
{
	const struct region *region;

	if (likely(!vm->space.pmem_count))
		return;
	region = region_find(&vm->space, at);
	if (region && region->kind == REGION_PMEM)
		pmem_written(vm, region->device, at.v - region->base.v, len);
}

/*
 * Host pointer to a naturally aligned word, remote memory's too: 0, ERR_FAULT or ERR_AGAIN. After
 * the access, word_close().
 */
static inline int word_open(struct vm *vm, gpa_t at, unsigned int size, bool write, u8 **p)
{
	const struct region *region;
	size_t left; /* enough: aligned words do not cross pages */

	if (!IS_ALIGNED(at.v, size))
		return ERR_FAULT;
	*p = ram_pointer(vm, at, &left);
	if (likely(*p))
		return 0;
	region = region_find(&vm->space, at);
	if (!region || region->kind != REGION_REMOTE)
		return ERR_FAULT;
	*p = remote_open(vm, region, at, write, false);
	return *p ? 0 : ERR_AGAIN;
}

static inline void word_close(struct vm *vm)
{
	if (unlikely(vm->remote))
		remote_close(vm);
}

static bool all_ram(struct vm *vm, gpa_t from, size_t len)
{
	const struct region *region = region_find(&vm->space, from);

	if (!len)
		return true;
	return region && region_is_memory(region) &&
	       len <= region->bytes - (from.v - region->base.v);
}

int guest_read(struct vm *vm, gpa_t from, void *to, size_t len)
{
	u8 *out = to;
	size_t n;
	const u8 *p = ram_pointer(vm, from, &n);

	if (likely(p && len <= n)) {
		memcpy(to, p, len);
		return 0;
	}
	if (!all_ram(vm, from, len))
		return ERR_FAULT;
	if (unlikely(!p && len))
		return away_read(vm, region_find(&vm->space, from), from, to, len);
	while (len) {
		p = ram_pointer(vm, from, &n);
		n = MIN(n, len);
		memcpy(out, p, n);
		out += n;
		len -= n;
		from = gpa_add(from, n);
	}
	return 0;
}

int guest_write(struct vm *vm, gpa_t to, const void *from, size_t len)
{
	const u8 *in = from;

	if (!all_ram(vm, to, len))
		return ERR_FAULT;
	while (len) {
		size_t n;
		u8 *p = ram_pointer(vm, to, &n);

		if (unlikely(!p))
			return away_write(vm, region_find(&vm->space, to), to, in, len);
		n = MIN(n, len);
		memcpy(p, in, n);
		note_write(vm, to, n);
		in += n;
		len -= n;
		to = gpa_add(to, n);
	}
	return 0;
}

int guest_zero(struct vm *vm, gpa_t to, size_t len)
{
	if (!all_ram(vm, to, len))
		return ERR_FAULT;
	while (len) {
		size_t n;
		u8 *p = ram_pointer(vm, to, &n);

		if (unlikely(!p))
			return away_zero(vm, region_find(&vm->space, to), to, len);
		n = MIN(n, len);
		memset(p, 0, n);
		note_write(vm, to, n);
		len -= n;
		to = gpa_add(to, n);
	}
	return 0;
}

int guest_read_word(struct vm *vm, gpa_t at, unsigned int size, u64 *value)
{
	u8 *p;
	int err = word_open(vm, at, size, false, &p);

	if (unlikely(err))
		return err;
	if (size == 2)
		*value = __atomic_load_n((const u16 *)(const void *)p, __ATOMIC_RELAXED);
	else if (size == 4)
		*value = __atomic_load_n((const u32 *)(const void *)p, __ATOMIC_RELAXED);
	else
		*value = __atomic_load_n((const u64 *)(const void *)p, __ATOMIC_RELAXED);
	word_close(vm);
	return 0;
}

int guest_write_word(struct vm *vm, gpa_t at, unsigned int size, u64 value)
{
	u8 *p;
	int err = word_open(vm, at, size, true, &p);

	if (unlikely(err))
		return err;
	if (size == 2)
		__atomic_store_n((u16 *)(void *)p, (u16)value, __ATOMIC_RELAXED);
	else if (size == 4)
		__atomic_store_n((u32 *)(void *)p, (u32)value, __ATOMIC_RELAXED);
	else
		__atomic_store_n((u64 *)(void *)p, value, __ATOMIC_RELAXED);
	word_close(vm);
	note_write(vm, at, size);
	return 0;
}

int guest_cmpxchg(struct vm *vm, gpa_t at, unsigned int size, u64 old, u64 new)
{
	u8 *p;
	int err = size == 4 || size == 8 ? word_open(vm, at, size, true, &p) : ERR_FAULT;
	bool done;

	if (unlikely(err))
		return err;
	if (size == 4) {
		u32 expected = (u32)old;

		done = __atomic_compare_exchange_n((u32 *)(void *)p, &expected, (u32) new, false,
						   __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
	} else {
		done = __atomic_compare_exchange_n((u64 *)(void *)p, &old, new, false,
						   __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
	}
	word_close(vm);
	if (done)
		note_write(vm, at, size);
	return done ? 0 : ERR_BUSY;
}
