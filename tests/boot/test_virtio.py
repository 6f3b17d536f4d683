"""The virtio console with somebody typing, and a disk when its VM starts again."""

import pytest

from harness import boot, have_emulator, select
from typist import Answers

LINES = ("hello", "a line of more than eight bytes", "reset", "after the reset", "end")


# The versions do not differ in what is typed; the guest itself runs on both in test_guests.py.
@pytest.mark.parametrize("emulator", [pytest.param("bochs", marks=pytest.mark.long), "bochs3"])
def test_console_and_restart(emulator):
    if not have_emulator(emulator):
        pytest.skip("this machine does not have it")
    typist = Answers(*((b"console: listening", line.encode() + b"\r") for line in LINES))
    config = select(["virtio"], {"virtio": {"cmdline": "talk"}})
    result = boot(config=config, name=f"virtio-talk-{emulator}", emulator_name=emulator,
                  keys=typist.read, on_console=typist)
    lines = [line for line in result.vms["virtio"].tap.lines
             if line.startswith(("console: heard", "disk:", "write:"))]
    assert lines == [
        "disk: as in the image", "write: 0", "console: heard hello",
        "console: heard a line of more than eight bytes", "console: heard reset",
        "disk: as in the image", "write: 0", "console: heard after the reset",
        "console: heard end"], result.explain("virtio")
    assert result.status == 1, result.explain("virtio")
