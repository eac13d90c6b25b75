"""Tools that read and write sockets each in their own way: openssl, iperf3, sockperf, socat."""

import concurrent.futures
import json
import re
import signal
import subprocess

from case import case, expect, expect_equal, sha256_of_file, sha256_of_stream
from rig.process import wait_until
from rig.servers import wait_for_far_port, wait_for_port, write_random_file

from .clients import as_client
from .transfers import MB
from .udp import datagrams_mostly_by_user_stack
from .web import make_certificate

PORT = 4433


def through_pipe(host, argv, data, timeout=30):
    """Feeds a file to a program; (digest, size) of what it prints. It must be content."""
    with open(data, "rb") as source:
        child = subprocess.Popen(host.command(argv), stdin=source, stdout=subprocess.PIPE, start_new_session=True)
    try:
        result = sha256_of_stream(child.stdout.read)
        code = child.wait(timeout)
    finally:
        child.kill()
        child.wait()
    expect_equal(code, 0, f"exit code of {argv[0]}")
    return result


def tls_server(rig, *options):
    home = rig.home("tls")
    make_certificate(rig, home)
    return ["openssl", "s_server", "-accept", PORT, "-cert", home / "cert.pem", "-key", home / "key.pem", "-quiet", *options]


@case("openssl s_server: it serves a file of 10 MB, and turns lines round", timeout=60)
def openssl_server(rig):
    argv = tls_server(rig, "-WWW")
    home = rig.home("tls")
    write_random_file(home / "big", 10 * MB)
    server = rig.start_served("s_server", ["env", "-C", home, *argv], [PORT])
    wait_for_port(rig, server, PORT)
    with rig.carried_by_user_stack(frames=100):
        for version in ("--tls-max 1.2", "--tlsv1.3"):
            rig.far.check(["curl", "-sS", "-k", "--http1.0", *version.split(), "--max-time", 20, "-o", home / "got",
                           f"https://{rig.near.ipv4}:{PORT}/big"])
            expect_equal(sha256_of_file(home / "got"), sha256_of_file(home / "big"), f"digest with {version}")
    server.end(codes=(-15,))
    turning = rig.start_served("s_server-rev", [*argv[:-1], "-rev"], [PORT])
    wait_for_port(rig, turning, PORT)
    with rig.carried_by_user_stack(frames=10):
        turn_lines(rig.far, rig.near.ipv4)
    turning.end(codes=(-15,))


