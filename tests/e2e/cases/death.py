"""Somebody is killed without warning: the daemon, or the server."""

import signal
import socket
import struct
import subprocess
import threading
import time

from case import case, expect, expect_equal
from rig import proof, servers
from rig.process import Failed, Process, wait_until
from rig.servers import NGINX_PORT, REDIS_PORT

from .clients import start_far_redis
from .fallback import ping, ping_often
from .languages import PYTHON
from .local_ports import set_local_ports


@case("the daemon is killed under load: connections go on, a new daemon takes over", timeout=90, only_sidestep=True, daemon=False)
def killed_daemon(rig):
    daemon = start_daemon(rig)
    rig.start_redis()
    with rig.far.connect(rig.near.ipv4, REDIS_PORT) as old, Load(rig) as load:
        ping(old)
        daemon.signal(signal.SIGKILL)
        daemon.exit_code(5)
        for _ in range(20):
            ping(old)
            time.sleep(0.05)
        load.expect_progress("after the daemon's death")
        ping_often(rig, rounds=5)

        rig.sidestep.up()
        ping(old)
        load.expect_progress("after the new daemon came")
    rig.start_redis(port=6380)
    with rig.carried_by_user_stack(frames=100):
        ping_often(rig, port=6380)


LEFT_ALONE = """
import socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
while True:
    client, _ = listener.accept()
    if client.recv(2) == b"go":
        break
listener.close()
peers = [socket.create_connection((sys.argv[3], int(sys.argv[4]))) for _ in range(300)]
for peer in peers:
    peer.sendall(b"PING\\r\\n")
client.sendall(b"%d" % sum(peer.recv(100) == b"+PONG\\r\\n" for peer in peers))
"""


@case("without a daemon a program under --strict closes a listener and connects, also when its ports have run out", timeout=60,
      only_sidestep=True, daemon=False)
def left_alone(rig):
    set_local_ports(rig, "40192 41215")
    daemon = start_daemon(rig)
    start_far_redis(rig)
    words = [PYTHON, "-c", LEFT_ALONE, rig.near.ipv4, NGINX_PORT, rig.far.ipv4, REDIS_PORT]
    server = rig.start_served("left-alone", words, [NGINX_PORT])
    servers.wait_for_port(rig, server, NGINX_PORT)
    with rig.far.connect(rig.near.ipv4, NGINX_PORT) as client:
        daemon.signal(signal.SIGKILL)
        daemon.exit_code(5)
        client.sendall(b"go")
        expect_equal(client.recv(100), b"300", "connections that work")
    expect_equal(server.exit_code(5), 0, f"the program's end: {server.output()}")


@case("a program started after the daemon's death brings a new daemon up", timeout=60, only_sidestep=True, daemon=False)
def started_after_daemon_death(rig):
    daemon = start_daemon(rig)
    daemon.signal(signal.SIGKILL)
    daemon.exit_code(5)
    rig.start_redis()
    with rig.carried_by_user_stack(frames=100):
        ping_often(rig)


@case("after a takeover servers old and new, and their ports, are the new daemon's", timeout=90, only_sidestep=True, daemon=False)
def taken_over(rig):
    daemon = start_daemon(rig)
    old_server = rig.start_redis()
    doomed = rig.start_redis(port=6381)
    with rig.far.connect(rig.near.ipv4, REDIS_PORT) as kept, rig.far.connect(rig.near.ipv4, 6381) as lost:
        ping(kept)
        ping(lost)
        daemon.signal(signal.SIGKILL)
        daemon.exit_code(5)
        # A server that ends while there is no daemon: what it held is found by the next one.
        doomed.signal(signal.SIGKILL)
        doomed.exit_code(5)
        rig.sidestep.up()
        ping(kept)

        status = rig.sidestep.status()
        expect_frames_add_up(status)
        expect_equal([stack["pid"] for stack in status["stacks"]], [old_server.pid], "the stacks that were taken over")
        expect_equal(members(status), {REDIS_PORT: 1}, "the ports that were taken over")

        server = rig.start_redis(port=6380)
        with rig.carried_by_user_stack(frames=100):
            ping_often(rig, port=6380)
        with rig.carried_by_user_stack(frames=100):
            ping_often(rig)
        status = rig.sidestep.status()
        expect_frames_add_up(status)
        expect_equal(members(status), {REDIS_PORT: 1, 6380: 1}, "the ports with the new server's")

        # A port of before is switched off and on; its connection of before stays.
        rig.sidestep.port("off", REDIS_PORT)
        ping_often(rig, rounds=5)
        ping(kept)
        rig.sidestep.port("on", REDIS_PORT)
        with rig.carried_by_user_stack(frames=100):
            ping_often(rig)
        ping(kept)
    for program in (old_server, server):
        program.signal(signal.SIGKILL)
        program.exit_code(5)
    wait_until(lambda: is_clean(rig, server.pid), 10, lambda: f"left behind: {rig.sidestep.status()}")
    expect_equal(members(rig.sidestep.status()), {}, "the ports that are served when all servers are dead")


