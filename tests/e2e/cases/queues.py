"""Layouts: one, two or four receive queues below one, two or four workers, one server, and clients.

A stack has a socket on every queue, so whichever queue a segment comes by, it reaches the stack of its flow. The witnesses: no segment
met a stack that had no connection for it, the kernel's TCP saw none at all, and each worker and each queue had work.
"""

import contextlib
import os
import signal

from case import case, expect, expect_equal
from rig import proof
from rig.process import wait_until
from rig.servers import NGINX_PORT, REDIS_PORT

from . import udp
from .clients import as_client, start_far_nginx, start_far_redis
from .reload import LONGER, Nginx, is_alive, wrong_stacks
from .switch import answers, get

# So many flows leave no queue of four without any, nor a worker.
FLOWS = 200


@contextlib.contextmanager
def on_all_queues(rig, frames=1000):
    """What happens inside is the user stack's work, comes by every queue, and nothing of it meets a wrong stack."""
    with by_all_queues(rig), rig.carried_by_user_stack(frames=frames, stack_is_alive=False):
        yield


@contextlib.contextmanager
def by_all_queues(rig):
    before = rig.near.frames_by_queue()
    yield
    counts = [now - then for now, then in zip(rig.near.frames_by_queue(), before)]
    expect_equal(len(counts), rig.wire.queues, "receive queues")
    expect(rig.mode == "kernel" or all(counts), f"frames by queue: {counts}")
    expect_equal(wrong_stacks(rig), 0, "segments that met the wrong stack")


def ask_many_times(rig, *words):
    out = rig.far.check(["ab", "-q", "-n", 10 * FLOWS, "-c", 30, *words, f"http://{rig.near.ipv4}:{NGINX_PORT}/1k"])
    expect(f"Complete requests:      {10 * FLOWS}" in out and "Failed requests:        0" in out and "Non-2xx" not in out, out[-500:])


def stacks_of(rig, pids):
    return [stack for stack in rig.sidestep.status()["stacks"] if stack["pid"] in pids]


def expect_all_worked(rig, pids):
    """Each worker accepted its share of at least ten times FLOWS."""
    if rig.mode == "kernel":
        return
    accepts = [proof.counter(stack, "accepts") for stack in stacks_of(rig, pids)]
    expect_equal(len(accepts), len(pids), "workers with a stack of their own")
    fair = sum(accepts) / len(pids)
    expect(all(0.8 * fair <= count <= 1.2 * fair for count in accepts), f"connections accepted by worker: {accepts}")


def expect_health(rig):
    if rig.mode == "sidestep":
        code, out, err = rig.near.run(rig.sidestep.command("doctor", rig.near.device), timeout=20)
        expect(code == 0 and "counts add up" in out, f"{out.strip()} {err.strip()}")


def serve_on_every_layout(rig):
    for workers in (1, 2, 4):
        with Nginx(rig, workers) as nginx:
            nginx.await_members()
            with on_all_queues(rig):
                ask_many_times(rig)
                ask_many_times(rig, "-k")
            expect_all_worked(rig, nginx.worker_pids())
    rig.start_redis()
    with on_all_queues(rig):
        rig.far.check(["redis-benchmark", "-h", rig.near.ipv4, "-n", 4000, "-c", 50, "-P", 4, "-t", "set,get", "-d", 3000])
    expect_health(rig)


@case("one receive queue: nginx with one, two and four workers, redis", timeout=60)
def served_on_one_queue(rig):
    serve_on_every_layout(rig)


@case("two receive queues: the same", timeout=60, queues=2)
def served_on_two_queues(rig):
    serve_on_every_layout(rig)


@case("four receive queues: the same", timeout=60, queues=4)
def served_on_four_queues(rig):
    serve_on_every_layout(rig)


@case("four receive queues and one to send by: the same", timeout=60, queues=4, back=1)
def served_on_a_lopsided_device(rig):
    serve_on_every_layout(rig)


