"""Builds Ethernet/IPv4/IPv6/TCP frames, right ones and wrong ones."""

import random
import socket
import struct

SYN, FIN, RST, PSH, ACK, URG = 0x02, 0x01, 0x04, 0x08, 0x10, 0x20


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Forge:
    """Frames from one host's MAC and addresses to another's."""

    def __init__(self, source, target, port):
        self.ethernet = target.mac() + source.mac()
        self.source, self.target, self.port = source, target, port

    def tcp(self, payload=b"", flags=SYN, source_port=40000, seq=1, ack=0, window=1000, options=b"", offset=None, csum=None):
        words = 5 + len(options) // 4 if offset is None else offset
        head = struct.pack("!HHIIBBHHH", source_port, self.port, seq, ack, words << 4, flags, window, 0, 0) + options
        if csum is None:
            length = len(head) + len(payload)
            csum = checksum(self._addresses(4) + struct.pack("!HH", socket.IPPROTO_TCP, length) + head + payload)
        return head[:16] + struct.pack("!H", csum) + head[18:] + payload

    def ipv4(self, segment, total=None, version_ihl=0x45, csum=None, fragment=0, source=None, options=b""):
        head = struct.pack("!BBHHHBBH", version_ihl, 0, total if total is not None else 20 + len(options) + len(segment),
                           7, fragment, 64, socket.IPPROTO_TCP, 0)
        addresses = (source or socket.inet_aton(self.source.ipv4)) + socket.inet_aton(self.target.ipv4)
        value = checksum(head + addresses + options) if csum is None else csum
        return self.ethernet + b"\x08\x00" + head[:10] + struct.pack("!H", value) + addresses + options + segment

    def ipv6(self, segment, length=None, next_header=socket.IPPROTO_TCP):
        head = struct.pack("!IHBB", 6 << 28, len(segment) if length is None else length, next_header, 64)
        return self.ethernet + b"\x86\xdd" + head + self._addresses(6) + segment

    def _addresses(self, version):
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        return b"".join(socket.inet_pton(family, host.address(version)) for host in (self.source, self.target))


def malformed(forge):
    """(what is wrong, frame) for one mistake at a time."""
    tcp, ip = forge.tcp, forge.ipv4
    whole = ip(tcp())
    for cut in (14, 15, 20, 33, 34, 35, 40, 53):
        yield f"cut after {cut} bytes", whole[:cut]
    yield "wrong TCP checksum", ip(tcp(csum=0x1234))
    yield "TCP checksum zero", ip(tcp(csum=0))
    yield "wrong IP checksum", ip(tcp(), csum=0x1234)
    yield "total length 0", ip(tcp(), total=0)
    yield "total length below the header", ip(tcp(), total=19)
    yield "total length that cuts TCP", ip(tcp(), total=30)
    yield "total length beyond the frame", ip(tcp(), total=1400)
    yield "IHL 4", ip(tcp(), version_ihl=0x44)
    yield "IHL 15 without options", ip(tcp(), version_ihl=0x4F)
    yield "IP version 9", ip(tcp(), version_ihl=0x95)
    yield "a fragment", ip(tcp(), fragment=0x2000)
    yield "a later fragment", ip(tcp(), fragment=0x0010)
    yield "source 127.0.0.1", ip(tcp(), source=b"\x7f\0\0\1")
    yield "source broadcast", ip(tcp(), source=b"\xff\xff\xff\xff")
    yield "source is the target", ip(tcp(), source=socket.inet_aton(forge.target.ipv4))
    for offset in (0, 4, 6, 15):
        yield f"data offset {offset}", ip(tcp(offset=offset))
    for name, options in {"length 0": b"\x02\0\0\0", "length 1": b"\x02\1\0\0", "beyond the end": b"\x02\x28\0\0",
                          "a cut timestamp": b"\x08\x0a\0\1", "many no-ops": b"\1" * 40}.items():
        yield f"TCP option of {name}", ip(tcp(options=options))
    for flags in (0, FIN, SYN | FIN, SYN | RST, 0x3F, 0xFF, RST, ACK, PSH | URG):
        yield f"flags {flags:#x} to a listener", ip(tcp(flags=flags))
    yield "SYN with data", ip(tcp(payload=b"PING\r\n"))
    yield "IPv6 payload length 0", forge.ipv6(tcp(), length=0)
    yield "IPv6 payload length beyond the frame", forge.ipv6(tcp(), length=5000)
    yield "IPv6 with a wrong TCP checksum", forge.ipv6(tcp(csum=0x4321))
    yield "IPv6 with a hop-by-hop header that is cut", forge.ipv6(b"\x06\xff" + b"\0" * 6, next_header=0)
    yield "two VLAN tags and nothing", forge.ethernet + b"\x88\xa8\0\1\x81\0\0\2"
    yield "as long as the device takes", ip(tcp(payload=b"\xAA" * 1460, csum=0x1111))


def random_frames(forge, count, seed):
    """Right up to a point, then noise."""
    bits = random.Random(seed)
    for _ in range(count):
        segment = bytearray(forge.tcp(payload=bits.randbytes(bits.randrange(64)), flags=bits.randrange(256),
                                      source_port=bits.randrange(1024, 65536), seq=bits.getrandbits(32)))
        frame = bytearray(forge.ipv4(bytes(segment)) if bits.random() < 0.7 else forge.ipv6(bytes(segment)))
        for _ in range(bits.randrange(1, 6)):
            frame[bits.randrange(12, len(frame))] = bits.randrange(256)
        yield bytes(frame[: bits.randrange(15, len(frame) + 1)] if bits.random() < 0.3 else frame)
