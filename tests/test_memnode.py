"""build/memnode and a client, two processes with UDP between them that loses frames."""

import socket
import subprocess

import pytest

from relay import Relay
from umbra_tools.base import BUILD, ROOT


def two_ports():
    """Two UDP ports that nobody uses."""
    found = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for each in found:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in found]
    for each in found:
        each.close()
    return ports


@pytest.fixture(scope="module")
def built():
    subprocess.run(["make", "-s", f"BUILD={BUILD}", "memnode"], cwd=ROOT, check=True)


@pytest.fixture
def node(built):
    ours, theirs = two_ports()
    process = subprocess.Popen([BUILD / "memnode", "--udp", f"{theirs}:{ours}", "--size", "1",
                                "--token", "sesame"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("memnode: 1 MiB in 1 slices")
    yield ours, theirs
    process.terminate()
    process.wait()
    process.stdout.close()


def client(ports, *arguments):
    return subprocess.run([BUILD / "interop/memtest", *map(str, ports), *map(str, arguments)],
                          stdout=subprocess.PIPE, text=True, timeout=120)


def test_pages_survive_losses(node):
    for loss in 0, 20, 50:
        done = client(node, 2048, loss, "sesame")
        assert done.returncode == 0, done.stdout
        assert "memtest: 2048 pages" in done.stdout
        assert ("lost 0\n" in done.stdout) == (loss == 0)


def test_token(node):
    done = client(node, 64, 0, "wrong")
    assert done.returncode == 1 and "reason 28" in done.stdout


FAULTS = {
    "duplicate": {"duplicate": 0.05},
    "reorder": {"reorder": 0.05},
    "corrupt": {"corrupt": 0.05},
    "delay": {"delay": 0.002},
    "loss": {"loss": 0.1},
    "all": {"loss": 0.01, "duplicate": 0.01, "reorder": 0.02, "corrupt": 0.01, "jitter": 0.001},
}


@pytest.mark.parametrize("kind", FAULTS)
def test_bad_wire(built, kind):
    with Relay(2, seed=11) as relay:
        process = subprocess.Popen([BUILD / "memnode", "--udp", relay.port[1].udp, "--size", "1"],
                                   stdout=subprocess.DEVNULL)
        try:
            relay.faults(**FAULTS[kind])
            done = client((relay.port[0].host, relay.port[0].wire), 1024)
        finally:
            process.terminate()
            process.wait()
    assert done.returncode == 0 and "memtest: 1024 pages" in done.stdout, done.stdout
    counted = {"loss": "lost", "duplicate": "duplicated", "reorder": "reordered",
               "corrupt": "corrupted"}
    assert all(relay.count[counted[name]] > 20 for name in FAULTS[kind] if name in counted)
