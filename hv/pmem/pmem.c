/* Persistent regions of VMs: see pmem.h. */
#include "pmem/pmem.h"

#include "lib/log.h"
#include "lib/string.h"
#include "mem/frame.h"
#include "pmem/nfit.h"
#include "pmem/nfit_layout.h"
#include "vm/load.h"
#include "vm/platform.h"
#include "vm/vm.h"
#include "vmx/vmx.h"
#include "x86/acpi.h"
#include "x86/cpu.h"
#include "x86/paging.h"

static const struct boot_info *machine;
static struct nfit host;		 /* empty without an NFIT, or with a bad one */
static u32 range_owner[NFIT_MAX_RANGES]; /* VM id + 1; VMs are created one after the other */
static struct vm_pmem *kept[BOOT_MAX_VMS];

/* Looking for what is dirty takes as long as the region is large. */
#define TICKS_PER_DRAIN 64

#define KEPT_BYTES ALIGN_UP(sizeof(struct vm_pmem), PAGE_SIZE)

/* --- the host -----------------------------------------------------------------------------------
 */

/* Memory that we, or firmware, use for something else. */
static bool in_use(u64 base, u64 bytes)
{
	for (u32 i = 0; i < machine->memory_count; i++) {
		const struct boot_range *r = &machine->memory[i];

		if (r->type != BOOT_MEM_PERSISTENT && r->type != BOOT_MEM_RESERVED &&
		    r->base < base + bytes && base < r->base + r->bytes)
			return true;
	}
	return false;
}

static bool hints_usable(void)
{
	for (u32 i = 0; i < host.hints; i++)
		for (u32 r = 0; r < machine->memory_count; r++)
			if (machine->memory[r].type != BOOT_MEM_MMIO &&
			    machine->memory[r].type != BOOT_MEM_RESERVED &&
			    host.hint[i] - machine->memory[r].base < machine->memory[r].bytes)
				return false;
	return true;
}

void pmem_init(const struct boot_info *boot)
{
	const struct acpi_header *table = acpi_find(hpa(boot->rsdp), "NFIT");
	const char *why;
	u32 where;

	machine = boot;
	memset(&host, 0, sizeof(host));
	memset(range_owner, 0, sizeof(range_owner));
	if (!table)
		return;
	if (nfit_parse(table, table->length, &host, &why, &where)) {
		log_warn("the firmware's NFIT is not used: at byte %u: %s", where, why);
		return;
	}
	if (!hints_usable()) {
		log_warn("the firmware's NFIT is not used: a flush hint lies in memory");
		memset(&host, 0, sizeof(host));
		return;
	}
	for (u32 i = 0; i < host.hints; i++)
		paging_map_mmio(hpa(host.hint[i] & PAGE_MASK), PAGE_SIZE, PAGING_UC);
	for (u32 i = 0; i < host.ranges; i++)
		if (host.range[i].kind == NFIT_PERSISTENT)
			log_info("NVDIMM range %u: %llu MiB at %#llx", host.range[i].index,
				 (unsigned long long)(host.range[i].bytes / MIB),
				 (unsigned long long)host.range[i].base);
	log_info("NVDIMM: %u flush hint%s", host.hints, host.hints == 1 ? "" : "s");
}

/* --- media --------------------------------------------------------------------------------------
 */

static int take_range(struct vm *vm, struct pmem_region *r, const struct boot_pmem *config)
{
	const char *name = vm->config->name;
	u32 n;

	for (n = 0; n < host.ranges; n++)
		if (host.range[n].index == config->range && host.range[n].kind == NFIT_PERSISTENT)
			break;
	if (n == host.ranges) {
		log_warn("vm %s: the host has no persistent range %u", name, config->range);
		return ERR_NODEV;
	}
	if (range_owner[n]) {
		log_warn("vm %s: persistent range %u belongs to another region", name,
			 config->range);
		return ERR_NODEV;
	}
	if (in_use(host.range[n].base, host.range[n].bytes)) {
		log_warn("vm %s: persistent range %u is in use as ordinary memory", name,
			 config->range);
		return ERR_NODEV;
	}
	if (medium_init_real(&r->medium, &host, &host.range[n], config->direct)) {
		log_warn("vm %s: persistent range %u has too many flush hints", name,
			 config->range);
		return ERR_NODEV;
	}
	range_owner[n] = vm->id + 1;
	r->range = n;
	paging_map_mmio(r->medium.base, r->medium.bytes, PAGING_WB);
	return 0;
}

