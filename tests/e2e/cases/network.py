"""The network changes while connections live: addresses, the device's MAC and MTU, the neighbour, routes."""

from case import case, expect, expect_equal
from rig.process import wait_until
from rig.servers import REDIS_PORT


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
