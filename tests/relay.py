#!/usr/bin/env python3
"""An Ethernet switch for tests, which loses, repeats, reorders, alters, delays and holds frames.

Each port is a UDP wire on 127.0.0.1 as QEMU's `-netdev dgram`, Bochs's `ethmod=socket` and
build/memnode carry frames: the host at port N receives at `relay.port[N].host` and sends to
`relay.port[N].wire`, which is `host + 1` as Bochs wants it.

    with Relay(2, seed=7, pcap="run.pcap") as relay:
        a, b = relay.port
        # Bochs:   e1000: ethmod=socket, ethdev=<a.host>
        # QEMU:    -netdev <a.netdev("n0")> -device e1000,netdev=n0
        # memnode: build/memnode --udp <b.udp>
        relay.faults(loss=0.02, duplicate=0.01, reorder=0.02, corrupt=0.01)   # all directions
        relay.faults(source=0, loss=0.1)    # what host 0 sends; resets its other faults
        relay.faults()                      # a good wire again
        relay.stall(1); time.sleep(5); relay.resume(1)   # frames to and from it come later
        relay.link(0, False)                # frames to and from it are lost
        relay.wait(roce=100, timeout=30)    # until so many RoCE frames have come
        print(relay.count)                  # frames in, out, lost, duplicated, ...

Faults hit frames that come in, each direction with a random sequence of its own from the seed, so
the same frames in the same order meet the same faults. Corruption is one bit or a few bytes behind
the Ethernet header, in RoCE frames only: what Ethernet's checksum would have caught in ARP or DHCP
is not what a test of RoCE is about. The pcap file has what went out (`pcap_at="in"`: what came in).
More than two ports: frames go where their destination was last seen, else to all.

As a program, for use by hand; prints what to give to the hosts, then obeys lines like
`faults loss=0.1`, `faults source=1 delay=0.01`, `stall 1`, `resume 1`, `link 0 off`, `count`:

    tests/relay.py [--ports 2] [--base UDP-PORT] [--seed N] [--pcap FILE]
"""

import argparse
import collections
import dataclasses
import heapq
import random
import select
import socket
import struct
import sys
import threading
import time

ROCE_PORT = 4791
HELD_MAX = 20000  # frames a stall keeps; more are lost
REORDER_TIME = 0.02  # a frame held back for reordering leaves after this time in any case


@dataclasses.dataclass
class Faults:
    """Of what one host sends: probabilities, and times in seconds."""
    loss: float = 0
    duplicate: float = 0
    reorder: float = 0
    corrupt: float = 0
    delay: float = 0
    jitter: float = 0  # 0 to this much is added to delay, so it reorders too


class Port:
    """One host's wire: UDP ports, and the state of its link."""

    def __init__(self, number, seed, base=None):
        self.number = number
        self.socket, self.host = _pair(base)
        self.wire = self.host + 1
        self.faults = Faults()
        self.random = random.Random(f"{seed}.{number}")
        self.up = True
        self.stalled = False
        self.behind = []  # [frames still to pass, deadline, frame, destinations]

    @property
    def udp(self):
        """LOCAL:REMOTE for build/memnode and the programs of tests/interop."""
        return f"{self.host}:{self.wire}"

    def netdev(self, name):
        """For QEMU's -netdev."""
        return (f"dgram,id={name},local.type=inet,local.host=127.0.0.1,local.port={self.host},"
                f"remote.type=inet,remote.host=127.0.0.1,remote.port={self.wire}")


def _pair(base):
    """A socket at an odd-numbered UDP port, with the port before it free for the host."""
    while True:
        ours = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        theirs = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            # Below the range from which the kernel takes ports of its own choice.
            host = base if base is not None else random.SystemRandom().randrange(10000, 30000, 2)
            theirs.bind(("127.0.0.1", host))
            ours.bind(("127.0.0.1", host + 1))
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            ours.setblocking(False)
            return ours, host
        except OSError:
            ours.close()
            if base is not None:
                raise
        finally:
            theirs.close()


def is_roce(frame):
    return (len(frame) >= 54 and frame[12:15] == b"\x08\0\x45" and frame[23] == 17
            and struct.unpack_from(">H", frame, 36)[0] == ROCE_PORT)


