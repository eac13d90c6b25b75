"""kill -9 at any moment: peers see an end, the others serve on, and nothing is lost."""

import array
import contextlib
import os
import random
import signal
import socket
import subprocess
import time

from case import case, expect, expect_equal
from rig import proof, servers
from rig.process import Failed, wait_until
from rig.product import TARGET
from rig.servers import NGINX_PORT
from rig.talkers import PATIENCE_S, Talkers

from .clients import as_client
from .death import expect_health, members, start_daemon
from .fallback import ping
from .reload import LONGER, Nginx

ECHO_PORT = 8099
class Echoes(Talkers):
    """Kernel clients. Whoever loses its connection makes another: at once, or never."""

    def __init__(self, rig, port, ask, threads=6):
        super().__init__(rig, threads)
        self.port, self.ask, self.ends = port, ask, 0

    def talk(self, number):
        while not self.is_over:
            try:
                with self.rig.far.connect(self.rig.near.ipv4, self.port, timeout=PATIENCE_S) as client:
                    self._talk(number, client)
            except TimeoutError:
                self.errors.append(f"client {number}: neither an answer nor an end in {PATIENCE_S} s")
            except OSError:
                self.ends += 1  # a process died that had it, or was about to
                time.sleep(0.002)

    def _talk(self, number, client):
        while not self.is_over:
            if not self.ask(client):
                self.ends += 1
                return
            self.counts[number] += 1


def echo(client):
    client.sendall(b"x" * 3000)
    received = 0
    while received < 3000:
        data = client.recv(65536)
        if not data:
            return False
        received += len(data)
    return True


def get(client):
    client.sendall(b"GET /1k HTTP/1.1\r\nHost: near\r\n\r\n")
    received = b""
    while len(received.partition(b"\r\n\r\n")[2]) < 1024:
        data = client.recv(4096)
        if not data:
            return False
        received += data
    return True


def children_of(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]
    return []


def kill_some(rig, victims, kills, load):
    """Kills one of the victims after a random while, again and again."""
    dice = random.Random(os.environ.get("SEED"))
    done = 0
    while done < kills:
        deadline = time.monotonic() + dice.uniform(0, 0.02)
        while time.monotonic() < deadline:
            pass
        alive = victims()
        if not alive:
            time.sleep(0.005)
            continue
        with contextlib.suppress(ProcessLookupError):
            os.kill(dice.choice(alive), signal.SIGKILL)
            done += 1
        if done % 10 == 0:
            load.await_progress(f"after {done} kills")


@case("workers of nginx are killed at random: their peers see the end, the others serve", timeout=60 * LONGER)
def killed_at_random(rig):
    with Nginx(rig, 3) as nginx:
        nginx.await_members()
        with Echoes(rig, NGINX_PORT, get) as load:
            kill_some(rig, nginx.worker_pids, 40 * LONGER, load)
        if rig.mode == "sidestep":
            expect_health(rig)


@case("children with a connection each are killed at random: their parent, which shares a stack with them, serves on", timeout=60 * LONGER)
def killed_children(rig):
    server = rig.start_served("forking", [TARGET / "e2e/forking_server", str(ECHO_PORT)], [ECHO_PORT])
    wait_until(lambda: answers(rig), 10, lambda: f"no answer: {server.output()}")
    with Echoes(rig, ECHO_PORT, echo) as load:
        kill_some(rig, lambda: children_of(server.pid), 40 * LONGER, load)
    expect(server.is_running(), server.output())
    if rig.mode == "sidestep":
        expect_health(rig)


def answers(rig):
    with contextlib.suppress(OSError), rig.far.connect(rig.near.ipv4, ECHO_PORT, timeout=1) as client:
        return echo(client)


# Opens a connection and asks, over and over.
BUSY_CLIENT = """
import socket, sys
while True:
    connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
    for _ in range(3):
        connection.sendall(b"PING\\r\\n")
        assert connection.recv(100) == b"+PONG\\r\\n"
    connection.close()
"""


