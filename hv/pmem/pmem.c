/* Persistent regions of VMs: see pmem.h. */
#include "pmem/pmem.h"

#include "lib/log.h"
#include "lib/string.h"
#include "mem/frame.h"
#include "pmem/backing.h"
#include "pmem/internal.h"
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
static bool power_fails; /* atomic: the machine's */

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
	power_fails = false;
	backing_init(boot);
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

static int take_model(struct vm *vm, struct pmem_region *r, const struct boot_pmem *config,
		      u32 number)
{
	const struct boot_options *o = &machine->options;
	u32 controllers = config->controllers ? config->controllers : o->pmem_controllers;
	u64 bytes = config->bytes;
	u64 pages = bytes / PAGE_SIZE, marks = ALIGN_UP(marks_bytes(pages), PAGE_SIZE);
	u8 *written = heap_alloc(2 * marks);
	hpa_t live, stored, direct;

	if (!written)
		return ERR_NOMEM;
	if (frame_alloc_page(FRAME_HV, &direct)) {
		heap_free(written, 2 * marks);
		return ERR_NOMEM;
	}
	if (take_frames(bytes, &live)) {
		frame_free(FRAME_HV, direct, PAGE_SIZE);
		heap_free(written, 2 * marks);
		return ERR_NOMEM;
	}
	if (take_frames(bytes, &stored)) {
		frame_free(FRAME_HV, live, bytes);
		frame_free(FRAME_HV, direct, PAGE_SIZE);
		heap_free(written, 2 * marks);
		return ERR_NOMEM;
	}
	medium_init_model(&r->medium, live, bytes, controllers,
			  o->pmem_seed + vm->id * PMEM_REGIONS + number, phys_to_ptr(stored),
			  written);
	r->medium.direct = direct;
	marks_init(&r->opened, written + marks, pages);
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

/* Without one it stays volatile. */
static void take_backing(struct vm *vm, struct pmem_region *r, u32 number)
{
	r->backing = backing_create(vm, number, r->medium.bytes, phys_to_ptr(r->medium.base),
				    phys_to_ptr(r->labels), PMEM_LABELS_STRIDE);
	if (r->backing)
		r->medium.caps = NFIT_CAP_CACHE_FLUSH | NFIT_CAP_MEMORY_FLUSH;
}

static bool may_persist(const struct boot_pmem *config)
{
	return config->source != BOOT_PMEM_RAM || config->saved;
}

static int take_medium(struct vm *vm, struct pmem_region *r, u32 number)
{
	const struct boot_pmem *config = &vm->config->pmem[number];
	int err = ERR_INVAL;

	if (r->medium.kind)
		return 0;
	/* What does not persist is no NVDIMM: neither hints nor labels. */
	if (may_persist(config) && !r->hints.v && frame_alloc_page(FRAME_HV, &r->hints))
		return ERR_NOMEM;
	if (may_persist(config) && !r->labels.v) {
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
		if (!err && config->saved)
			take_backing(vm, r, number);
		break;
	case BOOT_PMEM_MODEL:
		err = take_model(vm, r, config, number);
		break;
	}
	return err;
}

/* --- a VM's life --------------------------------------------------------------------------------
 */

static bool persists(const struct pmem_region *r)
{
	return r->medium.kind != MEDIUM_RAM || r->backing;
}

static u32 best_mode(const struct medium *m)
{
	if (!m->controllers)
		return HC_PMEM_MODE_NONE;
	return m->direct.v && m->kind == MEDIUM_REAL ? HC_PMEM_MODE_DIRECT : HC_PMEM_MODE_TRAP;
}

static int add_region(struct vm *vm, u32 number, gpa_t base)
{
	struct pmem_region *r = &vm->pmem->region[number];
	bool model = r->medium.kind == MEDIUM_MODEL;
	gpa_t labels = gpa(PMEM_LABELS_BASE + number * PMEM_LABELS_STRIDE);
	int err;

	r->base = base;
	err = space_add_pmem(vm, base, r->medium.bytes, r->medium.base,
			     model || r->backing ? PAGE_SIZE : SIZE_1G, number);
	if (!err && model)
		space_track_pmem(vm, base, &r->opened);
	if (err || !persists(r))
		return err;
	err = space_add_window(vm, pmem_hints_at(number), PAGE_SIZE, number);
	if (!err)
		err = space_add_pmem(vm, labels, PMEM_LABELS_STRIDE, r->labels, PAGE_SIZE,
				     PMEM_REGIONS + number);
	if (!err)
		pmem_map_hints(vm, number);
	/* Not armed, it runs all the same, and says so in the NFIT. */
	if (!err && r->backing)
		backing_start(vm, r->backing, base, labels);
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
		 : r->backing		       ? "lent RAM, saved to a partition"
		 : r->medium.kind == MEDIUM_MODEL
			 ? "modelled, lost when the machine is switched off"
			 : "lent RAM, VOLATILE: lost when the machine is "
			   "switched off",
		 modes[r->mode]);
}

