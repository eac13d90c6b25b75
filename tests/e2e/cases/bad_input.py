"""Bad frames are counted and dropped; bad commands get one line that says what to do. Never a panic, never a hang."""

import re
import socket

import foreign_xdp
from case import case, expect, expect_equal
from frames import ACK, PSH, RST, Forge, malformed, random_frames
from rig import process, product, proof
from rig.process import wait_until
from rig.servers import REDIS_PORT

from .death import expect_frames_add_up
from .fallback import NOBODY, ping, rig_binary

ETH_P_ALL = 0x0003
SEED = 20


@case("malformed frames from the wire: dropped, counted, and redis answers on", timeout=60)
def malformed_frames(rig):
    server = rig.start_redis()
    before = rig.sidestep.status() if rig.mode == "sidestep" else None
    forge = Forge(rig.far, rig.near, REDIS_PORT)
    with rig.far.connect(rig.near.ipv4, REDIS_PORT) as old, wire_socket(rig.far) as wire:
        for _name, frame in malformed(forge):
            wire.send(frame)
            ping(old)
        for frame in random_frames(forge, 3000, SEED):
            wire.send(frame)
        ping(old)
        for frame in aimed_at(forge, old.getsockname()[1]):
            wire.send(frame)
            ping(old)
    with rig.far.connect(rig.near.ipv4, REDIS_PORT) as new:
        ping(new)
    expect(server.is_running(), "redis-server is gone")
    if before:
        after = rig.sidestep.status()
        expect(proof.drops(after) > proof.drops(before) + 10, f"the drops were not counted: {after}")
        expect_frames_add_up(after)


def wire_socket(host):
    wire = host.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    with host.entered():
        wire.bind((host.device, 0))
    return wire


def aimed_at(forge, port):
    """Blind attacks on a live connection: none may end it."""
    for seq in (0, 1 << 30, 2 << 30, 3 << 30):
        yield forge.ipv4(forge.tcp(flags=RST, source_port=port, seq=seq))
        yield forge.ipv4(forge.tcp(flags=ACK | PSH, source_port=port, seq=seq, ack=seq, payload=b"FLUSHALL\r\n"))
        yield forge.ipv4(forge.tcp(source_port=port, seq=seq))


@case("wrong command lines", needs_rig=False, only_sidestep=True, timeout=30)
def wrong_arguments():
    for words in ([], ["frobnicate"], ["up"], ["run"], ["port", "on", "70000"], ["port", "on", "http"],
                  ["run", "--spin", "much", "--", "true"], ["status", "--jsno"]):
        code, out, err = process.run([str(product.BINARY), *words])
        expect(code != 0, f"sidestep {' '.join(words)} exited with 0")
        expect("panicked" not in err, f"sidestep {' '.join(words)} panicked: {err[:200]}")
        expect((out + err).strip(), f"sidestep {' '.join(words)} said nothing")


@case("--help and --version", needs_rig=False, only_sidestep=True, timeout=30)
def help_and_version():
    for words in (["--help"], ["--version"], ["up", "--help"], ["run", "--help"], ["port", "--help"], ["status", "--help"]):
        out = process.check([str(product.BINARY), *words])
        expect(out.strip(), f"sidestep {' '.join(words)} printed nothing")


@case("an unknown device", only_sidestep=True, daemon=False, timeout=30)
def unknown_device(rig):
    expect_one_line_error(*rig.near.run(rig.sidestep.command("up", "nosuch0")), mentions="nosuch0")
    expect_one_line_error(*rig.near.run(rig.sidestep.command("run", "--dev", "nosuch0", "--strict", "--", "true")),
                          mentions="nosuch0")


@case("a program that does not exist", only_sidestep=True, timeout=30)
def unknown_program(rig):
    code, out, err = rig.near.run(rig.sidestep.run_argv(["/no/such/program"]))
    expect_one_line_error(code, out, err, mentions="/no/such/program")
    expect_equal(code, 127, "exit code")


@case("`up` without privileges", only_sidestep=True, daemon=False, timeout=30)
def up_without_privileges(rig):
    words = [*NOBODY, *rig_binary(rig).command("up", rig.near.device)]
    expect_one_line_error(*rig.near.run(words), mentions="root|privilege|CAP_|permitted")


@case("`down` and `port` with no daemon", only_sidestep=True, daemon=False, timeout=30)
def commands_without_daemon(rig):
    for words in (["down", rig.near.device], ["port", "off", REDIS_PORT]):
        expect_one_line_error(*rig.near.run(rig.sidestep.command(*words)), mentions="sidestep up|daemon|not up")


@case("`up` with too little lockable memory", only_sidestep=True, daemon=False, timeout=30)
def too_small_memlock(rig):
    words = ["setpriv", "--bounding-set", "-ipc_lock", "prlimit", "--memlock=65536:65536",
             *rig.sidestep.command("up", rig.near.device)]
    expect_one_line_error(*rig.near.run(words), mentions="memlock|ulimit -l|LimitMEMLOCK")


@case("another XDP program is there: refused with its id, unless --replace", only_sidestep=True, daemon=False, timeout=30)
def another_xdp_program(rig):
    foreign_xdp.attach(rig.near)
    expect_one_line_error(*rig.near.run(rig.sidestep.command("up", rig.near.device)), mentions=r"XDP.*\bid\b.*\d|--replace")
    rig.sidestep.up("--replace")
    wait_until(rig.sidestep.status_or_none, 5, "no status after up --replace")


def expect_one_line_error(code, _out, err, mentions):
    lines = err.strip().splitlines()
    expect(code != 0, f"exit code 0, and it said: {err[:200]}")
    expect("panicked" not in err, f"a panic: {err[:300]}")
    expect_equal(len(lines), 1, f"lines of error {lines[:3]}")
    expect(re.search(mentions, lines[0], re.IGNORECASE), f"the error does not mention {mentions}: {lines[0]}")
