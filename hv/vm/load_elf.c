/* ELF for guest kernels: both classes, x86 machines, untrusted files. */
#include "lib/string.h"
#include "vm/load_internal.h"

/* System V gABI, chapters 4 and 5. */
struct elf32_header {
	u8 ident[16];
	u16 type, machine;
	u32 version, entry, phoff, shoff, flags;
	u16 ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};
_Static_assert(sizeof(struct elf32_header) == 52, "Elf32_Ehdr");

struct elf64_header {
	u8 ident[16];
	u16 type, machine;
	u32 version;
	u64 entry, phoff, shoff;
	u32 flags;
	u16 ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};
_Static_assert(sizeof(struct elf64_header) == 64, "Elf64_Ehdr");

struct elf32_phdr {
	u32 type, offset, vaddr, paddr, filesz, memsz, flags, align;
};
_Static_assert(sizeof(struct elf32_phdr) == 32, "Elf32_Phdr");

struct elf64_phdr {
	u32 type, flags;
	u64 offset, vaddr, paddr, filesz, memsz, align;
};
_Static_assert(sizeof(struct elf64_phdr) == 56, "Elf64_Phdr");

struct elf_note {
	u32 namesz, descsz, type;
};
_Static_assert(sizeof(struct elf_note) == 12, "Elf_Nhdr");

#define IDENT_CLASS   4
#define IDENT_DATA    5
#define CLASS_32      1
#define CLASS_64      2
#define DATA_LSB      1
#define TYPE_EXEC     2
#define TYPE_DYN      3
#define MACHINE_386   3
#define MACHINE_AMD64 62
#define PT_LOAD	      1
#define PT_NOTE	      4
#define PF_EXECUTE    1
#define MAX_PHDRS     128 /* far beyond any kernel; bounds the work */

bool elf_magic(const struct guest_image *image)
{
	return image->bytes >= 4 && memcmp(image->data, "\177ELF", 4) == 0;
}

static bool within(u64 offset, u64 len, u64 bytes)
{
	return offset <= bytes && len <= bytes - offset;
}

static int open_32(struct loader *l, struct elf_image *elf, u16 *type, u16 *machine)
{
	struct elf32_header h;

	if (elf->bytes < sizeof(h))
		return load_refuse(l, ERR_INVAL, "the file ends within the ELF header");
	memcpy(&h, elf->data, sizeof(h));
	elf->entry = h.entry;
	elf->ph_offset = h.phoff;
	elf->ph_count = h.phnum;
	elf->ph_size = h.phentsize;
	*type = h.type;
	*machine = h.machine;
	return 0;
}

static int open_64(struct loader *l, struct elf_image *elf, u16 *type, u16 *machine)
{
	struct elf64_header h;

	if (elf->bytes < sizeof(h))
		return load_refuse(l, ERR_INVAL, "the file ends within the ELF header");
	memcpy(&h, elf->data, sizeof(h));
	elf->entry = h.entry;
	elf->ph_offset = h.phoff;
	elf->ph_count = h.phnum;
	elf->ph_size = h.phentsize;
	*type = h.type;
	*machine = h.machine;
	return 0;
}

int elf_open(struct loader *l, struct elf_image *elf)
{
	const struct guest_image *k = &l->req->kernel;
	u16 type = 0, machine = 0;
	u32 wanted;
	int err;

	*elf = (struct elf_image){.data = k->data, .bytes = k->bytes};
	if (!elf_magic(k) || k->bytes < 16)
		return load_refuse(l, ERR_INVAL, "not an ELF file");
	if (k->data[IDENT_DATA] != DATA_LSB)
		return load_refuse(l, ERR_INVAL, "the ELF file is not little-endian");
	if (k->data[IDENT_CLASS] != CLASS_32 && k->data[IDENT_CLASS] != CLASS_64)
		return load_refuse(l, ERR_INVAL, "the ELF class is %u, neither 32 nor 64 bits",
				   k->data[IDENT_CLASS]);
	elf->is64 = k->data[IDENT_CLASS] == CLASS_64;
	err = elf->is64 ? open_64(l, elf, &type, &machine) : open_32(l, elf, &type, &machine);
	if (err)
		return err;
	if (type != TYPE_EXEC && type != TYPE_DYN)
		return load_refuse(l, ERR_INVAL, "the ELF file is not executable (type %u)", type);
	if (machine != MACHINE_386 && machine != MACHINE_AMD64)
		return load_refuse(l, ERR_INVAL, "the ELF file is not for x86 (machine %u)",
				   machine);
	wanted = elf->is64 ? sizeof(struct elf64_phdr) : sizeof(struct elf32_phdr);
	if (elf->ph_count && elf->ph_size != wanted)
		return load_refuse(l, ERR_INVAL, "ELF program headers have %u bytes instead of %u",
				   elf->ph_size, wanted);
	if (elf->ph_count > MAX_PHDRS)
		return load_refuse(l, ERR_INVAL, "more than %u ELF program headers", MAX_PHDRS);
	if (!within(elf->ph_offset, (u64)elf->ph_count * wanted, elf->bytes))
		return load_refuse(l, ERR_INVAL,
				   "the ELF program headers lie outside the file (truncated?)");
	elf->anywhere = type == TYPE_DYN;
	return 0;
}

