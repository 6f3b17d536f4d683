"""The guest kernels directly in QEMU (TCG, -kernel): they are ordinary kernels, and what they check
of the processor holds without Umbra too."""

import subprocess

import pytest

from umbra_tools.base import BUILD
from umbra_tools.config import Config
from umbra_tools.results import parse_tap
from umbra_tools.run import DEFAULT_CONFIG

CONFIG = Config.load(DEFAULT_CONFIG)
NOT_IN_TCG = {
    "corner": "what it checks, processors and Bochs do, and QEMU's TCG does not",
    "linuxboot": "QEMU starts a bzImage in real mode, at its 16-bit entry point",
}


@pytest.mark.parametrize("vm", CONFIG.vms())
def test_reference(vm):
    if vm in NOT_IN_TCG:
        pytest.skip(NOT_IN_TCG[vm])
    kernel = CONFIG.get(f"vm {vm}", "kernel").replace("${BUILD}", str(BUILD))
    command = ["qemu-system-x86_64", "-machine", "q35,accel=tcg", "-cpu", "max", "-m", "64",
               "-smp", CONFIG.get(f"vm {vm}", "vcpus", "1"), "-display", "none", "-nodefaults",
               "-no-reboot", "-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4",
               "-kernel", kernel]
    if cmdline := CONFIG.get(f"vm {vm}", "cmdline"):
        command += ["-append", cmdline]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=120)
    output = done.stdout.decode(errors="replace").replace("\r", "")
    tap = parse_tap(output.split("\n"))
    assert tap.problem() is None and done.returncode in (0, 1), \
        f"status {done.returncode}: {tap.problem()}\n{output[-3000:]}"
