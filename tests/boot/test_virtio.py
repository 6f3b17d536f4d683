"""The virtio console with somebody typing, and a disk when its VM starts again."""

import os

import pytest

from harness import boot, have_emulator, select


class Typist:
    """Types the next line each time the guest listens."""

    def __init__(self, *lines):
        self.lines, self.seen = list(lines), b""
        self.read, self.write = os.pipe()

    def __call__(self, data, _):
        self.seen += data
        while self.lines and b"console: listening" in self.seen:
            self.seen = self.seen.split(b"console: listening", 1)[1]
            os.write(self.write, self.lines.pop(0).encode() + b"\r")


@pytest.mark.parametrize("emulator", ["bochs", "bochs3"])
def test_console_and_restart(emulator):
    if not have_emulator(emulator):
        pytest.skip("this machine does not have it")
    typist = Typist("hello", "a line of more than eight bytes", "reset", "after the reset", "end")
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