@case("clients under sidestep are killed at random: their ports and frames come back", timeout=60 * LONGER, only_sidestep=True)
def killed_clients(rig):
    server = rig.start(rig.far, "far-redis", servers.redis_argv(rig.home("far-redis")))
    servers.wait_for_redis(rig.far, server, rig.far.ipv4)
    argv = rig.sidestep.run_argv(["python3", "-c", BUSY_CLIENT, rig.far.ipv4, servers.REDIS_PORT])
    dice = random.Random(os.environ.get("SEED"))
    before = rig.witness()
    for round_ in range(5 * LONGER):
        clients = [rig.start(rig.near, f"client-{round_}-{n}", argv) for n in range(4)]
        if round_ == 0:  # The machine may be busy; later they may be killed while they start, too.
            wait_until(lambda: (rig.witness() - before).redirected >= 100, 10, "no client came so far")
        time.sleep(dice.uniform(0.2, 0.6))
        for client in clients:
            client.signal(signal.SIGKILL)
            client.exit_code(10)
    moved = rig.witness() - before
    # The kernel answers what is still on its way to a stack that went with its last connection: no more than that.
    expect(moved.redirected >= 100 and moved.kernel_in <= 20 * LONGER, f"carried by the user stack: {moved}")
    expect_health(rig)
    wait_until(lambda: connections_of(rig) == 0, PATIENCE_S, lambda: f"left behind: {rig.sidestep.status()['stacks']}")


@case("children are killed before they can say who they are: their parent's connection ends when he closes it, nothing is lost", timeout=60, only_sidestep=True)
def killed_at_birth(rig):
    with rig.far.listen(ECHO_PORT) as listener:
        listener.settimeout(PATIENCE_S)
        argv = [TARGET / "e2e/killed_at_birth", rig.far.ipv4, ECHO_PORT, 3]
        parent = rig.start(rig.near, "parent", as_client(rig, argv))
        connection, _ = listener.accept()
        with connection:
            wait_until(lambda: "closed" in parent.output(), 10, lambda: f"the parent said: {parent.output()}")
            # Nobody has the connection now but the dead, of whom the daemon does not know yet that they are.
            expect_health(rig)
            connection.settimeout(PATIENCE_S)
            expect_equal(connection.recv(1), b"", "the end of the stream")
            expect(parent.is_running(), "the parent ended")
            expect_health(rig)


def connections_of(rig):
    return proof.total(rig.sidestep, "connections")


# How a program ends with its last write, and what its exit code is then.
ENDS = {
    "_exit": 0, "exit": 0, "thread_returns": 0, "thread_exit": 0, "thread_quick": 0, "linger": 0, "close": 0,
    "term": -signal.SIGTERM, "kill": -signal.SIGKILL, "abort": -signal.SIGABRT,
}


