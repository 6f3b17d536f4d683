"""Kernels that are not ours and not Linux: whatever a boot protocol starts should run."""

import re

from harness import boot
from umbra_tools import linux
from umbra_tools.base import locked
from umbra_tools.config import Config

ERRORS = re.compile(r"Pass: +(\d+) +Errors: +(\d+)")


def test_memtest():
    """Debian's memtest86+ by Linux's boot protocol: a bzImage that Linux's build did not make. It
    finds its memory by the e820 map, draws on the serial port, and goes on for ever: it is stopped
    when three of its tests are behind it."""
    with locked(linux.CACHE):
        kernel = linux.Packages().tree("memtest86+") / "boot/memtest86+x64.bin"
    config = Config(name="memtest", folder=kernel.parent)
    config.set("vm memtest", "kernel", kernel)
    config.set("vm memtest", "cmdline", "console=ttyS0,115200")
    config.set("vm memtest", "memory", "8M")
    sessions = []

    def watch(*_):
        if b"#6  [" in sessions[0].console:
            sessions[0].stop()

    result = boot(config=config, name="memtest", emulator_name="bochs3", timeout=150,
                  ready=sessions.append, on_console=watch)
    assert result.reason == "stopped", result.explain()
    assert "Memtest86+" in result.console and "Status: Testing" in result.console, result.explain()
    assert re.search(r"4MB - 8MB \[4MB of 7\.\d+MB\]", result.console), result.console[-3000:]
    found = ERRORS.findall(result.console)
    assert found and all(errors == "0" for _, errors in found), result.console[-3000:]
