"""scripts/linux: Debian's kernels as guests: fetched, unpacked, with a small initramfs.

The packages are those of Debian 12 (SUITE), on any host: `linux-image-amd64` and
`linux-image-cloud-amd64`, and `busybox-static` for user space. They are kept in build/linux of the
tree, for every build directory; what is there is used without network (`scripts/linux --update`
looks for newer ones).
"""

import argparse
import bz2
import dataclasses
import json
import lzma
import os
import pathlib
import re
import shutil
import stat
import struct
import subprocess
import tempfile
import zlib

from .base import BUILD, ROOT, Failure, build, locked, main, run, say
from .config import Config
from .debian import PrivateApt, depends

SUITE = "bookworm"
CACHE = ROOT / "build" / "linux"
FLAVOURS = ("amd64", "cloud")
DEFAULT = "cloud"  # of scripts/run and scripts/image: fewer drivers, so it starts sooner
PACKAGES = {"amd64": "linux-image-amd64", "cloud": "linux-image-cloud-amd64"}
# What a guest of Umbra has a use for, of what Debian does not build in; with dependencies.
MODULES = ("virtio_mmio", "virtio_blk", "virtio_console", "ext4", "crc32c_generic", "button", "evdev",
           "nfit", "nd_pmem", "nd_btt", "device_dax", "dax_pmem")
# Quiet, as every character costs two exits; without the self-tests of the crypto code, which are
# more than half of the instructions of a boot.
COMMAND_LINE = "console=ttyS0 quiet mitigations=off cryptomgr.notests"
TIME = 1577836800  # of all files in an initramfs: the same contents give the same bytes

PAGE = 4096
HOLE = 16 * PAGE  # zeros of at least this length are not stored in a kernel's ELF file


# --- packages ---------------------------------------------------------------------------------

class Packages:
    """Debian packages in the cache, unpacked on demand. Use under `locked(CACHE)`."""
    apt = None  # made, with fresh lists, when something has to be fetched

    def __init__(self, update=False):
        self.update = update
        self.record = CACHE / "packages.json"
        try:
            self.known = json.loads(self.record.read_text())
        except (OSError, ValueError):
            self.known = {}

    def _apt(self):
        if Packages.apt is None:
            say(f"fetching the package lists of Debian {SUITE} (about 10 MB)")
            apt = PrivateApt(CACHE / "apt", SUITE, "deb")
            apt.update()
            Packages.apt = apt
        return Packages.apt

    def fields(self, package):
        """The control fields of the cached version; of the newest if there is none."""
        if package not in self.known or self.update and "fresh" not in self.known[package]:
            fields = self._apt().show(package)
            self.known[package] = {"fresh": True, **{key: fields.get(key, "") for key in (
                "Version", "Size", "Depends", "Pre-Depends")}}
        return self.known[package]

    def deb(self, package):
        """The package file, fetched if need be."""
        fields = self.fields(package)
        version = fields["Version"]
        file = CACHE / "debs" / f"{package}_{version.replace(':', '%3a')}.deb"
        if not file.exists():
            say(f"fetching {package} {version} ({int(fields['Size']) / 1e6:.1f} MB)")
            with tempfile.TemporaryDirectory(dir=CACHE, prefix="get.") as folder:
                self._apt().download(pathlib.Path(folder), f"{package}={version}")
                file.parent.mkdir(exist_ok=True)
                next(pathlib.Path(folder).glob("*.deb")).rename(file)
            for old in file.parent.glob(f"{package}_*.deb"):
                if old != file:
                    old.unlink()
        # Only what has been fetched counts as known the next time.
        kept = {name: {k: v for k, v in entry.items() if k != "fresh"}
                for name, entry in self.known.items()}
        self.record.write_text(json.dumps(kept, indent=1) + "\n")
        return file

    def tree(self, package):
        """The folder with the files of a (small) package."""
        folder = CACHE / "trees" / self.deb(package).stem
        if not folder.is_dir():
            for old in folder.parent.glob(f"{package}_*"):
                shutil.rmtree(old)
            unpack(self.deb(package), folder)
        return folder


def unpack(deb, folder):
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    run("dpkg", "-x", deb, new)
    new.rename(folder)


# --- the kernel -------------------------------------------------------------------------------

