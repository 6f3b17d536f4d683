"""Names of addresses in a guest's kernel: from its ELF symbol table, or a System.map beside it."""

import bisect
import pathlib
import re
import struct

SHT_SYMTAB = 2
STT_NOTYPE, STT_OBJECT, STT_FUNC = 0, 1, 2
FAR = 1 << 20  # no symbol names what lies further behind it


class Symbols:
    """Sorted [(address, name)]; `origin` says where they come from, for people."""

    def __init__(self, entries=(), origin=""):
        best = {}
        for address, name in entries:
            best.setdefault(address, name)
        self.entries, self.origin = sorted(best.items()), origin
        self.starts = [address for address, _ in self.entries]

    def __bool__(self):
        return bool(self.entries)

    def name(self, address):
        """`function+0x12`, or an empty string."""
        i = bisect.bisect_right(self.starts, address) - 1
        if i < 0 or address - self.starts[i] >= FAR:
            return ""
        offset = address - self.starts[i]
        return self.entries[i][1] + (f"+{offset:#x}" if offset else "")


def _section(data, offset, wide):
    if wide:
        _, kind, _, _, at, size, link, _, _, entry = struct.unpack_from("<IIQQQQIIQQ", data, offset)
    else:
        _, kind, _, _, at, size, link, _, _, entry = struct.unpack_from("<10I", data, offset)
    return kind, at, size, link, entry


def from_elf(data):
    """[(address, name)] of an ELF file's symbol table; empty if it has none or is no ELF file."""
    if data[:4] != b"\x7fELF" or len(data) < 64 or data[5] != 1:
        return []
    wide = data[4] == 2
    found = []
    try:
        shoff, = struct.unpack_from("<Q" if wide else "<I", data, 40 if wide else 32)
        size, count = struct.unpack_from("<HH", data, 58 if wide else 46)
        sections = [_section(data, shoff + i * size, wide) for i in range(count)]
        for kind, at, length, link, entry in sections:
            if kind != SHT_SYMTAB or not entry or link >= len(sections):
                continue
            _, names, names_size, _, _ = sections[link]
            for offset in range(at, at + length, entry):
                if wide:
                    name, info, _, section, value = struct.unpack_from("<IBBHQ", data, offset)
                else:
                    name, value, _, info, _, section = struct.unpack_from("<IIIBBH", data, offset)
                if section in (0, 0xfff1) or info & 15 not in (STT_NOTYPE, STT_FUNC):
                    continue
                if name >= names_size:
                    continue
                end = data.index(b"\0", names + name)
                text = data[names + name:end].decode(errors="replace")
                if text and not text.startswith((".", "$")):
                    found.append((info & 15 != STT_FUNC, value, text))
    except (struct.error, ValueError):
        return []
    return [(value, text) for _, value, text in sorted(found)]  # functions win


def from_map(text):
    """[(address, name)] of a System.map; Debian's stub, which refers to another package, has none."""
    found = []
    for line in text.splitlines():
        m = re.fullmatch(r"([0-9a-f]{8,16}) [tTwW] (\S+)", line)
        if m:
            found.append((int(m[1], 16), m[2]))
    return found


def load(kernel, cmdline=""):
    """Symbols of a guest's kernel file; without any, an empty table."""
    kernel = pathlib.Path(kernel)
    try:
        data = kernel.read_bytes()
    except OSError:
        return Symbols()
    if entries := from_elf(data):
        return Symbols(entries, f"symbol table of {kernel.name}")
    if data[0x202:0x206] == b"HdrS" and "nokaslr" not in cmdline.split():
        return Symbols()  # such a kernel moves itself to an address of its choice
    for path in sorted(kernel.parent.glob("System.map*")):
        try:
            if entries := from_map(path.read_text(errors="replace")):
                return Symbols(entries, path.name)
        except OSError:
            continue
    return Symbols()
