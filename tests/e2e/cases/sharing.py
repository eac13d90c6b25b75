"""Processes that share a port: nobody waits at one that does not accept while another would."""

import collections
import contextlib
import os
import re
import signal
import time

from case import case, expect, expect_equal
from rig import proof
from rig.process import wait_until
from rig.servers import NGINX_PORT, wait_for_port

from .death import expect_health, start_daemon
from .reload import LONGER, Nginx, failed_requests, requests, wrong_stacks
from .switch import accepts, port_line

PORT = 7000
CHILDREN = 3
SLOW = 4


def sent_on(rig):
    """Connections that went from stack to stack before they were accepted."""
    return proof.total(rig.sidestep, "immigrants")


def load(rig, *words):
    out = rig.far.check(["wrk", "-t1", "-c30", "-d1s", *words, f"http://{rig.near.ipv4}:{NGINX_PORT}/1k"])
    expect(failed_requests(out) == 0 and requests(out) > 100, out[-400:])


def ask_slowly(rig, times):
    """One connection after the other, with pauses in which whoever has the mutex falls asleep with it; the waits."""
    waits = []
    for _ in range(times):
        started = time.monotonic()
        with rig.far.connect(rig.near.ipv4, NGINX_PORT, timeout=10) as client:
            client.sendall(b"GET /1k HTTP/1.0\r\n\r\n")
            expect_equal(client.recv(12), b"HTTP/1.1 200", "answer")
        waits.append(time.monotonic() - started)
        time.sleep(0.01)
    return sorted(waits)


