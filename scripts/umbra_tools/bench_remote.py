"""The figures remote.vs_nbd.* of scripts/bench: memory on another host, by Umbra and by Linux alone.

Debian's amd64 kernel runs the same programs (guest/linux/{scan,random,sort}.c) with the same local
memory in the same Bochs: once on the bare machine (tests/bare/), swapping to a network block device,
and once as a guest of Umbra whose memory is on a memory node. The other host is the same: a Linux in
QEMU that runs Debian's nbd-server for the one and build/memnode-verbs for the other, at the other end
of the same wire (Bochs's e1000; MTU 1500). What the bare machine's kernel keeps for itself comes on
top, as it would be most of so little memory: its programs have LOCAL, where the guest has LOCAL in all.

What is counted is emulated time by the time stamp counter, from the program's first access after its
memory has been filled to its last. Bochs counts instructions as time, and would skip the time in
which a processor is halted: both sides wait busily (Linux: idle=poll), so that an answer that takes
the other host a millisecond costs both about the same.
"""

import pathlib
import re
import sys
import tempfile

from . import disk, emulator, linux
from .base import BUILD, ROOT, Failure, say
from .bench_linux import BareSession
from .config import Config
from .run import BOCHS_HIDE, for_emulator, needed_memory

sys.path.append(str(ROOT / "tests/interop"))
from rxe import ADDRESS, Linux, Wire, kernel  # noqa: E402

LOCAL = 64  # MiB: the guest's frames; what programs have on the bare machine
KERNEL = 48  # MiB that Debian's kernel takes: `total` of free(1) is so much less
WHOLE = 256  # MiB: the VM's memory, and the swap device
OURS = "10.77.0.2"
NBD_PORT = 10809
# Instructions that Bochs calls a second: its NICs take one frame each millisecond of that time, so
# that 5 million make a frame cost 5,000 instructions, as on a machine of 3 GHz at 5 Gbit/s.
IPS = 5000000
COMMAND_LINE = "nokaslr no_timer_check tsc=reliable noxsave nowatchdog quiet mitigations=off"
BARE = "acpi=noirq idle=poll"  # the guests' ACPI tables know nothing of the machine's PCI interrupts
TIMEOUT = 7200  # of a boot; ten minutes if the machine has nothing else to do
# The first number is MiB: more than what is here.
WORK = {"scan": "/umbra/scan 160 1", "random": "/umbra/random 160 5000", "sort": "/umbra/sort 80"}
END = "bench: end"

SWAP = f"""modprobe e1000
ip addr add {OURS}/24 dev eth0
ip link set eth0 up
sleep 1
modprobe nbd nbds_max=1
/umbra/nbd {ADDRESS} {NBD_PORT} /dev/nbd0
mkswap /dev/nbd0
swapon /dev/nbd0
free -m
"""


def _configuration(programs, bare, seal):
    """Config of Linux on the bare machine, or of the VM."""
    guest = kernel("swap", ("e1000", "nbd"))
    text = (SWAP if bare else "") + "free -m\n" + "".join(f"{line}\n" for line in programs)
    archive = linux.initramfs(guest, BUILD / f"linux/swap-{bare}.cpio",
                              session=f"{text}echo {END}\nsleep 1\n")
    config = Config(name="Debian's kernel, short of memory", folder=ROOT)
    config.set("umbra", "focus", "linux")
    settings = {"kernel": guest.vmlinux, "modules": archive, "vcpus": 1,
                "cmdline": f"console=ttyS0 tsc_early_khz={IPS // 1000} {COMMAND_LINE}"}
    if bare:
        settings["cmdline"] += f" {BARE}"
        settings["memory"] = f"{LOCAL + KERNEL}M"
    else:
        config.set("umbra", "network", f"{OURS}/24")
        settings.update({"memory": f"{WHOLE}M", "local": f"{LOCAL}M", "remote": ADDRESS,
                         "seal": "yes" if seal else "no"})
    for key, value in settings.items():
        config.set("vm linux", key, value)
    return config


