"""UDP: servers and clients on the user stack, and what of their traffic stays with the kernel."""

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

from case import case, expect, expect_equal
from rig.process import wait_until
from rig.product import ROOT
from rig.proof import counter

from .clients import as_client

PORT = 5300
SERVER = ROOT / "tests/e2e/progs/udp_server.py"
CLIENT = ROOT / "tests/e2e/progs/udp_client.py"
WAITS_FIRST = ROOT / "tests/e2e/progs/udp_waits_first.py"


def totals(rig, *names):
    """Sums over the living stacks; zeroes without sidestep."""
    stacks = rig.sidestep.status()["stacks"] if rig.mode == "sidestep" else []
    return [sum(counter(stack, name) for stack in stacks) for name in names]


@contextlib.contextmanager
def datagrams_by_user_stack(rig, datagrams):
    """So many datagrams, at least, come in and go out inside, none of them by near's kernel; in kernel mode, by it."""
    kernel, user = rig.near.kernel_datagrams(), totals(rig, "rx_datagrams", "tx_datagrams", "kernel_datagrams")
    redirected = rig.witness().redirected
    yield
    kernel_in, kernel_out = (now - then for now, then in zip(rig.near.kernel_datagrams(), kernel))
    if rig.mode == "kernel":
        expect(kernel_in >= datagrams, f"the kernel received {kernel_in} datagrams, expected {datagrams} or more")
        return
    now = totals(rig, "rx_datagrams", "tx_datagrams", "kernel_datagrams")
    user_in, user_out, left = (n - then for n, then in zip(now, user))
    redirected = rig.witness().redirected - redirected
    expect(redirected >= datagrams, f"XDP redirected {redirected} frames, expected {datagrams} or more")
    expect(user_in >= datagrams and user_out >= datagrams, f"the stack received {user_in} datagrams and sent {user_out}")
    expect((kernel_in, kernel_out, left) == (0, 0, 0),
           f"the kernel received {kernel_in} datagrams and sent {kernel_out}; {left} were left to it")


@contextlib.contextmanager
def datagrams_mostly_by_user_stack(rig, datagrams, few=4):
    """The same where programs and their stacks come and go, and the first datagrams leave by the kernel, which finds the
    neighbour: so many come in by XDP, and at most a few by near's kernel."""
    kernel, redirected = rig.near.kernel_datagrams(), rig.witness().redirected
    yield
    by_kernel = max(now - then for now, then in zip(rig.near.kernel_datagrams(), kernel))
    redirected = rig.witness().redirected - redirected
    if rig.mode == "kernel":
        expect(by_kernel >= datagrams, f"the kernel carried {by_kernel} datagrams, expected {datagrams} or more")
        return
    expect(by_kernel <= few, f"the kernel carried {by_kernel} datagrams")
    expect(redirected >= datagrams, f"XDP redirected {redirected} frames, expected {datagrams} or more")


def ask(client, message, there, timeout=3):
    client.settimeout(timeout)
    client.sendto(message, there)
    return client.recvfrom(65536)[0]


def far_socket(rig, version=4):
    return rig.far.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_DGRAM)


def wait_for_echo(rig, server, port=PORT):
    """Until it answers, and by the user stack: the first answers may leave by the kernel, which finds the neighbour then."""
    def answers():
        expect(server.is_running(), server.output())
        before = rig.near.kernel_datagrams()
        with contextlib.suppress(OSError):
            for version in (4, 6):
                with far_socket(rig, version) as client:
                    ask(client, b"there?", (rig.near.address(version), port), timeout=0.3)
            return rig.mode == "kernel" or rig.near.kernel_datagrams() == before
        return False

    wait_until(answers, 10, "the server did not answer by way of the user stack within 10 s")


def start_server(rig, mode, port=PORT, address="::", wait=True, name=None):
    argv = [sys.executable, SERVER, mode, port, address]
    server = rig.start_served(name or f"udp-{mode}", argv, [f"{port}/udp"])
    if wait:
        wait_for_echo(rig, server, port)
    return server