def turn_lines(host, address, through=()):
    """One line after the other through s_client, and back from `s_server -rev`."""
    argv = [*through, "openssl", "s_client", "-quiet", "-no_ign_eof", "-connect", f"{address}:{PORT}"]
    child = subprocess.Popen(host.command(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                             start_new_session=True)
    try:
        for number in range(200):
            line = b"%d of many" % number
            child.stdin.write(line + b"\n")
            child.stdin.flush()
            expect_equal(child.stdout.readline(), line[::-1] + b"\n", "a line, turned")
        child.stdin.close()
        expect_equal(child.wait(10), 0, "exit code of s_client")
    finally:
        child.kill()
        child.wait()


@case("openssl s_client under sidestep downloads and uploads 10 MB", timeout=60)
def openssl_client(rig):
    argv = tls_server(rig, "-WWW")
    home = rig.home("tls")
    write_random_file(home / "big", 10 * MB)
    server = rig.start(rig.far, "s_server", ["env", "-C", home, *argv])
    wait_for_far_port(rig, server, PORT)
    client = as_client(rig, ["openssl", "s_client", "-quiet", "-connect", f"{rig.far.ipv4}:{PORT}"])
    (rig.scratch / "request").write_text("GET /big HTTP/1.0\r\n\r\n")
    with rig.carried_by_user_stack(frames=100, stack_is_alive=False), open(rig.scratch / "request", "rb") as request:
        out = subprocess.run(rig.near.command([*client, "-ign_eof"]), stdin=request, capture_output=True, timeout=20).stdout
        expect(out.partition(b"\r\n\r\n")[2] == (home / "big").read_bytes(), "what came differs")
    server.stop()
    sink = subprocess.Popen(rig.far.command([*argv[:-1], "-naccept", 1]), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        wait_until(lambda: rig.far.run(["ss", "-Htln", f"sport = :{PORT}"])[1], 5, "s_server does not listen")
        with rig.carried_by_user_stack(frames=10, stack_is_alive=False):
            with open(home / "big", "rb") as source:
                uploading = subprocess.Popen(rig.near.command([*client, "-no_ign_eof", "-nocommands"]), stdin=source, stdout=subprocess.DEVNULL,
                                             stderr=subprocess.DEVNULL)
            got = sha256_of_stream(sink.stdout.read)
            expect_equal(uploading.wait(20), 0, "exit code of s_client")
    finally:
        sink.kill()
        sink.wait()
    expect_equal(got, (sha256_of_file(home / "big"), 10 * MB), "what s_server received")


def iperf(rig, host, address, *words, through=()):
    out = host.check([*through, "iperf3", "-c", address, "-J", *words], timeout=20)
    result = json.loads(out)
    expect("error" not in result, f"iperf3 {' '.join(map(str, words))}: {result.get('error')}")
    return result["end"]


IPERF_WAYS = ([], ["-R"], ["-P", 4], ["-P", 4, "-R"], ["--bidir"], ["-Z"])


def iperf_tcp(rig, host, address, through=()):
    for words in IPERF_WAYS:
        end = iperf(rig, host, address, "-n", "40M", *words, through=through)
        received = end["sum_received"]["bytes"]
        # The server stops reading when it hears that the client is done: what is on its way then is not counted; with two
        # ways at once that is when the faster one is.
        expect(received > (1 if "--bidir" in words else 5) * MB, f"iperf3 {words}: {received} bytes arrived")
        if "--bidir" in words:
            expect(end["sum_received_bidir_reverse"]["bytes"] > MB, f"iperf3 {words}: nothing the other way")


@case("iperf3 as the server: both directions, parallel, at once, from a file", timeout=60)
def iperf3_server(rig):
    server = rig.start_served("iperf3", ["iperf3", "-s"], [5201, "5201/udp"])
    wait_for_port(rig, server, 5201)
    with rig.carried_by_user_stack(frames=1000):
        iperf_tcp(rig, rig.far, rig.near.ipv4)
    server.end(codes=(0, 1))


@case("iperf3 as the client", timeout=60)
def iperf3_client(rig):
    server = rig.start(rig.far, "iperf3", ["iperf3", "-s"])
    wait_for_far_port(rig, server, 5201)
    with rig.carried_by_user_stack(frames=1000, stack_is_alive=False):
        iperf_tcp(rig, rig.near, rig.far.ipv4, as_client(rig, []))


@case("iperf3 with UDP: server and client, both directions; at 20 Mbit/s hardly a datagram is lost", timeout=60)
def iperf3_udp(rig):
    server = rig.start_served("iperf3", ["iperf3", "-s"], [5201, "5201/udp"])
    wait_for_port(rig, server, 5201)
    far = rig.start(rig.far, "iperf3-far", ["iperf3", "-s"])
    wait_for_far_port(rig, far, 5201)
    for host, address, through in ((rig.far, rig.near.ipv4, ()), (rig.near, rig.far.ipv4, as_client(rig, []))):
        for words in ([], ["-R"]):
            # With -R what near's client sends, and the other way round what its server does, are a few at the beginning.
            receives = (host is rig.near) == ("-R" in words)
            with datagrams_mostly_by_user_stack(rig, 1500 if receives else 1, few=20):
                end = iperf(rig, host, address, "-u", "-t", 1, "-b", "20M", "-l", 1200, *words, through=through)["sum"]
            expect(end["packets"] > 1500, f"{end['packets']} datagrams were sent in a second")
            expect(end["lost_packets"] * 20 < end["packets"], f"{end['lost_packets']} of {end['packets']} were lost")
    server.end(codes=(0, 1))


def sockperf(rig, host, address, *words, through=()):
    out = host.check([*through, "sockperf", words[0], "-i", address, "-p", PORT, "-t", 1, *words[1:]], timeout=20)
    valid = re.search(r"\[Valid Duration\].*SentMessages=(\d+); ReceivedMessages=(\d+)", out)
    expect(valid, f"sockperf {' '.join(words)}: {out[-300:]}")
    sent, received = map(int, valid.groups())
    # A datagram may be lost where the receiver has to wait for a core; nothing comes twice, and TCP loses nothing.
    lost = sent // 20 if "--tcp" not in words else sent // 100
    expect(received > 100 and sent - received <= lost, f"sockperf {' '.join(words)}: {received} of {sent} came back")
    for count in ("dropped", "duplicated", "out-of-order")[0 if "--tcp" in words else 1:]:
        expect(f"{count} messages = 0" in out, f"sockperf {' '.join(words)}: {count} messages")


UNDER_LOAD = ["--mps", "2000", "--reply-every", "1"]


def sockperf_both_ways(rig, *words):
    """near serves far and far serves near, at the same time."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        running = [pool.submit(sockperf, rig, rig.far, rig.near.ipv4, *words),
                   pool.submit(sockperf, rig, rig.near, rig.far.ipv4, *words, through=as_client(rig, []))]
        for future in running:
            future.result()


@case("sockperf, TCP: ping-pong and under load, as server and as client", timeout=60)
def sockperf_tcp(rig):
    server = rig.start_served("sockperf", ["sockperf", "server", "--tcp", "-p", PORT], [PORT])
    wait_for_port(rig, server, PORT)
    far = rig.start(rig.far, "sockperf-far", ["sockperf", "server", "--tcp", "-p", PORT])
    wait_for_far_port(rig, far, PORT)
    with rig.carried_by_user_stack(frames=1000):
        for words in (["ping-pong", "--tcp", "-m", "5000"], ["under-load", "--tcp", *UNDER_LOAD]):
            sockperf_both_ways(rig, *words)
    server.end(number=signal.SIGINT)


@case("sockperf, UDP: ping-pong and under load, as server and as client, also waiting by epoll", timeout=60)
def sockperf_udp(rig):
    feed = rig.scratch / "feed"
    feed.write_text(f"U:0.0.0.0:{PORT}\nU:0.0.0.0:{PORT + 1}\n")
    argv = ["sockperf", "server", "-f", feed, "-F", "epoll"]
    server = rig.start_served("sockperf", argv, [f"{PORT}/udp", f"{PORT + 1}/udp"])
    rig.start(rig.far, "sockperf-far", ["sockperf", "server", "-p", PORT])
    wait_until(lambda: "epoll" in server.output(), 5, "the server did not start")
    sockperf_both_ways(rig, "ping-pong")
    with datagrams_mostly_by_user_stack(rig, 1000, few=20):
        sockperf_both_ways(rig, "under-load", *UNDER_LOAD)
    server.end(number=signal.SIGINT)


@case("socat forks for each connection and starts a program on it: 5 MB through cat, both halves closed one by one", timeout=60)
def socat_server(rig):
    server = rig.start_served("socat", ["socat", f"TCP-LISTEN:{PORT},fork,reuseaddr", "EXEC:cat"], [PORT])
    wait_for_port(rig, server, PORT)
    write_random_file(rig.scratch / "big", 5 * MB)
    with rig.carried_by_user_stack(frames=100):
        for _ in range(5):
            got = through_pipe(rig.far, ["socat", "-t", 10, "-", f"TCP:{rig.near.ipv4}:{PORT}"], rig.scratch / "big")
            expect_equal(got, (sha256_of_file(rig.scratch / "big"), 5 * MB), "what came back")
    server.end(codes=(143,))


@case("socat as the client and as a relay: half a connection closed, the rest arrives", timeout=60)
def socat_client_and_relay(rig):
    far = rig.start(rig.far, "socat-far", ["socat", f"TCP-LISTEN:{PORT},fork,reuseaddr", "EXEC:sha256sum"])
    wait_for_far_port(rig, far, PORT)
    relay = rig.start_served("socat", ["socat", f"TCP-LISTEN:{PORT},fork,reuseaddr", f"TCP:{rig.far.ipv4}:{PORT}"], [PORT])
    wait_for_port(rig, relay, PORT)
    write_random_file(rig.scratch / "big", 5 * MB)
    with open(rig.scratch / "big", "rb") as big:
        wanted = f"{sha256_of_file(rig.scratch / 'big')}  -\n"
        with rig.carried_by_user_stack(frames=100):
            argv = as_client(rig, ["socat", "-t", 10, "-", f"TCP:{rig.far.ipv4}:{PORT}"])
            expect_equal(rig.near.check(argv, stdin=big), wanted, "digest by the client")
            big.seek(0)
            argv = ["socat", "-t", 10, "-", f"TCP:{rig.near.ipv4}:{PORT}"]
            expect_equal(rig.far.check(argv, stdin=big), wanted, "digest by the relay")
    relay.end(codes=(143,))


@case("socat echoes datagrams, a child for each peer", timeout=60)
def socat_udp(rig):
    server = rig.start_served("socat", ["socat", f"UDP-LISTEN:{PORT},fork,reuseaddr", "EXEC:cat"], [f"{PORT}/udp"])
    far = rig.start(rig.far, "socat-far", ["socat", f"UDP-RECVFROM:{PORT},fork,reuseaddr", "EXEC:cat"])
    for host, address, through in ((rig.far, rig.near.ipv4, ()), (rig.near, rig.far.ipv4, as_client(rig, []))):
        with datagrams_mostly_by_user_stack(rig, 5):
            for number in range(5):
                line = rig.scratch / "line"
                line.write_text(f"datagram {number} " + "x" * 100 * number)
                with open(line, "rb") as source:
                    out = host.check([*through, "socat", "-t", 0.3, "-", f"UDP:{address}:{PORT}"], stdin=source)
                expect_equal(out, line.read_text(), f"answer {number} of {address}")
    expect(far.is_running(), far.output())
    server.end(codes=(143,))
