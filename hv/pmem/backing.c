/* RAM that is saved to a partition: see backing.h. */
#include "pmem/backing.h"

#include <umbra/boot_info.h>

#include "blk/gpt.h"
#include "lib/log.h"
#include "lib/string.h"
#include "mem/frame.h"
#include "pmem/nfit_layout.h"
#include "vm/vm.h"

#define LEAST_BUDGET 64 /* pages: one instruction and its page walk may write to a dozen */

/* A VM that does nothing but restart fills no log. */
#define SAVES_LOGGED 8

static const char *unusable; /* why nothing can be saved, or NULL */
static u64 share;	     /* of the budget, for each region */
static u64 loss_limit;	     /* sectors that a failing power supply has left */

static u32 saved_regions(const struct boot_info *boot)
{
	u32 n = 0;

	for (u32 v = 0; v < boot->vm_count; v++)
		for (u32 i = 0; i < boot->vm[v].pmem_count; i++)
			n += boot->vm[v].pmem[i].saved;
	return n;
}

static const char *find_store(void)
{
	static const u8 type[] = SAVE_PARTITION_TYPE;
	struct disk_part part;
	const char *why;
	bool backup;

	if (disk_init())
		return "there is no ATA disk on the primary IDE channel";
	if (gpt_find(type, &part, &backup, &why))
		return why;
	if (backup)
		log_warn("disk: its primary partition table is damaged; the backup is used");
	log_info("disk: partition for saved memory: %llu MiB",
		 (unsigned long long)(part.sectors * DISK_SECTOR / MIB));
	return save_store_open(&part, &why) ? why : NULL;
}

void backing_init(const struct boot_info *boot)
{
	u32 regions = saved_regions(boot);

	unusable = NULL;
	if (!regions)
		return;
	share = boot->options.pmem_save_budget / regions;
	loss_limit = boot->options.pmem_power_loss_sectors ? boot->options.pmem_power_loss_sectors
							   : SAVE_NO_LIMIT;
	if (boot->options.pmem_partition == BOOT_PMEM_PARTITION_NONE)
		unusable = "pmem_partition = none";
	else if (share < LEAST_BUDGET)
		unusable = "pmem_save_budget is less than 64 pages for each saved region";
	else
		unusable = find_store();
}

/* --- restoring ----------------------------------------------------------------------------------
 */

static void report_outcome(const struct vm *vm, const struct backing *b, const char *why)
{
	const char *name = vm->config->name;
	unsigned long long generation = b->save.generation;
	u32 n = b->save.number;

	switch (b->outcome) {
	case SAVE_NEW:
		log_info("vm %s: NVDIMM %u: nothing has been saved yet, it is empty", name, n);
		break;
	case SAVE_GOOD:
		log_info("vm %s: NVDIMM %u: restored, generation %llu", name, n, generation);
		break;
	case SAVE_UNSAVED:
		log_warn("vm %s: NVDIMM %u: NOT SAVED when it last ran: it holds what it held "
			 "before, generation %llu",
			 name, n, generation);
		break;
	case SAVE_OLDER:
		log_warn("vm %s: NVDIMM %u: the last save is damaged (%s): it holds the one "
			 "before, generation %llu",
			 name, n, why, generation);
		break;
	default:
		log_warn("vm %s: NVDIMM %u: no save is intact (%s): it starts EMPTY", name, n, why);
	}
}

static int restore(const struct vm *vm, struct backing *b)
{
	enum save_outcome outcome;
	const char *why;
	int err = save_open(&b->save, &outcome, &why);

	if (err) {
		log_warn("vm %s: region %u cannot be saved: %s", vm->config->name, b->save.number,
			 why);
		return err;
	}
	b->outcome = outcome;
	report_outcome(vm, b, why);
	return 0;
}

static void *take_bytes(u64 bytes)
{
	return heap_alloc(ALIGN_UP(bytes, PAGE_SIZE));
}

static void give_bytes(void *p, u64 bytes)
{
	if (p)
		heap_free(p, ALIGN_UP(bytes, PAGE_SIZE));
}

