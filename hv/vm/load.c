/* Guest image loaders: choice of protocol, and what the protocols share. See load.h. */
#include "vm/load_internal.h"

#include "lib/log.h"
#include "lib/string.h"

/* The first megabyte as SeaBIOS describes it under QEMU. */
#define LOW_END	    0x9fc00ull /* extended BIOS data area from here */
#define EBDA_END    0xa0000ull
#define BIOS_BASE   0xe0000ull /* ACPI tables, then the BIOS */
#define HIGH_MEMORY 0x100000ull

int load_refuse(struct loader *l, int error, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	str_vprint(l->out->reason, sizeof(l->out->reason), fmt, ap);
	va_end(ap);
	return error;
}

/* Is [at, at + len) RAM? Says so without ever computing an address that wraps. */
static bool in_ram(const struct load_target *t, u64 at, u64 len)
{
	if (at < t->ram_low)
		return len <= t->ram_low - at;
	return at >= LOAD_HIGH_BASE && at - LOAD_HIGH_BASE <= t->ram_high &&
	       len <= t->ram_high - (at - LOAD_HIGH_BASE);
}

static int check_range(struct loader *l, u64 to, u64 len, const char *what)
{
	if (in_ram(l->target, to, len))
		return 0;
	return load_refuse(l, ERR_NOMEM,
			   "%s needs %#llx bytes at %#llx, which is not within the guest's RAM "
			   "(%llu MiB)",
			   what, (unsigned long long)len, (unsigned long long)to,
			   (unsigned long long)((l->target->ram_low + l->target->ram_high) / MIB));
}

int load_write(struct loader *l, u64 to, const void *src, u64 len, const char *what)
{
	int err;

	if (!len)
		return 0;
	err = check_range(l, to, len, what);
	if (err)
		return err;
	err = l->target->write(l->target->ctx, gpa(to), src, len);
	return err ? load_refuse(l, err, "%s could not be written to guest memory", what) : 0;
}

int load_zero(struct loader *l, u64 to, u64 len, const char *what)
{
	int err;

	if (!len)
		return 0;
	err = check_range(l, to, len, what);
	if (err)
		return err;
	err = l->target->zero(l->target->ctx, gpa(to), len);
	return err ? load_refuse(l, err, "%s could not be cleared in guest memory", what) : 0;
}

void load_occupy(struct loader *l, u64 base, u64 bytes)
{
	u64 end = base + bytes;

	if (!bytes)
		return;
	l->out->kernel_base = MIN(l->out->kernel_base, base);
	l->out->kernel_end = MAX(l->out->kernel_end, end);
	/* A kernel above 4 GiB leaves the room below it to the modules. */
	if (end <= LOAD_LOW_MAX)
		l->next = MAX(l->next, end);
}

int load_place(struct loader *l, u64 bytes, u64 *at, const char *what)
{
	u64 base = ALIGN_UP(l->next, PAGE_SIZE);

	if (base > l->target->ram_low || bytes > l->target->ram_low - base)
		return load_refuse(l, ERR_NOMEM,
				   "%s (%llu KiB) does not fit below %llu MiB of guest RAM", what,
				   (unsigned long long)(bytes + KIB - 1) / KIB,
				   (unsigned long long)(l->target->ram_low / MIB));
	*at = base;
	l->next = base + bytes;
	return 0;
}

int load_place_data(struct loader *l, const void *src, u64 bytes, u64 *at, const char *what)
{
	int err = load_place(l, bytes, at, what);

	return err ? err : load_write(l, *at, src, bytes, what);
}

int load_modules(struct loader *l, u64 at[BOOT_MAX_MODULES])
{
	for (u32 i = 0; i < l->req->module_count; i++) {
		const struct guest_image *m = &l->req->modules[i];
		int err = load_place_data(l, m->data, m->bytes, &at[i], m->name);

		if (err)
			return err;
	}
	return 0;
}

int load_join(struct loader *l, char *buf, u32 size, const char *name, const char *args)
{
	bool has_args = args && *args;
	int len = str_print(buf, size, "%s%s%s", name, has_args ? " " : "", has_args ? args : "");

	if (len >= 0 && (u32)len < size)
		return 0;
	return load_refuse(l, ERR_INVAL, "the command line is longer than %u bytes", size - 1);
}

u32 load_memory_map(const struct loader *l, struct map_entry map[MAP_MAX])
{
	const struct load_target *t = l->target;
	u32 n = 0;

	map[n++] = (struct map_entry){0, LOW_END, MAP_AVAILABLE};
	map[n++] = (struct map_entry){LOW_END, EBDA_END - LOW_END, MAP_RESERVED};
	map[n++] = (struct map_entry){BIOS_BASE, HIGH_MEMORY - BIOS_BASE, MAP_RESERVED};
	map[n++] = (struct map_entry){HIGH_MEMORY, t->ram_low - HIGH_MEMORY, MAP_AVAILABLE};
	if (t->ram_high)
		map[n++] = (struct map_entry){LOAD_HIGH_BASE, t->ram_high, MAP_AVAILABLE};
	return n;
}

static int load_auto(struct loader *l)
{
	const struct guest_image *k = &l->req->kernel;

	if (multiboot_find(k) >= 0)
		return multiboot_load(l);
	if (elf_magic(k))
		return pvh_load(l);
	if (linux_magic(k))
		return linux_load(l);
	return load_refuse(
		l, ERR_INVAL,
		"no Multiboot header in the first 8 KiB, not an ELF file, and not a Linux "
		"bzImage");
}

static int load_by_protocol(struct loader *l)
{
	switch (l->req->protocol) {
	case BOOT_PROTO_AUTO:
		return load_auto(l);
	case BOOT_PROTO_MULTIBOOT:
		return multiboot_load(l);
	case BOOT_PROTO_PVH:
		return pvh_load(l);
	case BOOT_PROTO_LINUX:
		return linux_load(l);
	default:
		return load_refuse(l, ERR_INVAL, "unknown boot protocol %u", l->req->protocol);
	}
}

int guest_load(const struct load_request *req, const struct load_target *target,
	       struct load_result *out)
{
	struct loader l = {.req = req, .target = target, .out = out, .next = HIGH_MEMORY};
	int err;

	memset(out, 0, sizeof(*out));
	out->kernel_base = ~(u64)0;
	if (req->module_count > BOOT_MAX_MODULES)
		return load_refuse(&l, ERR_INVAL, "more than %u modules", BOOT_MAX_MODULES);
	if (target->ram_low < 2 * MIB || target->ram_low > LOAD_LOW_MAX)
		return load_refuse(&l, ERR_INVAL, "the guest has less than 2 MiB of RAM");
	err = load_by_protocol(&l);
	if (!err)
		out->end = ALIGN_UP(l.next, PAGE_SIZE);
	return err;
}