@case("however a program ends with its last write, all of it arrives, though the peer is slow", timeout=60)
def last_words(rig):
    size = 256 << 10
    wanted = array.array("I", range(size // 4)).tobytes()
    with rig.carried_by_user_stack(frames=100, stack_is_alive=False):
        for number, (end, code) in enumerate(ENDS.items()):
            for is_server in (False, True):
                port = 7100 + 2 * number + is_server
                writer, connection = start_writer(rig, port, size, end, is_server)
                with connection:
                    # More than the windows take is still unsent when it is dead.
                    chunks = [connection.recv(1000)]
                    expect_equal(writer.exit_code(20), code, f"{end}: how it ended")
                    received = rest_of(connection, chunks)
                expect(received == wanted, f"{end}, {'server' if is_server else 'client'}: {len(received)} of {size} bytes, or others")


def rest_of(connection, chunks):
    """What comes until the end of the stream, or until a reset, after `chunks`."""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(1 << 16):
            chunks.append(chunk)
    return b"".join(chunks)


@case("who ends with unread data, or does not want to linger, resets its peer", timeout=60)
def last_words_lost(rig):
    with rig.carried_by_user_stack(frames=4, stack_is_alive=False):
        for number, end in enumerate(("reset", "unread")):
            writer, connection = start_writer(rig, 7200 + number, 100, end, is_server=False)
            with connection:
                expect_equal(connection.recv(4), bytes(4), "its first word")
                try:
                    connection.sendall(b"unread")
                    expect_equal(writer.exit_code(20), 0, f"{end}: how it ended")
                    while connection.recv(1000):
                        pass
                    raise Failed(f"{end}: the peer saw an orderly end")
                except ConnectionResetError:
                    pass


def accepts(rig, port):
    if rig.mode == "sidestep":
        return members(rig.sidestep.status()).get(port) == 1
    return f":{port} " in rig.near.check(["ss", "-Hltn"])


def start_writer(rig, port, size, end, is_server):
    """The program, and the far end of its connection."""
    name, program = f"{end}-{port}", str(TARGET / "e2e/write_and_exit")
    if is_server:
        writer = rig.start_served(name, [program, "-", str(port), str(size), end], [port])
        wait_until(lambda: accepts(rig, port), 10, lambda: f"{name}: {writer.output()}")
        connection = rig.far.socket(socket.AF_INET, socket.SOCK_STREAM)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.settimeout(PATIENCE_S)
        connection.connect((rig.near.ipv4, port))
        return writer, connection
    with rig.far.listen(port) as listener:
        listener.settimeout(PATIENCE_S)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        writer = rig.start(rig.near, name, as_client(rig, [program, rig.far.ipv4, str(port), str(size), end]))
        connection, _ = listener.accept()
    connection.settimeout(PATIENCE_S)
    return writer, connection


PORT_AFTER_PORT = """
import socket, sys
for line in sys.stdin:
    with socket.create_server(("", int(line))) as listener:
        listener.settimeout(0)
        try:
            listener.accept()
        except BlockingIOError:
            pass
        listener.settimeout(10)
        print("listens", flush=True)
        connection, _ = listener.accept()
        connection.sendall(connection.recv(100))
        connection.close()
"""


@case("a server that listens on one port after the other, far more than there are groups: each is served", timeout=60, only_sidestep=True)
def ports_for_life(rig):
    argv = [str(word) for word in rig.near.command(rig.sidestep.run_argv(["python3", "-c", PORT_AFTER_PORT]))]
    server = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        with rig.carried_by_user_stack(frames=1000, stack_is_alive=False):
            for port in range(9000, 9270 + 730 * (LONGER > 1)):
                server.stdin.write(f"{port}\n")
                server.stdin.flush()
                expect_equal(server.stdout.readline(), "listens\n", f"port {port}")
                with rig.far.connect(rig.near.ipv4, port) as client:
                    client.sendall(b"ping")
                    expect_equal(client.recv(100), b"ping", f"port {port}")
                    expect_equal(client.recv(100), b"", f"port {port}")
    finally:
        server.kill()
        server.communicate()
    expect_health(rig)


class Steady(Talkers):
    """Connections that are kept and asked: none may break."""

    def talk(self, number):
        try:
            with self.rig.far.connect(self.rig.near.ipv4, servers.REDIS_PORT, timeout=PATIENCE_S) as connection:
                while not self.is_over:
                    ping(connection)
                    self.counts[number] += 1
        except (OSError, Failed) as error:
            self.errors.append(repr(error))


@case("a program dies with frames in its rings, and there is no daemon to empty them: the next one finds them", timeout=60, only_sidestep=True, daemon=False)
def frames_of_the_dead(rig):
    daemon = start_daemon(rig)
    rig.start_redis()
    for port in (6390, 6391):
        doomed = rig.start_redis(port=port)
        with rig.far.connect(rig.near.ipv4, port) as client:
            ping(client)
            daemon.signal(signal.SIGKILL)
            daemon.exit_code(10)
            doomed.signal(signal.SIGSTOP)
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    client.send(bytes(1000))
            time.sleep(0.1)
            doomed.signal(signal.SIGKILL)
            doomed.exit_code(10)
        daemon = start_daemon(rig)
        expect_health(rig)
        # Nobody was left to tell the peer; it sends again, and the kernel answers.
        wait_until(lambda: not rig.far.is_opening_or_closing(), 10, "the peer of the dead does not hear of it")
        with rig.carried_by_user_stack(frames=100), rig.far.connect(rig.near.ipv4, servers.REDIS_PORT) as client:
            for _ in range(100):
                ping(client)


@case("the daemon is killed again and again while a port is switched and processes die: no connection breaks", timeout=60 * LONGER, only_sidestep=True, daemon=False)
def killed_daemons(rig):
    daemon = start_daemon(rig)
    rig.start_redis()
    dice = random.Random(os.environ.get("SEED"))
    with Steady(rig, 8) as steady:
        steady.await_progress("the first answers")
        for round_ in range(4 * LONGER):
            doomed = rig.start_redis(port=6390 + round_ % 4)
            verb = "off" if round_ % 2 else "on"
            command = rig.near.command(rig.sidestep.command("port", verb, servers.REDIS_PORT))
            switch = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            doomed.signal(signal.SIGKILL)
            time.sleep(dice.uniform(0, 0.03))
            daemon.signal(signal.SIGKILL)
            daemon.exit_code(10)
            switch.wait(20)
            doomed.exit_code(10)
            steady.await_progress(f"round {round_}")
            daemon = start_daemon(rig)
            steady.await_progress(f"round {round_}")
        rig.sidestep.port("on", servers.REDIS_PORT)
        wait_until(lambda: members(rig.sidestep.status()) == {servers.REDIS_PORT: 1}, PATIENCE_S,
                   lambda: f"ports that are served: {rig.sidestep.status()['ports']}")
        expect_health(rig)
        with rig.far.connect(rig.near.ipv4, servers.REDIS_PORT) as client:
            ping(client)