/* RAM, cleared, as contiguous and aligned as its size deserves. */
static int take_frames(u64 bytes, hpa_t *out)
{
	int err = ERR_NOMEM;

	if (bytes >= SIZE_1G)
		err = frame_alloc(FRAME_HV, bytes, SIZE_1G, out);
	if (err && bytes >= SIZE_2M)
		err = frame_alloc(FRAME_HV, bytes, SIZE_2M, out);
	if (err && bytes < SIZE_2M)
		err = frame_alloc(FRAME_HV, bytes, PAGE_SIZE, out);
	if (!err)
		memset(phys_to_ptr(*out), 0, bytes);
	return err;
}

static int take_model(struct vm *vm, struct pmem_region *r, u64 bytes, u32 number)
{
	const struct boot_options *o = &machine->options;
	u64 map_bytes = ALIGN_UP(bytes / PAGE_SIZE, 64) / 8, *written = heap_alloc(map_bytes);
	hpa_t live, stored;

	if (!written)
		return ERR_NOMEM;
	if (take_frames(bytes, &live)) {
		heap_free(written, map_bytes);
		return ERR_NOMEM;
	}
	if (take_frames(bytes, &stored)) {
		frame_free(FRAME_HV, live, bytes);
		heap_free(written, map_bytes);
		return ERR_NOMEM;
	}
	medium_init_model(&r->medium, live, bytes, o->pmem_controllers,
			  o->pmem_seed + vm->id * PMEM_REGIONS + number, phys_to_ptr(stored),
			  written);
	return 0;
}

static int take_ram(struct pmem_region *r, u64 bytes)
{
	hpa_t frames;
	int err = take_frames(bytes, &frames);

	if (!err)
		medium_init_ram(&r->medium, frames, bytes);
	return err;
}

static int take_medium(struct vm *vm, struct pmem_region *r, u32 number)
{
	const struct boot_pmem *config = &vm->config->pmem[number];
	int err = ERR_INVAL;

	if (r->medium.kind)
		return 0;
	/* What does not persist is no NVDIMM: neither hints nor labels. */
	if (config->source != BOOT_PMEM_RAM && !r->hints.v && frame_alloc_page(FRAME_HV, &r->hints))
		return ERR_NOMEM;
	if (config->source != BOOT_PMEM_RAM && !r->labels.v) {
		err = take_frames(PMEM_LABELS_STRIDE, &r->labels);
		if (err)
			return err;
	}
	switch (config->source) {
	case BOOT_PMEM_HOST:
		err = take_range(vm, r, config);
		break;
	case BOOT_PMEM_RAM:
		err = take_ram(r, config->bytes);
		break;
	case BOOT_PMEM_MODEL:
		err = take_model(vm, r, config->bytes, number);
		break;
	}
	return err;
}

/* --- a VM's life --------------------------------------------------------------------------------
 */

static bool persists(const struct pmem_region *r)
{
	return r->medium.kind != MEDIUM_RAM;
}

static u32 best_mode(const struct medium *m)
{
	if (!m->controllers)
		return HC_PMEM_MODE_NONE;
	return m->direct.v ? HC_PMEM_MODE_DIRECT : HC_PMEM_MODE_TRAP;
}

static gpa_t hints_at(u32 number)
{
	return gpa(PMEM_HINTS_BASE + number * PMEM_HINTS_STRIDE);
}

static void map_hints(struct vm *vm, u32 number)
{
	struct pmem_region *r = &vm->pmem->region[number];
	gpa_t at = hints_at(number);

	if (r->mode == HC_PMEM_MODE_DIRECT)
		space_set_window(vm, at, r->medium.direct, EPT_R | EPT_W, EPT_UC);
	else if (r->mode == HC_PMEM_MODE_NONE)
		space_set_window(vm, at, r->hints, EPT_R | EPT_W, EPT_WB);
	else
		space_set_window(vm, at, r->hints, EPT_R, EPT_WB);
}

static int add_region(struct vm *vm, u32 number, gpa_t base)
{
	struct pmem_region *r = &vm->pmem->region[number];
	/* The model looks at dirty flags, which tell pages apart only if each has its own. */
	u64 leaf = r->medium.kind == MEDIUM_MODEL ? PAGE_SIZE : SIZE_1G;
	int err;

	r->base = base;
	err = space_add_pmem(vm, base, r->medium.bytes, r->medium.base, leaf, number);
	if (err || !persists(r))
		return err;
	err = space_add_window(vm, hints_at(number), PAGE_SIZE, number);
	if (!err)
		err = space_add_pmem(vm, gpa(PMEM_LABELS_BASE + number * PMEM_LABELS_STRIDE),
				     PMEM_LABELS_STRIDE, r->labels, PAGE_SIZE,
				     PMEM_REGIONS + number);
	if (!err)
		map_hints(vm, number);
	return err;
}

