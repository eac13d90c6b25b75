"""Name servers, over UDP and TCP, and those who ask them."""

import concurrent.futures
import contextlib
import struct

from case import case, expect, expect_equal
from rig.process import wait_until

from .clients import as_client
from .udp import ask, datagrams_by_user_stack, datagrams_mostly_by_user_stack, far_socket

PORT = 53

_UNBOUND = """
server:
    interface: 0.0.0.0
    interface: ::0
    port: {port}
    num-threads: 2
    so-reuseport: yes
    access-control: 0.0.0.0/0 allow
    access-control: ::/0 allow
    do-daemonize: no
    chroot: ""
    username: ""
    directory: "{home}"
    pidfile: "{home}/pid"
    use-syslog: no
    module-config: "iterator"
    do-not-query-localhost: no
    edns-buffer-size: 1232
    max-udp-size: 1232
{zones}
remote-control:
    control-enable: no
"""

# 40 strings of 100 bytes: too much for a datagram, so a client asks again over TCP.
_OWN = """
    local-zone: "sidestep.test." static
    local-data: "a.sidestep.test. A 192.0.2.7"
""" + "\n".join(f"    local-data: 'many.sidestep.test. TXT \"{number:03}{'x' * 97}\"'" for number in range(40))


_FORWARDED = """
    local-zone: "test." nodefault
forward-zone:
    name: "."
    forward-addr: {address}@{port}
"""


def unbound_argv(home, zones=_OWN):
    (home / "unbound.conf").write_text(_UNBOUND.format(home=home, zones=zones, port=PORT))
    return ["unbound", "-d", "-p", "-c", home / "unbound.conf"]


def query(number, name, kind=1):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack(">6H", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", kind, 1)


def look_up(client, there, number, timeout=3):
    answer = ask(client, query(number, "a.sidestep.test"), there, timeout)
    expect_equal(answer[:2], struct.pack(">H", number), "the answer's number")
    expect_equal(answer[-4:], bytes([192, 0, 2, 7]), "the address of a.sidestep.test")


def look_up_by_tcp(connection, numbers):
    """All questions at once, on one connection."""
    connection.sendall(b"".join(struct.pack(">H", 33) + query(number, "a.sidestep.test") for number in numbers))
    stream = connection.makefile("rb")
    answers = [stream.read(*struct.unpack(">H", stream.read(2))) for _ in numbers]
    expect_equal(sorted(answer[:2] for answer in answers), [struct.pack(">H", number) for number in numbers], "numbers")
    expect(all(answer.endswith(bytes([192, 0, 2, 7])) for answer in answers), "an answer over TCP differs")


def wait_for_answers(rig, server, version=4):
    """Until the server answers, and its answers leave by the user stack."""
    def answers():
        expect(server.is_running(), server.output())
        before = rig.near.kernel_datagrams()
        with contextlib.suppress(OSError), far_socket(rig, version) as client:
            look_up(client, (rig.near.address(version), PORT), 1, timeout=0.3)
            return rig.mode == "kernel" or rig.near.kernel_datagrams() == before
        return False

    wait_until(answers, 10, f"{server.log.stem} did not answer over IPv{version}")


def dig(rig, host, address, *words, through=()):
    return host.check([*through, "dig", f"@{address}", "-p", PORT, "+short", "+time=3", "+tries=1", *words]).split("\n")


@case("unbound with two threads: datagrams of many clients at both IP versions, TCP, and an answer too large for UDP", timeout=60)
def unbound_serves(rig):
    server = rig.start_served("unbound", unbound_argv(rig.home("unbound")), [PORT, f"{PORT}/udp"])
    for version in (4, 6):
        wait_for_answers(rig, server, version)
    with datagrams_by_user_stack(rig, 600), contextlib.ExitStack() as stack:
        for version in (4, 6):
            clients = [stack.enter_context(far_socket(rig, version)) for _ in range(20)]
            for number in range(300):
                look_up(clients[number % 20], (rig.near.address(version), PORT), number)
    with rig.carried_by_user_stack(frames=50):
        for _ in range(5):
            with rig.far.connect(rig.near.ipv4, PORT) as connection:
                look_up_by_tcp(connection, range(20))
        texts = dig(rig, rig.far, rig.near.ipv4, "many.sidestep.test", "TXT")
        expect_equal(len([text for text in texts if len(text) == 102]), 40, "texts that came over TCP")
    server.end()


@case("unbound asks another name server behind the device: a client of it, over UDP and TCP", timeout=60)
def unbound_forwards(rig):
    far = rig.start(rig.far, "unbound-far", unbound_argv(rig.home("unbound-far")))
    argv = unbound_argv(rig.home("unbound"), _FORWARDED.format(address=rig.far.ipv4, port=PORT))
    # Every port: it binds a socket to one of its own choice for each question.
    server = rig.start_served("unbound", argv, [])
    wait_for_answers(rig, server)
    with rig.carried_by_user_stack(frames=6):
        texts = dig(rig, rig.far, rig.near.ipv4, "many.sidestep.test", "TXT")
        expect_equal(len([text for text in texts if len(text) == 102]), 40, "texts")
    with datagrams_by_user_stack(rig, 60), far_socket(rig) as client:
        for number in range(30):
            answer = ask(client, query(number, f"no{number}.sidestep.test"), (rig.near.ipv4, PORT))
            expect_equal(answer[3] & 15, 3, "code of a name that does not exist")
    expect(far.is_running(), far.output())
    server.end()


@case("dnsmasq over TCP: a process for each connection", timeout=60)
def dnsmasq_by_tcp(rig):
    argv = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--no-resolv", "--no-hosts",
            "--address=/sidestep.test/192.0.2.7", "--port=53", "--pid-file="]
    server = rig.start_served("dnsmasq", argv, [PORT, f"{PORT}/udp"])
    wait_for_answers(rig, server)
    with rig.carried_by_user_stack(frames=100):
        for _ in range(20):
            with rig.far.connect(rig.near.ipv4, PORT) as connection:
                look_up_by_tcp(connection, range(10))
    server.end()


@case("dig under sidestep, over UDP and TCP, many at once", timeout=60)
def dig_as_client(rig):
    far = rig.start(rig.far, "unbound-far", unbound_argv(rig.home("unbound-far")))
    wait_until(lambda: rig.far.run(["dig", f"@{rig.far.ipv4}", "+time=1", "+tries=1", "a.sidestep.test"])[0] == 0, 10,
               lambda: far.output())
    through = as_client(rig, [])
    # Each dig has a stack of its own, which does not know the neighbour yet: the question leaves by the kernel.
    with rig.carried_by_user_stack(frames=60, stack_is_alive=False), datagrams_mostly_by_user_stack(rig, 20, few=21):
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(dig, rig, rig.near, rig.far.ipv4, *words, "a.sidestep.test", through=through)
                     for words in ([], ["+tcp"]) * 20]
            expect_equal({tuple(future.result()) for future in asked}, {("192.0.2.7", "")}, "answers")
        texts = dig(rig, rig.near, rig.far.ipv4, "many.sidestep.test", "TXT", through=through)
        expect_equal(len([text for text in texts if len(text) == 102]), 40, "texts that came over TCP")
