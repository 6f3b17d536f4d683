"""Power fails a thousand times and more under the log-structured store of guest/pmem_log.c, each
time at an instruction that chance picks, in one boot. The matrix of test_guests.py runs a hundred
in every cell."""

import re

import pytest

from harness import bochs_version, boot, have_emulator, select

CUTS = 1200


@pytest.mark.long
@pytest.mark.parametrize("emulator,cpu,cpus,vcpus,seed", [
    pytest.param("bochs3", "corei7_skylake_x", 2, 4, 7, id="bochs3-4-vcpus"),
    pytest.param("bochs", "corei7_haswell_4770", 1, 2, 8, id="bochs-shared-cpu"),
])
def test_a_thousand_cuts(emulator, cpu, cpus, vcpus, seed):
    if not have_emulator(emulator):
        pytest.skip(f"this machine has Bochs {bochs_version(emulator)} only")
    config = select(["pmem_log"])
    config.set("vm pmem_log", "cmdline", f"cuts={CUTS} seed={seed}")
    config.set("vm pmem_log", "vcpus", str(vcpus))
    result = boot(config=config, name=f"cuts-{emulator}", emulator_name=emulator, cpu=cpu,
                  cpus=cpus, timeout=900)
    assert result.vms["pmem_log"].problem() is None, result.explain("pmem_log")
    assert re.search(r"flushes of its 4 controllers: (\d+)( \1){3}\r?\n", result.log), \
        result.explain()
