"""Guest memory on memory nodes: the guest kernel `remote`, whose every byte is checked, with nodes of
build/memnode behind a wire that has faults, and nodes that stall, die, and come back."""

import random
import re
import signal
import subprocess
import sys
import time

import pytest

sys.path.insert(0, __file__.rsplit("/boot/", 1)[0])

from harness import Background, boot, have_emulator, select
from relay import Relay
from umbra_tools import linux
from umbra_tools.base import BUILD, ROOT
from umbra_tools.emulator import Nic
from umbra_tools.run import BOCHS_HIDE

# Bochs' NIC takes a frame in an emulated millisecond: the fewer instructions that is, the better.
IPS = 5000000
# 2 MiB of frames for more than 3 MiB that are used, and room for what the pages' tables take.
SMALL = {"memory": "8M", "local": "2M", "cmdline": "mib=3"}


@pytest.fixture(scope="module", autouse=True)
def built():
    subprocess.run(["make", "-s", f"BUILD={BUILD}", "memnode"], cwd=ROOT, check=True)


class Node:
    """build/memnode at a port of the relay, 10.77.0.(10 + number)."""

    def __init__(self, relay, number=1, size=16):
        self.arguments = [BUILD / "memnode", "--udp", relay.port[number].udp, "--ip",
                          f"10.77.0.{10 + number}", "--size", str(size), "--token", "sesame"]
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.arguments, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline().startswith("memnode: ")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


def machine(relay, name, settings=None, emulator="bochs3", nodes=1, **options):
    if not have_emulator(emulator):
        pytest.skip("no such Bochs here")
    vm = {"kernel": str(BUILD / "guest/remote.elf"), "remote_token": "sesame",
          "remote": ", ".join(f"10.77.0.{11 + n}" for n in range(nodes)), **SMALL,
          **(settings or {})}
    config = select(["remote"], {"remote": vm}, {"network": "10.77.0.1/24"})
    return dict(config=config, name=f"remote-{name}", emulator_name=emulator, ips=IPS,
                nic=Nic(port=relay.port[0].host), timeout=1000, **options)


def good(result):
    vm = result.vms["remote"]
    assert result.status == 1 and vm.tap.passed, result.explain("remote")


CASES = {
    "sealed": {},
    # Without the processor's flags of what was accessed and written.
    "smp-no-ad-2.7": {"emulator": "bochs", "cpus": 2, "hide": ["ept_ad"],
                      "settings": {"vcpus": "3", "seal": "no", "cmdline": "mib=3 only=smp"}},
}
LONG = {
    "plain-2.7": {"emulator": "bochs", "settings": {"seal": "no"}},
    "no-ad": {"hide": ["ept_ad"], "settings": {"prefetch": "no"}},
    "no-ad-2.7": {"emulator": "bochs", "hide": ["ept_ad"]},
    "smp-2.7": {"emulator": "bochs", "cpus": 2, "settings": {"vcpus": "4"}},
    "smp": {"cpus": 2, "settings": {"vcpus": "2", "cmdline": "mib=4"}},
    "half": {"settings": {"memory": "16M", "local": "8M", "cmdline": "mib=12"}},
    "all": {"settings": {"local": "8M", "cmdline": "mib=4"}},
    "quarter": {"settings": {"memory": "24M", "local": "6M", "cmdline": ""}},
}


@pytest.mark.parametrize("case", [*CASES, *(pytest.param(name, marks=pytest.mark.long)
                                            for name in LONG)])
def test_guest(case):
    with Relay(2) as relay, Node(relay, size=32):
        good(boot(**machine(relay, case, **{**CASES, **LONG}[case])))


@pytest.mark.long
@pytest.mark.parametrize("kind", ["loss", "all"])
def test_bad_wire(kind):
    faults = {"loss": {"loss": 0.02},
              "all": {"loss": 0.02, "duplicate": 0.02, "reorder": 0.02, "corrupt": 0.02}}[kind]
    with Relay(2, seed=5) as relay, Node(relay):
        relay.faults(**faults)
        good(boot(**machine(relay, f"wire-{kind}", {"cmdline": "mib=3 only=walk"})))
        assert relay.count["lost"] > 50


def test_stalled_node():
    """No node answers: the VM's time stands still, and it goes on where it was."""
    with Relay(2) as relay, Node(relay) as node:
        with Background(**machine(relay, "stalled", {"cmdline": "mib=3 only=stride"})) as vm:
            assert relay.wait(roce=2000, timeout=200)
            node.process.send_signal(signal.SIGSTOP)
            vm.wait_log("vm remote: paused: no memory node that has its pages answers")
            time.sleep(2)
            node.process.send_signal(signal.SIGCONT)
            vm.wait_log("vm remote: goes on: its memory is there again")
            good(vm.finish())


