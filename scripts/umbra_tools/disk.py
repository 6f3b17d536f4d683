"""Bootable images: a GPT with a FAT EFI system partition, and one for saved memory if the
configuration asks for it; made without root or loop devices.

The same contents give the same bytes: identifiers, time stamps and order are fixed.
"""

import os
import pathlib
import struct
import tempfile
import uuid

from .base import BUILD, Failure, run

SECTOR = 512
START = 2048  # the partition's first sector: 1 MiB, the usual alignment
GPT_TAIL = 33  # sectors of the backup table
TIME = 1577836800  # 2020-01-01, for all files
DISK_GUID = "8D5A4F5E-5B1C-4B52-9C1F-756D62726101"
PART_GUID = "8D5A4F5E-5B1C-4B52-9C1F-756D62726102"
# hv/pmem/save_layout.h: the type of the partition for saved memory, and how much of it a region takes.
SAVED_TYPE = "C4F19B0E-6D0B-4C43-9A5B-2E1C7F3AD652"
SAVED_GUID = "8D5A4F5E-5B1C-4B52-9C1F-756D62726103"
LABEL_PAGES = 33
ALIGN = 2048  # sectors: 1 MiB
VOLUME_ID = "756d6272"

FAT16_MIN, FAT16_MAX = 4085, 65524  # clusters; the count alone decides the type (FAT specification)
FAT32_MIN, FAT32_MAX = 65525, 0x0ffffff0


def standard_files():
    """Loader and hypervisor, on every image."""
    return {"EFI/BOOT/BOOTX64.EFI": BUILD / "BOOTX64.EFI", "umbra/umbra.elf": BUILD / "umbra.elf"}


def _size(source):
    return len(source) if isinstance(source, bytes) else os.path.getsize(source)


def _clusters(files, bytes_per_cluster):
    """Clusters that the files and their folders take, with room for long names."""
    folders = {str(parent) for path in files for parent in pathlib.PurePosixPath(path).parents}
    entries = {folder: 4096 for folder in folders}
    for path in files:
        entries[str(pathlib.PurePosixPath(path).parent)] += 512
    sizes = [_size(source) for source in files.values()] + list(entries.values())
    return sum(-(-size // bytes_per_cluster) for size in sizes) + 16


def _geometry(files, fat):
    """(FAT type, sectors per cluster, sectors in all): the smallest that holds the files."""
    for kind, least, most, limit in ((16, FAT16_MIN, FAT16_MAX, 64), (32, FAT32_MIN, FAT32_MAX, 64)):
        if fat not in (None, kind):
            continue
        per_cluster = 1
        while per_cluster <= limit:
            clusters = max(_clusters(files, per_cluster * SECTOR), least + 16)
            if clusters <= most - 16:
                table = -(-(clusters + 2) * kind // 8 // SECTOR) + 1
                return kind, per_cluster, clusters * per_cluster + 2 * table + 64
            per_cluster *= 2
    raise Failure("the files are too large for a FAT file system")


def saved_sectors(regions):
    """Sectors of the partition for saved regions of these sizes in bytes; 0 for none."""
    total = 16
    for size in regions:
        pages = size // 4096 + LABEL_PAGES
        table = -(-pages * 8 // SECTOR)
        total += 24 + 2 * (-(-table // 8) * 8) + 16 * pages
    return -(-total // ALIGN) * ALIGN if regions else 0


def find_partition(image, kind):
    """(first sector, sectors) of the partition of a type in an image of ours, or None."""
    with open(image, "rb") as file:
        file.seek(SECTOR)
        header = file.read(SECTOR)
        if header[:8] != b"EFI PART":
            raise Failure(f"{image} is not a disk with a GUID partition table")
        at, count, size = struct.unpack_from("<QII", header, 72)
        file.seek(at * SECTOR)
        table = file.read(count * size)
    for n in range(count):
        entry = table[n * size:(n + 1) * size]
        if entry[:16] == uuid.UUID(kind).bytes_le:
            first, last = struct.unpack_from("<QQ", entry, 32)
            return first, last - first + 1
    return None


def _copy(source, start, length, target, at):
    """Copy bytes from file to file; zeroes stay holes."""
    with open(source, "rb") as old, open(target, "r+b") as new:
        old.seek(start)
        while length:
            piece = old.read(min(length, 1 << 20))
            if not piece:
                raise Failure(f"{source} is shorter than its partition table says")
            if piece.count(0) != len(piece):
                new.seek(at)
                new.write(piece)
            at += len(piece)
            length -= len(piece)


def build_image(files, output, fat=None, saved=(), keep=None):
    """Write the image. files: {path on the ESP: path on this machine, or bytes}; saved: sizes of
    regions of memory to be saved; keep: an image whose saved memory is taken over."""
    output = pathlib.Path(output)
    for name, source in files.items():
        if not isinstance(source, bytes) and not os.path.isfile(source):
            raise Failure(f"{source} does not exist (needed as {name}): run make")
    kind, per_cluster, sectors = _geometry(files, fat)
    sectors = -(-sectors // 8) * 8
    end = START + sectors
    layout = f"start={START}, size={sectors}, type=U, uuid={PART_GUID}, name=Umbra\n"
    old = keep and find_partition(keep, SAVED_TYPE)
    space = max(saved_sectors(saved), old[1] if old else 0)
    if space:
        first = -(-end // ALIGN) * ALIGN
        end = first + space
        layout += f"start={first}, size={space}, type={SAVED_TYPE}, uuid={SAVED_GUID}, " \
                  "name=\"Umbra saved memory\"\n"
    total = end + GPT_TAIL
    offset = f"@@{START * SECTOR}"
    env = dict(os.environ, SOURCE_DATE_EPOCH=str(TIME), MTOOLS_SKIP_CHECK="1", MTOOLSRC="/dev/null",
               TZ="UTC", LC_ALL="C.UTF-8", PATH=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".image.") as folder:
        image = pathlib.Path(folder) / "image"
        with open(image, "wb") as file:
            file.truncate(total * SECTOR)
        run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", image, env=env,
            input=f"label: gpt\nlabel-id: {DISK_GUID}\nfirst-lba: 34\n" + layout)
        run("mkfs.vfat", "--invariant", "-F", kind, "-s", per_cluster, "-S", SECTOR, "-i",
            VOLUME_ID, "-n", "UMBRA", "-h", START, f"--offset={START}", image, sectors // 2, env=env)
        made = set()
        for name, source in sorted(files.items()):
            for parent in reversed(pathlib.PurePosixPath(name).parents):
                if str(parent) != "." and parent not in made:
                    run("mmd", "-i", f"{image}{offset}", f"::{parent}", env=env)
                    made.add(parent)
            staged = pathlib.Path(folder) / "file"
            if isinstance(source, bytes):
                staged.write_bytes(source)
            else:
                staged.write_bytes(pathlib.Path(source).read_bytes())
            os.utime(staged, (TIME, TIME))
            run("mcopy", "-m", "-i", f"{image}{offset}", staged, f"::{name}", env=env)
            staged.unlink()
        if old:
            _copy(keep, old[0] * SECTOR, old[1] * SECTOR, image, first * SECTOR)
        image.rename(output)
    return output


def image_for(config, output, fat=None, keep=None):
    """The image for a Config whose paths are this machine's."""
    files = standard_files()
    files.update(config.collect())
    files["umbra/umbra.conf"] = config.text().encode(errors="surrogateescape")
    return build_image(files, output, fat, config.saved_regions(), keep)
