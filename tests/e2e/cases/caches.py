"""redis and memcached: threads, pipelines, replication, every protocol they speak."""

import contextlib
import re
import struct
import threading

from case import case, expect, expect_equal
from rig import servers
from rig.process import wait_until
from rig.servers import REDIS_PORT, wait_for_far_port, wait_for_port

from .basics import redis_command, set_and_get
from .clients import as_client, start_far_redis
from .udp import datagrams_by_user_stack, far_socket

MEMCACHED_PORT = 11211


def start_redis(rig, *options):
    argv = [*servers.redis_argv(rig.home("redis")), *options]
    server = rig.start_served("redis", argv, [REDIS_PORT])
    wait_for_port(rig, server, REDIS_PORT)
    return server


def redis_cli(host, address, *words, through=()):
    return host.check([*through, "redis-cli", "-h", address, "-p", REDIS_PORT, *words]).strip()


@case("redis with four I/O threads: a pipelined load, and values that come back as they went", timeout=60)
def redis_io_threads(rig):
    server = start_redis(rig, "--io-threads", 4, "--io-threads-do-reads", "yes")
    with rig.carried_by_user_stack(frames=1000):
        rig.far.check(["redis-benchmark", "-h", rig.near.ipv4, "-p", REDIS_PORT, "-n", 10000, "-c", 40, "-P", 8,
                       "-t", "set,get", "-d", 300, "--csv"])
        threads = [threading.Thread(target=set_and_get_often, args=(rig, number)) for number in range(12)]
        run_all(threads)
        expect_equal(redis_cli(rig.far, rig.near.ipv4, "get", "rounds"), str(12 * 10), "rounds without a fault")
    server.end()


def set_and_get_often(rig, number):
    with rig.far.connect(rig.near.ipv4, REDIS_PORT, timeout=20) as connection:
        stream = connection.makefile("rwb")
        for turn in range(10):
            value = (b"%d.%d " % (number, turn)) * (turn * 3000 + 1)
            set_and_get(stream, b"k%d" % number, value)
            stream.write(redis_command(b"INCR", b"rounds"))
            stream.flush()
            stream.readline()


def run_all(threads, timeout=40):
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout)
    expect(not any(thread.is_alive() for thread in threads), "a client has no answer")