# Opens as many connections as a line says, asks on every one, old and new, and says how many answered.
MANY_CLIENTS = """
import socket, sys
connections = []
for line in sys.stdin:
    for _ in range(int(line)):
        connections.append(socket.create_connection((sys.argv[1], int(sys.argv[2])), 10))
    for connection in connections:
        connection.sendall(b"PING\\r\\n")
    print(sum(connection.recv(100) == b"+PONG\\r\\n" for connection in connections), flush=True)
"""


@case("clients under sidestep keep their connections and get new ports from the new daemon", timeout=60, only_sidestep=True, daemon=False)
def clients_through_takeover(rig):
    server = rig.start(rig.far, "far-redis", servers.redis_argv(rig.home("far-redis")))
    servers.wait_for_redis(rig.far, server, rig.far.ipv4)
    daemon = start_daemon(rig)
    argv = rig.near.command(rig.sidestep.run_argv(["python3", "-c", MANY_CLIENTS, rig.far.ipv4, REDIS_PORT]))
    clients = [subprocess.Popen([str(word) for word in argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
               for _ in range(2)]
    try:
        with rig.carried_by_user_stack(frames=100):
            for client in clients:
                expect_equal(ask(client, 100), 100, "connections that answer")
            daemon.signal(signal.SIGKILL)
            daemon.exit_code(5)
            expect_equal(ask(clients[0], 0), 100, "connections that answer without a daemon")
            rig.sidestep.up()
        with rig.carried_by_user_stack(frames=1000):
            for client in clients:
                # More than the ports of one block.
                expect_equal(ask(client, 300), 400, "connections that answer after the takeover")
        expect_frames_add_up(rig.sidestep.status())
    finally:
        for client in clients:
            client.kill()
            client.communicate()


def ask(client, new):
    client.stdin.write(f"{new}\n")
    client.stdin.flush()
    return int(client.stdout.readline() or -1)


@case("nginx reloads after a takeover: its master lives on, its new worker is served", timeout=60, only_sidestep=True, daemon=False)
def reloaded_after_takeover(rig):
    daemon = start_daemon(rig)
    master = rig.start_nginx(master="on")
    with rig.far.connect(rig.near.ipv4, NGINX_PORT) as client:
        expect(get(client).startswith(b"HTTP/1.1 200"), "no answer")
        daemon.signal(signal.SIGKILL)
        daemon.exit_code(5)
        expect(get(client).startswith(b"HTTP/1.1 200"), "no answer without a daemon")
        rig.sidestep.up()
        expect(get(client).startswith(b"HTTP/1.1 200"), "no answer after the takeover")
    (before,) = pids(rig)
    master.signal(signal.SIGHUP)
    wait_until(lambda: pids(rig) not in ([], [before]) and before not in pids(rig), 10,
               lambda: f"no stack of a new worker's: {rig.sidestep.status()}")
    with rig.carried_by_user_stack(frames=10):
        for _ in range(10):
            with rig.far.connect(rig.near.ipv4, NGINX_PORT) as client:
                expect(get(client).startswith(b"HTTP/1.1 200"), "no answer from the new worker")


def get(client):
    client.sendall(b"GET /1k HTTP/1.1\r\nHost: near\r\n\r\n")
    received = b""
    while len(received.partition(b"\r\n\r\n")[2]) < 1024:
        data = client.recv(4096)
        if not data:
            break
        received += data
    return received


def pids(rig):
    """Of the processes whose stacks live; a dead one's stack that only waits has none."""
    return [stack["pid"] for stack in rig.sidestep.status()["stacks"] if stack["pid"]]


def members(status):
    return {port["port"]: port["members"] for port in status["ports"] if port["members"]}


def start_daemon(rig):
    daemon = rig.start(rig.near, "daemon", rig.sidestep.command("up", rig.near.device, "--foreground"))
    rig.sidestep.wait_until_up()
    return daemon


class Load:
    """One kernel client that pings without a pause on one connection."""

    def __init__(self, rig):
        self.connection = rig.far.connect(rig.near.ipv4, REDIS_PORT)
        self.count, self.error, self.is_over = 0, None, False
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_over = True
        self.thread.join(15)
        self.connection.close()

    def _run(self):
        try:
            while not self.is_over:
                ping(self.connection)
                self.count += 1
        except (OSError, Failed) as error:
            self.error = error

    def expect_progress(self, when):
        seen = self.count
        time.sleep(0.5)
        expect(self.error is None, f"the loaded connection broke {when}: {self.error}")
        expect(self.count > seen, f"the loaded connection stood still {when}")


@case("kill -9 of the server: clients see the end within a second, nothing is left", timeout=60)
def killed_server(rig):
    server = rig.start_redis()
    clients = [rig.far.connect(rig.near.ipv4, REDIS_PORT) for _ in range(20)]
    for client in clients:
        ping(client)
        # RST at our close, so that no TIME-WAIT holds the dead server's stack for a minute.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    clients[0].sendall(b"*2\r\n$3\r\nSET\r\n")
    with rig.carried_by_user_stack(stack_is_alive=False):
        server.signal(signal.SIGKILL)
        server.exit_code(5)
        deadline = time.monotonic() + 1
        for number, client in enumerate(clients):
            expect_end(client, deadline, number)
            client.close()
    if rig.mode == "sidestep":
        wait_until(lambda: is_clean(rig, server.pid), 10, lambda: f"left behind: {rig.sidestep.status()}")
    rig.start_redis()
    with rig.carried_by_user_stack(frames=100):
        ping_often(rig)


def expect_end(client, deadline, number):
    client.settimeout(max(deadline - time.monotonic(), 0.001))
    try:
        data = client.recv(100)
    except ConnectionResetError:
        return
    except TimeoutError:
        raise Failed(f"client {number} saw neither FIN nor RST within a second") from None
    expect_equal(data, b"", f"what client {number} read from a dead server")


@case("kill -9 of nginx in the middle of a download", timeout=60)
def killed_server_in_a_download(rig):
    server = rig.start_nginx()
    (rig.www() / "big").write_bytes(bytes(64 << 20))
    client = rig.far.connect(rig.near.ipv4, 8080)
    with rig.carried_by_user_stack():
        client.sendall(b"GET /big HTTP/1.0\r\n\r\n")
        expect(client.recv(1000), "no answer")
    server.signal(signal.SIGKILL)
    server.exit_code(5)
    expect(read_to_the_end(client, 5) < 64 << 20, "the whole file came from a dead server")
    client.close()
    if rig.mode == "sidestep":
        wait_until(lambda: is_clean(rig, server.pid), 20, lambda: f"left behind: {rig.sidestep.status()}")


def read_to_the_end(client, timeout):
    client.settimeout(timeout)
    total = 0
    try:
        while data := client.recv(1 << 20):
            total += len(data)
    except ConnectionResetError:
        pass
    return total


def is_clean(rig, dead_pid):
    """The dead server's stack is freed and every frame is accounted for."""
    status = rig.sidestep.status()
    expect_frames_add_up(status)
    return all(stack["pid"] != dead_pid and proof.counter(stack, "connections") == 0 for stack in status["stacks"])


def expect_frames_add_up(status):
    frames = status["frames"]
    held = frames["pool"] + frames["fill"] + frames["stacks"]
    expect_equal(held, frames["total"], f"frames held by somebody {frames}")


@case("doctor finds nothing lost under load, nor after servers were killed in the midst of it", timeout=90, only_sidestep=True)
def doctor_after_death(rig):
    for _ in range(5):
        server = rig.start_redis()
        load = Process(rig.far.command(["redis-benchmark", "-h", rig.near.ipv4, "-c", 50, "-P", 4, "-n", 10_000_000, "-t", "set,get", "-q"]),
                       rig.scratch / "load.log")
        try:
            with rig.carried_by_user_stack(frames=1000, stack_is_alive=False):
                time.sleep(0.5)
                expect_health(rig)
                server.signal(signal.SIGKILL)
                server.exit_code(5)
        finally:
            load.stop()
        expect_health(rig)
    report = rig.near.check(rig.sidestep.command("doctor", rig.near.device, "--verbose"))
    for what in ("frames of the device", "frames in the pool", "buckets of served ports", "processes"):
        expect(what in report, f"doctor does not speak of {what}: {report[:300]}")


def expect_health(rig):
    code, out, err = rig.near.run(rig.sidestep.command("doctor", rig.near.device), timeout=20)
    expect(code == 0 and "counts add up" in out, f"{out.strip()} {err.strip()}")
