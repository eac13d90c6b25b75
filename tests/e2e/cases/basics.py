"""Stock redis and nginx answer kernel clients."""

import csv
import io

from case import case, expect, expect_equal
from rig.network import addressed
from rig.servers import NGINX_PORT, REDIS_PORT

# Everything `redis-benchmark` runs when nobody says otherwise (7.0), by the first word of its row.
DEFAULT_SET = {"PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "LPUSH", "RPUSH", "LPOP", "RPOP", "SADD", "HSET",
               "SPOP", "ZADD", "ZPOPMIN", "LRANGE_100", "LRANGE_300", "LRANGE_500", "LRANGE_600", "MSET"}


@case("the whole default redis-benchmark set", timeout=180)
def redis_default_set(rig):
    run_default_set(rig, 4, requests=10000)


@case("the same over IPv6", timeout=180)
def redis_default_set_ipv6(rig):
    run_default_set(rig, 6, requests=2000)


def run_default_set(rig, version, requests):
    server = rig.start_redis()
    with rig.carried_by_user_stack(frames=requests):
        out = rig.far.check(["redis-benchmark", "-h", rig.near.address(version), "-p", REDIS_PORT, "-n", requests,
                             "-c", 50, "--csv"], timeout=150)
        rows = list(csv.DictReader(io.StringIO(out)))
        seen = {row["test"].split()[0] for row in rows}
        expect(DEFAULT_SET <= seen, f"rows missing: {sorted(DEFAULT_SET - seen)}")
        for row in rows:
            expect(float(row["rps"]) > 0, f"{row['test']} made no request")
    expect(server.is_running(), "redis-server is gone")


@case("redis with 16 requests in flight per connection", timeout=60)
def redis_pipelined(rig):
    rig.start_redis()
    with rig.carried_by_user_stack(frames=1000):
        rig.far.check(["redis-benchmark", "-h", rig.near.ipv4, "-p", REDIS_PORT, "-n", 100000, "-c", 50, "-P", 16,
                       "-t", "set,get", "-d", 100, "--csv"])


@case("values from 1 byte to 8 MB come back as they went", timeout=60)
def redis_values_of_all_sizes(rig):
    rig.start_redis()
    with rig.carried_by_user_stack(), rig.far.connect(rig.near.ipv4, REDIS_PORT, timeout=30) as connection:
        stream = connection.makefile("rwb")
        for size in (1, 536, 1447, 1448, 1449, 2048, 65536, 1 << 20, 8 << 20):
            value = bytes(range(251)) * (size // 251 + 1)
            set_and_get(stream, b"k%d" % size, value[:size])


def set_and_get(stream, key, value):
    """One SET and one GET over an open connection; both answers are checked."""
    stream.write(redis_command(b"SET", key, value))
    stream.flush()
    expect_equal(stream.readline(), b"+OK\r\n", f"answer to SET {key!r}")
    stream.write(redis_command(b"GET", key))
    stream.flush()
    expect_equal(stream.readline(), b"$%d\r\n" % len(value), f"length of {key!r}")
    expect(stream.read(len(value)) == value, f"{key!r} came back changed")
    stream.readline()


def redis_command(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


@case("wrk against nginx: keep-alive and a connection per request", timeout=60)
def nginx_under_wrk(rig):
    nginx_basics(rig, 4)


@case("the same over IPv6", timeout=60)
def nginx_under_wrk_ipv6(rig):
    nginx_basics(rig, 6)


def nginx_basics(rig, version):
    rig.start_nginx()
    url = f"http://{addressed(rig.near.address(version), NGINX_PORT)}/1k"
    with rig.carried_by_user_stack(frames=1000):
        for extra in ([], ["-H", "Connection: close"]):
            out = rig.far.check(["wrk", "-t1", "-c50", "-d2s", *extra, url])
            expect("Requests/sec" in out, f"wrk printed no result: {out[-200:]}")
            expect("Socket errors" not in out and "Non-2xx" not in out, f"wrk {' '.join(extra)}: {out[-300:]}")


@case("ab: HTTP/1.0, the server closes each connection", timeout=60)
def nginx_under_ab(rig):
    rig.start_nginx()
    with rig.carried_by_user_stack(frames=1000):
        out = rig.far.check(["ab", "-q", "-n", 3000, "-c", 20, f"http://{rig.near.ipv4}:{NGINX_PORT}/1k"])
        expect("Complete requests:      3000" in out and "Failed requests:        0" in out, out[-400:])


@case("nginx with a master and a worker process", timeout=60)
def nginx_with_master(rig):
    rig.start_nginx(master="on")
    with rig.carried_by_user_stack(frames=100):
        out = rig.far.check(["wrk", "-t1", "-c20", "-d1s", f"http://{rig.near.ipv4}:{NGINX_PORT}/1k"])
        expect("Socket errors" not in out, out[-300:])


@case("loopback on a sidestepped port is served, by the kernel", timeout=30)
def loopback_goes_on(rig):
    rig.start_redis()
    with rig.carried_by_user_stack():
        expect_equal(rig.far.check(["redis-cli", "-h", rig.near.ipv4, "ping"]).strip(), "PONG", "redis-cli over the wire")
    with rig.carried_by_kernel():
        expect_equal(rig.near.check(["redis-cli", "-p", REDIS_PORT, "ping"]).strip(), "PONG", "redis-cli over loopback")
