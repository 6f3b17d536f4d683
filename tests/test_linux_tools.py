"""The parts of scripts/linux: kernels taken apart, modules and what they need, initramfs."""

import gzip
import lzma
import random
import struct
import subprocess

import pytest

from umbra_tools import debian, linux
from umbra_tools.base import Failure

PAGE = linux.PAGE


def elf(segments, note):
    """An ELF file with PT_LOADs (address, data, length in memory, distance in the file) and a PT_NOTE
    over the (address, size) of `note`."""
    body, table = bytearray(0x1000), []
    for address, data, length, gap in segments:
        body += bytes(gap)
        table.append((1, 5, len(body), address + (1 << 40), address, len(data), length, PAGE))
        body += data
    at = next(p[2] + note[0] - p[4] for p in table if p[4] <= note[0] < p[4] + p[5])
    table.append((4, 4, at, note[0] + (1 << 40), note[0], note[1], note[1], 4))
    body[:64] = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, 0x1000000, 64, 77, 0,
                            64, 56, len(table), 64, 9, 8)
    for i, entry in enumerate(table):
        struct.pack_into("<IIQQQQQQ", body, 64 + 56 * i, *entry)
    return bytes(body)


def loaded(data):
    """({page address: contents} that are not zero, {covered addresses}, note bytes)."""
    fields = struct.unpack_from("<16sHHIQQQIHHHHHH", data)
    pages, covered, note = {}, set(), None
    for i in range(fields[10]):
        kind, _, offset, virtual, physical, filesz, memsz, _ = struct.unpack_from(
            "<IIQQQQQQ", data, fields[5] + i * fields[9])
        assert virtual == physical + (1 << 40) and filesz <= memsz
        contents = data[offset:offset + filesz]
        assert len(contents) == filesz
        if kind == 4:
            note = contents
            continue
        assert offset % PAGE == physical % PAGE
        covered.update(range(physical, physical + memsz, PAGE))
        for at in range(0, filesz, PAGE):
            if piece := contents[at:at + PAGE].rstrip(b"\0"):
                pages[physical + at] = piece
    return pages, covered, note


def test_compact_loads_the_same():
    rng = random.Random(1)
    for _ in range(20):
        segments, address = [], 0x1000000
        for _ in range(rng.randrange(1, 5)):
            data = b""
            for _ in range(rng.randrange(1, 6)):
                data += rng.choice([bytes, rng.randbytes])(rng.choice([100, 4096, 70000, 300000]))
            length = len(data) + rng.choice([0, 5000, 1 << 20])
            segments.append((address, data, length, rng.choice([0, PAGE, 1 << 20])))
            # Files keep the offset within a page; so does this.
            segments[-1] = (address, data + bytes(-len(data) % PAGE),
                            length + -len(data) % PAGE, segments[-1][3])
            address += (length + 0x3fffff) & ~0x1fffff
        first = segments[0]
        segments[0] = (first[0], b"note" * 8 + first[1][32:], first[2], first[3])
        whole = elf(segments, (first[0] + 4, 20))
        small = linux.compact(whole)
        assert loaded(small) == loaded(whole)
        assert loaded(small)[2] == b"note" * 5
        assert len(small) <= len(whole) + PAGE


def test_compact_leaves_zeros_out():
    data = b"x" * PAGE + bytes(1 << 20) + b"y" * PAGE + bytes(1 << 20)
    small = linux.compact(elf([(0x1000000, data, len(data), 1 << 21)], (0x1000000, 8)))
    assert len(small) < 5 * PAGE


def bzimage(payload, version=0x20f, setup=4):
    image = bytearray((setup + 1) * 512) + bytes(64) + payload + b"tail"
    image[0x1f1] = setup
    image[0x202:0x208] = b"HdrS" + struct.pack("<H", version)
    struct.pack_into("<II", image, 0x248, 64, len(payload))
    return bytes(image)


KERNEL = b"\x7fELF" + bytes(range(256)) * 99