def accept_in_turn(rig, workers):
    # Who fails to get the mutex tries again so soon; so all get it now and then, but while its holder sleeps, nobody.
    with Nginx(rig, workers, accept_mutex=True, delay="20ms") as nginx, rig.carried_by_user_stack(frames=1000):
        # Several have had the mutex then, and serve the port.
        load(rig)
        load(rig, "-H", "Connection: close")
        waits = ask_slowly(rig, 100 * LONGER)
        expect(waits[len(waits) * 3 // 4] < 0.25, f"a quarter of all connections waited longer than {waits[len(waits) * 3 // 4]:.3f} s")
        expect_equal(wrong_stacks(rig), 0, "segments that met the wrong stack")
        if rig.mode == "sidestep":
            expect(sent_on(rig) > 0, "nobody who waited was sent on")
            expect(len([stack for stack in rig.sidestep.status()["stacks"] if stack["pid"] in nginx.worker_pids()]) > 1,
                   "only one worker serves the port")


@case("nginx's workers accept in turn (accept_mutex), two of them, under heavy load and light: nobody waits for his turn", timeout=60 * LONGER)
def accept_mutex_two(rig):
    accept_in_turn(rig, 2)


@case("the same with four", timeout=60 * LONGER)
def accept_mutex_four(rig):
    accept_in_turn(rig, 4)


# Children that each block in accept() and serve one connection at a time.
PREFORK = """
import os, socket, sys, time
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
for _ in range(int(sys.argv[3]) - 1):
    if os.fork() == 0:
        break
while True:
    connection, _ = listener.accept()
    with connection:
        time.sleep(float(connection.recv(100) or 0))
        connection.sendall(b"%d" % os.getpid())
"""


@case("children that each block in accept: while one is busy the others serve those who came to it", timeout=60)
def busy_child(rig):
    # Each has accepted once before: it serves the port from then on.
    server = rig.start_served("prefork", ["python3", "-c", PREFORK, rig.near.ipv4, PORT, CHILDREN], [PORT])
    wait_for_port(rig, server, PORT)
    with contextlib.ExitStack() as stack:
        busy = stack.enter_context(ask(rig, SLOW))
        time.sleep(0.2)
        with rig.carried_by_user_stack(frames=100):
            started = time.monotonic()
            pids = set()
            for _ in range(40):
                with ask(rig, 0) as quick:
                    pids.add(quick.recv(100))
            took = time.monotonic() - started
        expect(took < SLOW, f"40 quick questions took {took:.1f} s")
        slow_pid = busy.recv(100)
    expect(slow_pid and slow_pid not in pids, f"{slow_pid} was busy, {pids} answered")
    expect(b"" not in pids and 0 < len(pids) < CHILDREN, f"{pids} answered")
    expect_equal(wrong_stacks(rig), 0, "segments that met the wrong stack")


def ask(rig, seconds):
    connection = rig.far.connect(rig.near.ipv4, PORT)
    connection.sendall(b"%d" % seconds)
    return connection


@case("nginx's workers accept in turn, each for long: most connections come to the one whose turn it is", timeout=60)
def connections_follow_the_mutex(rig):
    with Nginx(rig, 4, accept_mutex=True) as nginx, rig.carried_by_user_stack(frames=1000):
        # Until several have had the mutex, and serve the port: who has it is nginx' to decide, and chance.
        for _ in range(2 if rig.mode == "kernel" else 15):
            load(rig, "-H", "Connection: close")
            if rig.mode == "sidestep" and port_line(rig, NGINX_PORT)["members"] > 1:
                break
        before = (sent_on(rig), accepts(rig)) if rig.mode == "sidestep" else (0, 0)
        out = rig.far.check(["wrk", "-t1", "-c4", "-d3s", "-H", "Connection: close", f"http://{rig.near.ipv4}:{NGINX_PORT}/1k"])
        expect(failed_requests(out) == 0 and requests(out) > 100, out[-400:])
        if rig.mode == "sidestep":
            singly, together = sent_on(rig) - before[0], accepts(rig) - before[1]
            # When the mutex goes on, each of the others has some dozens sent on before it has no buckets left.
            expect(singly < 500 + together // 4, f"{singly} of {together} connections were sent on one by one")
            members = port_line(rig, NGINX_PORT)["members"]
            expect(1 < members <= len(nginx.worker_pids()), f"{members} workers serve the port")
        waits = ask_slowly(rig, 50)
        expect(waits[len(waits) * 3 // 4] < 0.25, f"a quarter of all connections waited longer than {waits[len(waits) * 3 // 4]:.3f} s")
        expect_equal(wrong_stacks(rig), 0, "segments that met the wrong stack")
    if rig.mode == "sidestep":
        expect_health(rig)


# Children that take the listener into their epoll set, or out of it, when a signal says so. Who is asked answers.
ASKERS = """
import contextlib, os, select, signal, socket, sys, time
listener = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=1000)
listener.setblocking(False)
for number in range(int(sys.argv[3])):
    if os.fork() == 0:
        break
else:
    while True:
        time.sleep(1)
interest = select.epoll()
interest.register(listener, select.EPOLLIN)
signal.signal(signal.SIGUSR1, lambda *_: interest.modify(listener, select.EPOLLIN))
signal.signal(signal.SIGUSR2, lambda *_: interest.modify(listener, 0))
signal.signal(signal.SIGHUP, lambda *_: (listener.close(), time.sleep(100)))
print(f"child {os.getpid()}\\n", end="", flush=True)
asked = {}
while True:
    for fd, _ in interest.poll():
        with contextlib.suppress(BlockingIOError):
            if fd == listener.fileno():
                connection, _ = listener.accept()
                asked[connection.fileno()] = connection
                interest.register(connection, select.EPOLLIN)
                continue
        connection = asked.pop(fd, None)
        if connection and connection.recv(100):
            connection.sendall(b"%d" % os.getpid())
            interest.unregister(connection)
            connection.close()
"""


def who_answers(connection):
    connection.sendall(b"?")
    return int(connection.recv(100))


class Askers:
    def __init__(self, rig, count):
        self.rig = rig
        self.server = rig.start_served("askers", ["python3", "-c", ASKERS, rig.near.ipv4, PORT, count], [PORT])
        wait_for_port(rig, self.server, PORT)
        wait_until(lambda: len(self.children()) == count, 10, "not all children are there")
        wait_until(lambda: port_line(rig, PORT)["members"] == count, 10, "not all children serve the port")

    def children(self):
        return [int(pid) for pid in re.findall(r"child (\d+)", self.server.output())]

    def ask(self, *pids):
        """These ask for connections from now on, and the others do not."""
        for pid in self.children():
            os.kill(pid, signal.SIGUSR1 if pid in pids else signal.SIGUSR2)
        time.sleep(0.2)

    def answers(self, count):
        """So many connections, one after the other: who answered how often, and how many were sent on."""
        before, who = sent_on(self.rig), collections.Counter()
        for _ in range(count):
            with self.rig.far.connect(self.rig.near.ipv4, PORT, timeout=10) as client:
                who[who_answers(client)] += 1
        return who, sent_on(self.rig) - before

    def expect_few_sent_on(self, count, *asking):
        self.ask(*asking)
        who, singly = self.answers(count)
        expect(set(who) <= set(asking), f"{asking} ask, {who} answered")
        idle = len(self.children()) - len(asking)
        # 64 from each that has buckets and does not ask, those that wait with the last of them, and its live connections.
        expect(singly <= 100 * idle, f"{singly} of {count} connections were sent on one by one")

    def expect_evenness(self):
        """The daemon looks once a second who asks again."""
        self.ask(*self.children())
        time.sleep(2.5)
        who, singly = self.answers(300)
        fair = 300 / len(self.children())
        expect(set(who) == set(self.children()) and min(who.values()) > fair / 2, f"connections by child: {who}")
        expect(singly < 30, f"{singly} of 300 connections were sent on although all ask")


@case("of three children one asks for connections, then another, then all: they come to who asks", timeout=60, only_sidestep=True)
def connections_follow_who_asks(rig):
    askers = Askers(rig, 3)
    first, second, third = askers.children()
    with contextlib.ExitStack() as stack:
        # They stay where they are.
        kept = [stack.enter_context(rig.far.connect(rig.near.ipv4, PORT, timeout=10)) for _ in range(60)]
        with rig.carried_by_user_stack(frames=1000):
            askers.expect_few_sent_on(450, first)
            askers.expect_few_sent_on(450, second)
            askers.expect_few_sent_on(450, second, third)
            expect_equal(port_line(rig, PORT)["members"], 3, "members of the port")
            askers.expect_evenness()
        expect_equal({who_answers(client) for client in kept}, {first, second, third}, "who answers early connections")
    # Whoever has all buckets dies: the others have them then, though they do not ask, and serve when they do.
    askers.expect_few_sent_on(450, first)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: port_line(rig, PORT)["members"] == 2, 10, "the dead child serves the port")
    askers.children = lambda: [second, third]
    askers.expect_evenness()
    expect_equal(wrong_stacks(rig), 0, "segments that met the wrong stack")
    expect_health(rig)


@case("a child without buckets gets connections all the same, and closes its listener: they go to the others", timeout=60, only_sidestep=True)
def waiting_where_no_buckets_are(rig):
    askers = Askers(rig, 3)
    first, second, third = askers.children()
    askers.expect_few_sent_on(500, first)
    askers.ask(second)
    # It would take what comes, but does not get to it. Unless the daemon looked just now, it has no buckets.
    os.kill(second, signal.SIGSTOP)

    def waiting_there():
        return sum(proof.counter(line, "connections") for line in rig.sidestep.status()["stacks"] if line["pid"] == second)

    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(rig.far.connect(rig.near.ipv4, PORT, timeout=10)) for _ in range(20)]
        wait_until(lambda: waiting_there() == len(waiting), 5, lambda: f"{waiting_there()} wait there")
        os.kill(second, signal.SIGHUP)
        os.kill(second, signal.SIGCONT)
        wait_until(lambda: port_line(rig, PORT)["members"] == 2, 5, "it did not leave the port")
        askers.children = lambda: [first, third]
        askers.ask(first, third)
        expect({who_answers(client) for client in waiting} <= {first, third}, "who was closed answered")
    expect_equal(wrong_stacks(rig), 0, "segments that met the wrong stack")
    expect_health(rig)


@case("the daemon is killed while some have no buckets: the next one knows them", timeout=60, only_sidestep=True, daemon=False)
def killed_daemon_while_some_ask(rig):
    daemon = start_daemon(rig)
    askers = Askers(rig, 3)
    first, second, _ = askers.children()
    askers.expect_few_sent_on(500, first)
    daemon.signal(signal.SIGKILL)
    daemon.exit_code(5)
    start_daemon(rig)
    expect_equal(port_line(rig, PORT)["members"], 3, "members of the port")
    askers.expect_few_sent_on(500, second)
    askers.expect_evenness()
    expect_equal(wrong_stacks(rig), 0, "segments that met the wrong stack")
    expect_health(rig)
