"""Several VMs: on one CPU, beside VMs that fail, with what their configuration hands them."""

import os

import pytest

from harness import boot, have_emulator, select
from tiny import echo_kernel
from umbra_tools.base import ROOT


@pytest.mark.parametrize("emulator,cpus", [("bochs", 2), ("bochs3", 1)])
def test_two_on_one_cpu(emulator, cpus):
    """Neither starves (max-gap-ms) nor sees the other's registers, whatever both do."""
    if not have_emulator(emulator):
        pytest.skip("this machine has no Bochs 2.7")
    settings = {f"isolation.{n}": {"cmdline": f"seed={n} rounds=1500 max-gap-ms=60", "cpus": "0"}
                for n in (1, 2)}
    config = select(settings, settings, {"order": "together"})
    result = boot(config=config, name=f"two-{emulator}-{cpus}", emulator_name=emulator, cpus=cpus)
    for vm in settings:
        assert result.vms[vm].problem() is None, result.explain(vm)
    assert result.status in (0, 1)


def sharing(emulator, name, roles, **umbra):
    """VMs of guest/sharing.c on CPU 0, with these command lines."""
    if not have_emulator(emulator):
        pytest.skip("this machine has no Bochs 2.7")
    vms = {f"share.{n}": {"kernel": "${BUILD}/guest/sharing.elf", "memory": "16M", "cpus": "0",
                          "cmdline": f"seed={n} {role}"} for n, role in enumerate(roles)}
    result = boot(config=select(vms, vms, {"order": "together", **umbra}), emulator_name=emulator,
                  name=f"{name}-{emulator}")
    for vm in vms:
        assert result.vms[vm].problem() is None, result.explain(vm)


# 2.7 takes six times as long as 3.0; what it has of its own here is in test_two_on_one_cpu.
@pytest.mark.parametrize("emulator", [pytest.param("bochs", marks=pytest.mark.long), "bochs3"])
def test_two_busy(emulator):
    """Each gets its half of the CPU, in slices of the quantum."""
    sharing(emulator, "busy", ["role=busy", "role=busy"])


def test_busy_beside_sleeper():
    """A halted vCPU leaves the CPU to the other one, and is woken in time."""
    sharing("bochs3", "sleeper", ["role=busy min=90", "role=sleep"])


def test_two_busy_beside_sleeper():
    """The sleeper's wake-ups cut slices short, of both in the same measure."""
    sharing("bochs3", "three", ["role=busy min=40", "role=sleep ms=200", "role=busy min=40"])


def test_short_slices():
    """A quantum of 1 ms; the bound is wider, for the lines that Umbra logs when a VM ends take
    6 ms each on the serial line."""
    sharing("bochs3", "slices", ["role=busy slice=4000", "role=busy slice=4000"],
            quantum_us=1000, tick_us=1000)


@pytest.mark.parametrize("cpus", [1, pytest.param(2, marks=pytest.mark.long)])
def test_others_run_on(cpus):
    """A triple fault, and kernels that are none, end their VMs alone."""
    config = select(["exceptions.triple", "hello.text", "memory", "hello.zero", "stepping"],
                    {"exceptions.triple": {"cmdline": "triple"},
                     "hello.text": {"kernel": str(ROOT / "Makefile")},
                     "hello.zero": {"kernel": "/bin/true"}},
                    {"order": "together"})
    result = boot(config=config, name=f"others-run-on-{cpus}", emulator_name="bochs3",
                  cpus=cpus)
    for vm in ("memory", "stepping"):
        assert result.vms[vm].problem() is None, result.explain(vm)
    for vm in ("exceptions.triple", "hello.text", "hello.zero"):
        assert result.vms[vm].status == 71, result.explain(vm)
        assert result.vms[vm].reason
    assert result.reason == "end" and result.status == 71


DEEDS = ("triple", "stack", "cr3", "push")


def test_fatal_deeds():
    """Each deed ends the VM that does it, with a report, and no other."""
    config = select([f"hostile.{deed}" for deed in DEEDS] + ["memory"],
                    {f"hostile.{deed}": {"cmdline": f"fatal={deed}", "memory": "16M"}
                     for deed in DEEDS}, {"order": "together"})
    result = boot(config=config, name="fatal", emulator_name="bochs3", timeout=120)
    assert result.vms["memory"].problem() is None, result.explain("memory")
    for deed in DEEDS:
        vm = result.vms[f"hostile.{deed}"]
        assert vm.status not in (None, 1), result.explain(vm.name)
        assert vm.reason, result.explain(vm.name)
    assert result.reason == "end"


def test_modules_and_command_line():
    config = select(["hello"], {"hello": {
        "cmdline": 'quotes " and # signs ; stay', "memory": "32M",
        "modules": f"{ROOT}/Makefile with arguments, {ROOT}/linker.ld a,,b"}})
    result = boot(config=config, name="modules", emulator_name="bochs3")
    text = "\n".join(result.vms["hello"].tap.lines)
    assert result.vms["hello"].problem() is None, result.explain("hello")
    assert 'quotes " and # signs ; stay' in text
    for module, arguments in (("Makefile", "with arguments"), ("linker.ld", "a,b")):
        size = (ROOT / module).stat().st_size
        assert any(f"{size} bytes" in line and line.endswith(arguments)
                   for line in text.split("\n")), text


def test_multiboot_by_address():
    """A flat image with the address form of the header."""
    config = select(["hello"], {"hello": {"kernel": str(echo_kernel(0)), "vcpus": 1}})
    reader, writer = os.pipe()
    os.write(writer, b"typed q")
    result = boot(config=config, name="flat", emulator_name="bochs3", timeout=60, keys=reader)
    os.close(reader)
    os.close(writer)
    assert "ready" in result.console and "typed " in result.console, result.explain()
    assert result.reason == "end" and result.status == 1, result.explain()


def test_sixteen_vms():
    names = [f"hello.{n}" for n in range(16)]
    config = select(names, {n: {"memory": "8M"} for n in names}, {"order": "together"})
    result = boot(config=config, name="sixteen", emulator_name="bochs3")
    bad = [n for n in names if result.vms[n].problem()]
    assert not bad, result.explain(bad[0])