static void announce(const struct vm *vm, u32 number)
{
	static const char *const modes[] = {"needs no flush", "one flush hint, mapped through",
					    "flushes are passed on"};
	const struct pmem_region *r = &vm->pmem->region[number];

	log_info("vm %s: NVDIMM %u: %llu MiB at %#llx: %s; %s", vm->config->name, number,
		 (unsigned long long)(r->medium.bytes / MIB), (unsigned long long)r->base.v,
		 r->medium.kind == MEDIUM_REAL ? "of the host"
		 : r->medium.kind == MEDIUM_MODEL
			 ? "modelled, lost when the machine is switched off"
			 : "lent RAM, VOLATILE: lost when the machine is "
			   "switched off",
		 modes[r->mode]);
}

int pmem_create(struct vm *vm)
{
	u32 count = vm->config->pmem_count;
	bool first = !kept[vm->id];
	u64 low, high, base;
	int err = 0;

	if (!count)
		return 0;
	if (first)
		kept[vm->id] = heap_alloc(KEPT_BYTES);
	if (!kept[vm->id])
		return ERR_NOMEM;
	vm->pmem = kept[vm->id];
	load_split_ram(vm->config->memory, &low, &high);
	base = ALIGN_UP(LOAD_HIGH_BASE + high, SIZE_1G);
	for (u32 i = 0; !err && i < count; i++) {
		struct pmem_region *r = &vm->pmem->region[i];

		err = take_medium(vm, r, i);
		if (err)
			break;
		r->mode = best_mode(&r->medium);
		vm->pmem->count = i + 1;
		err = add_region(vm, i, gpa(base));
		base = ALIGN_UP(base + r->medium.bytes, SIZE_1G);
		if (!err && first)
			announce(vm, i);
	}
	return err;
}

u32 pmem_device_map(const struct vm *vm)
{
	u32 map = 0;

	for (u32 i = 0; vm->pmem && i < vm->pmem->count; i++)
		if (persists(&vm->pmem->region[i]))
			map |= BIT(i);
	return map;
}

u32 pmem_nfit(const struct vm *vm, u8 out[VNFIT_MAX])
{
	struct vnfit_region region[PMEM_REGIONS];
	u32 caps = pmem_device_map(vm) ? NFIT_CAP_CACHE_FLUSH | NFIT_CAP_MEMORY_FLUSH : 0;

	if (!vm->pmem)
		return 0;
	for (u32 i = 0; i < vm->pmem->count; i++) {
		const struct pmem_region *r = &vm->pmem->region[i];

		region[i] = (struct vnfit_region){r->base.v, r->medium.bytes, persists(r),
						  hints_at(i).v, vm->id << 8 | i};
		if (persists(r))
			caps &= r->medium.caps;
	}
	return vnfit_build(region, vm->pmem->count, caps, out);
}

/* --- flushing -----------------------------------------------------------------------------------
 */

static void note_dirty(void *ctx, gpa_t at, const struct ept_leaf *leaf)
{
	struct pmem_region *r = ctx;

	if (leaf->dirty)
		medium_written(&r->medium, at.v - r->base.v, 1ull << leaf->shift);
}

/*
 * Tells the model which pages may have been written to. When the flags have been cleared everywhere
 * what is written from now on sets them anew; what was written before is in memory.
 */
static void collect(struct vm *vm, struct pmem_region *r)
{
	if (r->medium.kind != MEDIUM_MODEL)
		return;
	if (ept_harvest(&vm->space.view, r->base, r->medium.bytes, note_dirty, r))
		medium_written(&r->medium, 0, r->medium.bytes);
	else
		ept_sync(&vm->space.view, this_cpu()->index, cpu_count);
}

static struct pmem_region *region_of(struct vm *vm, u64 number)
{
	return vm->pmem && number < vm->pmem->count ? &vm->pmem->region[number] : NULL;
}

void pmem_window_write(struct vcpu *vcpu, u32 number, u64 offset, const void *from, size_t bytes)
{
	struct pmem_region *r = region_of(vcpu->vm, number);

	if (!r || !r->hints.v || offset >= PAGE_SIZE || bytes > PAGE_SIZE - offset)
		return;
	/* What was stored is seen by who reads the page, as with the page mapped. */
	memcpy((u8 *)phys_to_ptr(r->hints) + offset, from, bytes);
	__atomic_add_fetch(&r->writes, 1, __ATOMIC_RELAXED);
	collect(vcpu->vm, r);
	medium_flush(&r->medium);
}

void pmem_window_read(struct vcpu *vcpu, u32 number, u64 offset, void *to, size_t bytes)
{
	struct pmem_region *r = region_of(vcpu->vm, number);

	memset(to, 0xff, bytes);
	if (r && r->hints.v && offset < PAGE_SIZE && bytes <= PAGE_SIZE - offset)
		memcpy(to, (const u8 *)phys_to_ptr(r->hints) + offset, bytes);
}

