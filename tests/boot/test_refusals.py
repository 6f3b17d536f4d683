"""The loader says what is wrong and returns to the firmware: QEMU without VT-x, from a USB stick.

The processor there has no VT-x, which is one complaint in every case; the loader goes on looking
for others, so each broken configuration and file must be named as well.

What the parser says of each mistake in a configuration is in tests/unit/config.c too, without a
boot: those that reach the screen by the same way as another are booted with --long only.
"""

import re

import pytest

from harness import boot
from umbra_tools.base import BUILD

NO_VTX = r"error: this processor has no VT-x: CPUID\.01H:ECX bit 5"
HELLO = "[vm hello]\nkernel = hello.elf\n"


def refused(name, *expected, config="[umbra]\n" + HELLO, files=None, **options):
    """Boot; each regular expression must match a loader line; no other error may be reported."""
    contents = {"umbra/hello.elf": BUILD / "guest/hello.elf", **(files or {})}
    result = boot(config=config, name=f"refusal-{name}", emulator_name="qemu", usb=True, cpus=1,
                  memory=512, files=contents, timeout=90, **options)
    assert result.reason == "firmware", result.explain()
    assert result.loader[-1].endswith("returning to firmware"), result.loader
    errors = [line for line in result.loader if "error:" in line]
    for pattern in (NO_VTX, *expected):
        hits = [line for line in errors if re.search(pattern, line)]
        assert hits, f"no error matches {pattern!r}: {result.loader}"
        errors = [line for line in errors if line not in hits]
    assert not errors, f"unexpected: {errors}"
    return result


def test_no_vtx():
    """A sound image on a machine without VT-x: that alone is said, and what to do."""
    result = refused("no-vtx")
    assert any("nested" in line for line in result.loader)


CONF = r"umbra\.conf"
CONFIGS = {
    "unknown-key": (f"[umbra]\nwibble = 1\n{HELLO}", rf'{CONF}:2: unknown key "wibble"'),
    "unknown-section": (f"[umbra]\n[network]\n{HELLO}", rf'{CONF}:2: unknown section "network"'),
    "repeated-key": (f"{HELLO}vcpus = 1\nvcpus = 2\n", rf"{CONF}:4: vcpus is set a second time"),
    "out-of-range": (f"{HELLO}vcpus = 99\n", rf'{CONF}:3: vcpus: "99" is not .* 1 to 16'),
    "bad-size": (f"{HELLO}memory = 5M\n", rf'{CONF}:3: memory: "5M" .* multiple of 2M'),
    "bad-feature": (f"[umbra]\nhide = warp\n{HELLO}", rf'{CONF}:2: hide: "warp" .* ept_1g'),
    "no-kernel": ("[vm hello]\nvcpus = 1\n", rf"{CONF}:1: \[vm hello\] has no kernel"),
    "twins": (HELLO + HELLO, rf'{CONF}:3: a VM named "hello" exists'),
    "open-quote": (f'{HELLO}cmdline = "abc\n', rf"{CONF}:3: .*no closing quote"),
    "no-vm": ("[umbra]\nlog_level = debug\n", rf"{CONF}: no guest is configured"),
    "not-text": (b"[umbra]\n\xff\xfe\0\0\n" + HELLO.encode(), rf"{CONF}:2: "),
    "too-long": (f"{HELLO}cmdline = {'x' * 1400}\n", rf"{CONF}:3: cmdline: the text is 1400 bytes"),
}


BOOTED = ("unknown-key", "no-kernel", "no-vm", "not-text", "too-long")


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name in BOOTED else pytest.mark.long) for name in CONFIGS])
def test_config(name):
    config, expected = CONFIGS[name]
    refused(name, expected, config=config)


def test_no_config():
    refused("no-config", rf"{CONF}: (cannot be opened: )?not found", files={"umbra/umbra.conf": None})


def test_empty_config():
    refused("empty-config", rf"{CONF}: the file is empty", config="")


def test_every_error_is_named():
    """One boot reports all mistakes, each with its line."""
    refused("many", rf"{CONF}:2: unknown key", rf"{CONF}:4: unknown section", rf"{CONF}:7: vcpus",
            config=f"[umbra]\nx = 1\n\n[what]\n{HELLO}vcpus = 0\n")


def test_missing_kernel():
    refused("missing-kernel", r"nowhere\.elf: (cannot be opened: )?not found",
            config="[vm a]\nkernel = nowhere.elf\n")


def test_missing_module():
    refused("missing-module", r"nothing\.bin: (cannot be opened: )?not found",
            config=HELLO + "modules = nothing.bin some arguments\n")


def test_empty_kernel():
    refused("empty-kernel", r"hello\.elf: the file is empty", files={"umbra/hello.elf": b""})


def test_missing_hypervisor():
    refused("missing-hv", r"umbra\.elf: (cannot be opened: )?not found",
            files={"umbra/umbra.elf": None})


@pytest.mark.parametrize("length", [pytest.param(3, marks=pytest.mark.long), 64, 5000])
def test_truncated_hypervisor(length):
    data = (BUILD / "umbra.elf").read_bytes()[:length]
    refused(f"truncated-{length}", r"umbra\.elf .*; install Umbra's own umbra\.elf again",
            files={"umbra/umbra.elf": data})


def test_foreign_hypervisor():
    """A sound file of the wrong kind: the loader itself in the hypervisor's place."""
    refused("foreign-hv", r"umbra\.elf .*ELF", files={"umbra/umbra.elf": BUILD / "BOOTX64.EFI"})


def test_not_enough_memory():
    refused("memory", r"not enough memory: the VMs want 8192 MiB", config=HELLO + "memory = 8G\n")