/* The i-th program header, widened to the 64-bit form. */
static struct elf64_phdr phdr_get(const struct elf_image *elf, u32 i)
{
	const u8 *at = elf->data + elf->ph_offset + (u64)i * elf->ph_size;
	struct elf64_phdr wide;
	struct elf32_phdr narrow;

	if (elf->is64) {
		memcpy(&wide, at, sizeof(wide));
		return wide;
	}
	memcpy(&narrow, at, sizeof(narrow));
	return (struct elf64_phdr){.type = narrow.type,
				   .flags = narrow.flags,
				   .offset = narrow.offset,
				   .vaddr = narrow.vaddr,
				   .paddr = narrow.paddr,
				   .filesz = narrow.filesz,
				   .memsz = narrow.memsz,
				   .align = narrow.align};
}

bool elf_span(const struct elf_image *elf, u64 *low, u64 *end)
{
	*low = ~(u64)0;
	*end = 0;
	for (u32 i = 0; i < elf->ph_count; i++) {
		struct elf64_phdr p = phdr_get(elf, i);

		if (p.type != PT_LOAD || !p.memsz)
			continue;
		*low = MIN(*low, p.paddr);
		*end = MAX(*end, p.memsz <= ~p.paddr ? p.paddr + p.memsz : ~(u64)0);
	}
	return *end != 0;
}

static int load_segment(struct loader *l, const struct elf_image *elf, u32 i,
			const struct elf64_phdr *p)
{
	u64 to = p->paddr + elf->move;
	int err;

	if (p->filesz > p->memsz)
		return load_refuse(l, ERR_INVAL,
				   "ELF segment %u has more bytes in the file than in memory", i);
	if (!within(p->offset, p->filesz, elf->bytes))
		return load_refuse(l, ERR_INVAL,
				   "ELF segment %u lies outside the file (truncated?)", i);
	if (to < p->paddr || to + p->memsz < to)
		return load_refuse(l, ERR_INVAL, "ELF segment %u wraps around the address space",
				   i);
	err = load_write(l, to, elf->data + p->offset, p->filesz, "an ELF segment");
	if (!err)
		err = load_zero(l, to + p->filesz, p->memsz - p->filesz, "an ELF segment");
	if (!err)
		load_occupy(l, to, p->memsz);
	return err;
}

int elf_load(struct loader *l, const struct elf_image *elf, u64 *entry)
{
	u32 loaded = 0;

	*entry = elf->entry;
	for (u32 i = 0; i < elf->ph_count; i++) {
		struct elf64_phdr p = phdr_get(elf, i);
		int err;

		if (p.type != PT_LOAD || !p.memsz)
			continue;
		err = load_segment(l, elf, i, &p);
		if (err)
			return err;
		loaded++;
		/* An entry point given as a virtual address of a kernel linked elsewhere. */
		if (p.vaddr != p.paddr && (p.flags & PF_EXECUTE) && elf->entry >= p.vaddr &&
		    elf->entry - p.vaddr < p.memsz)
			*entry = elf->entry - p.vaddr + p.paddr;
	}
	if (!loaded)
		return load_refuse(l, ERR_INVAL, "the ELF file has no segment to load");
	*entry += elf->move;
	return 0;
}

/* Walks one PT_NOTE segment; returns as elf_find_note(). */
static int find_in_segment(struct loader *l, const u8 *notes, u64 bytes, u64 align,
			   const char *name, u32 type, u64 *value)
{
	u64 name_len = strlen(name) + 1;
	u64 at = 0;

	/* Notes are aligned to 4 bytes; to 8 only in segments that say so. */
	align = align == 8 ? 8 : 4;
	while (within(at, sizeof(struct elf_note), bytes)) {
		struct elf_note n;
		u64 desc;

		memcpy(&n, notes + at, sizeof(n));
		desc = ALIGN_UP(at + sizeof(n) + n.namesz, align);
		if (!within(at + sizeof(n), n.namesz, bytes) || !within(desc, n.descsz, bytes))
			return load_refuse(l, ERR_INVAL, "an ELF note is longer than its segment");
		if (n.type == type && n.namesz == name_len &&
		    memcmp(notes + at + sizeof(n), name, name_len) == 0) {
			if (n.descsz < 4)
				return load_refuse(
					l, ERR_INVAL,
					"the ELF note with the entry point is too short");
			*value = 0;
			memcpy(value, notes + desc, n.descsz >= 8 ? 8 : 4);
			return 1;
		}
		at = ALIGN_UP(desc + n.descsz, align);
	}
	return 0;
}

int elf_find_note(struct loader *l, const struct elf_image *elf, const char *name, u32 type,
		  u64 *value)
{
	for (u32 i = 0; i < elf->ph_count; i++) {
		struct elf64_phdr p = phdr_get(elf, i);
		int found;

		if (p.type != PT_NOTE)
			continue;
		if (!within(p.offset, p.filesz, elf->bytes))
			return load_refuse(l, ERR_INVAL,
					   "ELF note segment %u lies outside the file (truncated?)",
					   i);
		found = find_in_segment(l, elf->data + p.offset, p.filesz, p.align, name, type,
					value);
		if (found)
			return found;
	}
	return 0;
}