@case("redis publishes 2,000 messages to 20 subscribers, in order", timeout=60)
def redis_publishes(rig):
    server = start_redis(rig)
    wanted = b"".join(b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$6\r\n%06d\r\n" % number for number in range(2000))
    with rig.carried_by_user_stack(frames=40), contextlib.ExitStack() as stack:
        def connect():
            return stack.enter_context(stack.enter_context(rig.far.connect(rig.near.ipv4, REDIS_PORT)).makefile("rwb"))

        subscribers = [connect() for _ in range(20)]
        for subscriber in subscribers:
            subscriber.write(redis_command(b"SUBSCRIBE", b"news"))
            subscriber.flush()
            answer = b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n"
            expect_equal(subscriber.read(len(answer)), answer, "answer to SUBSCRIBE")
        publisher = connect()
        publisher.write(b"".join(redis_command(b"PUBLISH", b"news", b"%06d" % number) for number in range(2000)))
        publisher.flush()
        expect(publisher.read(5 * 2000) == b":20\r\n" * 2000, "a message did not reach every subscriber")
        for subscriber in subscribers:
            expect(subscriber.read(len(wanted)) == wanted, "a subscriber got other messages")
    server.end()


# A master waits some seconds for more replicas otherwise.
AT_ONCE = ["--repl-diskless-sync-delay", 0]


@case("redis replicates from a master on the kernel: the whole set, then what changes", timeout=60)
def redis_as_replica(rig):
    start_far_redis(rig, options=AT_ONCE)
    fill(rig.far, rig.far.ipv4)
    server = start_redis(rig)
    with rig.carried_by_user_stack(frames=100):
        redis_cli(rig.far, rig.near.ipv4, "replicaof", rig.far.ipv4, REDIS_PORT)
        expect_same_data(rig)
        fill(rig.far, rig.far.ipv4, seed="later")
        expect_same_data(rig)
    server.end()


@case("redis is the master of a replica on the kernel, and sends it the set from a child process", timeout=60)
def redis_as_master(rig):
    server = start_redis(rig, *AT_ONCE)
    start_far_redis(rig)
    with rig.carried_by_user_stack(frames=100):
        fill(rig.far, rig.near.ipv4)
        redis_cli(rig.far, rig.far.ipv4, "replicaof", rig.near.ipv4, REDIS_PORT)
        expect_same_data(rig)
        fill(rig.far, rig.near.ipv4, seed="later")
        expect_same_data(rig)
    server.end()


def fill(host, address, seed="first"):
    """About 10 MB, made by the server itself."""
    script = ("for i = 1, 2000 do redis.call('set', ARGV[1] .. i, string.rep(redis.sha1hex(ARGV[1] .. i), 125)) end "
              "return redis.call('dbsize')")
    redis_cli(host, address, "eval", script, 0, seed)


def expect_same_data(rig):
    def digests():
        return [redis_cli(rig.far, host.ipv4, "eval_ro", DIGEST, 0) for host in (rig.near, rig.far)]

    wait_until(lambda: len(set(digests())) == 1, 20, lambda: f"master and replica differ: {digests()}")


# Of all keys and values, in order.
DIGEST = ("local keys = redis.call('keys', '*') table.sort(keys) local sum = '' "
          "for _, key in ipairs(keys) do sum = redis.sha1hex(sum .. key .. redis.call('get', key)) end return #keys .. sum")


@case("redis-benchmark with threads and pipelines, and redis-cli --pipe with 50,000 commands, under sidestep", timeout=60)
def redis_clients_in_bulk(rig):
    start_far_redis(rig)
    script = rig.scratch / "commands"
    script.write_bytes(b"".join(redis_command(b"SET", b"key%d" % n, b"value%d" % n * (n % 40)) for n in range(50_000)))
    with rig.carried_by_user_stack(frames=1000, stack_is_alive=False):
        rig.near.check(as_client(rig, ["redis-benchmark", "-h", rig.far.ipv4, "-p", REDIS_PORT, "-n", 60000, "-c", 40,
                                       "-P", 8, "--threads", 3, "-t", "set,get", "-d", 200, "--csv"]))
        with open(script, "rb") as commands:
            out = rig.near.check(as_client(rig, ["redis-cli", "-h", rig.far.ipv4, "--pipe"]), stdin=commands)
        expect("errors: 0, replies: 50000" in out, f"redis-cli --pipe: {out[-200:]}")
        got = redis_cli(rig.near, rig.far.ipv4, "get", "key39", through=as_client(rig, []))
        expect_equal(got, "value39" * 39, "key39")


def start_memcached(rig, *options):
    argv = ["memcached", "-u", "nobody", "-t", 4, "-p", MEMCACHED_PORT, "-I", "8m", "-m", 256, *options]
    server = rig.start_served("memcached", argv, [MEMCACHED_PORT, f"{MEMCACHED_PORT}/udp"])
    wait_for_port(rig, server, MEMCACHED_PORT)
    return server


@case("memcached, four threads, 40 connections at once in its text protocol", timeout=60)
def memcached_text(rig):
    server = start_memcached(rig)
    faults = []
    with rig.carried_by_user_stack(frames=1000):
        run_all([threading.Thread(target=memcached_client, args=(rig, number, faults)) for number in range(40)])
        expect_equal(faults, [], "faults")
        with rig.far.connect(rig.near.ipv4, MEMCACHED_PORT) as connection:
            stream = connection.makefile("rwb")
            expect_equal(text(stream, b"get sum\r\n").split()[:2], [b"VALUE", b"sum"], "answer to get")
            expect_equal(stream.readline(), b"%d\r\n" % (40 * 50), "sum of all clients")
    # It answers SIGTERM by exit(EXIT_SUCCESS) in this version, by a clean return in others.
    server.end()


def text(stream, command):
    stream.write(command)
    stream.flush()
    return stream.readline()


def memcached_client(rig, number, faults):
    with rig.far.connect(rig.near.ipv4, MEMCACHED_PORT, timeout=20) as connection:
        stream = connection.makefile("rwb")
        text(stream, b"add sum 0 0 1\r\n0\r\n")
        for turn in range(50):
            value = b"%d-%d;" % (number, turn) * (turn * turn)
            answers = [text(stream, b"set k%d 7 0 %d\r\n%s\r\n" % (number, len(value), value)),
                       text(stream, b"get k%d\r\n" % number), stream.read(len(value) + 2), stream.readline()]
            wanted = [b"STORED\r\n", b"VALUE k%d 7 %d\r\n" % (number, len(value)), value + b"\r\n", b"END\r\n"]
            text(stream, b"incr sum 1\r\n")
            if answers != wanted:
                faults.append((number, turn))
                return


@case("memcached's binary protocol: quiet requests in flight, values of up to 6 MB", timeout=60)
def memcached_binary(rig):
    server = start_memcached(rig)
    sizes = [0, 1, 1424, 2048, 100_000, 1 << 20, 6 << 20]
    with rig.carried_by_user_stack(frames=100), rig.far.connect(rig.near.ipv4, MEMCACHED_PORT, 20) as connection:
        stream = connection.makefile("rwb")
        for number, size in enumerate(sizes):
            stream.write(binary(SETQ, number, b"b%d" % number, bytes(8), value_of(number, size)))
        for number in range(len(sizes)):
            stream.write(binary(GETKQ, number, b"b%d" % number))
        stream.write(binary(NOOP, 99))
        stream.flush()
        for number, size in enumerate(sizes):
            opcode, status, opaque, body = read_binary(stream)
            expect_equal((opcode, status, opaque), (GETKQ, 0, number), "header of an answer")
            expect(body == bytes(4) + b"b%d" % number + value_of(number, size), f"value of {size} bytes came back changed")
        expect_equal(read_binary(stream), (NOOP, 0, 99, b""), "answer to the no-op that ends it")
    server.end()


SETQ, GETKQ, NOOP = 0x11, 0x0D, 0x0A


def binary(opcode, opaque, key=b"", extras=b"", value=b""):
    total = len(extras) + len(key) + len(value)
    return struct.pack(">BBHBBHIIQ", 0x80, opcode, len(key), len(extras), 0, 0, total, opaque, 0) + extras + key + value


def read_binary(stream):
    magic, opcode, _, _, _, status, total, opaque, _ = struct.unpack(">BBHBBHIIQ", stream.read(24))
    expect_equal(magic, 0x81, "first byte of an answer")
    return opcode, status, opaque, stream.read(total)


def value_of(number, size):
    return (b"%d," % number * (size // 2 + 1))[:size]


@case("memcached over UDP: an answer of many datagrams", timeout=60)
def memcached_udp(rig):
    server = start_memcached(rig, "-U", MEMCACHED_PORT)
    value = bytes(range(256)) * 200
    with rig.far.connect(rig.near.ipv4, MEMCACHED_PORT) as connection, far_socket(rig) as client:
        stream = connection.makefile("rwb")
        expect_equal(text(stream, b"set big 0 0 %d\r\n%s\r\n" % (len(value), value)), b"STORED\r\n", "answer to set")
        client.settimeout(3)
        client.connect((rig.near.ipv4, MEMCACHED_PORT))
        # The kernel finds the neighbour, if nobody has yet.
        expect_equal(ask_memcached(client, 1, b"version\r\n")[:7], b"VERSION", "version")
        with datagrams_by_user_stack(rig, 20):
            for number in range(2, 22):
                answer = ask_memcached(client, number, b"get big\r\n")
                expect(answer == b"VALUE big 0 %d\r\n%s\r\nEND\r\n" % (len(value), value), f"answer {number} differs")
    server.end()


def ask_memcached(client, number, command):
    """Puts the answer's datagrams in order (protocol.txt: request, sequence, total, reserved)."""
    client.send(struct.pack(">4H", number, 0, 1, 0) + command)
    parts, total = {}, 1
    while len(parts) < total:
        data = client.recv(65536)
        request, sequence, total, _ = struct.unpack(">4H", data[:8])
        if request == number:
            parts[sequence] = data[8:]
    return b"".join(parts[number] for number in range(total))
