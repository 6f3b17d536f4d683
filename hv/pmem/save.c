/* Saves of persistent regions: see save.h. */
#include "pmem/save.h"

#include "lib/crc32.h"
#include "lib/string.h"

#define PAGE_SECTORS (PAGE_SIZE / DISK_SECTOR)

static struct {
	struct disk_part part;
	union {
		struct save_dir dir;
		u8 bytes[SAVE_DIR_BYTES];
	};
} store;

/* --- layout of an area -------------------------------------------------------------------------
 */

u64 save_map_bytes(u64 pages)
{
	return ALIGN_UP(pages * sizeof(struct save_entry), (u64)DISK_SECTOR);
}

static u64 map_sectors(u64 pages)
{
	return save_map_bytes(pages) / DISK_SECTOR;
}

static u64 map_at(u64 pages, u32 index)
{
	return SAVE_MAPS_AT + index * ALIGN_UP(map_sectors(pages), (u64)SAVE_ALIGN);
}

static u64 header_at(u32 index)
{
	return SAVE_HEADER_AT + index * SAVE_ALIGN;
}

static u64 page_at(const struct save_region *r, u64 page, u32 place)
{
	return map_at(r->pages, 2) + (2 * page + place - SAVE_FIRST) * PAGE_SECTORS;
}

u64 save_area_sectors(u64 pages)
{
	return map_at(pages, 2) + 2 * pages * PAGE_SECTORS;
}

u64 save_commit_sectors(u64 pages)
{
	return map_sectors(pages) + 1;
}

static u8 *memory(const struct save_region *r, u64 page)
{
	u64 at = page * PAGE_SIZE;

	return at < r->bytes ? r->data + at : r->labels + (at - r->bytes);
}

static u64 data_pages(const struct save_region *r)
{
	return r->bytes / PAGE_SIZE;
}

/* --- access -------------------------------------------------------------------------------------
 */

static int get(const struct save_region *r, u64 sector, u32 count, void *to)
{
	return part_read(&store.part, r->first + sector, count, to);
}

/* Power may be gone after any sector: the model of it cuts within what is to be written. */
static int put(struct save_region *r, u64 sector, u32 count, const void *from)
{
	u32 n = (u32)MIN((u64)count, r->limit - MIN(r->written, r->limit));
	int err = n ? part_write(&store.part, r->first + sector, n, from) : 0;

	r->written += n;
	return err ? err : n < count ? ERR_IO : 0;
}

static int put_one(struct save_region *r, u64 sector, const void *from, size_t bytes)
{
	u8 buffer[DISK_SECTOR] = {0};

	memcpy(buffer, from, bytes);
	return put(r, sector, 1, buffer);
}

static bool is_zero(const void *from, size_t bytes)
{
	const u64 *p = from;
	u64 any = 0;

	for (size_t i = 0; i < bytes / sizeof(*p) && !any; i++)
		any |= p[i];
	return !any;
}

static u32 page_crc(const struct save_region *r, u64 page)
{
	return crc32((u32)page, memory(r, page), PAGE_SIZE);
}

/* --- the directory ------------------------------------------------------------------------------
 */

static u32 dir_crc(struct save_dir *dir)
{
	u32 had = dir->crc, crc;

	dir->crc = 0;
	crc = crc32(0, dir, SAVE_DIR_BYTES);
	dir->crc = had;
	return crc;
}

static bool entry_good(const struct save_dir_entry *e, u64 limit)
{
	return e->first >= SAVE_AREAS && e->sectors && e->first < limit &&
	       e->sectors <= limit - e->first && strnlen(e->vm, sizeof(e->vm)) < sizeof(e->vm);
}

static bool overlap(const struct save_dir_entry *a, const struct save_dir_entry *b)
{
	return a->first < b->first + b->sectors && b->first < a->first + a->sectors;
}

