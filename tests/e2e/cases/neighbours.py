"""Two applications on one device at a time, each with its ports; what one does is nothing to the other."""

import signal
import time

from case import case, expect, expect_equal
from rig import servers
from rig.servers import NGINX_PORT, REDIS_PORT

from .fallback import NOBODY, ping, ping_often
from .queues import expect_health
from .reload import Load, Nginx, wrong_stacks
from .switch import Pings, get

SECOND = "10.77.0.3"


def start_redis_at(rig, name, address, served=True):
    argv = [*servers.redis_argv(rig.home(name)), "--bind", address]
    server = rig.start_served(name, argv, [REDIS_PORT], strict=False) if served else rig.start(rig.near, name, argv)
    servers.wait_for_redis(rig.far, server, address)
    return server


def who_answers(rig, address, times=30):
    pids = set()
    for _ in range(times):
        with rig.far.connect(address, REDIS_PORT) as connection:
            connection.sendall(b"INFO server\r\n")
            pids.add(int(connection.recv(10000).decode().partition("process_id:")[2].split()[0]))
    return pids


def two_addresses(rig, served):
    rig.near.check(["ip", "addr", "add", f"{SECOND}/24", "dev", rig.near.device])
    first = start_redis_at(rig, "first", rig.near.ipv4)
    with rig.carried_by_user_stack(frames=100):
        expect_equal(who_answers(rig, rig.near.ipv4), {first.pid}, "who answers at the first address")
    with rig.far.connect(rig.near.ipv4, REDIS_PORT) as kept:
        ping(kept)
        second = start_redis_at(rig, "second", SECOND, served)
        # Who asked at the second address before anybody listened there was refused.
        before = wrong_stacks(rig)
        for _ in range(2):
            expect_equal(who_answers(rig, SECOND), {second.pid}, "who answers at the second address")
            expect_equal(who_answers(rig, rig.near.ipv4), {first.pid}, "who answers at the first address")
        with rig.carried_by_user_stack(stack_is_alive=False):
            ping(kept)
    expect_equal(wrong_stacks(rig), before, "segments that met the wrong stack")
    second.end()
    first.end()


@case("one port at two addresses, by two applications: each answers at its own, by the kernel", timeout=60)
def one_port_at_two_addresses(rig):
    two_addresses(rig, served=True)


@case("the same, one of them without sidestep", timeout=60)
def one_port_also_in_the_kernel(rig):
    two_addresses(rig, served=False)


@case("a port at an address where nobody listens is refused", timeout=60)
def nobody_at_the_second_address(rig):
    rig.near.check(["ip", "addr", "add", f"{SECOND}/24", "dev", rig.near.device])
    start_redis_at(rig, "first", rig.near.ipv4)
    with rig.carried_by_user_stack():
        for _ in range(3):
            try:
                rig.far.connect(SECOND, REDIS_PORT).close()
                refused = False
            except ConnectionRefusedError:
                refused = True
            expect(refused, "somebody answers")
            ping_often(rig, rounds=3)


def frames_of(rig, pids):
    return sum(stack["rx_frames"] for stack in rig.sidestep.status()["stacks"] if stack["pid"] in pids)


def redis_ends(rig, server):
    server.end()


def redis_is_killed(rig, server):
    server.signal(signal.SIGKILL)
    server.exit_code(5)


def redis_is_switched_off(rig, server):
    rig.sidestep.port("off", REDIS_PORT)
    ping_often(rig, rounds=5)
    server.end()
    rig.sidestep.port("on", REDIS_PORT)


@case("redis and nginx on one device, both loaded: redis leaves by its end, by kill -9, by `port off`, and nginx misses nothing", timeout=60,
      only_sidestep=True)
def redis_leaves_nginx(rig):
    with Nginx(rig, 2) as nginx:
        nginx.await_members()
        for leave in (redis_ends, redis_is_killed, redis_is_switched_off):
            server = rig.start_redis()
            before = frames_of(rig, nginx.worker_pids())
            with Load(rig, nginx, downloads=0) as load:
                with rig.far.connect(rig.near.ipv4, REDIS_PORT) as client:
                    ping(client)
                leave(rig, server)
                time.sleep(0.3)
            load.expect_none_failed()
            expect(frames_of(rig, nginx.worker_pids()) - before > 200, "nginx' stacks had hardly any frames")
    expect_health(rig)


def nginx_quits(rig, nginx):
    nginx.tell("quit")
    nginx.await_end()


def nginx_is_killed(rig, nginx):
    rig.near.check(["kill", "-9", nginx.master(), *nginx.worker_pids()])
    nginx.await_end()


def nginx_is_switched_off(rig, nginx):
    rig.sidestep.port("off", NGINX_PORT)
    with rig.far.connect(rig.near.ipv4, NGINX_PORT) as client:
        get(client)
    rig.sidestep.port("on", NGINX_PORT)


@case("the same the other way round: nginx leaves, and redis' connections, old ones and new ones, miss nothing", timeout=60, only_sidestep=True)
def nginx_leaves_redis(rig):
    server = rig.start_redis()
    for leave in (nginx_quits, nginx_is_killed, nginx_is_switched_off):
        with Nginx(rig, 2) as nginx:
            nginx.await_members()
            before = frames_of(rig, [server.pid])
            with Load(rig, nginx, closing=False, downloads=0), Pings(rig):
                leave(rig, nginx)
                time.sleep(0.3)
            expect(frames_of(rig, [server.pid]) - before > 200, "redis' stack had hardly any frames")
    expect_health(rig)


@case("a second server that asks for a port that is taken is refused by bind, and the first one misses nothing", timeout=60)
def taken_port(rig):
    first = rig.start_redis()
    with rig.far.connect(rig.near.ipv4, REDIS_PORT) as client:
        for name, who in (("second", []), ("another", NOBODY)):
            argv = [*who, *servers.redis_argv(rig.home(name))]
            second = rig.start_served(name, argv, [REDIS_PORT], strict=False)
            expect(second.exit_code(10) != 0 and "Address already in use" in second.output(), second.output()[-300:])
            with rig.carried_by_user_stack(frames=100):
                ping(client)
                ping_often(rig)
    expect(first.is_running(), "the first server is gone")
    if rig.mode == "sidestep":
        (line,) = rig.sidestep.status()["ports"]
        expect_equal((line["port"], line["members"]), (REDIS_PORT, 1), "who serves the port")