def open_on_every_layout(rig):
    start_far_redis(rig)
    start_far_nginx(rig)
    url = f"http://{rig.far.ipv4}:{NGINX_PORT}/1k"
    with on_all_queues(rig):
        rig.near.check(as_client(rig, ["redis-benchmark", "-h", rig.far.ipv4, "-n", 4000, "-c", 50, "-P", 4, "-t", "set,get", "-d", 3000]))
        for _ in range(4):
            rig.near.check(as_client(rig, ["curl", "-sS", "--fail", "--max-time", 10, "-o", "/dev/null", url, url, url]))
    # wrk ends with answers on their way, which nobody has then. One that met a wrong stack before would be an error of its.
    with rig.carried_by_user_stack(frames=1000, stack_is_alive=False):
        for extra in ([], ["-H", "Connection: close"]):
            out = rig.near.check(as_client(rig, ["wrk", "-t2", "-c40", "-d1s", *extra, url]))
            expect("Requests/sec" in out and "Socket errors" not in out and "Non-2xx" not in out, f"wrk: {out[-300:]}")
    expect_health(rig)


@case("one receive queue: wrk, redis-benchmark and curl as clients", timeout=60)
def opened_on_one_queue(rig):
    open_on_every_layout(rig)


@case("two receive queues: the same", timeout=60, queues=2)
def opened_on_two_queues(rig):
    open_on_every_layout(rig)


@case("four receive queues: the same", timeout=60, queues=4)
def opened_on_four_queues(rig):
    open_on_every_layout(rig)


def exchange_datagrams_on_every_layout(rig):
    server = udp.start_server(rig, "echo")
    for version in (4, 6):
        with by_all_queues(rig), udp.datagrams_by_user_stack(rig, 200):
            udp.exchange(rig, 200, version=version, peers=FLOWS // 4)
    server.stop()
    udp.ask_two_workers(rig)
    expect_health(rig)


@case("two receive queues: datagrams at one server, and at two workers", timeout=60, queues=2)
def datagrams_on_two_queues(rig):
    exchange_datagrams_on_every_layout(rig)


@case("four receive queues: the same", timeout=60, queues=4)
def datagrams_on_four_queues(rig):
    exchange_datagrams_on_every_layout(rig)


@case("buckets move under connections that stay, on four queues: each segment finds its stack", timeout=60 * LONGER, queues=4)
def buckets_move_on_four_queues(rig):
    with Nginx(rig, 4) as nginx, contextlib.ExitStack() as stack:
        nginx.await_members()
        for _ in range(LONGER):
            # Who joined last gives back what it took, and nothing moves that somebody has: so two of them die.
            rounds = [move_buckets(rig, nginx, stack) for _ in range(2)]
            if rig.mode == "sidestep":
                by_flow, by_bucket = (sum(moved[name] for moved in rounds) for name in ("redirect_flow", "redirect_bucket"))
                expect(by_flow > FLOWS and by_bucket > 1000, f"verdicts: {rounds}")
    expect_health(rig)


def move_buckets(rig, nginx, stack):
    """A worker dies and its buckets go to the others; its successor comes and takes some of theirs: what they have is pinned.

    Returns the verdicts by name.
    """
    clients = [stack.enter_context(rig.far.connect(rig.near.ipv4, NGINX_PORT)) for _ in range(FLOWS)]
    for client in clients:
        get(client)
    victim = nginx.worker_pids()[0]
    with on_all_queues(rig):
        before = verdicts(rig)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: not is_alive(victim) and len(nginx.worker_pids()) == 4, 10, "no successor")
        nginx.await_members()
        living = [client for client in clients if answers(client)]
        expect(FLOWS / 2 < len(living), f"{len(living)} of {FLOWS} connections live, one worker of four died")
        for _ in range(5):
            for client in living:
                get(client)
        ask_many_times(rig)
        moved = {name: count - before[name] for name, count in verdicts(rig).items()}
    for client in living:
        client.close()
    return moved


def verdicts(rig):
    return rig.sidestep.status()["verdicts"] if rig.mode == "sidestep" else {}