static bool dir_good(struct save_dir *dir)
{
	if (memcmp(dir->magic, SAVE_DIR_MAGIC, sizeof(dir->magic)) != 0 ||
	    dir->version != SAVE_VERSION || dir->count > SAVE_DIR_MAX || dir->crc != dir_crc(dir))
		return false;
	for (u32 i = 0; i < dir->count; i++) {
		if (!entry_good(&dir->entry[i], store.part.sectors))
			return false;
		for (u32 j = 0; j < i; j++)
			if (overlap(&dir->entry[i], &dir->entry[j]))
				return false;
	}
	return true;
}

/* One copy is intact whatever happens. */
static int dir_write(void)
{
	int err = 0;

	store.dir.generation++;
	store.dir.crc = dir_crc(&store.dir);
	for (u32 i = 0; !err && i < SAVE_DIR_COPIES; i++) {
		err = part_write(&store.part, i * SAVE_DIR_SECTORS, SAVE_DIR_SECTORS, &store.dir);
		if (!err)
			err = disk_flush();
	}
	return err;
}

static void dir_clear(void)
{
	memset(&store.dir, 0, sizeof(store.dir));
	memcpy(store.dir.magic, SAVE_DIR_MAGIC, sizeof(store.dir.magic));
	store.dir.version = SAVE_VERSION;
}

int save_store_open(const struct disk_part *part, const char **why)
{
	bool good = false, blank = false, foreign = false;
	u64 generation = 0;
	u32 best = 0;
	int err;

	store.part = *part;
	*why = "the partition cannot be read";
	for (u32 i = 0; i < SAVE_DIR_COPIES; i++) {
		err = part_read(part, i * SAVE_DIR_SECTORS, SAVE_DIR_SECTORS, &store.dir);
		if (err)
			return err;
		/* The first directory may have been torn while the second was still to come: its
		 * first sector was there then, or nothing. */
		blank = is_zero(&store.dir, SAVE_DIR_BYTES);
		foreign |= !blank &&
			   memcmp(store.dir.magic, SAVE_DIR_MAGIC, sizeof(store.dir.magic)) != 0;
		if (dir_good(&store.dir) && (!good || store.dir.generation > generation)) {
			good = true;
			generation = store.dir.generation;
			best = i;
		}
	}
	if (good) {
		err = part_read(part, best * SAVE_DIR_SECTORS, SAVE_DIR_SECTORS, &store.dir);
		return err || dir_good(&store.dir) ? err : ERR_IO;
	}
	*why = "the partition holds something else, or its directory is damaged";
	if (!blank || foreign)
		return ERR_INVAL;
	dir_clear();
	return 0;
}

static struct save_dir_entry *dir_find(const struct save_region *r)
{
	for (u32 i = 0; i < store.dir.count; i++)
		if (store.dir.entry[i].number == r->number && !strcmp(store.dir.entry[i].vm, r->vm))
			return &store.dir.entry[i];
	return NULL;
}

/* --- making a generation ------------------------------------------------------------------------
 */

int save_begin(struct save_region *r)
{
	struct save_session s = {.generation = r->generation};
	int err;

	memcpy(s.magic, SAVE_SESSION_MAGIC, sizeof(s.magic));
	s.crc = crc32(0, &s, sizeof(s));
	err = put_one(r, SAVE_SESSION_AT, &s, sizeof(s));
	return err ? err : disk_flush();
}

int save_page(struct save_region *r, u64 page)
{
	struct save_entry e = {0, SAVE_ZERO};
	int err;

	if (is_zero(memory(r, page), PAGE_SIZE)) {
		r->map[page] = e;
		return 0;
	}
	e.crc = page_crc(r, page);
	e.place = r->kept[page] == SAVE_FIRST ? SAVE_SECOND : SAVE_FIRST;
	err = put(r, page_at(r, page, e.place), PAGE_SECTORS, memory(r, page));
	if (!err)
		r->map[page] = e;
	return err;
}