class Relay:
    def __init__(self, ports=2, *, seed=1, pcap=None, pcap_at="out", base=None):
        self.port = [Port(n, seed, None if base is None else base + 2 * n) for n in range(ports)]
        self.count = collections.Counter()
        self._lock = threading.Condition()
        self._later = []  # heap of (time, order, frame, source, destinations)
        self._order = 0
        self._held = collections.deque()  # (frame, source, destination) of stalled ports
        self._seen = {}  # MAC address: port
        self._pcap_at = pcap_at
        self._pcap = None
        if pcap:
            self._pcap = open(pcap, "wb")
            self._pcap.write(struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1))
        self._wake, self._wake_in = socket.socketpair()
        self._ending = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._ending = True
        self._wake_in.send(b"x")
        self._thread.join()
        for each in (*(p.socket for p in self.port), self._wake, self._wake_in):
            each.close()
        if self._pcap:
            self._pcap.close()

    # --- control, from any thread ---------------------------------------------------------------

    def faults(self, *, source=None, **kinds):
        with self._lock:
            for port in self.port if source is None else [self.port[source]]:
                port.faults = Faults(**kinds)

    def stall(self, number):
        with self._lock:
            self.port[number].stalled = True

    def resume(self, number):
        with self._lock:
            self.port[number].stalled = False
            held, self._held = self._held, collections.deque()
            for frame, source, destination in held:
                self._deliver(frame, source, destination)

    def link(self, number, up):
        with self._lock:
            self.port[number].up = up

    def wait(self, *, timeout, **counts):
        """Until each named count has grown by so much; False if it takes too long."""
        with self._lock:
            goal = {name: self.count[name] + number for name, number in counts.items()}
            return self._lock.wait_for(
                lambda: all(self.count[name] >= number for name, number in goal.items()), timeout)

    # --- the switch ------------------------------------------------------------------------------

    def _run(self):
        sockets = {port.socket: port for port in self.port}
        while not self._ending:
            ready, _, _ = select.select([*sockets, self._wake], [], [], self._wait())
            with self._lock:
                for each in ready:
                    if each is not self._wake:
                        self._read(sockets[each])
                self._pass_time()
                self._lock.notify_all()

    def _wait(self):
        with self._lock:
            times = [self._later[0][0]] if self._later else []
            times += [entry[1] for port in self.port for entry in port.behind]
        return max(0, min(times) - time.monotonic()) if times else 0.5

    def _read(self, port):
        for _ in range(64):
            try:
                frame = port.socket.recv(65536)
            except (BlockingIOError, ConnectionRefusedError):
                return
            if len(frame) >= 14:
                self._arrive(port, frame)

    def _arrive(self, port, frame):
        self.count["in"] += 1
        self.count["roce"] += is_roce(frame)
        self._record("in", frame)
        destinations = self._forward(port.number, frame)
        faults, rng = port.faults, port.random
        # Always as many random numbers per frame, so that one fault does not move the others.
        lost, twice, late, altered, jitter, detail = (rng.random() for _ in range(6))
        if lost < faults.loss:
            self.count["lost"] += 1
            return
        if altered < faults.corrupt and is_roce(frame):
            self.count["corrupted"] += 1
            frame = self._corrupt(frame, random.Random(detail))
        for entry in port.behind:
            entry[0] -= 1
        if late < faults.reorder:
            self.count["reordered"] += 1
            port.behind.append([1 + int(detail * 4), time.monotonic() + REORDER_TIME, frame,
                                destinations])
            return
        for _ in range(2 if twice < faults.duplicate else 1):
            self._send_after(faults.delay + jitter * faults.jitter, frame, port.number,
                             destinations)
        self.count["duplicated"] += twice < faults.duplicate
        self._pass_behind(port)

    def _forward(self, source, frame):
        self._seen[frame[6:12]] = source
        target = self._seen.get(frame[:6]) if not frame[0] & 1 else None
        if target is not None:
            return [target] if target != source else []
        return [port.number for port in self.port if port.number != source]

    @staticmethod
    def _corrupt(frame, rng):
        frame = bytearray(frame)
        start = rng.randrange(14, len(frame))
        if rng.random() < 0.5:
            frame[start] ^= 1 << rng.randrange(8)
        else:
            for at in range(start, min(start + rng.randint(1, 8), len(frame))):
                frame[at] ^= rng.randint(1, 255)
        return bytes(frame)

    def _send_after(self, delay, frame, source, destinations):
        if delay <= 0:
            for each in destinations:
                self._deliver(frame, source, each)
            return
        self._order += 1
        heapq.heappush(self._later, (time.monotonic() + delay, self._order, frame, source,
                                     destinations))

    def _pass_behind(self, port, now=None):
        now = now or time.monotonic()
        for entry in [e for e in port.behind if e[0] <= 0 or e[1] <= now]:
            port.behind.remove(entry)
            self._send_after(port.faults.delay, entry[2], port.number, entry[3])

    def _pass_time(self):
        now = time.monotonic()
        for port in self.port:
            self._pass_behind(port, now)
        while self._later and self._later[0][0] <= now:
            _, _, frame, source, destinations = heapq.heappop(self._later)
            for each in destinations:
                self._deliver(frame, source, each)

    def _deliver(self, frame, source, destination):
        ends = self.port[source], self.port[destination]
        if not all(port.up for port in ends):
            self.count["lost"] += 1
        elif any(port.stalled for port in ends):
            if len(self._held) < HELD_MAX:
                self._held.append((frame, source, destination))
            else:
                self.count["lost"] += 1
        else:
            self._record("out", frame)
            self.count["out"] += 1
            try:
                ends[1].socket.sendto(frame, ("127.0.0.1", ends[1].host))
            except OSError:  # nobody there yet, or its buffer is full: lost as on any wire
                self.count["lost"] += 1

    def _record(self, where, frame):
        if self._pcap and where == self._pcap_at:
            now = time.time()
            self._pcap.write(struct.pack("<IIII", int(now), int(now % 1 * 1e6), len(frame),
                                         len(frame)) + frame)


def _obey(relay, line):
    command, *words = line.split()
    if command == "faults":
        values = dict(word.split("=") for word in words)
        source = values.pop("source", None)
        relay.faults(source=None if source is None else int(source),
                     **{key: float(value) for key, value in values.items()})
    elif command in ("stall", "resume"):
        getattr(relay, command)(int(words[0]))
    elif command == "link":
        relay.link(int(words[0]), words[1] == "on")
    elif command == "count":
        print(dict(relay.count), flush=True)
    else:
        raise ValueError(command)


def main():
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    p.add_argument("--ports", type=int, default=2)
    p.add_argument("--base", type=int, help="UDP port of host 0, even; by default some free one")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--pcap")
    options = p.parse_args()
    with Relay(options.ports, seed=options.seed, pcap=options.pcap, base=options.base) as relay:
        for port in relay.port:
            print(f"host {port.number}: memnode --udp {port.udp}; Bochs ethdev={port.host}; "
                  f"QEMU -netdev {port.netdev('n0')}", flush=True)
        for line in sys.stdin:
            try:
                if line.strip():
                    _obey(relay, line)
            except (ValueError, IndexError, TypeError) as wrong:
                print(f"not understood: {wrong!r}", flush=True)


if __name__ == "__main__":
    main()