struct backing *backing_create(struct vm *vm, u32 number, u64 bytes, u8 *data, u8 *labels,
			       u64 label_bytes)
{
	u64 n[BACKING_PARTS] = {bytes / PAGE_SIZE, label_bytes / PAGE_SIZE}, pages = n[0] + n[1];
	u64 map = save_map_bytes(pages), marks = marks_bytes(n[0]) + marks_bytes(n[1]);
	struct backing *b;
	u8 *tables;

	if (unusable) {
		log_warn("vm %s: region %u cannot be saved: %s", vm->config->name, number,
			 unusable);
		return NULL;
	}
	b = take_bytes(sizeof(*b));
	tables = take_bytes(map + marks + pages);
	if (!b || !tables) {
		log_warn("vm %s: region %u cannot be saved: no memory", vm->config->name, number);
		give_bytes(b, sizeof(*b));
		give_bytes(tables, map + marks + pages);
		return NULL;
	}
	b->save = (struct save_region){
		.vm = vm->config->name,
		.number = number,
		.bytes = bytes,
		.pages = pages,
		.data = data,
		.labels = labels,
		.map = (void *)tables,
		.kept = tables + map + marks,
		.limit = SAVE_NO_LIMIT,
	};
	marks_init(&b->part[0].opened, tables + map, n[0]);
	marks_init(&b->part[1].opened, tables + map + marks_bytes(n[0]), n[1]);
	b->part[1].first = n[0];
	b->budget = share;
	if (restore(vm, b)) {
		give_bytes(b, sizeof(*b));
		give_bytes(tables, map + marks + pages);
		return NULL;
	}
	return b;
}

int backing_start(struct vm *vm, struct backing *b, gpa_t data, gpa_t labels)
{
	/* A disk that has failed stays out of use: what was to be written there is no longer known.
	 */
	int err = b->broken ? ERR_IO : 0;

	b->part[0].base = data;
	b->part[1].base = labels;
	if (b->lost)
		err = restore(vm, b);
	if (!err)
		err = save_begin(&b->save);
	b->lost = false;
	b->broken = err;
	b->running = true;
	for (u32 i = 0; i < BACKING_PARTS; i++) {
		space_track_pmem(vm, b->part[i].base, &b->part[i].opened);
		space_bound_pmem(vm, b->part[i].base);
	}
	if (err)
		log_warn("vm %s: NVDIMM %u: NOT ARMED: the disk cannot be written to",
			 vm->config->name, b->save.number);
	return err;
}

/* --- the bound ----------------------------------------------------------------------------------
 */

static void failed(const struct vm *vm, struct backing *b)
{
	if (!b->broken)
		log_warn("vm %s: NVDIMM %u: the disk has failed: what is written from now on is "
			 "NOT SAVED",
			 vm->config->name, b->save.number);
	b->broken = true;
}

/* The lock is held, as in all that follows. A CPU in guest mode is waited for, none in root mode.
 */
static void write_back(struct vm *vm, struct backing *b)
{
	u64 page = MARKS_NONE;

	/* From the cursor to the end, and round once more. */
	for (u32 i = 0; page == MARKS_NONE && i < BACKING_PARTS + 1; i++) {
		struct backing_part *p = &b->part[b->cursor >= b->part[1].first];

		page = space_close_page(vm, p->base, b->cursor - p->first);
		if (page != MARKS_NONE)
			b->cursor = page += p->first;
		else
			b->cursor = p == &b->part[0] ? b->part[1].first : 0;
	}
	if (page == MARKS_NONE)
		return;
	b->cursor = (b->cursor + 1) % b->save.pages;
	b->dirty--;
	b->written_back++;
	if (save_page(&b->save, page))
		failed(vm, b);
}

static void count_dirty(struct backing *b)
{
	b->dirty++;
	b->opened++;
	b->most = MAX(b->most, b->dirty);
}

