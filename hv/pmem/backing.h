/*
 * Lent RAM that persists because it is saved to a partition (save.h): the life of that, and the
 * bound on how much is unsaved.
 *
 * A page is mapped writable at the first write to it since it was last saved, and is dirty from
 * then on. No more than a budget of pages may be: before another one is opened, one is closed and
 * written to where the next generation will have it (Viyojit, ISCA 2017). So a save takes at most
 * the budget's pages, a map and a header, however large the region is; the budget is what the
 * energy that is left after a power failure has to last for. (Umbra's own writes for the guest are
 * noted after they have happened, one at most for each CPU: when the VM has stopped none is left.)
 *
 * The VM is saved when it ends or restarts, for whatever reason, as long as Umbra runs.
 */
#pragma once

#include "lib/marks.h"
#include "lib/spinlock.h"
#include "pmem/save.h"

struct boot_info;
struct vm;

/* Memory of a region, in the guest's addresses: data, labels. */
struct backing_part {
	gpa_t base;
	u64 first;	     /* its first page, counted through all parts */
	struct marks opened; /* dirty pages */
};
#define BACKING_PARTS 2

struct backing {
	struct save_region save;
	struct spinlock lock;
	struct backing_part part[BACKING_PARTS];
	u64 dirty, budget; /* pages */
	u64 most;	   /* that have been dirty at a time */
	u64 cursor;	   /* where the search for one to close goes on */
	u64 opened, written_back;
	u64 last_pages, last_sectors; /* of the last save */
	u32 outcome;		      /* enum save_outcome of the last restore; GOOD after a save */
	bool running;		      /* between backing_start() and backing_stop() */
	bool broken;		      /* the disk has failed: nothing is saved any more */
	bool lost;		      /* power has failed: memory has to be restored */
};

/* Before the first VM, if the configuration asks for saving: finds disk and partition. */
void backing_init(const struct boot_info *boot);

/*
 * The VM's first life: restores data and labels, or empties them. NULL, and said why in the log,
 * if the region cannot be saved. `data` and `labels` are the region's own frames.
 */
struct backing *backing_create(struct vm *vm, u32 number, u64 bytes, u8 *data, u8 *labels,
			       u64 label_bytes);

/*
 * Before each life: its memory is what it was or what was saved, and in the address space (`data`,
 * `labels`: where); writes are followed from now on. ERR_IO: not armed, said so: whatever is
 * written is lost with the machine.
 */
int backing_start(struct vm *vm, struct backing *b, gpa_t data, gpa_t labels);

/* The guest writes to a page of part `part`: it is mapped writable, now or at the next try. 0, or
 * ERR_NOMEM for page tables. On the vCPU's CPU. */
int backing_open(struct vm *vm, struct backing *b, u32 part, u64 page);

/* Umbra has written there for the guest. */
void backing_written(struct vm *vm, struct backing *b, u32 part, u64 offset, u64 bytes);

/* Time to write a page back before one is needed. Often, any CPU in root mode. */
void backing_tick(struct vm *vm, struct backing *b);

/*
 * All vCPUs have stopped: saves. `power_fails`: the disk goes off as the configuration says (a
 * model), and what is in memory is gone.
 */
void backing_stop(struct vm *vm, struct backing *b, u32 number, bool power_fails);

/* NFIT_STATE_* for the guest's NFIT. */
u16 backing_state(const struct backing *b);
