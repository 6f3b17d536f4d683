"""Asynchronous page faults: the guest kernel `async_pf` and Debian's kernel, with half of their memory
on a memory node."""

import re

import pytest

from harness import boot, have_emulator, select
from test_linux import HIDE, healthy, parts
from umbra_tools import linux
from umbra_tools.memnodes import IPS, MemoryNodes

# A page takes 4 ms in Bochs: so many that others can do something meanwhile, between two looks at the
# network, which come each 100 us.
LINUX_IPS = 20000000
REMOTE = {"remote": "10.77.0.1", "remote_token": "sesame", "async_pf": "yes"}


def counters(log):
    """(faults that the guest was told of, those it was told the end of, those it waited for)"""
    found = re.search(r"remote memory: (\d+) faults told of, (\d+) ready, (\d+) waited for", log)
    assert found, log
    return [int(number) for number in found.groups()]


def run(config, emulator="bochs3", ips=IPS, **options):
    if not have_emulator(emulator):
        pytest.skip("no such Bochs here")
    with MemoryNodes(config, lambda _: 160) as nodes:
        return boot(config=config, emulator_name=emulator, nic=nodes.nic, ips=ips, **options)


def guest(**settings):
    return select(["async_pf"], {"async_pf": {"memory": "8M", "local": "2M", "prefetch": "no",
                                              "vcpus": "2", **REMOTE, **settings}})


CASES = {"bochs3-1": ("bochs3", 1, {}), "bochs-2": ("bochs", 2, {"seal": "no"})}


@pytest.mark.parametrize("case", [pytest.param(name, marks=() if name == "bochs3-1" else
                                               pytest.mark.long) for name in CASES])
def test_guest(case):
    emulator, cpus, settings = CASES[case]
    result = run(guest(**settings), emulator, cpus=cpus, name=f"async-pf-{case}", timeout=300)
    assert result.status == 1 and result.vms["async_pf"].tap.passed, result.explain("async_pf")
    assert "no page is left" not in result.console
    told, ready, waited = counters(result.log)
    # Without an end: the one that disabled it, and INIT's. One more end wakes everybody.
    assert told - 1 == ready and waited >= 7, result.log


# Programs that verify what they compute; memory of the first three lies mostly on the node.
PROGRAMS = """
echo @@ scan; /umbra/scan 40 1
echo @@ random; /umbra/random 40 2000
echo @@ sort; /umbra/sort 8
echo @@ files; mkdir /tmp/a /tmp/b; cp /bin/busybox /tmp/a; cp /bin/busybox /tmp/b
/umbra/scan 40 1; cat /tmp/a/* | sha256sum; cat /tmp/b/* | sha256sum
"""
# One waits for pages, the other one computes.
BESIDE = """
/umbra/scan 40 4 & sleep 2; /umbra/compute 3000000; wait
"""
SESSION = """
echo @@ before; grep HYP /proc/interrupts
%s
echo @@ after; grep HYP /proc/interrupts
echo @@ dmesg; dmesg -r
echo @@ end
"""


def linux_with(session, name, vcpus, **settings):
    """(the script's parts, the log) of Debian's kernel with a quarter of 128 MiB here."""
    config = linux.configuration("cloud", vcpus=vcpus, memory=128, alone=True, name=name,
                                 session=SESSION % session,
                                 append='loglevel=8 dyndbg="file arch/x86/kernel/kvm.c +p"')
    for key, value in {**REMOTE, "local": "32M", **settings}.items():
        config.set("vm linux", key, value)
    result = run(config, name=name, ips=LINUX_IPS, timeout=1500, hide=HIDE)
    lines = result.vms["linux"].tap.lines
    assert result.status == 0 and "@@ end" in lines, result.explain() + "\n".join(lines[-40:])
    found = parts(lines)
    healthy(found["dmesg"])
    return found, result.log


def hypervisor_interrupts(lines):
    """Of all vCPUs. There is no such line before the first one."""
    return sum(int(word) for line in lines for word in line.split()[1:] if word.isdigit())


@pytest.mark.long
def test_linux():
    """Debian's kernel switches it on by itself, and counts as many interrupts as Umbra has sent."""
    found, log = linux_with(PROGRAMS, "async-pf-linux", 2)
    assert any("setup async PF for cpu 1" in line for line in found["dmesg"]), found["dmesg"]
    for what in "scan: 40 MiB", "random: 40 MiB", "sort: 8 MiB":
        assert any(what in line for part in found.values() for line in part), found
    one, two = found["files"][1:3]
    assert one == two and re.match("[0-9a-f]{64}", one), found["files"]
    told, ready, _ = counters(log)
    assert told > 1000 and ready == told, log
    counted = hypervisor_interrupts(found["after"])
    assert 1000 < counted <= ready, (counted, log)


@pytest.mark.long
def test_linux_beside():
    """A program that waits for pages and one that computes on the same vCPU, told and not told."""
    for kind in "yes", "no":
        found, log = linux_with(BESIDE, f"async-pf-linux-{kind}", 1, async_pf=kind)
        assert any("scan: 40 MiB, 4 rounds" in line for line in found["before"]), found["before"]
        assert any("compute: 3000000 rounds" in line for line in found["before"]), found["before"]
        interrupts = hypervisor_interrupts(found["after"])
        assert interrupts > 500 if kind == "yes" else interrupts == 0
        assert ("faults told of" in log) == (kind == "yes")