def exchange(rig, rounds, version=4, peers=4, port=PORT):
    there = (rig.near.address(version), port)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(far_socket(rig, version)) for _ in range(peers)]
        for number in range(rounds):
            message = b"%d " % number + bytes(number % 1400)
            expect_equal(ask(clients[number % peers], message, there), message, "echo")


@case("a UDP echo server: many peers, IPv4 and IPv6 at one socket", timeout=30)
def udp_echo(rig):
    start_server(rig, "echo")
    with datagrams_by_user_stack(rig, 400):
        exchange(rig, 200)
        exchange(rig, 200, version=6)


@case("the same server written with epoll (asyncio)", timeout=30)
def udp_echo_by_epoll(rig):
    start_server(rig, "epoll", address="0.0.0.0", wait=False)
    wait_until(lambda: answers_v4(rig), 10, "no answer")
    with datagrams_by_user_stack(rig, 200):
        exchange(rig, 200)


def answers_v4(rig, port=PORT):
    before = rig.near.kernel_datagrams()
    with contextlib.suppress(OSError), far_socket(rig) as client:
        ask(client, b"there?", (rig.near.ipv4, port), timeout=0.3)
        return rig.mode == "kernel" or rig.near.kernel_datagrams() == before
    return False


@case("fragments come and go by the kernel, to and from the same socket", timeout=30)
def udp_large_datagrams(rig):
    start_server(rig, "echo")
    there = (rig.near.ipv4, PORT)
    with far_socket(rig) as client:
        for size in (1472, 1473, 4000, 1, 60000, 65507, 10):
            message = os.urandom(size)
            expect_equal(ask(client, message, there), message, f"echo of {size} bytes")
    if rig.mode == "sidestep":
        expect(totals(rig, "kernel_datagrams")[0] >= 4, "large answers were not left to the kernel")
    with datagrams_by_user_stack(rig, 50):
        exchange(rig, 50)


@case("clients that connect, that do not, and that are refused; at both IP versions", timeout=40)
def udp_clients(rig):
    for version in (4, 6):
        host = rig.far.address(version)
        with far_socket(rig, version) as server:
            server.bind((host, PORT))
            stop = threading.Event()
            thread = threading.Thread(target=echo_until, args=(server, stop))
            thread.start()
            try:
                before = rig.near.kernel_datagrams()
                redirected = rig.witness().redirected
                words = as_client(rig, [sys.executable, CLIENT, host, PORT, 9])
                out = rig.near.check(words).splitlines()
            finally:
                stop.set()
                thread.join()
        expect_equal(out, ["connected True True", "free True", "bound b'bound'", "odd b'odd'", "sizes ok",
                           "closed ConnectionRefusedError"], "what the client said")
        if rig.mode == "sidestep":
            came, _ = (now - then for now, then in zip(rig.near.kernel_datagrams(), before))
            redirected = rig.witness().redirected - redirected
            expect(redirected >= 200, f"XDP redirected {redirected} frames")
            expect(came <= 4, f"the kernel received {came} datagrams: the two in fragments, and whom else?")


def echo_until(server, stop):
    while not stop.is_set():
        if select.select([server], [], [], 0.05)[0]:
            data, peer = server.recvfrom(65536)
            server.sendto(data, peer)