int backing_open(struct vm *vm, struct backing *b, u32 part, u64 page)
{
	struct backing_part *p = &b->part[part];
	int err = 0;

	/* Somebody else waits for the disk: meanwhile the guest may have its interrupts. */
	if (!spin_trylock(&b->lock))
		return 0;
	if (!marks_has(&p->opened, page)) {
		if (b->dirty >= b->budget && !b->broken)
			write_back(vm, b);
		count_dirty(b);
	}
	err = space_open_page(vm, p->base, page);
	spin_unlock(&b->lock);
	return err;
}

void backing_written(struct vm *vm, struct backing *b, u32 part, u64 offset, u64 bytes)
{
	struct marks *opened = &b->part[part].opened;

	if (!bytes || offset / PAGE_SIZE >= opened->count)
		return;
	spin_lock(&b->lock);
	for (u64 page = offset / PAGE_SIZE;
	     page <= (offset + bytes - 1) / PAGE_SIZE && page < opened->count; page++) {
		if (marks_has(opened, page))
			continue;
		if (b->dirty >= b->budget && !b->broken)
			write_back(vm, b);
		marks_add(opened, page);
		count_dirty(b);
	}
	spin_unlock(&b->lock);
}

void backing_tick(struct vm *vm, struct backing *b)
{
	u64 enough = b->budget - b->budget / 4;

	/* A look without the lock, which most ticks end with. */
	if (!b->running || b->broken || __atomic_load_n(&b->dirty, __ATOMIC_RELAXED) <= enough ||
	    !spin_trylock(&b->lock))
		return;
	if (b->dirty > enough)
		write_back(vm, b);
	spin_unlock(&b->lock);
}

/* --- saving -------------------------------------------------------------------------------------
 */

static int save(struct backing *b)
{
	int err = b->broken ? ERR_IO : 0;

	for (u32 i = 0; i < BACKING_PARTS; i++) {
		struct backing_part *p = &b->part[i];
		u64 page = 0;

		for (; (page = marks_take(&p->opened, page)) != MARKS_NONE; page++) {
			b->last_pages++;
			if (!err)
				err = save_page(&b->save, p->first + page);
		}
	}
	b->dirty = 0;
	return err ? err : save_commit(&b->save);
}

void backing_stop(struct vm *vm, struct backing *b, u32 number, bool power_fails)
{
	int err;

	if (!b->running)
		return;
	spin_lock(&b->lock);
	b->running = false;
	b->last_pages = 0;
	b->save.written = 0;
	b->save.limit = power_fails ? loss_limit : SAVE_NO_LIMIT;
	err = save(b);
	b->last_sectors = b->save.written;
	b->save.limit = SAVE_NO_LIMIT;
	b->outcome = err ? SAVE_UNSAVED : SAVE_GOOD;
	b->broken = err && !power_fails;
	if (power_fails) {
		memset(b->save.data, 0xff, b->save.bytes);
		memset(b->save.labels, 0xff, (b->save.pages - b->part[1].first) * PAGE_SIZE);
		b->lost = true;
	}
	spin_unlock(&b->lock);
	if (err)
		log_warn("vm %s: NVDIMM %u: NOT SAVED: the disk failed after %llu sectors",
			 vm->config->name, number, (unsigned long long)b->last_sectors);
	else if (vm->restarts < SAVES_LOGGED)
		log_info("vm %s: NVDIMM %u: saved, %llu pages, %llu sectors, generation %llu",
			 vm->config->name, number, (unsigned long long)b->last_pages,
			 (unsigned long long)b->last_sectors,
			 (unsigned long long)b->save.generation);
}

u16 backing_state(const struct backing *b)
{
	u16 state = b->broken ? NFIT_STATE_NOT_ARMED : 0;

	if (b->outcome == SAVE_UNSAVED || b->outcome == SAVE_OLDER)
		state |= NFIT_STATE_SAVE_FAILED;
	if (b->outcome == SAVE_DAMAGED)
		state |= NFIT_STATE_RESTORE_FAILED;
	return state;
}
