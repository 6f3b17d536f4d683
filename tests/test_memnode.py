"""build/memnode and clients, processes with a wire between them that has faults."""

import contextlib
import re
import signal
import subprocess
import time

import pytest

from relay import Relay
from umbra_tools.base import BUILD, ROOT


@pytest.fixture(scope="module")
def built():
    subprocess.run(["make", "-s", f"BUILD={BUILD}", "memnode"], cwd=ROOT, check=True)


@contextlib.contextmanager
def memnode(port, *arguments):
    process = subprocess.Popen([BUILD / "memnode", "--udp", port.udp, *map(str, arguments)],
                               stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline().startswith("memnode: ")
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def start(port, *arguments):
    return subprocess.Popen([BUILD / "interop/memtest", port.udp, *map(str, arguments)],
                            stdout=subprocess.PIPE, text=True)


def finish(process, timeout=120):
    """(exit status, what it said)"""
    try:
        text, _ = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return process.returncode, text


FAULTS = {
    "none": {},
    "duplicate": {"duplicate": 0.05},
    "reorder": {"reorder": 0.05},
    "corrupt": {"corrupt": 0.05},
    "delay": {"delay": 0.002},
    "loss": {"loss": 0.1},
    "all": {"loss": 0.01, "duplicate": 0.01, "reorder": 0.02, "corrupt": 0.01, "jitter": 0.0003},
}
COUNTED = {"loss": "lost", "duplicate": "duplicated", "reorder": "reordered",
           "corrupt": "corrupted"}


@pytest.mark.parametrize("kind", FAULTS)
def test_bad_wire(built, kind):
    with Relay(2, seed=11) as relay, memnode(relay.port[1], "--size", 1, "--token", "sesame"):
        relay.faults(**FAULTS[kind])
        status, text = finish(start(relay.port[0], "--operations", 512, "--token", "sesame"))
    assert status == 0 and "memtest: 512 pages, 1 connections" in text, text
    assert text.endswith("strange 0\n") or "corrupt" in FAULTS[kind], text
    assert all(relay.count[COUNTED[name]] > 10 for name in FAULTS[kind] if name in COUNTED)


@pytest.mark.parametrize("mtu", [256, 4096])
def test_mtu(built, mtu):
    with Relay(2) as relay, memnode(relay.port[1], "--size", 1):
        relay.faults(loss=0.02)
        status, text = finish(start(relay.port[0], "--mtu", mtu))
    assert status == 0, text
    # A page and its acknowledgement or request: the fewer packets the larger they are.
    sent = int(re.search(r"rx (\d+)", text)[1]) + int(re.search(r"tx (\d+)", text)[1])
    assert sent > 2048 * 10 if mtu == 256 else sent < 2048 * 4


def test_token(built):
    with Relay(2) as relay, memnode(relay.port[1], "--size", 1, "--token", "sesame"):
        status, text = finish(start(relay.port[0], "--token", "sesam"))
    assert status == 1 and "reason 28" in text


def test_clients(built):
    """Three clients, a slice each; a fourth is refused; a slice keeps its content."""
    with Relay(5, seed=4) as relay, memnode(relay.port[0], "--size", 3, "--slices", 3):
        relay.faults(loss=0.01)
        clients = [start(relay.port[n], "--ip", f"10.77.0.{9 + n}", "--seconds", 2)
                   for n in (1, 2, 3)]
        for each in clients:
            assert each.stdout.readline() == "memtest: connected\n"
        status, text = finish(start(relay.port[4], "--ip", "10.77.0.99"))
        assert status == 1 and "not connected" in text and "reason 1;" in text
        for each in clients:
            status, text = finish(each)
            assert status == 0, text
        status, text = finish(start(relay.port[4], "--ip", "10.77.0.99"))
        assert status == 0, text


def test_killed_and_restarted(built):
    """Content is lost, the incarnation says so, and the client goes on with zeros."""
    with Relay(2) as relay:
        with memnode(relay.port[1], "--size", 1):
            client = start(relay.port[0], "--reconnect", "--seconds", 4)
            assert client.stdout.readline() == "memtest: connected\n"
            for _ in range(2):
                assert relay.wait(roce=500, timeout=10)
        time.sleep(1)
        with memnode(relay.port[1], "--size", 1):
            status, text = finish(client)
    assert status == 0 and re.search(r" 2 connections, 2 incarnations", text), text


def test_stalled(built, long):
    """The process stands still, so that the client gives up; then it is the same node as before."""
    with Relay(2) as relay, memnode(relay.port[1], "--size", 1) as node:
        client = start(relay.port[0], "--reconnect", "--seconds", 2)
        assert client.stdout.readline() == "memtest: connected\n"
        assert relay.wait(roce=500, timeout=10)
        node.send_signal(signal.SIGSTOP)
        time.sleep(30 if long else 6)
        node.send_signal(signal.SIGCONT)
        status, text = finish(client)
    assert status == 0, text
    connections, incarnations = re.search(r"(\d+) connections, (\d+) incarn", text).groups()
    assert int(connections) >= 2 and int(incarnations) == 1, text


def test_wire_away(built):
    """A link that is down for a moment is no more than loss; for longer, a new connection."""
    with Relay(2) as relay, memnode(relay.port[1], "--size", 1):
        client = start(relay.port[0], "--reconnect", "--seconds", 5)
        assert client.stdout.readline() == "memtest: connected\n"
        for seconds in 0.05, 3:
            assert relay.wait(roce=500, timeout=10)
            relay.link(0, False)
            time.sleep(seconds)
            relay.link(0, True)
        status, text = finish(client)
    assert status == 0 and re.search(r" 2 connections, 1 incarnations", text), text
