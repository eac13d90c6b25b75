"""Local ports from which programs connect: others may name them too, and there may be none left."""

import socket
import time

from case import case, expect, expect_equal
from rig.process import wait_until
from rig.proof import total
from rig.servers import REDIS_PORT

from .clients import start_far_redis
from .fallback import ping, ping_often
from .languages import PYTHON

OTHER_PORT = 7001

_PING = """
import socket, sys, time

def connect():
    return socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10)

def ping(peer):
    peer.sendall(b"PING\\r\\n")
    if peer.recv(100) != b"+PONG\\r\\n":
        sys.exit("no PONG")
"""

# Connections to a redis that are never idle for long, and must all live.
HOLDER = _PING + """
peers = [connect() for _ in range(8)]
print(*[peer.getsockname()[1] for peer in peers], flush=True)
while True:
    for peer in peers:
        ping(peer)
    time.sleep(0.005)
"""

# One connection after the other.
COMER = _PING + """
while True:
    with connect() as peer:
        ping(peer)
    time.sleep(0.01)
"""

# As many connections as there are ports, all of which work.
FILLER = """
import errno, socket, sys
peers = []
try:
    while len(peers) < 3000:
        peer = socket.socket()
        peer.connect((sys.argv[1], int(sys.argv[2])))
        peers.append(peer)
except OSError as error:
    print(errno.errorcode[error.errno], end=" ")
for peer in peers:
    peer.sendall(b"PING\\r\\n")
print(len(peers), sum(peer.recv(100) == b"+PONG\\r\\n" for peer in peers))
"""


@case("ports of the block that a stack connects from, named by others: listeners and connections of the kernel's, a server under sidestep",
      timeout=60, only_sidestep=True)
def named_local_ports(rig):
    start_far_redis(rig)
    holder = rig.start_served("holder", [PYTHON, "-c", HOLDER, rig.far.ipv4, REDIS_PORT], [])
    wait_until(lambda: "\n" in holder.output(), 10, "the clients did not connect")
    used = [int(word) for word in holder.output().split()]
    expect_equal(len({port >> 8 for port in used}), 1, "blocks in use")
    free = next(port for port in range(used[0] & ~255, (used[0] | 255) - 2) if not {port, port + 1, port + 2} & set(used))
    for port in (used[0], free):
        listen_in_the_kernel(rig, port)
    for port in (used[1], free + 1):
        connect_by_the_kernel(rig, port)
    with rig.carried_by_user_stack(frames=100):
        before = pings(rig)
        wait_until(lambda: pings(rig) > before + 200, 10, "the clients' connections do not go on")
    for port in (used[2], free + 2):
        rig.start_redis(port)
        with rig.carried_by_user_stack(frames=300):
            ping_often(rig, port=port)
    expect(holder.is_running(), f"a connection of the block's stack was lost: {holder.output()}")
    rig.near.check(rig.sidestep.command("doctor"))


@case("a client with one block of ports leaves it to a server that asks for one of them, and has it back afterwards", timeout=60, only_sidestep=True)
def block_lent(rig):
    rig.sidestep.down()
    set_local_ports(rig, "40192 40703")
    rig.sidestep.up()
    start_far_redis(rig)
    comer = rig.start_served("comer", [PYTHON, "-c", COMER, rig.far.ipv4, REDIS_PORT], [])
    expect_opens(rig, "the client has its block")
    server = rig.start_redis(40700)
    with rig.far.connect(rig.near.ipv4, 40700) as client:
        before = opens(rig)
        for _ in range(50):
            ping(client)
            time.sleep(0.01)
        expect_equal(opens(rig), before, "connections by the user stack while the block is the server's")
    server.end()
    expect_opens(rig, "the client has its block again")
    expect(comer.is_running(), f"a connection failed: {comer.output()}")


def set_local_ports(rig, ports):
    """Before the daemon starts, which takes the upper half."""
    rig.near.check(["sysctl", "-qw", f"net.ipv4.ip_local_port_range={ports}"])


def opens(rig):
    return total(rig.sidestep, "active_opens")


def expect_opens(rig, what):
    before = opens(rig)
    wait_until(lambda: opens(rig) > before + 10, 10, lambda: f"{what}: {before} connections, then {opens(rig)}")


def listen_in_the_kernel(rig, port):
    """A server of which sidestep knows nothing, on every address."""
    listener = rig.near.socket(socket.AF_INET, socket.SOCK_STREAM)
    with listener:
        listener.bind(("0.0.0.0", port))
        listener.listen()
        for _ in range(20):
            with rig.far.connect(rig.near.ipv4, port, timeout=5) as client:
                server, _ = listener.accept()
                with server:
                    server.settimeout(5)
                    client.sendall(b"x" * 5000)
                    expect_equal(len(read_all(server, 5000)), 5000, f"octets to port {port}")
                    server.sendall(b"thanks")
                    expect_equal(read_all(client, 6), b"thanks", f"answer of port {port}")


def connect_by_the_kernel(rig, port):
    """A client of which sidestep knows nothing: it is served, and where nobody listens it is refused at once."""
    with rig.far.listen(OTHER_PORT) as listener, client_at(rig, port) as client:
        client.connect((rig.far.ipv4, OTHER_PORT))
        server, _ = listener.accept()
        with server:
            server.sendall(b"x" * 5000)
            expect_equal(len(read_all(client, 5000)), 5000, f"octets to port {port}")
            # The far end has the TIME-WAIT.
            server.close()
            expect_equal(client.recv(1), b"", "the end")
    with client_at(rig, port) as client:
        try:
            client.connect((rig.far.ipv4, OTHER_PORT + 1))
        except ConnectionRefusedError:
            return
    expect(False, f"port {port} was not refused")


def read_all(connection, size):
    """A socket with a timeout does not heed MSG_WAITALL."""
    got = b""
    while len(got) < size and (more := connection.recv(size - len(got))):
        got += more
    return got


def client_at(rig, port):
    client = rig.near.socket(socket.AF_INET, socket.SOCK_STREAM)
    client.settimeout(5)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    client.bind((rig.near.ipv4, port))
    return client


def pings(rig):
    return total(rig.sidestep, "rx_segments")


@case("a client that takes every local port there is: as many as the kernel has, and then the kernel's error", timeout=60)
def local_ports_run_out(rig):
    if rig.mode == "sidestep":
        rig.sidestep.down()
    set_local_ports(rig, "40192 41215")
    if rig.mode == "sidestep":
        rig.sidestep.up()
    start_far_redis(rig)
    words = ["prlimit", "--nofile=4000:4000", PYTHON, "-c", FILLER, rig.far.ipv4, REDIS_PORT]
    filler = rig.start_served("filler", words, [])
    code = filler.exit_code(40)
    lines = filler.output().splitlines()
    expect_equal((code, lines[-1]), (0, "EADDRNOTAVAIL 1024 1024"), "the error, connections, and those that work")
    if rig.mode == "sidestep":
        told = [line for line in lines if line.startswith("sidestep: ")]
        expect(len(told) == 1 and "no local port" in told[0], f"it said {told}")
        moved = rig.witness()
        expect(moved.redirected > 500 and moved.kernel_in > 500, f"both carry their share: {moved}")
