"""Memory that is saved to the disk, over the end of the emulator: what comes back is what was there
when the guest ended, or when the one before did, or nothing, and the guest is told which."""

import os
import random
import re
import shutil
import struct
import threading
import time

import pytest

from umbra_tools import disk, emulator, linux, results
from umbra_tools.base import BUILD, ROOT
from umbra_tools.config import Config
from umbra_tools.run import BOCHS_HIDE, for_emulator, needed_memory

FAST = "bochs3"


class Disk:
    """A machine's disk, and boots with it."""

    def __init__(self, name, size="2M", budget=64, emulator_name=FAST):
        self.folder = BUILD / "boot-tests" / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.image = self.folder / "disk.img"
        self.size, self.budget, self.emulator = size, budget, emulator_name

    def config(self, options, umbra):
        config = Config(folder=ROOT)
        config.set("vm s", "kernel", BUILD / "guest/pmem_save.elf")
        config.set("vm s", "memory", "8M")
        config.set("vm s", "pmem", f"ram {self.size} saved, ram 2M")
        config.set("vm s", "cmdline", options)
        config.set("umbra", "pmem_save_budget", self.budget)
        for key, value in umbra.items():
            config.set("umbra", key, value)
        return config

    def boot(self, options="", config=None, until=None, after=0, vcpus=1, timeout=150, **umbra):
        """The session after its end: by itself, or `after` seconds behind `until` in the output."""
        config = config or self.config(options, umbra)
        leader = "linux" if "linux" in config.vms() else None
        for_emulator(config, self.emulator, BOCHS_HIDE if leader else None)
        disk.image_for(config, self.image, keep=self.image if self.image.exists() else None)
        machine = emulator.Machine(self.emulator, cpus=vcpus, memory=needed_memory(config),
                                   keep_disk=True)
        session = emulator.Session(machine, self.image, self.folder)
        session.leader = leader
        if until:
            def watch(data, umbra_runs):
                if until in session.console and not session.stopping:
                    session.stopping = True
                    threading.Timer(after, session.stop).start()
            session.stopping = False
            session.on_console = watch
        session.run(timeout)
        (self.folder / "log").write_bytes(session.log)
        (self.folder / "console").write_bytes(session.console)
        return session

    def flip(self, sector, byte, bit=0):
        """A bit of the partition."""
        first, _ = disk.find_partition(self.image, disk.SAVED_TYPE)
        with open(self.image, "r+b") as file:
            file.seek((first + sector) * 512 + byte)
            old = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([old ^ 1 << bit]))

    def generations(self):
        """Of the two headers in the first area."""
        first, _ = disk.find_partition(self.image, disk.SAVED_TYPE)
        with open(self.image, "rb") as file:
            file.seek((first + 16) * 512)
            area = file.read(24 * 512)
        return [struct.unpack_from("<Q", area, 512 * at + 64)[0] for at in (8, 16)]


def text(session):
    return emulator.plain(bytes(session.console))


def log(session):
    return emulator.plain(bytes(session.log))


def found(session):
    """(run, state) that the first start of a machine found; nothing may have been wrong with it."""
    assert "FAILED" not in text(session), text(session)[-2000:]
    m = re.search(r"# run (\d+), state (\d+), generation", text(session))
    assert m, text(session)[-2000:] + log(session)[-2000:]
    return int(m[1]), int(m[2])


def assert_passed(session):
    [vm] = results.vm_results(["s"], session.console, session.log)
    assert session.reason == "end" and session.status == 1 and vm.problem() is None, \
        f"{vm.problem()}\n{text(session)[-2000:]}\n{log(session)[-3000:]}"


def test_over_the_end_of_the_machine():
    """Runs that end by failures of power, some of which come too fast; another machine with the same
    disk; damage to the newest save, then to both."""
    d = Disk("pmem-save")
    session = d.boot("losses=8 torn", pmem_power_loss_sectors=460)
    assert_passed(session)
    last = int(re.search(r"# the last run is (\d+)", text(session))[1])
    session = d.boot("losses=0")
    assert_passed(session)
    assert found(session) == (last, 0)
    assert re.search(r"vm s: NVDIMM 0: saved, \d+ pages, \d+ sectors", log(session))
    # Headers are at 8 and 16 of the area, which is at 16: a bit of the newer one.
    newest = max(range(2), key=lambda n: d.generations()[n])
    d.flip(16 + 8 * (newest + 1), 65)
    session = d.boot("losses=0 old")
    assert_passed(session)
    assert found(session) == (last, 1)
    d.flip(16 + 8, 3)
    d.flip(16 + 16, 3)
    session = d.boot("losses=0 lost")
    assert_passed(session)
    assert found(session) == (0, 2)
    assert "starts EMPTY" in log(session)


