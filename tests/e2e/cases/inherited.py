"""Connections that one program accepts and another serves: by fork, by exec, by a message."""

import contextlib
import os
import re
import shutil
import signal
import socket
import threading
import time

from case import case, expect, expect_equal, sha256_of_file
from rig.process import wait_until
from rig.proof import total
from rig.servers import wait_for_port, write_random_file

from .databases import AS_NOBODY, BINARIES
from .languages import PORT, PROGS, PYTHON, ask_two_node_workers
from .proxies import _CONF
from .transfers import MB

SSH_PORT, SQL_PORT, WEB_PORT = 2222, 5432, 8090


def echo(rig, port, size=300_000, count=5, version=4):
    """What a program that copies its input to its output sends back, to the end."""
    for number in range(count):
        sent = os.urandom(size)
        with rig.far.connect(rig.near.address(version), port, timeout=20) as connection:
            def send(to=connection):
                to.sendall(sent)
                to.shutdown(socket.SHUT_WR)

            sender = threading.Thread(target=send)
            sender.start()
            got = b"".join(iter(lambda: connection.recv(1 << 16), b""))
            sender.join()
        expect(got == sent, f"connection {number}: {len(got)} of {size} bytes came back, or others")


@case("socat that forks and executes: cat by exec, by a shell, and by vfork-like ways", timeout=60)
def socat_executes(rig):
    for number, address in enumerate(("EXEC:cat", "EXEC:cat,nofork", "SYSTEM:cat", "SYSTEM:cat,nofork")):
        port = PORT + number
        server = rig.start_served(f"socat-{port}", ["socat", f"TCP4-LISTEN:{port},fork,reuseaddr", address], [port])
        wait_for_port(rig, server, port)
        with rig.carried_by_user_stack(frames=100):
            echo(rig, port)
        server.stop()


@case("inetd (-E: with its own environment): programs that never heard of sockets serve connections on their standard numbers", timeout=60)
def inetd(rig):
    conf = rig.scratch / "inetd.conf"
    services = {PORT: "/bin/cat cat", PORT + 1: "/bin/sh sh -c cat"}
    conf.write_text("".join(f"{port} stream tcp4 nowait root {words}\n" for port, words in services.items()))
    server = rig.start_served("inetd", ["inetd", "-i", "-E", conf], list(services))
    for port in services:
        wait_for_port(rig, server, port)
    with rig.carried_by_user_stack(frames=100):
        for port in services:
            echo(rig, port)
    if rig.mode == "sidestep":
        # The listeners alone are left: nobody holds a connection any more, nor does the daemon.
        wait_until(lambda: sockets_in_stacks(rig) == len(services), 5, lambda: f"sockets left: {sockets_in_stacks(rig)}")
        taken_up = total(rig.sidestep, "inherited")
        expect(taken_up >= 5 * len(services), f"connections taken up: {taken_up}")
    server.stop()


@case("PostgreSQL as the server: a process for each connection", timeout=90, daemon=False)
def postgres_server(rig):
    if rig.mode == "sidestep":
        rig.sidestep.up("--allow", "nobody")
    home = rig.home("postgres")
    rig.near.check([*AS_NOBODY, f"{BINARIES}/initdb", "-D", home / "data", "-U", "sidestep", "-A", "trust", "-N", "-E", "UTF8",
                    "--locale", "C"], timeout=30)
    with open(home / "data/pg_hba.conf", "a") as rules:
        rules.write("host all all all trust\n")
    options = {"listen_addresses": rig.near.ipv4, "port": SQL_PORT, "unix_socket_directories": home, "fsync": "off",
               "shared_buffers": "32MB", "ssl": "off"}
    words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    server = rig.start_served("postgres", [*AS_NOBODY, f"{BINARIES}/postgres", "-D", home / "data", *words], [SQL_PORT])
    wait_for_port(rig, server, SQL_PORT)

    def ask(*more, **how):
        argv = ["psql", "-h", rig.near.ipv4, "-p", SQL_PORT, "-U", "sidestep", "-d", "postgres", "-XqAt", "-v", "ON_ERROR_STOP=1"]
        return rig.far.check([*argv, *more], **how).strip()

    with rig.carried_by_user_stack(frames=100):
        expect_equal(ask("-c", "select sum(n) from generate_series(1, 100000) n"), "5000050000", "a sum")
        large = ask("-c", "select repeat('0123456789', 300000)")
        expect(large == "0123456789" * 300_000, "a value of 3 MB differs")
        # The server starts a program with the connection open: by popen.
        expect_equal(ask("-c", "create table t (x text)", "-c", "copy t from program 'echo from a program'", "-c", "select x from t"),
                     "from a program", "COPY FROM PROGRAM")
        bench = ["pgbench", "-h", rig.near.ipv4, "-p", SQL_PORT, "-U", "sidestep", "postgres"]
        rig.far.check([*bench, "-i", "-q", "-s", "1"], timeout=30)
        out = rig.far.check([*bench, "-n", "-c", 5, "-j", 2, "-T", 1, "-S", "-C"], timeout=30)
        expect(re.search(r"number of failed transactions: 0 ", out), f"pgbench: {out[-300:]}")
    server.signal(signal.SIGINT)
    server.stop(patience=10)