static u32 header_crc(const struct save_header *h)
{
	struct save_header copy = *h;

	copy.crc = 0;
	return crc32(0, &copy, sizeof(copy));
}

int save_commit(struct save_region *r)
{
	u32 next = !r->current;
	struct save_header h = {
		.version = SAVE_VERSION,
		.number = r->number,
		.bytes = r->bytes,
		.pages = r->pages,
		.generation = r->generation + 1,
		.map_crc = crc32(0, r->map, save_map_bytes(r->pages)),
	};
	int err = put(r, map_at(r->pages, next), (u32)map_sectors(r->pages), r->map);

	memcpy(h.magic, SAVE_HEADER_MAGIC, sizeof(h.magic));
	memcpy(h.vm, r->vm, strnlen(r->vm, sizeof(h.vm) - 1));
	h.crc = header_crc(&h);
	/* The header may not be there before what it vouches for. */
	if (!err)
		err = disk_flush();
	if (!err)
		err = put_one(r, header_at(next), &h, sizeof(h));
	if (!err)
		err = disk_flush();
	if (err)
		return err;
	r->current = next;
	r->generation++;
	for (u64 i = 0; i < r->pages; i++)
		r->kept[i] = (u8)r->map[i].place;
	return 0;
}

/* --- restoring ----------------------------------------------------------------------------------
 */

static void clear(struct save_region *r)
{
	memset(r->data, 0, r->bytes);
	memset(r->labels, 0, (r->pages - data_pages(r)) * PAGE_SIZE);
	memset(r->map, 0, save_map_bytes(r->pages));
	memset(r->kept, 0, r->pages);
}

static bool header_good(const struct save_region *r, const struct save_header *h)
{
	return !memcmp(h->magic, SAVE_HEADER_MAGIC, sizeof(h->magic)) && h->crc == header_crc(h) &&
	       h->version == SAVE_VERSION && h->number == r->number && h->bytes == r->bytes &&
	       h->pages == r->pages && h->generation && h->vm[sizeof(h->vm) - 1] == 0 &&
	       !strcmp(h->vm, r->vm);
}

/* Generation of a header, 0 if it is damaged. */
static int read_header(struct save_region *r, u32 index, struct save_header *out)
{
	u8 buffer[DISK_SECTOR];
	int err = get(r, header_at(index), 1, buffer);

	memcpy(out, buffer, sizeof(*out));
	if (!err && !header_good(r, out))
		out->generation = 0;
	return err;
}

static int load_page(struct save_region *r, u64 page, const char **why)
{
	const struct save_entry *e = &r->map[page];
	int err;

	if (e->place == SAVE_ZERO) {
		memset(memory(r, page), 0, PAGE_SIZE);
		return 0;
	}
	*why = "a page cannot be read";
	err = get(r, page_at(r, page, e->place), PAGE_SECTORS, memory(r, page));
	if (err)
		return err;
	*why = "the checksum of a page is wrong";
	return page_crc(r, page) == e->crc ? 0 : ERR_INVAL;
}

static int load(struct save_region *r, u32 index, const struct save_header *h, const char **why)
{
	int err = get(r, map_at(r->pages, index), (u32)map_sectors(r->pages), r->map);

	*why = "the map cannot be read";
	if (err)
		return err;
	*why = "the checksum of the map is wrong";
	if (crc32(0, r->map, save_map_bytes(r->pages)) != h->map_crc)
		return ERR_INVAL;
	for (u64 i = 0; i < r->pages; i++)
		if (r->map[i].place > SAVE_SECOND)
			return ERR_INVAL;
	for (u64 i = 0; !err && i < r->pages; i++)
		err = load_page(r, i, why);
	if (err)
		return err;
	r->current = index;
	r->generation = h->generation;
	for (u64 i = 0; i < r->pages; i++)
		r->kept[i] = (u8)r->map[i].place;
	return 0;
}

