"""What two languages bring along: Python's servers and clients, node's too."""

import contextlib
import os
import signal
import sys

from case import case, expect, expect_equal, sha256_of_file
from rig.product import ROOT
from rig.servers import wait_for_far_port, wait_for_port, write_random_file

from .clients import as_client
from .transfers import MB, fetch

PROGS = ROOT / "tests/e2e/progs"
# Debian's own, if it is here.
PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
PORT, NET_PORT = 8000, 8001


def python_server(rig, kind, port=PORT):
    folder = rig.home("python")
    if not (folder / "big").exists():
        write_random_file(folder / "big", 10 * MB)
    argv = [PYTHON, PROGS / "py_server.py", kind, port, folder]
    server = rig.start_served(f"python-{kind}", argv, [port])
    wait_for_port(rig, server, port)
    return server


def python_client(host, kind, address, size, count, through=(), port=PORT):
    out = host.check([*through, PYTHON, PROGS / "py_client.py", kind, address, port, size, count], timeout=40)
    expect_equal(out, "ok\n", f"what the {kind} client said")


@case("Python's ThreadingHTTPServer: 30 uploads at once, keep-alive, downloads", timeout=60)
def python_http_server(rig):
    server = python_server(rig, "http")
    with rig.carried_by_user_stack(frames=100):
        python_client(rig.far, "urllib", rig.near.ipv4, 200_000, 30)
        python_client(rig.far, "http.client", rig.near.ipv4, 50_000, 10)
        for _ in range(3):
            got = fetch(rig.far, f"http://{rig.near.ipv4}:{PORT}/big")
            expect_equal(got, (sha256_of_file(rig.home("python") / "big"), 10 * MB), "digest and size")
    server.end(codes=(-15,))


@case("Python's socketserver with a process for each connection, and with a thread", timeout=60)
def python_socketserver(rig):
    for number, kind in enumerate(("forking", "threading")):
        server = python_server(rig, kind, PORT + number)
        with rig.carried_by_user_stack(frames=100):
            python_client(rig.far, "socket", rig.near.ipv4, 500_000, 20, port=PORT + number)
        server.end(codes=(-15,))


@case("Python's asyncio server: 50 streams at once, and loop.sendfile", timeout=60)
def python_asyncio_server(rig):
    server = python_server(rig, "asyncio")
    wanted = (rig.home("python") / "big").read_bytes()
    with rig.carried_by_user_stack(frames=100):
        python_client(rig.far, "asyncio", rig.near.ipv4, 300_000, 50)
        for _ in range(3):
            with rig.far.connect(rig.near.ipv4, PORT, timeout=20) as connection:
                connection.sendall(b"file")
                expect(connection.makefile("rb").read() == wanted, "what loop.sendfile sent differs")
    server.end(codes=(-15,))


@case("Python's selectors, one after the other: epoll, poll and select", timeout=60)
def python_selectors(rig):
    for number, kind in enumerate(("EpollSelector", "PollSelector", "SelectSelector")):
        server = python_server(rig, kind, PORT + number)
        with rig.carried_by_user_stack(frames=100):
            python_client(rig.far, "socket", rig.near.ipv4, 300_000, 20, port=PORT + number)
        server.end(codes=(-15,))


@case("Python's clients under sidestep: urllib, http.client, asyncio, plain sockets in threads", timeout=60)
def python_clients(rig):
    folder = rig.home("python")
    for kind, port in (("http", PORT), ("threading", PORT + 1)):
        server = rig.start(rig.far, f"python-{kind}", [PYTHON, PROGS / "py_server.py", kind, port, folder])
        wait_for_far_port(rig, server, port)
    with rig.carried_by_user_stack(frames=100, stack_is_alive=False):
        for kind, size, count, port in (("urllib", 200_000, 20, PORT), ("http.client", 50_000, 10, PORT),
                                        ("asyncio", 300_000, 40, PORT + 1), ("socket", 300_000, 20, PORT + 1)):
            python_client(rig.near, kind, rig.far.ipv4, size, count, as_client(rig, []), port)


@case("a server that accepts at one IP version and not yet at the other: connections wait there, as in the kernel", timeout=30)
def late_listener(rig):
    server = rig.start_served("late", [PYTHON, PROGS / "late_listener.py", PORT], [PORT])
    wait_for_port(rig, server, PORT)
    with rig.carried_by_user_stack(frames=6), rig.far.connect(rig.near.ipv6, PORT) as waiting:
        waiting.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            expect(False, f"served too early: {waiting.recv(100)}")
        with rig.far.connect(rig.near.ipv4, PORT) as other:
            expect_equal(other.recv(100), b"served\n", "over IPv4")
        server.signal(signal.SIGUSR1)
        waiting.settimeout(5)
        expect_equal(waiting.recv(100), b"served\n", "over IPv6")


def node_server_argv(rig, *more):
    folder = rig.home("node")
    write_random_file(folder / "big", 10 * MB)
    return ["node", PROGS / "node_server.js", PORT, NET_PORT, folder, *more]


def node_client(rig, host, address, through=()):
    out = host.check([*through, "node", PROGS / "node_client.js", address, PORT, NET_PORT, 200_000], timeout=40)
    expect_equal(out, f"ok {sha256_of_file(rig.home('node') / 'big')}\n", "what the client said")


@case("node as an HTTP and a stream server: an agent that keeps its connections, streams both ways", timeout=60)
def node_server(rig):
    server = rig.start_served("node", node_server_argv(rig), [PORT, NET_PORT])
    for port in (PORT, NET_PORT):
        wait_for_port(rig, server, port)
    with rig.carried_by_user_stack(frames=100):
        node_client(rig, rig.far, rig.near.ipv4)
        out = rig.far.check(["wrk", "-t1", "-c20", "-d1s", f"http://{rig.near.ipv4}:{PORT}/pid"])
        expect("Requests/sec" in out and "Socket errors" not in out and "Non-2xx" not in out, f"wrk: {out[-300:]}")
    server.end()


@case("node with two workers that share a listener (by default their primary accepts, and passes connections on)", timeout=60)
def node_workers(rig):
    ask_two_node_workers(rig, "none", 20)


def ask_two_node_workers(rig, policy, times):
    """Both answer some of so many questions."""
    server = rig.start_served("node", node_server_argv(rig, 2), [PORT, NET_PORT], env={"NODE_CLUSTER_SCHED_POLICY": policy})
    for port in (PORT, NET_PORT):
        wait_for_port(rig, server, port)
    with rig.carried_by_user_stack(frames=100):
        node_client(rig, rig.far, rig.near.ipv4)
        pids = {rig.far.check(["curl", "-sS", "--max-time", 5, f"http://{rig.near.ipv4}:{PORT}/pid"]) for _ in range(times)}
    expect_equal(len(pids), 2, "workers that answered")
    server.end()


@case("node as the client", timeout=60)
def node_as_client(rig):
    server = rig.start(rig.far, "node", node_server_argv(rig))
    for port in (PORT, NET_PORT):
        wait_for_far_port(rig, server, port)
    with rig.carried_by_user_stack(frames=100, stack_is_alive=False):
        node_client(rig, rig.near, rig.far.ipv4, as_client(rig, []))
