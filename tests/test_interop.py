"""hv/rdma against Debian's kernel with rdma_rxe (in QEMU) and the programs that come with it.

One machine for all: the tests run in order in one worker, and the last looks at every frame.
"""

import re
import subprocess
import sys
import time

import pytest

from relay import Relay
from umbra_tools.base import BUILD, ROOT, build

sys.path.append(str(ROOT / "tests/interop"))
from rxe import ADDRESS, Linux  # noqa: E402

pytestmark = pytest.mark.xdist_group("interop")
OURS = "10.77.0.2"
LOSS = {"loss": 0.02}


@pytest.fixture(scope="module")
def wire(tmp_path_factory):
    """(relay, Linux at its port 1); ports 0 and 2 are ours."""
    build("guests", "memnode")  # scripts/linux puts the guest programs into every initramfs
    folder = BUILD / "interop"
    with Relay(3, seed=5, pcap=folder / "run.pcap", pcap_at="in") as relay:
        with Linux(relay.port[1], mtu=9000, log=folder / "linux.log") as linux:
            yield relay, linux


@pytest.fixture
def relay(wire):
    wire[0].faults()
    return wire[0]


@pytest.fixture
def linux(wire):
    return wire[1]


@pytest.fixture(params=[1024, 4096])
def mtu(request, linux):
    """Of a packet's payload; rxe's largest follows from the interface's."""
    assert linux.run(f"ip link set eth0 mtu {9000 if request.param == 4096 else 1500}")[0] == 0
    return request.param


def ours(program, *arguments, timeout=60):
    """What one of our programs said; it must end well."""
    done = subprocess.run([BUILD / "interop" / program, *map(str, arguments)],
                          stdout=subprocess.PIPE, text=True, timeout=timeout)
    assert done.returncode == 0, done.stdout
    return done.stdout


def number(name, text):
    return int(re.search(rf"{name} (\d+)", text)[1])


@pytest.mark.parametrize("faults", [{}, LOSS], ids=["good", "loss"])
def test_rping_server(relay, linux, mtu, faults):
    """rping's server READs and WRITEs our memory; we compare."""
    linux.start(f"exec rping -s -a {ADDRESS} -p 7174 -S 16000 -C 20")
    time.sleep(0.3)
    relay.faults(**faults)
    text = ours("rping", "client", relay.port[0].udp, 20, 16000, 0, mtu)
    relay.faults()
    # SEND, RECV, READ responses, and what it WROTE: 16000 bytes each way.
    assert number("rx", text) > 20 * (16000 // mtu) and "strange 0" in text
    assert linux.stop()[0] in (0, 143)


@pytest.mark.parametrize("faults", [{}, LOSS], ids=["good", "loss"])
def test_rping_client(relay, linux, mtu, faults):
    """We READ and WRITE the memory of rping's client; it compares (-V)."""
    # Linux, which connects, says how long both sides wait for an answer: seconds.
    rounds = 5 if faults else 20
    linux.start(f"rping -c -a {OURS} -p 7174 -C {rounds} -V -S 16000")
    relay.faults(**faults)
    text = ours("rping", "server", relay.port[0].udp, rounds, 16000)
    relay.faults()
    assert f"{rounds} rounds of" in text and number("tx", text) > rounds * (16000 // mtu)
    assert linux.wait()[0] == 0


@pytest.mark.parametrize("direction", ["write", "read"])
def test_perftest(relay, linux, mtu, direction):
    linux.start(f"ib_{direction}_bw -z -n 500 -s 4096 -m {mtu}")
    time.sleep(0.3)
    text = ours("perftest", direction, relay.port[0].udp, 500, 4096, 0, mtu)
    # One packet for each MTU of payload, and none twice unless this machine was too busy.
    sent = number("tx" if direction == "write" else "rx", text)
    assert sent >= 500 * (4096 // mtu)
    assert sent == 500 * (4096 // mtu) or number("time-outs", text)
    status, text = linux.wait()
    assert status == 0 and re.search(r"^ 4096 +500 ", text, re.M), text


@pytest.fixture
def node(linux):
    linux.node("--size 4 --slices 2 --token sesame")
    yield linux
    status, text = linux.stop()
    assert status == 0, text


def memtest(relay, *arguments, port=0):
    return [relay.port[port].udp, "--node", ADDRESS, "--ip", OURS if not port else "10.77.0.3",
            "--token", "sesame", *arguments]


@pytest.mark.parametrize("size", [256, 1024, 2048, 4096])
def test_node(relay, linux, node, size):
    """Our requester and the memory node for Linux, with losses."""
    linux.run("ip link set eth0 mtu 9000")
    relay.faults(loss=0.01)
    text = ours("memtest", *memtest(relay, "--operations", 512, "--mtu", size))
    assert "512 pages, 1 connections" in text and "strange 0" in text


def test_node_bad_wire(relay, linux, node):
    relay.faults(duplicate=0.02, reorder=0.02, corrupt=0.02)
    assert "512 pages" in ours("memtest", *memtest(relay, "--operations", 512))


def test_node_token(relay, node):
    done = subprocess.run([BUILD / "interop/memtest", *memtest(relay)[:-1], "sesam"],
                          stdout=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1 and "not connected; connection state 7, reason 28" in done.stdout


def test_node_clients(relay, linux, node):
    """Two clients, a slice each, and not each other's; one comes back to its slice and content."""
    second = subprocess.Popen([BUILD / "interop/memtest",
                               *memtest(relay, "--seconds", "5", "--reconnect", port=2)],
                              stdout=subprocess.PIPE, text=True)
    assert second.stdout.readline() == "memtest: connected\n"
    assert " 1 incarnations" in ours("memtest", *memtest(relay, "--slice", "1"))
    done = subprocess.run([BUILD / "interop/memtest", *memtest(relay, "--slice", "0")],
                          stdout=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1 and "reason 28" in done.stdout, done.stdout
    # The wire is away for longer than the second client's patience.
    relay.link(2, False)
    time.sleep(2.5)
    relay.link(2, True)
    text, _ = second.communicate(timeout=60)
    assert second.returncode == 0 and " 2 connections, 1 incarnations" in text, text
    _, said = linux.run("cat /tmp/out")
    assert said.count("10.77.0.3 connected") == 2 and "10.77.0.2 connected" in said


def test_frames(wire):
    """Every frame of all this is well-formed to tshark, and decodes and encodes again to us."""
    relay, linux = wire
    capture = BUILD / "interop/run.pcap"
    with relay._lock:
        relay._pcap.flush()
        seen = relay.count["roce"]
    if seen < 10000:
        pytest.skip("only with the tests before it")
    text = ours("frames", capture)
    assert number("frames:", text) >= seen
    # Wireshark takes some SENDs for RPC over RDMA, which they are not.
    done = subprocess.run(
        ["tshark", "-r", capture, "--disable-protocol", "rpcordma", "-Y",
         "_ws.malformed || _ws.expert.severity >= 6291456 || (udp.port == 4791 && !infiniband)"],
        capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout == "", done.stdout[:2000] + done.stderr