@case("a reader that does not read: its buffer is bounded, and serves again afterwards", timeout=40)
def udp_overflow(rig):
    server = start_server(rig, "slow", wait=False)
    wait_until(lambda: "pid" in server.output(), 5, "the server did not start")
    time.sleep(0.5)
    frames = rig.sidestep.status()["frames"]["total"] if rig.mode == "sidestep" else 0
    with far_socket(rig) as client:
        for number in range(5000):
            client.sendto(b"%d" % number, (rig.near.ipv4, PORT))
            if number % 50 == 0:
                time.sleep(0.001)
        if rig.mode == "sidestep":
            stack = rig.sidestep.status()["stacks"][0]
            lost = stack["drops"].get("MailboxFull", 0)
            expect(4000 < lost < 5000, f"{lost} of 5000 were lost to a full buffer")
            expect(stack["frames"] < 3000, f"the stack holds {stack['frames']} frames")
        os.kill(int(server.output().split()[1]), signal.SIGUSR1)
        client.settimeout(3)
        kept = [client.recv(100) for _ in range(20)]
        expect_equal(kept, [b"%d" % number for number in range(20)], "the oldest datagrams")
    wait_until(lambda: answers_v4(rig), 10, "no answer afterwards")
    if rig.mode == "sidestep":
        parts = rig.sidestep.status()["frames"]
        expect_equal(parts["pool"] + parts["fill"] + parts["stacks"], frames, "frames in all")


@case("a UDP port switched off and on, live: the same socket has its datagrams from both", timeout=30, only_sidestep=True)
def udp_port_switched_live(rig):
    start_server(rig, "echo")
    with datagrams_by_user_stack(rig, 20):
        exchange(rig, 20)
    rig.sidestep.port("off", f"{PORT}/udp")
    before, user = rig.near.kernel_datagrams(), totals(rig, "rx_datagrams", "tx_datagrams")
    exchange(rig, 20)
    expect(rig.near.kernel_datagrams()[0] - before[0] >= 20, "the kernel did not get the datagrams")
    expect_equal(totals(rig, "rx_datagrams", "tx_datagrams"), user, "datagrams of the user stack")
    rig.sidestep.port("on", f"{PORT}/udp")
    with datagrams_by_user_stack(rig, 20):
        exchange(rig, 20)
    ports = rig.sidestep.status()["ports"]
    line = {"port": PORT, "proto": "udp", "policy": "on", "members": 1, "connections": 0, "in_kernel": 0}
    expect(line in ports, f"status says {ports}")


@case("two workers share a UDP port: each has its share, and a peer stays with one", timeout=30)
def udp_reuseport_workers(rig):
    ask_two_workers(rig)


def ask_two_workers(rig):
    start_server(rig, "workers")
    served = {}
    with datagrams_by_user_stack(rig, 120), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(far_socket(rig)) for _ in range(40)]
        for _ in range(3):
            for client in clients:
                worker = ask(client, b"who", (rig.near.ipv4, PORT))[:1]
                expect_equal(served.setdefault(client, worker), worker, "a peer's worker")
    shares = [list(served.values()).count(worker) for worker in (b"0", b"1")]
    expect(min(shares) >= 5, f"40 peers were shared {shares}")
    if rig.mode == "sidestep":
        expect_equal(len(rig.sidestep.status()["stacks"]), 2, "stacks")


@case("a UDP server that ends gives its port back: the kernel serves the next one", timeout=30, only_sidestep=True)
def udp_port_is_given_back(rig):
    server = start_server(rig, "echo")
    server.stop()
    wait_until(lambda: not any(p["members"] for p in rig.sidestep.status()["ports"]), 5, "the group has members still")
    before = rig.near.kernel_datagrams()
    rig.start(rig.near, "udp-plain", [sys.executable, SERVER, "echo", PORT])
    with far_socket(rig) as client:
        wait_until(lambda: try_ask(client, (rig.near.ipv4, PORT)), 10, "the kernel's server did not answer")
    expect(rig.near.kernel_datagrams()[0] > before[0], "the kernel had no part in it")


@case("a UDP server killed with datagrams unread: frames come back, the next one is served by the user stack", timeout=40,
      only_sidestep=True)