def chain(d, boots, seed):
    """Machines that end at a random moment, each checking what the one before left. Returns how many
    times there was (a whole save, an old one)."""
    rng = random.Random(seed)
    d.boot("losses=0 pages=400")
    last, whole, old = 1, 0, 0
    for n in range(boots):
        # In the middle of writing, or around the save at the end.
        if rng.random() < 0.5:
            session = d.boot("endless pages=300" + (" either" if n else ""), until=b"# run ",
                             after=rng.uniform(0, 0.8))
            left = {(last, 1)}
        else:
            session = d.boot("losses=0 pages=400" + (" either" if n else ""),
                             until=b"# the last run is", after=rng.uniform(0, 0.15))
            left = {(last, 1), (last + 1, 0)}
        run, state = found(session)
        if n:
            assert (run, state) in expected, (expected, log(session)[-2000:])
            whole += state == 0
            old += state == 1
        expected = {(run, 1)} if len(left) == 1 else {(run, 1), (run + 1, 0)}
        last = run
    session = d.boot("losses=0 either")
    assert_passed(session)
    assert found(session) in expected
    return whole, old


def test_ended_at_random():
    chain(Disk("pmem-save-random", size="4M", budget=500), 2, 1)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_ended_at_random_long(seed):
    whole, old = chain(Disk(f"pmem-save-random-{seed}", size="4M", budget=500), 12, 100 + seed)
    assert whole and old


@pytest.mark.long
def test_bochs27():
    d = Disk("pmem-save-27", emulator_name="bochs")
    assert_passed(d.boot("losses=2"))
    session = d.boot("losses=0")
    assert_passed(session)
    assert found(session) == (3, 0)


def test_outage():
    """The monitor's command: everything ends within the budget, and is there afterwards."""
    d = Disk("pmem-outage", size="4M", budget=200)
    reader, writer = os.pipe()

    def type_it(session):
        os.write(writer, b"\x01m")
        time.sleep(1)
        os.write(writer, b"outage\r")

    config = d.config("endless pages=100", {"focus": "s"})
    for_emulator(config, d.emulator)
    disk.image_for(config, d.image)
    session = emulator.Session(emulator.Machine(d.emulator, memory=1024, keep_disk=True), d.image,
                               d.folder)
    started = threading.Event()

    def watch(data, umbra_runs):
        if b"# run 0" in session.console and not started.is_set():
            started.set()
            threading.Thread(target=type_it, args=(session,), daemon=True).start()
    session.on_console = watch
    session.run(150, reader)
    os.close(writer)
    os.close(reader)
    assert session.reason == "end", log(session)[-3000:]
    m = re.search(r"vm s: NVDIMM 0: saved, (\d+) pages, (\d+) sectors", log(session))
    assert m, log(session)[-3000:]
    pages = (4 << 20) // 4096 + disk.LABEL_PAGES
    assert int(m[1]) <= 200 and int(m[2]) <= 200 * 8 + -(-pages * 8 // 512) + 1
    # It was writing: the checksum may not fit, but the state is that of a good save.
    after = d.boot("losses=0")
    assert re.search(r"# run \d+, state 0,", text(after)), text(after)[-2000:]


MODULES = "for m in nfit nd_pmem ext4; do modprobe $m; done"
WRITE = MODULES + r"""
ls -l /dev/pmem0
/sbin/mke2fs -q -F -t ext4 /dev/pmem0 && mount -t ext4 /dev/pmem0 /mnt && echo mounted
i=0
while [ $i -lt 10 ]; do
	dd if=/dev/urandom of=/mnt/file$i bs=64k count=8 2>/dev/null
	i=$((i + 1))
done
cd /mnt; md5sum file* >/mnt/sums; cat sums; cd /; umount /mnt
echo @@ end
"""
READ = MODULES + r"""
echo @@ flags; cat /sys/bus/nd/devices/nmem0/nfit/flags; echo .
/sbin/e2fsck -f -n /dev/pmem0 && echo clean
mount -t ext4 /dev/pmem0 /mnt && echo mounted; cd /mnt
md5sum -c sums; cat sums
cp file3 file10; rm file4; md5sum file* >sums; cd /; umount /mnt
echo @@ end
"""


@pytest.mark.long
def test_ext4():
    """A file system on /dev/pmem0 survives the guest's restart and the emulator's, with checksums."""
    d = Disk("pmem-ext4", budget=1024)
    files = linux.programs(("e2fsprogs", "sbin/mke2fs"), ("e2fsprogs", "sbin/e2fsck"))

    def linux_config(script, name):
        config = linux.configuration("cloud", vcpus=1, session=script, alone=True, files=files,
                                     name=name)
        config.set("vm linux", "pmem", "ram 16M saved")
        config.set("umbra", "pmem_save_budget", 1024)
        return config

    session = d.boot(config=linux_config(WRITE, "pmem-write"), timeout=600)
    assert session.status == 0, text(session)[-3000:]
    assert "mounted" in text(session), text(session)[-3000:]
    sums = re.findall(r"[0-9a-f]{32}  file\d", text(session))
    assert len(sums) == 10
    for n in range(2):
        session = d.boot(config=linux_config(READ, "pmem-read"), timeout=600)
        assert session.status == 0, text(session)[-3000:]
        part = text(session)
        assert "clean" in part and "mounted" in part, part[-3000:]
        assert "NVDIMM 0: restored" in log(session)
        assert not re.search(r": FAILED|save_fail|restore_fail|not_armed", part), part[-3000:]
        assert part.count(": OK") == 10, part[-3000:]
        if n == 0:
            assert all(s in part for s in sums)
