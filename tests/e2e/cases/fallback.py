"""When sidestep may not or cannot serve, the kernel does, and one line says why."""

import shutil
import time

from case import case, expect, expect_equal
from rig import product, servers
from rig.servers import REDIS_PORT

NOBODY = ["setpriv", "--reuid", 65534, "--regid", 65534, "--clear-groups"]


@case("a port switched off before the start is the kernel's", timeout=30, only_sidestep=True)
def port_off_before_start(rig):
    rig.start_redis(port=6380)
    with rig.carried_by_user_stack(frames=100):
        ping_often(rig, port=6380)
    rig.sidestep.port("off", REDIS_PORT)
    start_redis(rig, rig.sidestep.run_argv(redis(rig), strict=False))
    with rig.carried_by_kernel(frames=100):
        ping_often(rig)


@case("a port switched off and on again serves new connections in both, old ones go on", timeout=30, only_sidestep=True)
def port_switched_live(rig):
    rig.start_redis()
    with rig.far.connect(rig.near.ipv4, REDIS_PORT) as old:
        ping(old)
        rig.sidestep.port("off", REDIS_PORT)
        ping_often(rig, rounds=5)
        ping(old)
        rig.sidestep.port("on", REDIS_PORT)
        ping(old)
        # The last of the kernel's connections finish their closing.
        time.sleep(0.3)
        with rig.carried_by_user_stack(frames=50):
            ping_often(rig)
            ping(old)


@case("preloaded with no daemon: served by the kernel, one line of warning", timeout=30, only_sidestep=True, daemon=False)
def no_daemon_preloaded(rig):
    preload = ["env", f"LD_PRELOAD={product.LIBRARY}", f"SIDESTEP_DEV={rig.near.device}"]
    server = start_redis(rig, [*preload, *redis(rig)])
    with rig.carried_by_kernel(frames=100):
        ping_often(rig)
    expect_one_warning(server.output())


@case("`run` that can start no daemon: served by the kernel, one line of warning", timeout=30, only_sidestep=True, daemon=False)
def no_daemon_unprivileged(rig):
    server = start_redis(rig, [*NOBODY, *rig_binary(rig).run_argv(redis(rig), strict=False)])
    with rig.carried_by_kernel(frames=100):
        ping_often(rig)
    expect_one_warning(server.output())


@case("`run --strict` that can start no daemon is an error", timeout=30, only_sidestep=True, daemon=False)
def no_daemon_strict(rig):
    code, out, err = rig.near.run([*NOBODY, *rig_binary(rig).run_argv(["echo", "started"], strict=True)])
    expect(code != 0, "exit code 0")
    expect("started" not in out, "the program was started all the same")
    expect_one_warning(err)


@case("`run` starts the daemon when there is none", timeout=30, only_sidestep=True, daemon=False)
def run_starts_the_daemon(rig):
    rig.sidestep.is_up = True
    rig.start_redis()
    with rig.carried_by_user_stack(frames=100):
        ping_often(rig)


@case("a server that is not root, of a user whom the operator allowed", timeout=30, only_sidestep=True, daemon=False)
def unprivileged_server(rig):
    rig.sidestep.up("--allow", "nobody")
    start_redis(rig, [*NOBODY, *rig_binary(rig).run_argv(redis(rig), [REDIS_PORT])])
    with rig.carried_by_user_stack(frames=100):
        ping_often(rig)


@case("`down` under a running server: refused; with --force it goes on, on the kernel", timeout=30, only_sidestep=True)
def down_under_a_server(rig):
    server = rig.start_redis()
    code, _, err = rig.near.run(rig.sidestep.command("down", rig.near.device))
    expect(code != 0 and "--force" in err, f"`down` did not ask for --force: {err}")
    with rig.carried_by_user_stack(frames=100):
        ping_often(rig)
    rig.sidestep.down("--force")
    with rig.carried_by_kernel(frames=100):
        ping_often(rig)
    expect(server.is_running(), "redis-server is gone")


def redis(rig):
    return servers.redis_argv(rig.home("redis"))


def start_redis(rig, argv):
    server = rig.start(rig.near, "redis", argv)
    servers.wait_for_redis(rig.far, server, rig.near.ipv4)
    return server


def rig_binary(rig):
    """The product, copied to where any user may read it; and the rig's sidestep made to use that copy."""
    folder = rig.home("bin")

    class Copied(product.Sidestep):
        def command(self, *words):
            return [str(folder / "sidestep"), *map(str, words)]

    for file in (product.BINARY, product.LIBRARY):
        shutil.copy(file, folder)
    return Copied(rig.near)


def ping(connection):
    connection.sendall(b"PING\r\n")
    expect_equal(connection.recv(100), b"+PONG\r\n", "answer to PING")


def ping_often(rig, rounds=50, port=REDIS_PORT):
    """A new connection each time; at least four segments each way."""
    for _ in range(rounds):
        with rig.far.connect(rig.near.ipv4, port) as connection:
            ping(connection)
            ping(connection)


def expect_one_warning(text):
    """Ours begin with our name; the dynamic loader's complaint that it found no library does not count."""
    warnings = [line for line in text.splitlines() if line.startswith("sidestep")]
    expect_equal(len(warnings), 1, f"lines of warning {warnings[:3]}")
