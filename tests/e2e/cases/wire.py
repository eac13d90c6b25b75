"""A long and bad line between the hosts, and every byte still arrives. The other cases know only the short good one."""

from case import Skip, case, expect, expect_equal, sha256_of_file
from rig.line import line
from rig.product import DROPPER
from rig.servers import NGINX_PORT, write_random_file

from .transfers import MB, fetch


@case("2 MB from nginx and 1 MB to it, over 20 ms and 1% loss each way", timeout=60, long_wire=True)
def long_lossy_wire(rig):
    if not DROPPER.exists():
        raise Skip("the wire (sidestep-rig) is not built")
    with line(rig, 20, loss=1, rate_mbit=100, queue_ms=20, seed=3) as wire:
        rig.start_nginx()
        with rig.carried_by_user_stack(frames=100):
            check_download(rig, 2 * MB)
            check_upload(rig, 1 * MB)
    for tally in (wire.outward, wire.inward):
        expect(not tally.trouble(), f"the wire is not what it should be: {tally.trouble()}")
        expect(tally.lost >= 5, f"hardly anything was lost, this proves nothing: {tally}")


def check_download(rig, size):
    file = rig.www() / "file"
    write_random_file(file, size)
    got = fetch(rig.far, f"http://{rig.near.ipv4}:{NGINX_PORT}/file", timeout=25)
    expect_equal(got, (sha256_of_file(file), size), "digest and size of what came down")


def check_upload(rig, size):
    file = rig.scratch / "upload"
    write_random_file(file, size, seed=2)
    rig.far.check(["curl", "-sS", "--fail", "--max-time", 25, "-T", file, f"http://{rig.near.ipv4}:{NGINX_PORT}/put/upload"])
    expect_equal(sha256_of_file(rig.www() / "put/upload"), sha256_of_file(file), "digest of what went up")
