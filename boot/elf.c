#include "elf.h"

#include "text.h"

struct elf_header {
	u8 ident[16];
	u16 type, machine;
	u32 version;
	u64 entry, phoff, shoff;
	u32 flags;
	u16 ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};

struct elf_segment {
	u32 type, flags;
	u64 offset, vaddr, paddr, filesz, memsz, align;
};

_Static_assert(sizeof(struct elf_header) == 64, "Elf64_Ehdr");
_Static_assert(sizeof(struct elf_segment) == 56, "Elf64_Phdr");

#define ET_EXEC	   2
#define EM_X86_64  62
#define PT_LOAD	   1
#define PT_DYNAMIC 2
#define PT_INTERP  3
#define PF_X	   1

/* Program headers need not be aligned in the file: they are copied out. */
static void segment_at(const void *file, const struct elf_header *h, unsigned int i,
		       struct elf_segment *out)
{
	const u8 *from = (const u8 *)file + h->phoff + i * sizeof(*out);
	u8 *to = (u8 *)out;
	size_t n;

	for (n = 0; n < sizeof(*out); n++)
		to[n] = from[n];
}

static void header_of(const void *file, struct elf_header *out)
{
	const u8 *from = file;
	u8 *to = (u8 *)out;
	size_t n;

	for (n = 0; n < sizeof(*out); n++)
		to[n] = from[n];
}

static bool is_elf64(const struct elf_header *h)
{
	return h->ident[0] == 0x7f && h->ident[1] == 'E' && h->ident[2] == 'L' &&
	       h->ident[3] == 'F' && h->ident[4] == 2 && h->ident[5] == 1 && h->ident[6] == 1;
}

static const char *check_header(const struct elf_header *h, size_t size)
{
	if (!is_elf64(h))
		return "is not an ELF64 file";
	if (h->machine != EM_X86_64)
		return "is not for x86-64";
	if (h->type != ET_EXEC)
		return "is not a statically linked executable (ET_EXEC)";
	if (h->phentsize != sizeof(struct elf_segment))
		return "has program headers of an unknown size";
	if (!h->phnum || h->phnum > ELF_MAX_SEGMENTS)
		return "has no program headers, or too many";
	if (h->phoff > size || size - h->phoff < h->phnum * sizeof(struct elf_segment))
		return "is truncated: its program headers lie beyond its end";
	return NULL;
}

static const char *check_segment(const struct elf_segment *s, size_t size)
{
	if (s->type == PT_INTERP || s->type == PT_DYNAMIC)
		return "needs a dynamic linker";
	if (s->type != PT_LOAD)
		return NULL;
	if (s->filesz > s->memsz)
		return "is larger in the file than in memory";
	if (s->offset > size || s->filesz > size - s->offset)
		return "lies beyond the end of the file: it is truncated";
	if (s->vaddr < ELF_IMAGE_LOWEST)
		return "lies below 0xffffffff80000000";
	if (s->memsz > ~0ull - s->vaddr)
		return "wraps around the end of the address space";
	return NULL;
}

static bool overlap(const struct elf_segment *a, const struct elf_segment *b)
{
	return a->type == PT_LOAD && b->type == PT_LOAD && a->vaddr < b->vaddr + b->memsz &&
	       b->vaddr < a->vaddr + a->memsz;
}

int elf_check(const void *file, size_t size, struct elf_image *image, char *why, size_t why_size)
{
	struct elf_segment segment[ELF_MAX_SEGMENTS];
	u64 low = ~0ull, high = 0;
	bool entry_found = false;
	struct elf_header h;
	const char *wrong;
	unsigned int i, j;

	if (size < sizeof(h)) {
		text_print(why, why_size, "is too short for an ELF file (%llu bytes)",
			   (unsigned long long)size);
		return ERR_INVAL;
	}
	header_of(file, &h);
	wrong = check_header(&h, size);
	if (wrong) {
		text_print(why, why_size, "%s", wrong);
		return ERR_INVAL;
	}
	for (i = 0; i < h.phnum; i++) {
		struct elf_segment *s = &segment[i];

		segment_at(file, &h, i, s);
		wrong = check_segment(s, size);
		for (j = 0; !wrong && j < i; j++)
			if (overlap(s, &segment[j]))
				wrong = "overlaps another segment";
		if (wrong) {
			text_print(why, why_size, "is refused: segment %u %s", i, wrong);
			return ERR_INVAL;
		}
		if (s->type != PT_LOAD || !s->memsz)
			continue;
		low = MIN(low, s->vaddr);
		high = MAX(high, s->vaddr + s->memsz);
		if ((s->flags & PF_X) && h.entry >= s->vaddr && h.entry - s->vaddr < s->memsz)
			entry_found = true;
	}
	if (!entry_found) {
		text_print(why, why_size,
			   "is refused: its entry point is in no executable segment");
		return ERR_INVAL;
	}
	image->virt = ALIGN_DOWN(low, SIZE_2M);
	if (high - image->virt > ELF_IMAGE_MAX_BYTES) {
		text_print(why, why_size,
			   "is refused: its image takes %llu KiB, the limit is %llu KiB",
			   (high - image->virt) / KIB, ELF_IMAGE_MAX_BYTES / KIB);
		return ERR_INVAL;
	}
	image->bytes = ALIGN_UP(high - image->virt, PAGE_SIZE);
	image->entry = h.entry;
	return 0;
}

void elf_load(const void *file, const struct elf_image *image, void *to)
{
	struct elf_segment s;
	struct elf_header h;
	unsigned int i;

	__builtin_memset(to, 0, image->bytes);
	header_of(file, &h);
	for (i = 0; i < h.phnum; i++) {
		segment_at(file, &h, i, &s);
		if (s.type == PT_LOAD)
			__builtin_memcpy((u8 *)to + (s.vaddr - image->virt),
					 (const u8 *)file + s.offset, s.filesz);
	}
}
