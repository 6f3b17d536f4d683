"""The store of a VM's pages as a process (tests/interop/storetest.c) with build/memnode processes."""

import contextlib
import random
import re
import signal
import subprocess
import time

import pytest

from relay import Relay
from umbra_tools.base import BUILD, ROOT

TOKEN = "sesame"


@pytest.fixture(scope="module")
def built():
    subprocess.run(["make", "-s", f"BUILD={BUILD}", f"{BUILD}/memnode", f"{BUILD}/interop/storetest"],
                   cwd=ROOT, check=True)


class Nodes:
    """Memory nodes on a relay's ports, from 1 on; 0 is the store's."""

    def __init__(self, relay, count):
        self.relay, self.process = relay, {}
        for index in range(1, count + 1):
            self.start(index)

    def start(self, index):
        node = self.process[index] = subprocess.Popen(
            [BUILD / "memnode", "--udp", self.relay.port[index].udp, "--ip", f"10.77.0.{index + 1}",
             "--size", "8", "--token", TOKEN], stdout=subprocess.PIPE, text=True)
        assert node.stdout.readline().startswith("memnode: ")

    def kill(self, index):
        node = self.process.pop(index)
        node.kill()
        node.wait()
        node.stdout.close()


@contextlib.contextmanager
def nodes(count, **arguments):
    with Relay(count + 1, **arguments) as relay:
        running = Nodes(relay, count)
        try:
            yield running
        finally:
            for index in list(running.process):
                running.kill(index)


def store(running, *arguments):
    """A running store, connected to all nodes."""
    names = ",".join(f"10.77.0.{index + 1}" for index in sorted(running.process))
    process = subprocess.Popen(
        [BUILD / "interop/storetest", running.relay.port[0].udp, "--nodes", names, "--token", TOKEN,
         *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout.readline() == "storetest: ready\n"
    return process


def says(process, what, times=1):
    """Waits for so many lines in a row that begin so. False: it has ended."""
    seen = 0
    for line in process.stdout:
        seen = seen + 1 if line.startswith(f"storetest: {what}") else 0
        if seen == times:
            return True
    return False


def finish(process, now=False):
    """(exit status, what it said last, its numbers by name)"""
    if now:
        process.terminate()
    try:
        text, _ = process.communicate(timeout=150)
    finally:
        process.kill()
    return process.returncode, text, {name: int(number)
                                      for name, number in re.findall(r"(\w+) (\d+)", text)}


@pytest.mark.parametrize("replicas", [1, 2])
def test_bad_wire(built, replicas):
    with nodes(2, seed=5) as running:
        running.relay.faults(loss=0.02, duplicate=0.01, reorder=0.02, corrupt=0.01)
        status, text, count = finish(store(running, "--replicas", replicas, "--seconds", 2))
    assert status == 0 and count["reads"] > 100 and not count["corrupt"], text


def test_killed_in_turn(built, long):
    """One node at a time, at a random instant; it comes back without anything."""
    instants = random.Random(3)
    rounds = 20 if long else 3
    with nodes(2) as running:
        process = store(running, "--replicas", 2, "--pages", 200, "--seconds", 100 * rounds)
        for number in range(rounds):
            assert says(process, "up 2 lacking 0\n", 4)
            time.sleep(instants.uniform(0.1, 0.6))
            running.kill(1 + number % 2)
            assert says(process, "up 1 ")
            running.start(1 + number % 2)
        assert says(process, "up 2 lacking 0\n", 4)
        status, text, count = finish(process, now=True)
    assert status == 0, text
    assert count["failovers"] > 0 and count["rereplicated"] >= 10 * rounds, text
    assert count["up"] == 2 and not count["lacking"] and not count["corrupt"], text


@pytest.mark.parametrize("count", [1, 2])
def test_stalled(built, long, count):
    """A node that does not answer for a while; a single one is waited for."""
    pause = 30 if long else 4
    with nodes(count) as running:
        process = store(running, "--replicas", count, "--pages", 200, "--seconds", 10 * pause)
        assert says(process, f"up {count} lacking 0\n", 4)
        running.process[1].send_signal(signal.SIGSTOP)
        time.sleep(pause)
        running.process[1].send_signal(signal.SIGCONT)
        assert says(process, f"up {count} lacking 0\n", 4)
        status, text, number = finish(process, now=True)
    assert status == 0 and number["up"] == count and not number["corrupt"], text
    if count == 1:
        assert number["stalled"] > (pause - 2) * 1000, text
    else:
        assert number["stalled"] == 0, text


def test_lost(built):
    """What only one node had is lost with it, and the store says so."""
    with nodes(1) as running:
        process = store(running, "--seconds", 20)
        assert says(process, "up 1 lacking 0\n", 4)
        running.kill(1)
        running.start(1)
        status, text, _ = finish(process)
    assert status == 1 and ": lost" in text, text