@pytest.mark.parametrize("how", ["gzip", "xz", "zstd", "lz4"])
def test_payload(how):
    size = struct.pack("<I", len(KERNEL))  # as the kernel's build appends it
    if how == "gzip":
        packed = gzip.compress(KERNEL)
    elif how == "xz":
        packed = lzma.compress(KERNEL, check=lzma.CHECK_CRC32) + size
    else:
        options = ["-l"] if how == "lz4" else []
        packed = subprocess.run([how, "-c", *options], input=KERNEL, capture_output=True,
                                check=True).stdout + size
    assert linux.payload(bzimage(packed)) == KERNEL


@pytest.mark.parametrize("image,message", [
    (bytes(4096), "not a bzImage"), (bzimage(b"\x1f\x8b", version=0x207), "not a bzImage"),
    (bzimage(b"what is this?"), "unknown way"), (bzimage(gzip.compress(b"text")), "no ELF")])
def test_no_payload(image, message):
    with pytest.raises(Failure, match=message):
        linux.payload(image)


def module(path, name, needs, aliases=()):
    text = "".join(f'"{line}\\0"' for line in [f"depends={','.join(needs)}",
                                               *(f"alias={a}" for a in aliases), f"name={name}"])
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["gcc", "-xc", "-", "-c", "-o", path], check=True, text=True, input=(
        f'const char info[] __attribute__((section(".modinfo"))) = {text};'))


def test_modules(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    module(source / "kernel/a/top-one.ko", "top_one", ["low-er", "mid"], ["acpi*:X:*"])
    module(source / "kernel/b/mid.ko", "mid", ["low-er"])
    module(source / "kernel/b/low-er.ko", "low_er", [])
    module(source / "kernel/b/other.ko", "other", ["mid"])
    packed = source / "kernel/b/mid.ko"
    packed.with_suffix(".ko.xz").write_bytes(lzma.compress(packed.read_bytes()))
    packed.unlink()
    linux.collect_modules(source, target, ["top_one", "built_in"])
    assert sorted(p.name for p in target.glob("*.ko")) == ["low_er.ko", "mid.ko", "top_one.ko"]
    assert (target / "mid.ko").read_bytes()[:4] == b"\x7fELF"
    lists = dict(line.split(":") for line in (target / "modules.dep").read_text().splitlines())
    # modprobe loads from the right.
    assert lists["top_one.ko"].split() == ["mid.ko", "low_er.ko"]
    assert lists["low_er.ko"] == ""
    assert (target / "modules.alias").read_text() == "alias acpi*:X:* top_one\n"


def members(data):
    """[(name, mode, contents, device)] of a newc archive."""
    found, at = [], 0
    while True:
        assert data[at:at + 6] == b"070701" and at % 4 == 0
        values = [int(data[at + 6 + 8 * i:at + 14 + 8 * i], 16) for i in range(13)]
        name = data[at + 110:at + 110 + values[11] - 1].decode()
        start = at + 110 + values[11] + -(110 + values[11]) % 4
        contents = data[start:start + values[6]]
        if name == "TRAILER!!!":
            return found
        found.append((name, values[1], contents, values[9:11]))
        at = start + values[6] + -values[6] % 4


def test_archive(tmp_path):
    (tmp_path / "f").write_bytes(b"12345")

    def make():
        archive = linux.Archive()
        archive.file("b/c/file", tmp_path / "f", 0o755)
        archive.link("a", "b/c")
        archive.device("dev/console", 5, 1)
        archive.folder("b", 0o700)
        return archive.bytes()

    data = make()
    assert data == make()
    found = members(data)
    assert [m[0] for m in found] == ["a", "b", "b/c", "b/c/file", "dev", "dev/console"]
    by_name = {m[0]: m for m in found}
    assert by_name["b/c/file"][1:3] == (0o100755, b"12345")
    assert by_name["a"][1:3] == (0o120777, b"b/c")
    assert by_name["dev/console"][1] == 0o020600 and by_name["dev/console"][3] == [5, 1]
    assert by_name["b"][1] == 0o040700


def test_depends():
    assert debian.depends({"Depends": "linux-image-6.1.0-50-amd64 (= 6.1.176-1), a | b:any, c:any",
                           "Pre-Depends": "libc6 (>= 2.34)"}) == [
        "libc6", "linux-image-6.1.0-50-amd64", "a", "c"]