def test_lost_memory():
    """A node that comes back empty: the VM ends, for no other bytes than its own are ever shown."""
    with Relay(2) as relay, Node(relay) as node:
        with Background(**machine(relay, "lost")) as vm:
            assert relay.wait(roce=3000, timeout=200)
            node.kill()
            time.sleep(0.5)
            node.start()
            result = vm.finish()
    assert result.status == 71, result.explain()
    assert "a page of its memory came back other than it was written" in result.log
    assert "words wrong" not in result.console


def test_two_nodes():
    """Each dies once under load and comes back empty: the other one has all pages meanwhile."""
    settings = {"replicas": "2", "cmdline": "mib=3 only=walk rounds=16"}
    with Relay(3) as relay, Node(relay, 1) as one, Node(relay, 2) as two:
        with Background(**machine(relay, "two", settings, nodes=2)) as vm:
            assert relay.wait(roce=4000, timeout=200)
            one.kill()
            vm.wait_log(r"memory node 10\.77\.0\.11 does not answer", timeout=200)
            assert relay.wait(roce=500, timeout=200)
            one.start()
            vm.wait_log("all pages have 2 copies again", timeout=300)
            two.kill()
            vm.wait_log(r"memory node 10\.77\.0\.12 does not answer", timeout=200)
            good(vm.finish())


def said(vm, pattern, after):
    """Whether the log has it behind a position; False: the machine has ended before."""
    try:
        return vm.wait_log(pattern, timeout=300, after=after)
    except AssertionError:
        if vm.result:
            return False
        raise


def kill_in_turn(vm, relay, nodes, instants, most):
    """Kills one of two nodes at random instants until the guest is through; how many times."""
    for count in range(most):
        number = instants.randrange(2)
        for _ in range(instants.randrange(1, 400)):
            if not relay.wait(roce=1, timeout=10):
                return count
        after = len(vm.log)
        nodes[number].kill()
        at_once = instants.random() < 0.5
        if at_once:
            nodes[number].start()
        lost = said(vm, rf"memory node 10\.77\.0\.{11 + number} does not answer", after)
        if not at_once:
            nodes[number].start()
        if not lost or not said(vm, "all pages have 2 copies again", after):
            return count
    return most


@pytest.mark.long
def test_hundred_instants():
    """One of two nodes dies under load and comes back empty, at 100 random instants in all, while the
    guest verifies what it reads. As many lives of the guest as that takes."""
    instants, done, lives = random.Random(11), 0, 0
    while done < 100:
        lives += 1
        assert lives <= 30, done
        settings = {"replicas": "2", "cmdline": f"mib=3 only=walk rounds=60 seed={lives}"}
        with Relay(3) as relay, Node(relay, 1) as one, Node(relay, 2) as two:
            options = {**machine(relay, "hundred", settings, nodes=2), "timeout": 2000}
            with Background(**options) as vm:
                assert relay.wait(roce=4000, timeout=300)
                done += kill_in_turn(vm, relay, (one, two), instants, 100 - done)
                good(vm.finish())
        print(f"{done} instants in {lives} lives")


# Memory of its own for each, verified by itself; then the kernel's opinion.
LINUX = """
echo @@ scan; /umbra/scan 40 1
echo @@ random; /umbra/random 40 2000
echo @@ sort; /umbra/sort 8
echo @@ files; mkdir /tmp/a /tmp/b; cp /bin/busybox /tmp/a; cp /bin/busybox /tmp/b
/umbra/scan 40 1; cat /tmp/a/* | sha256sum; cat /tmp/b/* | sha256sum
echo @@ complaints; dmesg -r | grep -E "BUG|Oops|Call Trace|stall|lockup|bad page|segfault"
echo @@ end
"""


@pytest.mark.long
@pytest.mark.parametrize("local", [32, 64, 128])
def test_linux(local):
    """Debian's kernel in 128 MiB with a quarter, half and all of it here."""
    config = linux.configuration("cloud", vcpus=2, memory=128, alone=True, session=LINUX,
                                 name=f"remote-{local}")
    config.set("umbra", "network", "10.77.0.1/24")
    for key, value in {"remote": "10.77.0.11", "remote_token": "sesame",
                       "local": f"{local}M"}.items():
        config.set("vm linux", key, value)
    with Relay(2) as relay, Node(relay, size=160):
        result = boot(config=config, name=f"remote-linux-{local}", emulator_name="bochs3", ips=IPS,
                      nic=Nic(port=relay.port[0].host), timeout=1500, hide=(BOCHS_HIDE,))
    lines = result.vms["linux"].tap.lines
    text = "\n".join(lines)
    assert result.status == 0 and "@@ end" in lines, result.explain() + text[-3000:]
    for what in "scan: 40 MiB", "random: 40 MiB", "sort: 8 MiB":
        assert what in text, text[-3000:]
    one, two = lines[lines.index("@@ files") + 2:lines.index("@@ complaints")]
    assert one == two and re.match("[0-9a-f]{64}", one), text[-3000:]
    assert lines.index("@@ end") == lines.index("@@ complaints") + 1, text