/* For stores to the hint pages that the emulator does not know. */
static int make_overlays(struct vm *vm)
{
	int err = 0;

	for (u32 i = 0; pmem_device_map(vm) && !err && i < vm->vcpu_count; i++)
		err = ept_overlay_init(&vm->space.view, &vm->vcpu[i]->step.overlay);
	return err;
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
	if (first)
		pmem_cut_init(vm, &machine->options);
	vm->pmem->cut_at = PMEM_NEVER;
	vm->pmem->begun = false;
	vm->pmem->image_in = vm->pmem->image_of;
	load_split_ram(vm->config->memory, &low, &high);
	base = ALIGN_UP(LOAD_HIGH_BASE + high, SIZE_1G);
	for (u32 i = 0; !err && i < count; i++) {
		struct pmem_region *r = &vm->pmem->region[i];

		err = take_medium(vm, r, i);
		if (err)
			break;
		r->mode = best_mode(&r->medium);
		medium_set_direct(&r->medium, false);
		vm->pmem->count = i + 1;
		err = add_region(vm, i, gpa(base));
		base = ALIGN_UP(base + r->medium.bytes, SIZE_1G);
		if (!err && first)
			announce(vm, i);
	}
	if (!err)
		err = make_overlays(vm);
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

		region[i] =
			(struct vnfit_region){.base = r->base.v,
					      .bytes = r->medium.bytes,
					      .persists = persists(r),
					      .hints = pmem_hints_at(i).v,
					      .state = r->backing ? backing_state(r->backing) : 0,
					      .serial = vm->id << 8 | i};
		if (persists(r))
			caps &= r->medium.caps;
	}
	return vnfit_build(region, vm->pmem->count, caps, out);
}

static void log_flushes(const struct vm *vm, u32 number)
{
	const struct pmem_region *r = &vm->pmem->region[number];
	char text[MEDIUM_CONTROLLERS * 12];
	size_t at = 0;

	for (u32 c = 0; c < r->medium.controllers && at < sizeof(text); c++)
		at += str_print(text + at, sizeof(text) - at, " %llu",
				(unsigned long long)r->medium.flushes[c]);
	log_info("vm %s: NVDIMM %u: %llu stores to its hints, flushes of its %u controller%s:%s",
		 vm->config->name, number, (unsigned long long)r->writes, r->medium.controllers,
		 r->medium.controllers == 1 ? "" : "s", text);
}

void pmem_save(struct vm *vm)
{
	for (u32 i = 0; vm->pmem && i < vm->pmem->count; i++)
		if (vm->pmem->region[i].backing)
			backing_stop(vm, vm->pmem->region[i].backing, i,
				     vm->pmem->loss || power_fails);
}

void pmem_stop(struct vm *vm)
{
	if (!vm->pmem)
		return;
	for (u32 i = 0; i < vm->vcpu_count; i++)
		if (vm->vcpu[i])
			ept_overlay_destroy(&vm->space.view, &vm->vcpu[i]->step.overlay);
	pmem_save(vm);
	for (u32 i = 0; i < vm->pmem->count; i++) {
		struct pmem_region *r = &vm->pmem->region[i];

		pmem_collect(vm, r);
		if (vm->pmem->cut)
			medium_cut(&r->medium);
		medium_unlock(&r->medium);
		/* A guest that does nothing but restart fills no log. */
		if (r->medium.controllers && !vm->restart)
			log_flushes(vm, i);
	}
	vm->pmem->cuts += vm->pmem->cut;
	vm->pmem->cut = 0;
	vm->pmem->loss = 0;
	vm->pmem->cut_at = PMEM_NEVER;
}

int pmem_power_loss(struct vm *vm)
{
	for (u32 i = 0; vm->pmem && i < vm->pmem->count; i++) {
		if (!vm->pmem->region[i].backing)
			continue;
		__atomic_store_n(&vm->pmem->loss, 1, __ATOMIC_RELAXED);
		vm_restart(vm, "modelled power failure");
		return 0;
	}
	return ERR_INVAL;
}

void pmem_power_fails(void)
{
	__atomic_store_n(&power_fails, true, __ATOMIC_RELAXED);
}

_Static_assert(PMEM_REGIONS == BOOT_MAX_PMEM, "boot_info.h");
