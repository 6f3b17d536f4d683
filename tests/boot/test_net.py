"""The NIC driver, lwIP and `role = memory-node`: Umbra in QEMU (TCG; no VT-x is needed) and in Bochs,
with a peer of ours, and a client of the node, on the other end of the wire."""

import json
import random
import re
import socket
import subprocess
import sys

import pytest

sys.path.insert(0, __file__.rsplit("/boot/", 1)[0])

from harness import Background, boot, have_emulator
from net_peer import ARP, IPV4, UDP, Peer, ethernet, ip_bytes, ipv4, udp
from tiny import halted_kernel
from umbra_tools.base import BUILD, ROOT
from umbra_tools.emulator import Nic

IP, PEER_IP = "10.77.0.2", "10.77.0.1"
NODE = f"""[umbra]
role = memory-node
network = {IP}/24
node_token = sesame
node_memory = 32M
node_slices = 2
log = com2
"""


@pytest.fixture(scope="module", autouse=True)
def built():
    subprocess.run(["make", "-s", f"BUILD={BUILD}", "memnode"], cwd=ROOT, check=True)


def start(name, nic, emulator="qemu", config=NODE, **options):
    return Background(config=config, name=f"net-{name}", emulator_name=emulator, nic=nic,
                      memory=512, timeout=200, **options)


def memtest(nic, *arguments, ip=IP, token="sesame"):
    """The client's last line, and its status."""
    ports = "%d:%d" % nic.peer
    done = subprocess.run([BUILD / "interop/memtest", ports, "--node", ip, "--ip", PEER_IP, "--token",
                           token, *map(str, arguments)], stdout=subprocess.PIPE, text=True,
                          timeout=120)
    return done.returncode, done.stdout.strip().split("\n")[-1]


def node_line(machine, ip=IP):
    return machine.wait_log(rf"memory node: 32 MiB in 2 slices at {re.escape(ip)} port 7471, "
                            r"incarnation [0-9a-f]{16}")


@pytest.mark.parametrize("model", ["e1000", "e1000e"])
def test_memory_node(model):
    """QEMU: pages written and read back are the same, also over a wire that loses frames."""
    nic = Nic(model=model)
    with start(model, nic, cpus=2) as machine:
        node_line(machine)
        assert {"e1000": "82540EM", "e1000e": "82574L"}[model] in machine.log
        assert nic.mac in machine.log
        for loss in 0, 20:
            status, last = memtest(nic, "--operations", 2048, "--loss", loss)
            assert status == 0 and "2048 pages" in last, last
            assert (" lost 0 " in last) == (loss == 0), last
        status, last = memtest(nic, "--operations", 16, token="wrong")
        assert status == 1 and "reason 28" in last
        machine.wait_log("1 clients refused")
        for what in "has connected", "has gone":
            assert len(re.findall(f"slice .: {re.escape(PEER_IP)} {what}", machine.log)) == 2


@pytest.mark.parametrize("emulator", ["bochs", "bochs3"])
def test_memory_node_bochs(emulator):
    """The same there, where a frame comes in each emulated millisecond at most."""
    if not have_emulator(emulator):
        pytest.skip("no such Bochs here")
    nic = Nic()
    with start(emulator, nic, emulator, ips=5000000) as machine:
        node_line(machine)
        with Peer(nic.peer, PEER_IP) as peer:
            assert peer.ping(IP, count=3) == 3
        for loss in 0, 10:
            status, last = memtest(nic, "--operations", 512, "--loss", loss)
            assert status == 0 and "512 pages" in last, last


def monitor(server):
    """QEMU's end of a QMP connection (machine-readable monitor): a function that runs a command."""
    stream = server.accept()[0].makefile("rw")

    def command(name, /, **arguments):
        stream.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        stream.flush()
        while "return" not in (answer := json.loads(stream.readline())):
            assert "error" not in answer, answer

    json.loads(stream.readline())
    command("qmp_capabilities")
    return command