void pmem_written(struct vm *vm, u32 number, u64 offset, u64 bytes)
{
	struct pmem_region *r = region_of(vm, number); /* not for label areas */

	if (r)
		medium_written(&r->medium, offset, bytes);
}

int pmem_set_mode(struct vm *vm, u32 number, u32 mode)
{
	struct pmem_region *r = region_of(vm, number);

	if (!r || mode > HC_PMEM_MODE_TRAP)
		return ERR_INVAL;
	if (mode == HC_PMEM_MODE_DIRECT && !r->medium.direct.v)
		return ERR_INVAL;
	if (mode == HC_PMEM_MODE_NONE && r->medium.controllers && r->medium.kind != MEDIUM_MODEL)
		return ERR_INVAL;
	__atomic_store_n(&r->mode, mode, __ATOMIC_RELAXED);
	map_hints(vm, number);
	return 0;
}

void pmem_tick(struct vm *vm)
{
	if (!vm->pmem ||
	    __atomic_add_fetch(&vm->pmem->ticks, 1, __ATOMIC_RELAXED) % TICKS_PER_DRAIN)
		return;
	for (u32 i = 0; i < vm->pmem->count; i++) {
		collect(vm, &vm->pmem->region[i]);
		medium_drain(&vm->pmem->region[i].medium);
	}
}

void pmem_stop(struct vm *vm)
{
	if (!vm->pmem)
		return;
	for (u32 i = 0; i < vm->pmem->count; i++) {
		struct pmem_region *r = &vm->pmem->region[i];

		collect(vm, r);
		if (vm->pmem->cut)
			medium_cut(&r->medium);
		/* A guest that does nothing but restart fills no log. */
		if (r->medium.controllers && !vm->restart)
			log_info("vm %s: NVDIMM %u: %llu stores to its hints, %llu flushes of "
				 "controller 0 of %u",
				 vm->config->name, i, (unsigned long long)r->writes,
				 (unsigned long long)r->medium.flushes[0], r->medium.controllers);
	}
	vm->pmem->cut = 0;
}

/* --- HC_PMEM ------------------------------------------------------------------------------------
 */

static s64 cut_power(struct vm *vm)
{
	for (u32 i = 0; i < vm->pmem->count; i++)
		if (vm->pmem->region[i].medium.kind == MEDIUM_REAL)
			return HC_EINVAL;
	__atomic_store_n(&vm->pmem->cut, 1, __ATOMIC_RELAXED);
	vm_restart(vm, "modelled power failure");
	return 0;
}

s64 pmem_hypercall(struct vcpu *vcpu, u64 what, u64 number, u64 argument)
{
	struct vm *vm = vcpu->vm;
	struct pmem_region *r = region_of(vm, number);

	if (what == HC_PMEM_REGIONS)
		return vm->pmem ? vm->pmem->count : 0;
	if (!r)
		return HC_EINVAL;
	switch (what) {
	case HC_PMEM_MODE:
		return __atomic_load_n(&r->mode, __ATOMIC_RELAXED);
	case HC_PMEM_SET_MODE:
		return argument <= HC_PMEM_MODE_TRAP &&
				       !pmem_set_mode(vm, (u32)number, (u32)argument)
			       ? 0
			       : HC_EINVAL;
	case HC_PMEM_CONTROLLERS:
		return r->medium.controllers;
	case HC_PMEM_FLUSHES:
		return argument < r->medium.controllers
			       ? (s64)__atomic_load_n(&r->medium.flushes[argument],
						      __ATOMIC_RELAXED)
			       : HC_EINVAL;
	case HC_PMEM_WRITES:
		return (s64)__atomic_load_n(&r->writes, __ATOMIC_RELAXED);
	case HC_PMEM_PENDING:
		collect(vm, r);
		return (s64)medium_pending(&r->medium);
	case HC_PMEM_DRAIN:
		collect(vm, r);
		medium_drain(&r->medium);
		return 0;
	case HC_PMEM_CUT:
		return cut_power(vm);
	case HC_PMEM_KIND:
		return r->medium.kind;
	}
	return HC_EINVAL;
}

_Static_assert((int)MEDIUM_REAL == HC_PMEM_KIND_HOST && (int)MEDIUM_RAM == HC_PMEM_KIND_RAM &&
		       (int)MEDIUM_MODEL == HC_PMEM_KIND_MODEL,
	       "kinds are told as they are");
_Static_assert(PMEM_REGIONS == BOOT_MAX_PMEM, "boot_info.h");
