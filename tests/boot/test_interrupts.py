"""Interrupts in numbers: guest/interrupts.c with the counts that a short run leaves out."""

import pytest

from harness import EMULATORS, boot, have_emulator, select


@pytest.mark.long
@pytest.mark.parametrize("emulator", EMULATORS)
def test_a_million(emulator):
    """Of a million deadlines, periods and bytes none is lost, none comes twice, and nothing else."""
    if not have_emulator(emulator):
        pytest.skip("this machine has no Bochs 2.7")
    config = select(["interrupts"], {"interrupts": {"cmdline": "count=1000000"}})
    result = boot(config=config, name=f"million-{emulator}", emulator_name=emulator, timeout=1500)
    assert result.vms["interrupts"].problem() is None, result.explain("interrupts")
