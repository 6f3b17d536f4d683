"""scripts/image: make the bootable image, or write a USB stick."""

import argparse
import json
import os
import pathlib
import stat
import sys
import tempfile

from . import linux
from .base import BUILD, Failure, build, main, run, say
from .config import Config
from .disk import image_for

CHUNK = 1 << 20


def device_report(device):
    """(lines that describe the device, its size); refuses what must not be overwritten."""
    try:
        mode = os.stat(device).st_mode
    except OSError as error:
        raise Failure(f"{device}: {error.strerror}") from None
    if not stat.S_ISBLK(mode):
        raise Failure(f"{device} is not a block device; use --output to write an image file")
    columns = "PATH,TYPE,SIZE,VENDOR,MODEL,SERIAL,TRAN,RO,FSTYPE,LABEL,MOUNTPOINTS"
    tree = json.loads(run("lsblk", "--json", "--bytes", "--output", columns, device))
    disk = tree["blockdevices"][0]
    if disk["type"] not in ("disk", "loop"):
        raise Failure(f"{device} is a {disk['type']}, not a whole disk")
    if disk["ro"]:
        raise Failure(f"{device} is read-only")

    lines, used = [], []

    def walk(node, depth):
        mounts = [m for m in node.get("mountpoints") or [] if m]
        size = int(node["size"])
        text = " ".join(filter(None, [node["path"], node["type"], f"{size / 1e9:.1f} GB",
                                      node.get("vendor") and node["vendor"].strip(),
                                      node.get("model"), node.get("serial"), node.get("tran"),
                                      node.get("fstype"), node.get("label")]))
        lines.append("  " * (depth + 1) + text)
        used.extend(f"{node['path']} is in use: {m}" for m in mounts)
        if node["type"] not in ("disk", "part", "loop"):
            used.append(f"{node['path']} ({node['type']}) is active on it")
        for child in node.get("children", []):
            walk(child, depth + 1)

    walk(disk, 0)
    if used:
        raise Failure(f"refusing to overwrite {device}: " + "; ".join(used))
    return lines, int(disk["size"])


def write_device(image, device):
    lines, size = device_report(device)
    length = os.path.getsize(image)
    if size < length:
        raise Failure(f"{device} holds {size} bytes, the image needs {length}")
    print("This will be OVERWRITTEN, with everything on it:", *lines, sep="\n")
    print(f"Type YES to write {length / 1e6:.1f} MB to {device}: ", end="", flush=True)
    if sys.stdin.readline().strip() != "YES":
        raise Failure("not written")
    try:
        # O_EXCL: the kernel refuses if anything has claimed the disk since.
        target = os.open(device, os.O_RDWR | os.O_EXCL)
    except OSError as error:
        raise Failure(f"{device}: {error.strerror}") from None
    with open(image, "rb") as source, os.fdopen(target, "r+b", buffering=0) as out:
        # An older table at the far end would contradict the new one.
        out.seek(size - min(size, CHUNK))
        out.write(bytes(min(size, CHUNK)))
        out.seek(0)
        while chunk := source.read(CHUNK):
            out.write(chunk)
        os.fsync(out.fileno())
        source.seek(0)
        os.posix_fadvise(out.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        out.seek(0)
        while chunk := source.read(CHUNK):
            if out.read(len(chunk)) != chunk:
                raise Failure(f"{device} does not read back what was written: is it broken?")
    run("sfdisk", "--quiet", "--relocate", "gpt-bak-std", device,
        env=dict(os.environ, PATH=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"))
    say(f"written to {device}; it may be removed now")


def image(arguments):
    p = argparse.ArgumentParser(
        prog="scripts/image",
        description="Make the bootable GPT image with loader, hypervisor, configuration and all "
                    "files that the configuration names. Identical contents give identical images.")
    p.add_argument("--config", metavar="F",
                   help="umbra.conf with paths of this machine, relative to F (default: Debian's "
                        "kernel with a shell on COM1, and the guest `clock` beside it)")
    p.add_argument("--output", metavar="F", help=f"image file (default {BUILD / 'umbra.img'})")
    p.add_argument("--device", metavar="/dev/sdX",
                   help="write a USB stick, after showing what is on it and asking")
    p.add_argument("--fat", type=int, choices=(16, 32),
                   help="default: 32 for a device, else what is smallest")
    p.add_argument("--no-build", action="store_true", help="use what is built already")
    options = p.parse_args(arguments)
    config = Config.load(options.config) if options.config else None
    if options.device:
        device_report(options.device)  # refuse early
    if not options.no_build:
        build("all")
    if config is None:
        config = linux.configuration(linux.DEFAULT, command_line="console=ttyS0")
    if options.output or not options.device:
        output = pathlib.Path(options.output or BUILD / "umbra.img")
        image_for(config, output, options.fat or (32 if options.device else None))
        say(f"{output}: {output.stat().st_size / 1e6:.1f} MB")
        if options.device:
            write_device(output, options.device)
    else:
        BUILD.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD, prefix="image.") as folder:
            # Firmware of real machines is at home with FAT32.
            output = image_for(config, pathlib.Path(folder) / "umbra.img", options.fat or 32)
            write_device(output, options.device)
    return 0


if __name__ == "__main__":
    main(image)
