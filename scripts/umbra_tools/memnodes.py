"""Memory nodes for a machine in an emulator: build/memnode for each that a configuration names, and
the wire between them.

One node is at the other end of the NIC's wire; with several there is a switch (tests/relay.py).
"""

import ipaddress
import os
import subprocess
import sys

from . import emulator
from .base import BUILD, ROOT, Failure, build
from .config import split_list

sys.path.append(str(ROOT / "tests"))
from relay import Relay  # noqa: E402

PORT = 7471  # of a node that is named without one
# Instructions that Bochs calls a second: its NIC takes one frame in each millisecond of that time.
IPS = 5000000
SLICES = 8  # of a node, at most
SPARE = 16  # MiB of a slice beyond its VM's memory


class Node:
    def __init__(self, ip, port):
        self.ip, self.port = ip, port
        self.tokens, self.memory = set(), []  # of each VM that uses it; MiB

    def command(self, udp):
        size = len(self.memory) * (max(self.memory) + SPARE)
        return [BUILD / "memnode", "--udp", udp, "--ip", self.ip, "--port", self.port, "--size",
                size, "--slices", len(self.memory), "--token", self.tokens.copy().pop()]


def _nodes(config, memory):
    """[Node] that the configuration's VMs name. What cannot be understood is the loader's to tell."""
    nodes = {}
    for vm in config.vms():
        for text in split_list(config.get(f"vm {vm}", "remote", "")):
            ip, _, port = text.partition(":")
            try:
                key = str(ipaddress.IPv4Address(ip)), int(port or PORT)
            except ValueError:
                return []
            node = nodes.setdefault(key, Node(*key))
            node.tokens.add(config.get(f"vm {vm}", "remote_token", ""))
            node.memory.append(memory(vm))
    for node in nodes.values():
        if len(node.tokens) > 1 or len(node.memory) > SLICES:
            raise Failure(f"{config.name}: memory node {node.ip} is to be used by "
                          f"{len(node.memory)} VMs with {len(node.tokens)} tokens; expected one "
                          f"token, and {SLICES} VMs at most")
    return list(nodes.values())


def _set_network(config, nodes):
    """An address of the machine's own beside the nodes', unless it has one."""
    if config.get("umbra", "network", "none") != "none":
        return
    net = ipaddress.IPv4Network(f"{nodes[0].ip}/24", strict=False)
    ours = next(str(host) for host in net.hosts() if str(host) not in [n.ip for n in nodes])
    config.set("umbra", "network", f"{ours}/24")


class MemoryNodes:
    """For a `with`: the nodes run inside. False if the configuration names none.

    memory(vm): MiB of a VM's memory. nic: what the machine is to be given. pcap: a file for the
    frames of the wire, if any.
    """

    def __init__(self, config, memory, pcap=None):
        self.nodes, self.pcap = _nodes(config, memory), pcap
        self.nic, self.relay, self.processes = None, None, []
        if self.nodes:
            _set_network(config, self.nodes)

    def __bool__(self):
        return bool(self.nodes)

    def __enter__(self):
        if not self.nodes:
            return self
        build(os.path.relpath(BUILD / "memnode", ROOT))
        if len(self.nodes) == 1 and not self.pcap:
            self.nic = emulator.Nic()
            wires = ["%d:%d" % self.nic.peer]
        else:
            self.relay = Relay(1 + len(self.nodes), pcap=self.pcap,
                               pcap_at="in").__enter__()
            self.nic = emulator.Nic(port=self.relay.port[0].host)
            wires = [port.udp for port in self.relay.port[1:]]
        for node, wire in zip(self.nodes, wires):
            self.processes.append(subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", *map(str, node.command(wire))],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True))
        for process in self.processes:
            if not process.stdout.readline():
                raise Failure("a memory node did not start")
        return self

    def __exit__(self, *exception):
        for process in self.processes:
            process.kill()
            process.wait()
            process.stdout.close()
        if self.relay:
            self.relay.__exit__(*exception)

    def describe(self):
        return ", ".join(f"{n.ip} ({len(n.memory) * (max(n.memory) + SPARE)} MiB)"
                         for n in self.nodes)
