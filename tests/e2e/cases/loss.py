"""2% of all frames are lost in each direction, and every byte still arrives."""

import re
import signal
from contextlib import contextmanager

from case import Skip, case, expect
from rig.process import Failed, wait_until
from rig.product import DROPPER
from rig.servers import REDIS_PORT, last_line

from .basics import set_and_get
from .transfers import MB, download, put

_TALLY = re.compile(r"ingress seen (\d+) dropped (\d+) egress seen (\d+) dropped (\d+)")


@case("20 MB from nginx at 2% loss", timeout=180)
def loss_download(rig):
    with lossy(rig):
        download(rig, 20 * MB, 4, timeout=150)


@case("20 MB to nginx at 2% loss", timeout=180)
def loss_upload(rig):
    with lossy(rig):
        put(rig, 20 * MB, 4, timeout=150)


@case("2,000 redis requests at 2% loss", timeout=180)
def loss_redis(rig):
    rig.start_redis()
    with lossy(rig), rig.carried_by_user_stack(frames=2000):
        with rig.far.connect(rig.near.ipv4, REDIS_PORT, timeout=60) as connection:
            stream = connection.makefile("rwb")
            for number in range(1000):
                set_and_get(stream, b"key", b"%d " % number * 50)


@case("100 connections made and closed at 2% loss", timeout=180)
def loss_handshakes(rig):
    rig.start_redis()
    with lossy(rig, percent=2, at_least=0), rig.carried_by_user_stack(frames=100):
        for _ in range(100):
            with rig.far.connect(rig.near.ipv4, REDIS_PORT, timeout=60) as connection:
                connection.sendall(b"PING\r\n")
                expect(connection.recv(100) == b"+PONG\r\n", "wrong answer")


@contextmanager
def lossy(rig, percent=2, at_least=20):
    """The project's dropper on far's device, both directions; afterwards it must have dropped something."""
    if rig.mode == "kernel" and not DROPPER.exists():
        raise Skip("the dropper (sidestep-rig) is not built")
    # The dropper sees what the kernel hands it: without this, bundles of segments. Checksum offload stays on.
    for host in (rig.near, rig.far):
        host.check(["ethtool", "-K", host.device, "tso", "off", "gso", "off", "gro", "off"])
        # TCP bundles segments whatever the device says, unless the device takes no bundle of more than one.
        host.check(["ip", "link", "set", "dev", host.device, "gso_max_segs", "1"])
    dropper = start_dropper(rig, rig.far, percent)
    yield
    dropper.signal(signal.SIGINT)
    dropper.exit_code(5)
    tally = _TALLY.search(dropper.output())
    if not tally:
        raise Failed(f"the dropper printed no tally: {last_line(dropper.output())}")
    lost = int(tally[2]) + int(tally[4])
    expect(lost >= at_least, f"only {lost} frames were dropped, this proves nothing: {tally[0]}")


def start_dropper(rig, host, percent):
    """Runs when this returns: it says so in its first line."""
    dropper = rig.start(host, "dropper", [DROPPER, "drop", host.device, "--percent", percent])

    def is_attached():
        if not dropper.is_running():
            raise Failed(f"the dropper ended at start: {last_line(dropper.output())}")
        return dropper.output().startswith("dropping")

    wait_until(is_attached, 10, "the dropper did not attach within 10 s")
    return dropper
