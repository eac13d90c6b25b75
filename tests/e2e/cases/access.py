"""Who may use a device: root, and whom `up --allow` names. Everybody else runs on the kernel, and a line says so."""

from case import case, expect, expect_equal
from rig import servers
from rig.servers import REDIS_PORT

from .death import start_daemon
from .fallback import NOBODY, expect_one_warning, ping_often, rig_binary
from .reload import Load, Nginx

# Nobody, but of the group www-data.
IN_GROUP = ["setpriv", "--reuid", 65534, "--regid", 65534, "--groups", "www-data"]
SECOND_PORT = 6380


def start_redis_as(rig, who, name, port, strict):
    argv = rig_binary(rig).run_argv(servers.redis_argv(rig.home(name), port), strict=strict)
    server = rig.start(rig.near, name, [*who, *argv])
    servers.wait_for_redis(rig.far, server, rig.near.ipv4, port)
    return server


@case("a stranger's server beside root's: it runs on the kernel, one line says why, and root's misses nothing", timeout=60, only_sidestep=True)
def stranger_beside_root(rig):
    rig.start_redis()
    server = start_redis_as(rig, NOBODY, "stranger", SECOND_PORT, strict=False)
    expect_one_warning(server.output())
    expect("user 65534 may not use near0" in server.output() and "--allow" in server.output(), server.output())
    with rig.carried_by_kernel(frames=100):
        ping_often(rig, port=SECOND_PORT)
    with rig.carried_by_user_stack(frames=100):
        ping_often(rig)
    status = rig.sidestep.status()
    expect_equal([port["port"] for port in status["ports"]], [REDIS_PORT], "ports that are served")
    expect_equal(len(status["stacks"]), 1, "stacks")
    code, out, err = rig.near.run([*NOBODY, *rig_binary(rig).run_argv(["cat", "/proc/net/dev"], strict=True)])
    # Under --strict it is an error as soon as the program makes a socket, or says hello at its start.
    expect(code != 0 and "near0" not in out, f"--strict started it all the same: {code}")
    expect_one_warning(err)
    for words in (["port", "off", REDIS_PORT], ["down", rig.near.device], ["doctor", rig.near.device]):
        code, _, err = rig.near.run([*NOBODY, *rig_binary(rig).command(*words)])
        expect(code != 0 and "only root" in err, f"{words}: {code} {err}")
    with rig.carried_by_user_stack(frames=100):
        ping_often(rig)


@case("a server that is not root, of a group that the operator allowed", timeout=60, only_sidestep=True, daemon=False)
def allowed_group(rig):
    rig.sidestep.up("--allow", "@www-data")
    start_redis_as(rig, IN_GROUP, "member", REDIS_PORT, strict=True)
    stranger = start_redis_as(rig, NOBODY, "stranger", SECOND_PORT, strict=False)
    with rig.carried_by_user_stack(frames=100):
        ping_often(rig)
    with rig.carried_by_kernel(frames=100):
        ping_often(rig, port=SECOND_PORT)
    expect_one_warning(stranger.output())


@case("workers that are www-data's, whom nobody allowed: their master was root. They ask a daemon that came later, too", timeout=60,
      only_sidestep=True, daemon=False)
def worker_without_privilege(rig):
    daemon = start_daemon(rig)
    with Nginx(rig, 2) as nginx:
        nginx.await_members()
        for pid in nginx.worker_pids():
            with open(f"/proc/{pid}/status") as file:
                expect("Uid:\t33\t33\t33\t33" in file.read(), f"worker {pid} is not www-data's")
        daemon.end(codes=(-9,), number=9)
        start_daemon(rig)
        # The old workers leave the port as www-data, the successors join it.
        with Load(rig, nginx, kept=False, downloads=0) as load:
            nginx.reload()
            nginx.await_members()
        load.expect_none_failed()