def udp_server_killed(rig):
    frames = rig.sidestep.status()["frames"]["total"]
    server = start_server(rig, "slow", wait=False)
    wait_until(lambda: "pid" in server.output(), 5, "the server did not start")
    time.sleep(0.3)
    with far_socket(rig) as client:
        for number in range(50):
            client.sendto(b"%d" % number, (rig.near.ipv4, PORT))
    wait_until(lambda: totals(rig, "rx_datagrams")[0] >= 50, 5, "the datagrams did not arrive")
    os.kill(int(server.output().split()[1]), signal.SIGKILL)
    wait_until(lambda: not rig.sidestep.status()["stacks"], 10, "the dead server's stack stays")
    parts = rig.sidestep.status()["frames"]
    expect_equal(parts["pool"] + parts["fill"], frames, "frames that are nobody's")
    start_server(rig, "echo", name="udp-next")
    with datagrams_by_user_stack(rig, 50):
        exchange(rig, 50)


def try_ask(client, there):
    with contextlib.suppress(OSError):
        return ask(client, b"there?", there, timeout=0.3)


@case("beside a user socket the kernel's, bound to another address of the same port, has its datagrams; and nobody's are refused",
      timeout=30)
def udp_beside_the_kernel(rig):
    taken, nobodys = (f"{rig.near.ipv4.rsplit('.', 1)[0]}.{host}" for host in (201, 202))
    for address in (taken, nobodys):
        rig.near.check(["ip", "address", "add", f"{address}/32", "dev", rig.near.device])
        rig.far.check(["ip", "neigh", "replace", address, "lladdr", ":".join(f"{octet:02x}" for octet in rig.near.mac()),
                       "dev", rig.far.device])
    with rig.near.socket(socket.AF_INET, socket.SOCK_DGRAM) as kernels, far_socket(rig) as client:
        kernels.bind((taken, PORT))
        kernels.settimeout(5)
        server = start_server(rig, "echo", address=rig.near.ipv4, wait=False)
        wait_until(lambda: answers_v4(rig), 10, "the server did not answer")
        before, (handed,) = rig.witness().redirected, totals(rig, "foreign_datagrams")
        for number in range(20):
            client.sendto(b"%d" % number, (taken, PORT))
            expect_equal(kernels.recvfrom(100), (b"%d" % number, (rig.far.ipv4, client.getsockname()[1])), "what the kernel's has")
        if rig.mode == "sidestep":
            expect(rig.witness().redirected - before >= 20, "XDP did not redirect them")
            expect_equal(totals(rig, "foreign_datagrams")[0] - handed, 20, "datagrams handed to the kernel")
        client.connect((nobodys, PORT))
        client.send(b"anybody?")
        client.settimeout(5)
        try:
            client.recv(100)
            expect(False, "there is somebody")
        except ConnectionRefusedError:
            pass
        expect(answers_v4(rig), "the server does not answer any more")
        expect(server.is_running(), server.output())


@case("over loopback a user socket is the kernel's", timeout=30)
def udp_loopback(rig):
    start_server(rig, "echo")
    with rig.near.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for address in ("127.0.0.1", rig.near.ipv4):
            expect_equal(ask(client, b"hello", (address, PORT)), b"hello", f"echo at {address}")


@case("dnsmasq under sidestep answers DNS over UDP", timeout=30)
def udp_dnsmasq(rig):
    argv = ["dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--port=53",
            "--user=root", "--address=/sidestep.test/192.0.2.7", "--bind-interfaces", f"--listen-address={rig.near.ipv4}",
            "--pid-file="]
    server = rig.start_served("dnsmasq", argv, ["53/udp"])
    there = (rig.near.ipv4, 53)
    with far_socket(rig) as client:
        def answers():
            expect(server.is_running(), server.output())
            before = rig.near.kernel_datagrams()
            with contextlib.suppress(OSError):
                look_up(client, there, 1, timeout=0.3)
                return rig.mode == "kernel" or rig.near.kernel_datagrams() == before
            return False

        wait_until(answers, 10, "dnsmasq did not answer")
        with datagrams_by_user_stack(rig, 300):
            for number in range(300):
                expect_equal(look_up(client, there, number), "192.0.2.7", "the address of a.sidestep.test")


