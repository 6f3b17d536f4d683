"""The figures linux.* of scripts/bench: Debian's kernel under Umbra and on the bare machine.

Both sides boot the same kernel by PVH with the same command line, initramfs, memory map and ACPI
tables, with one CPU; the bare side by the EFI application of tests/bare/. What a boot or a loop
takes is read off the time stamp counter, which counts instructions in Bochs, by programs in the
initramfs. tests/README.md says what still differs.
"""

import pathlib
import re
import tempfile

from . import disk, emulator, linux
from .base import BUILD, Failure
from .run import BOCHS_HIDE, for_emulator, needed_memory

FLAVOUR = "cloud"
# The models' CPUID says 3.5 GHz and more, where the emulated clock goes at 50 MHz; Umbra says the
# latter. Bochs 2.7's XSAVE state has a size that the bare kernel does not believe: without on both.
# loglevel: what the kernel warns of on the bare machine, it would wait for a serial port to say.
COMMAND_LINE = "nokaslr no_timer_check tsc=reliable tsc_early_khz=50000 noxsave loglevel=0"
END = "bench: end"
# The second is for the serial port: what it has not sent at power-off is lost on the bare machine.
LAST = f"echo {END}\nsleep 1\n"
BOOT = f"/umbra/tsc\n{LAST}"
LOOPS = f"/umbra/compute 20000000\n/umbra/memory 32 2\n{LAST}"
TIMEOUT = 300

FIGURES = ["linux.boot_ratio", "linux.boot_exits", "linux.compute_ratio", "linux.memory_ratio"]
# What the ratios are made of.
PARTS = [f"linux.{what}_{where}" for what in ("boot", "compute", "memory")
         for where in ("umbra", "bare")]


class BareSession(emulator.Session):
    """Umbra's log stays empty, and nothing switches the machine off: the guest's last word ends it."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.silent_log = True

    def _judge(self):
        # The line, and not the kernel's or the shell's echo of it.
        if re.search(rb"^%b\r?$" % END.encode(), self.console, re.M):
            self.reason, self.status = "end", 0
        elif emulator.LOADER_GAVE_UP in self.console:
            self.reason = "firmware"
        return self.reason is not None


def _boot(emulator_name, cpu, session_text, bare):
    """(console, log) of one boot."""
    config = linux.configuration(FLAVOUR, vcpus=1, alone=True, append=COMMAND_LINE,
                                 session=session_text)
    for_emulator(config, emulator_name, BOCHS_HIDE)  # as scripts/run
    files = {**disk.standard_files(), **config.collect(),
             "umbra/umbra.conf": config.text().encode()}
    if bare:
        files["EFI/BOOT/BOOTX64.EFI"] = BUILD / "bare/BOOTX64.EFI"
    machine = emulator.Machine(emulator_name, cpu, 1, needed_memory(config))
    with tempfile.TemporaryDirectory(dir=BUILD, prefix="bench.") as folder:
        folder = pathlib.Path(folder)
        image = disk.build_image(files, folder / "umbra.img")
        session = (BareSession if bare else emulator.Session)(machine, image, folder)
        session.run(TIMEOUT)
    console = emulator.plain(bytes(session.console))
    log = emulator.plain(bytes(session.log))
    if session.reason != "end" or session.status != 0 or not re.search(f"^{END}$", console, re.M):
        where = "on the bare machine" if bare else "under Umbra"
        raise Failure("\n".join([*(console + log).rstrip().split("\n")[-30:],
                                 f"Linux {where} did not end well: {session.reason}"]))
    return console, log


def _find(pattern, text, what):
    found = re.search(pattern, text, re.M)
    if not found:
        raise Failure(f"{text[-2000:]}\nno figure for {what}")
    return int(found[1])


def _loops(console):
    return {"compute": _find(r"^compute: \d+ rounds, \d+, (\d+) ticks$", console, "compute"),
            "memory": _find(r"^memory: .*, (\d+) ticks$", console, "memory")}


def measure(emulator_name, cpu):
    """{name: (value, unit)}; ratios are of instructions, Umbra's to the bare machine's."""
    umbra, bare, figures = {}, {}, {}
    console, log = _boot(emulator_name, cpu, BOOT, False)
    umbra["boot"] = _find(r"^(\d+)$", console, "the boot under Umbra")  # its TSC began at 0
    # The VM powers off behind the shell's first command and a second's sleep: some dozen exits.
    figures["linux.boot_exits"] = (_find(r"vm linux: (\d+) exits", log, "exits"), "exits")
    umbra.update(_loops(_boot(emulator_name, cpu, LOOPS, False)[0]))
    console, _ = _boot(emulator_name, cpu, BOOT, True)
    bare["boot"] = (_find(r"^(\d+)$", console, "the bare boot")
                    - _find(r"^bare: kernel entry at TSC (\d+)$", console, "the bare start"))
    bare.update(_loops(_boot(emulator_name, cpu, LOOPS, True)[0]))
    for what, value in umbra.items():
        figures[f"linux.{what}_ratio"] = (round(value / bare[what], 4), "ratio")
        figures[f"linux.{what}_umbra"] = (value, "instructions")
        figures[f"linux.{what}_bare"] = (bare[what], "instructions")
    return figures
