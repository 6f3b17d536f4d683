/*
 * Persistent regions of VMs: what the configuration asks for, put on a medium (medium.h) and shown
 * to the guest as an NVDIMM (vnfit.h) with a label storage area and a page of flush hints.
 * Lent RAM is shown as a volatile range, and has neither.
 *
 * A region lies above the guest's RAM, at 1 GiB boundaries, in no memory map. Its medium and labels
 * belong to the configuration's VM, not to one of its lives: they are allocated when it first
 * starts and stay when it ends or restarts.
 *
 * The hint page has three modes. NONE: nothing has to be told to flush; the page is plain memory.
 * DIRECT: the medium has one hint and its page is mapped through. TRAP: the page reads as memory,
 * and stores are emulated and passed on to every hint of every controller.
 *
 * What vm/ calls is in vm/platform.h; dev/ calls the rest when it builds a VM's platform.
 */
#pragma once

#include <umbra/boot_info.h>
#include <umbra/hypercall.h>

#include "pmem/medium.h"
#include "pmem/vnfit.h"

struct backing; /* backing.h */
struct vcpu;
struct vm;

struct pmem_region {
	struct medium medium;
	gpa_t base;
	u32 mode;		   /* HC_PMEM_MODE_*; atomic */
	u32 range;		   /* MEDIUM_REAL: index in the host's NFIT */
	struct spinlock mode_lock; /* for changing the mode and what is mapped, together */
	u64 writes;		   /* atomic: to the hint page, trapped */
	hpa_t hints;		   /* RAM that the page shows in modes NONE and TRAP */
	hpa_t labels;		   /* PMEM_LABELS_STRIDE bytes */
	struct marks opened;	   /* a model's pages that are mapped writable */
	struct backing *backing;   /* lent RAM that is saved; or NULL */
};

#define PMEM_NEVER (~0ull)

struct vm_pmem {
	u32 count;
	u32 cut;   /* atomic: power fails when the VM has stopped */
	u32 loss;  /* atomic: the same for what is saved then (pmem_power_loss()) */
	u32 ticks; /* atomic: calls of pmem_tick() */
	u32 cuts;  /* failures of power so far */
	/* A failure of power to come (cut.c): host TSC, or PMEM_NEVER; atomic. */
	u64 cut_at, drain_at;
	u64 cut_window; /* ticks between the arming and the latest moment */
	u64 cut_rip;	/* where the last one caught the vCPU of vCPU 0's CPU; 0: asleep */
	u32 cut_delays;
	u64 random;
	/* Images instead of failures (cut.c): image_of = image_in for none. Under image_lock. */
	struct spinlock image_lock;
	u32 image_of, image_in, images;
	u64 image_tsc[2]; /* the guest's: before and after the last one was made */
	bool begun;	  /* atomic: this life's first flush has been */
	u32 cuts_wanted;  /* of the configuration */
	u32 wanted_within;
	struct pmem_region region[PMEM_REGIONS];
};

/* Looks at the host's NFIT, if there is one; before the first VM is created. */
void pmem_init(const struct boot_info *boot);

/*
 * The VM's RAM has been laid out: makes its regions, with what they had when it ran before.
 * vm->pmem stays NULL if it has none. ERR_NOMEM; ERR_NODEV: a range of the host that is not there
 * or not to be had (the reason has been logged).
 */
int pmem_create(struct vm *vm);
/* All its vCPUs have stopped, its address space is still there. */
void pmem_stop(struct vm *vm);

/* For the ACPI tables: bit n = region n is an NVDIMM, and vnfit_build() of them. */
u32 pmem_device_map(const struct vm *vm);
u32 pmem_nfit(const struct vm *vm, u8 out[VNFIT_MAX]);

/*
 * Changes the mode of a region's hint page while the VM runs; when it returns no vCPU uses the old
 * one. ERR_INVAL if the medium does not allow it: DIRECT without a page to map, NONE although real
 * controllers have to be told. Any CPU in root mode, no lock held.
 */
int pmem_set_mode(struct vm *vm, u32 number, u32 mode);

/*
 * From now until the VM's next life pmem_cut_within() makes an image and lets the VM go on: region
 * `in`, which nobody uses, becomes what region `of` would be found as. ERR_INVAL if these are no
 * models of the same size. The same region twice: no longer. Any CPU in root mode.
 */
int pmem_image_instead(struct vm *vm, u64 of, u64 in);

/*
 * Power fails, for a VM with modelled media and none of the host's (else ERR_INVAL): at once, or at
 * a moment within the next `ticks` of the TSC (0: never mind) that, like all else that happens by
 * chance from now on, follows from `seed`; with 0 the sequence goes on. See cut.c. Any CPU in root
 * mode.
 */
#define PMEM_CUT_MAX BIT64(48)
int pmem_cut(struct vm *vm);
int pmem_cut_within(struct vm *vm, u64 ticks, u64 seed);

/*
 * A power supply says that it is about to fail, for a VM with saved regions (else ERR_INVAL): the
 * VM stops where it is, they are saved with what energy is left (pmem_power_loss_sectors of the
 * configuration), memory is lost, and the VM starts again. pmem_power_fails(): the same for the
 * whole machine; the caller ends all VMs (vm_shut_down()).
 */
int pmem_power_loss(struct vm *vm);
void pmem_power_fails(void);

/*
 * Time for a modelled medium's queues to drain a little, or for its power to fail: now and then, on
 * the vCPU's CPU, at the latest when the host's TSC is pmem_deadline(). That changes with a
 * REQ_TIMER to vCPU 0.
 */
void pmem_tick(struct vcpu *vcpu, u64 now);
u64 pmem_deadline(const struct vm *vm);
