#include "lib/symbols.h"

#include "lib/string.h"

/* ELF-64 object file format, version 1.5 draft 2: only what a symbol table needs. */
struct elf_header {
	u8 ident[16];
	u16 type, machine;
	u32 version;
	u64 entry, phoff, shoff;
	u32 flags;
	u16 ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};

struct elf_section {
	u32 name, type;
	u64 flags, addr, offset, size;
	u32 link, info;
	u64 addralign, entsize;
};

struct elf_symbol {
	u32 name;
	u8 info, other;
	u16 shndx;
	u64 value, size;
};

_Static_assert(sizeof(struct elf_header) == 64, "ELF header layout");
_Static_assert(sizeof(struct elf_section) == 64, "ELF section header layout");
_Static_assert(sizeof(struct elf_symbol) == 24, "ELF symbol layout");

#define SHT_SYMTAB 2
#define SHT_STRTAB 3
#define STT_NOTYPE 0
#define STT_FUNC   2
#define SHF_EXEC   4

static const u8 *file_symbols, *file_strings, *file_start;
static struct elf_header file_header;
static u64 symbol_count, string_bytes;

static bool inside(u64 offset, u64 size, size_t bytes)
{
	return offset <= bytes && size <= bytes - offset;
}

static struct elf_section section_at(const u8 *file, const struct elf_header *h, u32 i)
{
	struct elf_section s;

	memcpy(&s, file + h->shoff + (u64)i * sizeof(s), sizeof(s));
	return s;
}

bool symbols_init(const void *elf, size_t bytes)
{
	static const u8 ident[] = {0x7f, 'E', 'L', 'F', 2, 1};
	struct elf_section sym, str;
	struct elf_header h;
	const u8 *file = elf;
	u32 i;

	symbol_count = 0;
	if (!inside(0, sizeof(h), bytes))
		return false;
	memcpy(&h, file, sizeof(h));
	if (memcmp(h.ident, ident, sizeof(ident)) != 0 || h.shentsize != sizeof(sym) ||
	    !inside(h.shoff, (u64)h.shnum * sizeof(sym), bytes))
		return false;
	for (i = 0; i < h.shnum; i++) {
		sym = section_at(file, &h, i);
		if (sym.type == SHT_SYMTAB)
			break;
	}
	if (i == h.shnum || sym.entsize != sizeof(struct elf_symbol) || sym.link >= h.shnum ||
	    !inside(sym.offset, sym.size, bytes))
		return false;
	str = section_at(file, &h, sym.link);
	if (str.type != SHT_STRTAB || !inside(str.offset, str.size, bytes) || !str.size ||
	    file[str.offset + str.size - 1])
		return false;
	file_start = file;
	file_header = h;
	file_symbols = file + sym.offset;
	file_strings = file + str.offset;
	string_bytes = str.size;
	symbol_count = sym.size / sizeof(struct elf_symbol);
	return true;
}

static bool in_code(u16 section)
{
	return section && section < file_header.shnum &&
	       section_at(file_start, &file_header, section).flags & SHF_EXEC;
}

const char *symbols_find(u64 addr, u64 *offset)
{
	const char *name = NULL;
	u64 best = 0;

	for (u64 i = 0; i < symbol_count; i++) {
		struct elf_symbol s;
		u32 type;

		memcpy(&s, file_symbols + i * sizeof(s), sizeof(s));
		type = s.info & 0xf;
		/* Labels of assembly code have no type and no size: the nearest one below counts,
		 * unless a sized function says that it has ended. */
		if ((type != STT_FUNC && type != STT_NOTYPE) || s.name >= string_bytes ||
		    !file_strings[s.name])
			continue;
		if (s.value > addr || s.value < best || !in_code(s.shndx))
			continue;
		if (s.size && addr - s.value >= s.size)
			continue;
		best = s.value;
		name = (const char *)file_strings + s.name;
	}
	if (name)
		*offset = addr - best;
	return name;
}