def hostile(rng, mac, peer):
    """Frames that are nearly right: ARP, IPv4, UDP and DHCP with anything in their fields."""
    kind = rng.randrange(5)
    junk = rng.randbytes(rng.randrange(0, 1400))
    if kind == 0:
        return mac + peer.mac + rng.randbytes(2) + junk
    if kind == 1:
        return ethernet(mac, peer.mac, ARP, rng.randbytes(28))
    if kind == 2:
        return ethernet(mac, peer.mac, IPV4, bytes([0x45 + rng.randrange(11)]) + junk)
    port = rng.choice([68, 67, 7471, 4791, 4791, 4791])
    datagram = bytearray(ipv4(peer.ip, ip_bytes(IP), rng.choice([1, UDP, UDP, 6]),
                              udp(rng.randrange(65536), port, junk)))
    for _ in range(rng.randrange(4)):
        datagram[rng.randrange(len(datagram))] = rng.randrange(256)
    return ethernet(mac, peer.mac, IPV4, bytes(datagram[:rng.randrange(1, len(datagram) + 1)]))


@pytest.mark.parametrize("model", ["e1000", "e1000e"])
def test_ping_and_link(model):
    """ARP and ping; 5,000 hostile frames; the link goes and comes back; the node still serves."""
    nic = Nic(model=model)
    rng = random.Random(model)
    with socket.create_server(("127.0.0.1", 0)) as server, \
            start(f"link-{model}", nic, qmp=server.getsockname()[1]) as machine:
        command = monitor(server)
        node_line(machine)
        with Peer(nic.peer, PEER_IP) as peer:
            assert peer.resolve(IP) == bytes.fromhex(nic.mac.replace(":", ""))
            for size in 0, 1, 56, 1472:
                assert peer.ping(IP, rng.randbytes(size), count=5) == 5
            # Not for us, not whole: no answer.
            peer.macs[ip_bytes("10.77.0.3")] = peer.resolve(IP)
            assert not peer.ping("10.77.0.3", timeout=0.3)
            assert not peer.ping(IP, timeout=0.3, fragment=0x2000)

            mac = peer.resolve(IP)
            for _ in range(100):  # in pieces that the emulator's socket holds
                for _ in range(50):
                    peer.send(hostile(rng, mac, peer))
                assert peer.ping(IP) == 1

            command("set_link", name="nic0", up=False)
            machine.wait_log("link down")
            assert not peer.ping(IP, timeout=0.3)
            command("set_link", name="nic0", up=True)
            machine.wait_log("link up", after=machine.log.index("link down"))
            peer.forget()
            assert peer.ping(IP, count=5) == 5
        status, last = memtest(nic, "--operations", 512)
        assert status == 0, last
        command("set_link", name="nic0", up=False)
    assert machine.result.reason == "stopped", machine.result.explain()


def test_dhcp():
    """The address comes from a server that the peer plays; then the node serves there."""
    nic = Nic()
    config = NODE.replace(f"network = {IP}/24", "network = dhcp")
    with start("dhcp", nic, config=config) as machine:
        with Peer(nic.peer, PEER_IP, lease="10.77.0.9") as peer:
            machine.wait_log(r"network: address 10\.77\.0\.9\n")
            assert peer.asked[0] == 1 and 3 in peer.asked  # DISCOVER, REQUEST
            node_line(machine, "10.77.0.9")
            assert peer.ping("10.77.0.9", count=3) == 3
        status, last = memtest(nic, "--operations", 256, ip="10.77.0.9")
        assert status == 0, last


@pytest.mark.parametrize("emulator", ["bochs3"])
def test_hypervisor_answers(emulator):
    """While all guests are halted and nobody waits for the network, the machine answers all the same:
    peers that ask whether it lives (ARP, the probes of a memory node) take it for dead otherwise."""
    if not have_emulator(emulator):
        pytest.skip("no such Bochs here")
    nic = Nic()
    config = f"[umbra]\nnetwork = {IP}/24\nlog = com2\n[vm halted]\nkernel = halted.bin\n"
    with start("halted", nic, emulator, config, ips=5000000,
               files={"umbra/halted.bin": halted_kernel()}) as machine:
        machine.wait_log("vm halted: 1 vCPU")
        with Peer(nic.peer, PEER_IP) as peer:
            assert peer.ping(IP, count=5) == 5
    assert machine.result.reason == "stopped", machine.result.explain()


def test_no_nic():
    """Said, and the machine ends with status 70: nobody could be served."""
    result = boot(config=NODE + "poweroff = qemu\n", name="net-none", emulator_name="qemu",
                  memory=512, timeout=60)
    assert (result.reason, result.status) == ("end", 70), result.explain()
    assert "no NIC that Umbra can drive" in result.log
