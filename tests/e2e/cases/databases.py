"""PostgreSQL's clients under sidestep, against a server on an ordinary kernel."""

import contextlib
import hashlib
import os
import re
import signal

from case import case, expect, expect_equal
from rig.servers import wait_for_far_port

from .clients import as_client

PORT = 5432
BINARIES = "/usr/lib/postgresql/15/bin"
# The server refuses to be root.
AS_NOBODY = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]


@contextlib.contextmanager
def postgres(rig):
    """A fresh cluster without durability, on far."""
    home = rig.home("postgres")
    rig.far.check([*AS_NOBODY, f"{BINARIES}/initdb", "-D", home / "data", "-U", "sidestep", "-A", "trust", "-N", "-E", "UTF8",
                   "--locale", "C"], timeout=30)
    with open(home / "data/pg_hba.conf", "a") as rules:
        rules.write("host all all all trust\n")
    options = {"listen_addresses": rig.far.ipv4, "port": PORT, "unix_socket_directories": home, "fsync": "off",
               "max_connections": 60, "shared_buffers": "32MB", "ssl": "off"}
    words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    server = rig.start(rig.far, "postgres", [*AS_NOBODY, f"{BINARIES}/postgres", "-D", home / "data", *words])
    wait_for_far_port(rig, server, PORT)
    try:
        yield server
    finally:
        server.signal(signal.SIGINT)
        server.stop(patience=10)


def psql(rig, *words, **options):
    argv = ["psql", "-h", rig.far.ipv4, "-p", PORT, "-U", "sidestep", "-d", "postgres", "-XqAt", "-v", "ON_ERROR_STOP=1"]
    return rig.near.check(as_client(rig, [*argv, *words]), **options).strip()


@case("psql: COPY of 10 MB in and out, large values, an error, LISTEN and NOTIFY", timeout=60)
def psql_as_client(rig):
    rows = "".join(f"{number}\t{hashlib.sha256(b'%d' % number).hexdigest() * 3}\n" for number in range(50_000))
    (rig.scratch / "rows").write_text(rows)
    with postgres(rig), rig.carried_by_user_stack(frames=100, stack_is_alive=False):
        psql(rig, "-c", "create table t (number int primary key, words text)")
        with open(rig.scratch / "rows", "rb") as source:
            psql(rig, "-c", "copy t from stdin", stdin=source)
        expect_equal(psql(rig, "-c", "select count(*), sum(number) from t"), "50000|1249975000", "rows")
        expect(psql(rig, "-c", "copy (select * from t order by number) to stdout") + "\n" == rows, "COPY gave other rows")
        large = psql(rig, "-c", "select repeat('0123456789', 500000)")
        expect(large == "0123456789" * 500_000, "a value of 5 MB differs")
        expect_equal(psql(rig, "-c", f"select length('{'x' * 100_000}')"), "100000", "length of a long question")
        with open(rig.scratch / "notify", "w+b") as script:
            script.write(b"listen news;\nnotify news, 'first';\nselect 'after';\n")
            script.seek(0)
            expect("first" in psql(rig, stdin=script), "the notification did not come")


@case("pgbench: 10 clients in two threads, prepared and simple, and a connection for each transaction", timeout=60)
def pgbench_as_client(rig):
    with postgres(rig), rig.carried_by_user_stack(frames=1000, stack_is_alive=False):
        pgbench(rig, "-i", "-q", "-s", 2)
        for words in (["-M", "prepared", "-t", 100], ["-M", "simple", "-t", 50], ["-M", "extended", "-S", "-C", "-t", 10]):
            out = pgbench(rig, "-n", "-c", 10, "-j", 2, *words)
            done = int(re.search(r"actually processed: (\d+)/", out)[1])
            expect_equal(done, 10 * words[-1], f"transactions with {words}")
            expect("failed transactions: 0" in out, out[-300:])
        sums = psql(rig, "-c", "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history), "
                    "(select count(*) from pgbench_history)")
        expect_equal(sums, "t|1500", "balances, and transactions kept")


def pgbench(rig, *words):
    return rig.near.check(as_client(rig, ["pgbench", "-h", rig.far.ipv4, "-p", PORT, "-U", "sidestep", *words, "postgres"]))