def payload(bzimage):
    """The ELF file in a bzImage (Documentation/x86/boot.rst: payload_offset, payload_length)."""
    if bzimage[0x202:0x206] != b"HdrS" or struct.unpack_from("<H", bzimage, 0x206)[0] < 0x208:
        raise Failure("not a bzImage of boot protocol 2.08 or newer")
    start = (bzimage[0x1f1] or 4) * 512 + 512
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    data = bzimage[start + offset:start + offset + length]
    tool = None
    if data[:6] == b"\xfd7zXZ\0":
        elf = lzma.LZMADecompressor().decompress(data)
    elif data[:2] == b"\x1f\x8b":
        elf = zlib.decompressobj(31).decompress(data)
    elif data[:3] == b"BZh":
        elf = bz2.BZ2Decompressor().decompress(data)
    elif data[:3] == b"\x5d\0\0":
        elf = lzma.LZMADecompressor(format=lzma.FORMAT_ALONE).decompress(data)
    elif data[:4] == b"\x28\xb5\x2f\xfd":
        tool = "zstd"
    elif data[:4] == b"\x02\x21\x4c\x18":
        tool = "lz4"
    else:
        raise Failure(f"the kernel is packed in an unknown way ({data[:6].hex()})")
    if tool:
        # The build appends the unpacked size, which these tools take for garbage.
        try:
            done = subprocess.run([tool, "-dcq"], input=data[:-4], capture_output=True)
        except FileNotFoundError:
            raise Failure(f"{tool} is not installed: run scripts/setup") from None
        if done.returncode:
            raise Failure(f"{tool} cannot unpack the kernel: {done.stderr.decode().strip()}")
        elf = done.stdout
    if elf[:4] != b"\x7fELF":
        raise Failure("the kernel's payload is no ELF file")
    return elf


