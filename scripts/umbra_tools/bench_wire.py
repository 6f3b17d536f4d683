"""What a page costs on the wire: frames and bytes of a capture, by what they are for.

Bytes are those of Ethernet frames, from the destination's address on, without the check sequence (4
more, and 20 of preamble and gap). What has to be sent again counts again.
"""

import pathlib
import struct

from .base import Failure

ROCE = b"\x12\xb7"  # UDP port 4791
OPCODE = 42  # the first byte behind Ethernet, IPv4 and UDP
READ = range(0x0c, 0x11)  # requests and their answers
WRITE = (*range(0x06, 0x0c), 0x11)  # and acknowledgements
OTHERS = 5  # % of all frames, at most: ARP, connecting, probes


def frames(pcap):
    data = pathlib.Path(pcap).read_bytes()
    at = 24
    while at + 16 <= len(data):
        length, = struct.unpack_from("<I", data, at + 8)
        yield data[at + 16:at + 16 + length]
        at += 16 + length


def _kind(frame):
    if frame[12:14] != b"\x08\0" or frame[23] != 17 or frame[36:38] != ROCE:
        return None
    return "read" if frame[OPCODE] in READ else "write" if frame[OPCODE] in WRITE else None


def count(pcap, mac):
    """{kind: {sent or received: [frames, bytes]}} as the NIC with this address sees them."""
    ours = bytes.fromhex(mac.replace(":", ""))
    found = {kind: {"sent": [0, 0], "received": [0, 0]} for kind in ("read", "write", None)}
    for frame in frames(pcap):
        entry = found[_kind(frame)]["sent" if frame[6:12] == ours else "received"]
        entry[0] += 1
        entry[1] += len(frame)
    return found


def figures(found, kind, pages):
    """remote.KIND.packets.sent and so on, for each of so many pages, of what count() has found."""
    numbers = {name: sum(way[0] for way in ways.values()) for name, ways in found.items()}
    if not pages or not numbers[kind]:
        raise Failure(f"no page went over the wire, to {kind} it")
    if numbers[None] * 100 > OTHERS * sum(numbers.values()):
        raise Failure(f"{numbers[None]} of {sum(numbers.values())} frames carry no pages")
    return {f"remote.{kind}.{what}.{way}": (round(found[kind][way][i] / pages, digits),
                                            f"{what}/page")
            for i, (what, digits) in enumerate((("packets", 2), ("bytes", None)))
            for way in ("sent", "received")}
