"""The network changes while connections live: addresses, the device's MAC and MTU, the neighbour, routes."""

import socket

from case import case, expect, expect_equal
from frames import ACK, PSH, Forge
from rig.process import wait_until
from rig.proof import counter
from rig.servers import REDIS_PORT

from .bad_input import wire_socket


def ping(connection):
    connection.sendall(b"PING\r\n")
    expect_equal(connection.recv(100), b"+PONG\r\n", "redis")


@case("several addresses: old connections stay, new ones come to each", timeout=60)
def network_several_addresses(rig):
    rig.start_redis()
    with rig.carried_by_user_stack(frames=5), rig.far.connect(rig.near.ipv4, REDIS_PORT) as first:
        ping(first)
        more = ["10.9.9.1/24", "fd99::1/64"]
        for host, addresses in (rig.near, more), (rig.far, ["10.9.9.2/24", "fd99::2/64"]):
            for address in addresses:
                host.check(["ip", "addr", "add", address, "dev", host.device, *(["nodad"] if ":" in address else [])])
        for address in more:
            with rig.far.connect(address.split("/")[0], REDIS_PORT) as other:
                ping(other)
        rig.near.check(["ip", "addr", "del", more[0], "dev", rig.near.device])
        ping(first)


@case("the device's MAC changes under a connection", timeout=60)
def network_new_mac(rig):
    rig.start_redis()
    with rig.carried_by_user_stack(frames=5), rig.far.connect(rig.near.ipv4, REDIS_PORT) as connection:
        ping(connection)
        rig.near.check(["ip", "link", "set", "dev", rig.near.device, "address", "02:00:00:77:00:01"])
        rig.far.check(["ip", "neigh", "flush", "dev", rig.far.device])
        ping(connection)
        with rig.far.connect(rig.near.ipv4, REDIS_PORT) as other:
            ping(other)


@case("the peer's MAC changes under a connection", timeout=60)
def network_new_neighbour(rig):
    rig.start_redis()
    with rig.carried_by_user_stack(frames=5), rig.far.connect(rig.near.ipv4, REDIS_PORT) as connection:
        ping(connection)
        rig.far.check(["ip", "link", "set", "dev", rig.far.device, "address", "02:00:00:77:00:02"])
        rig.near.check(["ip", "neigh", "flush", "dev", rig.near.device])
        ping(connection)


@case("the device's MTU shrinks under a connection", timeout=60)
def network_smaller_mtu(rig):
    # Packets are counted below, so the kernel shall send them one by one as well.
    rig.near.check(["ip", "link", "set", "dev", rig.near.device, "gso_max_segs", "1"])
    rig.near.check(["ethtool", "-K", rig.near.device, "tso", "off", "gso", "off"])
    rig.start_redis()
    with rig.carried_by_user_stack(frames=40), rig.far.connect(rig.near.ipv4, REDIS_PORT) as connection:
        value = bytes(range(256)) * 2000
        stream = connection.makefile("rwb")
        stream.write(b"*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n$%d\r\n%s\r\n" % (len(value), value))
        stream.flush()
        expect_equal(stream.readline(), b"+OK\r\n", "SET")
        rig.near.check(["ip", "link", "set", "dev", rig.near.device, "mtu", "1000"])
        before = received_packets(rig.far)
        stream.write(b"GET big\r\n")
        stream.flush()
        length = int(stream.readline()[1:])
        expect_equal(stream.read(length + 2), value + b"\r\n", "GET")
        packets = received_packets(rig.far) - before
        expect(packets >= length / 1000 * 0.9, f"{length} bytes came in {packets} packets: longer than the MTU")


def received_packets(host):
    path = f"/sys/class/net/{host.device}/statistics/rx_packets"
    return int(host.check(["cat", path]))


@case("the route to a peer comes, goes and comes back", timeout=60)
def network_routes(rig):
    rig.start_redis()
    rig.far.check(["ip", "addr", "add", "10.55.0.2/32", "dev", rig.far.device])
    via = ["ip", "route", "replace", "10.55.0.0/16", "via", rig.far.ipv4, "dev", rig.near.device]
    rig.near.check(via)

    def connects():
        with rig.far.socket() as s:
            s.bind(("10.55.0.2", 0))
            s.settimeout(1)
            s.connect((rig.near.ipv4, REDIS_PORT))
            ping(s)
            return True

    with rig.carried_by_user_stack(frames=10):
        wait_until(connects, 10, "no answer over the new route")
        with rig.far.socket() as s:
            s.bind(("10.55.0.2", 0))
            s.connect((rig.near.ipv4, REDIS_PORT))
            ping(s)
            rig.near.check([*via, "metric", "5"])
            rig.near.check(["ip", "route", "del", "10.55.0.0/16", "metric", "0"])
            ping(s)


# Of linux/tcp.h; Python has no names for them.
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21
RECEIVE_QUEUE, SEND_QUEUE = 1, 2


def sequence_numbers(connection):
    """Where a connection of far's kernel is: (what it sends next, what it expects)."""
    connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    numbers = []
    for queue in (SEND_QUEUE, RECEIVE_QUEUE):
        connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
        numbers.append(connection.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ) & 0xFFFFFFFF)
    connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, -1)  # and without a window probe
    return numbers


@case("segments that come in fragments are read, and kill nothing", timeout=60)
def network_tcp_fragments(rig):
    rig.start_redis()
    rig.far.check(["sysctl", "-qw", "net.ipv4.tcp_timestamps=0"])
    words = b"ECHO 0123456789abcdef0123456789abcdef\r\n" * 20
    answers = b"$32\r\n0123456789abcdef0123456789abcdef\r\n" * 20
    with rig.carried_by_user_stack(frames=5), rig.far.connect(rig.near.ipv4, REDIS_PORT) as connection, \
            wire_socket(rig.far) as wire:
        ping(connection)
        forge = Forge(rig.far, rig.near, REDIS_PORT)
        seq, ack = sequence_numbers(connection)
        segment = forge.tcp(words, flags=PSH | ACK, source_port=connection.getsockname()[1], seq=seq, ack=ack)
        cuts = [0, 400, 600, len(segment)]
        for start, end in zip(cuts, cuts[1:]):
            more = 0x2000 if end < len(segment) else 0
            wire.send(forge.ipv4(segment[start:end], fragment=start // 8 | more))
        # Far's kernel knows of none of it; it sends the same now, and takes the answers then.
        connection.settimeout(10)
        if rig.mode == "sidestep":
            wait_until(lambda: counter(rig.sidestep.status()["stacks"][0], "reassembled") == 1, 5, "it was not put together")
            expect_equal(rig.sidestep.status()["verdicts"]["redirect_fragment"], 3, "fragments redirected")
        connection.sendall(words)
        got = b""
        while len(got) < len(answers):
            data = connection.recv(65536)
            expect(data, "the connection ended")
            got += data
        expect_equal(got, answers, "what redis said")
        # A first fragment alone is forgotten, and the connection goes on.
        wire.send(forge.ipv4(segment[:400], fragment=0x2000))
        ping(connection)
