"""Ordinary client programs under sidestep, against servers on an ordinary kernel."""

import array
import time

from case import case, expect, expect_equal, sha256_of_file
from rig import servers
from rig.product import TARGET
from rig.servers import NGINX_PORT, REDIS_PORT, write_random_file

from .transfers import fetch

WRITE_AND_EXIT = TARGET / "e2e/write_and_exit"


def as_client(rig, argv):
    """near's command line for a client program, in this rig's mode."""
    return rig.sidestep.run_argv(argv) if rig.mode == "sidestep" else argv


def start_far_redis(rig, version=4, options=()):
    server = rig.start(rig.far, "far-redis", [*servers.redis_argv(rig.home("far-redis")), *options])
    servers.wait_for_redis(rig.far, server, rig.far.address(version))


def start_far_nginx(rig):
    home = rig.home("far-nginx")
    server = rig.start(rig.far, "far-nginx", servers.nginx_argv(home))
    servers.wait_for_nginx(rig.far, server, rig.far.ipv4)
    return home / "www"


@case("curl downloads 20 MB", timeout=60)
def curl_as_client(rig):
    www = start_far_nginx(rig)
    write_random_file(www / "big", 20 << 20)
    with rig.carried_by_user_stack(frames=100, stack_is_alive=False):
        got = fetch(rig.near, f"http://{rig.far.ipv4}:{NGINX_PORT}/big", through=as_client(rig, []))
    expect_equal(got, (sha256_of_file(www / "big"), 20 << 20), "digest and size")


@case("curl uploads 20 MB", timeout=60)
def curl_uploads_as_client(rig):
    www = start_far_nginx(rig)
    write_random_file(rig.scratch / "upload", 20 << 20)
    with rig.carried_by_user_stack(frames=100, stack_is_alive=False):
        rig.near.check(as_client(rig, ["curl", "-sS", "--fail", "--max-time", 50, "-T", rig.scratch / "upload",
                                       f"http://{rig.far.ipv4}:{NGINX_PORT}/put/upload"]), timeout=55)
    expect_equal(sha256_of_file(www / "put/upload"), sha256_of_file(rig.scratch / "upload"), "digest")


@case("curl to a port where nobody listens is refused at once", timeout=30)
def curl_is_refused(rig):
    started = time.monotonic()
    with rig.carried_by_user_stack(stack_is_alive=False):
        code, _, err = rig.near.run(as_client(rig, ["curl", "-sS", "--max-time", 10, f"http://{rig.far.ipv4}:9/"]))
    expect_equal(code, 7, f"curl's exit code ({err.strip()})")
    expect(time.monotonic() - started < 3, "the refusal took longer than 3 s")


@case("redis-cli sets and gets, one command and a script on standard input", timeout=30)
def redis_cli_as_client(rig):
    start_far_redis(rig)
    redis_cli_round(rig, 4)


@case("the same over IPv6", timeout=30)
def redis_cli_as_client_ipv6(rig):
    start_far_redis(rig, 6)
    redis_cli_round(rig, 6)


def redis_cli_round(rig, version):
    cli = ["redis-cli", "-h", rig.far.address(version), "-p", REDIS_PORT]
    script = rig.scratch / "script"
    script.write_text("".join(f"INCRBY sum {number}\n" for number in range(1, 101)))
    with rig.carried_by_user_stack(stack_is_alive=False):
        expect_equal(rig.near.check(as_client(rig, [*cli, "set", "k", "v"])).strip(), "OK", "set")
        expect_equal(rig.near.check(as_client(rig, [*cli, "get", "k"])).strip(), "v", "get")
        with open(script, "rb") as lines:
            out = rig.near.check(as_client(rig, cli), stdin=lines)
        expect_equal(out.split()[-1], "5050", "last sum")


@case("redis-benchmark under sidestep", timeout=60)
def redis_benchmark_as_client(rig):
    start_far_redis(rig)
    with rig.carried_by_user_stack(frames=1000, stack_is_alive=False):
        rig.near.check(as_client(rig, ["redis-benchmark", "-h", rig.far.ipv4, "-p", REDIS_PORT, "-n", 20000,
                                       "-t", "set,get", "--csv"]))


@case("a client that writes and exits at once: every byte arrives", timeout=60)
def write_and_exit(rig):
    for number, (size, delay) in enumerate([(1, 0), (1, 0.5), (100_000, 0), (100_000, 0.5), (4 << 20, 0.3)]):
        port = 7000 + number
        with rig.carried_by_user_stack(frames=2, stack_is_alive=False):
            writer, received = exit_after_writing(rig, port, size, delay)
            expect_equal(writer.exit_code(10), 0, "the writer's exit code")
        wanted = array.array("I", range(size // 4 + 1)).tobytes()[:size]
        expect(received == wanted, f"{len(received)} of {size} bytes arrived, or they differ (reader delayed {delay} s)")


def exit_after_writing(rig, port, size, delay):
    """Starts the writer; the far end accepts at once, reads after `delay` seconds and until the end."""
    with rig.far.listen(port) as listener:
        listener.settimeout(10)
        writer = rig.start(rig.near, f"writer-{port}", as_client(rig, [WRITE_AND_EXIT, rig.far.ipv4, port, size]))
        connection, _ = listener.accept()
    with connection:
        connection.settimeout(20)
        time.sleep(delay)
        chunks = []
        while data := connection.recv(1 << 16):
            chunks.append(data)
    return writer, b"".join(chunks)
