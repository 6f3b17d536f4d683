"""The guest kernels on Umbra: every guest in every cell of a matrix of emulated machines.

One boot per cell runs its guests, one after the other; each guest is one test item. The cells cover
all pairs of (Bochs version, CPU model), and every optional feature is hidden in some cell. With
several CPUs only the guests run that have more than one vCPU, and on the model that no other cell
has, those that depend on the model: the others would leave CPUs idle, which costs the emulator as
much as if they worked. --long has every guest everywhere, the full product, and each feature hidden
alone.
"""

import functools
import re

import pytest

from harness import EMULATORS, bochs_version, boot, have_emulator
from umbra_tools.base import EXIT_HYPERVISOR, ROOT
from umbra_tools.config import Config
from umbra_tools.run import DEFAULT_CONFIG

GUESTS = Config.load(DEFAULT_CONFIG).vms()
SMP_GUESTS = [guest for guest in GUESTS
              if int(Config.load(DEFAULT_CONFIG).get(f"vm {guest}", "vcpus", "1")) > 1]
# What they find depends on the processor: XSAVE states, CPUID and MSRs, A/D bits and PML.
MODEL_GUESTS = ["policies", "memory", "isolation"]
# scripts/bench; test_vms.py; test_monitor.py; test_remote.py; test_pmem_stores.py
NOT_TESTS = {"bench", "sharing", "monitored", "remote", "pmem_stores"}

MODELS = ("corei7_haswell_4770", "corei7_skylake_x", "tigerlake")
CPU_COUNTS = (1, 2, 4)

# (emulator, model, CPUs). Several CPUs slow Bochs 3.0 down to a third: it then needs its debugger's
# loop (scripts/umbra_tools/emulator.py). So it has two of them here, for what 2.7 has not (posted
# interrupts), and 2.7 has the four.
CELLS = [
    ("bochs", "corei7_haswell_4770", 1),
    ("bochs", "tigerlake", 2),
    ("bochs", "corei7_skylake_x", 4),
    ("bochs3", "corei7_haswell_4770", 1),
    ("bochs3", "tigerlake", 1),
    ("bochs3", "corei7_skylake_x", 2),
]
FEWER = {
    ("bochs", "tigerlake", 2, ""): SMP_GUESTS + MODEL_GUESTS,
    ("bochs", "corei7_skylake_x", 4, ""): SMP_GUESTS,
    ("bochs3", "corei7_skylake_x", 2, ""): SMP_GUESTS,
}


def features():
    """Names of the optional features, from the header that the loader and Umbra share."""
    text = (ROOT / "include/umbra/features.h").read_text()
    return re.findall(r"^\tFEAT_\w+,\s*/\* (\w+):", text, re.M)


# Together, the first two hide every feature; a feature that others need is hidden without them.
NEEDED_BY_OTHERS = ("ept_ad", "vid", "vmfunc")
HIDDEN = {
    "even": [f for f in features()[0::2] if f not in NEEDED_BY_OTHERS],
    "odd": [f for f in features()[1::2] if f not in NEEDED_BY_OTHERS],
    "needed": list(NEEDED_BY_OTHERS),
    "all": features(),
}
# "all" is on 3.0, which is twice as fast: without features the versions differ little. "needed" is
# in --long, as tests/unit/caps.c (test_hide) follows these chains, and "all" hides the three as well.
HIDE_CELLS = [
    ("bochs3", "corei7_skylake_x", 1, "even"),
    ("bochs3", "tigerlake", 1, "odd"),
    ("bochs3", "tigerlake", 1, "all"),
]
LONG_HIDE_CELLS = [
    ("bochs3", "corei7_skylake_x", 1, "needed"),
    ("bochs", "tigerlake", 1, "all"),
    ("bochs3", "corei7_skylake_x", 2, "even"),
    ("bochs3", "tigerlake", 2, "odd"),
    ("bochs", "tigerlake", 2, "all"),
]


def cell_name(emulator, model, cpus, hidden=""):
    return f"{emulator}-{model}-{cpus}" + (f"-hide-{hidden}" if hidden else "")


@functools.lru_cache(None)
def booted(guests, emulator, model, cpus, hidden=""):
    if not have_emulator(emulator):
        pytest.skip(f"this machine has Bochs {bochs_version(emulator)} only")
    return boot(guests, name=cell_name(emulator, model, cpus, hidden), emulator_name=emulator,
                cpu=model, cpus=cpus, hide=HIDDEN.get(hidden, [hidden] if hidden else []))


def cell_guests(cell, long):
    chosen = GUESTS if long else FEWER.get(cell, GUESTS)
    return tuple(guest for guest in GUESTS if guest in chosen)


def cases():
    cells = [(*cell, "") for cell in CELLS] + HIDE_CELLS
    full = [(e, m, c, "") for e in EMULATORS for m in MODELS for c in CPU_COUNTS]
    full += LONG_HIDE_CELLS + [("bochs3", "corei7_skylake_x", 1, f) for f in features()]
    for cell in cells + [cell for cell in full if cell not in cells]:
        for guest in GUESTS:
            marks = [pytest.mark.xdist_group(cell_name(*cell))]
            if cell not in cells or guest not in cell_guests(cell, False):
                marks.append(pytest.mark.long)
            yield pytest.param(cell, guest, marks=marks, id=f"{cell_name(*cell)}-{guest}")


@pytest.mark.parametrize("cell,guest", cases())
def test_guest(cell, guest, long):
    result = booted(cell_guests(cell, long), *cell)
    assert result.vms[guest].problem() is None, result.explain(guest)


@pytest.mark.parametrize("cell", [
    pytest.param(cell, marks=pytest.mark.xdist_group(cell_name(*cell)), id=cell_name(*cell))
    for cell in [(*cell, "") for cell in CELLS] + HIDE_CELLS])
def test_machine(cell, long):
    """The boot as a whole: the hypervisor ends by itself and reports no bug of its own."""
    result = booted(cell_guests(cell, long), *cell)
    assert result.reason == "end" and result.status != EXIT_HYPERVISOR, result.explain()
    assert not re.search(r"\] error: ", result.log), result.explain()


def test_every_guest_is_listed():
    """A guest kernel that default.conf forgets would never be tested."""
    kernels = {path.stem for path in (ROOT / "guest").glob("*.c")} - NOT_TESTS
    base = Config.load(DEFAULT_CONFIG)
    named = {re.search(r"(\w+)\.(elf|bzimage)", base.get(f"vm {vm}", "kernel"))[1]
             for vm in base.vms()}
    assert kernels == named


def test_every_feature_is_hidden():
    assert set(features()) == {f for _, _, _, h in HIDE_CELLS for f in HIDDEN[h]}
    assert len(features()) >= 15
