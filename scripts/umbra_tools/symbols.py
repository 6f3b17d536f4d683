"""Names of addresses in a guest's kernel: from its ELF symbol table, from the table that Linux carries
for itself, or from a System.map beside it."""

import bisect
import pathlib
import re
import struct

SHT_SYMTAB = 2
STT_NOTYPE, STT_OBJECT, STT_FUNC = 0, 1, 2
KERNEL_MAP, KERNEL_MAP_BYTES = 0xffffffff80000000, 1 << 30  # where Linux maps its image
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
        if i < 0 and address < KERNEL_MAP_BYTES:  # Linux before it has turned to its own mapping
            address += KERNEL_MAP
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
    except (struct.error, ValueError, OverflowError):
        return []
    return [(value, text) for _, value, text in sorted(found)]  # functions win


# --- the table that Linux itself carries (kallsyms), 4.6 and later -----------------------------------


def _align(value):
    return (value + 7) & ~7


def _tokens(data):
    """(start, end, [bytes]) of the table of 256 tokens that names are made of, or None. Digits are
    tokens of their own, which is how it is found; an index of it follows."""
    digits = b"".join(b"%d\0" % d for d in range(10))
    at = data.find(digits)
    while at >= 0:
        second = at
        for _ in range(ord("0") - 1):
            second = data.rfind(b"\0", 0, max(0, second - 1)) + 1
        # Where the first one begins, the index tells: anything may stand before it.
        for begin in range((second - 1) & ~7, max(0, second - 256), -8):
            tokens = data[begin:begin + 16384].split(b"\0", 256)[:256]
            starts = [0]
            for token in tokens:
                starts.append(starts[-1] + len(token) + 1)
            end = _align(begin + starts[-1])
            if len(tokens) == 256 and starts[255] < 65536 and (
                    data[end:end + 512] == struct.pack("<256H", *starts[:256])):
                return begin, end + 512, tokens
        at = data.find(digits, at + 1)
    return None


def _markers_before(data, end):
    """(start, [offset of every 256th name]) of the markers that end at `end`, but for padding."""
    found = []
    at = end - 4
    if at >= 0 and struct.unpack_from("<I", data, at)[0] == 0:
        at -= 4
    while at >= 0:
        value, = struct.unpack_from("<I", data, at)
        # A name has 2 to some 500 bytes.
        if found and not value + 512 <= found[-1] <= value + 256 * 512:
            return None
        found.append(value)
        if value == 0:
            return at, found[::-1]
        at -= 4
    return None


def _markers(data, end):
    """The markers stand before the tokens, or before an array of 3 bytes per name that does (6.2, and
    later 6.1)."""
    for behind in range(0, 3 << 20, 8):
        if (found := _markers_before(data, end - behind)) and len(found[1]) > 1 and (
                not behind or 0 <= len(found[1]) - behind // 768 <= 1):
            return found
    return None


def _names(data, at, number, tokens, markers):
    """Names with the letter of their type in front, if `number` names begin at `at`."""
    start, names = at, []
    for i in range(number):
        if i % 256 == 0 and at - start != markers[i // 256]:
            return None
        length = data[at]
        at += 1
        if length & 0x80:
            length = length & 0x7f | data[at] << 7
            at += 1
        names.append(b"".join([tokens[b] for b in data[at:at + length]]))
        at += length
    return names


def _addresses(data, offsets, base_at, number):
    if offsets < 0 or base_at + 8 > len(data):
        return None
    base, = struct.unpack_from("<Q", data, base_at)
    if base < 1 << 63:
        return None
    values = struct.unpack_from(f"<{number}i", data, offsets)
    if sum(v < 0 for v in values) > number // 2:  # the others are offsets in per-CPU areas
        return [base - 1 - v if v < 0 else v for v in values]
    return [base + (v & 0xffffffff) for v in values]


def from_kallsyms(data):
    """[(address, name)] of functions in an unpacked Linux kernel; empty if there are none."""
    try:
        table = _tokens(data)
        found = _markers(data, table[0]) if table else None
        if not found:
            return []
        (begin, markers), tokens = found, table[2]
        for at in range((begin - markers[-1]) & ~7, begin - markers[-1] - 65536, -8):
            number, high = struct.unpack_from("<II", data, at - 8)
            if high or (number + 255) // 256 != len(markers):
                continue
            names = _names(data, at, number, tokens, markers)
            if not names:
                continue
            before = at - 16 - _align(4 * number)  # up to 6.3; later behind the tokens
            addresses = _addresses(data, before, at - 16, number) or _addresses(
                data, table[1], table[1] + _align(4 * number), number) or []
            return [(address, name[1:].decode(errors="replace"))
                    for address, name in zip(addresses, names) if name[:1] in b"tTwW"]
    except (struct.error, IndexError):
        pass
    return []


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
    if entries := from_kallsyms(data):
        return Symbols(entries, f"kallsyms of {kernel.name}")
    if data[0x202:0x206] == b"HdrS" and "nokaslr" not in cmdline.split():
        return Symbols()  # a packed Linux kernel moves itself to an address of its choice
    for path in sorted(kernel.parent.glob("vmlinux*")):
        try:
            if entries := from_kallsyms(path.read_bytes()):
                return Symbols(entries, f"kallsyms of {path.name}")
        except OSError:
            continue
    for path in sorted(kernel.parent.glob("System.map*")):
        try:
            if entries := from_map(path.read_text(errors="replace")):
                return Symbols(entries, path.name)
        except OSError:
            continue
    return Symbols()