@case("node with two workers whose primary accepts and passes connections on", timeout=60)
def node_passes_connections(rig):
    ask_two_node_workers(rig, "rr", 10)


_RELOADED = """
frontend web
    bind :{port}
    http-request return status 200 content-type text/plain string "{word}"
"""


@case("haproxy is replaced under load: its successor asks for the listeners (-x), and no request fails", timeout=60)
def haproxy_hands_over(rig):
    home = rig.home("haproxy")

    def start(number, *more):
        text = _CONF.format(home=home, proxies=_RELOADED.format(port=WEB_PORT, word=f"server {number}"), options="mode http")
        conf = home / f"haproxy-{number}.cfg"
        conf.write_text(text.replace("level admin", "level admin expose-fd listeners"))
        return rig.start_served(f"haproxy-{number}", ["haproxy", "-db", "-f", conf, *more], [WEB_PORT])

    servers = [start(0)]
    wait_for_port(rig, servers[0], WEB_PORT)
    answers, failures, over = {}, [], threading.Event()

    def load():
        while not over.is_set():
            try:
                with rig.far.connect(rig.near.ipv4, WEB_PORT, timeout=5) as connection:
                    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    body = b"".join(iter(lambda: connection.recv(4096), b"")).rpartition(b"\r\n\r\n")[2]
                answers[body] = answers.get(body, 0) + 1
            except OSError as error:
                failures.append(error)

    before = rig.witness()
    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in (1, 2):
            time.sleep(0.5)
            servers.append(start(number, "-x", home / "stats.sock", "-sf", servers[-1].pid))
            wait_until(lambda: answers.get(b"server %d" % number), 15, "the successor does not answer")  # noqa: B023
            wait_until(lambda: not servers[-2].is_running(), 15, "the old one did not end")
        time.sleep(0.3)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    expect(not failures, f"{len(failures)} requests failed of {sum(answers.values())}: {failures[:3]}")
    expect_equal(set(answers), {b"server 0", b"server 1", b"server 2"}, "answers")
    moved = rig.witness() - before
    expect(rig.mode == "kernel" or moved.redirected > 100, f"who carried it: {moved}")
    servers[-1].stop()


@case("sshd: it forks, executes itself with the connection, and gives up its privileges; commands, 5 MB each way", timeout=90)
def sshd(rig):
    home = rig.home("ssh")
    for name in ("host", "user"):
        rig.near.check(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / name])
    shutil.copy(home / "user.pub", home / "authorized")
    home.chmod(0o700)
    conf = home / "sshd_config"
    conf.write_text(f"Port {SSH_PORT}\nListenAddress {rig.near.ipv4}\nHostKey {home}/host\nAuthorizedKeysFile {home}/authorized\n"
                    f"PidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\nLogLevel VERBOSE\n")
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    server = rig.start_served("sshd", ["/usr/sbin/sshd", "-D", "-e", "-f", conf], [SSH_PORT])
    wait_for_port(rig, server, SSH_PORT)
    write_random_file(home / "big", 5 * MB)
    ssh = ["ssh", "-F", "none", "-p", SSH_PORT, "-i", home / "user", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
           "-o", "LogLevel=ERROR", f"root@{rig.near.ipv4}"]
    with rig.carried_by_user_stack(frames=100):
        expect_equal(rig.far.check([*ssh, "echo hello; exit 0"], timeout=20), "hello\n", "a command")
        digest = sha256_of_file(home / "big")
        out = rig.far.check([*ssh, f"sha256sum {home}/big; cat {home}/big | base64 -w0"], timeout=30)
        expect(out.startswith(digest) and len(out) > 6 * MB, f"what came: {len(out)} characters")
        with open(home / "big", "rb") as source:
            expect(rig.far.check([*ssh, "sha256sum"], stdin=source, timeout=30).startswith(digest), "what went differs")
    server.stop()


@case("a connection that is passed to a process with a stack of its own: refused with a line and a count, and its peer hears of it", timeout=30,
      only_sidestep=True)
def passed_to_a_server(rig):
    server = rig.start_served("passes", [PYTHON, PROGS / "passed_to_a_server.py", PORT], [PORT, PORT + 1], strict=False)

    def is_ready():
        with contextlib.suppress(OSError), rig.far.connect(rig.near.ipv4, PORT + 1, timeout=1) as own:
            return own.recv(10) == b"own\n"

    wait_until(is_ready, 10, "the child does not answer")
    wait_for_port(rig, server, PORT)
    with rig.far.connect(rig.near.ipv4, PORT) as connection:
        expect_equal(connection.recv(10), b"", "what came")

    def refused():
        return total(rig.sidestep, "inherited_refused")

    wait_until(lambda: refused() > 0, 5, "it was not counted")
    output = server.output()
    expect("the child: Transport endpoint is not connected" in output or "the child: Broken pipe" in output, output)
    expect("sidestep: a connection was passed to a process that has a stack of its own" in output, output)
    server.stop()


def sockets_in_stacks(rig):
    return sum(stack["sockets"] for stack in rig.sidestep.status()["stacks"])