def _pieces(data):
    """[(offset, data, length in memory)] of a segment: zeros of HOLE and more are left out, as
    memory behind the data before them."""
    pieces, start = [], 0
    while start < len(data):
        hole = data.find(bytes(HOLE), start)
        if hole < 0:
            pieces.append((start, data[start:], len(data) - start))
            break
        # Whole pages on both sides.
        end = min(-(-hole // PAGE) * PAGE, len(data))
        after = len(data) - len(data[end:].lstrip(b"\0"))
        if after < len(data):
            after = after // PAGE * PAGE
        pieces.append((start, data[start:end], after - start))
        start = after
    return pieces


def compact(elf):
    """The same program without padding, stored zeros, and section headers: half the size, which
    the firmware reads in half the time. Loaded, both give the same memory."""
    header = struct.Struct("<16sHHIQQQIHHHHHH")
    program = struct.Struct("<IIQQQQQQ")
    fields = list(header.unpack_from(elf))
    loads, notes = [], []
    for index in range(fields[10]):
        entry = program.unpack_from(elf, fields[5] + index * fields[9])
        kind, flags, offset, virtual, physical, filesz, memsz, _ = entry
        if kind == 1:
            pieces = _pieces(elf[offset:offset + filesz]) or [(0, b"", 0)]
            at, data, _ = pieces[-1]
            pieces[-1] = at, data, memsz - at
            loads += [(flags, virtual + at, physical + at, data, length)
                      for at, data, length in pieces if length]
        elif kind == 4:
            notes.append(entry)
    table, body = [], bytearray(PAGE)
    for flags, virtual, physical, data, length in loads:
        body += bytes(-len(body) % PAGE + virtual % PAGE)
        table.append((1, flags, len(body), virtual, physical, len(data), length, PAGE))
        body += data
    for kind, flags, offset, virtual, physical, filesz, memsz, align in notes:
        for _, _, at, _, start, stored, _, _ in list(table):
            if start <= physical and physical + filesz <= start + stored:
                table.append((kind, flags, at + physical - start, virtual, physical, filesz, memsz,
                              align))
    if len(table) * program.size + header.size > PAGE:
        raise Failure("the kernel has too many segments")
    fields[5], fields[6] = header.size, 0  # program headers; no section headers
    fields[9], fields[10], fields[11:14] = program.size, len(table), [0, 0, 0]
    body[:header.size] = header.pack(*fields)
    for index, entry in enumerate(table):
        program.pack_into(body, header.size + index * program.size, *entry)
    return bytes(body)


def modinfo(module):
    """{key: [values]} of section .modinfo."""
    offset, = struct.unpack_from("<Q", module, 0x28)
    size, number, names = struct.unpack_from("<HHH", module, 0x3a)
    sections = [struct.unpack_from("<IIQQQQ", module, offset + i * size) for i in range(number)]
    for name, _, _, _, at, length in sections:
        start = sections[names][4] + name
        if module[start:start + 9] == b".modinfo\0":
            info = {}
            for text in module[at:at + length].decode(errors="replace").split("\0"):
                key, equals, value = text.partition("=")
                if equals:
                    info.setdefault(key, []).append(value)
            return info
    return {}


def _module_name(path):
    return re.sub(r"\.ko(\.\w+)?$", "", path.name).replace("-", "_")


def collect_modules(source, target, wanted):
    """Copy the modules that are there (a kernel may have them built in) with what they need, and
    write the lists that modprobe reads. source, target: lib/modules/RELEASE."""
    files = {_module_name(path): path for path in sorted(source.rglob("*.ko*"))}
    needs, aliases, todo = {}, [], [name for name in wanted if name in files]
    while todo:
        name = todo.pop()
        if name in needs:
            continue
        data = files[name].read_bytes()
        if files[name].suffix == ".xz":
            data = lzma.decompress(data)
        elif files[name].suffix == ".gz":
            data = zlib.decompress(data, 31)
        info = modinfo(data)
        needs[name] = [n.replace("-", "_") for n in ",".join(info.get("depends", [])).split(",")
                       if n]
        aliases += [f"alias {alias} {name}" for alias in info.get("alias", [])]
        todo += needs[name]
        target.mkdir(parents=True, exist_ok=True)
        (target / f"{name}.ko").write_bytes(data)

    def closure(name):
        """What a module needs; each comes before what it needs itself."""
        order = []

        def visit(n):
            if n not in order:
                for need in needs[n]:
                    visit(need)
                order.append(n)

        visit(name)
        return order[-2::-1]

    target.mkdir(parents=True, exist_ok=True)
    (target / "modules.dep").write_text("".join(
        f"{name}.ko: {' '.join(f'{n}.ko' for n in closure(name))}".strip() + "\n"
        for name in sorted(needs)))
    (target / "modules.alias").write_text("".join(line + "\n" for line in sorted(aliases)))
    for name in ("modules.builtin", "modules.order"):
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)


@dataclasses.dataclass
class Kernel:
    flavour: str
    release: str  # as uname -r says
    version: str  # of the package
    folder: pathlib.Path

    @property
    def vmlinuz(self):
        return self.folder / "vmlinuz"

    @property
    def vmlinux(self):
        return self.folder / "vmlinux"


def kernel(flavour, update=False):
    """Debian's kernel of that flavour, in the cache."""
    with locked(CACHE):
        packages = Packages(update)
        real = next((n for n in depends(packages.fields(PACKAGES[flavour]))
                     if re.match(r"linux-image-\d", n)), None)
        if not real:
            raise Failure(f"{PACKAGES[flavour]} depends on no kernel image")
        release = real.removeprefix("linux-image-")
        deb = packages.deb(real)
        version = packages.fields(real)["Version"]
        folder = CACHE / release
        stamp = folder / ".stamp"
        made = f"{version}\n{' '.join(MODULES)}\n"
        if not stamp.exists() or stamp.read_text() != made:
            say(f"unpacking {real} {version}")
            with tempfile.TemporaryDirectory(dir=CACHE, prefix="unpack.") as scratch:
                root = pathlib.Path(scratch) / "root"
                unpack(deb, root)
                new = pathlib.Path(scratch) / "new"
                lib = next(root.glob("**/lib/modules/*"))
                collect_modules(lib, new / "modules", MODULES)
                shutil.copyfile(root / f"boot/vmlinuz-{release}", new / "vmlinuz")
                shutil.copyfile(root / f"boot/config-{release}", new / "config")
                (new / "vmlinux").write_bytes(compact(payload((new / "vmlinuz").read_bytes())))
                (new / ".stamp").write_text(made)
                shutil.rmtree(folder, ignore_errors=True)
                new.rename(folder)
        return Kernel(flavour, release, version, folder)


# --- programs ---------------------------------------------------------------------------------

def _needed(path):
    """Libraries that an ELF program names, and its loader; none for a static one."""
    text = run("readelf", "-dlW", path)
    return (re.findall(r"\(NEEDED\).*\[(.*)\]", text)
            + [pathlib.PurePosixPath(name).name for name in
               re.findall(r"program interpreter: (.*)\]", text)])


def _hollow(name, prefix, users):
    """A library by that name with nothing but the functions, all empty, that the programs `users`
    want of it: those that begin with `prefix`, of the versions they ask for."""
    versions = {}
    for path in users:
        for symbol, version in re.findall(rf" UND ({prefix}\w+)(?:@(\S+))?",
                                          run("readelf", "-W", "--dyn-syms", path)):
            versions.setdefault(version, set()).add(symbol)
    source = "".join(f"int {symbol}(void) {{ return 0; }}\n"
                     for symbol in sorted(set().union(*versions.values())))
    script = "".join(f"{version} {{ {'; '.join(sorted(symbols))}; }};\n"
                     for version, symbols in sorted(versions.items()) if version)
    place = CACHE / "hollow" / f"{name}.{zlib.crc32((source + script).encode()):08x}"
    if not place.exists():
        place.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
            new = pathlib.Path(scratch)
            (new / "empty.c").write_text(source)
            (new / "versions").write_text(script)
            run("gcc", "-O2", "-shared", "-nostdlib", f"-Wl,-soname,{name}", "-s",
                *([f"-Wl,--version-script={new / 'versions'}"] if script else []),
                "-o", new / name, new / "empty.c")
            (new / name).rename(place)
    return place


def programs(*wanted, own=None, hollow=None, update=False):
    """{path in the guest: file here} of (package, program path) pairs with their libraries.

    own     {path in the guest: (file here, packages)}: programs that were compiled here, with the
            packages that have their libraries
    hollow  {name of a library: prefix of its functions}: what programs name and do not use is
            replaced by a library of empty functions, since some drag half a system in

    The libraries are looked for in what the packages depend on, as far as a library is missing:
    a package that is only opened at run time is not fetched."""
    found, libraries, todo, searched = {}, {}, [], set()
    with locked(CACHE):
        packages = Packages(update)

        def take(package):
            if package in searched:
                return
            searched.add(package)
            for path in packages.tree(package).rglob("*.so*"):
                libraries.setdefault(path.name, (path, package))

        for package, program in wanted:
            tree = packages.tree(package)
            here = next((tree / p for p in (program, "usr/" + program) if (tree / p).exists()), None)
            if here is None:
                raise Failure(f"package {package} has no file {program}")
            found[program] = here.resolve()
            todo.append((here, package))
            take(package)
        for place, (here, names) in (own or {}).items():
            found[place] = here
            todo += [(here, name) for name in names]
            for name in names:
                take(name)
        for name, prefix in (hollow or {}).items():
            libraries[name] = _hollow(name, prefix, [here for here, _ in todo]), None
        while todo:
            path, package = todo.pop()
            for name in _needed(path):
                if name not in libraries:
                    for other in depends(packages.fields(package)):
                        take(other)
                if name not in libraries:
                    raise Failure(f"{path.name} of {package} needs {name}, which is in none of the "
                                  "packages it depends on")
                file, owner = libraries[name]
                place = f"lib64/{name}" if name.startswith("ld-linux") else f"lib/{name}"
                if place not in found:
                    found[place] = file.resolve()
                    if owner:
                        todo.append((file, owner))
    return found


def compiled(output, sources, *, headers, libraries):
    """Compile C files of ours to `output`, a program of Debian's user space (not of this
    machine's, which may be newer): headers are packages; libraries {package: name of its file}."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with locked(CACHE):
        packages = Packages()
        paths = [f"-I{packages.tree(name) / 'usr/include'}" for name in headers]
        objects = []
        for package, name in libraries.items():
            objects.append(next(packages.tree(package).rglob(name)).resolve())
    new = output.with_name(f"{output.name}.{os.getpid()}")
    run("gcc", "-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", "-I", ROOT / "include", *paths,
        "-o", new, *sources, *objects, "-Wl,--unresolved-symbols=ignore-in-shared-libs", "-s")
    new.rename(output)
    return output


# --- the initramfs ----------------------------------------------------------------------------

INIT = r"""#!/bin/sh
# First process of the guest: mounts what everybody expects, loads drivers for the devices that
# ACPI names, and runs /session if there is one, else an init with a shell on the console.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:/umbra HOME=/root TERM=${TERM:-linux}
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
for device in /sys/bus/acpi/devices/LNRO0005:*; do
	[ -e "$device" ] || continue
	for module in virtio_mmio virtio_blk virtio_console; do
		modprobe -q $module
	done
	break
done
hostname umbra
if [ -x /session ]; then
	/session </dev/console >/dev/console 2>&1
	poweroff -f
fi
exec /sbin/init
"""

INITTAB = """::sysinit:/etc/rc
::respawn:/bin/cttyhack /bin/sh -l
::restart:/sbin/init
::shutdown:/etc/shutdown
"""

# Not umount -a: that tries / too, and says that it cannot be done.
SHUTDOWN = r"""#!/bin/sh
sync
awk '$1 ~ "^/dev/" {print $2}' /proc/mounts | sort -r | while read -r place; do
	umount "$place"
done
"""

# What acpid does when the power button is pressed.
BUTTON = """#!/bin/sh
exec poweroff
"""

RC = r"""#!/bin/sh
modprobe -qa button evdev
acpid -l /dev/null -p /run/acpid.pid
cpus=$(nproc)
memory=$(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
cat <<EOF

This is a shell in $(uname -s) $(uname -r), a guest of Umbra with $cpus CPU(s) and $memory MiB.
Leave with poweroff; reboot restarts this guest only.

EOF
"""


class Archive:
    """A cpio archive in the format that the kernel unpacks (newc), reproducible."""

    def __init__(self):
        self.entries = {}  # path: (mode, data, major, minor)

    def _parents(self, path):
        for parent in reversed(pathlib.PurePosixPath(path).parents):
            if str(parent) != ".":
                self.entries.setdefault(str(parent), (stat.S_IFDIR | 0o755, b"", 0, 0))

    def folder(self, path, mode=0o755):
        self._parents(path)
        self.entries[path] = (stat.S_IFDIR | mode, b"", 0, 0)

    def file(self, path, data, mode=0o644):
        self._parents(path)
        if isinstance(data, os.PathLike):
            data = pathlib.Path(data).read_bytes()
        self.entries[path] = (stat.S_IFREG | mode, data, 0, 0)

    def link(self, path, target):
        self._parents(path)
        self.entries[path] = (stat.S_IFLNK | 0o777, target.encode(), 0, 0)

    def device(self, path, major, minor, mode=0o600):
        self._parents(path)
        self.entries[path] = (stat.S_IFCHR | mode, b"", major, minor)

    def bytes(self):
        out = bytearray()

        def add(name, mode, data, number, major=0, minor=0):
            links = 2 if stat.S_ISDIR(mode) else 1
            values = (number, mode, 0, 0, links, TIME, len(data), 0, 0, major, minor,
                      len(name) + 1, 0)
            out.extend(b"070701" + b"".join(b"%08X" % v for v in values) + name.encode() + b"\0")
            out.extend(bytes(-len(out) % 4))
            out.extend(data)
            out.extend(bytes(-len(out) % 4))

        # A folder comes before what is in it; sorting sees to that.
        for number, (name, (mode, data, major, minor)) in enumerate(sorted(self.entries.items()), 1):
            add(name, mode, data, number, major, minor)
        add("TRAILER!!!", 0, b"", 0)
        out.extend(bytes(-len(out) % 512))
        return bytes(out)


def own_programs():
    """Our small static programs, built from guest/linux/*.c."""
    return {f"umbra/{path.stem}": BUILD / "guest/linux" / path.stem
            for path in sorted((ROOT / "guest/linux").glob("*.c"))}


def initramfs(guest, output, *, session=None, files=None):
    """Write an initramfs for a Kernel; returns `output`.

    session  text of a shell script that is run instead of an interactive shell; the guest powers
             off when it ends
    files    {path in the guest: file here, or bytes}: further programs, executable
    """
    with locked(CACHE):
        busybox = Packages().tree("busybox-static") / "bin/busybox"
    archive = Archive()
    for folder in ("proc", "sys", "mnt", "root", "run", "usr/bin", "usr/sbin"):
        archive.folder(folder)
    archive.folder("tmp", 0o1777)
    archive.device("dev/console", 5, 1)
    archive.device("dev/null", 1, 3, 0o666)
    archive.file("bin/busybox", busybox, 0o755)
    for name in run(busybox, "--list").split():
        if name != "busybox":
            archive.link(f"bin/{name}", "busybox")
    for name in ("init", "modprobe", "poweroff", "reboot", "halt"):
        archive.link(f"sbin/{name}", "../bin/busybox")
    archive.file("init", INIT.encode(), 0o755)
    archive.file("etc/inittab", INITTAB.encode())
    archive.file("etc/rc", RC.encode(), 0o755)
    archive.file("etc/shutdown", SHUTDOWN.encode(), 0o755)
    archive.file("etc/acpi/PWRF/00000080", BUTTON.encode(), 0o755)
    archive.file("etc/passwd", b"root::0:0:root:/root:/bin/sh\n")
    archive.file("etc/group", b"root:x:0:\n")
    for path in sorted((guest.folder / "modules").iterdir()):
        archive.file(f"lib/modules/{guest.release}/{path.name}", path)
    for place, source in {**own_programs(), **(files or {})}.items():
        archive.file(place, source, 0o755)
    if session is not None:
        archive.file("session", ("#!/bin/sh\n" + session).encode(), 0o755)
    output = pathlib.Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    new = output.with_name(f"{output.name}.{os.getpid()}")
    new.write_bytes(archive.bytes())
    new.rename(output)
    return output


# What the guest shows where nobody can type.
TOUR = """PS4='
# '
set -x
uname -a
nproc
free -m
dmesg | tail -n 5
"""


def configuration(flavour, *, vcpus=2, memory=256, append=None, bzimage=False, session=None,
                  alone=False, files=None, name=None, command_line=COMMAND_LINE):
    """A Config (paths of this machine) with Debian's kernel as VM `linux` and, unless `alone`, a
    small VM `clock` beside it. Needs what `build("guests")` makes. session, files: of initramfs();
    name: of the archive, where several are in use; append: more for the command line."""
    guest = kernel(flavour)
    name = name or ("session" if session is not None else "shell")
    archive = initramfs(guest, BUILD / f"linux/{name}-{flavour}.cpio", session=session, files=files)
    config = Config(name=f"Debian's kernel ({flavour})", folder=ROOT)
    config.set("umbra", "focus", "linux")
    config.set("vm linux", "kernel", guest.vmlinuz if bzimage else guest.vmlinux)
    config.set("vm linux", "modules", archive)
    config.set("vm linux", "cmdline", f"{command_line} {append or ''}".strip())
    config.set("vm linux", "memory", f"{memory}M")
    config.set("vm linux", "vcpus", vcpus)
    if not alone:
        config.set("vm clock", "kernel", BUILD / "guest/clock.elf")
        config.set("vm clock", "cmdline", "period_ms=10000 rounds=0")
        config.set("vm clock", "memory", "16M")
    return config


def linux(arguments):
    p = argparse.ArgumentParser(
        prog="scripts/linux",
        description=f"Fetch Debian's kernel (suite {SUITE}) and busybox into {CACHE}, unpack them, "
                    "and build an initramfs. Prints the files: vmlinuz (bzImage), vmlinux (its ELF "
                    "file, for a quick start by PVH), initramfs.")
    p.add_argument("flavour", nargs="*", metavar="FLAVOUR", help="amd64, cloud; default both")
    p.add_argument("--update", action="store_true", help="look for newer packages")
    p.add_argument("--session", metavar="FILE", help="a shell script that the guest runs instead of "
                                                     "offering a shell")
    options = p.parse_args(arguments)
    if unknown := [name for name in options.flavour if name not in FLAVOURS]:
        p.error(f"no flavour {', '.join(unknown)}; there are {', '.join(FLAVOURS)}")
    session = pathlib.Path(options.session).read_text() if options.session else None
    build("guests")
    for flavour in options.flavour or FLAVOURS:
        guest = kernel(flavour, options.update)
        archive = initramfs(guest, BUILD / f"linux/initramfs-{flavour}.cpio", session=session)
        print(guest.vmlinuz, guest.vmlinux, archive, sep="\n")
    return 0


if __name__ == "__main__":
    main(linux)