def _run(machine, config, bare):
    for_emulator(config, machine.emulator, BOCHS_HIDE)
    files = {**disk.standard_files(), **config.collect(),
             "umbra/umbra.conf": config.text().encode()}
    if bare:
        files["EFI/BOOT/BOOTX64.EFI"] = BUILD / "bare/BOOTX64.EFI"
    machine.memory = needed_memory(config)
    with tempfile.TemporaryDirectory(dir=BUILD, prefix="bench.") as folder:
        folder = pathlib.Path(folder)
        image = disk.build_image(files, folder / "umbra.img")
        session = (BareSession if bare else emulator.Session)(machine, image, folder)
        session.run(TIMEOUT)
    console = emulator.plain(bytes(session.console))
    # Umbra's log has what the figures are made of: pages read, written, fetched ahead.
    side = "nbd" if bare else "sealed" if config.get("vm linux", "seal") == "yes" else "umbra"
    (BUILD / f"bench-vs-nbd-{side}.txt").write_text(console + emulator.plain(bytes(session.log)))
    if session.reason != "end" or session.status != 0:
        raise Failure("\n".join([*console.rstrip().split("\n")[-40:],
                                 f"Linux did not end well: {session.reason}"]))
    return console


def swap(emulator_name, cpu, names):
    """{name: ticks} of Linux on the bare machine with swap on NBD."""
    nic = emulator.Nic()
    machine = emulator.Machine(emulator_name, cpu, 1, nic=nic, ips=IPS)
    with Linux(Wire(nic), memory=768, more=(("nbd-server", "bin/nbd-server"),)) as host:
        status, said = host.run(
            f"mount -o remount,size=95% /dev/shm && truncate -s {WHOLE}M /dev/shm/swap && "
            f"/bin/nbd-server {ADDRESS}@{NBD_PORT} /dev/shm/swap {WHOLE}M")
        if status:
            raise Failure(f"nbd-server does not start: {said}")
        console = _run(machine, _configuration([WORK[name] for name in names], True, False), True)
    return _ticks(console, names)


def remote(emulator_name, cpu, names, seal):
    """{name: ticks} of Linux as a guest with memory on a node."""
    nic = emulator.Nic()
    machine = emulator.Machine(emulator_name, cpu, 1, nic=nic, ips=IPS)
    with Linux(Wire(nic), memory=768) as host:
        host.node(f"--size {WHOLE + 16}")
        console = _run(machine, _configuration([WORK[name] for name in names], False, seal), False)
    return _ticks(console, names)


def _ticks(console, names):
    found = {}
    for name in names:
        match = re.search(rf"^{name}: .*\b(\d+) ticks\r?$", console, re.M)
        if not match:
            raise Failure(f"{console[-3000:]}\nno figure for {name}")
        found[name] = int(match[1])
    return found


SIDES = {"nbd": swap, "umbra": lambda *arguments: remote(*arguments, False),
         "sealed": lambda *arguments: remote(*arguments, True)}
FIGURES = [f"remote.{where}.{name}" for name in WORK for where in ("vs_nbd", *SIDES)] + [
    f"remote.vs_nbd.{name}_sealed" for name in WORK]


def measure(emulator_name, cpu, names=tuple(WORK)):
    """{name: (value, unit)}: how many times longer Linux takes that swaps, and what that is made of;
    sealed: the same with pages that only this machine can read. A side that does not end well has no
    figures, and those of the others are not lost."""
    figures, sides = {}, {}
    for side, run in SIDES.items():
        try:
            sides[side] = run(emulator_name, cpu, names)
        except Failure as failure:
            say(f"{side}: {failure}")
            continue
        say(f"{side}: " + ", ".join(f"{name} {ticks:,}" for name, ticks in sides[side].items()))
    for name in names:
        for side in ("umbra", "sealed"):
            if side in sides and "nbd" in sides:
                figures[f"remote.vs_nbd.{name}{'_sealed' if side == 'sealed' else ''}"] = (
                    round(sides["nbd"][name] / sides[side][name], 2), "times")
        for side, ticks in sides.items():
            figures[f"remote.{side}.{name}"] = (ticks[name], "ticks")
    return figures
