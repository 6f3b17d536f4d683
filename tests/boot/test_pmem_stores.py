"""Stores to flush hints by instructions that Umbra does not emulate, which the guest executes itself
for one step (guest/pmem_stores.c)."""

import pytest

from harness import bochs_version, boot, have_emulator, select

VM = {"kernel": "${BUILD}/guest/pmem_stores.elf", "memory": "8M", "vcpus": "2", "pmem": "model 2M"}


@pytest.mark.parametrize("emulator,cpus", [
    ("bochs", 1), pytest.param("bochs3", 1, marks=pytest.mark.long)])
def test_stores(emulator, cpus):
    if not have_emulator(emulator):
        pytest.skip(f"this machine has Bochs {bochs_version(emulator)} only")
    result = boot(config=select(["stores"], {"stores": VM}), emulator_name=emulator,
                  name=f"pmem-stores-{emulator}", cpus=cpus, cpu="corei7_skylake_x")
    assert result.vms["stores"].problem() is None, result.explain("stores")
