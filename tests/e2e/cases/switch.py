"""`sidestep port on` and `off` while a server runs and is loaded: no connection breaks, new ones take the new path at once."""

import contextlib
import signal
import time

from case import case, expect, expect_equal
from rig import proof
from rig.process import Failed, wait_until
from rig.servers import NGINX_PORT, REDIS_PORT
from rig.talkers import Talkers

from .fallback import ping
from .death import start_daemon
from .reload import LONGER, Load, Nginx, is_alive


class Pings(Talkers):
    """Connections that are opened one after the other and all pinged: none may break."""

    def __init__(self, rig):
        super().__init__(rig, 2)

    def __exit__(self, kind, *rest):
        super().__exit__(kind, *rest)
        if kind is None:
            expect(sum(self.counts) > 100, f"only {self.counts} pings")

    def talk(self, number):
        kept = []
        try:
            while not self.is_over:
                if len(kept) == 20:
                    kept.pop(0).close()
                kept.append(self.rig.far.connect(self.rig.near.ipv4, REDIS_PORT))
                for connection in kept:
                    ping(connection)
                    self.counts[number] += 1
        except (OSError, Failed) as error:
            self.errors.append(repr(error))
        for connection in kept:
            connection.close()


def port_line(rig, port):
    return next(line for line in rig.sidestep.status()["ports"] if line["port"] == port)


def switch_often(rig, times):
    for _ in range(times):
        for verb in ("off", "on"):
            rig.sidestep.port(verb, REDIS_PORT)
            with rig.far.connect(rig.near.ipv4, REDIS_PORT) as client:
                ping(client)
                line = port_line(rig, REDIS_PORT)
            states = ("off", "draining") if verb == "off" else ("on",)
            expect(line["policy"] in states, f"after port {verb}: {line}")
            expect(line["connections"] + line["in_kernel"] > 0, f"nothing lives: {line}")


@case("a loaded port is switched off and on: no connection breaks", timeout=60 * LONGER, only_sidestep=True)
def switched_under_load(rig):
    rig.start_redis()
    with Pings(rig):
        switch_often(rig, 8 if LONGER == 1 else 100)
    expect_equal(proof.resets_for_nobody(rig.sidestep.status()), 0, "segments that met the wrong stack")


@case("what port list says: on, draining with its connections, off", timeout=60 * LONGER, only_sidestep=True)
def port_list(rig):
    rig.start_redis()
    with rig.far.connect(rig.near.ipv4, REDIS_PORT) as old:
        ping(old)
        line = port_line(rig, REDIS_PORT)
        expect_equal((line["policy"], line["connections"], line["in_kernel"]), ("on", 1, 0), "the port that is on")
        rig.sidestep.port("off", REDIS_PORT)
        with rig.carried_by_kernel(), rig.far.connect(rig.near.ipv4, REDIS_PORT) as new:
            ping(new)
            line = port_line(rig, REDIS_PORT)
            expect_equal((line["policy"], line["connections"], line["in_kernel"]), ("draining", 1, 1), "the port that drains")
        with rig.carried_by_user_stack():
            ping(old)
        table = rig.near.check(rig.sidestep.command("port", "list"))
        expect("draining" in table and "CONNECTIONS" in table, table)


@case("a worker of nginx is killed under load: only its own connections suffer", timeout=60 * LONGER)
def killed_worker(rig):
    with Nginx(rig, 4) as nginx, contextlib.ExitStack() as stack:
        nginx.await_members()
        clients = [stack.enter_context(rig.far.connect(rig.near.ipv4, NGINX_PORT)) for _ in range(80)]
        for client in clients:
            get(client)
        with Load(rig, nginx, kept=False, downloads=0) as load:
            victim = nginx.worker_pids()[0]
            rig.near.check(["kill", "-9", victim])
            time.sleep(1)
        expect(not is_alive(victim), "the victim lives")
        dead = sum(not answers(client) for client in clients)
        expect(0 < dead < 60 or rig.mode == "kernel", f"{dead} of 80 connections died with one of four workers")
        # Those that it had accepted, of twenty.
        expect(load.errors()[0][0] <= 20, load.results[0])


def get(client):
    client.sendall(b"GET /1k HTTP/1.1\r\nHost: near\r\n\r\n")
    received = b""
    while len(received.partition(b"\r\n\r\n")[2]) < 1024:
        data = client.recv(4096)
        if not data:
            raise ConnectionError("end")
        received += data


def answers(client):
    try:
        get(client)
        return True
    except OSError:
        return False


@case("nginx' workers share the connections evenly, two of them and four", timeout=60 * LONGER, only_sidestep=True)
def even_workers(rig):
    share_evenly(rig, reuseport=False)


@case("the same with a listener for each worker", timeout=60 * LONGER, only_sidestep=True)
def even_workers_reuseport(rig):
    share_evenly(rig, reuseport=True)


def share_evenly(rig, reuseport):
    # Enough that chance alone stays far from the bound: for four workers it is 4.6 standard deviations away. Not all at once, for
    # what waits at a worker that gets no processor goes to others, and is to.
    batches, batch = 40, 40
    fair_share = (0.8, 1.2)
    for workers in (2, 4):
        with Nginx(rig, workers, reuseport=reuseport) as nginx:
            nginx.await_members()
            before = accepts_by_stack(rig)
            expect_equal(len(before), workers, f"stacks {before}")
            for number in range(1, batches + 1):
                with contextlib.ExitStack() as stack:
                    for _ in range(batch):
                        stack.enter_context(rig.far.connect(rig.near.ipv4, NGINX_PORT))
                    # The far kernel opened them; the workers see to the last ones.
                    wanted = sum(before.values()) + number * batch
                    wait_until(lambda: accepts(rig) >= wanted, 10, lambda: f"{accepts(rig)} of {wanted} connections")
            after = accepts_by_stack(rig)
            counts = [after[index] - before[index] for index in before]
            low, high = (share * batches * batch / workers for share in fair_share)
            expect(all(low <= count <= high for count in counts), f"connections by worker: {counts}")


def accepts_by_stack(rig):
    return {line["index"]: proof.counter(line, "accepts") for line in rig.sidestep.status()["stacks"] if line["pid"]}


@case("the daemon is killed while workers come and go: the next one finds every port whole", timeout=60 * LONGER, only_sidestep=True, daemon=False)
def killed_daemon_while_reloading(rig):
    daemon = start_daemon(rig)
    with Nginx(rig, 2) as nginx:
        for delay in (0.02, 0.05, 0.1):
            nginx.tell("reload")
            time.sleep(delay)
            daemon.signal(signal.SIGKILL)
            daemon.exit_code(5)
            daemon = start_daemon(rig)
            time.sleep(1.2)
            line = port_line(rig, NGINX_PORT)
            expect_equal(line["policy"], "on", "the port's policy")
            with Load(rig, nginx, kept=False, downloads=0) as load:
                # However little of the machine is ours: enough of it, or somebody stands still.
                wanted = accepts(rig) + 200
                wait_until(lambda: accepts(rig) >= wanted, 20, lambda: f"{accepts(rig)} of {wanted} connections")
            load.expect_none_failed()


def accepts(rig):
    return proof.total(rig.sidestep, "accepts")
