"""When sidestep may not or cannot serve, the kernel does, and one line says why."""

import shutil
import time

from case import case, expect, expect_equal
from rig import product, servers
from rig.process import wait_until
from rig.product import TARGET
from rig.servers import REDIS_PORT

STATIC_ECHO = TARGET / "e2e/static_echo"
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


@case("a static program, and a script that such a one runs: on the kernel, one line of warning; --strict is an error", timeout=30,
      only_sidestep=True)
def program_out_of_reach(rig):
    script = rig.scratch / "script"
    script.write_text(f"#!{STATIC_ECHO}\n")
    script.chmod(0o755)
    for argv, why in (([STATIC_ECHO, 7000], "statically linked"), ([script], "statically linked")):
        code, out, err = rig.near.run(rig.sidestep.run_argv(argv))
        expect(code != 0 and "started" not in out, f"--strict started it all the same: {code}, {out}")
        expect(why in err, f"the complaint is {err}")
        expect_one_warning(err)
    server = rig.start(rig.near, "static", rig.sidestep.run_argv([STATIC_ECHO, 7000], [7000], strict=False))
    wait_until(lambda: "started" in server.output(), 5, "the server did not start")
    with rig.carried_by_kernel(frames=4), rig.far.connect(rig.near.ipv4, 7000) as connection:
        connection.sendall(b"hello")
        expect_equal(connection.recv(100), b"hello", "echo")
    expect_one_warning(server.output())
    expect("running on the kernel" in server.output(), server.output())


@case("a program with file capabilities, started by somebody who is not root: on the kernel, one line of warning", timeout=30,
      only_sidestep=True)
def program_with_capabilities(rig):
    program = rig.home("bin") / "echo"
    shutil.copy("/bin/echo", program)
    rig.near.check(["setcap", "cap_net_bind_service=ep", program])
    sidestep = rig_binary(rig)
    code, out, err = rig.near.run([*NOBODY, *sidestep.run_argv([program, "started"], strict=True)])
    expect(code != 0 and "started" not in out, f"--strict started it all the same: {code}, {out}")
    expect("file capabilities" in err, f"the complaint is {err}")
    code, out, err = rig.near.run([*NOBODY, *sidestep.run_argv([program, "started"], strict=False)])
    expect_equal((code, out), (0, "started\n"), "the program without --strict")
    expect_one_warning(err)
    out = rig.near.check(sidestep.run_argv([program, "started"], strict=True))
    expect_equal(out, "started\n", "the program started by root, whom it gives nothing")


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
        if not (folder / file.name).exists():  # what a process has mapped must stay as it is
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
