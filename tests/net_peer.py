#!/usr/bin/env python3
"""A host on the other end of an emulated NIC's wire: ARP, ping, a DHCP server, and frames of any
kind, over the pair of UDP ports that QEMU's `-netdev dgram` and Bochs's `ethmod=socket` use.

    with Peer(nic.peer) as peer:
        peer.ping("10.77.0.2")

As a program it answers ARP and DHCP and pings whom it gave an address:

    tests/net_peer.py LOCAL-UDP-PORT REMOTE-UDP-PORT
"""

import ipaddress
import socket
import struct
import sys
import threading
import time

BROADCAST = b"\xff" * 6
ARP, IPV4 = 0x0806, 0x0800
ICMP, UDP = 1, 17
DHCP_MAGIC = b"\x63\x82\x53\x63"
DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK = range(1, 7)


def mac_bytes(text):
    return bytes.fromhex(text.replace(":", ""))


def ip_bytes(text):
    return ipaddress.IPv4Address(text).packed


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def ethernet(to, source, kind, payload):
    return (to + source + struct.pack(">H", kind) + payload).ljust(60, b"\0")


def ipv4(source, to, protocol, payload, ident=1, fragment=0x4000):
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), ident, fragment, 64, protocol,
                         0, source, to)
    return header[:10] + struct.pack(">H", checksum(header)) + header[12:] + payload


def udp(source_port, port, payload):
    return struct.pack(">HHHH", source_port, port, 8 + len(payload), 0) + payload


def echo_request(ident, sequence, payload):
    message = struct.pack(">BBHHH", 8, 0, 0, ident, sequence) + payload
    return message[:2] + struct.pack(">H", checksum(message)) + message[4:]


class Peer:
    """lease: the address that DHCP gives, None: no DHCP server here."""

    def __init__(self, ports, ip="10.77.0.1", mac="02:00:00:00:00:01", lease=None):
        self.local, self.remote = ports
        self.ip, self.mac, self.lease = ip_bytes(ip), mac_bytes(mac), lease and ip_bytes(lease)
        self.frames = []  # what has arrived
        self.asked = []  # kinds of DHCP messages
        self.macs = {}  # by IP address, from ARP
        self._changed = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind(("127.0.0.1", self.local))
        self._socket.settimeout(0.1)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._ending = True
        self._thread.join()
        self._socket.close()

    def send(self, frame):
        try:
            self._socket.sendto(frame, ("127.0.0.1", self.remote))
        except ConnectionRefusedError:
            pass  # nobody there yet

    def _run(self):
        while not self._ending:
            try:
                frame = self._socket.recv(65536)
            except (TimeoutError, ConnectionRefusedError):
                continue
            if len(frame) < 14:
                continue
            self._answer(frame)
            with self._changed:
                self.frames.append(frame)
                self._changed.notify_all()

    def _answer(self, frame):
        kind = struct.unpack_from(">H", frame, 12)[0]
        if kind == ARP and len(frame) >= 42:
            operation = struct.unpack_from(">H", frame, 20)[0]
            mac, ip, wanted = frame[22:28], frame[28:32], frame[38:42]
            if ip != b"\0\0\0\0":
                self.macs[ip] = mac
            if operation == 1 and wanted == self.ip:
                self.send(self._arp(2, mac, ip))
        elif kind == IPV4 and self.lease and frame[23] == UDP and \
                struct.unpack_from(">H", frame, 36)[0] == 67:
            self._dhcp(frame[42:])

    def _arp(self, operation, mac, ip):
        return ethernet(mac or BROADCAST, self.mac, ARP,
                        struct.pack(">HHBBH", 1, IPV4, 6, 4, operation) + self.mac + self.ip
                        + (mac or b"\0" * 6) + ip)

    def _dhcp(self, message):
        """RFC 2131, for one client."""
        options, kind = message[240:], None
        while options and options[0] != 255:
            if options[0] == 0:
                options = options[1:]
                continue
            if options[0] == 53:
                kind = options[2]
            options = options[2 + options[1]:]
        self.asked.append(kind)
        if kind not in (DISCOVER, REQUEST):
            return
        answer = struct.pack(">BBBB4sHH4s4s4s4s", 2, 1, 6, 0, message[4:8], 0, 0x8000, b"\0" * 4,
                             self.lease, self.ip, b"\0" * 4) + message[28:44] + b"\0" * 192
        answer += DHCP_MAGIC + bytes([53, 1, OFFER if kind == DISCOVER else ACK])
        answer += bytes([54, 4]) + self.ip + bytes([51, 4]) + struct.pack(">I", 3600)
        answer += bytes([1, 4, 255, 255, 255, 0, 3, 4]) + self.ip + b"\xff"
        self.send(ethernet(BROADCAST, self.mac, IPV4,
                           ipv4(self.ip, b"\xff" * 4, UDP, udp(67, 68, answer))))

    def wait(self, matches, timeout=5):
        """The first frame from now on for which matches(frame), or None."""
        with self._changed:
            begin = len(self.frames)
            found = lambda: next((f for f in self.frames[begin:] if matches(f)), None)
            self._changed.wait_for(found, timeout)
            return found()

    def resolve(self, ip, timeout=5):
        """The MAC address that ARP gives, or None."""
        wanted, end = ip_bytes(ip), time.monotonic() + timeout
        while wanted not in self.macs and time.monotonic() < end:
            self.send(self._arp(1, None, wanted))
            time.sleep(0.1)
        return self.macs.get(wanted)

    def ping(self, ip, payload=b"umbra" * 11, timeout=5, count=1, **headers):
        """How many of `count` echo requests were answered with the same bytes."""
        mac = self.resolve(ip, timeout)
        answered = 0
        for sequence in range(count if mac else 0):
            want = struct.pack(">HH", 0x4242, sequence) + payload
            message = echo_request(0x4242, sequence, payload)
            datagram = ipv4(self.ip, ip_bytes(ip), ICMP, message, ident=sequence, **headers)
            begin = len(self.frames)
            self.send(ethernet(mac, self.mac, IPV4, datagram))
            with self._changed:
                answered += self._changed.wait_for(
                    lambda: any(f[12:14] == b"\x08\0" and f[23] == ICMP and f[34] == 0
                                and f[38:38 + len(want)] == want and f[26:30] == ip_bytes(ip)
                                for f in self.frames[begin:]), timeout)
        return answered

    def forget(self):
        self.frames.clear()
        self.macs.clear()


def main():
    with Peer((int(sys.argv[1]), int(sys.argv[2])), lease="10.77.0.9") as peer:
        while True:
            time.sleep(1)
            print(f"{len(peer.frames)} frames; DHCP {peer.asked}; ping "
                  f"{peer.ping('10.77.0.9', timeout=1)}", flush=True)


if __name__ == "__main__":
    main()