def look_up(client, there, number, timeout=3):
    """The A record of a.sidestep.test, asked for by hand (RFC 1035 §4)."""
    name = b"".join(bytes([len(label)]) + label for label in (b"a", b"sidestep", b"test")) + b"\0"
    query = struct.pack(">6H", number, 0x0100, 1, 0, 0, 0) + name + struct.pack(">2H", 1, 1)
    answer = ask(client, query, there, timeout)
    expect_equal(struct.unpack(">H", answer[:2])[0], number, "the answer's number")
    return socket.inet_ntoa(answer[-4:])


@case("a thread waits on a socket without a port, by each call there is for it, while another sends for the first time",
      timeout=60)
def udp_waits_before_first_send(rig):
    with far_socket(rig) as server:
        server.bind((rig.far.ipv4, PORT))
        stop = threading.Event()
        thread = threading.Thread(target=echo_until, args=(server, stop))
        thread.start()
        try:
            redirected = rig.witness().redirected
            out = rig.near.check(as_client(rig, [sys.executable, WAITS_FIRST, rig.far.ipv4, PORT])).splitlines()
        finally:
            stop.set()
            thread.join()
    waits = ("by_recv", "by_recvmsg_with_timeout", "by_poll", "by_select", "by_epoll")
    wanted = [f"{wait} {first} [b'hello']" for wait in waits for first in ("sendto", "connect")]
    expect_equal(out, [*wanted, "timeout True", "bound 5399"], "what the client said")
    if rig.mode == "sidestep":
        redirected = rig.witness().redirected - redirected
        expect(redirected >= 5, f"XDP redirected {redirected} frames")


# Asks the echo server at HOST PORT over and over; a line of input closes the socket, the next one ends it.
BUSY_CLIENT = """
import select, socket, sys
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(3)
client.bind(("0.0.0.0", 0))
there, rounds = (sys.argv[1], int(sys.argv[2])), 0
print(client.getsockname()[1], flush=True)
while not select.select([sys.stdin], [], [], 0.01)[0]:
    client.sendto(b"%d" % rounds, there)
    assert client.recv(100) == b"%d" % rounds
    rounds += 1
client.close()
sys.stdin.readline()
print(rounds, flush=True)
sys.stdin.readline()
"""


@case("a kernel socket bound to a port in a block of ours has its datagrams, and a closed client's port is the kernel's again",
      timeout=30)
def udp_ports_of_others(rig):
    with far_socket(rig) as server, contextlib.ExitStack() as stack:
        server.bind((rig.far.ipv4, PORT))
        stop = threading.Event()
        thread = threading.Thread(target=echo_until, args=(server, stop))
        thread.start()
        stack.callback(thread.join)
        stack.callback(stop.set)
        argv = as_client(rig, [sys.executable, "-c", BUSY_CLIENT, rig.far.ipv4, PORT])
        client = stack.enter_context(subprocess.Popen(
            rig.near.command(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        stack.callback(client.kill)
        own = int(client.stdout.readline())
        there = (rig.far.ipv4, PORT)
        redirected = rig.witness().redirected
        # A resolver binds like this: ports of its own choice, which may lie in anybody's block.
        block = own & ~0xff
        others = [port for port in range(block, block + 256) if port != own]
        for port in others[::8]:
            ask_from(rig, port, there)
            time.sleep(0.02)
        client.stdin.write("close\n")
        client.stdin.flush()
        rounds = int(client.stdout.readline())
        expect(rounds >= 10, f"the client had {rounds} answers")
        if rig.mode == "sidestep":
            redirected = rig.witness().redirected - redirected
            expect(redirected >= 10, f"XDP redirected {redirected} frames")
        ask_from(rig, own, there)
        expect(client.poll() is None, "the client is to live until here")
        client.stdin.write("end\n")
        client.stdin.flush()


def ask_from(rig, port, there):
    """An echo by a plain socket of near's kernel, bound to a port by itself."""
    with rig.near.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
        resolver.bind(("0.0.0.0", port))
        expect_equal(ask(resolver, b"question %d" % port, there), b"question %d" % port, f"echo at port {port}")