/* Whether the VM has run without being saved since generation `newest`. */
static bool was_unsaved(struct save_region *r, u64 newest)
{
	u8 buffer[DISK_SECTOR];
	struct save_session s;
	u32 crc;

	if (get(r, SAVE_SESSION_AT, 1, buffer))
		return true;
	if (is_zero(buffer, sizeof(buffer)))
		return false;
	memcpy(&s, buffer, sizeof(s));
	crc = s.crc;
	s.crc = 0;
	return memcmp(s.magic, SAVE_SESSION_MAGIC, sizeof(s.magic)) != 0 ||
	       crc32(0, &s, sizeof(s)) != crc || s.generation >= newest;
}

/*
 * The newest generation that is intact. What cannot be read is not what is damaged: it may be
 * readable tomorrow, and nothing is written over it.
 */
static int restore(struct save_region *r, enum save_outcome *outcome, const char **why)
{
	struct save_header h[2];
	const char *second;
	u32 newest;
	int err = 0;

	*why = "a header cannot be read";
	for (u32 i = 0; !err && i < 2; i++)
		err = read_header(r, i, &h[i]);
	if (err)
		return err;
	newest = h[1].generation > h[0].generation;
	*outcome = was_unsaved(r, h[newest].generation) ? SAVE_UNSAVED : SAVE_GOOD;
	*why = "the headers of both saves are damaged";
	err = h[newest].generation ? load(r, newest, &h[newest], why) : ERR_INVAL;
	if (!err)
		*why = *outcome == SAVE_UNSAVED ? "it was not saved when it last ran" : NULL;
	if (err != ERR_INVAL)
		return err;
	*outcome = SAVE_OLDER;
	if (h[!newest].generation)
		err = load(r, !newest, &h[!newest], &second);
	if (err != ERR_INVAL)
		return err;
	*outcome = SAVE_DAMAGED;
	clear(r);
	/* Whatever comes next is newer than all that is there. */
	r->generation = h[newest].generation;
	r->current = newest;
	return 0;
}

/* Nobody finds an area before it holds a complete generation: then the directory names it. */
static int make_area(struct save_region *r, const char **why)
{
	static const u8 nothing[DISK_SECTOR];
	struct save_dir_entry *e = &store.dir.entry[store.dir.count];
	u64 sectors = ALIGN_UP(save_area_sectors(r->pages), (u64)SAVE_ALIGN), first = SAVE_AREAS;
	int err = 0;

	for (u32 i = 0; i < store.dir.count; i++)
		first = MAX(first, store.dir.entry[i].first + store.dir.entry[i].sectors);
	*why = "the partition is full";
	if (store.dir.count == SAVE_DIR_MAX || first > store.part.sectors ||
	    sectors > store.part.sectors - first)
		return ERR_NOMEM;
	*why = "the partition cannot be written to";
	r->first = first;
	r->generation = 0;
	r->current = 1;
	for (u64 at = SAVE_SESSION_AT; !err && at < SAVE_MAPS_AT; at += SAVE_ALIGN)
		err = put(r, at, 1, nothing);
	if (!err)
		err = save_commit(r);
	if (err)
		return err;
	*e = (struct save_dir_entry){
		.number = r->number, .bytes = r->bytes, .first = first, .sectors = sectors};
	memcpy(e->vm, r->vm, strnlen(r->vm, sizeof(e->vm) - 1));
	store.dir.count++;
	err = dir_write();
	if (err)
		store.dir.count--;
	return err;
}

int save_open(struct save_region *r, enum save_outcome *outcome, const char **why)
{
	const struct save_dir_entry *e = dir_find(r);
	int err;

	*why = NULL;
	clear(r);
	if (!e) {
		*outcome = SAVE_NEW;
		return make_area(r, why);
	}
	*why = "what is saved under this name has another size";
	if (e->bytes != r->bytes || e->sectors < save_area_sectors(r->pages))
		return ERR_EXIST;
	r->first = e->first;
	err = restore(r, outcome, why);
	if (err)
		clear(r);
	return err;
}
