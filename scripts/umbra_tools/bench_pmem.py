"""The figures pmem.fsync* of scripts/bench: Debian's kernel writes 4 KiB and makes them durable, again
and again (fio --fsync=1, ext4): on a modelled NVDIMM with DAX, and on Umbra's virtio disk, which
keeps its data in RAM as the model does, and whose flush is therefore nothing but the request."""

import pathlib
import re
import tempfile

from . import disk, emulator, linux, linux_pmem
from .base import BUILD, Failure
from .bench_linux import FLAVOUR
from .run import BOCHS_HIDE, for_emulator, needed_memory

WRITES = 512
KHZ = 50000  # of the emulated TSC, which counts instructions
TIMEOUT = 400
PLACES = ("trap", "none", "virtio")
FIGURES = ["pmem.fsync_vs_virtio", "pmem.fsync_vs_virtio.none",
           *(f"pmem.fsync.{place}" for place in PLACES)]

SESSION = rf"""
for m in nfit nd_pmem ext4; do modprobe $m; done
ndctl create-namespace -f -e namespace0.0 -m fsdax >/dev/null
work() {{ # name, device, mount options
	/sbin/mke2fs -q -F -t ext4 -b 4096 $2 && mount -t ext4 -o $3 $2 /mnt
	fio --name=warm --directory=/mnt --rw=write --bs=4k --size=256k --fsync=1 --ioengine=sync \
		--output-format=terse >/dev/null
	echo "$1 $(fio --name=x --directory=/mnt --rw=write --bs=4k --size={WRITES * 4}k --fsync=1 \
		--ioengine=sync --output-format=terse | cut -d';' -f49)"
	umount /mnt
}}
work trap /dev/pmem0 dax=always
pmem none; work none /dev/pmem0 dax=always
work virtio /dev/vda rw
"""


def figures_of(console):
    """{name: (value, unit)} of the session's output: fio's writes a second."""
    rate = {place: float(found[1]) for place in PLACES
            if (found := re.search(rf"^{place} ([0-9.]+)\r?$", console, re.M))}
    if set(rate) != set(PLACES) or not all(rate.values()):
        raise Failure(f"{console[-2000:]}\nno figures for pmem.fsync")
    figures = {f"pmem.fsync.{place}": (round(KHZ * 1000 / rate[place]), "instructions")
               for place in PLACES}
    figures["pmem.fsync_vs_virtio"] = (round(rate["trap"] / rate["virtio"], 4), "ratio")
    figures["pmem.fsync_vs_virtio.none"] = (round(rate["none"] / rate["virtio"], 4), "ratio")
    return figures


def measure(emulator_name, cpu):
    files = linux_pmem.programs((("ndctl", "usr/bin/ndctl"), ("e2fsprogs", "sbin/mke2fs"),
                                 ("fio", "usr/bin/fio")), cuts=False)
    config = linux.configuration(FLAVOUR, vcpus=1, alone=True, session=SESSION, files=files,
                                 name="bench-pmem")
    with tempfile.TemporaryDirectory(dir=BUILD, prefix="bench.") as folder:
        folder = pathlib.Path(folder)
        blank = folder / "blank.img"
        blank.write_bytes(bytes(32 << 20))
        config.set("vm linux", "pmem", "model 32M")
        config.set("vm linux", "disks", f"{blank} cow")
        for_emulator(config, emulator_name, BOCHS_HIDE)
        files = {**disk.standard_files(), **config.collect(),
                 "umbra/umbra.conf": config.text().encode()}
        image = disk.build_image(files, folder / "umbra.img")
        machine = emulator.Machine(emulator_name, cpu, 1, needed_memory(config))
        session = emulator.Session(machine, image, folder)
        session.run(TIMEOUT)
    console = emulator.plain(bytes(session.console))
    if session.reason != "end" or session.status != 0:
        raise Failure(f"{console[-3000:]}\nLinux did not end well: {session.reason}")
    return figures_of(console)
